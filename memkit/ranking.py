"""Two signals of a candidate become one score: how surprising is this match, were the item unrelated?

BM25 and cosine have no common unit, and which of them to trust differs from file to file and from question to
question. Here each is compared with what the same query scores on the file's items at large, and read as a
surprisal in nats, -ln P(an unrelated item scores as much):

    lexical   BM25 of unrelated items falls off like an exponential:  sqrt(2) * bm25 / rms
    dense     cosines with unrelated items are bell-shaped:           -ln Q((cosine - mean) / std)
    hybrid    their sum, as Fisher combines independent tests [1];    score = sum / (sum + ln(1 + items))

Q is the upper tail of the standard normal. Nothing is fitted and there is no weight to set. A query of common words
has a large rms and so leans on meaning; rare words, or a flat field of cosines, make it lean on words. An embedder
whose cosines all lie between 0.7 and 0.9 ranks as one that uses the whole range: shifting and scaling cosines
changes nothing. ln(items) is about the surprise that the best of so many unrelated items reaches by chance: a
best score below 0.5 is no evidence, but the score is no probability, and one above 0.5 is no proof. Questions
about another LoCoMo conversation reach 0.63 in the median, those about the same one 0.67.

A score depends on the candidate, the query and statistics of the whole file, never on the other candidates.

Measured with `python -m benchmarks.retrieval --beam --nq` (MiniLM; recall@10 and MRR in per cent, and the
paired difference of hybrid to the better single signal in recall@10 with its 95 % bootstrap interval):

                        text         vector       hybrid       difference
    LoCoMo  (997)    58.8  42.1    45.4  26.7   66.0  43.6   +7.1 [+5.0, +9.3]
    BEAM    (144)    43.6  37.6    55.1  46.5   54.8  52.3   -0.3 [-4.5, +4.0]
    NQ    (1,327)    88.6  77.6    95.9  88.7   96.6  89.4   +0.7 [+0.1, +1.4]

The price is the first place on LoCoMo, where words are right more often: R@1 28.6 to text's 29.8. Weighting the
lexical surprisal by 0.7 or 1.5 moves recall@10 by 2.1 points at most on each of the three.

[1] R. A. Fisher, Statistical Methods for Research Workers (1932), section 21.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from memkit_storage.lexical import K1

Mode = Literal["hybrid", "vector", "text"]

# Vectors are stored as float16: a spread of cosines below this is rounding, as when all items are the same text.
_MIN_STD = 1e-3
_FAR = 25.0  # standard deviations past which erfc comes near the smallest double


class Candidate(Protocol):
    """What a search found, with both signals known exactly."""

    @property
    def position(self) -> int:
        """Of the version in the log."""

    @property
    def lexical(self) -> float:
        """BM25, >= 0."""

    @property
    def dense(self) -> float:
        """Cosine with the query, -1 to 1."""


@dataclass(frozen=True, slots=True)
class Background:
    """What one query scores on the items of the file at large.

    Attributes:
        items: living items of the file, whatever the search is filtered to.
        lexical_rms: root mean square of BM25 over them; 0 if no item holds a term of the query.
        lexical_bound: the BM25 that no item can exceed; 0 likewise.
        dense_mean: mean cosine with the query.
        dense_std: standard deviation of the cosines.
    """

    items: int
    lexical_rms: float
    lexical_bound: float
    dense_mean: float = 0.0
    dense_std: float = 0.0

    @classmethod
    def of(
        cls, items: int, frequencies: Iterable[int], *, dense_mean: float = 0.0, dense_std: float = 0.0
    ) -> Background:
        """The background of a query, its lexical part from document frequencies alone.

        A term that stands in a share p of the items adds about its idf to their BM25. Terms taken as independent,
        the mean is sum(p * idf) and the variance sum(p * (1 - p) * idf**2): within 7 % of the true rms on LoCoMo,
        30 % below it on texts of 2 kB, where a term stands several times; rankings were as good with either.

        Args:
            items: living items of the file.
            frequencies: of each distinct query term, how many items hold it; terms of no item do not count.
            dense_mean: mean cosine of the query with the items, or with a few hundred of them.
            dense_std: their standard deviation.
        """
        mean = variance = bound = 0.0
        for df in filter(None, frequencies):
            idf, share = math.log(1 + (items - df + 0.5) / (df + 0.5)), df / items
            mean += share * idf
            variance += share * (1 - share) * idf**2
            bound += idf * (K1 + 1)
        return cls(items, math.sqrt(mean**2 + variance), bound, dense_mean, dense_std)


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate with its score in [0, 1] and the part that each signal has in it; the parts add up to it."""

    position: int
    score: float
    lexical: float
    dense: float
    lexical_part: float
    dense_part: float

    @property
    def signals(self) -> dict[str, float]:
        """The signals as they were measured: BM25 and cosine."""
        return {"lexical": self.lexical, "dense": self.dense}

    def explained(self) -> dict[str, float]:
        """The signals, and what each contributed to the score."""
        return self.signals | {"lexical_part": self.lexical_part, "dense_part": self.dense_part}


def rank(candidates: Sequence[Candidate], *, mode: Mode, background: Background) -> list[Scored]:
    """Candidates as scored items, best first; of equals the newer one first.

    Args:
        candidates: in any order.
        mode: "hybrid" scores as described above; "vector" by the cosine, floored at 0; "text" by BM25 as a
            share of `background.lexical_bound`.
        background: of the query that the candidates were found by.
    """
    score = {"hybrid": _hybrid, "vector": _vector, "text": _text}[mode]
    ranked = [score(one, background) for one in candidates]
    return [scored for _, scored in sorted(ranked, key=lambda pair: (-pair[0], -pair[1].position))]


# Each returns what to sort by, because a score hides differences at its bounds, and the scored item.


def _hybrid(one: Candidate, background: Background) -> tuple[float, Scored]:
    said, meant = lexical_surprisal(one.lexical, background), dense_surprisal(one.dense, background)
    total = said + meant
    if not total:
        return 0.0, Scored(one.position, 0.0, one.lexical, one.dense, 0.0, 0.0)
    # total / (total + chance), in an order of operations that rounding cannot make decrease
    score = 1 / (1 + math.log1p(background.items) / total)
    parts = score * (said / total), score * (meant / total)
    return total, Scored(one.position, score, one.lexical, one.dense, *parts)


def _vector(one: Candidate, _: Background) -> tuple[float, Scored]:
    score = min(max(one.dense, 0.0), 1.0)
    return one.dense, Scored(one.position, score, one.lexical, one.dense, 0.0, score)


def _text(one: Candidate, background: Background) -> tuple[float, Scored]:
    bound = background.lexical_bound
    score = min(one.lexical / bound, 1.0) if bound else 0.0
    return one.lexical, Scored(one.position, score, one.lexical, one.dense, score, 0.0)


def lexical_surprisal(bm25: float, background: Background) -> float:
    """Nats of surprise at such a BM25 for an unrelated item: the tail of the exponential of this rms.

    >>> round(lexical_surprisal(6.0, Background(600, lexical_rms=2.0, lexical_bound=40.0)), 2)
    4.24
    """
    return math.sqrt(2) * bm25 / background.lexical_rms if background.lexical_rms else 0.0


def dense_surprisal(cosine: float, background: Background) -> float:
    """Nats of surprise at such a cosine for an unrelated item: the upper tail of the normal.

    >>> round(dense_surprisal(0.6, Background(600, 2.0, 40.0, dense_mean=0.2, dense_std=0.1)), 2)
    10.36
    """
    z = (cosine - background.dense_mean) / max(background.dense_std, _MIN_STD)
    if z < 0:
        return -math.log1p(-0.5 * math.erfc(-z / math.sqrt(2)))
    if z < _FAR:
        return -math.log(0.5 * math.erfc(z / math.sqrt(2)))
    return z**2 / 2 + math.log(z * math.sqrt(2 * math.pi))
