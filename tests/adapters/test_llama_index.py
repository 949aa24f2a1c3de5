"""The block inside LlamaIndex's own Memory and a chat engine with a scripted model."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, ImageBlock, LLMMetadata
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import CustomLLM
from llama_index.core.memory import Memory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from memkit_adapters.llama_index import MemkitMemoryBlock


class Listener(CustomLLM):
    """A model that writes down what it is sent, and answers the same every time."""

    seen: list[str]

    @property
    def metadata(self):
        return LLMMetadata()

    def complete(self, prompt, formatted=False, **more):
        self.seen.append(prompt)
        return CompletionResponse(text="Noted.")

    def stream_complete(self, prompt, formatted=False, **more):
        yield self.complete(prompt)


def said(*texts, role="user"):
    return [ChatMessage(role=role, content=text) for text in texts]


@pytest.fixture
async def chat():
    """Makes a LlamaIndex memory with one block; the engine of its chat store is closed at the end."""
    engine = create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=StaticPool)

    def make(block, session_id="s1", **more):
        return Memory.from_defaults(session_id=session_id, memory_blocks=[block], async_engine=engine, **more)

    yield make
    await engine.dispose()


async def test_a_later_session_is_told_what_an_earlier_one_was_told(open_memory, chat):
    with open_memory() as memory:
        block = MemkitMemoryBlock(memory=memory.scope(user_id="ana"))
        earlier = chat(block)
        await earlier.aput_messages(said("I am allergic to peanuts"))
        await block.aput(await earlier.aget_all())
    with open_memory() as memory:
        later = chat(MemkitMemoryBlock(memory=memory.scope(user_id="ana")), "s2")
        told = await later.aget(input="am I allergic to something?")
    assert told[0].role == "system"
    assert "allergic to peanuts" in told[0].content
    assert "<long_term_memory>" in told[0].content


async def test_a_chat_engine_sees_what_memory_holds(memory, chat):
    memory.add("I am allergic to peanuts", user_id="ana")
    model = Listener(seen=[])
    engine = SimpleChatEngine.from_defaults(
        llm=model, memory=chat(MemkitMemoryBlock(memory=memory.scope(user_id="ana")))
    )
    await engine.achat("am I allergic to something?")
    assert "allergic to peanuts" in model.seen[0]


async def test_what_no_longer_fits_the_history_goes_into_memory(memory, chat):
    short = chat(MemkitMemoryBlock(memory=memory), token_limit=60, token_flush_size=10)
    for number in range(12):
        await short.aput(said(f"fact number {number} about tea")[0])
        await short.aput(said(f"noted {number}", role="assistant")[0])
    kept = {item.text for item in memory.list().items}
    history = {message.content for message in await short.aget_all()} - kept
    assert "fact number 0 about tea" in kept
    assert {item.run_id for item in memory.list().items} == {"s1"}
    assert {item.metadata["role"] for item in memory.list().items} == {"user", "assistant"}
    assert len(kept) + len(history) == 24


async def test_the_same_message_of_a_session_is_kept_once(memory):
    block = MemkitMemoryBlock(memory=memory, session_id="s1")
    messages = said("I like tea", "I like tea")
    for _ in range(2):
        await block.aput(messages)
        await block.aput(messages, session_id="s1")
    assert [item.text for item in memory.list().items] == ["I like tea"]
    await block.aput(messages, session_id="s2")
    assert len(memory.list().items) == 2


async def test_users_are_isolated(memory):
    ana, bo = (MemkitMemoryBlock(memory=memory.scope(user_id=name)) for name in ("ana", "bo"))
    await ana.aput(said("my secret word is xylophone"), session_id="main")
    await bo.aput(said("my secret word is marimba"), session_id="main")
    assert "xylophone" not in await bo.aget(said("what is my secret word?"))
    assert "marimba" in await bo.aget(said("what is my secret word?"))


async def test_nothing_is_told_when_nothing_bears_on_it(memory, chat):
    block = MemkitMemoryBlock(memory=memory)
    assert await block.aget(said("anything?")) == ""
    assert await block.aget([]) == await block.aget(None) == ""
    assert [message.role for message in await chat(block).aget(input="hello")] == []


async def test_messages_without_words_are_left_out(memory):
    block = MemkitMemoryBlock(memory=memory)
    picture = ChatMessage(role="user", blocks=[ImageBlock(url="https://example.org/a.png")])
    await block.aput([picture, *said("", "  ")])
    assert memory.list().items == []
    assert await block.aget([picture]) == ""


async def test_a_recall_is_cut_to_what_is_left_of_the_budget(memory, chat):
    memory.add([f"tea note {number} with a few more words in it" for number in range(20)])
    block = MemkitMemoryBlock(memory=memory, priority=1)
    whole = await block.aget(said("tea note"))
    cut = await block.atruncate(whole, 200)
    assert 0 < len(cut) < len(whole)
    assert await block.atruncate(whole, 10_000) is None
    tight = chat(block, token_limit=300)
    assert "tea note" in str(await tight.aget(input="tea note"))


def test_the_block_can_be_described_without_its_memory(memory):
    assert "memory" not in MemkitMemoryBlock(memory=memory).model_dump()
