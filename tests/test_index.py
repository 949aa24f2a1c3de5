"""The index: one answer from tail and table, whatever lies where, and nothing wrong when the cache is."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import embed

from memkit import Memory
from memkit_storage import index as index_module
from memkit_storage import lance
from memkit_storage.index import Index

pytestmark = pytest.mark.skipif(not lance.available(), reason="lancedb has no wheel here")

WORDS = "red green blue apple pear plum sky sea hill dog cat running runs quickly slowly 東京 café über".split()
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
QUERIES = ["red apple", "running dog", "東京", "cafe", "sky", "unknownword", "green green plum hill"]


def answers(memory: Memory, where: dict | None = None) -> list:
    return [
        [(hit.id, hit.score, hit.signals) for hit in memory.search(query, limit=50, where=where, mode=mode)]
        for query in QUERIES
        for mode in ("hybrid", "vector", "text")
    ]


def open_(folder: Path) -> Memory:
    return Memory(folder / "a.mem", embedder=embed, cache_dir=folder / "cache", durability="os")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=st.lists(TEXT, min_size=1, max_size=25),
    after=st.lists(TEXT, max_size=10),
    changes=st.lists(st.tuples(st.sampled_from(["delete", "update", "seal"]), st.integers(0, 99), TEXT), max_size=8),
)
def test_rankings_do_not_change_when_rows_are_sealed(tmp_path_factory, before, after, changes):
    folder = tmp_path_factory.mktemp("seal")
    with open_(folder) as memory:
        memory.add([{"role": "user", "content": t, "id": f"b{i}", "metadata": {"n": i}} for i, t in enumerate(before)])
        memory._index.seal()
        memory.add([{"role": "user", "content": t, "id": f"a{i}", "metadata": {"n": i}} for i, t in enumerate(after)])
        for what, pick, text in changes:
            items = memory.list(limit=100).items
            if what == "seal" or not items:
                memory._index.seal()
            elif what == "delete":
                memory.delete(items[pick % len(items)].id)
            else:
                memory.update(items[pick % len(items)].id, text)
        where = {"n": {"gte": 3}}
        mixed = answers(memory), answers(memory, where)
        memory._index.seal()
        assert (answers(memory), answers(memory, where)) == mixed
        memory._index.destroy()
        assert (answers(memory), answers(memory, where)) == mixed
    with open_(folder) as again:
        assert (answers(again), answers(again, where)) == mixed


def test_a_search_sees_each_write_of_another_handle_at_once(open_memory):
    reader, writer = open_memory(), open_memory()
    writer.add([f"text {i}" for i in range(20)])
    reader.lance()
    for i in range(5):
        writer.add(f"news {i}", id=f"n{i}")
        assert reader.search(f"news {i}", mode="text", limit=1)[0].text.startswith("news")
    writer.delete("n3")
    assert "n3" not in {hit.id for hit in reader.search("news", limit=50)}


def damage_state(cache: Path) -> None:
    next(cache.rglob("STATE")).write_bytes(b"{")


def remove_half(cache: Path) -> None:
    for path in sorted(p for p in cache.rglob("*") if p.is_file())[::2]:
        path.unlink()


def empty_manifests(cache: Path) -> None:
    for path in cache.rglob("*.manifest"):
        path.write_bytes(b"")


def flip_bytes(cache: Path) -> None:
    for path in (p for p in cache.rglob("*.lance") if p.is_file()):
        data = bytearray(path.read_bytes())
        for at in random.Random(5).sample(range(len(data)), min(len(data), 40)):
            data[at] ^= 0x55
        path.write_bytes(data)


@pytest.mark.parametrize("damage", [shutil.rmtree, damage_state, remove_half, empty_manifests, flip_bytes])
@pytest.mark.filterwarnings("ignore:the search index")
def test_a_damaged_cache_never_gives_a_wrong_answer(open_memory, tmp_path, damage):
    memory = open_memory()
    memory.add([f"text {i} " + WORDS[i % len(WORDS)] for i in range(200)])
    memory.lance()
    expected = answers(memory)
    memory.close()
    damage(tmp_path / "cache")
    again = open_memory()
    assert answers(again) == expected
    again.rebuild()
    assert answers(again) == expected


@pytest.mark.filterwarnings("ignore:the search index")
def test_a_cache_deleted_under_an_open_memory_is_survived(open_memory, tmp_path):
    memory = open_memory()
    memory.add([f"text {i} " + WORDS[i % len(WORDS)] for i in range(200)])
    memory.lance()
    expected = answers(memory)
    shutil.rmtree(tmp_path / "cache")
    assert answers(memory) == expected
    memory.add("and one more")
    assert memory.search("more", mode="text")[0].text == "and one more"


def test_an_older_copy_of_the_file_is_not_searched_with_a_newer_index(open_memory, tmp_path):
    memory = open_memory()
    memory.add([f"text {i}" for i in range(20)])
    memory.close()
    old = (tmp_path / "a.mem").read_bytes()
    memory = open_memory()
    memory.add("only in the newer one", id="new")
    memory.lance()
    memory.close()
    with (tmp_path / "a.mem").open("rb+") as file:  # in place: the same inode, so the same cache
        file.write(old)
        file.truncate(len(old))
    again = open_memory()
    again.add("something else", id="else")
    assert {hit.id for hit in again.search("newer else", limit=50)} == {i.id for i in again.list(limit=50).items}


def test_the_tail_is_sealed_in_the_background_when_it_has_grown(open_memory, monkeypatch):
    monkeypatch.setattr(index_module, "FIRST_SEAL", 50)
    memory = open_memory()
    memory.add([f"text {i}" for i in range(40)])
    memory.search("text")
    assert memory.stats().sealed == 0
    memory.add([f"more {i}" for i in range(20)])
    memory._index._join()
    assert (memory.stats().tail, memory.stats().sealed) == (0, 60)


def test_a_writer_that_never_searches_seals_too(open_memory, monkeypatch):
    monkeypatch.setattr(index_module, "FIRST_SEAL", 50)
    memory = open_memory()
    memory.add([f"text {i}" for i in range(60)])
    memory.close()
    assert open_memory().search("text 7", limit=1)[0].text == "text 7"


def test_without_lancedb_the_exact_search_carries_the_product(open_memory, monkeypatch):
    monkeypatch.setattr(lance, "available", lambda: False)
    monkeypatch.setattr(index_module, "EXACT_MAX", 30)
    monkeypatch.setattr(index_module, "FIRST_SEAL", 35)
    memory = open_memory()
    memory.add([f"text {i}" for i in range(20)])
    with pytest.warns(UserWarning, match="without LanceDB"):
        memory.add([f"more {i}" for i in range(20)])
    assert memory.search("more 7", limit=1)[0].text == "more 7"


def test_an_index_of_the_past_does_not_follow_the_present(open_memory):
    memory = open_memory()
    then = memory.add("first words", id="a")[0].updated_at
    past = memory.at(then)
    assert [hit.id for hit in past.search("words")] == ["a"]
    memory.add("second words", id="b")
    assert [hit.id for hit in past.search("words")] == ["a"]
    assert isinstance(memory._index.past(0), Index)
