"""Which versions of which items a log holds, and where: columns in memory, replayed from frames or checkpoints.

The rule that makes replay independent of the order in which files were merged: among the events of one id, the one
with the greatest (time, position) is the present. A version is alive until the next event of its id.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memkit_storage.records import Event
from memkit_storage.rows import Row

NEVER = np.iinfo(np.int64).max
_PUT, _DELETE = 0, 1
_COLUMNS = {
    "kind": np.int8,
    "position": np.int64,
    "offset": np.int64,  # of the frame that holds the event
    "slot": np.int32,  # which event of that frame
    "user_id": np.int32,  # interned; 0 = none
    "agent_id": np.int32,
    "run_id": np.int32,
    "occurred": np.int64,
    "created": np.int64,
    "time": np.int64,  # updated_at of a version, time of a deletion
    "previous": np.int64,  # index of the event of the same id before this one, -1
    "ended": np.int64,  # time of the event after this one, NEVER
    "ended_by": np.int64,  # position of that event, NEVER
    "first": np.int64,  # position at which this life of the item began
    "surprise": np.float32,  # of a version, NaN: not known
}
_STORED = ("kind", "position", "offset", "slot", "occurred", "created", "time")
_SCOPES = ("user_id", "agent_id", "run_id")
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Where an event is recorded: byte offset of its frame, and which event of the frame."""

    offset: int
    slot: int


class Catalog:
    """Every event of a log in log order; index i below means the i-th."""

    def __init__(self) -> None:
        self._size = 0
        self._data = {name: np.zeros(1024, kind) for name, kind in _COLUMNS.items()}
        self._ids: list[str] = []
        self._current: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self._names: list[str | None] = [None]
        self.alive_count = 0

    def __len__(self) -> int:
        return self._size

    def column(self, name: str) -> npt.NDArray[Any]:
        """A live view of one column, (n,)."""
        return self._data[name][: self._size]

    # replay

    def apply(self, event: Event, place: Place) -> int | None:
        """Add one event. Returns the index of the version that it ended, if it ended one."""
        i = self._grow(1)
        self._ids.append(event.id)
        data = self._data
        data["position"][i], data["offset"][i], data["slot"][i] = event.position, *place
        if isinstance(event, Row):
            for name in _SCOPES:
                data[name][i] = self._code(getattr(event, name))
            data["occurred"][i], data["created"][i], data["time"][i] = (
                event.occurred_us,
                event.created_us,
                event.updated_us,
            )
            data["surprise"][i] = np.nan if event.surprise is None else event.surprise
        else:
            data["kind"][i], data["time"][i] = _DELETE, event.time_us
        return self._link(i)

    def _grow(self, count: int) -> int:
        start, need = self._size, self._size + count
        if need > len(self._data["kind"]):
            room = max(need, 2 * len(self._data["kind"]))
            self._data = {
                name: np.concatenate([a[:start], np.zeros(room - start, a.dtype)]) for name, a in self._data.items()
            }
        self._data["previous"][start:need] = -1
        self._data["ended"][start:need] = NEVER
        self._data["ended_by"][start:need] = NEVER
        self._data["kind"][start:need] = _PUT
        self._data["surprise"][start:need] = np.nan
        self._size = need
        return start

    def _code(self, name: str | None) -> int:
        if name is None:
            return 0
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = len(self._names)
            self._names.append(name)
        return code

    def _order(self, i: int) -> tuple[int, int]:
        return int(self._data["time"][i]), int(self._data["position"][i])

    def _link(self, i: int) -> int | None:
        """Place event i among the events of its id; ends the version before it."""
        data, id_ = self._data, self._ids[i]
        before, after = self._current.get(id_, -1), -1
        while before >= 0 and self._order(before) > self._order(i):
            before, after = int(data["previous"][before]), before
        data["previous"][i] = before
        is_put = data["kind"][i] == _PUT
        continues = is_put and before >= 0 and data["kind"][before] == _PUT
        data["first"][i] = data["first"][before] if continues else data["position"][i]
        if after >= 0:  # arrived late, through a merge: history only
            data["previous"][after] = i
            data["ended"][i], data["ended_by"][i] = data["time"][after], data["position"][i]
        else:
            self._current[id_] = i
            self.alive_count += int(is_put)
        ended = self._end(before, i)
        return ended if after < 0 else None

    def _end(self, before: int, i: int) -> int | None:
        if before < 0 or self._data["kind"][before] != _PUT:
            return None
        was_alive = self._data["ended"][before] == NEVER
        self._data["ended"][before] = self._data["time"][i]
        if was_alive:
            self._data["ended_by"][before] = self._data["position"][i]
            self.alive_count -= 1
        return before if was_alive else None

    # questions

    def index(self, id_: str) -> int | None:
        """Index of the living version of an id."""
        i = self._current.get(id_)
        return i if i is not None and self._data["kind"][i] == _PUT else None

    def id(self, i: int) -> str:
        """The item id of event i."""
        return self._ids[i]

    def place(self, i: int) -> Place:
        """Where event i is recorded."""
        return Place(int(self._data["offset"][i]), int(self._data["slot"][i]))

    def is_delete(self, i: int) -> bool:
        """Whether event i is a deletion."""
        return bool(self._data["kind"][i] == _DELETE)

    def time(self, i: int) -> int:
        """When event i took effect, µs."""
        return int(self._data["time"][i])

    def first(self, i: int) -> int:
        """Position at which the item of version i was first recorded."""
        return int(self._data["first"][i])

    def scope(self, i: int) -> tuple[str | None, str | None, str | None]:
        """(user_id, agent_id, run_id) of version i."""
        user, agent, run = (self._names[self._data[name][i]] for name in _SCOPES)
        return user, agent, run

    def surprises(self, positions: Sequence[int]) -> dict[int, float | None]:
        """How surprising the versions at these log positions were when they were written; None: not known."""
        indices = self.by_position(positions)
        values = zip(self.column("position")[indices].tolist(), self.column("surprise")[indices].tolist(), strict=True)
        return {position: None if math.isnan(value) else round(value, 4) for position, value in values}

    def history(self, id_: str) -> list[int]:
        """Indices of all events of an id, oldest first."""
        events, i = [], self._current.get(id_, -1)
        while i >= 0:
            events.append(i)
            i = int(self._data["previous"][i])
        return events[::-1]

    def last_time(self, id_: str) -> int:
        """Time of the newest event of an id; -1 if it was never there."""
        i = self._current.get(id_)
        return -1 if i is None else self.time(i)

    def alive(self, as_of: int | None = None) -> Mask:
        """(n,) which events are versions that are alive now, or were at a time (µs)."""
        puts = self.column("kind") == _PUT
        if as_of is None:
            mask: Mask = puts & (self.column("ended") == NEVER)
        else:
            mask = puts & (self.column("time") <= as_of) & (self.column("ended") > as_of)
        return mask

    def in_scope(self, scope: Mapping[str, str | None]) -> Mask:
        """(n,) which events are versions with these scope values; fields that are not named do not matter."""
        mask = np.ones(self._size, bool)
        for name, value in scope.items():
            code = 0 if value is None else self._codes.get(value, -1)
            mask &= self.column(name) == code
        return mask

    def versions(self, scope: Mapping[str, str | None], start: int) -> Indices:
        """Indices from `start` on of versions, living or past, with these scope values."""
        mask = self.column("kind")[start:] == _PUT
        for name, value in scope.items():
            code = 0 if value is None else self._codes.get(value, -1)
            mask &= self.column(name)[start:] == code
        found: Indices = np.flatnonzero(mask) + start
        return found

    def may_hold(self, scope: Mapping[str, str | None]) -> bool:
        """False if surely no version ever had these scope values; costs nothing."""
        return self._size > 0 and all(value is None or value in self._codes for value in scope.values())

    def scope_values(self, name: str, mask: Mask) -> dict[str, int]:
        """How many of the masked versions carry each value of a scope field."""
        codes, counts = np.unique(self.column(name)[mask], return_counts=True)
        pairs = zip(codes.tolist(), counts.tolist(), strict=True)
        return {str(self._names[code]): count for code, count in pairs if code}

    def by_position(self, positions: Sequence[int]) -> Indices:
        """Indices of events at these log positions; positions are ascending in the catalog."""
        wanted = np.asarray(positions, np.int64)
        found = np.searchsorted(self.column("position"), wanted)
        found = np.minimum(found, max(self._size - 1, 0))
        return found[self.column("position")[found] == wanted] if self._size else found[:0]

    def died_after(self, watermark: int) -> Indices:
        """Positions of versions up to `watermark` that were alive there and are not now."""
        position = self.column("position")
        dead = (position <= watermark) & (self.column("kind") == _PUT) & (self.column("ended_by") > watermark)
        dead &= self.column("ended_by") != NEVER
        found: Indices = position[dead]
        return found

    # checkpoints

    def to_table(self, start: int) -> Any:
        """Events from index `start` on as an Arrow table: what a CHECKPOINT frame carries."""
        import pyarrow as pa

        columns: dict[str, Any] = {name: pa.array(self.column(name)[start:]) for name in _STORED}
        columns["id"] = pa.array(self._ids[start:], pa.string())
        for name in _SCOPES:
            used, codes = np.unique(self.column(name)[start:], return_inverse=True)
            none = used[codes] == 0
            names = pa.array([self._names[code] for code in used], pa.string())
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=none), names)
        table, surprises = pa.table(columns), self.column("surprise")[start:]
        if not np.isnan(surprises).all():
            table = table.append_column("surprise", pa.array(surprises, from_pandas=True))  # NaN: null
        return table

    def load(self, table: Any) -> None:
        """Add the events of a checkpoint, as if each had been applied."""
        count, start = table.num_rows, self._grow(table.num_rows)
        for name in _STORED:
            self._data[name][start : start + count] = table[name].to_numpy()
        for name in _SCOPES:
            self._data[name][start : start + count] = self._intern(table[name].combine_chunks())
        if "surprise" in table.column_names:  # not before 1.1
            self._data["surprise"][start : start + count] = table["surprise"].to_numpy()
        ids = table["id"].to_pylist()
        self._ids.extend(ids)
        if self._all_new(ids, start):
            self._current.update(zip(ids, range(start, start + count), strict=True))
            self._data["first"][start : start + count] = self._data["position"][start : start + count]
            self.alive_count += count
        else:
            for i in range(start, start + count):
                self._link(i)

    def _all_new(self, ids: list[str], start: int) -> bool:
        unique = set(ids)
        puts = not self._data["kind"][start : start + len(ids)].any()
        return puts and len(unique) == len(ids) and self._current.keys().isdisjoint(unique)

    def _intern(self, column: Any) -> npt.NDArray[np.int32]:
        column = column.chunk(0) if hasattr(column, "num_chunks") else column
        codes = np.array([self._code(name) for name in column.dictionary.to_pylist()] or [0], np.int32)
        # not fill_null: pyarrow.compute, which it imports, costs a third of opening 100,000 rows
        indices = column.indices.to_numpy(zero_copy_only=False)  # where there are nulls: float, and NaN for them
        valid = ~np.isnan(indices)
        return np.where(valid, codes[np.where(valid, indices, 0).astype(np.int32)], 0).astype(np.int32)

    def events(self, mask: Mask | None = None) -> Iterator[int]:
        """Indices in log order, of all events or of the masked ones."""
        yield from (range(self._size) if mask is None else np.flatnonzero(mask).tolist())
