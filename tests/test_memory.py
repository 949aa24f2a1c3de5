"""The front door, by example: what each verb promises, and what it refuses."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from memkit.errors import (
    IdConflict,
    InvalidFilter,
    InvalidInput,
    ItemNotFound,
    ReadOnly,
)
from memkit.signals import SIGNALS

MAY = datetime(2026, 5, 3, 18, 20, tzinfo=timezone(timedelta(hours=1)))


# adding


def test_what_was_added_is_found_verbatim_with_its_scope(memory):
    (item,) = memory.add("  I moved to Lisbon in May.\n", user_id="ana", metadata={"kind": "fact"})
    (hit,) = memory.search("lisbon")
    assert (hit.id, hit.text, hit.user_id, hit.metadata) == (
        item.id,
        "  I moved to Lisbon in May.\n",
        "ana",
        {"kind": "fact"},
    )


def test_messages_keep_speaker_role_and_time(memory):
    items = memory.add(
        [
            {"role": "user", "name": "Ana", "content": "I am allergic to peanuts.", "timestamp": MAY},
            {"role": "assistant", "content": "Noted."},
        ]
    )
    assert [item.metadata.get("role") for item in items] == ["user", "assistant"]
    assert items[0].metadata["name"] == "Ana"
    assert items[0].occurred_at == MAY
    assert items[0].created_at > MAY
    assert [hit.id for hit in memory.search("Ana", mode="text")] == [items[0].id]


def test_equal_texts_without_ids_are_separate_memories(memory):
    memory.add(["ok", "ok"])
    assert len(memory.list().items) == 2


def test_the_same_id_and_text_write_nothing(memory):
    first = memory.add("hello", id="k", metadata={"a": 1})
    before = memory.stats().position
    assert memory.add("hello", id="k", metadata={"a": 1}) == first
    assert memory.add("hello", id="k") == first
    assert memory.stats().position == before


def test_the_same_id_with_another_text_is_a_new_version(memory):
    old = memory.add("hello", id="k")[0]
    new = memory.add("hello there", id="k")[0]
    assert memory.get("k") == new
    assert new.created_at == old.created_at
    assert new.updated_at > old.updated_at
    assert [(c.kind, c.item.text) for c in memory.history("k")] == [("added", "hello"), ("updated", "hello there")]


def test_one_list_may_name_an_id_twice(memory):
    items = memory.add([{"role": "user", "content": t, "id": "k"} for t in ("one", "two", "two")])
    assert [item.text for item in items] == ["one", "two", "two"]
    assert memory.get("k").text == "two"
    assert len(memory.history("k")) == 2


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        (b"bytes", "bytes"),
        (7, "7"),
        ([{"role": "user"}], "content"),
        ("x" * 10_000_000, "memkit add"),
    ],
)
def test_bad_content_is_refused_and_nothing_is_written(memory, content, hint):
    memory.add("here before")
    size = memory.stats().file_bytes
    with pytest.raises(InvalidInput, match=hint):
        memory.add(content)
    assert memory.stats().file_bytes == size


def test_a_list_with_one_bad_entry_is_refused_whole(memory):
    with pytest.raises(InvalidInput):
        memory.add(["good", ""])
    assert memory.list().items == []


@pytest.mark.parametrize("when", [datetime(2026, 5, 1), "2026-05-01T10:00:00", "soon", 3.5, True])  # noqa: DTZ001
def test_a_time_without_a_zone_is_refused(memory, when):
    with pytest.raises(InvalidInput):
        memory.add("x", occurred_at=when)
    assert memory.list().items == []


@pytest.mark.parametrize(
    "metadata", [{"a": {1, 2}}, {1: "a"}, {"a": float("nan")}, {"a": 2**70}, {"a": object()}, ["a"]]
)
def test_metadata_that_is_no_json_is_refused(memory, metadata):
    with pytest.raises(InvalidInput):
        memory.add("x", metadata=metadata)
    assert memory.list().items == []


@pytest.mark.parametrize(
    "metadata", [{"a": None}, {"a": [1, "b", {"c": [True]}]}, {"é": "日本"}, {"a.b": 1, "x": {"y": 2.5}}]
)
def test_metadata_comes_back_as_it_was(open_memory, metadata):
    memory = open_memory()
    memory.add("single", id="s", metadata=metadata)
    memory.add([f"text {i}" for i in range(20)], metadata=metadata)
    memory.close()
    assert all(item.metadata == metadata for item in open_memory().list().items)


@pytest.mark.parametrize("bad", ["", None, 5])
def test_an_id_and_a_scope_are_non_empty_strings(memory, bad):
    if bad is not None:
        with pytest.raises(InvalidInput):
            memory.add("x", id=bad)
        with pytest.raises(InvalidInput):
            memory.add("x", user_id=bad)
    with pytest.raises(InvalidInput):
        memory.get(bad)


def test_one_id_cannot_name_two_texts(memory):
    with pytest.raises(InvalidInput, match="id"):
        memory.add(["a", "b"], id="k")


@pytest.mark.parametrize(
    "text",
    [
        "日本語を勉強しています",
        "한국어를 공부합니다",
        "ภาษาไทยยากมาก",
        "مرحبا بالعالم",
        "Ünïcödé café",
        "😀 party 👩🏽‍💻",
    ],
)
def test_every_script_survives_and_is_found(open_memory, text):
    memory = open_memory()
    memory.add("something else entirely")
    memory.add(text)
    memory.close()
    again = open_memory()
    query = text[:3] if text[0] in "日한ภ" else text.split()[-1]
    assert again.search(query, mode="text")[0].text == text


# reading


def test_get_of_what_is_not_there_is_none(memory):
    assert memory.get("nobody") is None


def test_pages_enumerate_everything_once_while_items_come_and_change(memory):
    ids = [item.id for item in memory.add([f"text {i}" for i in range(25)])]
    page = memory.list(limit=10)
    memory.update(ids[3], "changed")
    memory.update(ids[12], "changed")
    late = memory.add("late")[0].id
    seen = [item.id for item in page.items]
    while page.cursor:
        page = memory.list(limit=10, cursor=page.cursor)
        seen += [item.id for item in page.items]
    assert seen == [*ids, late]


@pytest.mark.parametrize("cursor", ["", "x", "bWsx", 5])
def test_a_foreign_cursor_is_refused(memory, cursor):
    with pytest.raises(InvalidInput, match="cursor"):
        memory.list(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, "3"])
def test_a_limit_is_a_positive_whole_number(memory, limit):
    for call in (lambda: memory.list(limit=limit), lambda: memory.search("x", limit=limit)):
        with pytest.raises(InvalidInput, match="limit"):
            call()


@pytest.mark.parametrize("query", ["", "  ", None, 5])
def test_a_query_has_words(memory, query):
    with pytest.raises(InvalidInput, match="query"):
        memory.search(query)


def test_an_unknown_mode_names_the_known_ones(memory):
    with pytest.raises(InvalidInput, match="hybrid"):
        memory.search("x", mode="magic")


def test_a_query_is_text(memory):
    memory.add("x")
    for ask in (memory.search, memory.recall):
        with pytest.raises(InvalidInput, match="half a character"):
            ask("tea \ud83d")


def test_a_query_without_known_words_or_signs_is_answered_by_meaning_alone(memory):
    memory.add("hello world")
    assert memory.search("zzz", mode="text") == []
    assert memory.search("!!!", mode="text") == []
    assert len(memory.search("zzz")) == 1


def test_search_in_an_empty_memory_finds_nothing(memory):
    assert memory.search("anything") == []
    recall = memory.recall("anything")
    assert (recall.hits, recall.abstained) == ([], True)
    assert recall.text


def test_search_after_everything_was_deleted_finds_nothing(memory):
    memory.add(["a b", "c d"])
    memory.search("a")
    memory.delete([item.id for item in memory.list().items])
    assert memory.search("a") == []


def test_explain_shows_every_signal_and_scores_descend(memory):
    memory.add(["red apple pie", "green apple", "blue sky"])
    hits = memory.search("red apple", explain=True)
    assert [hit.text for hit in hits[:2]] == ["red apple pie", "green apple"]
    assert {f"{name}{kind}" for name in SIGNALS for kind in ("", "_weight")} == hits[0].signals.keys()
    assert memory.search("red apple")[0].signals.keys() == SIGNALS.keys()
    assert all(0 <= hit.score <= 1 for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_where_means_the_same_in_search_and_list(memory):
    memory.add([{"role": "user", "content": f"apple number {i}", "metadata": {"n": i}} for i in range(10)])
    where = {"OR": [{"n": {"gte": 8}}, {"n": 2}], "role": "user"}
    listed = {item.metadata["n"] for item in memory.list(where).items}
    assert listed == {h.metadata["n"] for h in memory.search("apple", where=where)} == {2, 8, 9}


def test_an_unknown_operator_is_refused_everywhere(memory):
    memory.add("x")
    where = {"n": {"above": 3}}
    for call in (memory.list, memory.delete_where, memory.erase, lambda w: memory.search("x", where=w)):
        with pytest.raises(InvalidFilter, match="above"):
            call(where)
    assert len(memory.list().items) == 1


def test_recall_stays_in_its_budget_and_cites_what_it_says(memory):
    memory.add(
        [
            {"role": "user", "name": "Ana", "content": f"the plan number {i} for dinner", "timestamp": MAY}
            for i in range(40)
        ]
    )
    recall = memory.recall("plan for dinner", max_tokens=120)
    assert 0 < recall.tokens <= 120
    assert not recall.abstained
    assert list(recall.citations.values()) and {hit.id for hit in recall.hits} == set(recall.citations.values())
    for number, id_ in recall.citations.items():
        (line,) = [line for line in recall.text.splitlines() if line.startswith(f"[{number}] ")]
        assert memory.get(id_).text in line
        assert "Ana: " in line


# changing


def test_update_keeps_what_is_not_given(memory):
    memory.add("old words", id="k", metadata={"a": 1}, occurred_at=MAY)
    memory.update("k", "new words")
    item = memory.get("k")
    assert (item.text, item.metadata, item.occurred_at) == ("new words", {"a": 1}, MAY)
    memory.update("k", metadata={"b": 2})
    assert (memory.get("k").text, memory.get("k").metadata) == ("new words", {"b": 2})
    assert [hit.id for hit in memory.search("new", mode="text")] == ["k"]
    assert memory.search("old", mode="text") == []


def test_update_of_nothing_is_refused(memory):
    memory.add("x", id="k")
    with pytest.raises(InvalidInput, match="without a change"):
        memory.update("k")
    with pytest.raises(ItemNotFound, match="nobody"):
        memory.update("nobody", "x")
    with pytest.raises(InvalidInput):
        memory.update("k", "")
    assert len(memory.history("k")) == 1


def test_deleted_items_are_gone_but_their_history_is_not(memory):
    memory.add("hello", id="k")
    assert memory.delete(["k", "nobody"]) == 1
    assert memory.delete("k") == 0
    assert memory.get("k") is None
    assert memory.search("hello") == []
    assert [c.kind for c in memory.history("k")] == ["added", "deleted"]
    memory.add("again", id="k")
    assert [c.kind for c in memory.history("k")] == ["added", "deleted", "added"]


def test_delete_where_needs_a_condition(memory):
    memory.add(["a", "b"], user_id="ana")
    memory.add("c", user_id="bob")
    with pytest.raises(InvalidFilter, match="everything"):
        memory.delete_where({})
    with pytest.raises(InvalidFilter, match="everything"):
        memory.erase()
    assert memory.delete_where({"user_id": "ana"}) == 2
    assert [item.user_id for item in memory.list().items] == ["bob"]


# scopes


def test_a_scope_sees_and_touches_only_its_own(memory):
    memory.add("secret of ana", id="a", user_id="ana")
    memory.add("note of bob", id="b", user_id="bob")
    bob = memory.scope(user_id="bob")
    assert bob.get("a") is None
    assert bob.history("a") == []
    assert [item.id for item in bob.list().items] == ["b"]
    assert [hit.id for hit in bob.search("secret of ana")] == ["b"]
    assert bob.delete("a") == 0
    assert bob.delete_where({"text": {"contains": "o"}}) == 1
    with pytest.raises(ItemNotFound):
        bob.update("a", "mine now")
    with pytest.raises(IdConflict):
        bob.add("mine now", id="a")
    assert bob.stats().items == 0
    assert "ana" not in bob.stats().users
    assert memory.get("a").text == "secret of ana"


def test_a_bound_view_refuses_another_scope(memory):
    ana = memory.scope(user_id="ana")
    for call in (
        lambda: ana.search("x", user_id="bob"),
        lambda: ana.add("x", user_id="bob"),
        lambda: ana.scope(user_id="bob"),
    ):
        with pytest.raises(InvalidInput, match="bound"):
            call()
    assert ana.list({"user_id": "bob"}).items == []
    assert ana.list({"OR": [{"user_id": "bob"}, {"user_id": "ana"}]}).items == []


def test_a_narrower_scope_may_be_taken_from_a_view(memory):
    run = memory.scope(user_id="ana").scope(run_id="r1")
    run.add("in the run")
    assert [(i.user_id, i.run_id) for i in memory.list().items] == [("ana", "r1")]


def test_the_whole_table_is_not_shown_through_a_view(memory):
    memory.add("x", user_id="ana")
    with pytest.raises(ReadOnly):
        memory.scope(user_id="ana").lance()
