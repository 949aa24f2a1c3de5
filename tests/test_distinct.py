"""Several vectors for one thing: of items with a metadata value in common, a search shows the best."""

from __future__ import annotations

import pytest


@pytest.fixture
def parts(memory):
    for thing, fields in {
        "a": ["red boat", "old piano"],
        "b": ["blue dog", "red boat deck"],
        "c": ["red boat"],
    }.items():
        for at, text in enumerate(fields):
            memory.add(text, id=f"{thing}{at}", metadata={"of": thing})
    memory.add("red boat alone", id="none")
    return memory


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_each_thing_counts_once_as_its_best_part(parts, mode):
    hits = parts.search("red boat", distinct="of", mode=mode, limit=10)
    things = [hit.metadata.get("of", hit.id) for hit in hits]
    assert len(things) == len(set(things))
    assert set(things) == {"a", "b", "c", "none"}
    best = {hit.metadata.get("of"): hit.score for hit in reversed(parts.search("red boat", mode=mode, limit=10))}
    assert all(hit.score == best[hit.metadata.get("of")] for hit in hits)


def test_as_many_things_as_were_asked_for_are_found_behind_many_parts(memory):
    memory.add([{"role": "user", "content": f"red boat {i}", "metadata": {"of": "one"}} for i in range(60)])
    memory.add("red boat of another", metadata={"of": "two"})
    hits = memory.search("red boat", distinct="of", mode="vector", limit=2)
    assert [hit.metadata["of"] for hit in hits] == ["one", "two"]


def test_many_are_got_in_the_order_of_their_ids(parts):
    items = parts.get_many(["c0", "x", "a1"])
    assert [item and item.text for item in items] == ["red boat", None, "old piano"]
    parts.add("mine", id="m", user_id="ana")
    assert parts.scope(user_id="bo").get_many(["m", "a0"]) == [None, None]
