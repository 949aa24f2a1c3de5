"""From a query to the items that fit it: candidates from the index, their signals, one order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from memkit.background import Background
from memkit.fast.familiarity import lift
from memkit.fast.family import NOTHING, FamilyState, Remembered
from memkit.items import Hit
from memkit.ranking import Mode, Weights, prior, rank_single, score
from memkit.signals import NAMES, Query, Window, measure
from memkit_storage.errors import CallableFailed
from memkit_storage.filters import Filter
from memkit_storage.index import Found, Index
from memkit_storage.rows import Row, Vector
from memkit_storage.sample import Sample
from memkit_storage.timeline import Around

Floats = npt.NDArray[np.float64]
Rerank = Callable[[str, list[str]], Sequence[float]]

CANDIDATES = 30  # of each signal; 30 and 50 rank alike on every benchmark (docs/benchmarks.md)
FIRST = 20  # of them, by what they say alone, are looked at with their neighbours
REACH = 2  # neighbours to each side that become candidates too
RERANKED = 30  # hits that a reranker is shown
ADAPTED = 10  # candidates that a query in the user's own words adds
_NEEDS = NAMES.index("needs")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched for: text and vector (d,), which items may be found, who has learned what, and now (µs)."""

    text: str
    vector: Vector
    where: Filter
    learned: FamilyState | None
    now_us: int

    @property
    def weights(self) -> Weights:
        """Of the signals, for this family of scopes."""
        return prior() if self.learned is None else self.learned.weights

    @property
    def memory(self) -> float:
        """How far the memory of past needs is believed, in [0, 1]."""
        return 0.0 if self.learned is None else self.learned.memory


@dataclass(frozen=True, slots=True)
class Pool:
    """Ranked candidates: positions (n,), signals (n, len(NAMES)) and totals (n,), best first.

    `rows` is what they say, by position, `query` what they were measured with, `known` those of its terms that some
    item holds, `items` how many items the file has, `remembered` what past needs said.
    """

    positions: npt.NDArray[np.int64]
    signals: Floats
    totals: Floats
    rows: Mapping[int, Row] = field(default_factory=dict)
    query: Query | None = None
    known: frozenset[str] = frozenset()
    items: int = 0
    remembered: Remembered = NOTHING

    def ranked(self) -> Pool:
        """In order; of equals the newer one first."""
        order = np.lexsort((-self.positions, -self.totals))
        return replace(self, positions=self.positions[order], signals=self.signals[order], totals=self.totals[order])


def candidates(index: Index, asked: Asked, limit: int) -> Pool:
    """Everything that may be an answer, ranked by all signals and by what was learned."""
    meant = _meant(asked)
    also = None if meant is None else (meant, ADAPTED)
    found = index.search(asked.vector, asked.text, max(CANDIDATES, 3 * limit), asked.where, also=also)
    remembered = NOTHING if asked.learned is None else asked.learned.remembered(asked.vector, background(found.sample))
    bonus = index.positions(remembered.bonus)
    best = list(dict.fromkeys([*_promising(found, max(FIRST, limit)), *bonus, *found.also]))
    if not best:
        return Pool(np.zeros(0, np.int64), np.zeros((0, len(NAMES))), np.zeros(0), remembered=remembered)
    around = index.around(best, REACH + 1)
    query = Query.of(asked.text, asked.vector, found, asked.now_us, meant=meant)
    rows, positions, signals = _measured(index, query, found, best, around)
    signals[:, _NEEDS] = [bonus.get(position, 0.0) for position in positions.tolist()]
    near = {position for one in around.values() for position in _close(one)}
    keep = _among(positions.tolist(), near.union(best))
    positions, signals = positions[keep], signals[keep]
    totals = lift(asked.weights.totals(signals), signals[:, _NEEDS] * asked.memory)
    known = frozenset(term for term, df in found.frequencies.items() if df)
    return Pool(positions, signals, totals, rows, query, known, found.items, remembered).ranked()


def _measured(
    index: Index, query: Query, found: Found, best: list[int], around: Mapping[int, Around]
) -> tuple[dict[int, Row], npt.NDArray[np.int64], Floats]:
    """Rows, positions and signals of the best matches and of everything near them."""
    wanted = dict.fromkeys([*best, *(p for near in around.values() for p in near.positions.tolist())])
    known = index.passages(list(wanted))
    positions = [position for position in wanted if position in known]
    signals = measure(
        query,
        [known[position] for position in positions],
        Window.of(positions, around),
        background(found.sample),
        length=found.length,
        items=found.items,
        matched=_among(positions, set(best)),
    )
    return {position: known[position].row for position in positions}, np.array(positions, np.int64), signals


def _among(positions: Sequence[int], chosen: Collection[int]) -> npt.NDArray[np.bool_]:
    """Which positions are in a set; `np.isin` takes four times as long for a hundred."""
    return np.array([position in chosen for position in positions], np.bool_)


@lru_cache(maxsize=4)
def background(sample: Sample) -> Background:
    """The yardstick of a sample; made once."""
    return Background.of(sample)


def _meant(asked: Asked) -> Vector | None:
    """The query in the file's words, if that differs."""
    meant, support = (None, False) if asked.learned is None else asked.learned.adapted(asked.vector)
    return meant if support else None


def _close(near: Around) -> list[int]:
    close: list[int] = near.positions[max(0, near.at - REACH) : near.at + REACH + 1].tolist()
    return close


def _promising(found: Found, count: int) -> list[int]:
    """Positions of the matches that say most by themselves, words and meaning equally trusted."""
    words = np.array([match.lexical for match in found.matches])
    meaning = np.array([match.dense for match in found.matches])
    positions = np.array([match.position for match in found.matches], np.int64)
    order = np.lexsort((-positions, -(_standard(words) + _standard(meaning))))[:count]
    best: list[int] = positions[order].tolist()
    return best


def _standard(values: Floats) -> Floats:
    return (values - values.mean()) / (values.std() or 1.0) if len(values) else values


def fused(pools: Sequence[Pool]) -> Pool:
    """One pool of several queries: each candidate as the query that it fits best ranks it."""
    if len(pools) == 1:
        return pools[0]
    positions = np.concatenate([pool.positions for pool in pools])
    totals = np.concatenate([pool.totals for pool in pools])
    order = np.lexsort((-positions, -totals))
    _, first = np.unique(positions[order], return_index=True)
    chosen = order[first]
    signals = np.concatenate([pool.signals for pool in pools])
    rows = {position: row for pool in pools for position, row in pool.rows.items()}
    best = replace(pools[0], positions=positions[chosen], signals=signals[chosen], totals=totals[chosen], rows=rows)
    return best.ranked()


def hits(pool: Pool, asked: Asked, *, limit: int, explain: bool = False) -> list[Hit]:
    """The first `limit` candidates that the filter lets through."""
    found: list[Hit] = []
    for i, position in enumerate(pool.positions.tolist()):
        if len(found) == limit:
            break
        if asked.where.matches(pool.rows[position]):
            shown = asked.weights.shown(pool.signals[i], explain=explain)
            found.append(Hit.from_row(pool.rows[position], score=score(float(pool.totals[i])), signals=shown))
    return found


def single(index: Index, query: str, vector: Vector | None, *, limit: int, where: Filter, mode: Mode) -> list[Hit]:
    """The best items by one signal alone: "text" or "vector"."""
    found = index.search(vector, query, max(CANDIDATES, limit), where)
    best = rank_single(found, mode)[:limit]
    rows = index.rows([one.position for one in best])
    known = [one for one in best if one.position in rows]
    return [Hit.from_row(rows[one.position], score=one.score, signals=one.signals) for one in known]


def collapsed(found: Sequence[Hit], key: str) -> list[Hit]:
    """The best hit of each value that a metadata key has; hits without the key, each for itself."""
    kept: dict[Any, Hit] = {}
    for hit in found:
        value = hit.metadata.get(key)
        kept.setdefault(hit.id if value is None else (key, repr(value)), hit)
    return list(kept.values())


def reranked(query: str, found: list[Hit], rerank: Any) -> list[Hit]:
    """Hits in the order that a reranker gives them; its number becomes the signal `rerank`.

    Args:
        rerank: callable (query, texts) -> one number a text, or a sentence-transformers CrossEncoder.

    Raises:
        CallableFailed: it raised, or did not return one finite number for each text.
    """
    if not found:
        return found
    texts = [hit.text for hit in found]
    try:
        pairs = hasattr(rerank, "predict")
        raw = rerank.predict([(query, text) for text in texts]) if pairs else rerank(query, texts)
        numbers = np.asarray(raw, np.float64)
    except Exception as error:
        raise CallableFailed(f"rerank raised {type(error).__name__}: {error}; search without it, or mend it") from error
    if numbers.shape != (len(texts),) or not np.isfinite(numbers).all():
        raise CallableFailed(f"rerank returned {raw!r} for {len(texts)} texts; one finite number for each is needed")
    order = np.argsort(-numbers, kind="stable").tolist()
    return [found[i].model_copy(update={"signals": {**found[i].signals, "rerank": float(numbers[i])}}) for i in order]


def expanded(query: str, expand: Callable[[str], Sequence[str]] | None) -> list[str]:
    """A query and what `expand` makes of it.

    Raises:
        CallableFailed: it raised, or returned anything but texts.
    """
    if expand is None:
        return [query]
    try:
        more = list(expand(query))
    except Exception as error:
        raise CallableFailed(f"expand raised {type(error).__name__}: {error}; recall without it, or mend it") from error
    if not all(isinstance(one, str) and one.strip() for one in more):
        raise CallableFailed(f"expand returned {more!r}; a list of queries is needed")
    return list(dict.fromkeys([query, *more]))
