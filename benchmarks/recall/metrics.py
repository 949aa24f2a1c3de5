"""What a ranking is worth, question by question, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

METRICS = ("R@1", "R@5", "R@10", "R@20", "all@10", "MRR", "NDCG@10")
DRAWS = 2_000


def measure(ranked: Sequence[str], gold: Sequence[str]) -> list[float]:
    """METRICS of one question, in per cent: ids as ranked, and the ids that answer it (at least one)."""
    wanted = set(gold)
    right = [id_ in wanted for id_ in ranked]
    first = next((place for place, found in enumerate(right, 1) if found), math.inf)
    gain = sum(1 / math.log2(place + 1) for place, found in enumerate(right[:10], 1) if found)
    best = sum(1 / math.log2(place + 1) for place in range(1, min(10, len(wanted)) + 1))
    shares = [sum(right[:k]) / len(wanted) for k in (1, 5, 10, 20)]
    return [100 * value for value in (*shares, float(sum(right[:10]) == len(wanted)), 1 / first, gain / best)]


def interval(values: Floats, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean over questions (n,)."""
    if not len(values):
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive scores above a negative one; ties count half."""
    if not positive or not negative:
        return math.nan
    ordered = np.sort(np.asarray(negative, np.float64))
    scores = np.asarray(positive, np.float64)
    below, upto = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    return float(((below + upto) / 2).mean() / len(ordered))
