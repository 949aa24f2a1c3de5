"""memkit for any client of the Model Context Protocol: a .mem file as tools, resources and a prompt.

Whose memory it is is settled when the server starts, by its command line; no tool takes a user, so that a model can
neither choose nor change it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from memkit import Memory, __version__
from memkit.errors import InvalidInput, ItemNotFound
from memkit_adapters._common import INSTRUCTIONS, refusing, shown
from memkit_adapters._guard import missing

try:
    from mcp import MCPError
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import INVALID_PARAMS, ToolAnnotations
except ImportError as error:
    raise missing("mcp", error) from error

LOOPBACK = ("127.0.0.1", "localhost", "::1")
READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
ENDS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
Tool = Callable[..., Any]


def memory_server(memory: Memory, *, read_only: bool = False) -> MCPServer:
    """A server over a memory or a view of it; `run("stdio")` or `run("streamable-http")` starts it.

    Args:
        read_only: offer what reads alone.
    """
    server = MCPServer("memkit", title="memkit", version=__version__, instructions=INSTRUCTIONS)
    for tool in _reading(memory):
        server.tool(annotations=READS)(refusing(tool, ToolError))
    for tool, hints in [] if read_only else _writing(memory):
        server.tool(annotations=hints)(refusing(tool, ToolError))
    _resources(server, memory)
    return server


def serve(
    path: str,
    *,
    user_id: str | None = None,
    agent_id: str | None = None,
    run_id: str | None = None,
    read_only: bool = False,
    http: bool = False,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Serve a file until the client goes, over stdio, or over streamable HTTP on this machine alone.

    Raises:
        InvalidInput: a host that other machines could reach: the server has no authentication.
    """
    if host not in LOOPBACK:
        raise InvalidInput(f"host={host!r}: the server is for this machine alone; use {LOOPBACK[0]}")
    import lancedb  # noqa: F401 - loaded before stdio belongs to the protocol: it must not print, nor stall the first call
    import numpy as np  # noqa: F401

    with Memory(path) as memory:
        view = memory.scope(user_id=user_id, agent_id=agent_id, run_id=run_id)
        server = memory_server(view, read_only=read_only)
        if http:
            server.run("streamable-http", host=host, port=port)
        else:
            server.run("stdio")


def _reading(memory: Memory) -> list[Tool]:
    def search_memories(query: str, limit: int = 5) -> list[dict[str, Any]]:
        """Search long-term memory; the best matches first, with ids and times."""
        return [{**shown(hit), "score": round(hit.score, 4)} for hit in memory.search(query, limit=limit)]

    def recall_memories(query: str, max_tokens: int = 800) -> str:
        """What long-term memory holds on a question, as dated, cited lines; says so when there is nothing."""
        return memory.recall(query, max_tokens=max_tokens).text

    def get_memory(id: str) -> dict[str, Any]:
        """One memory, whole, with its metadata."""
        return _whole(memory, id)

    def list_memories(limit: int = 20, cursor: str | None = None) -> dict[str, Any]:
        """Memories in the order in which they were recorded, a page at a time; pass `cursor` on for the next one."""
        page = memory.list(limit=limit, cursor=cursor)
        return {"memories": [shown(item) for item in page.items], "cursor": page.cursor}

    def memory_history(id: str) -> list[dict[str, Any]]:
        """Every version of one memory, and its deletion, oldest first."""
        changes = memory.history(id)
        return [{"kind": c.kind, "at": c.at.isoformat(), "text": c.item.text if c.item else None} for c in changes]

    return [search_memories, recall_memories, get_memory, list_memories, memory_history]


def _writing(memory: Memory) -> list[tuple[Tool, ToolAnnotations]]:
    def add_memory(text: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
        """Store one fact, preference or decision, in words that make sense on their own."""
        return shown(memory.add(text, metadata=metadata)[0])

    def update_memory(id: str, text: str) -> dict[str, Any]:
        """Record a new version of a memory that has changed; the former one stays in its history."""
        return shown(memory.update(id, text))

    def delete_memory(id: str) -> bool:
        """Remove a memory that is wrong or no longer wanted. Returns whether there was one."""
        return memory.delete(id) == 1

    def feedback(query: str, used: list[str], wrong: list[str] | None = None) -> bool:
        """Say which memories (by id) helped with a query and which misled: later searches learn from it."""
        memory.feedback(query, used=used, wrong=wrong or [])
        return True

    return [(add_memory, WRITES), (update_memory, WRITES), (delete_memory, ENDS), (feedback, WRITES)]


def _resources(server: MCPServer, memory: Memory) -> None:
    @server.resource("memkit://stats", mime_type="application/json")
    def stats() -> str:
        """The memory in numbers."""
        return memory.stats().model_dump_json(include={"items", "versions", "deletions", "embedder"})

    def item(id: str) -> str:
        """One memory, whole."""
        return json.dumps(_whole(memory, id), ensure_ascii=False)

    def recall(question: str) -> str:
        """Answer a question from what is remembered."""
        return f"What is remembered:\n{memory.recall(question).text}\n\nQuestion: {question}"

    refusal = partial(MCPError, INVALID_PARAMS)
    server.resource("memkit://items/{id}", mime_type="application/json")(refusing(item, refusal))
    server.prompt()(refusing(recall, refusal))


def _whole(memory: Memory, id: str) -> dict[str, Any]:
    found = memory.get(id)
    if found is None:
        raise ItemNotFound(f"no memory {id!r} here; search_memories and list_memories name those that there are")
    return found.model_dump(mode="json", exclude_none=True)
