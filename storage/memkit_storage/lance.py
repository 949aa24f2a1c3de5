"""The sealed rows: a LanceDB table in a cache directory, derived from the log and disposable.

Lance neither syncs nor checksums what it writes. Here every file is synced and listed with its checksum (`cache`),
and what a row says is kept beside the table with a checksum of its own (`segments`). What does not fit is a `None` at
opening or an `IndexDamaged` at searching, never an answer.

A `LanceIndex` stays at its version while a newer one is being sealed. Scores are not LanceDB's: it proposes
candidates, which are scored as in the tail.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from memkit_storage.cache import (
    SEGMENT,
    IndexBusy,
    IndexDamaged,
    IndexKey,
    State,
    free_name,
    intact,
    listing,
    read_state,
    write_state,
    writing,
)
from memkit_storage.filters import Filter
from memkit_storage.lance_table import build, extend, lancedb, open_table, reader_of
from memkit_storage.lexical import TermStats, join, split, unique
from memkit_storage.rows import Row, Vector
from memkit_storage.segments import Record, Segments, write
from memkit_storage.tail import Found, Passage, Positions, Rows, unit

NPROBES = 50
REFINED = 128  # candidates whose vectors are compared exactly, and not fewer than three for each that is asked for
_LEAST = 32  # candidates asked for at least
_FEW = 128  # rows that a filter leaves: all of them are read, in one query instead of two
_TIES = 512  # candidates, from which on it does not matter which of equal rows stand at the cut
_DRIFT = 1.001  # float32, and what LanceDB's own statistics are behind by
_SPARE = 1.25  # records for each row of the table, from which on those of rows that have ended are left behind
_SEGMENTS = 16  # files of records, which stay open, until they become one


def available() -> bool:
    """Whether lancedb is installed. It is not imported: that takes more than a second."""
    try:
        version("lancedb")
    except PackageNotFoundError:
        return False
    return True


class LanceIndex:
    """Sealed rows at one version of the table. Searches may run in several threads at once."""

    def __init__(self, root: Path, state: State, table: Any) -> None:
        self._root = root
        self._state = state
        self._table = table
        self._queries = table._table  # the asynchronous one that it wraps
        self._segments = Segments([root / name for name in state.segments])

    @classmethod
    def open(cls, root: Path, key: IndexKey) -> LanceIndex | None:
        """The index that was sealed last; None when it is missing, made from something else, or damaged."""
        while True:
            state = read_state(root)
            if state is None or state.key != key or not available() or state.lancedb != version("lancedb"):
                return None
            # Lance raises RuntimeError, ValueError, OSError and Arrow's errors alike
            with suppress(Exception):
                if intact(root, state.files, deep=False):
                    table = open_table(root, state)
                    if table.count_rows() == state.rows:
                        return cls(root, state, table)
            if read_state(root) == state:  # otherwise another process has sealed meanwhile
                return None

    @classmethod
    def seal(  # noqa: PLR0917 - what is sealed, then how it is marked
        cls,
        root: Path,
        key: IndexKey,
        before: LanceIndex | None,
        rows: Sequence[Row],
        tokens: Sequence[Sequence[str]],
        dead: Collection[int] = (),
        *,
        watermark: int,
        chain: str,
        stats: TermStats,
    ) -> LanceIndex:
        """Add rows to an index and take dead ones out, or build one anew; `before` goes on serving its version.

        Args:
            root: the directory of this index alone.
            key: what the rows were made from.
            before: the index that is continued; None to build, from at least one row.
            rows: with vectors that are exact in float16.
            tokens: of each row; none is empty or holds white space.
            dead: positions in `before` that have ended.
            watermark: log position up to which the new index holds exactly the living rows.
            chain: hash of the log at the watermark, for the caller to compare.
            stats: over exactly these living rows.

        Raises:
            IndexBusy: another process or thread is sealing, or has sealed since `before` was opened.
            IndexDamaged: LanceDB failed; `before` and what stands on disk are as they were.
            OSError: the directory cannot be written.
            ImportError: lancedb is not installed.
        """
        lancedb()
        begun = time.time()
        with writing(root):
            last, reader = read_state(root), reader_of(key.dim, rows, tokens)
            with _trusted("the index could not be written"):
                if before is None:
                    table, name, trained = build(root, key, last, reader)
                elif last != before._state:
                    raise IndexBusy("another process has sealed newer rows: open the index again")
                else:
                    table, name, trained = extend(root, before._state, reader, dead)
                found = table.version, table.count_rows()
            segments = _with_segment(root, before, table, rows, tokens)
            terms = free_name(root, "terms-")
            (root / terms).write_bytes(stats.to_bytes())
            entries = listing(root, [terms, name, *segments], last.files if last else {})
            state = State(
                key,
                watermark,
                chain,
                name,
                segments,
                *found,
                trained,
                terms,
                begun,
                version("lancedb"),
                entries,
            )
            write_state(root, state)
            with _trusted("the index could not be opened"):
                return cls(root, state, open_table(root, state))

    # what it holds

    @property
    def watermark(self) -> int:
        """Log position up to which the table held exactly the living rows."""
        return self._state.watermark

    @property
    def chain(self) -> str:
        """Hash of the log at the watermark."""
        return self._state.chain

    def __len__(self) -> int:
        return self._state.rows

    def stats(self) -> TermStats:
        """Term statistics at the watermark, read anew: the caller may change them."""
        with _trusted("term statistics could not be read"):
            return TermStats.from_bytes((self._root / self._state.terms).read_bytes())

    def positions(self) -> Positions:
        """(n,) positions of all rows, ascending."""
        return _positions(self._table)

    def table(self) -> Any:
        """The LanceDB table at this version, to be read."""
        return self._table

    def current(self) -> bool:
        """Whether no newer version has been sealed, by any process."""
        return read_state(self._root) == self._state

    def verify(self) -> bool:
        """Compare every byte with its checksum: about 0.3 s a gigabyte. Opening compares all but the rows' data."""
        return intact(self._root, self._state.files, deep=True)

    def destroy(self) -> None:
        """Delete the directory."""
        shutil.rmtree(self._root, ignore_errors=True)

    # searches

    def search(  # noqa: PLR0917 - what is asked, then of which rows
        self,
        query: Vector | None,
        terms: Sequence[str],
        k: int,
        where: Filter | None,
        dead: Collection[int],
        stats: TermStats,
        also: Vector | None = None,
    ) -> tuple[dict[int, tuple[float, float]], list[int]]:
        """The k best rows by meaning and the k best by words: position -> (cosine, BM25), both exact.

        And the positions of the k rows nearest to another vector, `also` (d,), nearest first. All LanceDB queries at
        once, which takes 3 ms less than one after the other; or one, where the filter leaves few rows. Other arguments
        as in `dense` and `lexical`.
        """
        sql = where.sql() if where else None
        few = self._few(sql, dead) if sql is not None else None
        if few is not None:
            near = few.dense(query, k) if query is not None else []
            places = [position for position, _ in [*near, *few.lexical(terms, k, stats)]]
            beside = few.dense(unit(also[None])[0], k) if also is not None else []
            return few.score(list(dict.fromkeys(places)), query, terms, stats), [place for place, _ in beside]
        legs, other = [self._near(query, k, sql), self._said(terms, k, stats, sql)], self._near(also, k, sql)
        answers = self._answers([leg for leg in (*legs, other) if leg], k, dead)
        beside = answers.pop()[0] if other else []
        scored: dict[int, tuple[float, float]] = {}
        for best, rows in answers:
            scored |= rows.score([position for position, _ in best], query, terms, stats)
        return scored, [position for position, _ in beside]

    def _few(self, sql: str, dead: Collection[int]) -> Rows | None:
        """All rows that a filter lets through, if they are few."""
        with _trusted("the index could not be searched"):
            if self._table.count_rows(sql) > _FEW:
                return None
            table = self._table.search().where(sql).select(["position"]).limit(_FEW).to_arrow()
        return self._rows(table, dead)

    def dense(
        self, query: Vector, k: int, where: Filter | None = None, dead: Collection[int] = frozenset()
    ) -> tuple[Found, Rows]:
        """As `Tail.dense`, with what is needed to score the rows that were found.

        Args:
            query: (d,).
            k: how many.
            where: rows that may be found.
            dead: positions that have ended since the seal; a set.

        Raises:
            IndexDamaged: the index cannot answer.
        """
        leg = self._near(query, k, where.sql() if where else None)
        return self._answers([leg], k, dead)[0] if leg else ([], self._none())

    def _near(self, query: Vector | None, k: int, sql: str | None) -> _Leg | None:
        direction = None if query is None else unit(query[None])[0]
        if query is None or direction is None or k < 1 or not direction.any():
            return None

        def ask(limit: int) -> Any:
            search = self._queries.query().nearest_to(direction).column("vector").distance_type("cosine")
            if self._state.trained:
                factor = max(3, math.ceil(REFINED / limit))
                search = search.maximum_nprobes(0).minimum_nprobes(NPROBES).refine_factor(factor)
            return _asked(search, sql, limit, "_distance")

        def decided(found: Found, _: Any) -> bool:
            return found[-1][1] < found[k - 1][1]

        return _Leg(ask, lambda rows: rows.dense(query, len(rows)), decided)

    def lexical(
        self,
        terms: Iterable[str],
        k: int,
        stats: TermStats,
        where: Filter | None = None,
        dead: Collection[int] = frozenset(),
    ) -> tuple[Found, Rows]:
        """As `Tail.lexical`, with what is needed to score the rows that were found.

        LanceDB ranks by the statistics of the table alone, `stats` cover all living rows: candidates are asked for
        until no other row can belong to the best k, or until too many are alike to tell.
        """
        leg = self._said(unique(terms), k, stats, where.sql() if where else None)
        return self._answers([leg], k, dead)[0] if leg else ([], self._none())

    def _said(self, terms: Sequence[str], k: int, stats: TermStats, sql: str | None) -> _Leg | None:
        if k < 1 or not terms:
            return None
        slack = self._slack(terms, stats)

        def ask(limit: int) -> Any:
            return _asked(self._queries.query().nearest_to_text(join(terms), columns=["lex"]), sql, limit, "_score")

        def decided(found: Found, table: Any) -> bool:
            return found[k - 1][1] > slack * float(np.min(table["_score"].to_numpy()))

        return _Leg(ask, lambda rows: rows.lexical(terms, len(rows), stats), decided)

    @cached_property
    def _local(self) -> TermStats:
        return self.stats()

    def _slack(self, terms: Sequence[str], stats: TermStats) -> float:
        """How many times LanceDB's score of a row its score by `stats` can be, at most."""
        local = self._local
        ratios = [stats.idf(term) / local.idf(term) for term in terms if term in local.df]
        return max(ratios, default=1.0) * max(1.0, stats.avgdl / local.avgdl) * _DRIFT

    def passages(self, positions: Sequence[int], surprises: Mapping[int, float | None] | None = None) -> list[Passage]:
        """The rows at these positions, in no particular order; those that are not in the table are left out.

        `surprises` of them, by position: the one field of a row that the table does not have.

        Raises:
            IndexDamaged: the table cannot be read.
        """
        records, known = list(self._segments.read(positions)), surprises or {}
        with _trusted("rows could not be decoded"):
            return [
                Passage(one.row(known.get(one.position)), split(one.lex), vector)
                for one, vector in zip(records, self._vectors(records), strict=True)
            ]

    def _answers(self, legs: Sequence[_Leg], k: int, dead: Collection[int]) -> list[tuple[Found, Rows]]:
        """Ask for more candidates until those that were not asked for cannot be among the k best of any leg."""
        answers: dict[int, tuple[Found, Rows]] = {}
        limit = max(_LEAST, k + k // 4 + 8) + min(len(dead), k)
        while len(answers) < len(legs):
            open_legs = [i for i in range(len(legs)) if i not in answers]
            for i, table in zip(open_legs, self._run([legs[i].ask(limit) for i in open_legs]), strict=True):
                rows = self._rows(table, dead)
                found = legs[i].rank(rows)
                enough = len(found) >= k and (limit >= _TIES or legs[i].decided(found, table))
                if enough or table.num_rows < limit:
                    answers[i] = found[:k], rows
            limit *= 4
        return [answers[i] for i in range(len(legs))]

    def _run(self, queries: Sequence[Any]) -> list[Any]:
        """Arrow tables of queries that run at once, on the event loop that LanceDB has for its synchronous calls.

        Those would hand over to the loop and back six times a query, and one thread more would have to be started.
        """
        from lancedb.background_loop import LOOP

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(query.to_arrow() for query in queries))

        with _trusted("the index could not be searched"):
            return list(LOOP.run(all_of_them()))

    def _rows(self, table: Any, dead: Collection[int]) -> Rows:
        """The rows of an answer, but those that have ended since."""
        wanted = [position for position in table["position"].to_pylist() if position not in dead]
        records = list(self._segments.read(wanted))
        if len(records) != len(wanted):
            raise IndexDamaged("a row of the table is in no segment")
        return Rows(np.array(wanted, np.int64), self._vectors(records), [split(one.lex) for one in records])

    def _vectors(self, records: Sequence[Record]) -> Vector:
        """(n, d) unit vectors."""
        halves = np.frombuffer(b"".join(one.vector for one in records), "<f2")
        return unit(halves.astype(np.float32).reshape(-1, self._state.key.dim))

    def _none(self) -> Rows:
        return Rows(np.zeros(0, np.int64), np.zeros((0, self._state.key.dim), np.float32), [])


def _with_segment(
    root: Path, before: LanceIndex | None, table: Any, rows: Sequence[Row], tokens: Sequence[Sequence[str]]
) -> list[str]:
    """The segments of a table after a seal: those before it and one of the new rows, or one anew."""
    name, fresh = free_name(root, SEGMENT), (Record.of(*pair) for pair in zip(rows, tokens, strict=True))
    if before is None:
        write(root / name, fresh)
        return [name]
    old, held = before._state.segments, len(before._segments.positions)
    if len(old) < _SEGMENTS and held + len(rows) <= _SPARE * table.count_rows():
        write(root / name, fresh)
        return [*old, name]
    write(root / name, chain(before._segments.only(set(_positions(table).tolist())), fresh))
    return [name]


def _positions(table: Any) -> Positions:
    """(n,) of all rows of a table, ascending."""
    with _trusted("rows could not be listed"):
        found = table.search().select(["position"]).limit(table.count_rows()).to_arrow()
        return np.sort(found["position"].to_numpy())


@dataclass(frozen=True, slots=True)
class _Leg:
    """A search by one signal: the query for so many candidates, their ranking, and whether they suffice."""

    ask: Callable[[int], Any]
    rank: Callable[[Rows], Found]
    decided: Callable[[Found, Any], bool]


def _asked(search: Any, sql: str | None, limit: int, score: str) -> Any:
    with _trusted("the index could not be searched"):
        if sql is not None:
            search = search.where(sql)
        return search.limit(limit).select(["position", score])


@contextmanager
def _trusted(failure: str) -> Iterator[None]:
    try:
        yield
    except (IndexDamaged, IndexBusy):
        raise
    except Exception as error:  # Lance raises RuntimeError, ValueError, OSError and Arrow's errors alike
        raise IndexDamaged(f"{failure}: {error}") from error


__all__ = ["IndexBusy", "IndexDamaged", "IndexKey", "LanceIndex", "available"]
