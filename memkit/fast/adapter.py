"""The query adapter: what feedback teaches about a user's own words.

Whoever asks for "Ana's anchor" and then uses "Ana lives in Lisbon" says something about the word "anchor", and nothing
that lasts about Ana or Lisbon. So the adapter does not learn where the used item is, but in which direction it differs
from the items that were shown beside it: those are about Ana too. A linear map W from queries to such differences,
fitted by least squares to all feedback, keeps what many queries have in common, the word, and averages the rest away.

    k = (q - mean) / |q - mean|                              mean: of the items in feedback
    t = (1 - p) (used - mean of wrong)                       p: softmax of BETA q' item for the used one among all shown
    e = t - W k, no longer than CLIP                         Huber's loss [1]: an outlier pulls no harder than CLIP
    W, P <- recursive least squares [2] on e                 from W = 0, P = I: ridge regression with RIDGE
    s = 1 - k' P k                                           leverage: how much of k was in past queries, in [0, 1]
    q' = (q + g(s) W k / s) / |...|                          1 / s undoes the shrinkage of ridge regression

The factor 1 - p makes t nothing where the query found its item by itself: ordinary words are left as they are. The gate
g opens where s comes near to what new queries of this user reach (`usual`); it is closed for a query that has little
in common with those that got feedback, and then q' is q itself.

[1] P. J. Huber, Robust Estimation of a Location Parameter (1964); as a write rule: Miras (arXiv 2504.13173), Yaad.
[2] S. Haykin, Adaptive Filter Theory, table 10.1; one step of `memkit.fast.rules.rls_naive`, lam = 1.

axes: d dimension of vectors · n items
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memkit_storage.errors import InvalidInput, InvalidVector

Floats = npt.NDArray[np.float32]

RIDGE = 1.0  # feedbacks of one direction at which half of it is believed
BETA = 8.0  # of the softmax over unit vectors: 0.1 of cosine ahead of another item is 2 to 1
CLIP = 1.0
USUAL = 0.9  # quantile of the support that queries have when they come in
OPEN = (0.6, 0.8)  # shares of it at which the gate begins to open, and is open
LEAST = 0.1  # support below which a query is never adapted
FIRST = 20.0  # item vectors that the mean counts as zero before it has seen any
_FEW = 4
_TINY = 1e-9


class AdapterState(NamedTuple):
    """What feedback has taught; float32, 1.2 MB at d = 384, however much was learned.

    Attributes:
        weights: W, (d, d), from centred queries to displacements.
        covariance: P, (d, d), symmetric, identity at first; in units of 1 / RIDGE.
        mean: (d,) of the item vectors in feedback.
        items: () how many those were.
        usual: () running quantile of the support that queries had before they were learned from.
        learned: () feedbacks.
    """

    weights: Floats
    covariance: Floats
    mean: Floats
    items: Floats
    usual: Floats
    learned: Floats


def empty(dim: int) -> AdapterState:
    """Nothing learned, for vectors of this dimension: `adapt` changes nothing."""
    zero = np.zeros((), np.float32)
    matrix = np.zeros((dim, dim), np.float32)
    return AdapterState(matrix, np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32), zero, zero, zero)


def learn(
    state: AdapterState, query: Floats, target: Floats, *, weight: float = 1.0, wrong: Floats | None = None
) -> AdapterState:
    """The state after one feedback.

    Args:
        query: (d,) vector of what was asked.
        target: (d,) or (n, d) vectors of the items that were used.
        weight: in (0, 1], how much the feedback counts.
        wrong: (n, d) vectors of items that were shown and not used, rejected or passed over. Pass them: without any,
            the displacement is taken from the query, ordinary words are displaced as well, and learning is slower.

    Raises:
        InvalidInput, InvalidVector: a weight out of range, no target; vectors of another dimension, or not finite.
            The state is as it was.
    """
    if not 0 < weight <= 1:  # also false for NaN
        raise InvalidInput(f"weight={weight!r}: the weight of a feedback is above 0 and at most 1")
    dim = len(state.mean)
    asked, used = _rows(query, dim, "query")[0], _rows(target, dim, "target")
    others = used[:0] if wrong is None else _rows(wrong, dim, "wrong")
    if not len(used):
        raise InvalidInput("target names no vector; a feedback is about at least one item that was used")
    seen = np.concatenate([used, others])
    items = state.items + len(seen)
    mean = state.mean + (seen.sum(axis=0) - len(seen) * state.mean) / (items + FIRST)
    key = _key(asked, mean)
    towards = _missed(asked, used, others) if len(others) else used.mean(axis=0) - mean - key
    weights, covariance, support = _fitted(state, key, towards, weight)
    small = (mean, items, _usual(state, support), state.learned + 1)
    return AdapterState(weights, covariance, *(np.asarray(value, np.float32) for value in small))


def misfit(state: AdapterState, query: Floats, target: Floats, wrong: Floats) -> float:
    """How far what a feedback says is from what all the others say: the length of its error, leverage taken out.

    Args:
        state: that has learned from this feedback, among others. The rest as `learn`.
    """
    dim = len(state.mean)
    asked, used, others = (
        _rows(some, dim, name) for some, name in ((query, "query"), (target, "used"), (wrong, "wrong"))
    )
    key = _key(asked[0], state.mean)
    error = _missed(asked[0], used, others) - state.weights @ key
    return float(np.linalg.norm(error) / max(_support(state.covariance, key), _TINY**0.5))


def _missed(asked: Floats, used: Floats, others: Floats) -> Floats:
    """(d,) displacement that the query lacked: nothing if it found what was used by itself."""
    near = np.exp(BETA * (np.concatenate([used, others]) @ asked - 1))
    share = near[: len(used)].sum() / near.sum()
    return np.asarray((1 - share) * (used.mean(axis=0) - others.mean(axis=0)), np.float32)


def _usual(state: AdapterState, support: float) -> float:
    """The running quantile after one more support; of the first few, the mean."""
    if state.learned < _FEW:
        return float(state.usual + (support - state.usual) / (state.learned + 1))
    step = max(0.01, 0.5 / float(state.learned + 1))
    return float(state.usual + step * (USUAL if support > state.usual else USUAL - 1))


def adapt(state: AdapterState, query: Floats) -> tuple[Floats, float]:
    """A query in the file's words, and how far feedback supports that.

    Args:
        query: (d,) vector of what is asked.

    Returns:
        (d,) unit vector, and the gate in [0, 1]; at 0 the vector is the query's own, of unit length.

    Raises:
        InvalidVector: another dimension, or not finite.
    """
    asked = _rows(query, len(state.mean), "query")[0]
    key = _key(asked, state.mean)
    support = _support(state.covariance, key)
    gate = _gate(support, float(state.usual))
    if not gate:
        return asked, 0.0
    return _unit(asked + (gate / support) * (state.weights @ key)), gate


def _gate(support: float, usual: float) -> float:
    least, full = (share * usual for share in OPEN)
    least = max(least, LEAST)
    return float(np.clip((support - least) / max(full - least, LEAST), 0, 1))


def _support(covariance: Floats, key: Floats) -> float:
    """1 - k' P k, in [0, 1]: 0 for a query unlike any before, and for a zero key."""
    return float(np.clip(key @ key - key @ covariance @ key, 0, 1))


def _key(asked: Floats, mean: Floats) -> Floats:
    return _unit(asked - mean)


def _unit(vectors: Floats) -> Floats:
    """Vectors (..., d) at length one; zero stays zero."""
    lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, _TINY), np.float32)


def _fitted(state: AdapterState, key: Floats, towards: Floats, weight: float) -> tuple[Floats, Floats, float]:
    """W and P after one weighted step towards a displacement (d,), its error clipped; and the key's support before.

    The step is `rls_naive`'s with lam = 1, each matrix read and written once.
    """
    import torch

    k, before, covariance = (torch.from_numpy(array) for array in (key, state.weights, state.covariance))
    error = torch.from_numpy(towards) - before @ k
    error = error * min(1.0, CLIP / max(float(torch.linalg.vector_norm(error)), _TINY))
    known = covariance @ k
    open_, length = float(k @ known), float(k @ k)
    gain = known / (RIDGE / weight + open_)
    after = torch.addr(before, error, gain), torch.addr(covariance, gain, known, alpha=-1)
    return after[0].numpy(), after[1].numpy(), min(max(length - open_, 0.0), 1.0)


def _rows(vectors: Floats, dim: int, name: str) -> Floats:
    """(n, d) unit vectors of one or several, checked."""
    rows = np.atleast_2d(np.asarray(vectors, np.float32))
    if rows.shape[-1] != dim or rows.ndim != 2:
        raise InvalidVector(f"{name} of shape {np.shape(vectors)}; this adapter holds vectors of dimension {dim}")
    if not np.isfinite(rows).all():
        raise InvalidVector(f"{name} is not finite; pass what the embedder returned")
    return _unit(rows)


# saving


def to_arrays(state: AdapterState) -> dict[str, Floats]:
    """For saving."""
    return state._asdict()


def from_arrays(arrays: Mapping[str, Floats]) -> AdapterState:
    """What `to_arrays` gave.

    Raises:
        KeyError, ValueError: an array is missing, has another shape, or is not finite.
    """
    state = AdapterState(*(np.asarray(arrays[name], np.float32) for name in AdapterState._fields))
    if [a.shape for a in state] != [a.shape for a in empty(state.mean.shape[-1])]:
        raise ValueError(f"an adapter with arrays of shapes {[a.shape for a in state]}")
    if not all(np.isfinite(a).all() for a in state):
        raise ValueError("an adapter with numbers that are not finite")
    return state
