"""Who stands next to whom: the living items of each scope and run in time order.

Neighbours of an item are the items before and after it in the same user, agent and run, by `occurred_at` and, at
the same time, by log position. An hour of silence ends a session.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memkit_storage.catalog import Catalog

Positions = npt.NDArray[np.int64]
SESSION_GAP_US = 3_600_000_000
_Scope = tuple[int, int, int]  # codes of user, agent and run in the catalog


class Around(NamedTuple):
    """The neighbourhood of one item, oldest first: positions, and of each the position at which its session begins.

    `at` is the item's own place in them.
    """

    positions: Positions
    sessions: Positions
    at: int


class _Line(NamedTuple):
    times: Positions
    positions: Positions
    begins: Positions  # places at which sessions begin

    @classmethod
    def of(cls, times: Positions, positions: Positions) -> _Line:
        gaps = np.flatnonzero(np.diff(times) > SESSION_GAP_US) + 1
        return cls(times, positions, np.concatenate([np.zeros(1, np.int64), gaps]))


class Timeline:
    """Living items in order, scope by scope. Not thread-safe: the owner's lock covers it.

    Args:
        catalog: of the store.
        as_of: the items that were alive at this time (µs) instead of those alive now.
    """

    def __init__(self, catalog: Catalog, as_of: int | None = None) -> None:
        self._catalog = catalog
        self._lines: dict[_Scope, _Line] = {}
        self._fresh: dict[_Scope, list[int]] = {}
        self._ended: dict[_Scope, set[int]] = {}
        self._read(np.flatnonzero(catalog.alive(as_of)))

    def _read(self, indices: Positions) -> None:
        columns = [self._catalog.column(name)[indices] for name in ("user_id", "agent_id", "run_id")]
        times, positions = (self._catalog.column(name)[indices] for name in ("occurred", "position"))
        order = np.lexsort((positions, times, *columns[::-1]))
        if not len(order):
            return
        times, positions, keys = times[order], positions[order], np.stack(columns)[:, order]
        starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
            user, agent, run = keys[:, start].tolist()
            self._lines[user, agent, run] = _Line.of(times[start:end], positions[start:end])

    def _found(self, position: int) -> tuple[_Scope, int] | None:
        """The scope of a version, and when it occurred."""
        found = self._catalog.by_position([position]).tolist()
        if not found:
            return None
        user, agent, run, time = (
            int(self._catalog.column(name)[found[0]]) for name in ("user_id", "agent_id", "run_id", "occurred")
        )
        return (user, agent, run), time

    def put(self, position: int) -> None:
        """An item version is alive now."""
        if (found := self._found(position)) is not None:
            self._fresh.setdefault(found[0], []).append(position)

    def end(self, position: int) -> None:
        """A version has ended."""
        if (found := self._found(position)) is not None:
            self._ended.setdefault(found[0], set()).add(position)

    def around(self, position: int, reach: int) -> Around | None:
        """Up to `reach` items before and after a living version, with itself; None if it is not alive."""
        found = self._found(position)
        if found is None:
            return None
        line, time = self._line(found[0]), found[1]
        first, last = np.searchsorted(line.times, [time, time + 1])
        at = int(first + np.searchsorted(line.positions[first:last], position))
        if at >= last or line.positions[at] != position:
            return None
        start = max(0, at - reach)
        positions = line.positions[start : at + reach + 1]
        places = np.arange(start, start + len(positions))
        begins = line.begins[np.searchsorted(line.begins, places, side="right") - 1]
        return Around(positions, line.positions[begins], at - start)

    def _line(self, scope: _Scope) -> _Line:
        fresh, ended = self._fresh.pop(scope, []), self._ended.pop(scope, set())
        line = self._lines.get(scope) or _Line.of(np.zeros(0, np.int64), np.zeros(0, np.int64))
        if fresh or ended:
            line = self._lines[scope] = self._merged(line, fresh, ended)
        return line

    def _merged(self, line: _Line, fresh: list[int], ended: set[int]) -> _Line:
        added = np.array(fresh, np.int64)
        times = np.concatenate([line.times, self._catalog.column("occurred")[self._catalog.by_position(fresh)]])
        positions = np.concatenate([line.positions, added])
        if ended:
            stay = ~np.isin(positions, list(ended))
            times, positions = times[stay], positions[stay]
        order = np.lexsort((positions, times))
        return _Line.of(times[order], positions[order])
