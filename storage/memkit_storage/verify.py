"""Prove that a log is what was written, or list every byte range that is not. Implements docs/format.md §7.

`verify` reads the whole file and writes nothing. `repair` cuts an incomplete tail and notes known damage in the log;
it never removes or changes a readable frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memkit_storage import files
from memkit_storage.catalog import Catalog, Place
from memkit_storage.format import (
    HEADER_SIZE,
    IDENTITY_SIZE,
    FrameType,
    Head,
    damaged_identities,
    damaged_slots,
    decode_heads,
    stray_bytes,
)
from memkit_storage.log import Log, now_us
from memkit_storage.records import decode_events, from_ipc, matrix, unpack
from memkit_storage.scan import Damage, Frame, Kind, scan
from memkit_storage.store import UNUSABLE, Store

Progress = Callable[[int, int], None]
_REQUIRED: dict[int, tuple[str, ...]] = {
    FrameType.CONFIG: ("embedder", "dim", "epoch"),
    FrameType.VECTORS: ("epoch", "arrow"),
}


@dataclass(frozen=True)
class VerifyReport:
    """What a full read of a log found.

    Attributes:
        ok: no damage but what a repair, or the first append after it, has noted in the log.
        head: hex chain value of the last frame: note it elsewhere, and `verify(head=...)` proves later that the log
            still begins with everything it held then.
        damage: byte ranges that cannot be trusted; `noted` those that the log itself knows of.
    """

    path: str
    frames: int
    items: int
    versions: int
    size: int
    generation: int
    position: int
    head: str
    damage: tuple[Damage, ...] = ()
    noted: tuple[Damage, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written, or its damage was acknowledged by `repair`."""
        return not self.damage


def verify(path: str | Path, *, head: str | None = None, progress: Progress | None = None) -> VerifyReport:
    """Read every frame of the log at `path` and check checksums, hash chain, order, checkpoints and heads.

    Args:
        head: a chain value that an earlier report gave; it must still be in the log.
        progress: called with (bytes read, bytes in all).

    Raises:
        NotAMemory, FormatTooNew: the file cannot be read at all.
    """
    log = Log(path, create=False)
    try:
        return _Verification(log, progress).run(head)
    finally:
        log.close()


@dataclass
class _Verification:
    log: Log
    progress: Progress | None
    catalog: Catalog = field(default_factory=Catalog)
    damage: list[Damage] = field(default_factory=list)
    acknowledged: set[tuple[int, int]] = field(default_factory=set)
    lost: list[Damage] = field(default_factory=list)  # what earlier repairs said is gone
    reached: dict[int, tuple[bytes, int]] = field(default_factory=dict)  # end of frame -> chain value, next position
    notes: list[int] = field(default_factory=list)  # offsets
    checkpoints: dict[int, int] = field(default_factory=lambda: {0: 0})  # offset -> events up to there
    frames: int = 0

    def run(self, head: str | None) -> VerifyReport:
        log, cursor = self.log, self.log.start
        self.reached[cursor.offset] = (log.header.genesis, 0)
        with files.locked(log.descriptor):  # an append in flight is not damage
            page, size = files.pread(log.descriptor, HEADER_SIZE, 0), log.size
        for event in scan(log.read_at, size, cursor, log.header.seed):
            if isinstance(event, Damage):
                self.damage.append(event)
            else:
                self._frame(event)
            if self.progress:
                self.progress(cursor.offset, size)
        self.damage += [Damage("padding", at, 1, "a byte that must be zero is not") for at in stray_bytes(page)]
        self.damage += [
            Damage("header", at, IDENTITY_SIZE, "one of the two copies of the file's identity is damaged")
            for at in damaged_identities(page, log.header)
        ]
        heads = decode_heads(page)
        self._check_heads(heads, damaged_slots(page), cursor.offset)
        if head is not None and head.lower() not in {chain.hex() for chain, _ in self.reached.values()}:
            self.damage.append(Damage("lost", cursor.offset, 0, f"the noted head {head[:16]}… is not in this log"))
        return self._report(cursor.chain or b"", cursor.position, size)

    def _frame(self, frame: Frame) -> None:
        self.frames += 1
        self.reached[frame.end] = (frame.header.chain, frame.header.position + frame.header.span)
        padding = -frame.header.length % 8
        if any(self.log.read_at(frame.end - padding, padding)):
            self.damage.append(Damage("padding", frame.end - padding, padding, "padding that must be zero is not"))
        if hashlib.sha256(frame.payload).digest() != frame.header.digest:
            self._bad(frame, "payload", "digest differs: the content was edited")
            return
        try:
            events = list(decode_events(frame))
            if not events:
                self._note(frame)
        except UNUSABLE as error:
            self._bad(frame, "payload", f"checksums hold, but the content cannot be decoded ({error!r})")
            return
        for slot, event in enumerate(events):
            self.catalog.apply(event, Place(frame.offset, slot))

    def _bad(self, frame: Frame, kind: Kind, detail: str) -> None:
        self.damage.append(Damage(kind, frame.offset, frame.header.size, detail))

    def _note(self, frame: Frame) -> None:
        value = unpack(frame)
        if frame.header.type == FrameType.CHECKPOINT:
            if not self._agrees(value):
                self._bad(frame, "checkpoint", "contradicts the frames before it")
            self.checkpoints[frame.offset] = value["start"] + value["events"]
            return
        self.notes.append(frame.offset)
        if missing := [key for key in _REQUIRED.get(frame.header.type, ()) if key not in value]:
            raise LookupError(f"{', '.join(missing)} not in the map")
        if frame.header.type == FrameType.VECTORS:
            matrix(from_ipc(value["arrow"])["vector"])
        if frame.header.type == FrameType.REPAIR:
            self.acknowledged |= {(offset, length) for offset, length in value.get("noted", [])}
            if value.get("lost"):
                offset, length = value["lost"]
                self.lost.append(Damage("lost", offset, length, "these bytes had been acknowledged"))

    def _agrees(self, value: dict[str, Any]) -> bool:
        """A checkpoint must say exactly what the frames before it say, unless some of those are unreadable."""
        if any(d.kind in ("hole", "payload", "order") for d in self.damage):
            return True
        previous, start = value["previous"], value["start"]
        follows = self.checkpoints.get(previous) == start and value["events"] == len(self.catalog) - start
        mine, theirs = self.catalog.to_table(start), from_ipc(value["arrow"])
        return (
            follows
            and value["notes"] == [offset for offset in self.notes if offset > previous]
            and all(mine[name].to_pylist() == theirs[name].to_pylist() for name in mine.column_names)
        )

    def _check_heads(self, heads: list[Head], bad_slots: list[int], end: int) -> None:
        for slot in bad_slots:
            self.damage.append(Damage("head", slot, 72, "head slot is damaged"))
        for head in heads:
            if head.end > end:
                gone = Damage("lost", end, head.end - end, "these bytes had been acknowledged and are not in the log")
                self.damage = [d for d in self.damage if d.kind != "torn"] + [gone]
                break
            same = self.reached.get(head.end) == (head.chain, head.position) and head.checkpoint in self.checkpoints
            if not same and not self._behind_damage(head.end):
                self.damage.append(Damage("head", head.end, 0, "the log differs from what its head witnessed"))

    def _behind_damage(self, end: int) -> bool:
        return any(d.offset + d.length == end for d in self.damage)

    def _report(self, chain: bytes, position: int, size: int) -> VerifyReport:
        noted = [damage for damage in self.damage if (damage.offset, damage.length) in self.acknowledged]
        return VerifyReport(
            path=str(self.log.path),
            frames=self.frames,
            items=self.catalog.alive_count,
            versions=int((self.catalog.column("kind") == 0).sum()),
            size=size,
            generation=self.log.header.generation,
            position=position,
            head=chain.hex(),
            damage=tuple(d for d in self.damage if d not in noted),
            noted=tuple(self.lost + noted),
        )


def repair(path: str | Path, *, dry_run: bool = False) -> list[str]:
    """Make a damaged log whole again as far as its readable frames go. Returns what was (or would be) done.

    An incomplete tail is cut, the file's header and heads are written anew. Damage in the middle stays where it is and
    is noted in the log, so that opening and `verify` know it. No readable frame is removed or changed.
    """
    report = verify(path)
    actions = list(_actions(report))
    if actions and not dry_run:
        store = Store(path)
        with store.lock, store.exclusive():
            store.log.restore_header()
            noted = [[d.offset, d.length] for d in report.damage if d.kind not in _MENDED]
            if noted:
                store.append_note(FrameType.REPAIR, {"time": now_us(), "cut": [], "lost": [], "noted": noted})
            store.restart_checkpoints()
        store.close()
    return actions


_MENDED = ("torn", "lost", "header", "head")  # what a repair makes whole, or what opening notes


def _actions(report: VerifyReport) -> Iterator[str]:
    for damage in report.damage:
        if damage.kind == "torn":
            yield f"cut the incomplete tail at byte {damage.offset} ({damage.length} bytes, never acknowledged)"
        elif damage.kind == "lost":
            yield f"note that {damage.length} acknowledged bytes from byte {damage.offset} on are gone"
        elif damage.kind in ("header", "head"):
            yield f"write it anew: {damage}"
        else:
            yield f"note as damaged: {damage}"
