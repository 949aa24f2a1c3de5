"""What holds of every adapter alike: odd names, threads beside an event loop, failures, users and restarts."""

from __future__ import annotations

import asyncio
import threading

import pytest
from adapters_support import DOORS, ClaudeAgent, LangChainMiddleware, LlamaIndex, OpenAIAgents, PydanticAI
from support import embed

ODD = ["a.b/c", "ana@example.org", "Ünïcødé☕日本", "k" * 1000, '"quoted"\\#1', "*%_[]?;--"]
every_adapter = pytest.mark.parametrize("door", DOORS)


class Embedder:
    """The embedder of the tests, unless it is told to fail."""

    failing = False

    def embed_documents(self, texts):
        if self.failing:
            raise ConnectionError("no embedding today")
        return embed(texts)

    def embed_query(self, text):
        return self.embed_documents([text])[0]


@every_adapter
async def test_names_of_any_characters_survive_a_restart_apart_from_each_other(door, open_memory):
    memory = open_memory()
    for name in ODD:
        await door(memory, name).keep(f"text of {name[:9]}")
    memory.close()
    again = open_memory()
    for name in ODD:
        assert await door(again, name).kept() == [f"text of {name[:9]}"]


@every_adapter
async def test_threads_and_a_loop_at_once_lose_nothing(door, memory):
    one = door(memory, "shared")

    def put(who):
        for number in range(8):
            one.put(f"text {who}{number}")

    threads = [threading.Thread(target=put, args=(who,)) for who in "ab"]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(one.keep(f"text c{number}") for number in range(8)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(await one.kept()) == [f"text {who}{number}" for who in "abc" for number in range(8)]
    assert memory.verify().ok


@every_adapter
async def test_an_exception_leaves_the_file_as_it_was(door, open_memory):
    embedder = Embedder()
    memory = open_memory(embedder=embedder)
    await door(memory, "n").keep("first")
    embedder.failing = True
    with pytest.raises(Exception, match=r"no embedding today|Error executing tool"):  # MCP hides it
        await door(memory, "n").keep("second")
    embedder.failing = False
    assert memory.verify().ok
    memory.close()
    again = open_memory(embedder=embedder)
    assert await door(again, "n").kept() == ["first"]
    await door(again, "n").keep("third")
    assert sorted(await door(again, "n").kept()) == ["first", "third"]


@pytest.mark.parametrize("door", [LangChainMiddleware, OpenAIAgents, ClaudeAgent, PydanticAI, LlamaIndex])
@pytest.mark.parametrize("text", ["w" * 1_100_000, "half a character \ud83d"], ids=["long", "half"])
async def test_words_that_no_item_holds_stop_nobodys_run(door, memory, text):
    await door(memory, "n").keep(text)
    (kept,) = await door(memory, "n").kept()
    assert kept[:16] == text[:16]


@every_adapter
async def test_two_views_use_one_name_and_see_their_own(door, open_memory):
    memory = open_memory()
    for agent in ("one", "two"):
        await door(memory.scope(agent_id=agent), "n").keep("the same text")
    await door(memory.scope(agent_id="two"), "n").keep("more of it")
    memory.close()
    one, two = (door(open_memory().scope(agent_id=agent), "n") for agent in ("one", "two"))
    assert await one.kept() == ["the same text"]
    assert sorted(await two.kept()) == ["more of it", "the same text"]
