"""How familiar a need is: what the memory of past needs says about a query.

Is it the same need? Its similarity to the nearest past need means little by itself: questions about one person are
all alike. So it is compared with how near past needs of *different* evidence come to each other, in standard
deviations (`z`). Keys are centred by the mean question and softly whitened, which removes what all questions share;
what needs of one item differ in counts as chance, and directions of it weigh less.

Does a hit deserve the first place for it? `bonus` is in [0, 1], the chance that the need is asked again
(`memkit.fast.calibration`). Up to one half it means "perhaps": `lift` then raises an item to the fifth place at most,
so that a mistaken memory costs a place and not the answer. Above one half the need is known, and its items may come
first.

An item that was used for another need gets nothing: usage alone is no evidence (learned rankings suffer from it).
An item that served several needs has a prototype, their mean: how near such a need comes is told by the prototype for
two thirds, and by the need itself for one, since what the needs of an item have in common says more than each of them,
except where the very need comes again.

axes: n needs · p prototypes · d dimension of vectors · v items of a need, at most VOTES

Measured with `python -m benchmarks.recall.needs` on the hybrid scores (R@10 of known needs asked again; then what
unrelated needs lose in R@10 and MRR; baselines at their best gate and weight with losses of at most 0.3 and 0.5, or at
the best of all where none is within):

                          LoCoMo, by rule             demo, no shared word    unrelated: LoCoMo     demo
                          filler  shuffled  pronoun   paraphrases
    no memory               81.7      82.1     81.8           83.2
    kNN, raw keys          100.0      99.9     99.5           90.9         -1.96 -17.85    0.00  -7.21
    kNN, whitened keys      98.1      85.2     85.7           83.2          0.00  -0.36    0.00   0.00
    delta rule              89.1      83.3     83.6           83.2          0.00  -0.20    0.00   0.00
    least squares           94.4      84.4     85.1           83.2          0.00  -0.34    0.00   0.00
    past-query log         100.0      99.8     99.9           93.5         -9.09 -39.51   -5.25 -40.10
    this                    99.7      95.9     97.5           88.0         -0.13  -0.39    0.00  -0.02

Paraphrases without a word in common are beyond what a small embedder sees: the right need is nearest for half of
them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memkit.fast.calibration import UNTAUGHT, Calibration, chance
from memkit.fast.needs import Floats, Ints, NeedsState, served, unit_key

PLACE = 5  # the best place that "perhaps" can give
# Few needs say little about how near unrelated ones come: this is what other files say, worth so many needs.
PRIOR_MEAN, PRIOR_SPREAD, PRIOR_NEEDS = 0.4, 0.12, 8
LEAST = 0.05  # chance below which a past need says nothing
COMMON = 2 / 3  # of how near a need of an item with a prototype comes, the part that the prototype says
RIVAL = 0.5  # standard deviations behind the nearest need at which another one counts a third
SAMPLE = 64  # needs, the newest, whose nearest others stand for all
ALONE = 1.5  # standard deviations that such a need loses at most: asked again word for word, it is the same need
SEVERAL = 5  # needs that an item has a prototype of


class Whitening(NamedTuple):
    """x -> (x - mean) @ matrix, for the keys of needs; follows the log, and is never stored in a state.

    matrix matrix' is the inverse of a covariance. Which of its roots it is, cosines do not tell; the triangular one is
    made in a fraction of the time of the symmetric one, and each family needs one anew as the file grows.

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
        keys: (n + p, d) whitened unit keys; the last p are prototypes.
        mean: (n + p,) similarity of a need to the nearest need, or prototype, with other evidence.
        spread: (n + p,) standard deviation of it.
        items: (n, v) log positions, -1 where there is none; v as many as any need has.
        shares: (n, v) how surely each item serves the need, in [0, 1].
        prototype: (n, v) which one each item has, -1 where it has none.
        whitening: used for `keys`.
    """

    raw: Floats
    keys: Floats
    mean: Floats
    spread: Floats
    items: Ints
    shares: Floats
    prototype: Ints
    whitening: Whitening | None


class Recalled(NamedTuple):
    """What past needs say about a query.

    Attributes:
        bonus: in (0, 1], by log position, for items that served the need before.
        familiarity: chance that the nearest past need is asked again, before its votes are counted.
        z: how near it is, in standard deviations; -inf without any.
        nearest: log positions of the items that served it, the nearest first, then those with most votes.
    """

    bonus: dict[int, float]
    familiarity: float
    z: float
    nearest: tuple[int, ...]


NOTHING = Recalled({}, 0.0, -np.inf, ())


def recall(
    state: NeedsState,
    query: Floats,
    whitening: Whitening | None = None,
    *,
    prepared: Prepared | None = None,
    calibration: Calibration = UNTAUGHT,
) -> Recalled:
    """What past needs say about a query.

    Args:
        query: (d,) its vector.
        whitening: of the keys; None for none.
        prepared: what `prepare` made of this state and whitening; without it, it is made anew.
        calibration: how near a need must come to be the one that is asked again.
    """
    if not len(state.keys):
        return NOTHING
    ready = prepare(state, whitening) if prepared is None else prepared
    key = _whiten(unit_key(query, state.keys.shape[1])[None], ready.whitening)[0]
    near = _nearness(ready, (ready.keys @ key - ready.mean) / ready.spread)
    best = float(near.max())
    if best == -np.inf:  # all that was used was found wrong later
        return NOTHING
    row = int(near.max(axis=1).argmax())
    order = np.argsort(-near[row], kind="stable")[: int((ready.shares[row] > 0).sum())]
    bonus = _bonus(ready, near, best, calibration)
    return Recalled(bonus, float(chance(calibration, best)), best, tuple(ready.items[row, order].tolist()))


def _nearness(ready: Prepared, z: Floats) -> Floats:
    """(n, v) z of each need for each of its items: that of the need, and of the item's prototype where it has one."""
    needs, prototypes = z[: len(ready.items), None], np.append(z[len(ready.items) :], 0)
    common = np.maximum((1 - COMMON) * needs + COMMON * prototypes[ready.prototype], needs - ALONE)
    near = np.where(ready.prototype < 0, needs, common)
    return np.asarray(np.where(ready.shares > 0, near, -np.inf), np.float32)


def _bonus(ready: Prepared, near: Floats, best: float, calibration: Calibration) -> dict[int, float]:
    rows, columns = np.nonzero(near > best + RIVAL * np.log(LEAST))
    z = near[rows, columns]
    values = chance(calibration, z) * np.exp((z - best) / RIVAL) * ready.shares[rows, columns]
    bonus: dict[int, float] = {}
    for position, value in zip(ready.items[rows, columns].tolist(), values.tolist(), strict=True):
        if value > LEAST:
            bonus[position] = max(bonus.get(position, 0.0), value)
    return bonus


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
    """Whitened keys and prototypes, and how near those of different evidence come to each other.

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
    return _with_prototypes(state, keys, whitening)


def _with_prototypes(state: NeedsState, keys: Floats, whitening: Whitening | None) -> Prepared:
    prototypes, whose = _prototypes(state, keys)
    newest = np.argsort(-state.asked, kind="stable")[:SAMPLE]
    scales = (
        _unrelated(keys[newest] @ keys.T, _sharing(state, newest)),
        _unrelated(keys[newest] @ prototypes.T, _served(state, newest, whose)),
    )
    mean, spread = np.repeat(np.array(scales, np.float32).T, [len(keys), len(whose)], axis=1)
    shares = np.clip(state.votes / np.maximum(state.weight, 1e-9)[:, None], 0, 1).astype(np.float32)
    most = int(np.flatnonzero((shares > 0).any(axis=0)).max(initial=0)) + 1  # items of a need, as a rule few
    items, shares = state.items[:, :most], shares[:, :most]
    own = np.where(np.isin(items, whose), np.searchsorted(whose, items), -1)
    return Prepared(state.keys, np.concatenate([keys, prototypes]), mean, spread, items, shares, own, whitening)


def whitening_of(state: NeedsState, mean: Floats, covariance: Floats, items: int) -> Whitening:
    """The whitening that separates needs best: what differs within the needs of an item, and among items, pooled.

    The covariance is shrunk to a multiple of the identity, the more the less there is to estimate it from.

    Args:
        mean: (d,) of the items' vectors.
        covariance: (d, d) of them.
        items: how many they are; past 1,024 they count as 1,024, or else they would drown the questions.
    """
    dim, n, m = len(mean), len(state.keys), min(items, 1_024)
    centre = (state.keys.sum(axis=0) + PRIOR_NEEDS * mean) / (n + PRIOR_NEEDS)
    within = _within(state, centre)
    pooled = (within.T @ within + m * covariance) / max(n + m, 1)
    level = max(float(np.trace(pooled)) / dim, 1e-9)
    kept = (n + m) / (n + m + 4 * dim)
    lower = np.linalg.cholesky(kept * pooled + (1 - kept) * level * np.eye(dim, dtype=np.float32))
    return Whitening(centre.astype(np.float32), np.linalg.inv(lower).T.astype(np.float32))


def _within(state: NeedsState, centre: Floats) -> Floats:
    """(n, d) keys about the mean of the needs that the same item served, without bias; about the centre if alone."""
    main = served(state)
    _, which, times = np.unique(main, return_inverse=True, return_counts=True)
    several = (times[which] > 1) & (main >= 0)
    sums = np.zeros((len(times), state.keys.shape[1]), np.float32)
    np.add.at(sums, which, state.keys)
    count = times[which][:, None].astype(np.float32)
    own = (state.keys - sums[which] / count) * np.sqrt(count / np.maximum(count - 1, 1))
    return np.asarray(np.where(several[:, None], own, state.keys - centre), np.float32)


def _whiten(keys: Floats, whitening: Whitening | None) -> Floats:
    moved = keys if whitening is None else (keys - whitening.mean) @ whitening.matrix
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.maximum(lengths, 1e-9), np.float32)


def _prototypes(state: NeedsState, keys: Floats) -> tuple[Floats, Ints]:
    """Of each item that served several needs, the mean direction (p, d) of their keys; and which item that is (p,)."""
    owners, columns = np.nonzero(state.votes > 0)
    whose, which, times = np.unique(state.items[owners, columns], return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    rows, often = owners[order][(times >= SEVERAL)[which[order]]], times >= SEVERAL
    if not often.any():
        return keys[:0], whose[:0]
    sums = np.add.reduceat(keys[rows], np.cumsum(times[often]) - times[often], axis=0)
    return _whiten(sums, None), whose[often]


def _unrelated(alike: Floats, common: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and standard deviation of a need's similarity to the nearest of other evidence; alike, common (s, m)."""
    near = np.where(common, -np.inf, alike).max(axis=1, initial=-np.inf)
    near = near[np.isfinite(near)]
    total = len(near) + PRIOR_NEEDS
    mean = (float(near.sum()) + PRIOR_NEEDS * PRIOR_MEAN) / total
    own = float(near.mean()) if len(near) else mean  # not `mean`: a prior that is off would pass for spread
    square = (float(((near - own) ** 2).sum()) + PRIOR_NEEDS * PRIOR_SPREAD**2) / total
    return mean, max(square**0.5, 1e-3)


def _served(state: NeedsState, rows: Ints, whose: Ints) -> npt.NDArray[np.bool_]:
    """(len(rows), p): which of these items served each of these needs."""
    same = state.items[rows][:, :, None] == whose
    return np.asarray((same & (state.votes[rows] > 0)[:, :, None]).any(axis=1))


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
