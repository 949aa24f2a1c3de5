"""What a search reads of sealed rows: a file for each seal, in it a record for each row, found by position.

    record      crc32 of position and rest, u32 size of lex and of vector; lex, vector (float16), content (msgpack)
    directory   positions (n,) and ends (n,) of the records, int64
    foot        crc32 of the directory, u32 n

All little-endian. LanceDB says which rows; to hand out a hundred of them from anywhere takes it several milliseconds,
longer with every column, and this half of one. A file is never changed.
"""

from __future__ import annotations

import os
import struct
import weakref
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt

from memkit_storage import files
from memkit_storage.cache import IndexDamaged
from memkit_storage.lexical import join
from memkit_storage.rows import NO_VECTOR, Row

_HEAD, _FOOT = struct.Struct("<III"), struct.Struct("<II")
_ENTRY = 16  # bytes of a record in the directory

Positions = npt.NDArray[np.int64]


class Record(NamedTuple):
    """A row: joined tokens, vector in float16, and what it says, packed."""

    position: int
    lex: str
    vector: bytes
    content: bytes

    @classmethod
    def of(cls, row: Row, tokens: Iterable[str]) -> Record:
        """From a row with a vector that is exact in float16."""
        times = (row.occurred_us, row.created_us, row.updated_us)
        content = msgpack.packb((row.id, row.text, *row.scope, row.metadata, *times))
        return cls(row.position, join(tokens), row.vector.astype("<f2").tobytes(), content)

    def row(self, surprise: float | None) -> Row:
        """The version that it was made from, without its vector."""
        values = msgpack.unpackb(self.content, strict_map_key=False)
        id_, text, user, agent, run, metadata, occurred, created, updated = values
        return Row(
            id_, text, NO_VECTOR, user, agent, run, metadata, occurred, created, updated, surprise, self.position
        )

    def to_bytes(self) -> bytes:
        """As it stands in the file."""
        lex = self.lex.encode("utf-8", "surrogatepass")
        body = b"".join((lex, self.vector, self.content))
        return _HEAD.pack(_crc(self.position, body), len(lex), len(self.vector)) + body

    @classmethod
    def from_bytes(cls, position: int, data: bytes) -> Record:
        """What `to_bytes` wrote for this position.

        Raises:
            IndexDamaged: the checksum does not match.
        """
        body = data[_HEAD.size :]
        crc, lex, vector = _HEAD.unpack_from(data) if body else (0, 0, 0)
        if not body or _crc(position, body) != crc:
            raise IndexDamaged(f"the row at position {position} does not match its checksum")
        end = lex + vector
        return cls(position, body[:lex].decode("utf-8", "surrogatepass"), body[lex:end], body[end:])


def _crc(position: int, body: bytes) -> int:
    return zlib.crc32(body, position & 0xFFFFFFFF)


def write(path: Path, records: Iterable[Record]) -> None:
    """Make a file of records, each of another position."""
    positions, sizes = [], []
    with path.open("wb") as out:
        for record in records:
            positions.append(record.position)
            sizes.append(out.write(record.to_bytes()))
        directory = np.array([positions, np.cumsum(sizes)], "<i8").tobytes()
        out.write(directory + _FOOT.pack(zlib.crc32(directory), len(positions)))


class Segments:
    """The records of several files, which stay open.

    Raises:
        IndexDamaged: a directory does not match its checksum.
        OSError: a file cannot be opened.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [_opened(path, self) for path in paths]
        parts = [np.zeros((4, 0), np.int64), *(_directory(fd, place) for place, fd in enumerate(self._files))]
        entries = np.concatenate(parts, axis=1)
        self._entries = entries[:, np.argsort(entries[0])]  # positions, files, starts, sizes

    @property
    def positions(self) -> Positions:
        """(n,) of all records, ascending."""
        found: Positions = self._entries[0]
        return found

    def read(self, positions: Sequence[int]) -> Iterator[Record]:
        """The records at these positions, in this order; those that are not here are left out.

        Raises:
            IndexDamaged: one does not match its checksum, or cannot be read.
        """
        known = self.positions
        places = np.minimum(np.searchsorted(known, np.asarray(positions, np.int64)), len(known) - 1)
        there = known[places] == positions if len(known) else np.zeros(0, np.bool_)
        for position, file, start, size in self._entries[:, places[there]].T.tolist():
            try:
                data = files.pread(self._files[file], size, start)
            except OSError as error:
                raise IndexDamaged(f"the row at position {position} cannot be read: {error}") from error
            yield Record.from_bytes(position, data)

    def only(self, living: Container[int]) -> Iterator[Record]:
        """All records but those that have ended."""
        return self.read([position for position in self.positions.tolist() if position in living])


def _opened(path: Path, owner: Segments) -> int:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    weakref.finalize(owner, os.close, fd)
    return fd


def _directory(fd: int, place: int) -> Positions:
    """(4, n) positions, the number of the file, starts and sizes."""
    end = os.fstat(fd).st_size - _FOOT.size
    crc, count = _FOOT.unpack(files.pread(fd, _FOOT.size, end)) if end >= 0 else (0, 1)
    start = end - _ENTRY * count
    data = files.pread(fd, _ENTRY * count, start) if start >= 0 else b""
    if len(data) != _ENTRY * count or zlib.crc32(data) != crc:
        raise IndexDamaged("the directory of the rows does not match its checksum")
    positions, ends = np.frombuffer(data, "<i8").reshape(2, count)
    return np.stack([positions, np.full(count, place), ends - np.diff(ends, prepend=0), np.diff(ends, prepend=0)])
