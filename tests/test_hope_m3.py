"""M3: against the algorithm written out, its orthogonal factor, and what an optimizer has to do."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.errors import InvalidInput
from memkit.fast.hope.m3 import M3, orthogonal


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()


def task(seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 6, generator=generator, dtype=torch.float64)
    return x, torch.sin(x @ torch.randn(6, 3, generator=generator, dtype=torch.float64))


def trained(optimizer, net, steps: int) -> float:
    x, y = task()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    return float((net(x) - y).square().mean().detach())


@given(st.integers(0, 2**31), st.sampled_from([(4, 4), (3, 9), (9, 3), (2, 5, 7)]))
@settings(max_examples=40, deadline=None)
def test_the_orthogonal_factor_keeps_directions_and_evens_out_sizes(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(*shape, generator=generator, dtype=torch.float64)
    sizes = torch.linalg.svdvals(matrix)
    found = orthogonal(matrix)
    kept = sizes > 0.05 * torch.linalg.matrix_norm(matrix)[..., None]
    assert ((torch.linalg.svdvals(found) > 0.6) | ~kept.sort(descending=True).values).all()
    assert (torch.linalg.svdvals(found) < 1.3).all()
    product = found.mT @ matrix
    torch.testing.assert_close(product, product.mT, atol=1e-8, rtol=1e-8)  # the same singular vectors


def test_nothing_has_no_direction():
    assert not orthogonal(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_steps_are_those_of_the_algorithm(literal, normalise):
    """Algorithm 1 written out for one matrix, over three chunks."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
    gradients = torch.randn(10, 4, 3, generator=generator, dtype=torch.float64)
    betas, lr, alpha, period = (0.8, 0.9, 0.7), 0.1, 0.3, 3
    optimizer = M3([weight], lr, betas=betas, alpha=alpha, period=period, normalise=normalise, literal=literal)
    expected, slow, ahead = weight.detach().clone(), torch.zeros(4, 3).double(), torch.zeros(4, 3).double()
    fast, square, chunk = (torch.zeros(4, 3).double() for _ in range(3))

    def mixed(old, new, beta):
        return old + beta * new if literal else beta * old + (1 - beta) * new

    for number, gradient in enumerate(gradients, 1):
        weight.grad = gradient.clone()
        optimizer.step()
        fast, square, chunk = mixed(fast, gradient, 0.8), mixed(square, gradient**2, 0.9), chunk + gradient
        scale = (square.mean() + 1e-8) ** 0.5 if normalise else 1.0
        expected = expected - lr * (orthogonal(fast) + alpha * ahead) / scale
        if number % period == 0:
            slow = mixed(slow, chunk if literal else chunk / period, 0.7)
            ahead, chunk = orthogonal(slow), torch.zeros(4, 3).double()
        torch.testing.assert_close(weight.detach(), expected)


def test_the_slow_momentum_counts_from_the_next_chunk_on():
    def weights(alpha, steps):
        net = network()
        trained(M3(net.parameters(), 0.02, alpha=alpha, period=4), net, steps)
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    for steps, same in ((4, True), (5, False)):
        assert torch.equal(weights(0.0, steps), weights(1.0, steps)) == same


@pytest.mark.parametrize("settings_", [{}, {"period": 1}, {"alpha": 0.0}])
def test_it_learns(settings_):
    """Less than half of the variance is left after 60 steps. Other optimizers may need fewer."""
    net = network()
    _, y = task()
    assert trained(M3(net.parameters(), 0.05, **settings_), net, 60) < 0.5 * float(y.var())


@pytest.mark.parametrize("at", [3, 10])
def test_a_run_that_was_saved_goes_on_as_the_one_that_was_not(at):
    """Also in the middle of a chunk."""
    net = network()
    optimizer = M3(net.parameters(), 0.02, period=5)
    trained(optimizer, net, at)
    other = copy.deepcopy(net)
    restored = M3(other.parameters(), 0.5, period=2)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert trained(optimizer, net, 12) == trained(restored, other, 12)


def test_a_parameter_without_a_gradient_stays():
    used, idle = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))
    optimizer = M3([used, idle])
    loss = optimizer.step(lambda: used.square().sum().backward() or 3.0)
    assert loss == 3.0
    assert torch.equal(idle, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"period": 0}, {"betas": (0.9, 1.0, 0.9)}, {"lr": float("nan")}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InvalidInput, match="lr"):
        M3([torch.nn.Parameter(torch.ones(2))], **bad)
