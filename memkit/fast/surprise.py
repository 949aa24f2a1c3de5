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

from collections.abc import Mapping
from typing import Any, NamedTuple

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
        slots: (SLOTS, d) unit vectors; the first `filled` count.
        renewed: (SLOTS,) the number of the item that a slot was last taken or renewed by.
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
    return SurpriseState(np.zeros((SLOTS, dim), np.float32), np.zeros(SLOTS, np.int64), 0, 0, 0.0)


def copy(state: SurpriseState) -> SurpriseState:
    """A state that shares no array with this one."""
    return state._replace(slots=state.slots.copy(), renewed=state.renewed.copy())


def observe(state: SurpriseState, vector: Floats) -> tuple[SurpriseState, float, float]:
    """The state after one item, its surprise in [0, 1], and the momentum.

    The new state takes over the arrays of the old one, which must not be used again (`copy` it before, or use
    `observe_many`, which leaves it as it was): copying them would cost more than all the rest.

    Args:
        vector: (d,) of the item; its length does not count.

    Raises:
        InvalidInput: a vector of another dimension, or not finite, or zero. The state is as it was.
    """
    rows = _unit(state, np.asarray(vector, np.float32)[None])
    after, surprises = _advance(state, rows)
    return after, float(surprises[0]), after.momentum


def observe_many(state: SurpriseState, vectors: Floats) -> tuple[SurpriseState, Floats, Floats]:
    """The state after some items in order, and (n,) surprises and momenta: what a loop of `observe` gives.

    Up to rounding of the products (1e-6). Raises as `observe`; nothing is observed then.
    """
    rows = _unit(state, np.asarray(vectors, np.float32))
    after, found = copy(state), [np.zeros(0, np.float32)]
    for start in range(0, len(rows), _BLOCK):
        after, surprises = _advance(after, rows[start : start + _BLOCK])
        found.append(surprises)
    surprises = np.concatenate(found)
    return after, surprises, _momenta(state.momentum, surprises)


def _unit(state: SurpriseState, rows: Floats) -> Floats:
    if rows.ndim != 2 or rows.shape[1] != state.slots.shape[1]:
        raise InvalidInput(f"item vectors of shape {rows.shape[1:]}; this state observes ({state.slots.shape[1]},)")
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    # a sum over squares that overflows is as little use as NaN
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InvalidInput("an item vector is zero or not finite; pass what the embedder returned")
    return np.asarray(rows / lengths[:, None], np.float32)


def _advance(state: SurpriseState, rows: Floats) -> tuple[SurpriseState, Floats]:
    """Observe (b, d) unit rows, in the arrays of the state.

    Products with the slots are taken for all rows at once; when a row takes a slot, those of the rows that follow
    are put right from the products among the rows.
    """
    slots, renewed, filled, items, momentum = state
    near = rows @ slots.T
    among = rows @ rows.T if len(rows) > 1 else None
    surprises = np.empty(len(rows), np.float32)
    for t, row in enumerate(rows):
        items += 1
        best, value = 0, 1.0
        if filled:
            cosines = near[t, :filled]
            best = int(cosines.argmax())
            most, rest = float(cosines[best]), filled - 1
            apart = 1 - (float(cosines.sum()) - most) / rest if rest else 1.0
            value = min(max((1 - most) / max(apart, 1e-6), 0.0), 1.0)
        if value >= AGAIN:
            best = filled if filled < SLOTS else int(renewed.argmin())
            filled = min(filled + 1, SLOTS)
            slots[best] = row
            if among is not None:
                near[t + 1 :, best] = among[t, t + 1 :]
        renewed[best] = items
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * value
        surprises[t] = value
    return SurpriseState(slots, renewed, filled, items, momentum), surprises


def _momenta(momentum: float, surprises: Floats) -> Floats:
    found = np.empty(len(surprises), np.float32)
    for t, value in enumerate(surprises.tolist()):
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * value
        found[t] = momentum
    return found


def to_arrays(state: SurpriseState) -> dict[str, npt.NDArray[Any]]:
    """The state as named arrays, without the slots that are not in use."""
    return {
        "slots": state.slots[: state.filled].copy(),
        "renewed": state.renewed[: state.filled].copy(),
        "items": np.asarray(state.items, np.int64),
        "momentum": np.asarray(state.momentum, np.float64),
    }


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> SurpriseState:
    """The state that `to_arrays` made these of.

    Raises:
        InvalidInput: an array is missing, or their shapes do not belong together.
    """
    missing = [name for name in ("slots", "renewed", "items", "momentum") if name not in arrays]
    if missing:
        raise InvalidInput(f"the surprise state lacks {', '.join(missing)}; delete it and observe the items again")
    slots, renewed = arrays["slots"], arrays["renewed"]
    filled = len(slots)
    if slots.ndim != 2 or filled > SLOTS or renewed.shape != (filled,):
        raise InvalidInput(f"a surprise state of shapes {slots.shape}, {renewed.shape}; delete it and observe again")
    state = empty(slots.shape[1])
    state.slots[:filled], state.renewed[:filled] = slots, renewed
    return state._replace(filled=filled, items=int(arrays["items"]), momentum=float(arrays["momentum"]))
