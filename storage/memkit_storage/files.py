"""The few file calls in which operating systems differ: positioned I/O, locks, durable sync, atomic replace."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memkit_storage.errors import MemkitError, ReadOnly, StorageFailed

_READ_ONLY_ERRORS = {errno.EROFS, errno.EACCES, errno.EPERM}

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    _LOCK_OFFSET = 1 << 62  # far beyond the end: Windows locks are mandatory and would stop readers
    _seek_lock = threading.Lock()

    def pread(fd: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes at `offset`."""
        with _seek_lock:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, size)

    def pwrite(fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; returns the number of bytes written, which may be short."""
        with _seek_lock:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, data)

    def _lock(fd: int, *, wait: bool) -> None:
        with _seek_lock:
            os.lseek(fd, _LOCK_OFFSET, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        with _seek_lock:
            os.lseek(fd, _LOCK_OFFSET, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def pread(fd: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes at `offset`."""
        return os.pread(fd, size, offset)

    def pwrite(fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; returns the number of bytes written, which may be short."""
        return os.pwrite(fd, data, offset)

    def _lock(fd: int, *, wait: bool) -> None:
        # flock belongs to the open file, so that closing another descriptor of the file does not drop it
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def failure(error: OSError, action: str, path: Path | str) -> MemkitError:
    """A typed error for a refused write, with the next step."""
    if error.errno in _READ_ONLY_ERRORS:
        return ReadOnly(f"cannot {action} {path}: {error.strerror}; the file or disk is read only: copy it elsewhere")
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        step = "free some space and add again; nothing was acknowledged"
    else:
        step = "nothing was acknowledged; check the disk and try again"
    return StorageFailed(f"cannot {action} {path}: {error.strerror or error}; {step}")


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write every byte or raise; a short write is continued until the system refuses."""
    view = memoryview(data)
    while view:
        written = pwrite(fd, view, offset)
        if written <= 0:
            raise OSError(errno.ENOSPC, "the system wrote no bytes")
        view, offset = view[written:], offset + written


def sync(fd: int) -> None:
    """Block until the bytes of the file are on stable storage."""
    if sys.platform == "darwin":  # pragma: no cover - fsync does not reach the platter there
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:  # pragma: no cover
        os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Make a created or replaced directory entry durable."""
    if sys.platform == "win32":  # pragma: no cover - directories cannot be synced there
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def discard(draft: Path) -> None:
    """Delete a file that was not finished; on a disk that refuses even that, the first error is the one to tell."""
    with suppress(OSError):
        draft.unlink(missing_ok=True)


@contextmanager
def locked(fd: int) -> Iterator[None]:
    """Hold the one appender's lock of an open file. Readers take none and never wait."""
    _lock(fd, wait=True)
    try:
        yield
    finally:
        _unlock(fd)


def try_lock(fd: int) -> bool:
    """Take the lock if nobody holds it; the caller must `unlock`."""
    try:
        _lock(fd, wait=False)
    except OSError:
        return False
    return True


def unlock(fd: int) -> None:
    """Give back a lock taken by `try_lock`."""
    _unlock(fd)
