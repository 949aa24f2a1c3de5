"""The append-only log in one file. Implements docs/format.md; knows frames, not what they mean.

One appender at a time (a lock held per append), any number of readers that never wait and never write.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from memkit_storage import files
from memkit_storage.commit import GroupCommit
from memkit_storage.errors import CorruptRecord, FormatTooNew, NotAMemory, ReadOnly, StorageFailed
from memkit_storage.format import (
    COPY_OFFSET,
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    IDENTITY_SIZE,
    IGNORABLE,
    KNOWN_READ_ONLY_COMPATIBLE,
    MAJOR,
    MAX_PAYLOAD,
    MINOR,
    SLOT_OFFSETS,
    FrameType,
    Head,
    Header,
    damaged_identities,
    decode_frame_header,
    decode_header,
    decode_heads,
    encode_frame,
)
from memkit_storage.scan import Cursor, Damage, Frame, ReadAt, scan

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
        files.discard(draft)


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        _fill(draft, path)
    except OSError:  # a file system without hard links: claim the name with an empty file
        path.touch()
        _fill(draft, path)


def _fill(draft: Path, path: Path) -> None:
    """An empty file, as tempfile makes them, becomes a memory; of several processes at once, by one of them."""
    fd, _ = _open_file(path)
    try:
        with files.locked(fd):
            if os.fstat(fd).st_size == 0 and os.path.samestat(os.fstat(fd), path.stat()):
                draft.replace(path)
    finally:
        os.close(fd)


class Log:
    """An open .mem file: read frames forward, read one again, append.

    Attributes:
        header: identity of the file as it is open now (a rewrite elsewhere changes it: see `replaced`).
        cursor: the next byte, row position and chain value after everything read so far.
        damage: what could not be read, as met so far.
    """

    def __init__(self, path: str | Path, *, durability: Durability = "fsync", create: bool = True) -> None:
        self.path = Path(os.path.realpath(path))
        self._name = os.fspath(self.path)
        self.durability = durability
        self.damage: list[Damage] = []
        self._fd = -1
        self._check_path(create)
        self.reopen()

    def _check_path(self, may_create: bool) -> None:
        if self.path.is_dir():
            raise NotAMemory(f"{self.path} is a directory; pass the path of a file, such as {self.path / 'agent.mem'}")
        if self.path.exists() and not self.path.is_file():
            raise NotAMemory(f"{self.path} is a device, pipe or socket; pass the path of a file")
        if not self.path.parent.is_dir():
            raise NotAMemory(f"{self.path.parent} is not a directory; create it first")
        if not self.path.exists() and not may_create:
            raise NotAMemory(f"{self.path} does not exist; check the path")
        if not self.path.exists() or (may_create and self.path.stat().st_size == 0):
            create(self.path, new_header())

    def reopen(self) -> None:
        """Open what the path names now, from its start. What is no memory is refused, and the old file kept."""
        fd, writable = _open_file(self.path)
        try:
            page = files.pread(fd, HEADER_SIZE, 0)
            self.header = decode_header(page, str(self.path))
        except BaseException:
            os.close(fd)
            raise
        self._adopt(fd)
        self._commit = GroupCommit()
        self.writable = writable and not self.header.read_only_compatible & ~KNOWN_READ_ONLY_COMPATIBLE
        self.head = next(iter(decode_heads(page)), None)
        self.cursor = self.start
        self._last: tuple[int, bytes] | None = None  # offset and chain value of the last frame that was read
        self._last_header = b""  # its header, once it has been compared
        self.damage.clear()
        if 0 in damaged_identities(page, self.header):
            detail = f"the file header was read from its copy at byte {COPY_OFFSET}"
            self.damage.append(Damage("header", 0, IDENTITY_SIZE, detail))

    def _adopt(self, fd: int) -> None:
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
        """Whether what was read is void: the path names another file than the open one (someone compacted or
        erased), or the last frame is not there any more (someone took back a refused write, or copied over the file).

        Raises:
            StorageFailed: the path names no file any more, or this log is closed.
        """
        self._check_open()
        try:
            there = os.stat(self._name)  # noqa: PTH116 - before and after every write: half the time of Path.stat
        except FileNotFoundError:
            raise StorageFailed(f"{self.path} was removed while open; restore it, or open a new memory") from None
        here = os.fstat(self._fd)
        return not os.path.samestat(here, there) or here.st_size < self.cursor.offset or self._is_rewritten()

    def _check_open(self) -> None:
        if self._fd < 0:
            raise StorageFailed(f"{self.path} is closed; open it again")

    def _is_rewritten(self) -> bool:
        if self._last is None:
            return False
        offset, chain = self._last
        there = self.read_at(offset, FRAME_HEADER_SIZE)
        if there == self._last_header:
            return False
        header = decode_frame_header(there, self.header.seed)
        if header is None or header.chain != chain:
            return True
        self._last_header = there
        return False

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
            one, end = Cursor(offset, header.position, header.previous), min(offset + header.size, self.size)
            bounded: ReadAt = lambda at, size: self.read_at(at, min(size, end - at))  # noqa: E731
            frame = next(scan(bounded, end, one, self.header.seed), None)
            if isinstance(frame, Frame):
                return frame
        raise CorruptRecord(
            f"{self.path}: the record at byte {offset} is damaged; `memkit verify` lists what is, "
            "restore the file from a copy",
            path=str(self.path),
            offset=offset,
        )

    def resume(self, frame: Frame) -> None:
        """Go on after this frame: what stands before it is known from a checkpoint."""
        self.cursor = Cursor(frame.end, frame.header.position + frame.header.span, frame.header.chain)
        self._last = (frame.offset, frame.header.chain)

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
                continue
            if event.header.type not in _KNOWN_TYPES and not event.header.flags & IGNORABLE:
                self.cursor = Cursor(event.offset, event.header.position, event.header.previous)
                raise FormatTooNew(
                    f"{self.path}: frame type {event.header.type} at byte {event.offset} is unknown to format "
                    f"{MAJOR}.{MINOR} of this memkit (file: {self.header.major}.{self.header.minor}): upgrade memkit-ai"
                )
            self._last = (event.offset, event.header.chain)
            if event.header.type in _KNOWN_TYPES:
                yield event

    def _note(self, damage: Damage) -> None:
        if damage.kind == "torn" and self.head and damage.offset < self.head.end:
            missing = self.head.end - damage.offset
            damage = Damage("lost", damage.offset, missing, "these bytes had been acknowledged: restore from a copy")
        if damage not in self.damage:
            self.damage.append(damage)

    def check_tail(self, *, alone: bool) -> Iterator[Frame]:
        """After opening: report an incomplete tail, and bytes that a head has witnessed but that are gone.

        Yields frames that were appended since the last `catch_up`. `alone`: the caller holds the lock.
        """
        if alone:
            yield from self.catch_up(alone=True)
        elif self.size > self.cursor.offset and files.try_lock(self._fd):
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

        Yields whether everything that was read before is void: the file had been replaced.

        Raises:
            ReadOnly: the file cannot be written.
        """
        self._check_open()
        moved = os.getpid() != self._pid
        if moved:  # a forked child shares its parent's lock: it needs an open file of its own
            self._fd = -1
            self.reopen()
        while True:
            if not self.writable:
                raise ReadOnly(f"{self.path} is open read only; check its permissions, its disk, or upgrade memkit-ai")
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
            if len(payload) > MAX_PAYLOAD:
                raise StorageFailed(f"{self.path}: a frame of {len(payload)} bytes; at most {MAX_PAYLOAD} fit")
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
        self._last, self._last_header = (offsets[-1], chain or b""), pieces[-1][:FRAME_HEADER_SIZE]
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
        self.commit(self.cursor.offset)  # a head that survives a power loss must not witness frames that do not
        heads = decode_heads(files.pread(self._fd, HEADER_SIZE, 0))
        last = heads[0] if heads else Head(0, 0, 0, 0, bytes(32))
        kept = last.checkpoint if checkpoint is None else checkpoint
        cursor = self.cursor
        self.head = Head(last.sequence + 1, cursor.offset, cursor.position, kept, cursor.chain or bytes(32))
        try:
            files.write_all(self._fd, self.head.encode(), SLOT_OFFSETS[self.head.sequence % 2])
        except OSError as error:
            raise files.failure(error, "mark the head of", self.path) from error

    def restore_header(self) -> None:
        """Under the lock: write both copies of the file's identity, which one of them gave."""
        identity = self.header.encode()[:IDENTITY_SIZE]
        try:
            for offset in (COPY_OFFSET, 0):  # one of them is sound at any moment
                files.write_all(self._fd, identity, offset)
                files.sync(self._fd)
        except OSError as error:
            raise files.failure(error, "restore the header of", self.path) from error

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
                self._commit.wait(self._fd, end, lambda: self.cursor.offset)
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
