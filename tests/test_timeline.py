"""Who stands next to whom, against sorting in plain Python; and the sample that stands for a file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit_storage.catalog import Catalog, Place
from memkit_storage.records import Delete
from memkit_storage.rows import Row
from memkit_storage.sample import BLOCK, BLOCKS, milestone, sample_key, take_sample
from memkit_storage.store import Store
from memkit_storage.timeline import SESSION_GAP_US, Timeline
from tests.storage_support import make_row, put

HOUR = SESSION_GAP_US
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]),  # user
        st.sampled_from(["r", None]),  # run
        st.integers(0, 12),  # occurred, in half hours
        st.integers(0, 9),  # which item
        st.booleans(),  # deleted
    ),
    max_size=40,
)


def row(position, user, run, hours, item):
    vector = np.ones(2, np.float32)
    scope = {"user_id": user, "run_id": run}
    return Row(
        f"{user}{run}{item}",
        "t",
        vector,
        **scope,
        occurred_us=hours * HOUR // 2,
        updated_us=position,
        position=position,
    )


def expected(rows, position, reach):
    me = rows[position]
    line = sorted((r for r in rows.values() if r.scope == me.scope), key=lambda r: (r.occurred_us, r.position))
    sessions, begin = {}, None
    for before, one in zip([None, *line], line, strict=False):
        if before is None or one.occurred_us - before.occurred_us > HOUR:
            begin = one.position
        sessions[one.position] = begin
    at = [r.position for r in line].index(position)
    part = [r.position for r in line[max(0, at - reach) : at + reach + 1]]
    return part, [sessions[p] for p in part]


@given(EVENTS, st.integers(0, 4), st.integers(0, 40))
@settings(deadline=None)
def test_neighbours_are_those_of_a_sorted_list(events, reach, built_after):
    """Whether the timeline was there from the start, or was made late, or was asked in between."""
    catalog, rows, alive = Catalog(), {}, {}
    timeline = Timeline(catalog)
    for position, (user, run, hours, item, deleted) in enumerate(events):
        if position == built_after:
            timeline = Timeline(catalog)
        new = row(position, user, run, hours, item)
        ended = alive.pop(new.id, None)
        event = Delete(new.id, position, position) if deleted else new
        catalog.apply(event, Place(0, position))
        if ended is not None:
            timeline.end(ended)
            rows.pop(ended)
        if not deleted:
            timeline.put(position)
            rows[position], alive[new.id] = new, position
        if rows and position % 3 == 0:
            timeline.around(max(rows), 1)
    for position in range(len(events)):
        found = timeline.around(position, reach)
        if position not in rows:
            assert found is None
            continue
        assert found is not None
        assert (found.positions.tolist(), found.sessions.tolist()) == expected(rows, position, reach)
        assert found.positions[found.at] == position


def test_the_past_has_its_own_neighbours():
    catalog = Catalog()
    for position in range(3):
        catalog.apply(row(position, "a", None, position, position), Place(0, position))
    catalog.apply(Delete("aNone1", 10, 3), Place(0, 3))
    assert Timeline(catalog).around(0, 1).positions.tolist() == [0, 2]
    assert Timeline(catalog, 5).around(0, 1).positions.tolist() == [0, 1]
    assert Timeline(catalog).around(1, 1) is None


@given(st.integers(0, 10**7))
def test_milestones_grow_by_a_quarter_and_never_overtake(n):
    assert milestone(n) <= n <= max(17, 1.3 * milestone(n))
    assert milestone(n) <= milestone(n + 1)


@pytest.mark.parametrize("count", [0, 1, 5, 16, 300, 1500])
def test_a_sample_depends_on_the_log_alone(tmp_path, count):
    store = Store(tmp_path / "a.mem", durability="os")
    store.configure({"embedder": "x", "dim": len(make_row("x").vector)})
    for i in range(count):
        if i % 100 == 0:
            put(store, *(make_row(f"i{j}") for j in range(i, min(i + 100, count))))
    with store.lock:
        here = take_sample(store)
    assert len(here.vectors) == min(milestone(count), BLOCK * BLOCKS)
    store.close()
    again = Store(tmp_path / "a.mem")
    with again.lock:
        there = take_sample(again)
        assert sample_key(again) == there.key == here.key
    assert np.array_equal(here.vectors, there.vectors)
    assert np.array_equal(here.pairs, there.pairs)
    again.close()


def test_pairs_stay_within_a_scope(tmp_path):
    store = Store(tmp_path / "a.mem", durability="os")
    store.configure({"embedder": "x", "dim": len(make_row("x").vector)})
    put(store, *(make_row(f"i{i}", user_id="ab"[i // 5]) for i in range(10)))
    with store.lock:
        sample = take_sample(store)
    assert sample.pairs.tolist() == [[i, i + 1] for i in range(9) if i != 4]
    store.close()
