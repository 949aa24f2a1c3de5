"""The continuum memory system: levels of one network that change at different rates.

Each level is a residual MLP, y = x + W1 s(W2 x), s = SiLU, that is written once in a chunk of its own length C_l, by
the sum of what the chunk's tokens would have it changed by, [NL] eq. 71:

    D_l <- (1 - decay) D_l - rate_l clip(sum of dL/dW over the chunk)      at every C_l-th token, else nothing

D is the deviation from the meta-learned start W0, and dL/dW comes from the *task's* loss, whose gradient dL/dy at the
output the caller passes. So a level is constant within its chunk, and what a fast level has of a chunk a slow one gets
later, out of more tokens at once. The schedule protects nothing by itself: who wants the past kept must replay it.

    variant "sequential"   y = M_k( ... M_1(x)), the fastest first, eq. 70
    variant "nested"       the same, and when a slower level is written the faster ones start anew: their context has
                           ended, and what is worth keeping of it is in the slower one (a reading of eq. 72)
    variant "headwise"     y = sum of softmax(mix)_l M_l(x), all levels beside each other, eq. 74

`cms_learn` backpropagates in closed form; `cms_learn_naive` goes token by token with autograd and is the definition.
Both are pure, and batch elements never meet. A stream may be cut anywhere: f(ab) = f(b, f(a)).

axes: b batch (users) · l levels, the fastest first · t time · d dim · h hidden

[NL] A. Behrouz et al., Nested Learning: The Illusion of Deep Learning Architectures (arXiv 2512.24695), section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from memkit_storage.errors import InvalidInput


class CMSParams(NamedTuple):
    """What the outer loop learns: starts inner (l, h, d) and outer (l, d, h), steps rate (l,), and mix (l,)."""

    inner: Tensor
    outer: Tensor
    rate: Tensor
    mix: Tensor


class CMSState(NamedTuple):
    """What one batch of users has been through.

    inner (b, l, h, d), outer (b, l, d, h): deviations in use. sum_inner, sum_outer: gradients of the open chunks.
    tokens: since the clock began. updates: how often each level was written; one that stays at 0 is dead.
    """

    inner: Tensor
    outer: Tensor
    sum_inner: Tensor
    sum_outer: Tensor
    tokens: int
    updates: tuple[int, ...]

    @property
    def norms(self) -> Tensor:
        """(b, l) how far each level is from its start."""
        return (self.inner.square().sum((-1, -2)) + self.outer.square().sum((-1, -2))).sqrt()


class Schedule(NamedTuple):
    """When levels are written, and how.

    periods: tokens of a chunk of each level, the fastest first; each divides the next. clip: largest Frobenius norm of
    a level's gradient, per token of its chunk. decay: share of the deviation that a write forgets.
    """

    periods: tuple[int, ...] = (16, 64, 256)
    variant: Literal["sequential", "nested", "headwise"] = "sequential"
    clip: float = 1.0
    decay: float = 0.0


DEFAULT = Schedule()


def start(params: CMSParams, batch: int) -> CMSState:
    """Nothing learned yet."""
    inner, outer = (torch.zeros(batch, *part.shape, dtype=part.dtype, device=part.device) for part in params[:2])
    return CMSState(inner, outer, inner, outer, 0, (0,) * len(params.inner))


def cms_forward(params: CMSParams, state: CMSState, x: Tensor, *, schedule: Schedule = DEFAULT) -> Tensor:
    """(b, t, d) of tokens (b, t, d), with the levels as they are: reading changes nothing.

    Raises:
        InvalidInput: shapes that do not fit, or periods that do not divide each other.
    """
    _check(params, state, x, schedule)
    y: Tensor = _pass(params, state, x.to(params.inner.dtype), schedule)[-1]
    return y.to(x.dtype)


def cms_learn(
    params: CMSParams, state: CMSState, x: Tensor, signal: Tensor, *, schedule: Schedule = DEFAULT
) -> CMSState:
    """The state after some tokens.

    Args:
        x: (b, t, d) what was read, with the levels as they were then.
        signal: (b, t, d) dL/dy, the gradient of the task's loss by what `cms_forward` gave.

    Raises:
        InvalidInput: as `cms_forward`, or a signal that is not finite; the state is as it was.
    """
    return _learn(params, state, x, signal, schedule, _gradients)


def cms_learn_naive(
    params: CMSParams, state: CMSState, x: Tensor, signal: Tensor, *, schedule: Schedule = DEFAULT
) -> CMSState:
    """As `cms_learn`, one token after the other, by autograd."""
    return _learn(params, state, x, signal, schedule, _gradients_naive)


def cms_flush(params: CMSParams, state: CMSState, *, schedule: Schedule = DEFAULT) -> CMSState:
    """Write what open chunks hold, as at the end of an interaction, and start the clock anew."""
    for level, period in enumerate(schedule.periods):
        if state.tokens % period:
            state = _written(params, state, level, state.tokens % period, schedule)
    return state._replace(tokens=0)


# -- forward and back --------------------------------------------------------------------------------------------------


def _pass(params: CMSParams, state: CMSState, x: Tensor, schedule: Schedule) -> list[Tensor]:
    """The input of each level, and last the output."""
    inner, outer = params.inner + state.inner, params.outer + state.outer
    if schedule.variant == "headwise":
        apart = x[:, None] + silu(x[:, None] @ inner.mT) @ outer.mT
        return [*[x] * inner.shape[1], torch.einsum("l,bltd->btd", params.mix.softmax(0), apart)]
    inputs = [x]
    for level in range(inner.shape[1]):
        x = x + silu(x @ inner[:, level].mT) @ outer[:, level].mT
        inputs.append(x)
    return inputs


def _gradients(
    params: CMSParams, state: CMSState, x: Tensor, signal: Tensor, schedule: Schedule
) -> tuple[Tensor, Tensor]:
    """Of all levels' weights, summed over the tokens: (b, l, h, d) and (b, l, d, h)."""
    inputs, inner, outer = _pass(params, state, x, schedule), params.inner + state.inner, params.outer + state.outer
    headwise, shares = schedule.variant == "headwise", params.mix.softmax(0)
    found_inner, found_outer = [], []
    for level in reversed(range(inner.shape[1])):
        behind = shares[level] * signal if headwise else signal
        hidden = inputs[level] @ inner[:, level].mT
        gate = torch.sigmoid(hidden)
        back = (behind @ outer[:, level]) * gate * (1 + hidden * (1 - gate))
        found_outer.append(behind.mT @ (hidden * gate))
        found_inner.append(back.mT @ inputs[level])
        signal = signal if headwise else signal + back @ inner[:, level]
    return torch.stack(found_inner[::-1], 1), torch.stack(found_outer[::-1], 1)


def _gradients_naive(
    params: CMSParams, state: CMSState, x: Tensor, signal: Tensor, schedule: Schedule
) -> tuple[Tensor, Tensor]:
    total_inner, total_outer = torch.zeros_like(state.inner), torch.zeros_like(state.outer)
    for t in range(x.shape[1]):

        def weighed(inner: Tensor, outer: Tensor, t: int = t) -> Tensor:
            there = state._replace(inner=inner, outer=outer)
            return (_pass(params, there, x[:, t : t + 1], schedule)[-1] * signal[:, t : t + 1]).sum()

        inner, outer = torch.func.grad(weighed, argnums=(0, 1))(state.inner, state.outer)
        total_inner, total_outer = total_inner + inner, total_outer + outer
    return total_inner, total_outer


# -- the clock ---------------------------------------------------------------------------------------------------------

_Gradients = Callable[[CMSParams, CMSState, Tensor, Tensor, Schedule], tuple[Tensor, Tensor]]


def _learn(  # noqa: PLR0917 - what `cms_learn` takes, and how
    params: CMSParams, state: CMSState, x: Tensor, signal: Tensor, schedule: Schedule, gradients: _Gradients
) -> CMSState:
    _check(params, state, x, schedule)
    if signal.shape != x.shape or not bool((signal.detach() * 0).sum() == 0):
        raise InvalidInput(f"signal of shape {tuple(signal.shape)} for {tuple(x.shape)} tokens: equal shapes, finite")
    x, signal = x.to(params.inner.dtype), signal.to(params.inner.dtype)
    for at in _spans(state.tokens, x.shape[1], schedule.periods[0]):
        inner, outer = gradients(params, state, x[:, at], signal[:, at], schedule)
        state = state._replace(
            sum_inner=state.sum_inner + inner,
            sum_outer=state.sum_outer + outer,
            tokens=state.tokens + at.stop - at.start,
        )
        for level, period in enumerate(schedule.periods):
            if state.tokens % period == 0:
                state = _written(params, state, level, period, schedule)
    return state


def _spans(tokens: int, count: int, period: int) -> Iterator[slice]:
    """Slices that end where chunks of the fastest level do."""
    begin = 0
    while begin < count:
        end = min(count, begin + period - (tokens + begin) % period)
        yield slice(begin, end)
        begin = end


def _written(params: CMSParams, state: CMSState, level: int, tokens: int, schedule: Schedule) -> CMSState:
    """One level written by the sum of its chunk, and the faster ones started anew if they are nested in it."""
    own = torch.zeros(len(schedule.periods), dtype=params.inner.dtype, device=params.inner.device)
    own[level] = 1
    square, most = (
        state.sum_inner.square().sum((-1, -2)) + state.sum_outer.square().sum((-1, -2)),
        schedule.clip * tokens,
    )
    shrink = most / square.clamp(min=most**2).sqrt()  # clamped first: the root has no slope at 0
    step = (own * params.rate * shrink)[..., None, None]
    keep = (1 - schedule.decay * own)[:, None, None]
    done = (1 - own)[:, None, None]
    if schedule.variant == "nested":
        keep = keep * (torch.arange(len(own), device=own.device) >= level)[:, None, None]
    return state._replace(
        inner=keep * state.inner - step * state.sum_inner,
        outer=keep * state.outer - step * state.sum_outer,
        sum_inner=done * state.sum_inner,
        sum_outer=done * state.sum_outer,
        updates=tuple(count + (i == level) for i, count in enumerate(state.updates)),
    )


def _check(params: CMSParams, state: CMSState, x: Tensor, schedule: Schedule) -> None:
    periods = schedule.periods
    if len(periods) != len(params.inner) or min(periods) < 1 or any(slow % fast for fast, slow in pairwise(periods)):
        raise InvalidInput(f"periods {periods} for {len(params.inner)} levels: one each, each dividing the next")
    if x.ndim != 3 or x.shape[0] != state.inner.shape[0] or x.shape[2] != params.inner.shape[2]:
        want = (state.inner.shape[0], "t", params.inner.shape[2])
        raise InvalidInput(f"tokens of shape {tuple(x.shape)}; these levels read {want}")
    if not bool((x.detach() * 0).sum() == 0):
        raise InvalidInput(f"tokens of shape {tuple(x.shape)} are not all finite; nothing was read")


# -- the module --------------------------------------------------------------------------------------------------------


class CMS(nn.Module):
    """The meta-learned starts of the levels, and their steps.

    Args:
        dim: of a token. hidden: of each level; default: four times dim.
        schedule: its periods say how many levels there are.
        rate: at which levels learn while reading, to begin with.
    """

    def __init__(
        self, dim: int, hidden: int | None = None, *, schedule: Schedule = DEFAULT, rate: float = 0.01
    ) -> None:
        super().__init__()
        levels, hidden = len(schedule.periods), hidden or 4 * dim
        self.schedule = schedule
        self.inner = nn.Parameter(torch.randn(levels, hidden, dim) * dim**-0.5)
        self.outer = nn.Parameter(torch.zeros(levels, dim, hidden))  # each level starts as the identity
        self.rate = nn.Parameter(torch.full((levels,), rate))
        self.mix = nn.Parameter(torch.zeros(levels))

    @property
    def params(self) -> CMSParams:
        """As the pure functions take them."""
        return CMSParams(self.inner, self.outer, self.rate, self.mix)

    def start(self, batch: int) -> CMSState:
        """The state of users who have read nothing."""
        return start(self.params, batch)

    def forward(self, x: Tensor, state: CMSState | None = None) -> Tensor:
        """Read tokens (b, t, dim) with the levels of a state, by default as they began."""
        return cms_forward(self.params, state or self.start(len(x)), x, schedule=self.schedule)

    def learn(self, state: CMSState, x: Tensor, signal: Tensor) -> CMSState:
        """The state after these tokens, whose output the task's loss wants changed by -signal."""
        return cms_learn(self.params, state, x, signal, schedule=self.schedule)
