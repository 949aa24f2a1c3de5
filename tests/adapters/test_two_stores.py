"""Two stores of an adapter on one file, as two workers have them: neither undoes what the other did."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from llama_index.core.base.llms.types import ChatMessage
from support import at_once

from memkit_adapters.haystack import MemkitDocumentStore
from memkit_adapters.langgraph import MemkitStore
from memkit_adapters.llama_index import MemkitMemoryBlock
from memkit_adapters.mem0 import Memory as Mem0

INDEX = {"dims": 32, "fields": ["text", "more"]}
SPACE = ("notes",)


def value(number):
    return {"n": number, "text": f"red boat {number}", "more": f"old piano {number}"}


def test_a_read_that_lengthens_a_life_never_undoes_a_put(open_memory):
    reader, writer = (MemkitStore(open_memory(), index=INDEX, ttl={"refresh_on_read": True}) for _ in "ab")
    writer.put(SPACE, "k", value(0), ttl=9)
    done = threading.Event()

    def read():
        while not done.is_set():
            reader.get(SPACE, "k")

    def write():
        for number in range(1, 60):
            writer.put(SPACE, "k", value(number), ttl=None if number % 3 == 0 else number)
        done.set()

    at_once(read, write)
    id_ = writer.memory.list({"part": {"exists": False}}).items[0].id
    versions = [change.item.metadata for change in writer.memory.history(id_)]
    numbers = [version["value"]["n"] for version in versions]
    assert numbers == sorted(numbers)
    assert len(numbers) > 60
    assert all(
        version.get("ttl") == (9 if n == 0 else None if n % 3 == 0 else n)
        for n, version in zip(numbers, versions, strict=True)
    )
    assert writer.get(SPACE, "k").value == value(59)
    assert writer.search(SPACE, query="old piano 59")[0].score == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("ttl", [None, 9])
def test_a_sweep_never_deletes_what_is_put_anew(open_memory, ttl):
    sweeper, writer = (MemkitStore(open_memory(), index=INDEX) for _ in "ab")
    for number in range(30):
        writer.put(SPACE, "k", {"text": "old", "more": "old words", "n": -1}, ttl=0.00001)
        time.sleep(0.002)
        at_once(sweeper.sweep_ttl, lambda number=number: writer.put(SPACE, "k", value(number), ttl=ttl))
        assert sweeper.get(SPACE, "k").value == value(number)
        assert writer.search(SPACE, query=f"old piano {number}")[0].score == pytest.approx(1.0, abs=1e-3)
        assert writer.memory.stats().items == 2
    assert sweeper.sweep_ttl() == 0


def test_puts_of_one_key_leave_the_parts_of_the_last(open_memory):
    stores = [MemkitStore(open_memory(), index={"dims": 32, "fields": ["texts[*]"]}) for _ in "ab"]
    for number in range(20):
        at_once(
            lambda: stores[0].put(SPACE, "k", {"texts": ["red", "green", "blue"]}),
            lambda number=number: stores[1].put(
                SPACE, "k", {"texts": ["red", "green", "blue", "grey"][: number % 3 + 1]}
            ),
        )
        count = len(stores[0].get(SPACE, "k").value["texts"])
        assert stores[0].memory.stats().items == count


def test_what_two_change_in_a_memory_of_mem0_is_merged(open_memory):
    one, two = (Mem0(open_memory()) for _ in "ab")
    id_ = one.add("I like tea.", user_id="ana")["results"][0]["id"]

    def change(mem0, who):
        for number in range(25):
            mem0.update(id_, metadata={f"{who}{number}": number})

    at_once(lambda: change(one, "a"), lambda: change(two, "b"))
    assert one.get(id_)["metadata"] == {f"{who}{number}": number for who in "ab" for number in range(25)}


def test_two_memories_of_mem0_add_a_fact_once(open_memory):
    told = [f"Ana likes tea {number}" for number in range(20)]
    stores = [Mem0(open_memory(), llm=lambda prompt: json.dumps({"facts": [prompt.split(": ")[-1]]})) for _ in "ab"]
    added = []
    for text in told:
        at_once(*(lambda one=one, text=text: added.extend(one.add(text, user_id="ana")["results"]) for one in stores))
    assert [one["memory"] for one in added] == told
    assert sorted(one["memory"] for one in stores[0].get_all(filters={"user_id": "ana"})["results"]) == sorted(told)


def test_what_two_change_in_documents_of_haystack_is_merged(open_memory):
    one, two = (MemkitDocumentStore(open_memory()) for _ in "ab")
    one.write_documents([Document(content=f"document {number}", meta={"kind": "x"}) for number in range(5)])
    mine = {"field": "meta.kind", "operator": "==", "value": "x"}

    def change(store, who):
        for number in range(15):
            assert store.update_by_filter(mine, {f"{who}{number}": number}) == 5

    at_once(lambda: change(one, "a"), lambda: change(two, "b"))
    wanted = {"kind": "x", **{f"{who}{number}": number for who in "ab" for number in range(15)}}
    assert [document.meta for document in two.filter_documents()] == [wanted] * 5


@pytest.mark.parametrize("policy", [DuplicatePolicy.FAIL, DuplicatePolicy.SKIP])
def test_of_two_that_write_a_document_one_does(open_memory, policy):
    stores = [MemkitDocumentStore(open_memory()) for _ in "ab"]
    for number in range(20):
        written = []

        def write(store, text, number=number, written=written):
            try:
                written.append(store.write_documents([Document(id=str(number), content=text)], policy))
            except DuplicateDocumentError:
                written.append(0)

        at_once(lambda write=write: write(stores[0], "tea"), lambda write=write: write(stores[1], "coffee"))
        assert sorted(written) == [0, 1]
        assert len(stores[0].memory.history(str(number))) == 1


def test_two_blocks_of_llama_index_keep_a_message_once(open_memory):
    blocks = [MemkitMemoryBlock(memory=open_memory(), session_id="s") for _ in "ab"]
    for number in range(20):
        said = [ChatMessage(role="user", content=f"I like tea {number}")]
        at_once(*(lambda block=block, said=said: asyncio.run(block.aput(said)) for block in blocks))
    assert len(blocks[0].memory.list(limit=1000).items) == 20
