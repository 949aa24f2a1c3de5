"""The catalog: replayed event by event, from checkpoints, or worked out by hand, it says the same."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from storage_support import CONFIG, delete, make_row, put, state

from memkit_storage import store as store_module
from memkit_storage.catalog import NEVER, Catalog, Place
from memkit_storage.records import Delete, Event
from memkit_storage.rewrite import compact
from memkit_storage.rows import Row
from memkit_storage.store import Store
from memkit_storage.verify import verify

VECTOR = np.zeros(2, np.float32)
# (id, time, is it a deletion, user): times come in any order, as merges bring them, and may be equal
STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.booleans(), st.sampled_from([None, "u", "v"])), max_size=30
)


def event(position: int, id_: str, time: int, is_delete: bool, user: str | None) -> Event:
    if is_delete:
        return Delete(id_, time, position)
    return Row(id_, "t", VECTOR, user_id=user, created_us=time, updated_us=time, position=position)


def replay(steps: list) -> Catalog:
    catalog = Catalog()
    for position, step in enumerate(steps):
        catalog.apply(event(position, *step), Place(4096 + 8 * position, 0))
    return catalog


def ordered(steps: list, id_: str) -> list[int]:
    """Positions of the events of an id, oldest first, by hand."""
    return sorted((i for i, step in enumerate(steps) if step[0] == id_), key=lambda i: (steps[i][1], i))


@given(STEPS)
def test_the_last_event_by_time_and_position_is_the_present(steps):
    catalog = replay(steps)
    alive = set()
    for id_ in "abc":
        events = ordered(steps, id_)
        assert catalog.history(id_) == events
        assert catalog.last_time(id_) == (steps[events[-1]][1] if events else -1)
        present = events[-1] if events and not steps[events[-1]][2] else None
        assert catalog.index(id_) == present
        alive |= {present} - {None}
    assert set(np.flatnonzero(catalog.alive()).tolist()) == alive
    assert catalog.alive_count == len(alive)


@given(STEPS, st.integers(-1, 13))
def test_the_state_at_a_time_is_that_of_the_last_event_until_then(steps, as_of):
    expected = set()
    for id_ in "abc":
        past = [i for i in ordered(steps, id_) if steps[i][1] <= as_of]
        if past and not steps[past[-1]][2]:
            expected.add(past[-1])
    assert set(np.flatnonzero(replay(steps).alive(as_of)).tolist()) == expected


@given(STEPS, st.integers(-1, 31))
def test_what_died_after_a_position_was_alive_there_and_is_not_now(steps, watermark):
    before = set(np.flatnonzero(replay(steps[: watermark + 1]).alive()).tolist())
    catalog = replay(steps)
    now = set(np.flatnonzero(catalog.alive()).tolist())
    assert set(catalog.died_after(watermark).tolist()) == before - now


@given(STEPS)
def test_applying_tells_which_version_ended(steps):
    catalog = Catalog()
    for position, step in enumerate(steps):
        before = set(np.flatnonzero(catalog.alive()).tolist())
        ended = catalog.apply(event(position, *step), Place(0, 0))
        gone = before - set(np.flatnonzero(catalog.alive()).tolist())
        assert gone == ({ended} if ended is not None else set())


@given(STEPS, st.lists(st.integers(0, 30), max_size=4))
def test_loading_tables_is_the_same_as_applying_events(steps, cuts):
    whole, loaded = replay(steps), Catalog()
    bounds = sorted({min(cut, len(steps)) for cut in cuts} | {0, len(steps)})
    for start, stop in pairwise(bounds):
        loaded.load(replay(steps[:stop]).to_table(start))
    assert len(loaded) == len(whole)
    for name in ("kind", "position", "offset", "slot", "time", "created", "previous", "ended", "ended_by", "first"):
        assert loaded.column(name).tolist() == whole.column(name).tolist(), name
    assert [loaded.scope(i) for i in range(len(steps))] == [whole.scope(i) for i in range(len(steps))]
    assert loaded.alive_count == whole.alive_count
    assert [loaded.index(id_) for id_ in "abc"] == [whole.index(id_) for id_ in "abc"]


@given(STEPS, st.sampled_from([None, "u", "v", "nobody"]))
def test_a_scope_holds_its_versions_and_no_other(steps, user):
    catalog = replay(steps)
    found = set(np.flatnonzero(catalog.in_scope({"user_id": user}) & (catalog.column("kind") == 0)).tolist())
    assert found == {i for i, (_, _, is_delete, owner) in enumerate(steps) if not is_delete and owner == user}
    counts = catalog.scope_values("user_id", catalog.column("kind") == 0)
    assert counts.get(str(user), 0) == (0 if user is None else len(found))


def test_positions_with_gaps_are_found_and_missing_ones_are_not():
    catalog = Catalog()
    for position in (2, 5, 9):
        catalog.apply(event(position, f"x{position}", 1, False, None), Place(0, 0))
    assert catalog.by_position([9, 2, 3, 5, 10, -1]).tolist() == [2, 0, 1]
    assert Catalog().by_position([1]).tolist() == []
    assert catalog.column("ended").tolist() == [NEVER] * 3


def test_a_catalog_grows_beyond_its_first_columns():
    steps = [(f"x{i}", i, False, f"u{i % 7}") for i in range(3000)]
    catalog = replay(steps)
    assert catalog.alive_count == 3000
    assert catalog.scope(2999) == (f"u{2999 % 7}", None, None)
    assert catalog.place(2999) == (4096 + 8 * 2999, 0)


# checkpoints in a file

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(1, 12)),
        st.tuples(st.just("delete"), st.integers(0, 9), st.just(1)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        st.tuples(st.just("note"), st.just(0), st.just(0)),
        st.tuples(st.just("compact"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@pytest.fixture(scope="module", autouse=True)
def many_checkpoints():
    """So that they are written and read within a few events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "CHECKPOINT_EVENTS", 7)
        patch.setattr(store_module, "CHECKPOINT_ON_CLOSE", 2)
        yield


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_opening_by_checkpoints_reads_what_a_full_scan_reads(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("catalog") / "a.mem"
    store = Store(path, durability="os")
    store.configure(CONFIG)
    for action, n, count in actions:
        if action == "put":
            put(
                store, *(make_row(f"x{(n + i) % 15}", f"{n} {i}", user_id="u" if i % 2 else None) for i in range(count))
            )
        elif action == "delete" and store.get(f"x{n}"):
            delete(store, f"x{n}")
        elif action == "note":
            with store.lock, store.exclusive():
                store.append_note(store_module.FrameType.REPAIR, {"time": 1, "cut": [], "lost": [], "noted": []})
        elif action == "compact":
            compact(store)
        elif action == "reopen":
            store.close()
            store = Store(path, durability="os")
    live = state(store)
    store.close()
    assert verify(path).ok
    opened = Store(path)
    assert state(opened) == live
    opened.close()
    data = path.read_bytes()
    path.write_bytes(data[:512] + bytes(584) + data[1096:])  # without heads, no checkpoint is found
    scanned = Store(path)
    assert scanned.log.head is None
    assert state(scanned) == live
    scanned.close()


def test_a_checkpoint_is_used_and_not_merely_written(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    for i in range(100):
        put(store, make_row(f"x{i}"))
    store.close()
    opened = Store(path)
    assert opened.log.head.checkpoint
    offsets = opened.catalog.column("offset")
    first = int(offsets[0])
    opened.close()
    data = bytearray(path.read_bytes())
    data[first + 110] ^= 1  # opening does not look at it, reading does
    path.write_bytes(data)
    opened = Store(path)
    assert opened.log.damage == []
    assert opened.catalog.alive_count == 100
    opened.close()
    assert not verify(path).ok
