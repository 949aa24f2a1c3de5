"""The sealed rows: a LanceDB table in a cache directory, derived from the log and disposable.

    <root>/STATE      what the table holds and the checksum of every file; replaced last, so a seal counts or does not
    <root>/LOCK       held by the one process that seals
    <root>/terms-<n>  term statistics at the watermark
    <root>/table-<n>/ the LanceDB database

Lance neither syncs nor checksums what it writes. Here every file is synced before STATE names it, every file's size
and every index file's checksum is compared at opening, and every row that is returned carries its own checksum. What
does not fit is a `None` at opening or an `IndexDamaged` at searching, never an answer.

A `LanceIndex` stays at its version while a newer one is being sealed. Scores are not LanceDB's: it proposes
candidates, and they are scored as in `tail`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from memkit_storage import files
from memkit_storage.filters import Filter, filter_columns, pa_fields
from memkit_storage.lexical import TermStats, bm25, join, split, unique
from memkit_storage.rows import SCOPE_FIELDS, Row, Vector
from memkit_storage.tail import Found, Positions, best, similarity, unit

SCHEMA = 1
ANN_FROM = 5_000  # rows; below, comparing with every row is as fast
RETRAIN = 2.0  # times as many rows as at the last training
NPROBES = 50
REFINE = 10
_LEAST = 32  # candidates asked for at least: refinement reads ten times as many, which is what recall costs
_TIES = 1_024  # candidates asked for at most to settle what stands at the cut
_GRACE = 60.0  # seconds for which readers in other processes may go on using a version that was replaced
_CHUNK = 8_192
_TABLE, _STATE, _LOCK = "rows", "STATE", "LOCK"
_PAYLOAD = ["position", "lex", "vector", "crc"]


class IndexDamaged(Exception):
    """The index cannot be trusted: scan the log instead, and build it again."""


class IndexBusy(Exception):
    """Another process is sealing, or has sealed: open the index again, later."""


@dataclass(frozen=True, slots=True)
class IndexKey:
    """What an index was made from; it serves nothing else."""

    file: str
    generation: int
    embedder: str
    dim: int
    analyzer: str
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class _State:
    key: IndexKey
    watermark: int
    chain: str
    table: str
    version: int
    rows: int
    trained: int  # rows at the last training of the ANN index; 0: there is none
    avgdl: float
    terms: str
    sealed_at: float  # seconds since 1970
    lancedb: str
    files: dict[str, list[int]]  # path below root -> size, crc32


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
        terms = unique(terms)
        scores = np.array([bm25(terms, tokens, stats) for tokens in self.tokens])
        return best(scores[scores > 0], self.positions[scores > 0], k)

    def score(self, query: Vector | None, terms: Sequence[str], stats: TermStats) -> dict[int, tuple[float, float]]:
        """As `Tail.score`, of every row here: position -> (cosine, BM25)."""
        words = [bm25(terms, tokens, stats) for tokens in self.tokens]
        return dict(zip(self.positions.tolist(), zip(similarity(self.vectors, query), words, strict=True), strict=True))


def available() -> bool:
    """Whether lancedb is installed. It is not imported: that takes more than a second."""
    try:
        version("lancedb")
    except PackageNotFoundError:
        return False
    return True


def _lancedb() -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns on stderr about every query otherwise
    import lancedb

    return lancedb


@contextmanager
def _trusted(action: str) -> Iterator[None]:
    try:
        yield
    except (IndexDamaged, IndexBusy):
        raise
    except Exception as error:  # Lance raises RuntimeError, ValueError, OSError and Arrow's errors alike
        raise IndexDamaged(f"{action}: {error}") from error


class LanceIndex:
    """Sealed rows at one version of the table. Searches may run in several threads at once."""

    def __init__(self, root: Path, state: _State, table: Any) -> None:
        self._root = root
        self._state = state
        self._table = table

    # making

    @classmethod
    def open(cls, root: Path, key: IndexKey) -> LanceIndex | None:
        """The index that was sealed last; None when it is missing, made from something else, or damaged."""
        for _ in range(3):  # another process may seal between the reading of STATE and of the files that it names
            state = _read_state(root)
            if state is None or state.key != key or not available() or state.lancedb != version("lancedb"):
                return None
            with suppress(Exception):
                if _intact(root, state.files, deep=False):
                    table = _open_table(root, state)
                    if table.count_rows() == state.rows:
                        return cls(root, state, table)
            if _read_state(root) == state:
                return None
        return None

    @classmethod
    def create(
        cls,
        root: Path,
        key: IndexKey,
        rows: Iterable[Row],
        tokens: Iterable[Sequence[str]],
        *,
        watermark: int,
        chain: str,
        stats: TermStats,
    ) -> LanceIndex:
        """Build the index anew from every living row up to the watermark; there must be at least one.

        Args:
            root: the directory of this index alone.
            key: what the rows were made from.
            rows: with vectors that are exact in float16.
            tokens: of each row; no token holds white space.
            watermark: log position up to which `rows` are the living rows.
            chain: hash of the log at the watermark, for the caller to compare.
            stats: over exactly these rows.

        Raises:
            IndexBusy: another process is sealing.
            IndexDamaged: LanceDB failed.
            OSError: the directory cannot be written.
            ImportError: lancedb is not installed.
        """
        lancedb = _lancedb()
        with _writing(root), _trusted("building the index"):
            before = _read_state(root)
            _sweep(root, before)
            name = _free_name(root, "table-")
            schema = _schema(key.dim)
            database = lancedb.connect(root / name)
            table = database.create_table(_TABLE, _reader(schema, rows, tokens), schema=schema)
            for column in ("position", *SCOPE_FIELDS):
                table.create_index(column, config=lancedb.index.BTree())
            table.create_index("lex", config=_full_text(lancedb))
            trained = _train(table, key.dim, 0)
            return cls._commit(root, key, table, name, trained, watermark, chain, stats, before)

    def seal(
        self,
        rows: Sequence[Row],
        tokens: Iterable[Sequence[str]],
        dead: Collection[int],
        *,
        watermark: int,
        chain: str,
        stats: TermStats,
    ) -> LanceIndex:
        """Add rows and take out dead ones; returns the new index. This object goes on serving its own version.

        Arguments and errors as in `create`; `dead` are positions in the table. After an error this object still
        serves, and the next attempt starts from it again.
        """
        _lancedb()
        with _writing(self._root), _trusted("sealing"):
            state = self._state
            if _read_state(self._root) != state:
                raise IndexBusy("another process has sealed newer rows: open the index again")
            table = _open_table(self._root, state, pinned=False)
            if table.version != state.version:  # a seal that did not finish
                table.restore(state.version)
            _delete(table, dead)
            if rows:
                schema = _schema(state.key.dim)
                table.add(_reader(schema, rows, tokens))
            trained = _train(table, state.key.dim, state.trained)
            # Lance would delete this object's version too, once it is old enough
            age = max(0.0, time.time() - state.sealed_at) + _GRACE
            table.optimize(cleanup_older_than=timedelta(seconds=age), delete_unverified=True)
            return self._commit(self._root, state.key, table, state.table, trained, watermark, chain, stats, state)

    @classmethod
    def _commit(
        cls,
        root: Path,
        key: IndexKey,
        table: Any,
        name: str,
        trained: int,
        watermark: int,
        chain: str,
        stats: TermStats,
        before: _State | None,
    ) -> LanceIndex:
        terms = _free_name(root, "terms-")
        (root / terms).write_bytes(stats.to_bytes())
        listed = _checksums(root, [terms, name], before.files if before else {})
        state = _State(
            key, watermark, chain, name, table.version, table.count_rows(), trained, stats.avgdl, terms, time.time(),
            version("lancedb"), listed,
        )  # fmt: skip
        _write_state(root, state)
        return cls(root, state, _open_table(root, state))

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
        with _trusted("reading term statistics"):
            return TermStats.from_bytes((self._root / self._state.terms).read_bytes())

    def positions(self) -> Positions:
        """(n,) positions of all rows, ascending."""
        with _trusted("listing"):
            table = self._table.search().select(["position"]).limit(self._state.rows).to_arrow()
            return np.sort(table["position"].to_numpy())

    def table(self) -> Any:
        """The LanceDB table at this version, to be read."""
        return self._table

    def current(self) -> bool:
        """Whether no newer version has been sealed, by any process."""
        return _read_state(self._root) == self._state

    def verify(self) -> bool:
        """Compare every byte with its checksum: some 0.3 s per million kilobytes. Opening compares index files only."""
        with suppress(OSError):
            return _intact(self._root, self._state.files, deep=True)
        return False

    def destroy(self) -> None:
        """Delete the directory."""
        shutil.rmtree(self._root, ignore_errors=True)

    # searches

    def dense(
        self, query: Vector, k: int, *, where: Filter | None = None, dead: Collection[int] = frozenset()
    ) -> tuple[Found, Rows]:
        """As `Tail.dense`, with what is needed to score the rows that were found, and some more.

        Args:
            query: (d,).
            k: how many.
            where: rows that may be found.
            dead: positions that were ended since the seal; a set.

        Raises:
            IndexDamaged: the index cannot answer.
        """
        direction = unit(query[None])[0]
        if k < 1 or not direction.any():
            return [], self._none()
        sql = where.sql() if where else None

        def ask(limit: int) -> Any:
            search = self._table.search(direction, vector_column_name="vector").distance_type("cosine")
            if self._state.trained:
                search = search.minimum_nprobes(NPROBES).maximum_nprobes(0).refine_factor(REFINE)
            return self._run(search, sql, limit, "_distance")

        def settled(rows: Rows, _: Any) -> bool:
            found = rows.dense(direction, len(rows))
            return found[-1][1] < found[k - 1][1]

        rows = self._gather(ask, settled, k, dead)
        return rows.dense(direction, k), rows

    def lexical(
        self,
        terms: Iterable[str],
        k: int,
        stats: TermStats,
        *,
        where: Filter | None = None,
        dead: Collection[int] = frozenset(),
    ) -> tuple[Found, Rows]:
        """As `Tail.lexical`, with what is needed to score the rows that were found, and some more.

        LanceDB ranks by the statistics of the table, the caller's `stats` cover the tail as well: candidates are
        asked for until no other row can belong to the best k (or equal candidates exceed a bound).
        """
        terms = unique(terms)
        if k < 1 or not terms:
            return [], self._none()
        sql = where.sql() if where else None
        slack = self._slack(terms, stats, len(dead))

        def ask(limit: int) -> Any:
            search = self._table.search(join(terms), query_type="fts", fts_columns="lex")
            return self._run(search, sql, limit, "_score")

        def settled(rows: Rows, table: Any) -> bool:
            least = float(np.min(table["_score"].to_numpy()))
            return rows.lexical(terms, k, stats)[-1][1] > slack * least

        rows = self._gather(ask, settled, k, dead)
        return rows.lexical(terms, k, stats), rows

    def _slack(self, terms: list[str], stats: TermStats, dead: int) -> float:
        """How many times its score in the table a row's score by `stats` can be."""
        docs = self._state.rows
        ratios = [1.0]
        for term in terms:
            df = min(stats.df.get(term, 0) + dead, docs)
            ratios.append(stats.idf(term) / math.log(1 + (docs - df + 0.5) / (df + 0.5)))
        rounding = 1.0001
        return max(ratios) * max(1.0, stats.avgdl / self._state.avgdl) * rounding

    def fetch(self, positions: Sequence[int]) -> Rows:
        """Rows at these positions, in no particular order; those that are not in the table are left out."""
        if not len(positions):
            return self._none()
        with _trusted("fetching"):
            listed = ",".join(str(int(position)) for position in positions)
            search = self._table.search().where(f"position IN ({listed})")
            return self._rows(search.select(_PAYLOAD).limit(len(positions)).to_arrow(), frozenset())

    def _run(self, search: Any, sql: str | None, limit: int, score: str) -> Any:
        if sql is not None:
            search = search.where(sql, prefilter=True)
        with _trusted("searching"):
            return search.limit(limit).select([*_PAYLOAD, score]).to_arrow()

    def _gather(
        self, ask: Callable[[int], Any], settled: Callable[[Rows, Any], bool], k: int, dead: Collection[int]
    ) -> Rows:
        limit = max(_LEAST, k + k // 4 + 8) + min(len(dead), k)
        while True:
            table = ask(limit)
            rows = self._rows(table, dead)
            if table.num_rows < limit or (len(rows) >= k and (limit >= _TIES or settled(rows, table))):
                return rows
            limit *= 4

    def _rows(self, table: Any, dead: Collection[int]) -> Rows:
        with _trusted("decoding"):
            positions = table["position"].to_numpy()
            halves = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            halves = halves.reshape(-1, self._state.key.dim)
            lex = table["lex"].to_pylist()
            for i, crc in enumerate(table["crc"].to_pylist()):
                if _checksum(int(positions[i]), halves[i].tobytes(), lex[i]) != crc:
                    raise IndexDamaged(f"the row at position {positions[i]} does not match its checksum")
            keep = [i for i, position in enumerate(positions.tolist()) if position not in dead]
            return Rows(positions[keep], unit(halves[keep].astype(np.float32)), [split(lex[i]) for i in keep])

    def _none(self) -> Rows:
        return Rows(np.zeros(0, np.int64), np.zeros((0, self._state.key.dim), np.float32), [])
