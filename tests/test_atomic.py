"""What a change is computed from is what it replaces: across threads, memories of one file, and processes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_support import CHILD
from support import at_once, embed

from memkit import Memory
from memkit.errors import CallableFailed, EmbedderMismatch, IdConflict, InvalidFilter, InvalidInput, ItemNotFound
from memkit.ingest import Draft

COUNTS = 50
COUNTER = f"""
import sys
from support import embed
from memkit import Memory
with Memory(sys.argv[1], embedder=embed, cache_dir=sys.argv[2], durability="os") as memory:
    for _ in range({COUNTS}):
        memory.update("k", metadata=lambda there: {{**there, "n": there["n"] + 1}})
"""


def more(there):
    return {**there, "n": there["n"] + 1}


class Counting:
    """The embedder of the tests, which knows what it has embedded."""

    def __init__(self):
        self.texts = []

    def embed_documents(self, texts):
        self.texts += texts
        return embed(texts)

    def embed_query(self, text):
        return embed([text])[0]


def found_by(memory, words):
    """The item nearest to words, and how near: 1 when its vector is that of the words."""
    hit = memory.search(words, mode="vector", limit=1)[0]
    return hit.id, pytest.approx(hit.signals["meaning"], abs=1e-3)


# update


def test_metadata_is_made_of_what_is_there(memory):
    memory.add("tea", id="k", metadata={"n": 1, "kept": True})
    assert memory.update("k", metadata=more).metadata == {"n": 2, "kept": True}
    assert memory.update("k", "coffee", more).metadata == {"n": 3, "kept": True}
    assert [change.item.metadata["n"] for change in memory.history("k")] == [1, 2, 3]
    assert memory.get("k").text == "coffee"


def test_the_callable_is_called_once_with_a_copy(memory):
    memory.add("tea", id="k", metadata={"deep": {"n": 1}})
    calls = []

    def change(there):
        calls.append(there)
        there["deep"]["n"] = 2
        return {}

    memory.update("k", metadata=change)
    assert calls == [{"deep": {"n": 2}}]
    assert memory.get("k").metadata == {}
    assert memory.history("k")[0].item.metadata == {"deep": {"n": 1}}


def test_words_are_embedded_only_where_they_change(open_memory):
    embedder = Counting()
    memory = open_memory(embedder=embedder)
    memory.add("green tea", id="k", metadata={"n": 1})
    memory.add("black coffee", id="other")
    embedder.texts.clear()
    memory.update("k", metadata=more)
    memory.update("k", metadata={"n": 7})
    memory.update_where({"n": 7}, more)
    assert embedder.texts == []
    assert found_by(memory, "green tea") == ("k", 1)
    memory.update("k", metadata=lambda there: {"name": "Zoe"})  # a speaker is searched, too
    assert embedder.texts == ["Zoe: green tea"]
    assert found_by(memory, "Zoe: green tea") == ("k", 1)
    memory.update("k", "red wine", lambda there: {"name": "Ann"})
    assert found_by(memory, "Ann: red wine") == ("k", 1)
    memory.update_where({"name": "Ann"}, {})
    assert found_by(memory, "red wine") == ("k", 1)


def broken(there):
    there["n"] = 9
    raise KeyError("gone")


def refused(there):
    raise IdConflict("no")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (broken, CallableFailed),
        (refused, IdConflict),
        (lambda there: None, InvalidInput),
        (lambda there: {"n": object()}, InvalidInput),
        (lambda there: {"": 1}, InvalidInput),
    ],
)
def test_a_callable_that_fails_changes_nothing(memory, open_memory, change, error):
    memory.add(["tea", "coffee"], metadata={"n": 1})
    ids = [item.id for item in memory.list().items]

    with pytest.raises(error):
        memory.update(ids[0], "other words", change)
    turns = iter([more, change])

    def change_in_turn(there):
        return next(turns)(there)

    with pytest.raises(error):
        memory.update_where({"n": 1}, change_in_turn)
    for view in (memory, open_memory()):
        assert [(item.text, item.metadata) for item in view.list().items] == [("tea", {"n": 1}), ("coffee", {"n": 1})]
        assert len(view.history(ids[0])) == 1
    assert memory.update(ids[0], metadata=more).metadata == {"n": 2}


@pytest.mark.parametrize("verb", ["add", "delete", "update", "compact", "erase"])
def test_a_callable_that_changes_the_memory_is_refused(memory, verb):
    memory.add(["tea", "coffee"], metadata={"n": 1})
    id_ = memory.list().items[0].id
    calls = {
        "add": lambda: memory.add("x"),
        "delete": lambda: memory.delete(id_),
        "update": lambda: memory.update(id_, "x"),
        "compact": memory.compact,
        "erase": lambda: memory.erase({"n": 1}),
    }
    with pytest.raises(InvalidInput, match="under way"):
        memory.update(id_, metadata=lambda there: calls[verb]() or there)
    assert [item.text for item in memory.list().items] == ["tea", "coffee"]
    calls[verb]()
    assert memory.verify().ok


def test_an_item_outside_the_view_is_not_changed(memory):
    memory.add("tea", id="k", user_id="ana", metadata={"n": 1})
    with pytest.raises(ItemNotFound):
        memory.scope(user_id="bob").update("k", metadata=more)
    assert memory.scope(user_id="ana").update("k", metadata=more).metadata == {"n": 2}


def test_words_whose_vector_is_of_another_embedder_by_now_are_not_written(open_memory):
    class Overtaken(Counting):
        def embed_documents(self, texts):
            if texts == ["new words"]:
                open_memory(embedder=lambda texts: embed(texts)[:, :16]).rebuild()
            return super().embed_documents(texts)

    memory = open_memory(embedder=Overtaken())
    memory.add("old words", id="k")
    with pytest.raises(EmbedderMismatch):
        memory.update("k", "new words")
    assert memory.get("k").text == "old words"


# update_where


def test_every_item_that_matches_gets_a_new_version(memory):
    memory.add(["a", "b"], user_id="ana", metadata={"n": 1, "kind": "x"})
    memory.add("c", user_id="bob", metadata={"n": 1})
    before = memory.list().items
    assert memory.update_where({"n": 1}, more, user_id="ana") == 2
    assert memory.update_where({"n": 1}, {"new": True}) == 1
    assert memory.update_where({"n": 1}, more) == 0
    after = memory.list().items
    assert [item.metadata for item in after] == [{"n": 2, "kind": "x"}] * 2 + [{"new": True}]
    for old, new in zip(before, after, strict=True):
        assert (new.id, new.text, new.user_id, new.occurred_at) == (old.id, old.text, old.user_id, old.occurred_at)
        assert new.updated_at > old.updated_at
    assert len(memory.history(before[0].id)) == 2


def test_an_empty_filter_needs_a_scope(memory):
    memory.add("a", user_id="ana")
    memory.add("b", user_id="bob")
    with pytest.raises(InvalidFilter, match="everything"):
        memory.update_where({}, {"seen": True})
    with pytest.raises(InvalidInput, match="metadata"):
        memory.update_where({"n": 1}, None)
    assert memory.scope(user_id="ana").update_where({}, {"seen": True}) == 1
    assert memory.update_where({}, {"seen": False}, user_id="bob") == 1
    assert [item.metadata for item in memory.list().items] == [{"seen": True}, {"seen": False}]


NUMBERS = st.lists(st.integers(0, 3), max_size=6)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=NUMBERS, changes=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["Ann", "Bo", None])), max_size=4)
)
def test_a_change_of_all_is_a_change_of_each(open_memory, numbers, changes):
    together, singly = open_memory("together.mem"), open_memory("singly.mem")
    for memory in (together, singly):
        memory.delete([item.id for item in memory.list().items])
        memory.add_drafts([Draft(f"text {at}", id=str(at), metadata={"n": n}) for at, n in enumerate(numbers)])
    for number, name in changes:

        def change(there, name=name):
            return {**more(there), "name": name}

        chosen = [item.id for item in singly.list({"n": number}).items]
        assert together.update_where({"n": number}, change) == len(chosen)
        for id_ in chosen:
            singly.update(id_, metadata=change)
    for ours, theirs in zip(together.list().items, singly.list().items, strict=True):
        assert (ours.id, ours.text, ours.metadata) == (theirs.id, theirs.text, theirs.metadata)
        words = f"{ours.metadata['name']}: {ours.text}" if ours.metadata.get("name") else ours.text
        assert found_by(together, words)[1] == 1


# delete_where


def test_what_ends_with_an_item_that_matches_ends_within_the_scope(memory):
    memory.add_drafts([Draft(name, id=name, user_id="ana", metadata={"n": 1} if name == "a" else {}) for name in "abc"])
    memory.add("of bob", id="d", user_id="bob")
    with pytest.raises(CallableFailed, match="ends"):
        memory.delete_where({"n": 1}, ends=lambda item: item.nonsense)
    assert memory.delete_where({"n": 1}, user_id="ana", ends=lambda item: [item.id, "b", "d", "nobody"]) == 1
    assert [item.id for item in memory.list().items] == ["c", "d"]


# replace


def test_what_is_replaced_ends_and_what_is_renewed_stays(memory):
    memory.add_drafts([Draft("one", id="1"), Draft("two", id="2"), Draft("three", id="3")])
    items = memory.replace(["1", "2", "nobody"], [Draft("two", id="2"), Draft("four", id="4"), Draft("free")])
    assert [item.text for item in items] == ["two", "four", "free"]
    assert {item.id for item in memory.list().items} >= {"2", "3", "4"}
    assert memory.get("1") is None
    assert [change.kind for change in memory.history("2")] == ["added"]
    assert memory.replace([], []) == []


def test_what_ends_is_decided_on_what_is_there(memory):
    memory.add_drafts([Draft(name, id=name, metadata={"with": ["d", "c"]}) for name in "abcd"])
    memory.update("b", metadata={"with": []})
    memory.replace(["a", "b", "c"], [Draft("new", id="c")], ends=lambda item: item.metadata["with"])
    assert {item.id: item.text for item in memory.list().items} == {"a": "a", "b": "b", "c": "new"}


def test_a_replacement_stays_within_its_view(memory):
    memory.add("of bob", id="k", user_id="bob")
    ana = memory.scope(user_id="ana")
    ana.add("of ana", id="own")
    ana.replace(["k", "own"], [Draft("new")], ends=lambda item: ["k", item.id])
    assert memory.get("k").text == "of bob"
    assert [(item.text, item.user_id) for item in ana.list().items] == [("new", "ana")]
    with pytest.raises(IdConflict):
        ana.replace([item.id for item in ana.list().items], [Draft("mine now", id="k")])
    assert [item.text for item in ana.list().items] == ["new"]


@pytest.mark.parametrize("ends", [lambda item: item.nonsense, lambda item: 7, lambda item: [7]])
def test_a_replacement_that_fails_changes_nothing(memory, ends):
    memory.add("old", id="k")
    with pytest.raises((CallableFailed, InvalidInput)):
        memory.replace(["k"], [Draft("new", id="new")], ends=ends)
    with pytest.raises(InvalidInput):
        memory.replace(["k"], [Draft(" ")])
    assert [item.text for item in memory.list().items] == ["old"]


# replace_where


def joined(there):
    """One draft of all items."""
    return [Draft(" ".join(item.text for item in there), id="all", metadata={"n": len(there)})]


def test_what_matches_gives_way_to_what_is_made_of_it(memory):
    memory.add(["a", "b"], user_id="ana", metadata={"n": 1})
    memory.add("c", user_id="bob", metadata={"n": 1})
    memory.add("d", user_id="ana", metadata={"n": 2}, id="d")
    (item,) = memory.replace_where({"n": 1}, joined, user_id="ana")
    assert (item.text, item.user_id, item.metadata) == ("a b", "ana", {"n": 2})
    assert sorted(item.text for item in memory.list().items) == ["a b", "c", "d"]
    memory.scope(user_id="ana").replace_where({}, lambda there: [Draft(f"{item.text}!", id=item.id) for item in there])
    assert sorted(item.text for item in memory.list().items) == ["a b!", "c", "d!"]
    assert [change.kind for change in memory.history("d")] == ["added", "updated"]
    assert memory.replace_where({"n": 7}, lambda there: there) == []
    with pytest.raises(InvalidFilter, match="everything"):
        memory.replace_where({}, joined)
    with pytest.raises(InvalidInput, match="bound to"):
        memory.scope(user_id="ana").replace_where({}, lambda there: [Draft("x", user_id="bob")])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda there: there[7], CallableFailed),
        (lambda there: ["text"], CallableFailed),
        (lambda there: [Draft(" ")], InvalidInput),
        (lambda there: [Draft("x", id="taken")], IdConflict),
        (refused, IdConflict),
    ],
)
def test_what_cannot_be_made_of_it_changes_nothing(memory, make, error):
    memory.add("a", id="a", metadata={"n": 1})
    memory.add("b", id="taken", user_id="bob")
    with pytest.raises(error):
        memory.replace_where({"n": 1}, make)
    assert [item.text for item in memory.list().items] == ["a", "b"]
    assert len(memory.history("a")) == 1


def test_only_new_words_are_embedded_and_before_others_have_to_wait(open_memory):
    embedder, others = Counting(), open_memory()
    memory = open_memory(embedder=embedder)
    memory.add_drafts([Draft("green tea", id="1", metadata={"n": 1}), Draft("black coffee", id="2")])
    embedder.texts.clear()
    seen = []

    def make(there):
        seen.append([item.text for item in there])
        if len(seen) == 1:
            others.add("red wine", metadata={"n": 1})
        return [Draft(item.text, id=f"new {item.text}") for item in there] + [Draft("white milk")]

    assert len(memory.replace_where({"n": 1}, make)) == 3
    assert seen == [["green tea"], ["green tea", "red wine"]]
    assert embedder.texts == ["white milk"]
    assert found_by(memory, "green tea") == ("new green tea", 1)
    assert found_by(memory, "red wine") == ("new red wine", 1)
    assert found_by(memory, "white milk")[1] == 1


# drafts that are written only where there is nothing, or something else


def test_only_the_drafts_that_are_wanted_are_written(memory):
    memory.add("old", id="k", metadata={"n": 1})
    seen = []

    def only(draft, there):
        seen.append((draft.id, there and there.text))
        return there is None

    items = memory.add_drafts([Draft("new", id="k"), Draft("x", id="x"), Draft("y", id="x"), Draft("z")], only=only)
    assert [item.text for item in items] == ["x", "z"]
    assert seen == [("k", "old"), ("x", None), ("x", "x"), (None, None)]
    assert memory.get("k").text == "old"
    with pytest.raises(CallableFailed, match="only"):
        memory.add_drafts([Draft("first"), Draft("new", id="k")], only=lambda draft, there: there.nonsense)
    assert memory.stats().items == 3


# at once


def test_two_memories_of_a_file_count_right_in_threads(open_memory):
    memories = [open_memory(), open_memory()]
    memories[0].add("counter", id="k", metadata={"n": 0})

    def count(memory):
        for _ in range(COUNTS):
            memory.update("k", metadata=more)

    at_once(*(partial(count, memory) for memory in (*memories, memories[0])))
    assert memories[1].get("k").metadata == {"n": 3 * COUNTS}


def test_processes_count_right(tmp_path):
    path = tmp_path / "a.mem"
    with Memory(path, embedder=embed, cache_dir=tmp_path) as memory:
        memory.add("counter", id="k", metadata={"n": 0})
        code = [sys.executable, "-W", "error", "-c", COUNTER, str(path), str(tmp_path)]
        counters = [subprocess.Popen(code, env=CHILD) for _ in range(2)]
        assert [counter.wait() for counter in counters] == [0, 0]
        assert memory.get("k").metadata == {"n": 2 * COUNTS}
        assert memory.verify().ok


def test_changes_of_all_from_two_memories_are_merged(open_memory):
    memories = dict(zip("ab", (open_memory(), open_memory()), strict=True))
    memories["a"].add([f"text {number}" for number in range(5)], user_id="ana")

    def change(who):
        for number in range(20):
            new = {f"{who}{number}": 1}
            assert memories[who].update_where({}, lambda there, new=new: there | new, user_id="ana") == 5

    at_once(partial(change, "a"), partial(change, "b"))
    wanted = {f"{who}{number}": 1 for who in "ab" for number in range(20)}
    assert [item.metadata for item in memories["a"].list().items] == [wanted] * 5
