"""How a store is searched: the newest rows exactly in memory, sealed rows in LanceDB, one answer from both.

Everything here is derived from the log and may be deleted at any time. Both parts are scored with the same
statistics, so that a ranking does not change when rows are sealed (up to the recall of the ANN index).
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memkit_storage import lance
from memkit_storage.analyzer import ANALYZER_VERSION, analyze
from memkit_storage.cache import IndexBusy, IndexDamaged, IndexKey
from memkit_storage.errors import InvalidInput
from memkit_storage.filters import Filter
from memkit_storage.lance import LanceIndex
from memkit_storage.lexical import TermStats, unique
from memkit_storage.rows import Row, Vector
from memkit_storage.sample import Sample, sample_key, take_sample
from memkit_storage.store import Store
from memkit_storage.tail import Passage, Tail
from memkit_storage.timeline import Around, Timeline

# Thresholds: measured in benchmarks/speed.py; a first seal costs about 0.1 ms a row, and a search below it less
# than half of what LanceDB's fixed cost is.
FIRST_SEAL = 20_000
SEAL_SHARE, SEAL_MIN, SEAL_MAX = 20, 4_096, 32_768
DEAD_MAX = 1_024
EXACT_MAX = 50_000  # past this, searching without LanceDB is slow enough to say so


class Match(NamedTuple):
    """A candidate: log position of a living version, its BM25 score and its cosine with the query, both exact."""

    position: int
    lexical: float
    dense: float


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of a search, and how the query fares with the file at large, whatever it was filtered to.

    Attributes:
        items: living rows of the file.
        frequencies: of each distinct term of the query, how many of them hold it.
        length: tokens of an item, on average.
        latest_us: when the newest of them occurred.
        sample: of what the file holds.
        also: positions of the rows nearest to the other vector that was asked about.
    """

    matches: list[Match]
    items: int
    frequencies: dict[str, int]
    length: float
    latest_us: int
    sample: Sample
    also: list[int] = field(default_factory=list)


def default_cache_dir() -> Path:
    """Where indexes live unless the caller says otherwise: the user's cache directory."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "memkit"


class Index:
    """The search index of a store; opened by the first search. Thread-safe through the store's lock.

    Args:
        cache_dir: directory for LanceDB tables; None for the user's cache directory.
        as_of: index the versions that were alive at this time (µs) instead of those alive now; such an index is
            exact, in memory, and does not follow the log.
    """

    def __init__(self, store: Store, cache_dir: str | Path | None = None, *, as_of: int | None = None) -> None:
        self._store = store
        self._cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
        self._as_of = as_of
        self._thread: threading.Thread | None = None
        self._written = 0  # rows that came while the index was closed
        self._past: dict[tuple[int, int, int], Index] = {}
        self.reset()
        if as_of is None:
            store.listener = self

    # following the log

    def reset(self) -> None:
        """Forget everything derived; the next search starts from the log."""
        self._tail: Tail | None = None
        self._stats = TermStats()
        self._sealed: LanceIndex | None = None
        self._dead: set[int] = set()  # sealed rows that have ended since
        self._uncounted: list[int] = []  # those of them that the statistics still count
        self._sample: Sample | None = None
        self._timeline: Timeline | None = None

    def put(self, row: Row) -> None:
        """A version is alive now."""
        if self._timeline is not None:
            self._timeline.put(row.position)
        if self._tail is not None:
            self._tail.add(row)
        else:
            self._written += 1

    def end(self, position: int) -> None:
        """A version has ended."""
        if self._timeline is not None:
            self._timeline.end(position)
        if self._tail is not None and not self._tail.remove(position):
            self._dead.add(position)
            self._uncounted.append(position)

    @property
    def sizes(self) -> tuple[int, int]:
        """(rows in the tail, rows in the sealed table); -1 where nothing was searched yet."""
        sealed = len(self._sealed) - len(self._dead) if self._sealed else 0
        return (-1, -1) if self._tail is None else (len(self._tail), sealed)

    # searching

    def search(
        self, vector: Vector | None, text: str, k: int, where: Filter | None, *, also: tuple[Vector, int] | None = None
    ) -> Found:
        """The best rows by words and by meaning, each with both signals.

        Args:
            vector: (d,) of the query; None to search by words alone.
            text: the query; its terms count once each.
            k: how many rows of each signal.
            also: another vector (d,), and how many rows, up to k, are to be named that are nearest to it.
        """
        self._store.refresh()
        terms = unique(analyze(text))
        try:
            return self._search(vector, terms, k, where, also)
        except IndexDamaged as error:
            with self._store.lock:
                if self._discard():
                    warnings.warn(f"the search index was damaged ({error}) and is made anew from the log", stacklevel=4)
            return self._search(vector, terms, k, where, also)

    def _search(
        self, vector: Vector | None, terms: list[str], k: int, where: Filter | None, also: tuple[Vector, int] | None
    ) -> Found:
        other, count = also or (None, 0)
        with self._store.lock:
            tail = self._open()
            sample = self._sampled()
            if tail is None:
                return Found([], 0, {}, 0.0, 0, sample)
            self._count_dead()
            tail.settle()
            allowed = tail.select(where)
            near = tail.dense(vector, k, allowed) if vector is not None else []
            said = tail.lexical(terms, k, allowed)
            places = list(dict.fromkeys(position for position, _ in [*near, *said]))
            scored = tail.score(places, vector, terms)
            matches = [Match(position, words, cosine) for position, (cosine, words) in scored.items()]
            beside = [position for position, _ in tail.dense(other, count, allowed)] if other is not None else []
            sealed, dead, stats = self._sealed, frozenset(self._dead), _restricted(self._stats, terms)
            alive = self._store.catalog.alive(self._as_of)
            latest = int(self._store.catalog.column("occurred").max(where=alive, initial=0))
        if sealed is not None:
            found, nearest = sealed.search(vector, terms, k, where, dead, stats, other)
            matches += [Match(position, words, cosine) for position, (cosine, words) in found.items()]
            beside += nearest[:count]
        known = {term: stats.df.get(term, 0) for term in terms}
        return Found(matches, stats.docs, known, stats.avgdl, latest, sample, beside)

    def _sampled(self) -> Sample:
        if self._sample is None or self._sample.key != sample_key(self._store, self._as_of):
            self._sample = take_sample(self._store, self._as_of)
        return self._sample

    def around(self, positions: Sequence[int], reach: int) -> dict[int, Around]:
        """The neighbourhoods of living rows; those that have ended meanwhile are left out."""
        with self._store.lock:
            if self._timeline is None:
                self._timeline = Timeline(self._store.catalog, self._as_of)
            found = {position: self._timeline.around(position, reach) for position in positions}
        return {position: near for position, near in found.items() if near is not None}

    def passages(self, positions: Sequence[int]) -> dict[int, Passage]:
        """What living rows say; those that cannot be read are left out."""
        with self._store.lock:
            tail, sealed = self._open(), self._sealed
            found = tail.passages(positions) if tail else []
            known = {passage.row.position for passage in found}
            rest = [position for position in positions if position not in known]
            surprises = self._store.catalog.surprises(rest)
        if rest and sealed is not None:
            with suppress(IndexDamaged):  # the next search makes it anew; until then the log has them
                found += sealed.passages(rest, surprises)
        passages = {passage.row.position: passage for passage in found}
        gone = [position for position in rest if position not in passages]  # sealed or ended since the search
        return passages | {row.position: Passage.of(row, analyze(row.searchable)) for row in self.rows(gone).values()}

    def rows(self, positions: Sequence[int]) -> dict[int, Row]:
        """The versions at log positions, read from the log; a damaged one is reported and left out."""
        with self._store.lock:
            indices = self._store.catalog.by_position(positions)
            return {row.position: row for row in self._store.rows(indices.tolist())}

    def positions(self, values: Mapping[str, float]) -> dict[int, float]:
        """Values by item id as values by the log position of the living version; items that are not alive have none."""
        with self._store.lock:
            catalog = self._store.catalog
            found = {catalog.index(id_): value for id_, value in values.items()}
            return {int(catalog.column("position")[i]): value for i, value in found.items() if i is not None}

    def past(self, as_of: int) -> Index:
        """An index of the memory as it was at a time (µs)."""
        self._store.refresh()
        key = (as_of, self._store.log.header.generation, len(self._store.catalog))
        if key not in self._past:
            self._past = {key: Index(self._store, self._cache, as_of=as_of)}
        return self._past[key]

    # opening

    def _open(self) -> Tail | None:
        if self._tail is not None:
            return self._tail
        dim = self._store.config.get("dim")
        if dim is None:
            return None
        self._sealed = self._open_sealed() if self._as_of is None else None
        watermark = -1
        if self._sealed is not None:
            watermark, self._stats = self._sealed.watermark, self._sealed.stats().copy()
            self._dead = set(self._store.catalog.died_after(watermark).tolist())
            self._uncounted = list(self._dead)
        self._tail = Tail(dim, self._stats)
        catalog = self._store.catalog
        fresh = catalog.alive(self._as_of) & (catalog.column("position") > watermark)
        for row in self._store.rows(np.flatnonzero(fresh).tolist()):
            self._tail.add(row)
        self._written = 0
        return self._tail

    @property
    def root(self) -> Path:
        """The directory of this file's index, and of whatever else is derived from it beside the log."""
        log = self._store.log
        return self._cache / f"{log.header.file_id.hex()}-{log.inode:x}"

    def _key(self) -> IndexKey:
        log, config = self._store.log, self._store.config
        return IndexKey(
            file_id=log.header.file_id.hex(),
            generation=log.header.generation,
            embedder=f"{config.get('embedder')}/{config.get('epoch')}",
            dim=int(config["dim"]),
            analyzer=ANALYZER_VERSION,
        )

    def _open_sealed(self) -> LanceIndex | None:
        if not (self.root.is_dir() and lance.available()):
            return None
        sealed = LanceIndex.open(self.root, self._key())
        if sealed is not None and self._chain_at(sealed.watermark) != sealed.chain:
            return None  # the log is not the one that was indexed: an older copy was put back
        return sealed

    def _chain_at(self, position: int) -> str | None:
        index = self._store.catalog.by_position([position])
        if not len(index):
            return None
        return self._store.log.read(self._store.catalog.place(int(index[0])).offset).header.chain.hex()

    def _count_dead(self) -> None:
        """Take rows that ended since they were sealed out of the statistics."""
        catalog = self._store.catalog
        for row in self._store.rows(catalog.by_position(sorted(self._uncounted)).tolist()):
            self._stats.remove(analyze(row.searchable))
        self._uncounted.clear()

    # sealing

    def settle(self) -> None:
        """After a write: seal in the background when the tail has grown past its share."""
        if self._is_due() and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._seal_quietly, name="memkit-seal")
            self._thread.start()

    def _is_due(self) -> bool:
        if self._tail is None:
            grown = self._written >= FIRST_SEAL
        else:
            sealed = len(self._sealed) if self._sealed else 0
            due = min(max(sealed // SEAL_SHARE, SEAL_MIN), SEAL_MAX) if sealed else FIRST_SEAL
            grown = len(self._tail) >= due or len(self._dead) > max(DEAD_MAX, sealed // SEAL_SHARE)
        if grown and not lance.available():
            self._warn_if_large()
        return grown and lance.available()

    def _warn_if_large(self) -> None:
        if self._store.catalog.alive_count > EXACT_MAX:
            warnings.warn(
                f"{self._store.catalog.alive_count} items are searched without LanceDB, for which this platform has "
                "no wheel here: searches are exact, and slower the more there are",
                stacklevel=4,
            )

    def _seal_quietly(self) -> None:
        try:
            self.seal()
        except IndexBusy:  # another process seals: use what it has sealed, or try again after the next write
            with self._store.lock:
                if self._sealed is None or not self._sealed.current():
                    self.reset()
        except (IndexDamaged, OSError) as error:  # derived data: a search stays exact without it
            warnings.warn(f"the search index could not be written ({error}); searches stay exact", stacklevel=2)

    def seal(self) -> None:
        """Move every row of the tail into the LanceDB table. Searches and writes go on meanwhile.

        Raises:
            IndexBusy: another process is sealing this file.
            IndexDamaged: LanceDB refused.
        """
        with self._store.lock:
            if self._sealed is not None and not self._sealed.current():
                self.reset()  # another handle has sealed, or made the table anew: go on from what is there
            tail = self._open()
            if tail is None or not (len(tail) or self._dead):
                return
            self._count_dead()
            tail.settle()
            rows = list(tail.rows)
            tokens = [tail.tokens(row.position) for row in rows]
            dead, stats, before, key = frozenset(self._dead), self._stats.copy(), self._sealed, self._key()
            watermark = int(self._store.catalog.column("position")[-1])
            chain, root = self._chain_at(watermark) or "", self.root
        sealed = LanceIndex.seal(root, key, before, rows, tokens, dead, watermark=watermark, chain=chain, stats=stats)
        with self._store.lock:
            if self._tail is tail and self._key() == key:
                self._sealed = sealed
                self._dead = set(self._store.catalog.died_after(watermark).tolist())  # also those that ended meanwhile
                tail.drop(watermark)

    def rebuild(self) -> None:
        """Make the index anew from the log; a small memory needs none on disk."""
        self._join()
        with self._store.lock:
            self._discard()
            self._open()
        if lance.available() and self.sizes[0] >= FIRST_SEAL:
            self.seal()

    def table(self) -> object:
        """The LanceDB table, with every living row in it.

        Raises:
            InvalidInput: there is nothing in the memory, or no LanceDB on this platform.
        """
        self._join()
        self._store.refresh()
        if not lance.available():
            raise InvalidInput("lancedb is not installed: `pip install lancedb`, or use to_arrow()")
        self.seal()
        if self._sealed is None:
            raise InvalidInput("the memory is empty: there is no table yet; add something first")
        return self._sealed.table()

    def destroy(self) -> bool:
        """Delete every table of this file from the cache. Returns whether nothing is left of it."""
        self._join()
        with self._store.lock:
            self.reset()
            for root in self._cache.glob(f"{self._store.log.header.file_id.hex()}-*"):
                shutil.rmtree(root, ignore_errors=True)
            return not any(self._cache.glob(f"{self._store.log.header.file_id.hex()}-*"))

    def _discard(self) -> bool:
        """Start again; from the log alone (True), unless another process has sealed a newer table meanwhile."""
        stale = self._sealed is not None and not self._sealed.current()
        self.reset()
        if not stale:
            shutil.rmtree(self.root, ignore_errors=True)
        return not stale

    def _join(self) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def close(self) -> None:
        """Wait for a running seal."""
        self._join()


def _restricted(stats: TermStats, terms: Sequence[str]) -> TermStats:
    """The statistics as far as a query needs them: a copy that later writes do not change."""
    part = TermStats()
    part.docs, part.length = stats.docs, stats.length
    part.df = {term: stats.df[term] for term in terms if term in stats.df}
    return part
