"""One engine in a process of its own, which `benchmarks.speed` asks over a pipe: one JSON object a line each way.

Times are taken here, around the engine's own call. What the engine prints goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import Engine, Unsupported
from benchmarks.peers import ENGINES
from benchmarks.workload import Workload

K = 10
LISTED = 100


class Session:
    """What may be asked for; each method takes and returns JSON values. Seconds and milliseconds as named."""

    def __init__(self, name: str, folder: Path, workload: Path, *, items: bool) -> None:
        self._name, self._folder = name, folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._work = Workload.load(workload, items=items)
        self._vectors = self._work.lookup()
        self._numbers = {text: number for number, text in enumerate(self._work.texts)}
        self._engine: Engine | None = None
        self._before = resident()

    @property
    def _running(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def open(self, *, fast: bool = False) -> dict[str, float]:
        """Seconds to import the library and to open the folder."""
        start = time.perf_counter()
        for module in ENGINES[self._name].modules:
            __import__(module)
        imported = time.perf_counter()
        if self._engine is not None:
            self._engine.close()
        self._engine = ENGINES[self._name](self._folder, self._vectors, fast=fast)
        return {"import": imported - start, "open": time.perf_counter() - imported}

    def load(self, start: int, count: int) -> float:
        """Seconds to add items by one acknowledged call."""
        return seconds(self._running.add, self._work.entries(start, count))

    def settle(self) -> float:
        """Seconds until every index is there."""
        return seconds(self._running.settle)

    def rebuild(self) -> float:
        """Seconds to make the indexes anew."""
        return seconds(self._running.rebuild)

    def add(self, start: int, count: int) -> list[float]:
        """Milliseconds of single adds."""
        entries = self._work.entries(start, count)
        return [1e3 * seconds(self._running.add, [entry]) for entry in entries]

    def search(self, kind: str, start: int, count: int) -> list[float]:
        """Milliseconds of searches in one kind of scope."""
        asked = self._work.questions[start : start + count]
        return [1e3 * seconds(self._running.search, q, K, q.scope(kind)) for q in asked]

    def listing(self, kind: str, start: int, count: int) -> list[float]:
        """Milliseconds of listing the first items of a scope."""
        asked = self._work.questions[start : start + count]
        return [1e3 * seconds(self._running.listing, q.scope(kind), LISTED) for q in asked]

    def nearest(self, start: int, count: int) -> list[list[int]]:
        """Numbers of the items found by meaning alone."""
        asked = self._work.questions[start : start + count]
        return [[self._numbers[text] for text in self._running.nearest(question, K)] for question in asked]

    def check(self, start: int, count: int) -> dict[str, int]:
        """Of so many searches, how many found the item they were made from, and left their user's scope."""
        asked = self._work.questions[start : start + count]
        found = strays = 0
        for question in asked:
            found += self._work.texts[question.target] in self._running.search(question, K, {})
            hits = self._running.search(question, K, question.scope("user"))
            users = {entry.scope["user_id"] for hit in hits for entry in self._work.entries(self._numbers[hit], 1)}
            strays += users != {question.scope("user")["user_id"]}
        return {"found": found, "strays": strays}

    def memory(self) -> float:
        """MiB that the process has taken at most since the workload was loaded."""
        return max(0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - self._before)

    def close(self) -> dict[str, int]:
        """Close the engine; bytes of the file or folder, and of a derived index beside it."""
        self._running.close()
        self._engine = None
        return {"file": size(self._folder, "cache", inside=False), "index": size(self._folder, "cache", inside=True)}


def seconds(call: Callable[..., object], *arguments: object) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def resident() -> float:
    """MiB of this process in memory; what it has taken at most where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def size(folder: Path, part: str, *, inside: bool) -> int:
    """Bytes of all files of a folder, inside or outside one part of it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in paths if (path.relative_to(folder).parts[0] == part) == inside)


def answer(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """What the session returned, or why it did not."""
    try:
        return {"value": getattr(session, request["do"])(**request["with"])}
    except Unsupported:
        return {"none": True}
    except Exception as error:  # noqa: BLE001 - a peer's failure is a cell of the table
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--bare", action="store_true", help="load the questions only, as a process that searches")
    options = parser.parse_args(arguments)
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        np.seterr(all="ignore")
        session = Session(options.engine, options.folder, options.workload, items=not options.bare)
        for line in sys.stdin:
            replies.write(json.dumps(answer(session, json.loads(line))) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
