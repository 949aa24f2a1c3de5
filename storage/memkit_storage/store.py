"""What a .mem file holds: items, their versions and their history, replayed from the log and written back to it.

A store keeps the catalog (where every version stands) in memory and reads rows from the log. Searching is the
business of `memkit_storage.index`, which listens to the same replay.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from memkit_storage.catalog import Catalog, Place
from memkit_storage.errors import CorruptRecord, DamageWarning, InvalidInput, MemkitError, NotAMemory, StorageFailed
from memkit_storage.filters import Filter
from memkit_storage.format import IGNORABLE, LEARNING, FrameType
from memkit_storage.log import Append, Durability, Log, now_us
from memkit_storage.records import (
    Delete,
    Event,
    decode_events,
    encode_events,
    event_time,
    from_ipc,
    matrix,
    pack,
    to_disk_precision,
    to_ipc,
    unpack,
)
from memkit_storage.rows import Row, Vector
from memkit_storage.scan import Damage, Frame

CHECKPOINT_EVENTS = 4096  # a scan of that many frames costs about 30 ms at opening
CHECKPOINT_ON_CLOSE = 256
_FRAME_CACHE = 256
# what decoding raises when checksums hold but the content is not what a frame of its type has
UNUSABLE = (MemkitError, LookupError, ValueError, TypeError, AttributeError, OSError)


class Listener(Protocol):
    """Something derived from the log that follows it: told of every version that begins or ends."""

    def put(self, row: Row) -> None:
        """A version is alive now."""

    def end(self, position: int) -> None:
        """The version at this log position is not alive any more."""

    def reset(self) -> None:
        """The log was replaced or its vectors changed: everything derived is stale."""


class Store:
    """One open .mem file. Thread-safe; several processes may have the same file open.

    Raises (on opening): NotAMemory, FormatTooNew, ReadOnly, StorageFailed.
    """

    def __init__(self, path: str | Path, *, durability: Durability = "fsync") -> None:
        self.lock = threading.RLock()
        self.log = Log(path, durability=durability)
        self.listener: Listener | None = None
        self._dirty = False
        self._is_held = False  # the appender's lock, by the thread that has `lock`
        try:
            self._load()
        except BaseException:
            self.log.close()
            raise

    @classmethod
    @contextmanager
    def existing(cls, path: str | Path) -> Iterator[Store]:
        """A store for reading, closed at the end of the block.

        Raises:
            NotAMemory: there is no .mem file at the path.
        """
        if not Path(path).exists():
            raise NotAMemory(f"{path} does not exist; check the path")
        store = cls(path)
        try:
            yield store
        finally:
            store.close()

    # opening and following the log

    def _load(self, *, alone: bool = False) -> None:
        """Read the log from its start or newest checkpoint; `alone`: the caller holds the appender's lock."""
        self._frames: OrderedDict[int, Sequence[Event] | Vector] = OrderedDict()
        self._warned = 0
        self._forget()
        self._load_checkpoints()
        self._follow()
        for frame in self.log.check_tail(alone=alone):
            self._apply(frame)
        self._warn()

    def _forget(self) -> None:
        self.catalog = Catalog()
        self.config: dict[str, Any] = {}
        self.notes: list[tuple[FrameType, dict[str, Any]]] = []
        self._note_offsets: list[int] = []
        self.learning: list[int] = []  # offsets of what the learned tiers recorded
        self._vectors: dict[int, Place] = {}  # position -> place in a VECTORS frame, after an embedder change
        self._staged: dict[int, dict[int, Place]] = {}  # the same for epochs that no CONFIG has put in force yet
        self._checkpoint, self._checkpointed = 0, 0

    def _load_checkpoints(self) -> None:
        head = self.log.head
        if head is None or not head.checkpoint:
            return
        try:
            self._replay_checkpoints(self._checkpoint_chain(head.checkpoint))
        except UNUSABLE as error:
            self._forget()
            self.log.cursor = self.log.start
            detail = f"not usable ({error}); the log was read from its start instead"
            self.log.damage.append(Damage("checkpoint", head.checkpoint, 0, detail))

    def _checkpoint_chain(self, offset: int) -> list[Frame]:
        frames = []
        while offset:
            frame = self.log.read(offset)
            if frame.header.type != FrameType.CHECKPOINT:
                raise CorruptRecord(f"no checkpoint at byte {offset}", offset=offset)
            frames.append(frame)
            offset = unpack(frame)["previous"]
        return frames[::-1]

    def _replay_checkpoints(self, frames: list[Frame]) -> None:
        for frame in frames:
            value = unpack(frame)
            if value["start"] != len(self.catalog):
                raise ValueError("checkpoints do not follow each other")
            self.catalog.load(from_ipc(value["arrow"]))
            for offset in value["notes"]:
                self._apply_note(self.log.read(offset))
        self._checkpoint, self._checkpointed = frames[-1].offset, len(self.catalog)
        self.log.resume(frames[-1])

    def refresh(self) -> None:
        """See everything that was acknowledged so far, by this process or another one."""
        with self.lock:
            if self.log.replaced():
                self.reload()
            self._follow()
            self._warn()

    def reload(self) -> None:
        """Under the lock: the path names another file now; start again from that one."""
        self.log.reopen()
        self._load()
        self._notify_reset()

    def _notify_reset(self) -> None:
        if self.listener:
            self.listener.reset()

    def _follow(self, *, alone: bool = False) -> None:
        for frame in self.log.catch_up(alone=alone):
            self._apply(frame)

    def _apply(self, frame: Frame) -> None:
        try:
            events = list(decode_events(frame))
            if not events:
                self._apply_note(frame)
        except UNUSABLE as error:
            detail = f"checksums hold, but the content cannot be decoded ({error!r}): a faulty writer"
            self.log.damage.append(Damage("payload", frame.offset, frame.header.size, detail))
            return
        for slot, event in enumerate(events):
            self._apply_event(event, Place(frame.offset, slot))

    def _apply_event(self, event: Event, place: Place) -> None:
        index = len(self.catalog)
        ended = self.catalog.apply(event, place)
        if self.listener is None:
            return
        if ended is not None:
            self.listener.end(int(self.catalog.column("position")[ended]))
        if isinstance(event, Row) and self.catalog.index(event.id) == index:
            self.listener.put(event)

    def _apply_note(self, frame: Frame) -> None:
        value = unpack(frame)
        match frame.header.type:
            case FrameType.CHECKPOINT:
                follows = value["start"] + value["events"] == len(self.catalog)
                self._checkpoint = frame.offset if follows else 0
                self._checkpointed = len(self.catalog) if follows else 0
                return
            case FrameType.CONFIG:
                if value["epoch"] != self.config.get("epoch", value["epoch"]):
                    self._vectors = self._staged.pop(value["epoch"], {})
                    self._notify_reset()
                self.config = value
            case FrameType.VECTORS:
                positions = from_ipc(value["arrow"])["position"].to_pylist()
                staged = self._staged.setdefault(value["epoch"], {})
                staged.update((p, Place(frame.offset, slot)) for slot, p in enumerate(positions))
            case FrameType.FEEDBACK | FrameType.STATE | FrameType.BAND:
                self.learning.append(frame.offset)
            case _:
                self.notes.append((FrameType(frame.header.type), value))
        self._note_offsets.append(frame.offset)

    def _warn(self) -> None:
        for damage in self.log.damage[self._warned :]:
            warnings.warn(f"{self.log.path}: {damage}; run `memkit verify`", DamageWarning, stacklevel=3)
        self._warned = len(self.log.damage)

    # reading

    def row(self, index: int) -> Row:
        """The version at a catalog index.

        Raises:
            CorruptRecord: its bytes are damaged.
        """
        place = self.catalog.place(index)
        events = self._decoded(place.offset)
        row = None if isinstance(events, np.ndarray) or place.slot >= len(events) else events[place.slot]
        named = (self.catalog.id(index), int(self.catalog.column("position")[index]))
        if not isinstance(row, Row) or (row.id, row.position) != named:  # a checkpoint said so
            raise CorruptRecord(
                f"{self.log.path}: byte {place.offset} does not hold version {named[1]} of {named[0]!r}; "
                "`memkit verify` lists what is damaged",
                path=str(self.log.path),
                offset=place.offset,
            )
        return replace(row, first=self.catalog.first(index), vector=self._vector(row))

    def _vector(self, row: Row) -> Vector:
        place = self._vectors.get(row.position)
        if place is None:
            return row.vector
        vectors = self._decoded(place.offset)
        assert isinstance(vectors, np.ndarray)
        return np.asarray(vectors[place.slot], np.float32)

    def _decoded(self, offset: int) -> Sequence[Event] | Vector:
        if offset in self._frames:
            self._frames.move_to_end(offset)
            return self._frames[offset]
        frame = self.log.read(offset)
        decoded: Sequence[Event] | Vector
        if frame.header.type == FrameType.VECTORS:
            decoded = matrix(from_ipc(unpack(frame)["arrow"])["vector"])
        else:
            decoded = decode_events(frame)
        self._frames[offset] = decoded
        if len(self._frames) > _FRAME_CACHE:
            self._frames.popitem(last=False)
        return decoded

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Under the lock: versions at catalog indices; a damaged one is reported (DamageWarning) and left out."""
        for index in indices:
            try:
                yield self.row(index)
            except CorruptRecord as error:
                damage = Damage("payload", error.offset, 0, "an item could not be read")
                if damage not in self.log.damage:
                    self.log.damage.append(damage)
                self._warn()

    def get(self, id_: str, as_of: int | None = None) -> Row | None:
        """The living version of an id, now or at a time (µs)."""
        with self.lock:
            index = self.catalog.index(id_) if as_of is None else self._index_at(id_, as_of)
            return None if index is None else self.row(index)

    def _index_at(self, id_: str, as_of: int) -> int | None:
        past = [i for i in self.catalog.history(id_) if self.catalog.time(i) <= as_of]
        return past[-1] if past and not self.catalog.is_delete(past[-1]) else None

    def owner(self, id_: str) -> tuple[str | None, str | None, str | None] | None:
        """The scope of the newest version of an id, living or past; None if the id was never used."""
        with self.lock:
            versions = [i for i in self.catalog.history(id_) if not self.catalog.is_delete(i)]
            return self.catalog.scope(versions[-1]) if versions else None

    def history(self, id_: str) -> list[Event]:
        """Every version and deletion of an id, oldest first. Damaged versions are reported and left out."""
        with self.lock:
            return list(self.events(self.catalog.history(id_)))

    def events(self, indices: Iterable[int]) -> Iterator[Event]:
        """Under the lock: versions and deletions at catalog indices; damaged versions are reported and left out."""
        for i in indices:
            if self.catalog.is_delete(i):
                yield Delete(self.catalog.id(i), self.catalog.time(i), int(self.catalog.column("position")[i]))
            else:
                yield from self.rows([i])

    def select(
        self, where: Filter, *, as_of: int | None = None, after: int = -1, limit: int | None = None
    ) -> list[Row]:
        """Living versions that match, in the order in which their items were first recorded, from `first` > after."""
        with self.lock:
            matching = (row for row in self.rows(self._in_order(where, as_of, after)) if where.matches(row))
            return list(islice(matching, limit))

    def selecting(self, where: Filter) -> Callable[[], list[Row]]:
        """Select now, while others may write. What it returns, called in a transaction, gives what `select` would give
        there, and reads no more of the file than what matched and what was written since.
        """
        with self.lock:
            self.refresh()
            catalog, seen = self.catalog, len(self.catalog)
            ids = [row.id for row in self.select(where)]

        def select() -> list[Row]:
            if self.catalog is not catalog:  # the file was rewritten meanwhile
                return self.select(where)
            newer = (catalog.id(i) for i in range(seen, len(catalog)))
            alive = (catalog.index(id_) for id_ in dict.fromkeys([*ids, *newer]))
            rows = self.rows(index for index in alive if index is not None)
            return sorted((row for row in rows if where.matches(row)), key=lambda row: row.first)

        return select

    def _in_order(self, where: Filter, as_of: int | None, after: int) -> list[int]:
        first = self.catalog.column("first")
        mask = self.catalog.alive(as_of) & self.catalog.in_scope(where.scope()) & (first > after)
        indices = np.flatnonzero(mask)
        ordered: list[int] = indices[np.argsort(first[indices], kind="stable")].tolist()
        return ordered

    # writing

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Collect changes on the current state and write them when the block ends, then make them durable.

        An error leaves none of them; a crash in the middle of a long one may leave the first of them.

        Raises:
            ReadOnly, StorageFailed: nothing was written.
        """
        with self.lock, self.exclusive():
            change = Transaction(self)
            yield change
            change.events = self.write(change.events)
            end = self.log.cursor.offset
        if change.events:
            self.log.commit(end)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the appender's lock with everything caught up and an incomplete tail cut; call with `lock` held.

        Raises:
            InvalidInput: it is held already: a callable that a change calls makes a change of its own.
        """
        if self._is_held:
            raise InvalidInput("a change is under way, and what it calls must not change the memory; do that after it")
        with self.log.appending() as replaced:
            self._is_held = True
            try:
                self._catch_up(replaced)
                yield
            finally:
                self._is_held = False

    def _catch_up(self, replaced: bool) -> None:
        if replaced:
            self._load(alone=True)
            self._notify_reset()
        self._follow(alone=True)
        self._warn()
        self._repair_tail()

    def _repair_tail(self) -> None:
        """Cut what a crash left incomplete, and say in the log what was cut or is missing."""
        lost = self.log.missing
        cut = self.log.cut_tail()
        if cut or lost:
            self.append_note(FrameType.REPAIR, {"time": now_us(), "cut": list(cut or ()), "lost": list(lost or ())})
            self._mark_anew()

    def _mark_anew(self) -> None:
        """Overwrite both heads: what they witnessed is not there any more, and a note in the log says so."""
        self.log.mark(self._checkpoint)
        self.log.mark(self._checkpoint)

    def write(self, events: list[Event], *, keep_positions: bool = False) -> list[Event]:
        """Under the lock (`exclusive`): append events and apply them. Returns them with their positions."""
        if not events:
            return []
        frames, placed = encode_events(events, self.log.cursor.position, keep_positions=keep_positions)
        offsets = self.log.append([frame.append for frame in frames])
        self._dirty = True
        for frame, offset in zip(frames, offsets, strict=True):
            for slot, event in enumerate(frame.events):
                self._apply_event(event, Place(offset, slot))
        if len(self.catalog) - self._checkpointed >= CHECKPOINT_EVENTS:
            self._try_checkpoint()
        return placed

    def _try_checkpoint(self) -> None:
        """What is written stays written when the disk has no room for this: opening takes longer, that is all."""
        with suppress(StorageFailed):
            self.checkpoint()

    def append_note(self, kind: FrameType, value: dict[str, Any], span: int = 0) -> None:
        """Under the lock: record something that is not a row."""
        frame: Append = (kind, pack(value), span)
        (offset,) = self.log.append([frame], flags=IGNORABLE if kind in LEARNING else 0)
        self._dirty = True
        self._apply_note(self.log.read(offset))

    def record_learning(self, kind: FrameType, value: dict[str, Any], *, made_from: Sequence[int] = ()) -> bool:
        """Append what the learned tiers record, and make it durable.

        Args:
            made_from: log positions of the versions that it was learned from.

        Returns:
            False, and nothing is written, if one of them was erased meanwhile.

        Raises:
            ReadOnly, StorageFailed: nothing was written.
        """
        with self.lock, self.exclusive():
            if len(self.catalog.by_position(made_from)) < len(made_from):
                return False
            self.append_note(kind, value)
            end = self.log.cursor.offset
        self.log.commit(end)
        return True

    def learned(self, start: int) -> Iterator[tuple[FrameType, dict[str, Any]]]:
        """Under the lock: what the learned tiers recorded, in order, from the `start`-th on; damage is left out."""
        for offset in self.learning[start:]:
            with suppress(CorruptRecord):
                frame = self.log.read(offset)
                yield FrameType(frame.header.type), unpack(frame)

    def checkpoint(self) -> None:
        """Under the lock: record the catalog's newest part, so that opening need not scan for it."""
        value = {
            "previous": self._checkpoint,
            "start": self._checkpointed,
            "events": len(self.catalog) - self._checkpointed,
            "notes": [o for o in self._note_offsets if o > self._checkpoint],
            "arrow": to_ipc(self.catalog.to_table(self._checkpointed)),
        }
        (offset,) = self.log.append([(FrameType.CHECKPOINT, pack(value), 0)])
        self._checkpoint, self._checkpointed = offset, len(self.catalog)
        self.log.mark(offset)

    def skip_to(self, position: int) -> None:
        """Under the lock: let the next row have this position; what stood before it was erased."""
        gap = position - self.log.cursor.position
        if gap > 0:
            self.append_note(FrameType.REPAIR, {"time": now_us(), "erased_before": position}, span=gap)

    def restart_checkpoints(self) -> None:
        """Under the lock: write one new checkpoint of everything readable, and heads that point to it."""
        self._checkpoint, self._checkpointed = 0, 0
        self.checkpoint()
        self._mark_anew()

    def configure(self, value: dict[str, Any]) -> dict[str, Any]:
        """Record the file's settings (the embedder's identity) if it has none yet. Returns those in force."""
        with self.lock, nullcontext() if self._is_held else self.exclusive():
            if not self.config:
                self.append_note(FrameType.CONFIG, {"epoch": 0, **value})
            return self.config

    def close(self) -> None:
        """Witness the end of the log in its head, and give the file back."""
        with self.lock:
            try:
                if self._dirty and self.log.writable:
                    self._dirty = False
                    self._witness()
            finally:
                self.log.close()

    def _witness(self) -> None:
        with self.exclusive():
            if len(self.catalog) - self._checkpointed >= CHECKPOINT_ON_CLOSE:
                self._try_checkpoint()
            self.log.mark()
            end = self.log.cursor.offset
        self.log.commit(end)


class Transaction:
    """Changes that will be written together. Reads see the state before them, plus the changes themselves.

    Attributes:
        events: the changes in order; once the block has ended, as they stand in the log, with their positions.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._start = store.log.cursor.position
        self._pending: dict[str, int] = {}
        self.events: list[Event] = []

    def pending(self, id_: str) -> int | None:
        """Index in `events` of this transaction's last change to an id."""
        return self._pending.get(id_)

    def get(self, id_: str) -> Row | None:
        """The living version of an id, with the changes of this transaction."""
        at = self._pending.get(id_)
        if at is None:
            return self._store.get(id_)
        event = self.events[at]
        return event if isinstance(event, Row) else None

    def put(self, row: Row) -> int:
        """A new version; returns its index in `events`. Its time is after every earlier event of the item."""
        time_us = max(row.updated_us, self._last(row.id) + 1)
        position = self._start + len(self.events)  # where it will stand: nobody else writes meanwhile
        return self._add(replace(row, updated_us=time_us, vector=to_disk_precision(row.vector), position=position))

    def delete(self, id_: str) -> int:
        """End an item now; returns the index in `events`."""
        return self._add(Delete(id_, max(now_us(), self._last(id_) + 1)))

    def record(self, event: Event) -> int:
        """An event that happened elsewhere, with its own time (a merge); returns the index in `events`."""
        if isinstance(event, Row):
            event = replace(event, vector=to_disk_precision(event.vector))
        return self._add(event)

    def _add(self, event: Event) -> int:
        self._pending[event.id] = len(self.events)
        self.events.append(event)
        return len(self.events) - 1

    def _last(self, id_: str) -> int:
        at = self._pending.get(id_)
        if at is None:
            return self._store.catalog.last_time(id_)
        return event_time(self.events[at])
