"""Bands in the log: which were let in, what each was made from, and which are in force. Implements docs/format.md §4.

A band is what a sleep of the slow tier leaves in the file: one BAND frame with its lineage and, if it was let in, its
parameters. A later BAND frame may switch it off or on again. Of the bands for one purpose (kind, family of scopes,
model) the newest that was promoted and is not off is in force.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from memkit_storage.errors import CorruptRecord
from memkit_storage.format import FrameType
from memkit_storage.records import unpack
from memkit_storage.store import Store

Purpose = tuple[str, tuple[str | None, ...], str | None]  # kind, family, model
Value = dict[str, Any]
KEPT = 2  # bands of a purpose, besides the one in force, whose parameters a compaction keeps


@dataclass(frozen=True, slots=True)
class Record:
    """A band without its parameters.

    Attributes:
        value: the payload of its frame, without `arrays`. offset: of the frame. size: bytes of its parameters.
        on: not switched off since.
    """

    value: Value
    offset: int
    size: int
    on: bool

    @property
    def id(self) -> str:
        """Of the band."""
        return str(self.value["band"])

    @property
    def purpose(self) -> Purpose:
        """What it competes for with others."""
        return str(self.value["kind"]), tuple(self.value["family"]), self.value.get("model")

    @property
    def usable(self) -> bool:
        """It was let in, has its parameters, and is not off."""
        return self.on and self.value["verdict"] == "promoted" and self.size > 0


def records(store: Store) -> list[Record]:
    """Every band of a file, oldest first; frames that are damaged or not as the format says are left out."""
    found: dict[str, Record] = {}
    with store.lock:
        for offset, value in _frames(store):
            if "switch" in value:
                old = found.get(value["switch"])
                if old is not None:
                    found[old.id] = Record(old.value, old.offset, old.size, bool(value["on"]))
            elif _is_sound(value):
                arrays = value.pop("arrays", b"")
                found[value["band"]] = Record(value, offset, len(arrays), on=True)
    return list(found.values())


def _frames(store: Store) -> Iterator[tuple[int, Value]]:
    for offset in store.learning:
        with suppress(CorruptRecord):
            frame = store.log.read(offset)
            if frame.header.type == FrameType.BAND:
                yield offset, unpack(frame)


def _is_sound(value: Value) -> bool:
    named = isinstance(value.get("band"), str) and isinstance(value.get("kind"), str)
    made = isinstance(value.get("family"), list) and isinstance(value.get("verdict"), str)
    covers = value.get("covers", [])
    return named and made and isinstance(covers, list) and all(len(one) == 2 for one in covers)


def in_force(found: Iterable[Record]) -> dict[Purpose, Record]:
    """The band in force for each purpose that has one."""
    return {record.purpose: record for record in found if record.usable}


def arrays(store: Store, record: Record) -> bytes:
    """The parameters of a band, in the safetensors format.

    Raises:
        CorruptRecord: its bytes are damaged.
    """
    with store.lock:
        return bytes(unpack(store.log.read(record.offset)).get("arrays", b""))


def descendants(found: Sequence[Record], band: str) -> list[str]:
    """A band and every one that was made starting from it, oldest first."""
    line = {band}
    for record in found:
        if record.value.get("parent") in line:
            line.add(record.id)
    return [record.id for record in found if record.id in line]


def tainted(found: Sequence[Record], positions: Iterable[int]) -> set[str]:
    """The bands that were made from any of these versions, and those that descend from them."""
    ordered = sorted(positions)
    return {id_ for record in found if _covers(record, ordered) for id_ in descendants(found, record.id)}


def _covers(record: Record, ordered: Sequence[int]) -> bool:
    for first, last in record.value.get("covers", []):
        at = bisect_left(ordered, first)
        if at < len(ordered) and ordered[at] <= last:
            return True
    return False


def ranges(positions: Iterable[int]) -> list[list[int]]:
    """Positions as ascending ranges, both ends within: what `covers` of a BAND frame holds."""
    found: list[list[int]] = []
    for position in sorted(set(positions)):
        if found and position == found[-1][1] + 1:
            found[-1][1] = position
        else:
            found.append([position, position])
    return found


def rewritten(store: Store, erased: Sequence[int] = ()) -> Iterator[tuple[FrameType, Value]]:
    """Under the lock: the bands that a rewrite keeps, as frames. Every lineage stays; the parameters of the newest few
    of a purpose do, unless they were made, or descend from one that was made, from versions that are erased."""
    found = records(store)
    gone = tainted(found, erased)
    whole: dict[Purpose, list[str]] = {}
    for record in found:
        if record.value["verdict"] == "promoted" and record.id not in gone:
            whole.setdefault(record.purpose, []).append(record.id)
    kept = {id_ for ids in whole.values() for id_ in ids[-1 - KEPT :]}
    kept |= {record.id for record in in_force(found).values()} - gone
    for record in found:
        value = dict(record.value)
        if record.id in kept:
            value["arrays"] = arrays(store, record)
        if record.id in gone:
            value = _tainted(value)
        yield FrameType.BAND, value
        if not record.on or record.id in gone:
            yield FrameType.BAND, {"switch": record.id, "on": False, "time": value["time"], "reason": "rewritten"}


def _tainted(value: Value) -> Value:
    """What may be told of a band that knew something erased: that it was, and nothing of what it was made from."""
    kept = ("band", "kind", "family", "verdict", "time", "parent", "model", "user_id", "agent_id", "run_id")
    return {name: value[name] for name in kept if name in value} | {"reasons": ["made from items erased since"]}
