"""The query adapter: what feedback teaches about a user's own words.

Whoever asks for "Ana's anchor" and then uses "Ana lives in Lisbon" says something about the word "anchor", and nothing
that lasts about Ana or Lisbon. So the adapter does not learn where the used item is, but in which direction it differs
from the items that were shown beside it: those are about Ana too. A linear map W from queries to such differences,
fitted by least squares to all feedback, keeps what many queries have in common, the word, and averages the rest away.

    k = (q - mean) / |q - mean|                              mean: of the items in feedback
    e = (target - mean of wrong) - W k, no longer than CLIP  Huber's loss [1]: an outlier pulls no harder than CLIP
    W, P <- recursive least squares [2], started at W = 0, P = I (ridge regression with RIDGE)
    s = 1 - k' P k                                           leverage: how much of k was in past queries, in [0, 1]
    q' = (q + g(s) W k / s) / |...|                          the shrinkage of ridge regression is undone by 1 / s

The gate g opens where s reaches what queries of this user usually have when they come in (`usual`): it is closed for
a query that has little in common with any that got feedback, and then q' is q, bit for bit.

[1] P. J. Huber, Robust Estimation of a Location Parameter (1964); as a write rule: Miras (arXiv 2504.13173), Yaad.
[2] S. Haykin, Adaptive Filter Theory, table 10.1; here `memkit.fast.rules.rls_naive`, one step with lam = 1.

axes: d dimension of vectors · n items
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RIDGE = 1.0  # feedbacks of one direction at which half of it is believed
CLIP = 1.0
OPEN = (0.55, 0.75)  # shares of `usual` at which the gate begins to open, and is open
LEAST = 0.1  # support below which a query is never adapted
PATIENCE = 10.0  # feedbacks that `usual` is an average over
FIRST = 20.0  # item vectors that the mean counts as zero before it has seen any


class AdapterState(NamedTuple):
    """What feedback has taught; float32, 1.2 MB at d = 384, however much was learned.

    Attributes:
        weights: W, (d, d), from centred queries to displacements.
        covariance: P, (d, d), symmetric, identity at first; in units of 1 / RIDGE.
        mean: (d,) of the item vectors in feedback.
        items: () how many those were.
        usual: () support that queries had before they were learned from, averaged.
        learned: () feedbacks, the older ones counted less (by PATIENCE).
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
