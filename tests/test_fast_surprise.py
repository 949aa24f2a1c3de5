"""The surprise of new items: what is new, what was said before, and that the state is what it says it is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.errors import InvalidInput
from memkit.fast import surprise

DIM = 16
seeds = st.integers(0, 2**32 - 1)


def vectors(seed: int, count: int, dim: int = DIM) -> np.ndarray:
    """(count, dim) with some near-duplicates among them."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dim))
    again = rng.integers(0, max(count, 1), count)
    copies = rng.random(count) < 0.3
    rows[copies] = rows[again][copies] + 0.05 * rng.normal(size=(copies.sum(), dim))
    return rows.astype(np.float32)


def loop(state: surprise.SurpriseState, rows: np.ndarray) -> tuple[surprise.SurpriseState, list[float]]:
    found = []
    for row in rows:
        state, value = surprise.observe(state, row)
        found.append(value)
    return state, found


def same(a: surprise.SurpriseState, b: surprise.SurpriseState) -> None:
    np.testing.assert_allclose(a.slots[: a.filled], b.slots[: b.filled], atol=1e-6)
    np.testing.assert_array_equal(a.renewed[: a.filled], b.renewed[: b.filled])
    assert (a.filled, a.items) == (b.filled, b.items)
    assert a.momentum == pytest.approx(b.momentum, abs=1e-5)


def test_the_first_item_is_a_full_surprise_and_its_repeat_is_none():
    row = vectors(0, 1)[0]
    state, first = surprise.observe(surprise.empty(DIM), row)
    assert (first, state.momentum) == (1.0, pytest.approx(0.1))
    state, again = surprise.observe(state, 3 * row)
    assert again == pytest.approx(0, abs=1e-5)
    assert state.momentum == pytest.approx(0.09)


@given(seeds, st.integers(2, 80))
def test_a_repeat_surprises_less_than_what_is_new(seed, count):
    """Among the items that the slots still hold."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 64)).astype(np.float32)
    state, _ = surprise.observe_many(surprise.empty(64), rows)
    near = rows[rng.integers(count)] + 0.02 * rng.normal(size=64)
    _, repeated = surprise.observe(surprise.copy(state), near)
    _, new = surprise.observe(surprise.copy(state), rng.normal(size=64))
    assert repeated < 0.05 < new


@given(seeds, st.sampled_from([0, 1, 2, 63, 64, 65, 100]))
@settings(max_examples=30)
def test_observing_many_is_observing_one_by_one(seed, count):
    rows = vectors(seed, count)
    expected, found = loop(surprise.empty(DIM), rows)
    state, surprises = surprise.observe_many(surprise.empty(DIM), rows)
    np.testing.assert_allclose(surprises, found, atol=1e-5)
    same(state, expected)


def test_observing_many_is_observing_one_by_one_when_slots_are_taken_over(monkeypatch):
    monkeypatch.setattr(surprise, "SLOTS", 20)
    rows = vectors(3, 300)
    expected, found = loop(surprise.empty(DIM), rows)
    state, surprises = surprise.observe_many(surprise.empty(DIM), rows)
    np.testing.assert_allclose(surprises, found, atol=1e-5)
    same(state, expected)
    assert state.filled == 20


@given(seeds, st.integers(0, 90), st.integers(0, 90))
@settings(max_examples=30)
def test_a_stream_may_be_split_anywhere(seed, first, second):
    rows = vectors(seed, first + second)
    whole, expected = surprise.observe_many(surprise.empty(DIM), rows)
    state, before = surprise.observe_many(surprise.empty(DIM), rows[:first])
    state, after = surprise.observe_many(state, rows[first:])
    np.testing.assert_allclose(np.concatenate([before, after]), expected, atol=1e-5)
    same(state, whole)


@given(seeds, st.integers(1, 100))
@settings(max_examples=30)
def test_surprise_and_momentum_lie_between_0_and_1(seed, count):
    state, surprises = surprise.observe_many(surprise.empty(DIM), vectors(seed, count))
    assert (surprises >= 0).all()
    assert (surprises <= 1).all()
    assert 0 <= state.momentum < 1


@given(seeds)
@settings(max_examples=20)
def test_a_narrow_range_of_cosines_changes_nothing(seed):
    """An embedder that adds one large common component gives the surprises of one that does not, from two slots on."""
    rows = np.random.default_rng(seed).normal(size=(60, 200)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shifted = np.concatenate([rows, np.full((60, 1), 1.5, np.float32)], axis=1)
    _, plain = surprise.observe_many(surprise.empty(200), rows)
    _, common = surprise.observe_many(surprise.empty(201), shifted)
    np.testing.assert_allclose(common[2:], plain[2:], atol=1e-3)


def test_momentum_follows_the_surprises():
    state, surprises = surprise.observe_many(surprise.empty(DIM), vectors(5, 50))
    expected = 0.0
    for value in surprises.tolist():
        expected = 0.9 * expected + 0.1 * value
    assert state.momentum == pytest.approx(expected, abs=1e-6)


def test_memory_is_constant_and_the_slot_renewed_longest_ago_makes_room(monkeypatch):
    monkeypatch.setattr(surprise, "SLOTS", 3)
    basis = np.eye(8, dtype=np.float32)
    state, _ = surprise.observe_many(surprise.empty(8), basis[[0, 1, 2, 0, 3]])
    assert state.slots.shape == (3, 8)
    _, kept = surprise.observe(surprise.copy(state), basis[0])
    _, gone = surprise.observe(surprise.copy(state), basis[1])
    assert (kept, gone) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [np.zeros(DIM), np.full(DIM, np.nan), np.full(DIM, np.inf), np.ones(DIM + 1)])
def test_an_unusable_vector_is_refused_and_nothing_is_observed(bad):
    state, _ = surprise.observe_many(surprise.empty(DIM), vectors(1, 5))
    before = surprise.copy(state)
    with pytest.raises(InvalidInput, match="vector"):
        surprise.observe(state, bad.astype(np.float32))
    with pytest.raises(InvalidInput, match="vector"):
        surprise.observe_many(state, np.stack([bad, bad]).astype(np.float32))
    same(state, before)


def test_neither_state_needs_torch():
    code = "import sys, memkit.fast.surprise, memkit.fast.needs; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode
        == 0
    )
