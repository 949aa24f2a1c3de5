"""The process that consolidates beside an application, and the supervisor that keeps it running.

The worker opens the file as any process does, at low priority and with one thread. It looks every few seconds whether
somebody has new feedback, and sleeps when enough of it is there. It ends when the application does: its standard input
is a pipe from there, and the end of that is the sign. Killing either loses nothing: bands are appended whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memkit.slow.rounds import SleepReport  # not before `modest`: numpy counts its threads when it is imported

EVERY = 5.0  # seconds between looks
AGAIN = (1.0, 60.0)  # seconds before a worker that died is started again: at first, and at most
NICE = 10


def watch(
    path: str | Path,
    *,
    cache_dir: str | Path | None = None,
    embedder: Any | None = None,
    share: bool = False,
    every: float = EVERY,
    due: int | None = None,
    language_model: tuple[Any, Any] | None = None,
    device: str | None = None,
    style: bool = False,
    budget: float | None = None,
    stop: threading.Event | None = None,
    slept: Callable[[SleepReport], None] | None = None,
) -> None:
    """Consolidate a file whenever it is due, until `stop` is set.

    Args:
        embedder, share: as `Memory(embedder=, share_learning=)`. every: seconds between looks.
        due: new feedbacks, or items to learn, of a user and agent, by default those of a sleep in `memkit.slow.clock`.
        language_model: model and tokenizer, as `Memory.consolidate` takes them, with the device to train on and style.
        budget: seconds of one sleep. slept: called with the report of each sleep that made something.

    Raises:
        NotAMemory, FormatTooNew, StorageFailed: the file cannot be opened, or written.
    """
    from memkit.errors import Busy
    from memkit.memory import Memory
    from memkit.slow.clock import SLEEP

    ended, enough, seen = stop or threading.Event(), SLEEP if due is None else due, -1
    with Memory(path, embedder=embedder, cache_dir=cache_dir, share_learning=share) as memory:
        while not ended.is_set():
            size = memory.stats().file_bytes
            if size != seen:
                with suppress(Busy):  # another one does it
                    report = memory.consolidate(
                        *language_model or (),
                        device=device,
                        style=style,
                        budget=budget,
                        due=enough,
                        stop=ended.is_set,
                    )
                    seen = size if report.finished else -1
                    if report.bands and slept is not None:
                        slept(report)
            ended.wait(every)


def modest() -> None:
    """Let everybody else go first, with one thread: before numpy and torch are imported, or they have theirs.

    Niceness alone is not enough: what wakes up beside a nice process may wait for milliseconds until it gives way.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(max(0, NICE - os.nice(0)))  # once, however often it is asked for
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class Supervisor:
    """Keeps a worker process for a file running until `stop`."""

    def __init__(self, path: Path, cache_dir: str | Path | None, *, share: bool) -> None:
        self._command = [sys.executable, "-m", "memkit.slow.worker", str(path)]
        self._command += [f"--cache-dir={cache_dir}"] if cache_dir is not None else []
        self._command += ["--share"] if share else []
        self._stopped = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="memkit-supervisor", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the worker, if it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _run(self) -> None:
        wait = AGAIN[0]
        while not self._stopped.is_set():
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, env=_environment())  # noqa: S603
            with self._process:
                self._process.wait()
            self._stopped.wait(wait)
            wait = min(2 * wait, AGAIN[1])

    def stop(self) -> None:
        """End the worker, between two steps of its work, and wait for it."""
        self._stopped.set()
        while self._thread.is_alive():
            process = self._process
            if process is not None and process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
            self._thread.join(0.05)


def _environment() -> dict[str, str]:
    """As this process's, with the paths that it imports memkit from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def main(arguments: list[str]) -> None:
    """`python -m memkit.slow.worker PATH [--cache-dir=DIR] [--share]`: what the supervisor starts."""
    modest()
    path, *options = arguments
    cache = next((option.partition("=")[2] for option in options if option.startswith("--cache-dir=")), None)
    ended = threading.Event()
    threading.Thread(target=_until_closed, args=(ended,), daemon=True).start()
    watch(path, cache_dir=cache, share="--share" in options, stop=ended)


def _until_closed(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()


if __name__ == "__main__":
    main(sys.argv[1:])
