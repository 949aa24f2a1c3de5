"""The update rules: each chunked form against the pair-by-pair definition, and what the definitions promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.fast.rules import (
    DeltaState,
    MomentumState,
    RLSState,
    delta_chunked,
    delta_naive,
    gated_delta_chunked,
    gated_delta_naive,
    momentum_chunked,
    momentum_naive,
    rls_chunked,
    rls_naive,
)
from memkit_storage.errors import InvalidInput

RULES = {
    "delta": (delta_naive, delta_chunked),
    "gated": (gated_delta_naive, gated_delta_chunked),
    "momentum": (momentum_naive, momentum_chunked),
    "rls": (rls_naive, rls_chunked),
}
ODD = [0, 1, 2, 31, 63, 100]


def drawn(rule: str, pairs: int, *, seed: int = 0, keys: int = 6, values: int = 4, dtype=torch.float64):
    """A state, queries, keys of unit length, values, and the gates of a rule: leaves that want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(low, high):
        return low + (high - low) * torch.rand(pairs, generator=generator, dtype=torch.float64)

    k = torch.nn.functional.normalize(normal(pairs, keys), dim=1)
    root = normal(keys, keys)
    states = {
        "momentum": MomentumState(normal(values, keys), normal(values, keys)),
        "rls": RLSState(normal(values, keys), root @ root.T / keys + torch.eye(keys, dtype=torch.float64)),
    }
    gates = {
        "delta": {"beta": uniform(0, 1.9)},
        "gated": {"beta": uniform(0, 1.9), "alpha": uniform(0, 1)},
        "momentum": {"theta": uniform(0, 0.4), "eta": uniform(0, 0.9), "alpha": uniform(0, 0.3)},
        "rls": {"weight": uniform(0.1, 2)},
    }[rule]
    state = states.get(rule, DeltaState(normal(values, keys)))
    arguments = (normal(pairs, keys), k, normal(pairs, values))
    leaf = [tensor.to(dtype).requires_grad_() for tensor in (*state, *arguments, *gates.values())]
    count = len(state)
    state = type(state)(*leaf[:count])
    if rule == "rls":  # a covariance is symmetric, and so is its gradient
        state = state._replace(covariance=(state.covariance + state.covariance.T) / 2)
    return state, leaf[count : count + 3], dict(zip(gates, leaf[count + 3 :], strict=True)), leaf


def close(found, wanted, *, tolerance):
    for name, one, other in zip(
        ("outputs", *wanted[1]._fields), (found[0], *found[1]), (wanted[0], *wanted[1]), strict=True
    ):
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def gradients(outputs, state, leaf):
    """Of a number that every output and every entry of the final state has a say in."""
    total = sum(
        (tensor * torch.arange(1, tensor.numel() + 1).reshape(tensor.shape).sin()).sum() for tensor in (outputs, *state)
    )
    return torch.autograd.grad(total, leaf, retain_graph=True, materialize_grads=True)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, deadline=None)
@given(
    pairs=st.integers(0, 40),
    keys=st.integers(1, 9),
    values=st.integers(1, 9),
    chunk=st.integers(1, 45),
    seed=st.integers(0, 999),
)
def test_chunks_give_what_single_steps_give(rule, pairs, keys, values, chunk, seed):
    """Outputs, final state and all gradients agree to 1e-9 in float64, whatever the shapes and the chunk."""
    naive, chunked = RULES[rule]
    state, arguments, gates, leaf = drawn(rule, pairs, keys=keys, values=values, seed=seed)
    wanted, found = naive(state, *arguments, **gates), chunked(state, *arguments, **gates, chunk=chunk)

    close(found, wanted, tolerance=1e-9)
    for one, other in zip(gradients(*found, leaf), gradients(*wanted, leaf), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pairs", ODD)
def test_chunks_agree_in_single_precision(rule, pairs):
    """In float32 they agree to 1e-3 over a hundred pairs."""
    naive, chunked = RULES[rule]
    state, arguments, gates, _ = drawn(rule, pairs, dtype=torch.float32)

    close(chunked(state, *arguments, **gates), naive(state, *arguments, **gates), tolerance=1e-3)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", [0, 1], ids=["naive", "chunked"])
def test_a_sequence_may_be_split_anywhere(rule, form):
    """f(ab) = f(b, f(a).state)."""
    function = RULES[rule][form]
    state, (q, k, v), gates, _ = drawn(rule, 20)
    whole = function(state, q, k, v, **gates)
    for cut in (0, 1, 7, 19, 20):
        first, between = function(
            state, q[:cut], k[:cut], v[:cut], **{name: gate[:cut] for name, gate in gates.items()}
        )
        second, last = function(
            between, q[cut:], k[cut:], v[cut:], **{name: gate[cut:] for name, gate in gates.items()}
        )
        close((torch.cat([first, second]), last), whole, tolerance=1e-9)


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_gates_may_be_shut(gate):
    """Gates of exactly 0 and 1 in the middle of a chunk: nothing is divided by a product that is 0."""
    state, arguments, gates, _ = drawn("gated", 12)
    alpha = gates["alpha"].detach().clone()
    alpha[5] = gate
    found = gated_delta_chunked(state, *arguments, beta=gates["beta"], alpha=alpha)
    close(found, gated_delta_naive(state, *arguments, beta=gates["beta"], alpha=alpha), tolerance=1e-9)

    state, arguments, gates, _ = drawn("momentum", 12)
    eta, forgets = gates["eta"].detach().clone(), gates["alpha"].detach().clone()
    eta[4], forgets[6] = gate, gate
    more = {"theta": gates["theta"], "eta": eta, "alpha": forgets}
    close(momentum_chunked(state, *arguments, **more), momentum_naive(state, *arguments, **more), tolerance=1e-9)


def test_rls_forgets_alike_in_chunks():
    """With lam below 1 too."""
    state, arguments, gates, _ = drawn("rls", 50)

    close(
        rls_chunked(state, *arguments, **gates, lam=0.95),
        rls_naive(state, *arguments, **gates, lam=0.95),
        tolerance=1e-8,
    )


ONE = torch.ones(1, dtype=torch.float64)
WRITES = {
    "delta": ({"beta": ONE}, 2),
    "gated": ({"beta": ONE, "alpha": ONE * 0.3}, 2),
    "momentum": ({"theta": ONE / 2, "eta": ONE * 0, "alpha": ONE * 0}, 2),
}


@pytest.mark.parametrize("form", [rls_naive, rls_chunked])
def test_rls_that_forgets_stays_positive_definite(form):
    generator = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(16, 16, generator=generator, dtype=torch.float64), dim=1)
    k = keys[torch.randint(16, (1_500,), generator=generator)]
    state = RLSState(torch.zeros(2, 16, dtype=torch.float64), 100 * torch.eye(16, dtype=torch.float64))
    _, state = form(state, k, k, k[:, :2], weight=torch.ones(len(k), dtype=torch.float64), lam=0.95)
    assert torch.linalg.eigvalsh(state.covariance).min() > 0
    torch.testing.assert_close(state.memory @ keys.T, keys[:, :2].T, atol=1e-3, rtol=0)


def test_a_rule_may_be_batched_by_vmap():
    torch.manual_seed(0)
    q, k, v, beta = torch.randn(3, 40, 5), torch.randn(3, 40, 5) / 3, torch.randn(3, 40, 2), torch.rand(3, 40)

    def read(q, k, v, beta):
        return delta_chunked(DeltaState(torch.zeros(2, 5)), q, k, v, beta=beta)

    together, states = torch.vmap(read)(q, k, v, beta)
    for i in range(3):
        alone, state = read(q[i], k[i], v[i], beta[i])
        torch.testing.assert_close(together[i], alone)
        torch.testing.assert_close(states.memory[i], state.memory)


@pytest.mark.parametrize("form", [0, 1], ids=["naive", "chunked"])
@pytest.mark.parametrize("rule", WRITES)
def test_what_is_written_is_read(rule, form):
    """One write at full strength, over whatever was there, is read back: v, not v / 2."""
    state, (_, k, v), _, _ = drawn(rule, 1)
    if rule == "momentum":
        state = state._replace(momentum=torch.zeros_like(state.momentum))

    read, after = RULES[rule][form](state, k, k, v, **WRITES[rule][0])

    torch.testing.assert_close(read, v)
    torch.testing.assert_close(after.memory @ k[0], v[0])


def test_delta_contracts_the_error_and_leaves_other_keys_alone():
    """The error at k shrinks by |1 - beta|; what an orthogonal key reads does not change."""
    state, (_, k, v), _, _ = drawn("delta", 1)
    other = torch.linalg.svd(k)[2][-1]
    for beta in (0.1, 0.5, 1.0, 1.7):
        _, after = delta_naive(state, k, k, v, beta=ONE * beta)
        before = torch.linalg.norm(v[0] - state.memory @ k[0])
        torch.testing.assert_close(torch.linalg.norm(v[0] - after.memory @ k[0]), abs(1 - beta) * before)
        torch.testing.assert_close(after.memory @ other, state.memory @ other)


def test_rls_is_ridge_regression():
    """From M = 0 and P = I / ridge, weights included: M = sum w v k' (sum w k k' + ridge I)^-1, P the inverse."""
    _, (_, k, v), gates, _ = drawn("rls", 30)
    k, v, weight = k.detach(), v.detach(), gates["weight"].detach()
    eye = torch.eye(6, dtype=torch.float64)
    normal = (k.T * weight) @ k + 0.5 * eye

    _, state = rls_naive(RLSState(torch.zeros(4, 6, dtype=torch.float64), eye / 0.5), k, k, v, weight=weight)

    torch.testing.assert_close(state.memory, (v.T * weight) @ k @ torch.linalg.inv(normal))
    torch.testing.assert_close(state.covariance, torch.linalg.inv(normal))


def test_memories_stay_bounded():
    """After a thousand writes of unit values, in float32, no norm has run away, and P is still a covariance."""
    for rule, (_, chunked) in RULES.items():
        state, (q, k, v), gates, _ = drawn(rule, 1_000, dtype=torch.float32)
        unit = torch.nn.functional.normalize(v.detach(), dim=1)

        _, after = chunked(state, q.detach(), k.detach(), unit, **{name: gate.detach() for name, gate in gates.items()})

        assert float(torch.linalg.norm(after.memory.detach())) < 20, rule
        if rule == "rls":
            assert float(torch.linalg.eigvalsh(after.covariance.detach()).min()) > 0


@pytest.mark.parametrize("form", [0, 1], ids=["naive", "chunked"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(rule, form, bad):
    """Any argument or state that is not finite raises InvalidInput, and the state that was passed is as it was."""
    function = RULES[rule][form]
    state, _, gates, leaf = drawn(rule, 3)
    tensors, before = [tensor.detach() for tensor in leaf], [tensor.detach().clone() for tensor in state]
    for place in range(len(tensors)):
        spoilt = [tensor.clone() for tensor in tensors]
        spoilt[place].view(-1)[0] = bad
        count = len(state)
        with pytest.raises(InvalidInput, match="not finite"):
            function(
                type(state)(*spoilt[:count]),
                *spoilt[count : count + 3],
                **dict(zip(gates, spoilt[count + 3 :], strict=True)),
            )
    for tensor, kept in zip(state, before, strict=True):
        torch.testing.assert_close(tensor.detach(), kept, rtol=0, atol=0)


@pytest.mark.parametrize("form", [0, 1], ids=["naive", "chunked"])
def test_an_update_that_overflows_is_refused(form):
    """Finite numbers that make an infinite memory raise as well."""
    big = torch.full((2, 3), 1e30)
    with pytest.raises(InvalidInput, match="keep the former state"):
        RULES["delta"][form](DeltaState(torch.zeros(3, 3)), big, big, big, beta=torch.ones(2))
