"""The memory of past needs: what it brings back, what it leaves alone, and that its state is what it says it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.errors import InvalidInput
from memkit.fast import familiarity, needs
from memkit.fast.calibration import Calibration

DIM = 48
seeds = st.integers(0, 2**32 - 1)


def vectors(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def taught(seed: int, count: int) -> tuple[needs.NeedsState, np.ndarray]:
    """Need i was served by items 10 i and 10 i + 1."""
    state, queries = needs.empty(DIM), vectors(seed, count)
    for i, query in enumerate(queries):
        state = needs.learn(state, query, used=[10 * i, 10 * i + 1])
    return state, queries


def same(a: needs.NeedsState, b: needs.NeedsState) -> None:
    for name in needs.NeedsState._fields:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def covariance(seed: int) -> tuple[np.ndarray, np.ndarray]:
    items = vectors(seed, 80)
    return items.mean(axis=0), np.cov(items.T).astype(np.float32)


# reading


@given(seeds, st.integers(1, 40))
@settings(max_examples=30)
def test_a_need_asked_again_brings_back_its_own_items_with_certainty(seed, count):
    state, queries = taught(seed, count)
    which = seed % count
    found = familiarity.recall(state, 2 * queries[which])
    assert found.familiarity > 0.6  # among three to six needs one in a hundred is below .85
    assert {position for position, value in found.bonus.items() if value > 0.5} == {10 * which, 10 * which + 1}
    assert set(found.nearest) == {10 * which, 10 * which + 1}


@given(seeds, st.integers(1, 40))
@settings(max_examples=30)
def test_an_unrelated_need_is_not_familiar_and_gets_nothing_certain(seed, count):
    """However often the items were used for other needs."""
    state, _ = taught(seed, count)
    for _ in range(3):
        state = needs.learn(state, vectors(seed, 1)[0], used=[0])
    found = familiarity.recall(state, vectors(seed + 1, 1)[0])
    assert found.familiarity <= 0.5
    assert all(value <= 0.5 for value in found.bonus.values())


@given(seeds, st.integers(0, 30))
@settings(max_examples=30)
def test_bonus_and_familiarity_lie_between_0_and_1(seed, count):
    state, queries = taught(seed, count)
    for query in [*queries, *vectors(seed + 1, 3), *(queries + vectors(seed + 2, count))]:
        found = familiarity.recall(state, query)
        assert 0 <= found.familiarity <= 1
        assert all(0 < value <= 1 for value in found.bonus.values())


@given(seeds, st.integers(2, 30))
@settings(max_examples=30)
def test_the_nearer_even_chances_are_the_more_familiar_a_need_is(seed, count):
    state, queries = taught(seed, count)
    query = queries[0] + 0.7 * vectors(seed + 1, 1)[0]
    far, near = (familiarity.recall(state, query, calibration=Calibration(even)) for even in (3.0, 1.0))
    assert near.familiarity > far.familiarity
    assert (near.z, near.nearest) == (far.z, far.nearest)
    assert all(near.bonus[position] >= value for position, value in far.bonus.items())


def test_an_empty_memory_says_nothing():
    assert familiarity.recall(needs.empty(DIM), vectors(0, 1)[0]) == familiarity.NOTHING


def test_the_gate_compares_with_how_near_unrelated_needs_come():
    """The same similarity is familiar where needs are far apart, and means nothing where they are all alike."""
    rng = np.random.default_rng(0)
    common, query = rng.normal(size=DIM), rng.normal(size=DIM)
    asked_again = query + 0.9 * rng.normal(size=DIM)
    apart, alike = (needs.learn(needs.empty(DIM), query, used=[7]) for _ in range(2))
    for i in range(30):
        noise = rng.normal(size=DIM)
        apart = needs.learn(apart, noise, used=[100 + i])
        alike = needs.learn(alike, query + 0.3 * noise + 0.1 * common, used=[100 + i])
    assert familiarity.recall(apart, asked_again).familiarity > familiarity.recall(alike, asked_again).familiarity


def test_needs_served_by_the_same_item_do_not_count_as_unrelated():
    """Several wordings of one need leave the gate open for the next one."""
    query = vectors(0, 1)[0]
    state, other = needs.empty(DIM), needs.empty(DIM)
    for i, noise in enumerate(vectors(1, 20)):
        state = needs.learn(state, query + 0.5 * noise, used=[7])
        other = needs.learn(other, query + 0.5 * noise, used=[i])
    assert len(state.keys) == len(other.keys) == 20
    again = query + 0.5 * vectors(2, 1)[0]
    assert familiarity.recall(state, again).familiarity > 0.5 > familiarity.recall(other, again).familiarity


# votes


def test_several_feedbacks_vote_down_a_wrong_one():
    state, query = needs.empty(DIM), vectors(0, 1)[0]
    for used in ([1], [1], [2], [1]):
        state = needs.learn(state, query, used=used)
    bonus = familiarity.recall(state, query).bonus
    assert bonus[1] > 0.5 > bonus[2] > 0


def test_a_newer_answer_takes_over():
    state, query = needs.empty(DIM), vectors(0, 1)[0]
    for used, wrong in (([1], []), ([1], []), ([1], []), ([2], [1]), ([2], [1])):
        state = needs.learn(state, query, used=used, wrong=wrong)
    bonus = familiarity.recall(state, query).bonus
    assert bonus[2] > bonus.get(1, 0.0)


def test_an_item_found_wrong_loses_its_bonus():
    query = vectors(0, 1)[0]
    state = needs.learn(needs.empty(DIM), query, used=[1, 2])
    state = needs.learn(state, query, used=[], wrong=[1])
    assert list(familiarity.recall(state, query).bonus) == [2]


def test_what_was_only_wrong_is_no_need():
    state = needs.learn(needs.empty(DIM), vectors(0, 1)[0], used=[], wrong=[1])
    same(state, needs.empty(DIM))


def test_a_politer_wording_is_the_same_need():
    query = vectors(0, 1)[0]
    state = needs.learn(needs.empty(DIM), query, used=[1])
    state = needs.learn(state, query + 0.1 * vectors(1, 1)[0], used=[1])
    assert len(state.keys) == 1


@given(seeds, st.lists(st.tuples(st.lists(st.integers(0, 60), max_size=30), st.floats(0.01, 1)), max_size=15))
@settings(max_examples=30)
def test_memory_is_constant(seed, feedbacks):
    state, queries = needs.empty(DIM), vectors(seed, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(needs, "SIZE", 3)
        for i, (used, weight) in enumerate(feedbacks):
            state = needs.learn(state, queries[i % 4], used=used, weight=weight)
    assert len(state.keys) <= 3
    assert state.items.shape == state.votes.shape == (len(state.keys), needs.VOTES)
    assert np.isfinite(state.votes).all()


def served_in_common(count: int) -> tuple[needs.NeedsState, np.ndarray, np.ndarray]:
    """Item 7 served needs that have one direction in common, 100 and above one need each; and two axes apart."""
    apart = np.linalg.qr(vectors(0, DIM))[0].astype(np.float32)
    common, state = 0.6 * apart[0], needs.empty(DIM)
    for i in range(1, 9):
        state = needs.learn(state, apart[20 + i], used=[100 + i])
    for i in range(1, count + 1):
        state = needs.learn(state, common + apart[i], used=[7])
    return state, common, apart


def test_an_item_that_served_several_needs_is_brought_back_by_what_they_have_in_common():
    found = []
    for count in range(1, 7):
        state, common, apart = served_in_common(count)
        found.append(familiarity.recall(state, common + apart[10]).bonus.get(7, 0.0))
    before, several = found[: familiarity.SEVERAL - 1], found[familiarity.SEVERAL - 1 :]
    assert max(before) < 0.18 < 0.25 < several[0]
    assert sorted(several) == several
    assert 7 not in familiarity.recall(state, apart[15]).bonus
    ready = familiarity.prepare(state)
    assert len(ready.keys) == len(state.keys) + 1
    mean = sum(common + apart[i] for i in range(1, 7))
    np.testing.assert_allclose(ready.keys[-1], mean / np.linalg.norm(mean), atol=1e-3)
    assert (ready.prototype >= 0).sum() == 6


def test_a_need_of_several_that_is_asked_again_word_for_word_is_known():
    state, common, apart = served_in_common(6)
    found = familiarity.recall(state, common + apart[3])
    assert found.bonus[7] > 0.5
    assert found.nearest == (7,)


def test_what_was_found_wrong_altogether_says_nothing():
    query = vectors(0, 1)[0]
    state = needs.learn(needs.empty(DIM), query, used=[1])
    for _ in range(2):
        state = needs.learn(state, query, used=[], wrong=[1])
    assert len(state.keys) == 1
    assert familiarity.recall(state, query) == familiarity.NOTHING


def test_past_its_size_the_need_asked_longest_ago_makes_room(monkeypatch):
    monkeypatch.setattr(needs, "SIZE", 3)
    state, queries = needs.empty(DIM), vectors(0, 4)
    for i in (0, 1, 2, 0, 3):
        state = needs.learn(state, queries[i], used=[i])
    assert 1 not in state.items
    assert {0, 2, 3} <= set(state.items.ravel().tolist())


def test_past_its_size_the_nearest_needs_of_the_item_that_served_most_become_one(monkeypatch):
    monkeypatch.setattr(needs, "SIZE", 4)
    apart = np.linalg.qr(vectors(0, DIM))[0].astype(np.float32)
    state = needs.empty(DIM)
    for query, item, weight in (
        (apart[0], 7, 0.5),
        (apart[0] + apart[1], 7, 1.0),
        (apart[2], 7, 1.0),
        (apart[3], 8, 1.0),
    ):
        state = needs.learn(state, query, used=[item], weight=weight)
    state = needs.learn(state, apart[4], used=[9])
    assert len(state.keys) == 4
    assert sorted(state.items[:, 0].tolist()) == [7, 7, 8, 9]
    one = int(np.argmax(state.votes[:, 0]))
    assert state.items[one, 0] == 7
    assert state.votes[one, 0] == state.weight[one] == 1.5
    mean = 0.5 * apart[0] + (apart[0] + apart[1]) / 2**0.5
    np.testing.assert_allclose(state.keys[one], mean / np.linalg.norm(mean), atol=1e-3)
    for query, item in ((apart[0], 7), (apart[2], 7), (apart[3], 8), (apart[4], 9)):
        bonus = familiarity.recall(state, query).bonus
        assert max(bonus, key=bonus.__getitem__) == item


def test_needs_that_have_nothing_in_common_do_not_become_one(monkeypatch):
    monkeypatch.setattr(needs, "SIZE", 2)
    query = vectors(0, 1)[0]
    state = needs.learn(needs.learn(needs.empty(DIM), query, used=[1]), -query, used=[1])
    state = needs.learn(state, vectors(1, 1)[0], used=[2])
    assert sorted(state.items[:, 0].tolist()) == [1, 2]
    assert state.keys[np.argmin(state.items[:, 0])] @ query < 0  # the newer one


# state


@given(seeds, st.integers(0, 20))
@settings(max_examples=30)
def test_learning_leaves_the_state_it_was_given(seed, count):
    state, queries = taught(seed, count)
    before = needs.from_arrays({name: array.copy() for name, array in needs.to_arrays(state).items()})
    for query in [*queries[:3], *vectors(seed + 1, 1)]:
        needs.learn(state, query, used=[5], wrong=[6])
    needs.forget(state, [0, 11])
    same(state, before)


@given(seeds, st.integers(0, 20))
@settings(max_examples=30)
def test_a_state_that_was_saved_is_the_same_state(seed, count):
    state, _ = taught(seed, count)
    same(needs.from_arrays(needs.to_arrays(state)), state)


@given(seeds, st.integers(1, 20), st.lists(st.integers(0, 200), max_size=20))
@settings(max_examples=30)
def test_what_is_forgotten_is_gone_and_nothing_else(seed, count, positions):
    state, queries = taught(seed, count)
    after = needs.forget(state, positions)
    assert not set(after.items.ravel().tolist()) & set(positions)
    for i, query in enumerate(queries):
        left = {10 * i, 10 * i + 1} - set(positions)
        known = (after.keys @ (query / np.linalg.norm(query)) > 0.99).any()
        assert known == bool(left)
        assert left <= set(after.items.ravel().tolist())


@given(seeds, st.integers(1, 25), st.integers(0, 5))
@settings(max_examples=25)
def test_preparing_step_by_step_is_preparing_at_once(seed, count, more):
    state, _ = taught(seed, count)
    whitening = familiarity.whitening_of(state, *covariance(seed), 80)
    former = familiarity.prepare(state, whitening)
    for query in vectors(seed + 1, more):
        state = needs.learn(state, query, used=[3])
    state = needs.forget(state, [0, 1])
    if not len(state.keys):
        return
    stepwise, whole = familiarity.prepare(state, whitening, former), familiarity.prepare(state, whitening)
    np.testing.assert_allclose(stepwise.keys, whole.keys, atol=1e-5)
    for name in ("mean", "spread", "items", "shares", "prototype"):
        np.testing.assert_allclose(getattr(stepwise, name), getattr(whole, name), atol=1e-4)
    query = vectors(seed + 2, 1)[0]
    assert familiarity.recall(state, query, prepared=stepwise).familiarity == pytest.approx(
        familiarity.recall(state, query, whitening).familiarity, abs=1e-3
    )


def test_another_whitening_makes_keys_anew():
    state, _ = taught(0, 5)
    plain = familiarity.prepare(state)
    whitening = familiarity.whitening_of(state, *covariance(0), 80)
    expected, found = familiarity.prepare(state, whitening), familiarity.prepare(state, whitening, plain)
    np.testing.assert_array_equal(found.keys, expected.keys)
    assert not np.allclose(plain.keys, expected.keys)


def test_whitening_removes_what_all_questions_share():
    """Questions about one person are alike; their keys are not."""
    shared = 2 * vectors(9, 1)[0]
    state = needs.empty(DIM)
    for i, query in enumerate(vectors(0, 60)):
        state = needs.learn(state, shared + query, used=[i])
    raw, keys = state.keys, familiarity.prepare(state, familiarity.whitening_of(state, *covariance(0), 80)).keys
    apart = ~np.eye(60, dtype=bool)
    assert (raw @ raw.T)[apart].mean() > 0.7
    assert abs((keys @ keys.T)[apart].mean()) < 0.2


def test_whitening_weighs_down_what_the_needs_of_one_item_differ_in():
    """They differ along one direction only: keys of one item come together, those of different items stay apart."""
    apart = np.linalg.qr(vectors(0, DIM))[0].astype(np.float32)
    flat = np.zeros(DIM, np.float32), np.zeros((DIM, DIM), np.float32)
    state = needs.empty(DIM)
    for item in range(8):
        for side in (-1, 1):
            state = needs.learn(state, apart[item] + side * (0.5 + 0.05 * item) * apart[20], used=[item])
    keys = familiarity.prepare(state, familiarity.whitening_of(state, *flat, 0)).keys[:16]
    same = np.repeat(np.arange(8), 2)[:, None] == np.repeat(np.arange(8), 2)
    raw, whitened = (rows @ rows.T for rows in (state.keys, keys))
    pairs = same & ~np.eye(16, dtype=bool)
    assert whitened[pairs].mean() > raw[pairs].mean() + 0.2
    assert whitened[~same].mean() < 0.3


def test_the_first_rows_of_a_state_are_a_state():
    state, _ = taught(0, 5)
    some = needs.first(state, 3)
    np.testing.assert_array_equal(some.keys, state.keys[:3])
    same(needs.from_arrays(needs.to_arrays(some)), some)


def test_an_item_is_served_most_where_it_has_most_votes():
    state = needs.learn(needs.empty(DIM), vectors(0, 1)[0], used=[4])
    state = needs.learn(state, vectors(0, 1)[0], used=[4, 5])
    assert needs.served(state).tolist() == [4]
    state = needs.learn(state, vectors(0, 1)[0], used=[], wrong=[4, 5])
    state = needs.learn(state, vectors(0, 1)[0], used=[], wrong=[4, 5])
    assert needs.served(state).tolist() == [-1]


def test_a_whitening_is_finite_from_the_first_need_on():
    for count in (0, 1, 2):
        whitening = familiarity.whitening_of(taught(0, count)[0], *covariance(0), 80)
        assert np.isfinite(whitening.mean).all()
        assert np.isfinite(whitening.matrix).all()
    flat = familiarity.whitening_of(needs.empty(DIM), np.zeros(DIM, np.float32), np.zeros((DIM, DIM), np.float32), 0)
    assert np.isfinite(flat.matrix).all()


# bad input


@pytest.mark.parametrize("bad", [np.zeros(DIM), np.full(DIM, np.nan), np.full(DIM, np.inf), np.ones(DIM - 1)])
def test_an_unusable_query_vector_is_refused(bad):
    state, _ = taught(0, 3)
    with pytest.raises(InvalidInput, match="query vector"):
        needs.learn(state, bad, used=[1])
    with pytest.raises(InvalidInput, match="query vector"):
        familiarity.recall(state, bad)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.5, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(InvalidInput, match="weight="):
        needs.learn(needs.empty(DIM), vectors(0, 1)[0], used=[1], weight=weight)


def test_contradictory_feedback_and_negative_positions_are_refused():
    with pytest.raises(InvalidInput, match=r"items \[2\] are both"):
        needs.learn(needs.empty(DIM), vectors(0, 1)[0], used=[1, 2], wrong=[2])
    with pytest.raises(InvalidInput, match="log position -1"):
        needs.learn(needs.empty(DIM), vectors(0, 1)[0], used=[-1])


def test_arrays_that_do_not_belong_together_are_refused():
    arrays = needs.to_arrays(taught(0, 3)[0])
    with pytest.raises(InvalidInput, match="lacks votes"):
        needs.from_arrays({name: array for name, array in arrays.items() if name != "votes"})
    with pytest.raises(InvalidInput, match="shapes"):
        needs.from_arrays({**arrays, "weight": arrays["weight"][:1]})


# lift


@given(seeds, st.integers(1, 40), st.floats(0.01, 100), st.floats(-50, 50))
def test_lift_has_no_unit_and_lowers_nothing(seed, count, scale, shift):
    rng = np.random.default_rng(seed)
    scores, bonus = rng.normal(size=count), rng.random(count) * (rng.random(count) < 0.3)
    lifted = familiarity.lift(scores, bonus)
    assert (lifted >= scores.astype(np.float32)).all()
    again = familiarity.lift(scale * scores + shift, bonus)
    np.testing.assert_allclose(again, scale * lifted + shift, rtol=1e-3, atol=1e-3 * max(scale, 1))


@given(seeds, st.integers(6, 40), st.floats(0.01, 0.5))
def test_perhaps_is_worth_the_fifth_place_at_most(seed, count, bonus):
    scores = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    bonuses = np.zeros(count)
    bonuses[scores.argmin()] = bonus
    lifted = familiarity.lift(scores, bonuses)
    assert (lifted > lifted[scores.argmin()]).sum() >= familiarity.PLACE
    assert (np.argsort(-lifted)[: familiarity.PLACE] == np.argsort(-scores)[: familiarity.PLACE]).all()


@given(seeds, st.integers(6, 40))
def test_a_need_beyond_doubt_is_worth_the_first_place(seed, count):
    scores = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    bonuses = np.zeros(count)
    middling = np.argsort(scores)[count // 2]
    bonuses[middling] = 1.0
    assert familiarity.lift(scores, bonuses).argmax() == middling


def test_no_candidates_no_lift():
    assert len(familiarity.lift(np.zeros(0), np.zeros(0))) == 0


# the test set of the benchmark


def test_paraphrases_share_no_content_word():
    benchmark = pytest.importorskip("benchmarks.recall.needs", exc_type=ModuleNotFoundError)
    assert benchmark.check(benchmark.load_needs()) == []
    shared = [{"need": "Where does Nora live now?", "paraphrases": ["Nora lives where?", "Which city is it?"]}]
    assert len(benchmark.check(shared)) == 1


def test_every_need_has_two_paraphrases_and_evidence_in_the_demo():
    benchmark = pytest.importorskip("benchmarks.recall.needs", exc_type=ModuleNotFoundError)
    lines = Path("memkit/data/demo.jsonl").read_text(encoding="utf-8").splitlines()
    known = {json.loads(line)["id"] for line in lines if line.strip()}
    entries = benchmark.load_needs()
    assert len({entry["need"] for entry in entries}) == len(entries) >= 60
    for entry in entries:
        assert len(set(entry["paraphrases"])) == 2
        assert entry["evidence"]
        assert set(entry["evidence"]) <= known
