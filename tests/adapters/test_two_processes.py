"""As `test_two_stores`, with the stores in two processes: neither undoes what the other did.

Works import their framework themselves, so that a process of a test loads no other one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from functools import partial

import pytest
from support import meet

from memkit.multivector import WHOLE, ids
from memkit_adapters.mem0 import Memory as Mem0

ROUNDS = 40
LAST = 100
SPACE = ("notes",)


# LangGraph


def langgraph(memory):
    from memkit_adapters.langgraph import MemkitStore

    return MemkitStore(memory, index={"dims": 32, "fields": ["texts[*]"]}, ttl={"refresh_on_read": True})


def texts(who, number):
    """Of one writer three, of the other one in turn none, one and two, so that parts come and go."""
    return [f"red boat {who}", f"old piano {who}", f"blue dog {who}"][: 3 if who == "a" else number % 3]


def put_or_delete(who, memory):
    """Two keys in one batch: either writer puts both, and every third time one of them deletes both."""
    from langgraph.store.base import PutOp

    store = langgraph(memory)
    for number in range(ROUNDS):
        meet()
        said = texts(who, number)
        store.batch([PutOp(SPACE, key, {"who": who, "texts": said} if said else None) for key in ("k", "l")])
        meet()
        check_both(store, number)


def check_both(store, number):
    """Both keys hold what one writer wrote last, with its parts and no others."""
    found = [store.get(SPACE, key) for key in ("k", "l")]
    values = [None if item is None else item.value for item in found]
    assert values[0] == values[1]
    assert values[0] in [{"who": who, "texts": said} if (said := texts(who, number)) else None for who in "ab"]
    items = store.memory.list(WHOLE).items
    assert sorted(id_ for item in items for id_ in ids(item)) == sorted(one.id for one in store.memory.list().items)


def test_puts_and_deletions_of_the_same_keys_are_whole(processes, tmp_path):
    processes(tmp_path / "a.mem", partial(put_or_delete, "a"), partial(put_or_delete, "b"))


def put_numbers(memory):
    store = langgraph(memory)
    for number in range(LAST):
        store.put(SPACE, "k", {"n": number, "texts": [f"red boat {number}"]}, ttl=number + 1)
        while number == 0 and not is_read(memory):  # the other process is there
            time.sleep(0.01)
    store.put(SPACE, "k", {"n": LAST, "texts": ["the end"]})
    store.put(SPACE, "done", {"texts": []})


def is_read(memory):
    (item,) = memory.list({"key": "k"}).items
    return len(memory.history(item.id)) > 1


def read_numbers(memory):
    store = langgraph(memory)
    while store.get(SPACE, "done") is None:
        store.get(SPACE, "k")


def test_a_read_that_lengthens_a_life_never_undoes_a_put(processes, open_memory, tmp_path):
    processes(tmp_path / "a.mem", put_numbers, read_numbers)
    memory = open_memory()
    (item,) = memory.list({"key": "k"}).items
    versions = [change.item.metadata for change in memory.history(item.id)]
    numbers = [version["value"]["n"] for version in versions]
    assert numbers == sorted(numbers)
    assert len(numbers) > LAST + 1
    assert [version.get("ttl") for version in versions] == [None if n == LAST else n + 1 for n in numbers]


# Mem0


def merge_often(id_, who, memory):
    mem0 = Mem0(memory)
    for number in range(ROUNDS):
        mem0.update(id_, metadata={f"{who}{number}": number})


def test_what_two_change_in_a_memory_of_mem0_is_merged(processes, open_memory, tmp_path):
    mem0 = Mem0(open_memory())
    id_ = mem0.add("I like tea.", user_id="ana")["results"][0]["id"]
    processes(tmp_path / "a.mem", *(partial(merge_often, id_, who) for who in "ab"))
    assert mem0.get(id_)["metadata"] == {f"{who}{number}": number for who in "ab" for number in range(ROUNDS)}


def add_facts(memory):
    mem0 = Mem0(memory, llm=lambda prompt: json.dumps({"facts": [prompt.split(": ")[-1]]}))
    added = []
    for number in range(ROUNDS):
        meet()
        added += mem0.add(f"Ana likes tea {number}", user_id="ana")["results"]
    return [one["memory"] for one in added]


def test_two_memories_of_mem0_add_a_fact_once(processes, open_memory, tmp_path):
    told = Counter(f"Ana likes tea {number}" for number in range(ROUNDS))
    one, two = processes(tmp_path / "a.mem", add_facts, add_facts)
    assert Counter(one + two) == told
    found = Mem0(open_memory()).get_all(filters={"user_id": "ana"}, top_k=99)["results"]
    assert Counter(item["memory"] for item in found) == told


# Haystack


def write_in_turn(policy, text, memory):
    from haystack import Document
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy

    from memkit_adapters.haystack import MemkitDocumentStore

    store, written = MemkitDocumentStore(memory), []
    for number in range(ROUNDS):
        meet()
        try:
            written.append(store.write_documents([Document(id=str(number), content=text)], DuplicatePolicy[policy]))
        except DuplicateDocumentError:
            written.append(0)
    return written


@pytest.mark.parametrize("policy", ["FAIL", "SKIP"])
def test_of_two_that_write_a_document_one_does(processes, open_memory, tmp_path, policy):
    done = processes(tmp_path / "a.mem", *(partial(write_in_turn, policy, text) for text in ("tea", "coffee")))
    assert [sum(both) for both in zip(*done, strict=True)] == [1] * ROUNDS
    memory = open_memory()
    assert [len(memory.history(str(number))) for number in range(ROUNDS)] == [1] * ROUNDS


def mark_often(who, memory):
    from memkit_adapters.haystack import MemkitDocumentStore

    store = MemkitDocumentStore(memory)
    mine = {"field": "meta.kind", "operator": "==", "value": "x"}
    for number in range(ROUNDS // 2):
        assert store.update_by_filter(mine, {f"{who}{number}": number}) == 5


def test_what_two_change_in_documents_of_haystack_is_merged(processes, open_memory, tmp_path):
    memory = open_memory()
    memory.add([f"document {number}" for number in range(5)], metadata={"kind": "x"})
    processes(tmp_path / "a.mem", *(partial(mark_often, who) for who in "ab"))
    marks = {f"{who}{number}": number for who in "ab" for number in range(ROUNDS // 2)}
    assert [item.metadata for item in memory.list().items] == [{"kind": "x", "haystack": {}, **marks}] * 5


# LlamaIndex


def keep_messages(memory):
    from llama_index.core.base.llms.types import ChatMessage

    from memkit_adapters.llama_index import MemkitMemoryBlock

    block = MemkitMemoryBlock(memory=memory, session_id="s")
    for number in range(ROUNDS):
        meet()
        asyncio.run(block.aput([ChatMessage(role="user", content=f"I like tea {number}")]))


def test_two_blocks_of_llama_index_keep_a_message_once(processes, open_memory, tmp_path):
    processes(tmp_path / "a.mem", keep_messages, keep_messages)
    memory = open_memory()
    items = memory.list().items
    assert len(items) == ROUNDS
    assert all(len(memory.history(item.id)) == 1 for item in items)
