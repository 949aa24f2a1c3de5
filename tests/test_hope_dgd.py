"""Delta gradient descent and delta momentum: fast against naive, and the trap of the half."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.errors import InvalidInput
from memkit.fast.hope.dgd import delta_momentum_chunked, delta_momentum_naive, dgd_chunked, dgd_naive
from memkit.fast.rules import DeltaState, delta_naive

TWINS = {"dgd": (dgd_naive, dgd_chunked), "momentum": (delta_momentum_naive, delta_momentum_chunked)}
twins = pytest.mark.parametrize("rule", TWINS)


def drawn(rule: str, steps: int, *, seed: int = 0):
    """A state, three sequences of vectors, and gates: leaves that want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    def uniform(low, high):
        return (low + (high - low) * torch.rand(steps, generator=generator, dtype=torch.float64)).requires_grad_()

    gates = {"eta": uniform(0, 3)} if rule == "dgd" else {"beta": uniform(0.5, 1), "eta": uniform(0, 0.2)}
    return DeltaState(normal(4, 6)), [normal(steps, 6), normal(steps, 6), normal(steps, 4)], gates


@twins
@given(st.integers(0, 40), st.integers(1, 45), st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_chunks_give_what_single_steps_give(rule, steps, chunk, seed):
    """Outputs, final state and all gradients."""
    naive, chunked = TWINS[rule]
    state, arguments, gates = drawn(rule, steps, seed=seed)
    wanted, found = naive(state, *arguments, **gates), chunked(state, *arguments, **gates, chunk=chunk)
    leaves = [*state, *arguments, *gates.values()]
    sums = [(y * torch.arange(y.numel()).reshape(y.shape).sin()).sum() + after.memory.sin().sum()
            for y, after in (wanted, found)]  # fmt: skip
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[1].memory, wanted[1].memory, rtol=1e-8, atol=1e-8)
    for one, other in zip(*(torch.autograd.grad(s, leaves, materialize_grads=True) for s in sums), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@twins
@pytest.mark.parametrize("cut", [0, 1, 9, 20])
def test_a_sequence_may_be_split_anywhere(rule, cut):
    for function in TWINS[rule]:
        state, arguments, gates = drawn(rule, 20)
        whole, after = function(state, *arguments, **gates)
        one, state = function(state, *(a[:cut] for a in arguments), **{n: g[:cut] for n, g in gates.items()})
        two, state = function(state, *(a[cut:] for a in arguments), **{n: g[cut:] for n, g in gates.items()})
        torch.testing.assert_close(torch.cat([one, two]), whole)
        torch.testing.assert_close(state.memory, after.memory)


def test_the_step_is_the_minimum_of_its_objective():
    state, (q, x, u), gates = drawn("dgd", 1)
    _, after = dgd_naive(state, q, x, u, **gates)
    weights = after.memory.detach().requires_grad_()
    objective = (weights @ x[0] + u[0]).square().sum() / 2
    objective = objective + (weights - state.memory).square().sum() / (2 * gates["eta"][0])
    (slope,) = torch.autograd.grad(objective, weights)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-9, rtol=0)


def rested(gradient) -> torch.Tensor:
    """What a memory says at a key after two hundred steps on it, for dL/dy as given of what it says."""
    key, memory = torch.nn.functional.normalize(torch.arange(1.0, 4.0), dim=0).double(), torch.zeros(2, 3).double()
    for _ in range(200):
        _, (memory,) = dgd_naive(
            DeltaState(memory), key[None], key[None], gradient(memory @ key)[None], eta=torch.ones(1).double()
        )
    return memory @ key


def test_with_the_loss_of_a_memory_dgd_stores_half_and_with_minus_v_all_of_it():
    value = torch.tensor([2.0, -4.0]).double()
    torch.testing.assert_close(rested(lambda said: said - value), value / 2)
    torch.testing.assert_close(rested(lambda said: -value), value)


def test_momentum_that_keeps_everything_is_the_delta_rule():
    state, (q, g, p), gates = drawn("momentum", 12)
    found = delta_momentum_naive(state, q, g, p, beta=torch.ones(12).double(), eta=gates["eta"])
    wanted = delta_naive(state, q, g, p, beta=gates["eta"])
    torch.testing.assert_close(found[0], wanted[0])


@twins
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(rule, bad):
    for function in TWINS[rule]:
        state, arguments, gates = drawn(rule, 3)
        spoilt = [a.detach().clone() for a in arguments]
        spoilt[1][2, 0] = bad
        with pytest.raises(InvalidInput, match="not finite"):
            function(state, *spoilt, **gates)
