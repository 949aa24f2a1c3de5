"""How surprising each new item is, kept for the families that are written to: what the log records beside an item.

A family's state follows whoever writes to the file. It can be dropped at any time: the log has what it is made of, and
what it said of each item. Where a family has a past in the log, reading that costs more than writing an item: so the
first that a process writes for it is not rated, the second has the state made from the newest versions, as far as
SINGLES single frames and BATCHES batches hold them (about 10 ms). Who writes one item for each of many users pays
nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memkit.fast import surprise
from memkit.fast.surprise import SLOTS, SurpriseState
from memkit_storage.records import Event
from memkit_storage.rows import SCOPE_FIELDS, Row
from memkit_storage.store import Store, Transaction

SINGLES, BATCHES = SLOTS, 8  # a batch takes as long to read as twenty single frames
MET = 100_000  # families of which it is remembered that they were written to once
KEPT_BYTES = 64 << 20  # of states in memory; 80 families of 512 slots, thousands of small ones

Family = tuple[str | None, ...]


class _Kept(NamedTuple):
    """A state, and the events of the catalog that it has seen: how many, and the last of them."""

    state: SurpriseState
    seen: int
    last: str

    @property
    def size(self) -> int:
        return self.state.slots.nbytes


class Salience:
    """Rates what a transaction writes. Not thread-safe: the store's lock covers it.

    Args:
        family: which rows surprise each other, by their scope.
    """

    def __init__(self, store: Store, family: Callable[[Mapping[str, str]], Family]) -> None:
        self._store, self._family = store, family
        self._kept: OrderedDict[Family, _Kept] = OrderedDict()
        self._met: set[Family] = set()  # families with a past, of which one transaction has been seen
        self._size = 0
        self._of = self._version()

    def _version(self) -> tuple[int, int]:
        return self._store.log.header.generation, int(self._store.config.get("epoch", 0))

    def rate(self, change: Transaction) -> None:
        """Give each new version in the transaction its surprise, in the order in which they will stand."""
        if self._of != self._version():
            self._kept.clear()
            self._met.clear()
            self._size, self._of = 0, self._version()
        families: dict[Family, list[int]] = defaultdict(list)
        for at, event in enumerate(change.events):
            if isinstance(event, Row) and event.surprise is None and event.vector.any():
                families[self._family(_scope(event))].append(at)
        for family, places in families.items():
            if not self._is_cold(family, change.events[places[0]]):
                self._rate(change, family, places)

    def _is_cold(self, family: Family, event: Event) -> bool:
        """Whether it has a past that nobody has asked for yet; from now on it has been asked for."""
        cold = family not in self._kept and family not in self._met
        if cold and isinstance(event, Row):
            if len(self._met) >= MET:
                self._met.clear()
            self._met.add(family)
            cold = self._store.catalog.may_hold(self._fields(family, _scope(event)))
        return cold

    def _rate(self, change: Transaction, family: Family, places: list[int]) -> None:
        rows = [event for event in (change.events[at] for at in places) if isinstance(event, Row)]
        state = self._caught_up(family, _scope(rows[0]), len(rows[0].vector))
        if len(rows) == 1:
            state, value = surprise.observe(state, rows[0].vector)
            values = [value]
        else:
            state, surprises = surprise.observe_many(state, np.stack([row.vector for row in rows]))
            values = surprises.tolist()
        for at, row, value in zip(places, rows, values, strict=True):
            change.events[at] = replace(row, surprise=round(value, 4))
        self._keep(family, _Kept(state, len(self._store.catalog) + len(change.events), change.events[-1].id))

    def _keep(self, family: Family, kept: _Kept) -> None:
        self._kept[family] = kept
        self._size += kept.size
        while self._size > KEPT_BYTES and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1].size

    def _caught_up(self, family: Family, scope: Mapping[str, str], dim: int) -> SurpriseState:
        """The family's state with all that the log holds of it; a kept one whose writing failed is made anew."""
        catalog = self._store.catalog
        kept = self._kept.pop(family, None)
        self._size -= kept.size if kept else 0
        if kept is None or kept.seen > len(catalog) or catalog.id(kept.seen - 1) != kept.last:
            kept = _Kept(surprise.empty(dim), 0, "")
        if kept.seen == len(catalog):
            return kept.state
        missed = self._near(catalog.versions(self._fields(family, scope), kept.seen))
        vectors = [row.vector for row in self._store.rows(missed) if row.vector.any()]
        return surprise.observe_many(kept.state, np.stack(vectors))[0] if vectors else kept.state

    def _near(self, versions: npt.NDArray[np.int64]) -> list[int]:
        """The newest of them, as many as may be read."""
        if not len(versions):
            return []
        offsets = np.append(self._store.catalog.column("offset"), -1)
        frames = offsets[versions]
        batched = (frames == offsets[versions + 1]) | (self._store.catalog.column("slot")[versions] > 0)
        newest = np.append(frames[1:] != frames[:-1], True)  # of its frame
        read = np.cumsum((newest & batched)[::-1])[::-1]
        near: list[int] = versions[read <= BATCHES][-SINGLES:].tolist()
        return near

    def _fields(self, family: Family, scope: Mapping[str, str]) -> dict[str, str | None]:
        """The scope fields that all of a family share: none of them, if the file learns as one."""
        names = SCOPE_FIELDS[: len(family)] if family else ()
        return {name: scope.get(name) for name in names}


def _scope(row: Row) -> dict[str, str]:
    return {name: value for name, value in zip(SCOPE_FIELDS, row.scope, strict=True) if value is not None}
