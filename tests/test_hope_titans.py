"""Self-modifying Titans: the chunked form against the token-by-token definition, and what the definition promises."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from memkit.errors import InvalidInput
from memkit.fast.hope.titans import (
    MEMORIES,
    Rule,
    SelfModifyingTitans,
    TitansParams,
    TitansState,
    start,
    titans_chunked,
    titans_naive,
)

KINDS = ["delta", "dgd"]


def drawn(tokens: int, *, kind: str = "delta", adaptive: bool = False, chunk: int = 5, seed: int = 0, **rule):
    """A small module in double precision and tokens (3, 2, t, 4) that want gradients."""
    torch.manual_seed(seed)
    rule = Rule(chunk=chunk, kind=kind, **{"clip": 1.0, **rule})
    module = SelfModifyingTitans(8, 6, heads=2, adaptive_query=adaptive, rule=rule).double()
    return module, torch.randn(3, 2, tokens, 4, dtype=torch.float64, requires_grad=True)


def close(one: TitansState, other: TitansState, tolerance: float = 1e-10) -> None:
    assert one.seen == other.seen
    for mine, theirs in zip(one[:4], other[:4], strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("tokens", [1, 4, 5, 23])
def test_chunks_give_what_token_by_token_gives(kind, adaptive, tokens):
    """Outputs, final state, and gradients with respect to the tokens and all that the outer loop learns."""
    module, x = drawn(tokens, kind=kind, adaptive=adaptive)
    found, state = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    expected, naive = titans_naive(module.params, module.start(3), x, rule=module.rule)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    close(state, naive)
    weight = torch.randn_like(found)
    leaves = [x, *module.parameters()]
    got, wanted = (
        torch.autograd.grad((y * weight).sum(), leaves, allow_unused=True, materialize_grads=True)
        for y in (found, expected)
    )
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_of_one_token_is_the_exact_sequential_rule(kind):
    module, x = drawn(7, kind=kind, chunk=1)
    found, state = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    expected, naive = titans_naive(module.params, module.start(3), x, rule=module.rule)
    torch.testing.assert_close(found, expected)
    close(state, naive)
    later, _ = titans_chunked(module.params, module.start(3), x, rule=module.rule._replace(chunk=7))
    assert not torch.allclose(found, later)  # an older anchor is another rule


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from(KINDS), st.sampled_from([titans_chunked, titans_naive]))
@settings(max_examples=30, deadline=None)
def test_a_stream_may_be_cut_anywhere(first, second, kind, read):
    module, x = drawn(first + second, kind=kind)
    with torch.no_grad():
        whole, after = read(module.params, module.start(3), x, rule=module.rule)
        one, state = read(module.params, module.start(3), x[:, :, :first], rule=module.rule)
        two, state = read(module.params, state, x[:, :, first:], rule=module.rule)
    torch.testing.assert_close(torch.cat([one, two], dim=2), whole, atol=1e-10, rtol=1e-10)
    close(state, after)


@pytest.mark.parametrize("at", [0, 4, 5, 11])
def test_an_output_does_not_depend_on_later_tokens(at):
    module, x = drawn(12)
    y, _ = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    (gradient,) = torch.autograd.grad(y[:, :, at].sum(), x)
    assert gradient[:, :, at + 1 :].abs().max() == 0 if at < 11 else True
    assert gradient[:, :, at].abs().max() > 0
    if at:
        assert gradient[:, :, :at].abs().max() > 0


def test_users_of_a_batch_do_not_meet():
    module, x = drawn(13)
    together, state = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    for user in range(3):
        alone, own = titans_chunked(module.params, module.start(1), x[user : user + 1], rule=module.rule)
        torch.testing.assert_close(alone, together[user : user + 1])
        torch.testing.assert_close(own.inner, state.inner[user : user + 1])


@pytest.mark.parametrize("off", [{"eta_max": 0.0}, {"written": ()}])
def test_without_steps_the_memories_stay_where_they_began(off):
    module, x = drawn(12, **off)
    y, state = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    assert all(not part.any() for part in state[:4])
    q = normalize(x @ module.query.mT, dim=-1)
    hidden = torch.nn.functional.silu(q @ module.inner[:, 0].mT)
    assert torch.equal(y, q + hidden @ module.outer[:, 0].mT)


def test_a_memory_that_is_not_written_stays_and_the_others_change():
    module, x = drawn(12, written=("mem", "k"))
    _, state = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    changed = {name for i, name in enumerate(MEMORIES[:5]) if state.inner[:, :, i].any()}
    assert changed == {"mem", "k"}


@pytest.mark.parametrize("adaptive", [False, True])
def test_all_six_memories_are_meta_learned(adaptive):
    """Each of them receives gradients from the outer loop, at both of its layers, and so do the gates."""
    module, x = drawn(15, adaptive=adaptive)
    y, _ = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    (y**2).sum().backward()
    memories = range(6 if adaptive else 5)
    assert all(module.inner.grad[:, m].abs().max() > 1e-9 for m in memories)
    assert all(module.outer.grad[:, m].abs().max() > 1e-9 for m in memories)
    assert module.readout.grad.abs().min() > 0
    assert module.bias.grad.abs().min() > 0
    assert adaptive or module.query.grad.abs().max() > 1e-9


ASKED, VALUE = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 3.0]).double()


def told(kind: str, writes: int, eta_max: float, *, inner_rate: float = 0.0):
    """What the first memory says at the key (1, 0) after it was told the value (0, 3) there.

    Made by hand, with one hidden unit: the gate of the step is open (sigmoid(30) = 1), nothing is forgotten, and the
    unit is silent at the value, so that the memory's target M(v) stays v whatever it learns.
    """
    inner = torch.tensor([[1.0, -50.0], [1.0, 0.0], [50.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).double()
    outer = torch.zeros(5, 2).double()
    outer[2] = torch.tensor([-1 / 50, 3 / 50])  # M_v((1, 0)) = (0, 3)
    nothing, eye = torch.zeros(1, 2, 2).double(), torch.eye(2).double()[None]
    gates = torch.tensor([[30.0, -60.0]]).double()
    params = TitansParams(inner[None, :, None], outer[None, :, :, None], nothing, gates, eye)
    rule = Rule(chunk=1, kind=kind, inner_rate=inner_rate, eta_max=eta_max, clip=1e9, cap=1e9, written=("mem",))
    token = ASKED.expand(1, 1, 1, 2)
    _, state = titans_chunked(params, start(params, 1), token.expand(1, 1, writes, 2), rule=rule)
    return titans_chunked(params, state, token, rule=rule._replace(written=()))[0][0, 0, 0]


def test_one_write_and_the_value_is_read_back():
    torch.testing.assert_close(told("delta", 1, 1.0), VALUE)
    torch.testing.assert_close(told("delta", 5, 1.0), VALUE)


def test_the_letter_of_the_paper_comes_to_rest_at_half_of_what_was_to_be_stored():
    """DGD with the L2 loss subtracts W x twice: what the layers add to the key is (v - k) / 2, where it should be v - k."""
    torch.testing.assert_close(told("dgd", 100, 0.3), ASKED + (VALUE - ASKED) / 2)


def test_writing_both_layers_brings_the_answer_nearer_each_time():
    errors = [float((told("delta", writes, 0.3, inner_rate=0.5) - VALUE).norm()) for writes in range(1, 9)]
    assert all(after < before for before, after in pairwise(errors))
    assert errors[-1] < 1e-3 < 1 < errors[0]


def test_a_stretch_of_no_tokens_changes_nothing():
    module, x = drawn(0)
    y, state = titans_chunked(module.params, module.start(3), x, rule=module.rule)
    assert y.shape == x.shape
    close(state, module.start(3))


@pytest.mark.parametrize("tokens", ["zeros", "noise with a closed gate"])
def test_tokens_that_say_nothing_collapse_nothing(tokens):
    """After a thousand neutral writes every memory has its norm within 5 %, and what was learned is not gone."""
    module, x = drawn(20, chunk=16)
    with torch.no_grad():
        _, learned = titans_chunked(module.params, module.start(3), x, rule=module.rule)
        neutral = torch.zeros(3, 2, 1000, 4, dtype=torch.float64)
        if tokens != "zeros":
            neutral, module.bias[:, 0] = torch.randn_like(neutral), -12.0
        _, fresh = titans_chunked(module.params, module.start(3), neutral, rule=module.rule)
        _, later = titans_chunked(module.params, learned, neutral, rule=module.rule)
        for weights, part in zip(module.params[:2], fresh[:2], strict=True):
            assert float((weights + part).norm()) == pytest.approx(float(weights.norm() * 3**0.5), rel=0.05)
    assert later.inner.norm() > learned.inner.norm() / 2


def test_a_hundred_thousand_writes_stay_within_bounds():
    torch.manual_seed(0)
    module = SelfModifyingTitans(4, 4, rule=Rule(chunk=64))
    with torch.no_grad():
        y, state = module(5 * torch.randn(1, 100_000, 4))
    for start_, part in zip(module.params[:2], state[:2], strict=True):
        assert start_.shape == part.shape[1:]
        assert (torch.linalg.matrix_norm(part) <= module.rule.cap * 2 + 64 * module.rule.clip).all()
    assert torch.isfinite(y).all()


def test_states_are_single_precision_whatever_the_tokens_are():
    module = SelfModifyingTitans(8, heads=2)
    y, state = module(torch.randn(1, 20, 8, dtype=torch.bfloat16))
    assert (y.dtype, state.inner.dtype) == (torch.bfloat16, torch.float32)
    assert state.bytes == 4 * 2 * 5 * 2 * 4 * 4  # two layers of five memories in two heads, 4 by 4, of 4 bytes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_are_not_finite_are_refused(value):
    module, x = drawn(6)
    bad = x.detach().clone()
    bad[1, 0, 3, 2] = value
    with pytest.raises(InvalidInput, match="finite"):
        titans_chunked(module.params, module.start(3), bad, rule=module.rule)


def test_shapes_and_rules_that_do_not_fit_are_refused():
    module, x = drawn(6)
    with pytest.raises(InvalidInput, match="shape"):
        titans_chunked(module.params, module.start(2), x, rule=module.rule)
    with pytest.raises(InvalidInput, match="chunk"):
        titans_chunked(module.params, module.start(3), x, rule=Rule(chunk=0))
    with pytest.raises(InvalidInput, match="written"):
        titans_chunked(module.params, module.start(3), x, rule=Rule(written=("memory",)))
    with pytest.raises(InvalidInput, match="heads=3"):
        SelfModifyingTitans(8, heads=3)
