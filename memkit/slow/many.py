"""Many files: a sleep for each, in processes of this machine, or on a Ray cluster that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from memkit.errors import InvalidInput, MemkitError, NotAMemory

Progress = Callable[[int, int], None]


class Outcome(NamedTuple):
    """Of one file: how many bands were let in and turned away, how many users and agents had nothing new, seconds, and
    what went wrong, if anything did."""

    path: str
    promoted: int = 0
    rejected: int = 0
    idle: int = 0
    seconds: float = 0.0
    error: str = ""


def files_in(folder: Path) -> list[Path]:
    """The .mem files of a directory, by name.

    Raises:
        NotAMemory: there is none.
    """
    found = sorted(folder.glob("*.mem"))
    if not found:
        raise NotAMemory(f"{folder} holds no .mem file; pass the directory that does")
    return found


def one(path: str, budget: float | None) -> Outcome:
    """A sleep for one file; what goes wrong with it stops no other file."""
    from memkit.slow.worker import modest

    modest()
    from memkit.memory import Memory

    try:
        with Memory(path) as memory:
            report = memory.consolidate(budget=budget)
    except MemkitError as error:
        return Outcome(path, error=str(error))
    promoted = sum(band.promoted for band in report.bands)
    return Outcome(path, promoted, len(report.bands) - promoted, len(report.skipped), report.seconds)


def here(
    paths: Sequence[Path], *, jobs: int, budget: float | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """A sleep for each file, so many at a time, each in a process of its own. In the order of `paths`.

    Raises:
        InvalidInput: fewer than one job.
    """
    if jobs < 1:
        raise InvalidInput(f"jobs={jobs}; at least one process is needed")
    # spawned, not forked: torch and LanceDB have threads
    with ProcessPoolExecutor(min(jobs, len(paths)), mp_context=get_context("spawn")) as pool:
        work = [pool.submit(one, str(path), budget) for path in paths]
        for done, _ in enumerate(as_completed(work), 1):
            if progress:
                progress(done, len(work))
        return [job.result() for job in work]


def on_ray(
    paths: Sequence[Path], *, address: str, budget: float | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """The same on a Ray cluster on whose machines memkit is installed and the files have the same paths.

    Args:
        address: of the cluster, as `ray.init` takes it; "local" starts one here. A session that this process already
            has is used as it is, and left open.

    Raises:
        ImportError: Ray is not installed; it names the extra. InvalidInput: no cluster answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('ray is not installed; run: pip install "memkit-ai[ray]"', name="ray") from error
    with _session(ray, address):
        task = ray.remote(one)
        work = {task.remote(str(path.resolve()), budget): str(path) for path in paths}
        for done, _ in enumerate(_finished(ray, list(work)), 1):
            if progress:
                progress(done, len(work))
        return [_outcome(ray, ref, path) for ref, path in work.items()]


@contextmanager
def _session(ray: Any, address: str) -> Iterator[None]:
    """Connected meanwhile; leaving ends what is still running there, unless the session was the caller's."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise InvalidInput(f"no Ray cluster at {address!r}: {error}; start one with `ray start --head`") from error
    try:
        yield
    finally:
        ray.shutdown()


def _finished(ray: Any, work: list[Any]) -> Iterator[Any]:
    open_ = list(work)
    while open_:
        done, open_ = ray.wait(open_)
        yield from done


def _outcome(ray: Any, ref: Any, path: str) -> Outcome:
    """What a task returned; a machine that is lost stops no other file."""
    try:
        return Outcome(*ray.get(ref))
    except ray.exceptions.RayError as error:
        return Outcome(path, error=f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")
