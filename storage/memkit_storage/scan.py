"""Reading a log forward from a known place: which frames are there, and which bytes are damaged.

Implements the recovery rule of docs/format.md §6: an incomplete tail ends the log, damage in the middle is passed
over to the next valid frame, and either is reported. Never writes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from memkit_storage.format import (
    FRAME_HEADER_SIZE,
    FRAME_MAGIC,
    FrameHeader,
    decode_frame_header,
)

ReadAt = Callable[[int, int], bytes]  # (offset, size) -> bytes, short at the end of the file
_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class Frame:
    """A valid frame: where it stands, its header and its payload."""

    offset: int
    header: FrameHeader
    payload: bytes

    @property
    def end(self) -> int:
        """Offset of the byte after the frame."""
        return self.offset + self.header.size


Kind = Literal["torn", "lost", "payload", "hole", "link", "order", "header", "head", "checkpoint", "padding"]


@dataclass(frozen=True, slots=True)
class Damage:
    """A range of bytes that cannot be trusted.

    Kinds: `torn` incomplete last frame, never acknowledged; `lost` bytes that had been acknowledged are gone;
    `payload` one frame whose content fails its checksum; `hole` unreadable bytes between frames; `link` a frame that
    does not follow from the one before it; `order` a frame that repeats positions; `header` one of the two copies
    of the file's identity; `head` / `checkpoint` an accelerator that contradicts the log; `padding` bytes that must
    be zero.
    """

    kind: Kind
    offset: int
    length: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} at byte {self.offset} ({self.length} bytes): {self.detail}"


@dataclass(slots=True)
class Cursor:
    """How far a scan has come: next byte, next row position, chain value (None: unknown after a hole)."""

    offset: int
    position: int
    chain: bytes | None


class _Window:
    """Forward reads in large pieces."""

    def __init__(self, read: ReadAt) -> None:
        self._read = read
        self._start = 0
        self._data = b""

    def get(self, offset: int, size: int) -> bytes:
        start = offset - self._start
        if start < 0 or start + size > len(self._data):
            self._start, start = offset, 0
            self._data = self._read(offset, max(size, _WINDOW))
        return self._data[start : start + size]


def scan(read: ReadAt, size: int, cursor: Cursor, seed: int) -> Iterator[Frame | Damage]:
    """Yield frames and damage from `cursor` to byte `size`, moving the cursor past everything that was read.

    The cursor stays before an incomplete tail, so that a later scan sees it again once it is whole.
    """
    window = _Window(read)
    while cursor.offset < size:
        offset = cursor.offset
        header = decode_frame_header(window.get(offset, FRAME_HEADER_SIZE), seed)
        if header is None or offset + header.size > size:
            why = "no valid frame header" if header is None else f"a frame of {header.size} bytes is incomplete"
            found = _resync(window, offset, size, cursor.position, seed)
            if found is None:
                yield Damage("torn", offset, size - offset, f"{why}, and no valid frame follows")
                return
            yield Damage("hole", offset, found - offset, f"{why} after position {cursor.position - 1}")
            cursor.offset, cursor.chain = found, None
            continue
        yield from _accept(Frame(offset, header, window.get(offset + FRAME_HEADER_SIZE, header.length)), cursor)


def _accept(frame: Frame, cursor: Cursor) -> Iterator[Frame | Damage]:
    header = frame.header
    cursor.offset = frame.end
    if header.position < cursor.position:
        yield Damage("order", frame.offset, header.size, f"repeats position {header.position}: not applied")
        return
    if cursor.chain is not None and header.previous != cursor.chain:
        yield Damage("link", frame.offset, header.size, "does not follow the frame before it: bytes were edited")
    cursor.position, cursor.chain = header.position + header.span, header.chain
    if zlib.crc32(frame.payload) != header.payload_crc:
        yield Damage("payload", frame.offset, header.size, f"checksum fails: {_rows(header)} unreadable")
    else:
        yield frame


def _rows(header: FrameHeader) -> str:
    if not header.span:
        return "no rows, but a note of the log is"
    last = header.position + header.span - 1
    return f"position {last} is" if header.span == 1 else f"positions {header.position}-{last} are"


def _resync(window: _Window, offset: int, size: int, position: int, seed: int) -> int | None:
    """Offset of the next valid frame header after `offset` that does not go back in positions."""
    at = offset + 1
    while at < size:
        block = window.get(at, min(_WINDOW, size - at))
        found = block.find(FRAME_MAGIC)
        while found >= 0:
            header = decode_frame_header(window.get(at + found, FRAME_HEADER_SIZE), seed)
            if header is not None and header.position >= position:
                return at + found
            found = block.find(FRAME_MAGIC, found + 1)
        at += max(1, len(block) - len(FRAME_MAGIC) + 1)
    return None
