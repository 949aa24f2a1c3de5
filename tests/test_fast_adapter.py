"""The query adapter: it learns words, not entities; it is closed off its support; nothing bad gets in."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.fast import adapter
from memkit_storage.errors import InvalidInput, InvalidVector

DIM, RELATIONS = 192, 5


class Town:
    """People, relations and words as random directions: a fact is its person and its relation, a query its person and
    a word of its own for the relation. Rows of `facts` are relations."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.rng, self.relations, self.words = rng, *(rng.normal(size=(2, RELATIONS, DIM)) / DIM**0.5)

    def person(self) -> np.ndarray:
        return self.rng.normal(size=DIM) / DIM**0.5

    def facts(self, person: np.ndarray) -> np.ndarray:
        return unit(1.5 * person + self.relations + 0.05 * self.rng.normal(size=(RELATIONS, DIM)))

    def query(self, person: np.ndarray, relation: int) -> np.ndarray:
        return unit(1.5 * person + self.words[relation])

    def taught(self, feedbacks: int, *, false: float = 0.0) -> adapter.AdapterState:
        """A state after feedback on as many people."""
        state = adapter.empty(DIM)
        for number in range(feedbacks):
            person, relation = self.person(), number % RELATIONS
            facts, query = self.facts(person), self.query(person, relation)
            used = int(self.rng.integers(RELATIONS)) if self.rng.random() < false else relation
            state = adapter.learn(state, query, facts[used], wrong=np.delete(facts, used, axis=0))
        return state

    def hits(self, state: adapter.AdapterState, asked: int = 100) -> float:
        """How often the fact is first for people that feedback never named."""
        right = 0
        for number in range(asked):
            person, relation = self.person(), number % RELATIONS
            adapted, _ = adapter.adapt(state, self.query(person, relation))
            right += int((self.facts(person) @ adapted).argmax() == relation)
        return right / asked


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def same(one: adapter.AdapterState, other: adapter.AdapterState) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_private_words_are_learned_for_people_never_named(seed):
    """From chance to nearly always after 60 feedbacks about other people."""
    town = Town(seed)

    assert town.hits(adapter.empty(DIM)) < 0.5
    assert town.hits(town.taught(60)) > 0.95


def test_a_third_of_false_feedback_is_outvoted():
    """With 30 % of the feedback about any fact, the words are learned all the same."""
    town = Town()

    assert town.hits(town.taught(60, false=0.3)) > 0.85


def test_it_learns_without_what_else_was_shown():
    """Used items alone teach too, if less well."""
    town, state = Town(), adapter.empty(DIM)
    for number in range(100):
        person, relation = town.person(), number % RELATIONS
        state = adapter.learn(state, town.query(person, relation), town.facts(person)[relation])

    assert town.hits(state) > 0.8


def test_queries_unlike_any_before_are_left_alone():
    """Off the support the gate is closed, and the vector is the query's own."""
    town = Town()
    state = town.taught(40)
    for _ in range(50):
        query = unit(town.rng.normal(size=DIM))
        query -= query @ town.words.T @ np.linalg.pinv(town.words).T
        adapted, support = adapter.adapt(state, unit(query))
        assert support == 0
        np.testing.assert_array_equal(adapted, adapter.adapt(adapter.empty(DIM), unit(query))[0])


def test_one_feedback_is_believed_in_full_where_it_was_given():
    """The query that got it moves by what it lacked; ridge regression alone would move it half as far."""
    town = Town()
    facts, query = town.facts(town.person()), town.query(town.person(), 0)
    state = adapter.learn(adapter.empty(DIM), query, facts[0], wrong=facts[1:])
    near = np.exp(adapter.BETA * facts @ query)
    lacked = (1 - near[0] / near.sum()) * (facts[0] - facts[1:].mean(axis=0))

    adapted, support = adapter.adapt(state, query)

    assert support == 1
    np.testing.assert_allclose(adapted, unit(query + lacked / max(1, np.linalg.norm(lacked))), atol=1e-5)


def test_a_query_that_finds_its_item_is_not_displaced():
    """Feedback on queries in the file's own words teaches next to no displacement."""
    town, own, private = Town(), adapter.empty(DIM), adapter.empty(DIM)
    for number in range(40):
        person, relation = town.person(), number % RELATIONS
        facts = town.facts(person)
        wrong = np.delete(facts, relation, axis=0)
        own = adapter.learn(own, facts[relation], facts[relation], wrong=wrong)
        private = adapter.learn(private, town.query(person, relation), facts[relation], wrong=wrong)

    assert np.linalg.norm(own.weights) < 0.5 * np.linalg.norm(private.weights)


def test_nothing_learned_changes_nothing():
    """An empty adapter returns any query at unit length, at support 0; a zero vector stays zero."""
    query = np.arange(DIM, dtype=np.float32)
    adapted, support = adapter.adapt(adapter.empty(DIM), query)

    np.testing.assert_allclose(adapted, unit(query), rtol=1e-6)
    assert support == 0
    assert not adapter.adapt(adapter.empty(DIM), np.zeros(DIM, np.float32))[0].any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), feedbacks=st.integers(0, 30), scale=st.floats(1e-3, 1e3))
def test_an_adapted_query_is_a_unit_vector(seed, feedbacks, scale):
    """Whatever was learned: finite, of length one, support in [0, 1], and the length of the query counts for nothing."""
    town = Town(seed)
    state = town.taught(feedbacks, false=0.5)
    query = town.query(town.person(), 0)
    adapted, support = adapter.adapt(state, query)

    assert np.isclose(np.linalg.norm(adapted), 1, atol=1e-5)
    assert 0 <= support <= 1
    np.testing.assert_allclose(adapter.adapt(state, query * np.float32(scale))[0], adapted, atol=1e-3)


def test_a_single_feedback_pulls_no_harder_than_the_clip():
    """However far the item is from what was expected, W moves by at most CLIP along the query."""
    state, rng = adapter.empty(DIM), np.random.default_rng(0)
    query = unit(rng.normal(size=DIM))
    far = 100 * rng.normal(size=(3, DIM)).astype(np.float32)
    after = adapter.learn(state, query, far[0], wrong=far[1:])

    assert np.linalg.norm(after.weights, 2) <= adapter.CLIP


def test_weight_is_how_much_a_feedback_counts():
    """Half the weight moves W less; weights that are no share of 1 are refused."""
    town = Town()
    person = town.person()
    facts, query = town.facts(person), town.query(person, 0)
    full, half = (adapter.learn(adapter.empty(DIM), query, facts[0], weight=w, wrong=facts[1:]) for w in (1.0, 0.5))

    assert 0 < np.linalg.norm(half.weights) < np.linalg.norm(full.weights)
    for weight in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InvalidInput, match="weight"):
            adapter.learn(full, query, facts[0], weight=weight)


def test_several_used_items_count_as_their_mean():
    town = Town()
    person = town.person()
    facts, query = town.facts(person), town.query(person, 0)
    state = adapter.learn(adapter.empty(DIM), query, facts[:2], wrong=facts[2:])

    towards = facts[:2].mean(axis=0) - facts[2:].mean(axis=0)
    assert state.weights @ query @ towards > 0
    assert float(state.items) == RELATIONS


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    """A query, a target or a wrong item with such a number raises; the state is as it was."""
    town = Town()
    state = town.taught(5)
    kept = adapter.AdapterState(*(array.copy() for array in state))
    facts, query = town.facts(town.person()), town.query(town.person(), 0)
    spoilt = query.copy()
    spoilt[3] = bad

    for call in (
        lambda: adapter.learn(state, spoilt, facts[0]),
        lambda: adapter.learn(state, query, spoilt),
        lambda: adapter.learn(state, query, facts[0], wrong=spoilt[None]),
        lambda: adapter.adapt(state, spoilt),
    ):
        with pytest.raises(InvalidVector, match="not finite"):
            call()
    assert same(state, kept)


def test_vectors_of_another_dimension_and_no_target_are_refused():
    query = np.ones(DIM, np.float32)
    state = adapter.empty(DIM)
    for call in (
        lambda: adapter.learn(state, query[:-1], query),
        lambda: adapter.learn(state, query, query[None, :-1]),
        lambda: adapter.adapt(state, query[None, None]),
    ):
        with pytest.raises(InvalidVector, match="dimension 192"):
            call()
    with pytest.raises(InvalidInput, match="at least one"):
        adapter.learn(state, query, np.zeros((0, DIM), np.float32))


def test_learning_leaves_the_former_state_alone():
    """States are values: an earlier one can be kept as a snapshot."""
    town = Town()
    state = town.taught(10)
    kept = adapter.AdapterState(*(array.copy() for array in state))
    facts = town.facts(town.person())
    adapter.learn(state, town.query(town.person(), 1), facts[0], wrong=facts[1:])

    assert same(state, kept)


def test_state_is_constant_in_size_and_sound_after_a_thousand_feedbacks():
    """float32 does for the covariance: symmetric, its eigenvalues in (0, 1]."""
    state = Town().taught(1_000)
    values = np.linalg.eigvalsh(state.covariance.astype(np.float64))

    assert [a.shape for a in state] == [a.shape for a in adapter.empty(DIM)]
    assert {a.dtype for a in state} == {np.dtype(np.float32)}
    np.testing.assert_allclose(state.covariance, state.covariance.T, atol=1e-6)
    assert values.min() > 0
    assert values.max() <= 1 + 1e-5


def test_what_is_saved_is_restored():
    state = Town().taught(10)

    assert same(adapter.from_arrays(adapter.to_arrays(state)), state)


def test_arrays_that_are_no_adapter_are_refused():
    """Missing, misshapen and not finite."""
    arrays = adapter.to_arrays(Town().taught(3))
    with pytest.raises(KeyError):
        adapter.from_arrays({name: array for name, array in arrays.items() if name != "mean"})
    with pytest.raises(ValueError, match="shapes"):
        adapter.from_arrays(arrays | {"covariance": arrays["covariance"][:-1]})
    with pytest.raises(ValueError, match="finite"):
        adapter.from_arrays(arrays | {"weights": arrays["weights"] * np.float32(np.nan)})


def test_reading_needs_no_torch():
    """A search with learned state must not pay for importing torch."""
    code = (
        "import sys, numpy as np; from memkit.fast import adapter, rules;"
        "adapter.adapt(adapter.empty(8), np.ones(8, np.float32)); assert 'torch' not in sys.modules"
    )
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path}, timeout=60)
