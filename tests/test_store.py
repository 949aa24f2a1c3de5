"""The store: what is written is there again, all or none of it, whoever wrote it and however it is read."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from storage_support import CONFIG, Forger, delete, make_row, plain, put, quiet, sample, state, texts

from memkit.errors import CorruptRecord, DamageWarning, NotAMemory, StorageFailed
from memkit_storage import store as store_module
from memkit_storage.filters import Filter
from memkit_storage.format import LEARNING, FrameType, Head, decode_heads
from memkit_storage.records import BATCH_FROM, BATCH_ROWS, Delete, to_disk_precision
from memkit_storage.rewrite import compact
from memkit_storage.rows import Row
from memkit_storage.store import Store
from memkit_storage.verify import verify

TEXT = st.text(min_size=1, max_size=30).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text))
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT)
METADATA = st.dictionaries(TEXT, st.recursive(SCALAR, lambda x: st.lists(x, max_size=3), max_leaves=4), max_size=3)
ROWS = st.lists(
    st.builds(
        Row,
        id=TEXT,
        text=TEXT,
        vector=st.lists(st.floats(-1, 1, width=16), min_size=4, max_size=4).map(lambda v: np.array(v, np.float32)),
        user_id=st.none() | TEXT,
        agent_id=st.none() | TEXT,
        run_id=st.none() | TEXT,
        metadata=METADATA,
        occurred_us=st.integers(-(2**62), 2**62),
        created_us=st.integers(0, 2**50),
        updated_us=st.integers(0, 2**50),
        surprise=st.none() | st.integers(0, 10_000).map(lambda n: n / 10_000),
    ),
    max_size=2 * BATCH_FROM,
)


@settings(max_examples=80, deadline=None)
@given(ROWS, ROWS)
def test_every_field_comes_back_also_after_reopening(tmp_path_factory, first, second):
    """As single frames and as batches, by the writer, an open reader and a new one."""
    path = tmp_path_factory.mktemp("store") / "a.mem"
    store, reader, written = Store(path, durability="os"), Store(path), []
    for rows in (first, second):
        with store.transaction() as change:
            for row in rows:
                change.put(row)
        written += change.events
    expected = [plain(event)[:-1] for event in written]  # `first` is worked out by the reader
    assert [plain(e)[:-1] for e in store.events(range(len(store.catalog)))] == expected
    live = state(store)
    assert state(reader) == live
    reader.close()
    store.close()
    opened = Store(path)
    assert state(opened) == live
    opened.close()
    assert verify(path).ok


@pytest.mark.parametrize("count", [1, BATCH_FROM - 1, BATCH_FROM, BATCH_ROWS, BATCH_ROWS + 1, 3 * BATCH_ROWS + 5])
def test_batches_of_any_size_read_the_same(tmp_path, count):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    put(store, *(make_row(f"x{i}") for i in range(count)))
    store.close()
    store = Store(path)
    assert texts(store) == {f"x{i}": f"text of x{i}" for i in range(count)}
    assert store.catalog.column("position").tolist() == list(range(count))
    for id_ in ("x0", f"x{count - 1}"):
        assert np.array_equal(store.get(id_).vector, to_disk_precision(make_row(id_).vector))
    store.close()


def test_a_failed_block_writes_nothing(tmp_path):
    store = Store(tmp_path / "a.mem", durability="os")
    put(store, make_row("x"))
    size = store.log.size

    def fail() -> None:
        with store.transaction() as change:
            change.put(make_row("y"))
            change.delete("x")
            raise KeyError("a bug of the caller")

    with pytest.raises(KeyError):
        fail()
    assert store.log.size == size
    assert texts(store) == {"x": "text of x"}
    store.close()


CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y", None])), max_size=8)


@settings(max_examples=60, deadline=None)
@given(before=CHANGES, meanwhile=CHANGES, rewritten=st.booleans())
def test_a_selection_made_before_a_transaction_is_that_of_the_transaction(
    tmp_path_factory, before, meanwhile, rewritten
):
    """Whatever another store of the file has written, deleted or packed meanwhile."""
    path = tmp_path_factory.mktemp("store") / "a.mem"
    store, other, where = Store(path, durability="os"), Store(path, durability="os"), Filter.parse({"kind": "x"})

    def make(changes):
        for id_, kind in changes:
            put(other, make_row(id_, metadata={"kind": kind})) if kind else delete(other, id_)

    make(before)
    select = store.selecting(where)
    make(meanwhile)
    if rewritten:
        compact(other)
    with store.transaction():
        found = [(row.id, row.position, row.first) for row in select()]
        assert found == [(row.id, row.position, row.first) for row in store.select(where)]
    for one in (store, other):
        one.close()


def test_a_transaction_sees_its_own_changes(tmp_path):
    store = Store(tmp_path / "a.mem", durability="os")
    put(store, make_row("x"))
    with store.transaction() as change:
        change.put(make_row("x", "changed"))
        assert change.get("x").text == "changed"
        change.delete("x")
        assert change.get("x") is None
        change.put(make_row("x", "again"))
    assert [type(event).__name__ for event in store.history("x")] == ["Row", "Row", "Delete", "Row"]
    assert store.get("x").text == "again"
    times = [e.time_us if isinstance(e, Delete) else e.updated_us for e in store.history("x")]
    assert times == sorted(set(times))
    store.close()


def test_a_new_version_comes_after_every_earlier_one_also_when_the_clock_went_back(tmp_path):
    store = Store(tmp_path / "a.mem", durability="os")
    put(store, make_row("x", "from the future", updated_us=2**52))
    put(store, make_row("x", "now"))
    assert store.get("x").text == "now"
    delete(store, "x")
    assert store.get("x") is None
    put(store, make_row("x", "again"))
    assert store.get("x").text == "again"
    store.close()


def test_a_listing_follows_the_first_recording_and_can_be_continued(tmp_path):
    store = Store(tmp_path / "a.mem", durability="os")
    put(store, *(make_row(f"x{i}") for i in range(12)))
    put(store, make_row("x3", "changed"))
    delete(store, "x5")
    put(store, make_row("x5", "again"))
    order = [row.id for row in store.select(Filter.parse(None))]
    assert order == [f"x{i}" for i in range(12) if i != 5] + ["x5"]
    page, after = [], -1
    while rows := store.select(Filter.parse(None), after=after, limit=5):
        page += [row.id for row in rows]
        after = rows[-1].first
    assert page == order
    store.close()


def test_the_configuration_is_settled_by_whoever_comes_first(tmp_path):
    one, two = Store(tmp_path / "a.mem", durability="os"), Store(tmp_path / "a.mem", durability="os")
    first = one.configure(CONFIG)
    assert two.configure({**CONFIG, "embedder": "another"}) == first
    assert first["embedder"] == "test"
    one.close()
    two.close()


def test_a_store_for_reading_makes_no_file(tmp_path):
    with pytest.raises(NotAMemory, match="does not exist"), Store.existing(tmp_path / "a.mem"):
        pass
    assert not (tmp_path / "a.mem").exists()


# what a faulty writer, or one who knows the format, may have left

GARBAGE = [b"\xc1", b"\x01", b"\x80", b"\x81\xa2id\x01", msgpack.packb({"rows": 1, "arrow": b"no arrow"}), b""]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    "kind", [kind for kind in FrameType if kind not in (FrameType.REPAIR, FrameType.ERASE, *LEARNING)]
)
def test_a_frame_with_right_checksums_and_wrong_content_is_reported_and_skipped(tmp_path, kind, garbage):
    path = tmp_path / "a.mem"
    expected = sample(path)
    forger = Forger(path)
    i = forger.find(b"text of s3")
    forger.frames[i] = forger.forged(forger.frames[i], garbage, type=int(kind))
    forger.relink()
    forger.write()
    with pytest.warns(DamageWarning, match="cannot be decoded"):
        store = Store(path)
    assert texts(store) == {id_: text for id_, text in expected.items() if id_ != "s3"}
    store.close()
    assert [d.kind for d in verify(path).damage] in (["payload"], ["checkpoint"])


def checkpointed(path) -> dict[str, str]:
    store = Store(path, durability="os")
    put(store, *(make_row(f"x{i}") for i in range(300)))
    expected = texts(store)
    store.close()
    return expected


@pytest.mark.parametrize(
    "change",
    [
        {"start": 5},
        {"start": "x"},
        {"arrow": b"no arrow"},
        {"notes": [4096, 77]},
        {"notes": None},
        {"previous": 4096},
        {"previous": 10**12},
    ],
)
def test_an_unusable_checkpoint_is_reported_and_the_log_read_instead(tmp_path, change):
    path = tmp_path / "a.mem"
    expected = checkpointed(path)
    forger = Forger(path)
    forger.edit(forger.of_type(FrameType.CHECKPOINT), **change)
    forger.relink()
    forger.set_head(head_to(forger))
    forger.write()
    with quiet():
        store = Store(path)
    assert any("read from its start" in damage.detail for damage in store.log.damage)
    assert texts(store) == expected
    assert store.notes == []
    store.close()
    assert not verify(path).ok


def head_to(forger: Forger) -> Head:
    """A newer head that names the checkpoint."""
    offset = 4096 + sum(len(frame) for frame in forger.frames[: forger.of_type(FrameType.CHECKPOINT)])
    newest = decode_heads(forger.header)[0]
    return replace(newest, sequence=newest.sequence + 1, checkpoint=offset)


def test_a_checkpoint_that_exchanges_two_items_never_gives_one_for_the_other(tmp_path):
    path = tmp_path / "a.mem"
    checkpointed(path)
    forger = Forger(path)
    i = forger.of_type(FrameType.CHECKPOINT)
    table = store_module.from_ipc(forger.value(i)["arrow"])
    ids = table["id"].to_pylist()
    ids[0], ids[1] = ids[1], ids[0]
    at = table.column_names.index("id")
    forger.edit(i, arrow=store_module.to_ipc(table.set_column(at, "id", [ids])))
    forger.relink()
    forger.write()
    store = Store(path)
    for id_ in ("x0", "x1"):
        with pytest.raises(CorruptRecord, match="verify"):
            store.get(id_)
    assert store.get("x2").text == "text of x2"
    store.close()
    assert "checkpoint" in [d.kind for d in verify(path).damage]


def test_a_disk_without_room_for_a_checkpoint_does_not_undo_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHECKPOINT_EVENTS", 5)
    monkeypatch.setattr(store_module, "CHECKPOINT_ON_CLOSE", 5)
    store = Store(tmp_path / "a.mem", durability="os")
    append = store.log.append

    def no_room(frames, **more):
        if any(kind == FrameType.CHECKPOINT for kind, _, _ in frames):
            raise StorageFailed("no space left")
        return append(frames, **more)

    monkeypatch.setattr(store.log, "append", no_room)
    for i in range(12):
        put(store, make_row(f"x{i}"))
    assert len(texts(store)) == 12
    store.close()
    assert verify(tmp_path / "a.mem").ok
    store = Store(tmp_path / "a.mem")
    assert len(texts(store)) == 12
    store.close()


def test_one_unreadable_item_does_not_hide_the_others_and_is_reported_once(tmp_path):
    path = tmp_path / "a.mem"
    checkpointed(path)
    store = Store(path)
    offset = store.catalog.place(0).offset
    with path.open("r+b") as file:
        file.seek(offset + 200)
        file.write(b"XX")
    with pytest.warns(DamageWarning) as told:
        found = texts(store)
    assert len(found) == 300 - BATCH_ROWS
    assert len(told) == 1
    with quiet():
        assert texts(store) == found
    with pytest.raises(CorruptRecord):
        store.get("x0")
    store.close()
