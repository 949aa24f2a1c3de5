"""memkit in the Claude Agent SDK: where its sessions are mirrored to, and long-term memory as tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, validate_call

from memkit import Item, Memory
from memkit.journal import Journal, value_of
from memkit.views import everything
from memkit_adapters._common import memory_functions
from memkit_adapters._guard import missing
from memkit_adapters._threads import finished

try:
    from claude_agent_sdk import (
        McpSdkServerConfig,
        SdkMcpTool,
        SessionKey,
        SessionListSubkeysKey,
        SessionStore,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
        create_sdk_mcp_server,
        fold_session_summary,
        tool,
    )
except ImportError as error:
    raise missing("claude-agent", error) from error


class MemkitSessionStore(SessionStore):
    """Transcripts in a .mem file: `ClaudeAgentOptions(session_store=MemkitSessionStore(memory))`.

    An entry of a transcript is an item, with the session id as its `run_id`. Listings and summaries are derived from
    the entries when they are asked for: they cost time in proportion to the project, and cannot disagree with it.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Record entries, all together; one whose `uuid` is there already is not recorded twice."""
        await finished(self._journal(key).append, entries, [entry.get("uuid") for entry in entries])

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """The entries in the order in which they were recorded; None when there are none."""
        return await asyncio.to_thread(self._journal(key).read) or None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, and when each was last written to."""
        found = await asyncio.to_thread(self._sessions, project_key)
        return [{"session_id": id_, "mtime": _written(items)} for id_, items in found.items()]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """The SDK's summaries of a project's sessions."""
        return await asyncio.to_thread(self._summaries, project_key)

    async def delete(self, key: SessionKey) -> None:
        """End a transcript, and with a session's own those of its subagents; their history stays (`Memory.erase`)."""
        await finished(self._delete, key)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The subpaths of a session that have entries."""
        return await asyncio.to_thread(self._subpaths, key)

    def _journal(self, key: SessionKey) -> Journal:
        address = {name: value for name, value in key.items() if value is not None}
        name = json.dumps([key["project_key"], key["session_id"], key.get("subpath")], ensure_ascii=False)
        return Journal(self.memory.scope(run_id=key["session_id"]), name, metadata={"claude": address})

    def _sessions(self, project_key: str) -> dict[str, list[Item]]:
        """Session id -> the items of its own transcript."""
        found: dict[str, list[Item]] = {}
        where = {"claude.project_key": project_key, "claude.subpath": {"exists": False}}
        for item in everything(self.memory, where):
            found.setdefault(item.metadata["claude"]["session_id"], []).append(item)
        return found

    def _summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        summaries = []
        for id_, items in self._sessions(project_key).items():
            key: SessionKey = {"project_key": project_key, "session_id": id_}
            summary = fold_session_summary(None, key, [value_of(item) for item in items])
            summaries.append({**summary, "mtime": _written(items)})
        return summaries  # type: ignore[return-value]  # a summary with its time is still one

    def _delete(self, key: SessionKey) -> None:
        if key.get("subpath"):
            self._journal(key).clear()
        else:
            self.memory.delete_where(_of(key), run_id=key["session_id"])

    def _subpaths(self, key: SessionListSubkeysKey) -> list[str]:
        within = everything(self.memory.scope(run_id=key["session_id"]), _of(key))
        return sorted({item.metadata["claude"]["subpath"] for item in within if "subpath" in item.metadata["claude"]})


def _of(key: Any) -> dict[str, Any]:
    return {"claude.project_key": key["project_key"], "claude.session_id": key["session_id"]}


def _written(items: list[Item]) -> int:
    """When the last of some items was recorded, in milliseconds since 1970."""
    return max(int(item.updated_at.timestamp() * 1000) for item in items)


def memory_server(memory: Memory, *, read_only: bool = False) -> McpSdkServerConfig:
    """Long-term memory for `ClaudeAgentOptions(mcp_servers={"memory": memory_server(memory)})`: search_memory, remember
    and forget, bound to a memory or a view of it. Allow them as `mcp__memory__search_memory` and so on.
    """
    return create_sdk_mcp_server("memkit", tools=memory_tools(memory, read_only=read_only))


def memory_tools(memory: Memory, *, read_only: bool = False) -> list[SdkMcpTool[Any]]:
    """The tools alone, for a server of your own."""
    return [_tool(function) for function in memory_functions(memory, read_only=read_only)]


def _tool(function: Callable[..., Any]) -> SdkMcpTool[Any]:
    checked, described = validate_call(function), TypeAdapter[Any](function)  # type: ignore[arg-type]  # a function has a schema too

    @tool(function.__name__, function.__doc__ or "", described.json_schema())
    async def call(arguments: dict[str, Any]) -> dict[str, Any]:
        answer = await asyncio.to_thread(checked, **arguments)
        return {"content": [{"type": "text", "text": json.dumps(answer, ensure_ascii=False)}]}

    return call
