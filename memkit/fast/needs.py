"""The memory of past needs: what was asked before, and which items served it.

A past need is the vector of its query with votes on items: feedback that used an item votes for it, feedback that
found it wrong votes against it. A need that is asked again, in the same or in other words, brings back its items: how
strongly, `memkit.fast.familiarity` decides.

axes: n needs, at most SIZE · d dimension of vectors · v items of a need, at most VOTES

Everything is numpy, a function takes a state and returns a new one, and nothing is changed in place. Memory is
O(1): past SIZE needs, of the item that served most of them the two nearest become one, a prototype; where every item
has served one, the need that was asked for longest ago makes room. A matrix fitted to all needs by least squares, the
usual store of constant size, answers 84 to 94 % of LoCoMo's needs asked in other words, where the needs themselves
answer 96 % and more (`memkit.fast.familiarity`): so the needs are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memkit_storage.errors import InvalidInput

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SIZE = 2_048  # needs; 3 MB of keys at d = 384
VOTES = 16  # items of a need: those with the strongest votes
SAME = 0.97  # cosine of two wordings that are one need: politer, not different
FADE = 0.8  # of older votes each time a need is asked again: the newest answer wins in two or three feedbacks


class NeedsState(NamedTuple):
    """Past needs. Rows are in no order.

    Attributes:
        keys: (n, d) unit query vectors as they were asked, or the mean direction of several, rounded to float16.
        items: (n, v) log positions, -1 where there is none.
        votes: (n, v) sums of weights, for (> 0) and against (< 0) each item.
        weight: (n,) what a vote of every feedback on this need would come to.
        asked: (n,) the number of the feedback that came last.
        feedbacks: () in all.
    """

    keys: Floats
    items: Ints
    votes: Floats
    weight: Floats
    asked: Ints
    feedbacks: Ints


def empty(dim: int) -> NeedsState:
    """No past needs, for query vectors of this dimension."""
    return NeedsState(
        keys=np.zeros((0, dim), np.float32),
        items=np.zeros((0, VOTES), np.int64),
        votes=np.zeros((0, VOTES), np.float32),
        weight=np.zeros(0, np.float32),
        asked=np.zeros(0, np.int64),
        feedbacks=np.zeros((), np.int64),
    )


# learning


def learn(
    state: NeedsState, query: Floats, *, used: Sequence[int], wrong: Sequence[int] = (), weight: float = 1.0
) -> NeedsState:
    """The state after one feedback.

    Args:
        query: (d,) vector of what was asked; its length does not count.
        used: log positions of items that served the need.
        wrong: of items that did not. Alone they take votes away; they never make a need known.
        weight: of this feedback, in (0, 1].

    Raises:
        InvalidInput: a vector of another dimension, or not finite, or zero; a weight out of range; an item that is
            both used and wrong. The state is as it was.
    """
    key = unit_key(query, state.keys.shape[1])
    _check(used, wrong, weight)
    ballot = dict.fromkeys(used, weight) | dict.fromkeys(wrong, -weight)
    place = _place(state, key)
    if place is None and not used:
        return state
    number = np.asarray(state.feedbacks + 1)
    if place is None:
        return _insert(state, key, ballot, weight, number)
    fade = FADE if used else 1.0
    cast = zip(state.items[place].tolist(), state.votes[place].tolist(), strict=True)
    before = {position: vote * fade for position, vote in cast if position >= 0}
    items, votes = _row({p: before.get(p, 0.0) + ballot.get(p, 0.0) for p in before | ballot})
    return state._replace(
        items=_put(state.items, {place: items}),
        votes=_put(state.votes, {place: votes}),
        weight=_put(state.weight, {place: state.weight[place] * fade + (weight if used else 0.0)}),
        asked=_put(state.asked, {place: number}),
        feedbacks=number,
    )


def forget(state: NeedsState, positions: Iterable[int]) -> NeedsState:
    """The state without these items; needs that have no other item go with them, query vector and all."""
    gone = np.isin(state.items, np.fromiter(positions, np.int64))
    items, votes = np.where(gone, -1, state.items), np.where(gone, np.float32(0), state.votes)
    keep = (items >= 0).any(axis=1) | ~gone.any(axis=1)
    return NeedsState(
        state.keys[keep], items[keep], votes[keep], state.weight[keep], state.asked[keep], state.feedbacks
    )


def first(state: NeedsState, count: int) -> NeedsState:
    """The state with its first rows only."""
    keys, items, votes, weight, asked, feedbacks = state
    return NeedsState(keys[:count], items[:count], votes[:count], weight[:count], asked[:count], feedbacks)


def served(state: NeedsState) -> Ints:
    """(n,) the item that served each need most; -1 where none did."""
    rows = np.arange(len(state.keys))
    return np.where(state.votes.max(axis=1) > 0, state.items[rows, state.votes.argmax(axis=1)], -1)


def unit_key(query: Floats, dim: int) -> Floats:
    """A query's vector as a key (d,): of unit length, rounded to float16.

    Raises:
        InvalidInput: it has another dimension, or is zero, or not finite.
    """
    vector = np.asarray(query, np.float32)
    if vector.shape != (dim,):
        raise InvalidInput(f"a query vector of shape {vector.shape}; this memory of needs holds ({dim},)")
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise InvalidInput(f"a query vector of length {length}; pass what the embedder returned")
    return (vector / length).astype(np.float16).astype(np.float32)


def _check(used: Sequence[int], wrong: Sequence[int], weight: float) -> None:
    if not 0 < weight <= 1:  # also false for NaN
        raise InvalidInput(f"weight={weight!r}: the weight of a feedback is above 0 and at most 1")
    both = sorted(set(used) & set(wrong))
    if both:
        raise InvalidInput(f"items {both} are both used and wrong; name each once")
    if min([*used, *wrong], default=0) < 0:
        raise InvalidInput(f"log position {min([*used, *wrong])}: positions are not negative")


def _place(state: NeedsState, key: Floats) -> int | None:
    """The row of the need that this key is another wording of."""
    if not len(state.keys):
        return None
    near = state.keys @ key
    best = int(near.argmax())
    return best if near[best] >= SAME else None


def _row(ballot: Mapping[int, float]) -> tuple[Ints, Floats]:
    """The strongest votes, in a fixed order, as arrays of VOTES."""
    strongest = sorted(ballot.items(), key=lambda pair: (-abs(pair[1]), -pair[0]))[:VOTES]
    items, votes = np.full(VOTES, -1, np.int64), np.zeros(VOTES, np.float32)
    for column, (position, vote) in enumerate(strongest):
        items[column], votes[column] = position, vote
    return items, votes


def _insert(state: NeedsState, key: Floats, ballot: Mapping[int, float], weight: float, number: Ints) -> NeedsState:
    rows: dict[int, _Need] = {}
    row = len(state.keys)
    if row >= SIZE:
        rows, row = _room(state)
    rows[row] = _Need(key, *_row(ballot), weight, int(number))
    new = [dict(zip(rows, column, strict=True)) for column in zip(*rows.values(), strict=True)]
    return NeedsState(
        keys=_put(state.keys, new[0]),
        items=_put(state.items, new[1]),
        votes=_put(state.votes, new[2]),
        weight=_put(state.weight, new[3]),
        asked=_put(state.asked, new[4]),
        feedbacks=number,
    )


class _Need(NamedTuple):
    """A row of a state."""

    key: Floats
    items: Ints
    votes: Floats
    weight: float
    asked: int


def _room(state: NeedsState) -> tuple[dict[int, _Need], int]:
    """What changes of a full state to have a need fewer, and the row that is free then."""
    main = served(state)
    items, times = np.unique(main[main >= 0], return_counts=True)
    rows = np.flatnonzero(main == items[times.argmax()]) if len(items) else np.zeros(0, np.int64)
    alike = state.keys[rows] @ state.keys[rows].T - 2 * np.eye(len(rows), dtype=np.float32)
    if alike.max(initial=0.0) <= 0:  # one need an item, or needs that have nothing in common
        return {}, int(state.asked.argmin())
    stays, goes = rows[list(np.unravel_index(alike.argmax(), alike.shape))].tolist()
    return {stays: _joined(state, [stays, goes])}, goes


def _joined(state: NeedsState, rows: list[int]) -> _Need:
    """Needs as one: what came of them, asked in the mean of their directions."""
    ballot: dict[int, float] = {}
    for position, vote in zip(state.items[rows].ravel().tolist(), state.votes[rows].ravel().tolist(), strict=True):
        if position >= 0:
            ballot[position] = ballot.get(position, 0.0) + vote
    weight = state.weight[rows]
    key = unit_key(weight @ state.keys[rows], state.keys.shape[1])
    return _Need(key, *_row(ballot), float(weight.sum()), int(state.asked[rows].max()))


def _put(array: npt.NDArray[Any], rows: Mapping[int, Any]) -> npt.NDArray[Any]:
    """A copy with these rows; the row after the last one makes it longer."""
    copy = np.empty((max(len(array), *(row + 1 for row in rows)), *array.shape[1:]), array.dtype)
    copy[: len(array)] = array
    for row, value in rows.items():
        copy[row] = value
    return copy


# at rest


def to_arrays(state: NeedsState) -> dict[str, npt.NDArray[Any]]:
    """The state as named arrays; keys as float16, which loses nothing."""
    return {**state._asdict(), "keys": state.keys.astype(np.float16)}


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> NeedsState:
    """The state that `to_arrays` made these of.

    Raises:
        InvalidInput: an array is missing, or their shapes do not belong together.
    """
    missing = [name for name in NeedsState._fields if name not in arrays]
    if missing:
        raise InvalidInput(f"the memory of needs lacks {', '.join(missing)}; delete the state and replay the feedback")
    found = NeedsState(**{name: np.asarray(arrays[name]) for name in NeedsState._fields})
    found = found._replace(keys=found.keys.astype(np.float32))
    n = len(found.keys)
    shapes = [(n, VOTES), (n, VOTES), (n,), (n,), ()]
    if found.keys.ndim != 2 or [a.shape for a in found[1:]] != shapes:
        raise InvalidInput(f"a memory of needs of shapes {[a.shape for a in found]}; delete it and replay the feedback")
    return found
