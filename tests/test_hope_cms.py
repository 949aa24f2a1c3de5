"""The continuum memory system: closed-form learning against autograd, the clock, and what the levels promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.errors import InvalidInput
from memkit.fast.hope.cms import CMS, CMSState, Schedule, cms_flush, cms_forward, cms_learn, cms_learn_naive

VARIANTS = ["sequential", "nested", "headwise"]


def drawn(tokens: int, *, variant: str = "sequential", periods=(2, 4, 12), batch: int = 3, **more):
    """A small system in double precision, tokens, and what the task wants changed."""
    torch.manual_seed(tokens)
    schedule = Schedule(periods=periods, variant=variant, **{"clip": 0.5, "decay": 0.1, **more})
    module = CMS(4, 6, schedule=schedule, rate=0.1).double()
    with torch.no_grad():
        module.outer.normal_()
        module.mix.normal_()
    x, signal = torch.randn(2, batch, tokens, 4, dtype=torch.float64)
    return module, x, signal


def close(one: CMSState, other: CMSState) -> None:
    assert (one.tokens, one.updates) == (other.tokens, other.updates)
    for mine, theirs in zip(one[:4], other[:4], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tokens", [0, 1, 2, 11, 12, 25])
def test_learning_in_closed_form_is_learning_token_by_token(variant, tokens):
    """The final state, and its gradients with respect to the tokens, the signal and all that the outer loop learns."""
    module, x, signal = drawn(tokens, variant=variant)
    leaves = [x.requires_grad_(), signal.requires_grad_(), *module.parameters()]
    found = cms_learn(module.params, module.start(3), x, signal, schedule=module.schedule)
    naive = cms_learn_naive(module.params, module.start(3), x, signal, schedule=module.schedule)
    close(found, naive)
    if tokens:
        got, wanted = (
            torch.autograd.grad((state.inner.sum() + (state.outer**2).sum() + state.sum_inner.sum()), leaves,
                                allow_unused=True, materialize_grads=True)
            for state in (found, naive)
        )  # fmt: skip
        for mine, theirs in zip(got, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)


@given(st.integers(0, 30), st.integers(0, 30), st.sampled_from(VARIANTS))
@settings(max_examples=40, deadline=None)
def test_a_stream_may_be_cut_anywhere(first, second, variant):
    module, x, signal = drawn(first + second, variant=variant)
    whole = module.learn(module.start(3), x, signal)
    state = module.learn(module.start(3), x[:, :first], signal[:, :first])
    close(module.learn(state, x[:, first:], signal[:, first:]), whole)


@given(st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_each_level_is_written_at_its_own_period_only(tokens):
    module, x, signal = drawn(tokens)
    state = module.learn(module.start(3), x, signal)
    assert state.updates == (tokens // 2, tokens // 4, tokens // 12)
    for level, period in enumerate((2, 4, 12)):
        assert bool(state.norms[:, level].any()) == (tokens >= period)
        assert bool(state.sum_inner[:, level].any()) == bool(tokens % period)


def test_nested_levels_start_anew_when_a_slower_one_is_written():
    module, x, signal = drawn(13, variant="nested")
    before = module.learn(module.start(3), x[:, :10], signal[:, :10])
    assert before.norms[:, 0].all()
    after = module.learn(before, x[:, 10:12], signal[:, 10:12])
    assert not after.norms[:, :2].any()
    assert after.norms[:, 2].all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_was_learned_lowers_the_loss_on_the_same_tokens(variant):
    module, x, _ = drawn(12, variant=variant, periods=(4, 12, 12), clip=1e9, decay=0.0)
    wanted = torch.randn_like(x)
    state = module.start(3)
    for _ in range(30):
        y = cms_forward(module.params, state, x, schedule=module.schedule)
        state = cms_flush(
            module.params, module.learn(state, x, (y - wanted).detach() * 0.003), schedule=module.schedule
        )
    with torch.no_grad():
        learned, fresh = module(x, state), module(x)
    assert (learned - wanted).square().mean() < 0.9 * (fresh - wanted).square().mean()


def test_a_flush_writes_open_chunks_and_starts_the_clock_anew():
    module, x, signal = drawn(7)
    state = module.learn(module.start(3), x, signal)
    flushed = cms_flush(module.params, state, schedule=module.schedule)
    assert flushed.updates == (4, 2, 1)
    assert flushed.tokens == 0
    assert not flushed.sum_inner.any()
    assert flushed.norms[:, 2].all()
    close(cms_flush(module.params, flushed, schedule=module.schedule), flushed)


def test_a_fresh_system_passes_tokens_on_as_they_are():
    x = torch.randn(2, 5, 4)
    assert torch.equal(CMS(4, 6)(x), x)


def test_a_rate_of_zero_changes_nothing():
    module, x, signal = drawn(24)
    with torch.no_grad():
        module.rate.zero_()
    state = module.learn(module.start(3), x, signal)
    assert not state.norms.any()


def test_one_large_signal_moves_a_level_no_further_than_the_clip():
    module, x, signal = drawn(2, periods=(2, 4, 12))
    state = module.learn(module.start(3), x, 1e6 * signal)
    assert (state.norms[:, 0] <= 0.1 * 0.5 * 2 + 1e-6).all()


def test_users_of_a_batch_do_not_meet():
    module, x, signal = drawn(13)
    together = module.learn(module.start(3), x, signal)
    alone = module.learn(module.start(1), x[1:2], signal[1:2])
    torch.testing.assert_close(alone.outer, together.outer[1:2])


@pytest.mark.parametrize("periods", [(2, 3, 12), (0, 4, 12), (2, 4)])
def test_periods_that_do_not_divide_each_other_are_refused(periods):
    module, x, _ = drawn(3)
    with pytest.raises(InvalidInput, match="periods"):
        cms_forward(module.params, module.start(3), x, schedule=module.schedule._replace(periods=periods))


def test_signals_and_tokens_that_do_not_fit_are_refused():
    module, x, signal = drawn(3)
    with pytest.raises(InvalidInput, match="signal"):
        module.learn(module.start(3), x, signal[:, :2])
    with pytest.raises(InvalidInput, match="finite"):
        module.learn(module.start(3), x, signal * float("nan"))
    with pytest.raises(InvalidInput, match="finite"):
        module(x * float("inf"))
    with pytest.raises(InvalidInput, match="shape"):
        module(x, module.start(2))
