"""What a memory does when it is asked, and told what helped: the index, the fast tier and the packing together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from memkit.attribution import attribute, nearness
from memkit.evidence import NOTHING, abstains, confidence
from memkit.fast.feedback import KEPT, Feedback
from memkit.fast.tier import FastTier
from memkit.items import Hit, Recall
from memkit.packing import Order, pack
from memkit.ranking import Mode
from memkit.recall import RERANKED, Asked, Pool, candidates, collapsed, expanded, fused, hits, reranked, single
from memkit.vectors import FileVectors
from memkit.writing import check_id
from memkit_storage.errors import InvalidInput, ItemNotFound
from memkit_storage.filters import Filter
from memkit_storage.index import Index
from memkit_storage.log import now_us
from memkit_storage.store import Store

SHOWN = 10  # candidates that a feedback takes for seen
RECALLED = 30  # hits that a context is packed from
OBSERVED = 0.5  # weight of what an answer shows, against what a person says
Scope = Mapping[str, str]


class Finder:
    """Searches, recalls and learns for one memory, or for one of its past views.

    Args:
        as_of: time (µs) of a past view, None for the present.
    """

    def __init__(
        self, store: Store, vectors: FileVectors, index: Index, fast: FastTier, as_of: int | None = None
    ) -> None:
        self._store, self._vectors, self._fast = store, vectors, fast
        self._index = index if as_of is None else index.past(as_of)
        self._as_of = as_of

    def search(
        self,
        queries: list[str],
        where: Filter,
        scope: Scope,
        *,
        limit: int,
        mode: Mode,
        explain: bool,
        rerank: Any,
        distinct: str | None,
    ) -> list[Hit]:
        """The best items, best first; of those with the same value of the metadata key `distinct` only the best."""
        wide = limit
        while True:
            found = self._best(queries, where, scope, limit=wide, mode=mode, explain=explain, rerank=rerank)
            if distinct is None:
                return found
            kept = collapsed(found, distinct)
            if len(kept) >= limit or len(found) < wide:
                return kept[:limit]
            wide *= 4

    def _best(
        self, queries: list[str], where: Filter, scope: Scope, *, limit: int, mode: Mode, explain: bool, rerank: Any
    ) -> list[Hit]:
        if mode != "hybrid":
            vector = None if mode == "text" else self._vector(queries[0])
            return single(self._index, queries[0], vector, limit=limit, where=where, mode=mode)
        wide = max(limit, RERANKED) if rerank is not None else limit
        pool, asked = self._pool(queries, where, scope, wide)
        found = hits(pool, asked, limit=wide, explain=explain)
        return (found if rerank is None else reranked(queries[0], found, rerank))[:limit]

    def recall(
        self,
        queries: list[str],
        where: Filter,
        scope: Scope,
        *,
        max_tokens: int,
        order: Order,
        count: Callable[[str], int],
        rerank: Any,
        expand: Callable[[str], Sequence[str]] | None,
    ) -> Recall:
        """What memory holds on a query, as text."""
        asked_for = list(dict.fromkeys(one for query in queries for one in expanded(query, expand)))
        pool, asked = self._pool(asked_for, where, scope, RECALLED)
        found = hits(pool, asked, limit=RECALLED)
        if rerank is not None:
            found = reranked(queries[0], found, rerank)
        sure = confidence(pool, found, scope.values())
        evidence = [] if abstains(sure) else found
        vectors = {p: passage.vector for p, passage in self._index.passages([hit.position for hit in evidence]).items()}
        packed = pack(
            evidence, max_tokens=max_tokens, vectors=vectors, neighbours=self._beside, order=order, count=count
        )
        recall = Recall(
            query=queries[0],
            text=packed.text or NOTHING,
            hits=packed.hits,
            citations=packed.citations,
            tokens=packed.tokens,
            confidence=sure,
            abstained=not evidence,
        )
        return recall.bound(pool, dict(scope), self)

    def _vector(self, query: str) -> Any:
        self._store.refresh()
        return self._vectors.query(query)

    def _pool(self, queries: Sequence[str], where: Filter, scope: Scope, limit: int) -> tuple[Pool, Asked]:
        """Candidates for all queries together, and the first of them as it was asked."""
        self._store.refresh()
        learned, now = self._fast.learned(scope, self._as_of), now_us() if self._as_of is None else self._as_of
        asked = [Asked(text, self._vectors.query(text), where, learned, now) for text in queries]
        return fused([candidates(self._index, one, limit) for one in asked]), asked[0]

    # learning

    def feedback(
        self,
        recall: Recall | None,
        query: str,
        allowed: Filter,
        scope: Scope,
        *,
        used: Sequence[str],
        wrong: Sequence[str],
        weight: float,
        source: str | None,
        trusted: bool,
    ) -> None:
        """Log what helped and what misled, and learn from it."""
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:
            raise InvalidInput(f"weight={weight!r}: the weight of a feedback is above 0 and at most 1")
        helped, misled = self._named(used, wrong, allowed)
        pool = recall.pool if recall is not None and recall.pool is not None else None
        if pool is None:
            pool, _ = self._pool([query], allowed, scope, KEPT)
        kept = self._shown(pool, helped)
        familiar, again = self._again(pool, allowed, helped, misled)
        self._fast.record(
            Feedback(
                time_us=now_us(),
                query=query,
                vector=self._vectors.query(query),
                scope=scope,
                used=helped,
                wrong=misled,
                shown=tuple(pool.rows[position].id for position in pool.positions[:SHOWN].tolist()),
                signals=pool.signals[kept],
                labels=self._labels(pool.positions[kept], helped, misled),
                weight=float(weight),
                source=source,
                trusted=trusted,
                familiar=familiar,
                again=again,
            )
        )

    def observe(self, recall: Recall, answer: str) -> dict[str, float]:
        """Attribute an answer to the items of a recall, and learn from it as far as that is sure."""
        if not isinstance(answer, str) or not answer.strip():
            raise InvalidInput(f"answer={answer!r}: pass what was answered")
        passages = self._index.passages([hit.position for hit in recall.hits])
        near = nearness(self._vector(answer), {p: passage.vector for p, passage in passages.items()}, recall.hits)
        used = attribute(answer, recall.query, recall.hits, citations=recall.citations, near=near)
        there = {id_: sure for id_, sure in used.items() if self._store.get(id_) is not None}
        if there and self._as_of is None:
            self.feedback(
                recall,
                recall.query,
                Filter.parse(recall.scope),
                recall.scope,
                used=list(there),
                wrong=(),
                weight=OBSERVED * min(there.values()),
                source="observe",
                trusted=True,
            )
        return there

    def _named(
        self, used: Sequence[str], wrong: Sequence[str], allowed: Filter
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The ids of a feedback, checked."""
        helped, misled = (tuple(dict.fromkeys(map(check_id, some))) for some in (used, wrong))
        if not helped and not misled:
            raise InvalidInput("feedback without used= or wrong=; name at least one item id")
        both = sorted(set(helped) & set(misled))
        if both:
            raise InvalidInput(f"items {both} are both used and wrong; name each once")
        self._store.refresh()
        for id_ in (*helped, *misled):
            row = self._store.get(id_)
            if row is None or not allowed.matches(row):
                raise ItemNotFound(f"no item {id_!r} here to give feedback on; pass ids of hits in this scope")
        return helped, misled

    def _again(
        self, pool: Pool, allowed: Filter, helped: Sequence[str], misled: Sequence[str]
    ) -> tuple[float | None, bool]:
        """How near the nearest past need was, and whether it was asked again; None where this cannot tell."""
        z, nearest = pool.remembered.z, pool.remembered.nearest
        rows = [self._store.get(id_) for id_ in nearest]
        judged = helped or not set(nearest).isdisjoint(misled)
        if not judged or not any(row is not None and allowed.matches(row) for row in rows):
            return None, False
        return z, not set(nearest).isdisjoint(helped)

    def _shown(self, pool: Pool, helped: Sequence[str]) -> Any:
        """Which candidates are kept for learning: the best, and those that helped."""
        mine = np.isin(pool.positions, list(self._index.positions(dict.fromkeys(helped, 1.0))))
        rest = np.flatnonzero(~mine)[: max(0, KEPT - int(mine.sum()))]
        return np.sort(np.concatenate([np.flatnonzero(mine)[:KEPT], rest]))

    def _labels(self, positions: Any, helped: Sequence[str], misled: Sequence[str]) -> Any:
        labels = np.zeros(len(positions), np.int8)
        for ids, label in ((helped, 1), (misled, -1)):
            labels[np.isin(positions, list(self._index.positions(dict.fromkeys(ids, 1.0))))] = label
        return labels

    def _beside(self, hit: Hit, step: int) -> Hit | None:
        """The item before (-1) or after (1) a hit in its scope and run."""
        near = self._index.around([hit.position], 1).get(hit.position)
        place = None if near is None else near.at + step
        if near is None or place is None or not 0 <= place < len(near.positions):
            return None
        position = int(near.positions[place])
        row = self._index.rows([position]).get(position)
        return None if row is None else Hit.from_row(row, score=0.0, signals={})
