"""Stores for tests: small rows, what a file is expected to hold, and a file cut into its frames."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgpack
import numpy as np

from memkit.errors import DamageWarning
from memkit_storage.format import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    FrameHeader,
    FrameType,
    Head,
    decode_frame_header,
    decode_header,
    decode_heads,
)
from memkit_storage.records import Event
from memkit_storage.rows import Row
from memkit_storage.store import Store

DIM = 8
CONFIG = {"embedder": "test", "digest": None, "dim": DIM, "probe": None}
_ROOT = Path(__file__).parent.parent
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join(str(_ROOT / part) for part in (".", "storage", "tests"))}


def make_row(id_: str, text: str | None = None, **more: object) -> Row:
    """A row whose vector and text follow from its id."""
    seed = sum(map(ord, id_)) + len(id_)
    now = time.time_ns() // 1000
    values: dict = {"occurred_us": 1, "created_us": now, "updated_us": now, **more}
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return Row(id=id_, text=text or f"text of {id_}", vector=vector / np.linalg.norm(vector), **values)


def put(store: Store, *rows: Row) -> None:
    """Write rows in one transaction."""
    with store.transaction() as change:
        for row in rows:
            change.put(row)


def delete(store: Store, *ids: str) -> None:
    """Delete items in one transaction."""
    with store.transaction() as change:
        for id_ in ids:
            change.delete(id_)


@contextmanager
def quiet() -> Iterator[None]:
    """Damage is expected here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        yield


def texts(store: Store) -> dict[str, str]:
    """id -> text of every living item that can be read."""
    store.refresh()
    with store.lock:
        return {row.id: row.text for row in store.rows(np.flatnonzero(store.catalog.alive()).tolist())}


def sample(path: Path, singles: int = 6, batch: int = 20) -> dict[str, str]:
    """A closed file with single rows, a batch, an update and a deletion; returns its living items."""
    store = Store(path, durability="os")
    store.configure(CONFIG)
    for i in range(singles):
        put(store, make_row(f"s{i}"))
    put(store, *(make_row(f"b{i}", user_id="ana") for i in range(batch)))
    put(store, make_row("s1", "changed"))
    delete(store, "s2")
    expected = texts(store)
    store.close()
    return expected


def state(store: Store) -> dict:
    """Everything that a store knows, in comparable form."""
    store.refresh()
    with store.lock:
        catalog = store.catalog
        return {
            "events": [plain(event) for event in store.events(range(len(catalog)))],
            "config": store.config,
            "notes": store.notes,
            "position": store.log.cursor.position,
            "alive": catalog.alive().tolist(),
            "count": catalog.alive_count,
            "columns": {name: catalog.column(name).tolist() for name in ("first", "time", "ended", "ended_by")},
            "scopes": [catalog.scope(i) for i in range(len(catalog))],
        }


def plain(event: Event) -> tuple:
    """An event in comparable form."""
    if not isinstance(event, Row):
        return (event.id, event.time_us, event.position)
    values = {name: getattr(event, name) for name in Row.__dataclass_fields__}
    return tuple({**values, "vector": event.vector.tobytes()}.items())


class Piece(NamedTuple):
    """One frame of a file: where it stands, its header, all its bytes and its payload."""

    offset: int
    header: FrameHeader
    data: bytes
    payload: bytes

    @property
    def end(self) -> int:
        """Offset of the byte after it."""
        return self.offset + len(self.data)


def pieces(path: Path) -> list[Piece]:
    """The frames of an undamaged file."""
    data = path.read_bytes()
    seed, at, found = decode_header(data[:HEADER_SIZE], "").seed, HEADER_SIZE, []
    while at < len(data):
        header = decode_frame_header(data[at : at + FRAME_HEADER_SIZE], seed)
        start = at + FRAME_HEADER_SIZE
        found.append(Piece(at, header, data[at : at + header.size], data[start : start + header.length]))
        at += header.size
    return found


class Forger:
    """Someone who knows the format: changes frames and makes every checksum of what is changed right again."""

    def __init__(self, path: Path) -> None:
        self.path, self.header = path, path.read_bytes()[:HEADER_SIZE]
        self.seed = decode_header(self.header, "").seed
        self.frames = [piece.data for piece in pieces(path)]

    def write(self, header: bytes | None = None) -> None:
        """Replace the file."""
        self.path.write_bytes((header or self.header) + b"".join(self.frames))

    def find(self, text: bytes) -> int:
        """The first frame that holds these bytes."""
        return next(i for i, frame in enumerate(self.frames) if text in frame)

    def of_type(self, kind: FrameType) -> int:
        """The last frame of a type."""
        return max(i for i, frame in enumerate(self.frames) if frame[4] == kind)

    def payload(self, i: int) -> bytes:
        """What a frame carries."""
        return self.frames[i][FRAME_HEADER_SIZE:][: decode_frame_header(self.frames[i], self.seed).length]

    def value(self, i: int) -> dict:
        """What a frame says."""
        return msgpack.unpackb(self.payload(i), strict_map_key=False)

    def forged(self, frame: bytes, payload: bytes | None = None, previous: bytes | None = None, **fields: int) -> bytes:
        """The frame with another payload, link, type, flags, position, span or time_us, and right checksums."""
        old = decode_frame_header(frame, self.seed)
        payload = frame[FRAME_HEADER_SIZE : FRAME_HEADER_SIZE + old.length] if payload is None else payload
        kind, flags = fields.get("type", old.type), fields.get("flags", old.flags)
        position, span = fields.get("position", old.position), fields.get("span", old.span)
        head = struct.pack(
            "<4sBBHQIIQ", b"MKF1", kind, flags, 104, position, span, len(payload), fields.get("time_us", old.time_us)
        )
        head += (previous or old.previous) + hashlib.sha256(payload).digest() + struct.pack("<I", zlib.crc32(payload))
        head += struct.pack("<I", zlib.crc32(head, self.seed))
        return head + payload + bytes(-len(payload) % 8)

    def edit(self, i: int, **change: object) -> None:
        """Change keys of what a frame says."""
        self.frames[i] = self.forged(self.frames[i], msgpack.packb({**self.value(i), **change}))

    def relink(self, start: int = 0) -> None:
        """Make the chain right from a frame on, and both heads: a complete forgery."""
        chain = decode_header(self.header, "").genesis
        for i, frame in enumerate(self.frames):
            if i >= start:
                self.frames[i] = self.forged(frame, previous=chain)
            chain = hashlib.sha256(self.frames[i][:96]).digest()
        last, newest = decode_frame_header(self.frames[-1], self.seed), decode_heads(self.header)[0]
        end = HEADER_SIZE + sum(map(len, self.frames))
        for n in (newest.sequence + 1, newest.sequence + 2):
            self.set_head(Head(n, end, last.position + last.span, newest.checkpoint, chain))

    def set_head(self, head: Head, slot: int | None = None) -> None:
        """Put a head into its slot, or into another one."""
        at = (512, 1024)[head.sequence % 2 if slot is None else slot]
        self.header = self.header[:at] + head.encode() + self.header[at + 72 :]
