"""Many files: a sleep for each, in processes of this machine, or on a Ray cluster that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
    from memkit.memory import Memory
    from memkit.slow.worker import modest

    modest()
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
    """The same on a Ray cluster whose machines see the files under the same paths.

    Args:
        address: of the cluster, as `ray.init` takes it; "local" starts one here.

    Raises:
        ImportError: Ray is not installed; it names the extra.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('ray is not installed; run: pip install "memkit-ai[ray]"', name="ray") from error
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    work = [ray.remote(one).remote(str(path.resolve()), budget) for path in paths]
    for done, _ in enumerate(_finished(ray, work), 1):
        if progress:
            progress(done, len(work))
    return [Outcome(*outcome) for outcome in ray.get(work)]


def _finished(ray: Any, work: list[Any]) -> Iterator[Any]:
    open_ = list(work)
    while open_:
        done, open_ = ray.wait(open_)
        yield from done
