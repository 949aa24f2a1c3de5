"""The HOPE block and HOPE-Attention as stream functions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.errors import InvalidInput
from memkit.fast.hope.block import HopeBlock
from memkit.fast.hope.cms import Schedule
from memkit.fast.hope.titans import Rule

BOTH = pytest.mark.parametrize("attention", [False, True])


def drawn(tokens: int, *, attention: bool = False, dim: int = 8):
    torch.manual_seed(tokens)
    schedule = Schedule(periods=(2, 6))
    block = HopeBlock(dim, heads=2, hidden=3, rule=Rule(chunk=5), schedule=schedule, attention=attention).double()
    with torch.no_grad():
        block.cms.outer.normal_(std=0.1)
    return block, torch.randn(2, tokens, dim, dtype=torch.float64)


def tensors(state) -> list[torch.Tensor]:
    parts = [state.tail, *state.mixer, *state.cms]
    return [part for part in parts if isinstance(part, torch.Tensor)]


@given(st.integers(0, 14), st.integers(0, 14), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_stream_may_be_cut_anywhere_while_it_learns(first, second, attention):
    block, x = drawn(first + second, attention=attention)
    signal = torch.randn_like(x)
    with torch.no_grad():
        whole = block(x)
        one = block(x[:, :first])
        two = block(x[:, first:], one.state)
        taught = block.learn(block(x[:, first:], block.learn(one, signal[:, :first])), signal[:, first:])
    torch.testing.assert_close(torch.cat([one.y, two.y], dim=1), whole.y)
    for mine, theirs in zip(tensors(two.state), tensors(whole.state), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert taught.cms.tokens == first + second
    assert taught.cms.updates == ((first + second) // 2, (first + second) // 6)


@BOTH
@pytest.mark.parametrize("at", [0, 3, 9])
def test_an_output_does_not_depend_on_later_tokens(attention, at):
    block, x = drawn(12, attention=attention)
    (gradient,) = torch.autograd.grad(block(x.requires_grad_()).y[:, at].sum(), x)
    assert not gradient[:, at + 1 :].any()
    assert gradient[:, : at + 1].abs().amax((0, 2)).min() > 0


@BOTH
def test_every_parameter_is_reached_from_the_outputs(attention):
    block, x = drawn(13, attention=attention)
    read = block(x)
    state = block.learn(read, torch.randn_like(x))
    (block(x, state).y ** 2).sum().backward()
    unreached = [name for name, one in block.named_parameters() if one.grad is None or not one.grad.any()]
    assert unreached == ["cms.mix"]  # of levels beside each other only


@BOTH
def test_users_of_a_batch_do_not_meet(attention):
    block, x = drawn(11, attention=attention)
    together, alone = block(x), block(x[1:])
    torch.testing.assert_close(alone.y, together.y[1:])


def test_titans_take_the_same_room_however_much_was_read_and_attention_does_not():
    sizes = {}
    for attention in (False, True):
        block, x = drawn(40, attention=attention)
        with torch.no_grad():
            states = [block(x[:, :count]).state for count in (10, 40)]
        sizes[attention] = [sum(t.numel() for t in tensors(state)) for state in states]
    assert sizes[False][0] == sizes[False][1]
    assert sizes[True][0] < sizes[True][1]


def test_levels_that_learned_change_what_is_said_and_the_state_before_does_not():
    block, x = drawn(12)
    with torch.no_grad():
        read = block(x)
        state = block.learn(read, torch.randn_like(x))
        assert not torch.allclose(block(x, state._replace(tail=read.state.tail * 0)).y, block(x).y)
        assert not read.state.cms.norms.any()


@BOTH
def test_what_does_not_fit_is_refused(attention):
    with pytest.raises(InvalidInput, match="heads=3"):
        HopeBlock(8, heads=3, attention=attention)
    block, x = drawn(4, attention=attention)
    with pytest.raises(InvalidInput, match="finite"):
        block(x * float("nan"))
