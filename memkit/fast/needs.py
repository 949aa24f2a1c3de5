"""The memory of past needs: what was asked before, and which items served it.

A past need is the vector of its query with votes on items: feedback that used an item votes for it, feedback that
found it wrong votes against it. A need that is asked again, in the same or in other words, brings back its items.
Two questions decide how strongly:

Is it the same need? Its similarity to the nearest past need means little by itself: questions about one person are
all alike. So it is compared with how near past needs of *different* evidence come to each other, in standard
deviations (`z`). Keys are centred by the mean question and softly whitened, which removes what all questions share.

Does a hit deserve the first place for it? `bonus` is in [0, 1]. Up to one half it means "perhaps": `lift` then
raises an item to the fifth place at most, so that a mistaken memory costs a place and not the answer. Above one
half the need is known, and its items may come first.

An item that was used for another need gets nothing: usage alone is no evidence (learned rankings suffer from it).

axes: n needs, at most SIZE · d dimension of vectors · v items of a need, at most VOTES

Everything is numpy, a function takes a state and returns a new one, and nothing is changed in place. Memory is
O(1): past SIZE needs, the one that was asked for longest ago makes room. A matrix fitted to all needs by least
squares, the usual store of constant size, answers 87 to 88 % of 997 needs asked in other words, where the needs
themselves answer 97 to 99 %: so the needs are kept.

Measured with `python -m benchmarks.recall.needs` on the hybrid scores (R@10 of known needs asked again; then what
unrelated needs lose in R@10 and MRR; baselines at their best gate and weight with losses of at most 0.3 and 0.5):

                          LoCoMo, by rule             demo, no shared word    unrelated: LoCoMo     demo
                          filler  shuffled  pronoun   paraphrases
    no memory               62.3      67.3     71.2           76.0
    kNN, raw keys           95.7      81.9     75.3           76.0          -0.27  -0.34    0.00  +0.02
    kNN, whitened keys     100.0      79.6     84.3           76.0           0.00  -0.15    0.00  +0.02
    least squares           99.4      89.8     91.1           76.7          +0.53  -0.09    0.00  +0.02
    past-query log          73.9      82.0     90.0           76.0           0.00  -0.10    0.00  +0.02
    this                    99.6      97.2     97.9           84.9          -0.13  -0.10   -0.36  +0.01

Paraphrases without a word in common are beyond what a small embedder sees: the right need is nearest for half of
them. The -0.36 is a single evidence item of 276 needs.
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
# What the gate says of a similarity z standard deviations above that of unrelated needs (benchmarks/recall/needs.py).
PERHAPS = (0.0, 2.0)
KNOWN = (3.0, 4.5)
PLACE = 5  # the best place that "perhaps" can give
# Few needs say little about how near unrelated ones come: this is what other files say, worth so many needs.
PRIOR_MEAN, PRIOR_SPREAD, PRIOR_NEEDS = 0.4, 0.12, 8
RIVAL = 0.5  # standard deviations behind the nearest need at which another one counts a third
SAMPLE = 64  # needs, the newest, whose nearest others stand for all


class NeedsState(NamedTuple):
    """Past needs. Rows are in no order.

    Attributes:
        keys: (n, d) unit query vectors as they were asked, rounded to float16.
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


class Whitening(NamedTuple):
    """x -> (x - mean) @ matrix, for the keys of needs; follows the log, and is never stored in a state.

    Attributes:
        mean: (d,).
        matrix: (d, d).
    """

    mean: Floats
    matrix: Floats


class Prepared(NamedTuple):
    """A state made ready for reading: derived, to be kept as long as the state and the whitening are the same.

    Attributes:
        raw: (n, d) the keys of the state that was prepared.
        keys: (n, d) whitened unit keys.
        mean: similarity of a need to the nearest one with other evidence.
        spread: standard deviation of it.
        whitening: used for `keys`.
    """

    raw: Floats
    keys: Floats
    mean: float
    spread: float
    whitening: Whitening | None


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
    key = _key(query, state.keys.shape[1])
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
        items=_put(state.items, place, items),
        votes=_put(state.votes, place, votes),
        weight=_put(state.weight, place, state.weight[place] * fade + (weight if used else 0.0)),
        asked=_put(state.asked, place, number),
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


def _key(query: Floats, dim: int) -> Floats:
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
    row = len(state.keys) if len(state.keys) < SIZE else int(state.asked.argmin())
    items, votes = _row(ballot)
    return NeedsState(
        keys=_put(state.keys, row, key),
        items=_put(state.items, row, items),
        votes=_put(state.votes, row, votes),
        weight=_put(state.weight, row, weight),
        asked=_put(state.asked, row, number),
        feedbacks=number,
    )


def _put(array: npt.NDArray[Any], row: int, value: Any) -> npt.NDArray[Any]:
    """A copy with this row; the row after the last one makes it longer."""
    copy = np.empty((max(len(array), row + 1), *array.shape[1:]), array.dtype)
    copy[: len(array)] = array
    copy[row] = value
    return copy


# reading


def recall(
    state: NeedsState, query: Floats, whitening: Whitening | None = None, *, prepared: Prepared | None = None
) -> tuple[dict[int, float], float]:
    """What past needs say about a query.

    Args:
        query: (d,) its vector.
        whitening: of the keys; None for none.
        prepared: what `prepare` made of this state and whitening; without it, it is made anew.

    Returns:
        A bonus in (0, 1] for the log positions of items that served the need before, and the familiarity in
        [0, 1]: of the nearest past need, before its votes are counted.
    """
    if not len(state.keys):
        return {}, 0.0
    ready = prepare(state, whitening) if prepared is None else prepared
    z = (ready.keys @ _whiten(_key(query, state.keys.shape[1])[None], ready.whitening)[0] - ready.mean) / ready.spread
    nearest = float(z.max())
    near = np.flatnonzero(z > PERHAPS[0])
    gates = gate(z[near]) * np.exp((z[near] - nearest) / RIVAL)
    shares = np.maximum(state.votes[near], 0) / np.maximum(state.weight[near], 1e-9)[:, None]
    bonus: dict[int, float] = {}
    for position, value in zip(state.items[near].ravel().tolist(), (gates[:, None] * shares).ravel(), strict=True):
        if value > 0:
            bonus[position] = max(bonus.get(position, 0.0), min(float(value), 1.0))
    return bonus, float(gate(np.array(nearest)))


def gate(z: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """From standard deviations above unrelated needs to [0, 1]: up to 1/2 perhaps the same need, above it known."""
    perhaps = np.clip((z - PERHAPS[0]) / (PERHAPS[1] - PERHAPS[0]), 0, 1)
    known = np.clip((z - KNOWN[0]) / (KNOWN[1] - KNOWN[0]), 0, 1)
    return np.asarray((perhaps + known) / 2)


def lift(scores: npt.NDArray[Any], bonus: npt.NDArray[Any], *, weight: float = 2.5) -> npt.NDArray[Any]:
    """Scores of candidates with the bonus of past needs.

    Args:
        scores: (n,) of the candidates of one query, in any unit: what counts is their span, from median to best.
        bonus: (n,) of `recall`; 0 for the others.
        weight: spans that a need which is just about known is worth; a need beyond doubt is worth 5/3 of it.

    Returns:
        (n,) scores, none lower than it was.
    """
    scores, bonus = np.asarray(scores, np.float32), np.asarray(bonus, np.float32)
    if not (bonus > 0).any():
        return scores
    span = weight * max(float(scores.max() - np.median(scores)), 1e-6)
    place = np.sort(scores)[::-1][min(PLACE, len(scores)) - 1]
    perhaps = np.minimum(scores + span * np.minimum(2 * bonus, 1), np.nextafter(place, -np.inf))
    known = scores + span * (5 / 3) * np.maximum(2 * bonus - 1, 0)
    return np.asarray(np.maximum(scores, np.maximum(perhaps, known)), np.float32)


def prepare(state: NeedsState, whitening: Whitening | None = None, former: Prepared | None = None) -> Prepared:
    """Whitened keys, and how near needs of different evidence come to each other.

    Args:
        whitening: for all keys; None for none.
        former: what was prepared before; rows that have not changed since are taken from it if its whitening is this
            very one.
    """
    known = min(len(state.keys), len(former.raw)) if former is not None and former.whitening is whitening else 0
    stale = np.ones(len(state.keys), bool)
    if former is not None and known:
        stale[:known] = (state.keys[:known] != former.raw[:known]).any(axis=1)
    keys = np.empty_like(state.keys)
    if former is not None:
        keys[:known] = former.keys[:known]
    keys[stale] = _whiten(state.keys[stale], whitening)
    return Prepared(state.keys, keys, *_unrelated(state, keys), whitening)


def whitening_of(state: NeedsState, mean: Floats, covariance: Floats, items: int) -> Whitening:
    """The whitening that separates needs best: questions about their own mean, items about theirs, pooled.

    The covariance is shrunk to a multiple of the identity, the more the less there is to estimate it from.

    Args:
        mean: (d,) of the items' vectors.
        covariance: (d, d) of them.
        items: how many they are; past 1,024 they count as 1,024, or else they would drown the questions.
    """
    dim, n, m = len(mean), len(state.keys), min(items, 1_024)
    centre = (state.keys.sum(axis=0) + PRIOR_NEEDS * mean) / (n + PRIOR_NEEDS)
    asked = state.keys - centre
    pooled = (asked.T @ asked + m * covariance) / max(n + m, 1)
    level = max(float(np.trace(pooled)) / dim, 1e-9)
    kept = (n + m) / (n + m + 4 * dim)
    values, vectors = np.linalg.eigh(kept * pooled + (1 - kept) * level * np.eye(dim, dtype=np.float32))
    return Whitening(centre.astype(np.float32), ((vectors / np.sqrt(values)) @ vectors.T).astype(np.float32))


def _whiten(keys: Floats, whitening: Whitening | None) -> Floats:
    moved = keys if whitening is None else (keys - whitening.mean) @ whitening.matrix
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.maximum(lengths, 1e-9), np.float32)


def _unrelated(state: NeedsState, keys: Floats) -> tuple[float, float]:
    """Mean and standard deviation of a need's similarity to the nearest need of other evidence."""
    newest = np.argsort(-state.asked, kind="stable")[:SAMPLE]
    near = np.where(_sharing(state, newest), -np.inf, keys[newest] @ keys.T).max(axis=1, initial=-np.inf)
    near = near[np.isfinite(near)]
    total = len(near) + PRIOR_NEEDS
    mean = (float(near.sum()) + PRIOR_NEEDS * PRIOR_MEAN) / total
    own = float(near.mean()) if len(near) else mean  # not `mean`: a prior that is off would pass for spread
    square = (float(((near - own) ** 2).sum()) + PRIOR_NEEDS * PRIOR_SPREAD**2) / total
    return mean, max(square**0.5, 1e-3)


def _sharing(state: NeedsState, rows: Ints) -> npt.NDArray[np.bool_]:
    """(len(rows), n): which needs have an item in common with each of these; a need has with itself."""
    owners, columns = np.nonzero(state.votes > 0)
    served = state.items[owners, columns]
    order = np.argsort(served, kind="stable")
    owners, served = owners[order], served[order]
    common = np.zeros((len(rows), len(state.keys)), bool)
    common[np.arange(len(rows)), rows] = True
    for i, row in enumerate(rows):
        for position in state.items[row][state.votes[row] > 0]:
            first, last = np.searchsorted(served, position, "left"), np.searchsorted(served, position, "right")
            common[i, owners[first:last]] = True
    return common


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
