"""The online ranker: against its definition by autograd, and what bad labels do to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.fast import ranker
from memkit.fast.ranker import CHANCE, STRENGTH, TEMPERATURE
from memkit.ranking import prior
from memkit.signals import NAMES, SCALES

F = len(NAMES)


def lists(rng, weights, n=30, noise=0.0):
    """Signals of n candidates, and the one that a user with these weights picks."""
    signals = rng.normal(size=(n, F)) * SCALES
    chosen = int((signals @ weights + rng.gumbel(size=n) * 0.5).argmax())
    if rng.random() < noise:
        chosen = int(rng.integers(n))
    return signals, np.arange(n) == chosen


def hits(state, taste, seed, trials=200):
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(trials):
        signals, used = lists(rng, taste)
        found += int(ranker.weights(state).totals(signals).argmax() == used.argmax())
    return found / trials


def taste_of(rng):
    return rng.normal(size=F) * 2 / SCALES


def taught(taste, seed, count, noise=0.0):
    rng, state = np.random.default_rng(seed), ranker.empty()
    for _ in range(count):
        state = ranker.learn(state, *lists(rng, taste, noise=noise))
    return state


def test_without_feedback_the_weights_are_the_prior():
    assert np.allclose(ranker.weights(ranker.empty()).values, prior().values)


def test_a_taste_is_learned_from_what_was_used():
    taste = taste_of(np.random.default_rng(1))
    assert hits(taught(taste, 2, 60), taste, 3) > hits(ranker.empty(), taste, 3) + 0.3


def test_wrong_labels_cost_little_beside_the_prior():
    """Feedback that has nothing to do with what is good must leave the prior in place."""
    rng = np.random.default_rng(5)
    good = prior().values
    state = ranker.empty()
    for _ in range(80):
        signals, _ = lists(rng, good)
        state = ranker.learn(state, signals, np.arange(30) == rng.integers(30))
    assert hits(state, good, 6) > hits(ranker.empty(), good, 6) - 0.08


def test_the_guard_lets_nothing_through_that_is_within_the_noise():
    """A few lucky answers are no evidence; the same gain again and again is."""
    gains = np.array([0.1, 0.2, 0.3])

    def after(count):
        return ranker.believed(np.stack([count * gains, count * gains**2]))

    assert ranker.believed(ranker.NO_EVIDENCE) == after(1) == 0
    assert 0 < after(4) < 1
    assert after(20) == 1
    assert ranker.believed(np.stack([-20 * gains, 20 * gains**2])) == 0


def test_the_guard_returns_to_the_prior_when_learning_stops_paying():
    taste = taste_of(np.random.default_rng(1))
    state = taught(taste, 2, 60)
    assert ranker.believed(state.evidence) > 0.9
    rng = np.random.default_rng(9)
    for _ in range(40):
        state = ranker.learn(state, *lists(rng, prior().values))
    assert hits(state, prior().values, 7) > hits(ranker.empty(), prior().values, 7) - 0.1


@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0.05, 1))
@settings(deadline=None, max_examples=60)
def test_a_step_solves_the_penalised_problem_better_than_standing_still(seed, n, weight):
    """The mean after an update has a higher penalised listwise likelihood, as far as the label makes sense to it."""
    rng = np.random.default_rng(seed)
    state = ranker.empty()
    signals = rng.normal(size=(n, F)) * SCALES
    used = rng.random(n) < 0.3
    used[0], used[-1] = True, False
    after = ranker.learn(state, signals, used, weight)
    start = torch.from_numpy(state.mean)

    features, mask = torch.from_numpy(signals / SCALES) / TEMPERATURE, torch.from_numpy(used)
    said = (1 - CHANCE) * torch.softmax(features @ start, 0)[mask].sum()
    sense = weight * said / (said + CHANCE * mask.sum() / n)

    def value(mean):
        likelihood = torch.log_softmax(features @ mean, 0)[mask].mean()
        return float(sense * likelihood - STRENGTH / 2 * ((mean - start) ** 2).sum())

    assert value(torch.from_numpy(after.mean)) >= value(start) - 1e-3
    assert np.allclose(after.precision, after.precision.T)
    assert np.linalg.eigvalsh(after.precision).min() >= STRENGTH * 0.99
    assert np.isfinite(after.evidence).all()


def test_the_gradient_of_a_step_is_that_of_the_likelihood():
    """With a very strong prior a Newton step is the gradient over the strength."""
    rng = np.random.default_rng(0)
    signals, used = torch.from_numpy(rng.normal(size=(12, F))), torch.arange(12) == 4
    mean = torch.from_numpy(rng.normal(size=F) * 0.1).requires_grad_()
    likelihood = torch.log_softmax(signals @ mean / TEMPERATURE, 0)[4]
    (gradient,) = torch.autograd.grad(likelihood, mean)
    strong = torch.eye(F, dtype=torch.float64) * 1e9
    after, _ = ranker.posterior(mean.detach(), strong, signals, used, 1.0)
    share = torch.softmax(signals @ mean / TEMPERATURE, 0)[4]
    sense = (1 - CHANCE) * share / ((1 - CHANCE) * share + CHANCE / 12)
    assert torch.allclose((after - mean) * 1e9, sense * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_changes_nothing(value):
    signals = np.zeros((5, F))
    signals[2, 3] = value
    state = ranker.empty()
    assert ranker.learn(state, signals, np.arange(5) == 1) is state


@pytest.mark.parametrize("used", [[False] * 4, [True] * 4])
def test_a_choice_without_a_choice_teaches_nothing(used):
    state = ranker.empty()
    assert ranker.learn(state, np.ones((4, F)), np.array(used)) is state


def test_learning_leaves_the_former_state_as_it_was():
    state = ranker.empty()
    copies = [array.copy() for array in state]
    ranker.learn(state, *lists(np.random.default_rng(0), prior().values))
    assert all(np.array_equal(a, b) for a, b in zip(state, copies, strict=True))


def test_a_state_is_the_same_after_a_trip_through_arrays():
    state = taught(taste_of(np.random.default_rng(1)), 2, 5)
    again = ranker.from_arrays(ranker.to_arrays(state))
    assert all(np.array_equal(a, b) for a, b in zip(state, again, strict=True))
    with pytest.raises(ValueError, match="signals"):
        ranker.from_arrays({**ranker.to_arrays(state), "mean": np.zeros(3)})
    with pytest.raises(KeyError):
        ranker.from_arrays({})
