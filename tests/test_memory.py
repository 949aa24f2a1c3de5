"""The front door, by example: what each verb promises, and what it refuses."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from support import DIM, embed

from memkit import Memory
from memkit.errors import (
    EmbedderMismatch,
    IdConflict,
    InvalidFilter,
    InvalidInput,
    InvalidVector,
    ItemNotFound,
    MemkitError,
    NotAMemory,
    ReadOnly,
)
from memkit.ingest import Draft
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


# time


def test_a_past_view_shows_what_was_known_then_and_cannot_be_changed(memory):
    memory.add("lives in Porto", id="k")
    then = memory.get("k").updated_at
    memory.update("k", "lives in Lisbon")
    memory.add("new friend", id="n")
    memory.delete("k")
    past = memory.at(then)
    assert past.get("k").text == "lives in Porto"
    assert past.get("n") is None
    assert [item.text for item in past.list().items] == ["lives in Porto"]
    assert [hit.text for hit in past.search("lives")] == ["lives in Porto"]
    assert [c.kind for c in past.history("k")] == ["added"]
    assert past.stats().items == 1
    for call in (
        lambda: past.add("x"),
        lambda: past.delete("k"),
        lambda: past.erase({"id": "k"}),
        past.compact,
        past.rebuild,
    ):
        with pytest.raises(ReadOnly):
            call()


def test_a_time_before_everything_shows_nothing(memory):
    memory.add("x")
    assert memory.at("2001-01-01").list().items == []
    assert memory.at("2001-01-01").search("x") == []
    with pytest.raises(InvalidInput):
        memory.at(datetime(2026, 1, 1))  # noqa: DTZ001


# files


def test_export_and_merge_keep_ids_times_and_history(open_memory, tmp_path):
    memory = open_memory()
    memory.add("one", id="a", user_id="ana", occurred_at=MAY)
    memory.update("a", "two")
    memory.add("gone", id="d", user_id="ana")
    memory.delete("d")
    memory.add("other", id="b", user_id="bob")
    assert memory.export(tmp_path / "ana.mem", where={"user_id": "ana"}) == 1
    copy = open_memory("copy.mem")
    assert copy.merge(tmp_path / "ana.mem").added == 2
    assert [c.model_copy(update={"position": 0, "item": None}) for c in copy.history("a")] == [
        c.model_copy(update={"position": 0, "item": None}) for c in memory.history("a")
    ]
    same = {"position"}
    assert copy.get("a").model_dump(exclude=same) == memory.get("a").model_dump(exclude=same)
    again = copy.merge(tmp_path / "ana.mem")
    assert (again.added, again.known) == (0, 2)


def test_a_merge_in_either_direction_ends_in_the_same_present(open_memory, tmp_path):
    left, right = open_memory("l.mem"), open_memory("r.mem")
    left.add("first", id="k")
    left.export(tmp_path / "base.mem")
    right.merge(tmp_path / "base.mem")
    left.update("k", "left")
    right.update("k", "right, later")
    left.delete("k")
    left.add("only left", id="x")
    left.export(tmp_path / "l2.mem")
    right.export(tmp_path / "r2.mem")
    left.merge(tmp_path / "r2.mem")
    right.merge(tmp_path / "l2.mem")
    for id_ in ("k", "x"):
        assert [(c.kind, c.at) for c in left.history(id_)] == [(c.kind, c.at) for c in right.history(id_)]
    assert left.get("k") is None
    assert right.get("k") is None


def test_export_to_an_existing_path_is_refused(memory, tmp_path):
    memory.add("x")
    (tmp_path / "there.mem").write_text("precious")
    with pytest.raises(InvalidInput, match="exists"):
        memory.export(tmp_path / "there.mem")
    assert (tmp_path / "there.mem").read_text() == "precious"


def test_merge_of_nothing_is_refused(memory, tmp_path):
    with pytest.raises(NotAMemory, match="does not exist"):
        memory.merge(tmp_path / "nowhere.mem")
    assert not (tmp_path / "nowhere.mem").exists()


def test_erase_leaves_no_byte_of_the_text_anywhere(open_memory, tmp_path):
    memory = open_memory()
    secret = "xylophone-marmalade"
    memory.add(f"the {secret} phrase", id="s", user_id="ana")
    memory.update("s", "harmless now")
    memory.add(f"deleted {secret}", id="d", user_id="ana")
    memory.delete("d")
    memory.add("kept", user_id="bob")
    memory.lance()
    receipt = memory.erase({"text": {"contains": secret}}, reason="asked")
    assert set(receipt.ids) == {"s", "d"}
    assert receipt.checked
    assert receipt.index_removed
    assert memory.history("s") == memory.history("d") == []
    assert memory.verify().ok
    assert [item.text for item in memory.list().items] == ["kept"]
    memory.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"xylophone" not in path.read_bytes(), path
            assert b"marmalade" not in path.read_bytes(), path


def test_positions_are_not_used_again_after_an_erasure(memory):
    memory.add("a", id="a")
    last = memory.add("b", id="b")[0].position
    memory.erase({"id": "b"})
    assert memory.add("c")[0].position > last


def test_compact_keeps_every_version_and_makes_the_file_smaller(open_memory):
    memory = open_memory()
    for i in range(300):
        memory.add(f"text number {i} " + "many words " * 20, id=f"i{i}")
    memory.update("i5", "changed")
    memory.delete("i6")
    before = memory.history("i5"), memory.list(limit=1000), memory.search("number 7")
    report = memory.compact()
    assert report.after < report.before
    assert (memory.history("i5"), memory.list(limit=1000), memory.search("number 7")) == before
    assert memory.verify().ok


def test_another_embedder_is_noticed_and_rebuild_takes_it_over(open_memory):
    memory = open_memory()
    memory.add(["red apple", "blue sky"])
    memory.close()

    def other(texts):
        return embed([text[::-1] for text in texts])

    changed = open_memory(embedder=other)
    for call in (lambda: changed.search("apple"), lambda: changed.add("x")):
        with pytest.raises(EmbedderMismatch, match="rebuild"):
            call()
    assert changed.search("apple", mode="text")[0].text == "red apple"
    changed.rebuild()
    assert changed.search("red apple", mode="vector")[0].score == pytest.approx(1, abs=1e-3)
    changed.add("green leaf")
    assert changed.verify().ok
    changed.close()
    with pytest.raises(EmbedderMismatch):
        open_memory().search("apple")


def test_rebuild_may_change_the_dimension(open_memory):
    memory = open_memory()
    memory.add([f"text {i}" for i in range(30)])
    memory.update(memory.list().items[0].id, "changed text")
    memory.close()
    wide = open_memory(embedder=lambda texts: np.concatenate([embed(texts), embed(texts)], axis=1))
    wide.rebuild()
    assert wide.stats().dimension == 2 * DIM
    assert len(wide.search("text 7", mode="vector", limit=50)) == 30
    wide.compact()
    assert wide.search("text 7", mode="vector")[0].text == "text 7"


@pytest.mark.parametrize("output", [[[float("nan"), 1.0]], [[1.0], [2.0]], "text", [["a"]]])
def test_an_embedder_that_returns_nonsense_is_named_and_nothing_is_written(open_memory, output):
    memory = open_memory(embedder=lambda texts: output)
    with pytest.raises(InvalidVector):
        memory.add("x")
    assert memory.list().items == []


def test_an_object_that_cannot_embed_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="embed"):
        Memory(tmp_path / "a.mem", embedder="all-MiniLM-L6-v2")


def test_to_arrow_gives_the_data_itself(memory):
    memory.add("one", user_id="ana", metadata={"a": 1})
    memory.add("two", user_id="bob")
    table = memory.to_arrow()
    assert table["text"].to_pylist() == ["one", "two"]
    assert table["metadata"].to_pylist() == ['{"a": 1}', "{}"]
    assert table.schema.field("vector").type.list_size == DIM
    assert memory.scope(user_id="bob").to_arrow().num_rows == 1
    assert memory.to_arrow({"user_id": "nobody"}).num_rows == 0


def test_lance_gives_the_table_caught_up(memory):
    memory.add([f"text {i}" for i in range(10)])
    assert memory.lance().count_rows() == 10
    memory.delete(memory.list().items[0].id)
    memory.add("another")
    assert memory.lance().count_rows() == 10


def test_two_handles_on_one_file_see_each_others_writes(open_memory):
    one, two = open_memory(), open_memory()
    one.add("from one", id="1")
    assert two.get("1").text == "from one"
    assert two.search("one")[0].id == "1"
    two.update("1", "changed by two")
    assert one.search("two", mode="text")[0].id == "1"
    two.compact()
    one.add("after the compaction")
    assert {hit.text for hit in two.search("after")} == {"changed by two", "after the compaction"}
    one.erase({"id": "1"})
    assert two.get("1") is None
    assert len(two.search("changed")) == 1


def test_threads_may_share_a_memory(memory):
    def work(name: str) -> None:
        for i in range(20):
            memory.add(f"{name} says {i}", user_id=name)
            assert memory.search("says", user_id=name, limit=3)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.stats().users == {f"t{i}": 20 for i in range(4)}
    assert memory.verify().ok


def test_a_closed_process_leaves_a_file_that_reads_the_same(open_memory):
    memory = open_memory()
    memory.add([f"text {i}" for i in range(300)], user_id="ana")
    memory.delete(memory.list().items[7].id)
    before = memory.list(limit=1000), memory.search("text 9"), memory.stats().head
    memory.close()
    again = open_memory()
    assert (again.list(limit=1000), again.search("text 9")) == before[:2]


@pytest.mark.parametrize("call", ["directory", "jpeg", "parent"])
def test_a_path_that_is_no_memory_says_what_it_is(tmp_path, call):
    path = tmp_path / "x"
    if call == "directory":
        path.mkdir()
    elif call == "jpeg":
        path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    else:
        path = tmp_path / "missing" / "a.mem"
    with pytest.raises(NotAMemory, match={"directory": "directory", "jpeg": "JPEG", "parent": "missing"}[call]):
        Memory(path, embedder=embed)


def test_every_error_has_one_root_and_names_nothing_private(memory):
    with pytest.raises(MemkitError):
        memory.search("")


def test_scopes_have_the_same_names_everywhere():
    for name in ("add", "list", "search", "recall", "delete_where", "export", "erase", "scope"):
        parameters = inspect.signature(getattr(Memory, name)).parameters
        assert {"user_id", "agent_id", "run_id"} <= parameters.keys(), name


def test_the_first_use_prints_nothing(tmp_path):
    code = (
        "from memkit import Memory\n"
        f"m = Memory({str(tmp_path / 'q.mem')!r}, cache_dir={str(tmp_path)!r})\n"
        "m.add('hello'); m.search('hello'); m.lance(); m.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_stats_count_what_is_there(memory):
    memory.add(["a", "b"], user_id="ana")
    memory.add("c", id="c")
    memory.update("c", "d")
    memory.delete("c")
    stats = memory.stats()
    assert (stats.items, stats.versions, stats.deletions, stats.users) == (2, 4, 1, {"ana": 2})
    assert stats.created_at <= datetime.now(UTC) if hasattr(stats, "created_at") else True


def test_an_id_stays_with_its_scope_after_a_deletion_until_it_is_erased(memory):
    """Otherwise one user's history, and an export of it, would show another user's text."""
    memory.add("secret of ana", id="k", user_id="ana")
    memory.delete("k")
    with pytest.raises(IdConflict):
        memory.add("note of bob", id="k", user_id="bob")
    memory.erase(user_id="ana")
    memory.add("note of bob", id="k", user_id="bob")
    assert [change.item.text for change in memory.history("k")] == ["note of bob"]


def test_a_merge_never_moves_an_id_into_another_scope(open_memory, tmp_path):
    memory, other = open_memory(), open_memory("other.mem")
    memory.add("of ana", id="k", user_id="ana")
    memory.add("kept", id="x")
    other.add("of bob", id="k", user_id="bob")
    other.add("new", id="y")
    other.export(tmp_path / "e.mem")
    with pytest.raises(IdConflict, match="bob"):
        memory.merge(tmp_path / "e.mem")
    assert [item.id for item in memory.list().items] == ["k", "x"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Draft(" "), r"drafts\[1\] text is empty"),
        (Draft("half \ud800"), r"drafts\[1\] text holds half a character"),
        (Draft("x" * (1 << 20) + "x"), r"drafts\[1\] text of 1048577 bytes"),
        (Draft("x", id="k", metadata={"a": object()}), r"item 'k' metadata\.a is"),
        (Draft("x", metadata={1: "x"}), r"drafts\[1\] metadata has the key 1"),
        (Draft("x", user_id=""), r"user_id='': a scope is a non-empty string"),
        (Draft("x", run_id=7), r"run_id=7: a scope is a non-empty string"),
    ],
)
def test_drafts_that_could_not_be_read_again_are_refused_together(memory, bad, said):
    with pytest.raises(InvalidInput, match=said):
        memory.add_drafts([Draft("good"), bad])
    assert memory.stats().versions == 0
