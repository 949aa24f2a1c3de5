"""How surprising is a new item? The error of a small memory that predicts it, near 0 for what was said before.

The fast state holds SLOTS unit vectors of earlier items. It predicts a new one, x, by the slot that is nearest, and
the error is measured against that of the other slots, as the unexplained part of a variance is:

    s_t = (1 - cos(x, k_best)) / (1 - mean of cos(x, k_i) over the others),   in [0, 1]
    S_t = 0.9 S_{t-1} + 0.1 s_t

The ratio needs no calibration: an embedder whose cosines all lie between 0.7 and 0.9 gives the same as one that uses
the whole range. S is the momentum of Titans [1], kept on the scalar: it stays high through a stretch of new matter.

Slots are anchored [2]: an item of a surprise below AGAIN renews its slot, any other takes the slot that was renewed
longest ago. So what was not said in the last few hundred different items is new again: this is salience, and no
proof that something was never said. On LoCoMo, repeats of earlier turns (cosine 0.93) are told from first mentions
with an AUROC of 0.93, but turns that answer a question from those that do not with 0.60 (by length alone: 0.74).

[1] Behrouz et al., Titans: Learning to Memorize at Test Time, 2025, equations 8 to 10.
[2] Kanerva, Sparse Distributed Memory, 1988; here the addresses are the items themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memkit_storage.errors import InvalidInput

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SLOTS = 512  # 0.8 MB at d = 384; half of them tell repeats with an AUROC of 0.73 only
AGAIN = 0.125  # surprise below which an item is another mention of a slot; with MiniLM, a cosine of 0.9
MOMENTUM = 0.9
_BLOCK = 64  # items whose products with the slots are taken at once


class SurpriseState(NamedTuple):
    """What an item is predicted from.

    Attributes:
        slots: (n, d) unit vectors with n up to SLOTS; the first `filled` count.
        renewed: (n,) the number of the item that a slot was last taken or renewed by.
        filled: slots in use.
        items: observed so far.
        momentum: S_t.
    """

    slots: Floats
    renewed: Ints
    filled: int
    items: int
    momentum: float


def empty(dim: int) -> SurpriseState:
    """Nothing seen: the first item is a full surprise."""
    return SurpriseState(np.zeros((0, dim), np.float32), np.zeros(0, np.int64), 0, 0, 0.0)


def copy(state: SurpriseState) -> SurpriseState:
    """A state that shares no array with this one."""
    return state._replace(slots=state.slots.copy(), renewed=state.renewed.copy())


def observe(state: SurpriseState, vector: Floats) -> tuple[SurpriseState, float]:
    """The state after one item, and its surprise in [0, 1].

    The new state takes over the arrays of the old one, which must not be used again (`copy` it before): copying them
    would cost more than all the rest.

    Args:
        vector: (d,) of the item; its length does not count.

    Raises:
        InvalidInput: a vector of another dimension, or not finite, or zero. The state is as it was.
    """
    row = np.asarray(vector, np.float32)
    _check_shape(state, row.shape)
    length = float(row @ row) ** 0.5
    if not 0 < length < np.inf:
        raise InvalidInput(_UNUSABLE)
    state, row = _with_room(state, 1), row / np.float32(length)
    return _step(state, row, state.slots[: state.filled] @ row)


def observe_many(state: SurpriseState, vectors: Floats) -> tuple[SurpriseState, Floats]:
    """The state after some items in order, and their (n,) surprises: what a loop of `observe` gives.

    Up to rounding of the products (1e-6). Takes over the arrays as `observe`, and raises as it does; nothing is
    observed then.
    """
    rows = _unit(state, np.asarray(vectors, np.float32))
    found = [np.zeros(0, np.float32)]
    for start in range(0, len(rows), _BLOCK):
        state, surprises = _advance(state, rows[start : start + _BLOCK])
        found.append(surprises)
    return state, np.concatenate(found)


_UNUSABLE = "an item vector is zero or not finite; pass what the embedder returned"


def _check_shape(state: SurpriseState, shape: tuple[int, ...]) -> None:
    if shape != state.slots.shape[1:]:
        raise InvalidInput(f"item vectors of shape {shape}; this state observes {state.slots.shape[1:]}")


def _unit(state: SurpriseState, rows: Floats) -> Floats:
    _check_shape(state, rows.shape[1:])
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    # a sum over squares that overflows is as little use as NaN
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InvalidInput(_UNUSABLE)
    return np.asarray(rows / lengths[:, None], np.float32)


def _with_room(state: SurpriseState, count: int) -> SurpriseState:
    """Slots for so many more items, as far as there may be any."""
    have, need = len(state.slots), min(state.filled + count, SLOTS)
    if need <= have:
        return state
    more = min(max(need, 2 * have), SLOTS) - have
    return state._replace(
        slots=np.concatenate([state.slots, np.zeros((more, state.slots.shape[1]), np.float32)]),
        renewed=np.concatenate([state.renewed, np.zeros(more, np.int64)]),
    )


def _advance(state: SurpriseState, rows: Floats) -> tuple[SurpriseState, Floats]:
    """Observe (b, d) unit rows, in the arrays of the state.

    Products with the slots are taken for all rows at once; when a row takes a slot, those of the rows that follow
    are put right from the products among the rows.
    """
    state = _with_room(state, len(rows))
    near, among = rows @ state.slots.T, rows @ rows.T
    surprises = np.empty(len(rows), np.float32)
    for t, row in enumerate(rows):
        state, surprises[t] = _step(state, row, near[t, : state.filled])
        if surprises[t] >= AGAIN:
            near[t + 1 :, int(state.renewed.argmax())] = among[t, t + 1 :]  # the slot that it took
    return state, surprises


def _step(state: SurpriseState, row: Floats, cosines: Floats) -> tuple[SurpriseState, float]:
    """One unit row, whose products with the filled slots are known."""
    slots, renewed, filled, items, momentum = state
    best, value = 0, 1.0
    if filled:
        best = int(cosines.argmax())
        most, rest = float(cosines[best]), filled - 1
        apart = 1 - (float(cosines.sum()) - most) / rest if rest else 1.0
        value = min(max((1 - most) / max(apart, 1e-6), 0.0), 1.0)
    if value >= AGAIN:
        best = filled if filled < SLOTS else int(renewed.argmin())
        filled = min(filled + 1, SLOTS)
        slots[best] = row
    renewed[best] = items + 1
    return SurpriseState(slots, renewed, filled, items + 1, MOMENTUM * momentum + (1 - MOMENTUM) * value), value
