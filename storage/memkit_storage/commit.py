"""Group commit: threads that wait for the disk at the same time share one sync, and its failure."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

from memkit_storage import files


class GroupCommit:
    """One fsync of one file serves every thread whose bytes were written before it began."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._busy = False
        self._synced = 0
        self._failed = (0, 0)  # start and end of bytes that could not be synced: a second try proves nothing

    def wait(self, fd: int, end: int, written: Callable[[], int]) -> None:
        """Return once every byte before `end` is durable.

        Args:
            fd: the file.
            end: offset in bytes; beyond what is written if the bytes went into a file that was replaced since.
            written: gives the end of everything written so far, which one sync makes durable together.

        Raises:
            OSError: the system could not store these bytes, whichever thread asked it to.
        """
        with self._condition:
            while not self._is_done(end):
                if not self._busy:
                    self._busy = True
                    break
                self._condition.wait()
            else:
                return
        target, done = written(), False
        try:
            files.sync(fd)
            done = True
        finally:
            with self._condition:
                self._busy = False
                if done:
                    self._synced = max(self._synced, target)
                else:
                    self._failed = (self._synced, max(end, target))
                self._condition.notify_all()

    def _is_done(self, end: int) -> bool:
        start, stop = self._failed
        if start < end <= stop:
            raise OSError(errno.EIO, "the system could not store these bytes")
        return self._synced >= end
