"""The newest rows, searched exactly in memory: a float32 matrix and BM25 postings that grow row by row.

Every score that a search reports is defined here or in `lexical`, and computed one row at a time in a fixed order of
operations, so that a row scores the same, to the last bit, in the tail and in the LanceDB table. Ties are broken the
same way in both: the newest row (highest position) first.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memkit_storage.analyzer import analyze as _analyze
from memkit_storage.filters import Filter
from memkit_storage.lexical import K1, B, TermStats, bm25_scores, join, split, unique
from memkit_storage.rows import SCOPE_FIELDS, Row, Vector

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
Found = list[tuple[int, float]]  # (position, score), best first

_FIRST_CAPACITY = 256
_SPARSE = 4  # below one row in four, gathering the rows beats scoring all of them
_GARBAGE = 64  # removed rows that are tolerated before a compaction is worth its cost


def unit(vectors: Vector) -> Vector:
    """(n, d) float32 rows scaled to length one; rows of zeros stay zero. Vectors of a log are rounded to float16."""
    norms = np.sqrt(np.vecdot(vectors, vectors))
    norms[norms == 0] = 1
    return np.asarray(vectors / norms[:, None], np.float32)


def cosines(vectors: Vector, query: Vector) -> Vector:
    """(n,) cosines of unit rows (n, d) with a unit query (d,).

    `vecdot` and not `@`: a matrix product rounds a row differently depending on how many rows stand beside it, and
    its threads stall on a busy machine.
    """
    return np.asarray(np.vecdot(vectors, query), np.float32)


def best(scores: npt.NDArray[np.floating], positions: Positions, k: int) -> Found:
    """The k highest scores; among equals the highest positions."""
    if 0 < k < len(scores):
        keep = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        scores, positions = scores[keep], positions[keep]
    order = np.lexsort((-positions, -scores))[: max(k, 0)]
    return list(zip(positions[order].tolist(), scores[order].tolist(), strict=True))


class Passage(NamedTuple):
    """A living row as ranking sees it: its content (whose own vector may be left out), tokens, and unit vector (d,)."""

    row: Row
    tokens: list[str]
    vector: Vector

    @classmethod
    def of(cls, row: Row, tokens: list[str]) -> Passage:
        """The passage of a row with a vector as the log has it."""
        return cls(row, tokens, unit(row.vector[None])[0])


@dataclass(frozen=True, slots=True)
class Rows:
    """What is needed to score rows: positions (n,), unit vectors (n, d), and each row's tokens."""

    positions: Positions
    vectors: Vector
    tokens: list[list[str]]

    def __len__(self) -> int:
        return len(self.positions)

    def dense(self, query: Vector, k: int) -> Found:
        """As `Tail.dense`, over these rows."""
        if not query.any():
            return []
        directed = self.vectors.any(axis=1)
        scores = np.asarray(similarity(self.vectors[directed], query))
        return best(scores, self.positions[directed], k)

    def lexical(self, terms: Iterable[str], k: int, stats: TermStats) -> Found:
        """As `Tail.lexical`, over these rows."""
        scores = np.asarray(bm25_scores(terms, self.tokens, stats))
        return best(scores[scores > 0], self.positions[scores > 0], k)

    def score(
        self, positions: Sequence[int], query: Vector | None, terms: Sequence[str], stats: TermStats
    ) -> dict[int, tuple[float, float]]:
        """As `Tail.score`: position -> (cosine, BM25)."""
        slots = {position: slot for slot, position in enumerate(self.positions.tolist())}
        chosen = [slots[position] for position in positions]
        near = similarity(self.vectors[chosen], query)
        words = bm25_scores(terms, [self.tokens[slot] for slot in chosen], stats)
        return dict(zip(positions, zip(near, words, strict=True), strict=True))


class Tail:
    """Rows that are alive and not sealed yet. Not thread-safe: the owner's lock covers it.

    The tail keeps `stats` up to date for the rows it holds: a row is counted when it is analysed, which happens at
    the first lexical search after `add` (`settle`), and forgotten by `remove`. A row that `drop` hands over to the
    index stays counted.

    Args:
        dim: length of a vector.
        stats: statistics over all living rows, shared with the owner.
        analyze: text -> tokens without white space.
    """

    def __init__(self, dim: int, stats: TermStats, *, analyze: Callable[[str], list[str]] = _analyze) -> None:
        self._dim = dim
        self._stats = stats
        self._analyze = analyze
        self._codes: dict[str | None, int] = {None: 0}
        self._clear()

    def _clear(self, capacity: int = _FIRST_CAPACITY) -> None:
        self._size = 0  # slots in use, removed rows included
        self._ready = 0  # slots whose vectors are scaled
        self._settled = 0  # slots whose tokens are counted and posted
        self._slots: dict[int, int] = {}  # position -> slot, living rows only
        self._rows: list[Row | None] = []
        self._lex: list[str | None] = []  # tokens joined by blanks: a tenth of the memory of a list
        self._postings: dict[str, array[int]] = {}  # term -> slot, tf, slot, tf, ...
        self._matrix = np.zeros((capacity, self._dim), np.float32)
        self._positions = np.zeros(capacity, np.int64)
        self._length = np.zeros(capacity, np.float64)
        self._alive = np.zeros(capacity, np.bool_)
        self._directed = np.zeros(capacity, np.bool_)  # alive or not, the vector is not zero
        self._scopes = np.zeros((len(SCOPE_FIELDS), capacity), np.int32)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, position: int) -> bool:
        return position in self._slots

    @property
    def rows(self) -> Iterator[Row]:
        """Living rows in the order of their positions."""
        for position in sorted(self._slots):
            row = self._rows[self._slots[position]]
            assert row is not None
            yield row

    def tokens(self, position: int) -> list[str]:
        """Tokens of a living row."""
        self.settle()
        return split(self._lex[self._slots[position]] or "")

    # changes

    def add(self, row: Row, tokens: Sequence[str] | None = None) -> None:
        """Hold one more row, found by every search from now on.

        Args:
            row: its position is not in the tail yet.
            tokens: `analyze(row.searchable)`, if it is known already.
        """
        slot = self._size
        if slot == len(self._positions):
            self._grow(2 * slot)
        self._matrix[slot] = row.vector
        self._positions[slot] = row.position
        self._alive[slot] = True
        self._scopes[:, slot] = [self._codes.setdefault(value, len(self._codes)) for value in row.scope]
        self._rows.append(row)
        self._lex.append(None if tokens is None else join(tokens))
        self._slots[row.position] = slot
        self._size = slot + 1

    def _grow(self, capacity: int) -> None:
        for name in ("_matrix", "_positions", "_length", "_alive", "_directed"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: self._size] = old[: self._size]
            setattr(self, name, new)
        scopes = np.zeros((len(SCOPE_FIELDS), capacity), np.int32)
        scopes[:, : self._size] = self._scopes[:, : self._size]
        self._scopes = scopes

    def remove(self, position: int) -> bool:
        """Forget a row that was deleted or superseded. Returns whether it was here."""
        slot = self._slots.pop(position, None)
        if slot is None:
            return False
        if slot < self._settled:
            self._stats.remove(split(self._lex[slot] or ""))
        self._alive[slot] = False
        self._rows[slot] = self._lex[slot] = None
        if self._size - len(self._slots) > len(self._slots) + _GARBAGE:
            self._keep(-1)
        return True

    def drop(self, watermark: int) -> None:
        """Let go of rows up to this position: the index holds them now. Costs as much as the rows that stay."""
        self._keep(watermark)

    def _keep(self, watermark: int) -> None:
        """Start anew with the living rows above a position, without counting them again."""
        self.settle()
        slots = np.flatnonzero(self._alive[: self._size] & (self._positions[: self._size] > watermark))
        kept = [(self._rows[slot], split(self._lex[slot] or "")) for slot in slots.tolist()]
        self._clear(max(_FIRST_CAPACITY, 2 * len(kept)))
        for slot, (row, tokens) in enumerate(kept):
            assert row is not None
            self.add(row, tokens)
            self._post(slot, tokens)
        self._settled = self._size

    def settle(self) -> None:
        """Analyse and count the rows that came since the last time; `stats` is exact afterwards."""
        for slot in range(self._settled, self._size):
            row = self._rows[slot]
            if row is None:
                continue
            lex = self._lex[slot]
            tokens = self._analyze(row.searchable) if lex is None else split(lex)
            self._lex[slot] = join(tokens)
            self._stats.add(tokens)
            self._post(slot, tokens)
        self._settled = self._size

    def _post(self, slot: int, tokens: list[str]) -> None:
        self._length[slot] = len(tokens)
        for term, tf in Counter(tokens).items():
            postings = self._postings.get(term)
            if postings is None:
                postings = self._postings[term] = array("i")
            postings.extend((slot, tf))

    # searches

    def select(self, where: Filter | None) -> Mask | None:
        """Which rows a filter lets through, for `dense` and `lexical`; valid until the tail changes. None: all."""
        if where is None or not where.root.parts:
            return None
        mask, scope = self._alive[: self._size].copy(), where.scope()
        for field, value in scope.items():
            code = self._codes.get(value, -1)
            mask &= self._scopes[SCOPE_FIELDS.index(field), : self._size] == code
        if len(scope) == len(where.root.parts):  # nothing is left to ask of each row
            return mask
        for slot in np.flatnonzero(mask).tolist():
            row = self._rows[slot]
            mask[slot] = row is not None and where.matches(row)
        return mask

    def dense(self, query: Vector, k: int, allowed: Mask | None = None) -> Found:
        """The k rows nearest to a query (d,) by cosine. A zero query, and rows without a direction, find nothing."""
        direction = unit(query[None])[0]
        if not direction.any():
            return []
        self._scale()
        mask = self._alive[: self._size] & self._directed[: self._size]
        if allowed is not None:
            mask &= allowed
        slots = np.flatnonzero(mask)
        if len(slots) * _SPARSE < self._size:
            scores = cosines(self._matrix[slots], direction)
        else:
            scores = cosines(self._matrix[: self._size], direction)[slots]
        return best(scores, self._positions[slots], k)

    def _scale(self) -> None:
        fresh = slice(self._ready, self._size)
        self._matrix[fresh] = unit(self._matrix[fresh])
        self._directed[fresh] = self._matrix[fresh].any(axis=1)
        self._ready = self._size

    def lexical(self, terms: Iterable[str], k: int, allowed: Mask | None = None) -> Found:
        """The k rows with the highest BM25 score; rows without any of the terms are not found."""
        self.settle()
        scores = np.zeros(self._size)
        norm = K1 * (1 - B + B * self._length[: self._size] / self._stats.avgdl)
        for term in unique(terms):
            postings = self._postings.get(term)
            if postings is None:
                continue
            # a copy: a view would lock the array against `extend` for as long as it lives
            slots, tf = np.array(postings, np.int32).reshape(-1, 2).T
            scores[slots] += self._stats.idf(term) * (tf * (K1 + 1) / (tf + norm[slots]))  # a slot occurs once
        mask = (scores > 0) & self._alive[: self._size]
        if allowed is not None:
            mask &= allowed
        found = np.flatnonzero(mask)
        return best(scores[found], self._positions[found], k)

    def passages(self, positions: Sequence[int]) -> list[Passage]:
        """The living rows at these positions, as far as they are here."""
        self.settle()
        found = [(self._rows[self._slots[p]], self._lex[self._slots[p]]) for p in positions if p in self._slots]
        return [Passage.of(row, split(lex or "")) for row, lex in found if row is not None]

    def score(
        self, positions: Sequence[int], query: Vector | None, terms: Sequence[str]
    ) -> dict[int, tuple[float, float]]:
        """Both signals of living rows: position -> (cosine, BM25). Without a query the cosine is 0."""
        self.settle()
        self._scale()
        slots = [self._slots[position] for position in positions]
        near = similarity(self._matrix[slots], query)
        words = bm25_scores(terms, [split(self._lex[slot] or "") for slot in slots], self._stats)
        return dict(zip(positions, zip(near, words, strict=True), strict=True))


def similarity(vectors: Vector, query: Vector | None) -> list[float]:
    """Cosines of unit rows with a query of any length; zeros without one."""
    if query is None:
        return [0.0] * len(vectors)
    similar: list[float] = cosines(vectors, unit(query[None])[0]).tolist()
    return similar
