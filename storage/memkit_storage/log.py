"""The append-only log in one file. Implements docs/format.md; knows frames, not what they mean.

One appender at a time (a lock held per append), any number of readers that never wait and never write.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from memkit_storage import files
from memkit_storage.errors import CorruptRecord, FormatTooNew, NotAMemory, ReadOnly, StorageFailed
from memkit_storage.format import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    IGNORABLE,
    KNOWN_READ_ONLY_COMPATIBLE,
    MAJOR,
    MINOR,
    SLOT_OFFSETS,
    FrameType,
    Head,
    Header,
    decode_frame_header,
    decode_header,
    decode_heads,
    encode_frame,
)
from memkit_storage.scan import Cursor, Damage, Frame, scan

Durability = Literal["fsync", "os"]
Append = tuple[int, bytes, int]  # frame type, payload, span of positions
_KNOWN_TYPES = frozenset(int(kind) for kind in FrameType)


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def new_header(*, file_id: bytes | None = None, generation: int = 1, genesis: bytes | None = None) -> Header:
    """Identity of a new file; a rewrite passes the old file's id, the next generation and the old chain head."""
    return Header(file_id or uuid.uuid4().bytes, generation, now_us(), genesis or os.urandom(32))


def create(path: Path, header: Header) -> None:
    """Put a new empty log at `path`, whole or not at all; another process that was faster wins silently."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        draft.write_bytes(header.encode())
        with draft.open("rb+") as handle:
            files.sync(handle.fileno())
        _publish(draft, path)
        files.sync_directory(path.parent)
    except OSError as error:
        raise files.failure(error, "create", path) from error
    finally:
        draft.unlink(missing_ok=True)


def _publish(draft: Path, path: Path) -> None:
    if path.exists() and path.stat().st_size == 0:  # an empty file, as tempfile makes them, becomes a memory
        draft.replace(path)
        return
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            draft.replace(path)


class Log:
    """An open .mem file: read frames forward, read one again, append.

    Attributes:
        header: identity of the file as it is open now (a rewrite elsewhere changes it: see `replaced`).
        cursor: the next byte, row position and chain value after everything read so far.
        damage: what could not be read, as met so far.
    """

    def __init__(self, path: str | Path, *, durability: Durability = "fsync", create: bool = True) -> None:
        self.path = Path(os.path.realpath(path))
        self.durability = durability
        self.damage: list[Damage] = []
        self._commit = _GroupCommit()
        self._fd = -1
        self._check_path(create)
        self._open()

    def _check_path(self, may_create: bool) -> None:
        if self.path.is_dir():
            raise NotAMemory(f"{self.path} is a directory; pass the path of a file, such as {self.path / 'agent.mem'}")
        if not self.path.parent.is_dir():
            raise NotAMemory(f"{self.path.parent} is not a directory; create it first")
        if not self.path.exists() and not may_create:
            raise NotAMemory(f"{self.path} does not exist; check the path")
        if not self.path.exists() or (may_create and self.path.stat().st_size == 0):
            create(self.path, new_header())

    def _open(self) -> None:
        self._adopt_file()
        page = files.pread(self._fd, HEADER_SIZE, 0)
        self.header = decode_header(page, str(self.path))
        if self.header.read_only_compatible & ~KNOWN_READ_ONLY_COMPATIBLE:
            self.writable = False
        self.head = next(iter(decode_heads(page)), None)
        self.cursor = self.start
        self.damage.clear()

    def _adopt_file(self) -> None:
        fd, self.writable = _open_file(self.path)
        if self._fd < 0:
            self._fd = fd
        else:  # keep the number: another thread may be inside fsync with it
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)
        self._pid = os.getpid()

    @property
    def start(self) -> Cursor:
        """Where the first frame stands."""
        return Cursor(HEADER_SIZE, 0, self.header.genesis)

    @property
    def descriptor(self) -> int:
        """The open file descriptor."""
        return self._fd

    @property
    def inode(self) -> int:
        """Identity of the open file on its file system."""
        return os.fstat(self._fd).st_ino

    @property
    def size(self) -> int:
        """Bytes of the file now."""
        return os.fstat(self._fd).st_size

    def replaced(self) -> bool:
        """Whether the path names another file than the open one: someone compacted or erased.

        Raises:
            StorageFailed: the path names no file any more.
        """
        try:
            there = self.path.stat()
        except FileNotFoundError:
            raise StorageFailed(f"{self.path} was removed while open; restore it, or open a new memory") from None
        here = os.fstat(self._fd)
        return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev)

    def reopen(self) -> None:
        """Open what the path names now, from its start."""
        self._open()

    def close(self) -> None:
        """Give the file back to the system."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # reading

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the file; short at its end."""
        return files.pread(self._fd, size, offset)

    def read(self, offset: int) -> Frame:
        """The frame at `offset`, verified.

        Raises:
            CorruptRecord: the bytes there are damaged.
        """
        header = decode_frame_header(self.read_at(offset, FRAME_HEADER_SIZE), self.header.seed)
        if header is not None:
            one = Cursor(offset, header.position, header.previous)
            frame = next(scan(self.read_at, offset + header.size, one, self.header.seed), None)
            if isinstance(frame, Frame):
                return frame
        raise CorruptRecord(
            f"{self.path}: the record at byte {offset} is damaged; `memkit verify` lists what is, "
            "restore the file from a copy",
            path=str(self.path),
            offset=offset,
        )

    def catch_up(self, *, alone: bool = False) -> Iterator[Frame]:
        """Frames appended since the last call, by anyone. Damage goes to `damage`.

        An incomplete last frame may be another process's append in flight: it is reported only when `alone`
        (the caller holds the lock, or nobody does).
        """
        size = self.size
        if size == self.cursor.offset:
            return
        for event in scan(self.read_at, size, self.cursor, self.header.seed):
            if isinstance(event, Damage):
                if event.kind != "torn" or alone:
                    self._note(event)
            elif event.header.type in _KNOWN_TYPES:
                yield event
            elif not event.header.flags & IGNORABLE:
                raise FormatTooNew(
                    f"{self.path}: frame type {event.header.type} at byte {event.offset} is unknown to format "
                    f"{MAJOR}.{MINOR} of this memkit (file: {self.header.major}.{self.header.minor}): upgrade memkit-ai"
                )

    def _note(self, damage: Damage) -> None:
        if damage.kind == "torn" and self.head and damage.offset < self.head.end:
            missing = self.head.end - damage.offset
            damage = Damage("lost", damage.offset, missing, "these bytes had been acknowledged: restore from a copy")
        if damage not in self.damage:
            self.damage.append(damage)

    def check_tail(self) -> Iterator[Frame]:
        """After opening: report an incomplete tail, and bytes that a head has witnessed but that are gone.

        Yields frames that were appended since the last `catch_up`.
        """
        if self.size > self.cursor.offset and files.try_lock(self._fd):
            try:
                yield from self.catch_up(alone=True)
            finally:
                files.unlock(self._fd)
        if self.missing:
            self._note(Damage("torn", self.cursor.offset, 0, ""))

    # writing

    @contextmanager
    def appending(self) -> Iterator[bool]:
        """Hold the appender's lock, on the file that the path names now. Catch up before you `append`.

        Yields whether the file had been replaced, so that everything read before is void.

        Raises:
            ReadOnly: the file cannot be written.
        """
        if os.getpid() != self._pid:  # a forked child shares its parent's lock: it needs an open file of its own
            self._fd = -1
            self._adopt_file()
        if not self.writable:
            raise ReadOnly(f"{self.path} is open read only; check its permissions, its disk, or upgrade memkit-ai")
        moved = False
        while True:
            with files.locked(self._fd):
                if not self.replaced():
                    yield moved
                    return
            self.reopen()
            moved = True

    @property
    def missing(self) -> tuple[int, int] | None:
        """(offset, bytes) that a head has witnessed but that are not in the log any more."""
        if self.head is None or self.cursor.offset >= self.head.end:
            return None
        return self.cursor.offset, self.head.end - self.cursor.offset

    def cut_tail(self) -> tuple[int, int] | None:
        """Under the lock, after catching up: remove an incomplete tail. Returns (offset, bytes) if there was one."""
        offset, length = self.cursor.offset, self.size - self.cursor.offset
        if length <= 0:
            return None
        try:
            os.ftruncate(self._fd, offset)
        except OSError as error:
            raise files.failure(error, "cut the incomplete tail of", self.path) from error
        return offset, length

    def append(self, frames: Sequence[Append], *, flags: int = 0) -> list[int]:
        """Write frames at the end, all or none, under the lock. Returns their offsets; not yet durable: `commit`.

        Raises:
            StorageFailed: the disk refused; the file is as before.
        """
        offset, position, chain = self.cursor.offset, self.cursor.position, self.cursor.chain
        offsets, pieces, moment = [], [], now_us()
        for kind, payload, span in frames:
            data, chain = encode_frame(
                kind,
                payload,
                position=position,
                span=span,
                time_us=moment,
                previous=chain or self.header.genesis,
                seed=self.header.seed,
                flags=flags,
            )
            offsets.append(offset)
            pieces.append(data)
            offset, position = offset + len(data), position + span
        self._write(b"".join(pieces))
        self.cursor = Cursor(offset, position, chain)
        return offsets

    def _write(self, data: bytes) -> None:
        try:
            files.write_all(self._fd, data, self.cursor.offset)
        except OSError as error:
            with suppress(OSError):  # if this fails too, the next appender cuts the torn frame
                os.ftruncate(self._fd, self.cursor.offset)
            raise files.failure(error, "append to", self.path) from error

    def mark(self, checkpoint: int | None = None) -> None:
        """Under the lock: write a head slot, the witness of how far the file reaches. See docs/format.md §2."""
        heads = decode_heads(files.pread(self._fd, HEADER_SIZE, 0))
        last = heads[0] if heads else Head(0, 0, 0, 0, bytes(32))
        kept = last.checkpoint if checkpoint is None else checkpoint
        cursor = self.cursor
        self.head = Head(last.sequence + 1, cursor.offset, cursor.position, kept, cursor.chain or bytes(32))
        try:
            files.write_all(self._fd, self.head.encode(), SLOT_OFFSETS[self.head.sequence % 2])
        except OSError as error:
            raise files.failure(error, "mark the head of", self.path) from error

    def sync(self) -> None:
        """Block until everything in the file is on stable storage, whatever the durability."""
        try:
            files.sync(self._fd)
        except OSError as error:
            raise files.failure(error, "sync", self.path) from error

    def commit(self, end: int) -> None:
        """Return once every byte before `end` is durable. Callers that come together share one fsync."""
        if self.durability == "fsync":
            try:
                self._commit.wait(self._fd, self.header.generation, end, lambda: self.cursor.offset)
            except OSError as error:
                raise files.failure(error, "sync", self.path) from error


def _open_file(path: Path) -> tuple[int, bool]:
    flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, os.O_RDWR | flags), True
    except OSError as refused:
        try:
            return os.open(path, os.O_RDONLY | flags), False
        except OSError:
            raise files.failure(refused, "open", path) from refused


class _GroupCommit:
    """One fsync serves every thread whose bytes were written before it began."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._busy = False
        self._synced = (0, 0)  # generation, end

    def wait(self, fd: int, generation: int, end: int, written: Callable[[], int]) -> None:
        with self._condition:
            while self._synced < (generation, end):
                if not self._busy:
                    self._busy = True
                    break
                self._condition.wait()
            else:
                return
        reached = (generation, 0)
        try:
            target = written()
            files.sync(fd)
            reached = (generation, max(end, target))
        finally:
            with self._condition:
                self._busy = False
                self._synced = max(self._synced, reached)
                self._condition.notify_all()
