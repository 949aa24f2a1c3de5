"""The Claude Agent SDK's sessions in a .mem file, and memory as its tools."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("claude_agent_sdk")

from claude_agent_sdk import get_session_messages_from_store, list_sessions_from_store
from claude_agent_sdk.testing import run_session_store_conformance

from memkit.errors import InvalidInput
from memkit_adapters.claude_agent import MemkitSessionStore, memory_server, memory_tools

KEY = {"project_key": "p", "session_id": "s"}
ODD = ["a.b", "a/b", "ana@example.org", "日本語", "x" * 1000, '["p", "s", null]']


async def test_the_sdks_own_conformance_suite_passes(open_memory):
    names = iter(f"{n}.mem" for n in range(100))
    probed = []

    def make():
        probed.append(MemkitSessionStore(open_memory(next(names))))
        return probed[-1]

    await run_session_store_conformance(make, skip_optional=frozenset())
    assert len(probed) == 15  # a probe, and one store for each of the 14 contracts: none was skipped


async def test_a_retried_batch_is_recorded_once_and_what_has_no_uuid_each_time(memory):
    store = MemkitSessionStore(memory)
    batch = [{"type": "user", "uuid": "1", "n": 2**80}, {"type": "tag"}]
    await store.append(KEY, batch)
    await store.append(KEY, batch)
    assert await store.load(KEY) == [*batch, {"type": "tag"}]


async def test_sessions_of_any_names_survive_reopening_apart_from_each_other(open_memory):
    store = MemkitSessionStore(open_memory())
    keys = [{"project_key": one, "session_id": other} for one in ODD for other in ODD]
    for key in keys:
        await store.append(key, [{"type": "x", "uuid": "same", "of": key}])
        await store.append({**key, "subpath": "subagents/a"}, [{"type": "x", "sub": key}])
    again = MemkitSessionStore(open_memory())
    for key in keys:
        assert await again.load(key) == [{"type": "x", "uuid": "same", "of": key}]
        assert await again.list_subkeys(key) == ["subagents/a"]
    for project in ODD:
        assert {one["session_id"] for one in await again.list_sessions(project)} == set(ODD)


async def test_users_share_nothing_under_the_same_key(memory):
    ana, ben = (MemkitSessionStore(memory.scope(user_id=user)) for user in ("ana", "ben"))
    await ana.append(KEY, [{"type": "x", "uuid": "1", "who": "ana"}])
    await ben.append(KEY, [{"type": "x", "uuid": "1", "who": "ben"}])
    await ana.delete(KEY)
    assert await ana.load(KEY) is None
    assert await ben.load(KEY) == [{"type": "x", "uuid": "1", "who": "ben"}]


async def test_many_appends_at_once_lose_nothing(open_memory):
    stores = [MemkitSessionStore(open_memory()) for _ in range(2)]
    await asyncio.gather(*(stores[n % 2].append(KEY, [{"type": "x", "n": n}]) for n in range(40)))
    assert sorted(entry["n"] for entry in await stores[0].load(KEY)) == list(range(40))


async def test_a_batch_that_cannot_be_stored_leaves_the_transcript_as_it_was(memory):
    store = MemkitSessionStore(memory)
    await store.append(KEY, [{"type": "x", "n": 1}])
    with pytest.raises(InvalidInput):
        await store.append(KEY, [{"type": "x", "n": 2}, {"type": "x", "n": object()}])
    assert await store.load(KEY) == [{"type": "x", "n": 1}]
    assert memory.verify().ok


async def test_the_sdk_lists_and_reads_sessions_from_the_store(memory, tmp_path):
    from claude_agent_sdk import project_key_for_directory

    store, session = MemkitSessionStore(memory), "550e8400-e29b-41d4-a716-446655440000"
    said = {"type": "user", "uuid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "parentUuid": None, "sessionId": session,
            "timestamp": "2026-01-02T03:04:05.000Z", "message": {"role": "user", "content": "Where is the key?"}}  # fmt: skip
    await store.append({"project_key": project_key_for_directory(str(tmp_path)), "session_id": session}, [said])
    (info,) = await list_sessions_from_store(store, directory=str(tmp_path))
    assert (info.session_id, info.first_prompt) == (session, "Where is the key?")
    (message,) = await get_session_messages_from_store(store, session, directory=str(tmp_path))
    assert message.message["content"] == "Where is the key?"
    assert memory.search("the key", limit=1)[0].run_id == session


async def call(tools, name, **arguments):
    tool = next(tool for tool in tools if tool.name == name)
    answer = await tool.handler(arguments)
    return json.loads(answer["content"][0]["text"])


async def test_the_tools_remember_search_and_forget_within_a_scope(memory):
    memory.add("Ben eats peanuts.", user_id="ben")
    tools = memory_tools(memory.scope(user_id="ana"))
    kept = await call(tools, "remember", text="Ana is allergic to peanuts.")
    assert [hit["id"] for hit in await call(tools, "search_memory", query="peanuts")] == [kept["id"]]
    assert await call(tools, "forget", id=kept["id"]) is True
    assert await call(tools, "search_memory", query="peanuts", limit=2) == []


def test_the_tools_say_what_they_take(memory):
    search, *_ = memory_tools(memory)
    assert search.input_schema["required"] == ["query"]
    assert search.input_schema["properties"]["limit"]["default"] == 5
    assert [tool.name for tool in memory_tools(memory, read_only=True)] == ["search_memory"]
    assert memory_server(memory)["name"] == "memkit"
