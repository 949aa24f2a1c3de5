"""A memory over time and as a file: past views, export, merge, erasure, and what survives closing."""

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
    InvalidInput,
    InvalidVector,
    MemkitError,
    NotAMemory,
    ReadOnly,
)
from memkit.ingest import Draft

MAY = datetime(2026, 5, 3, 18, 20, tzinfo=timezone(timedelta(hours=1)))


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
