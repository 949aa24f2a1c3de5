"""How the signals of a candidate become one score.

The score is linear in the signals (`memkit.signals`): total = weights . signals. The weights that memkit starts with,
PRIOR, were fitted once by listwise softmax with ridge, to LoCoMo chats, BEAM user/assistant logs, Natural Questions
passages and made-up single facts, with equal say; they were rounded, and are the same for every file. Run
`python -m benchmarks.recall.prior` to fit them again and to see what each kind alone would choose. What feedback
teaches moves them, for one file and one family of scopes (`memkit.fast.ranker`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from memkit.signals import NAMES
from memkit_storage.index import Found, Match
from memkit_storage.lexical import K1

Mode = Literal["hybrid", "vector", "text"]
Floats = npt.NDArray[np.float64]

PRIOR = {
    "words": 0.0,
    "words_near": 0.13,
    "coverage": 0.4,
    "coverage_near": 2.5,
    "phrase": 0.7,
    "meaning": 0.7,
    "meaning_white": 0.0,
    "meaning_near": 0.5,
    "session_words": 0.33,
    "session_meaning": 0.12,
    "brevity": 1.4,
    "question": -0.4,
    "reply": 0.17,
    "speaker": 0.2,
    "role": 1.0,
    "when": 1.3,
    "number": 1.0,
    "time": 1.0,
    "recency": 0.0,
    "importance": 0.5,
    "novelty": 1.0,
    "adapted": 2.0,
    "needs": 5.0,
}
EVEN = 5.0  # total at which a hit scores 0.5
WIDTH = 3.0  # total by which the odds of a score grow e-fold


@dataclass(frozen=True, slots=True)
class Weights:
    """One weight a signal, (len(NAMES),)."""

    values: Floats

    def totals(self, signals: Floats) -> Floats:
        """(n,) totals of (n, len(NAMES)) signals."""
        return np.asarray(signals @ self.values, np.float64)

    def shown(self, signals: Floats, *, explain: bool) -> dict[str, float]:
        """A hit's signals by name; to explain, also what each is weighted by."""
        named = dict(zip(NAMES, signals.tolist(), strict=True))
        if explain:
            named |= {f"{name}_weight": value for name, value in zip(NAMES, self.values.tolist(), strict=True)}
        return named


def prior() -> Weights:
    """The weights without any feedback."""
    return Weights(np.array([PRIOR[name] for name in NAMES]))


def score(total: float) -> float:
    """A total as a number in [0, 1], for people; whether there is evidence at all, `memkit.evidence` tells."""
    return 1 / (1 + math.exp(-min(max((total - EVEN) / WIDTH, -700), 700)))


@dataclass(frozen=True, slots=True)
class Single:
    """A candidate ranked by one signal."""

    position: int
    score: float
    signals: dict[str, float]


def rank_single(found: Found, mode: Mode) -> list[Single]:
    """Matches by words alone ("text": BM25 as a share of what no item can exceed) or by meaning alone ("vector":
    cosine, floored at 0), best first; of equals the newer one first."""
    bound = sum((K1 + 1) * _idf(found.items, df) for df in found.frequencies.values() if df)

    def ranked(match: Match) -> tuple[float, int]:
        return (match.dense if mode == "vector" else match.lexical), match.position

    def single(match: Match) -> Single:
        if mode == "vector":
            return Single(match.position, min(max(match.dense, 0.0), 1.0), {"meaning": match.dense})
        return Single(match.position, min(match.lexical / bound, 1.0) if bound else 0.0, {"words": match.lexical})

    return [single(match) for match in sorted(found.matches, key=ranked, reverse=True)]


def _idf(items: int, df: int) -> float:
    return math.log(1 + (items - df + 0.5) / (df + 0.5))
