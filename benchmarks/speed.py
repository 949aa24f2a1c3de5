"""How fast is memkit, and how fast are others on the same data, in the same run?

    python -m benchmarks.speed                               # 1,000, 10,000 and 100,000 items: about half an hour
    python -m benchmarks.speed --quick                       # 1,000 items: a smoke test
    python -m benchmarks.speed --sizes 100000 --engines memkit,sqlite --json speed.json

Every engine runs in a process of its own and gets the same texts with the same vectors, made beforehand: embedding
costs nobody anything. Engines take turns, a few operations each, so that whatever else the machine does hits all of
them. Each figure is a median (p50) or a 95th percentile (p95); in brackets, how many times memkit's it is: above 1
memkit is ahead. What takes longer than the bounds is cut and says so. Peers that are not installed are listed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import ENGINES, OFFLINE, missing
from benchmarks.workload import Workload, make

SIZES = (1_000, 10_000, 100_000)
SPARE = 4_000  # items that are kept for single adds
TURN = 5  # operations of one engine before the next one's turn
WARM = 3  # searches that are not counted
KINDS = {"all": "no filter", "user": "1 of 200 users", "agent": "scope of all items", "run": "scope of 10 items"}
Cells = dict[str, dict[str, Any]]  # row -> engine -> milliseconds, seconds, a share, or a word why not


class Stopped(Exception):
    """The engine failed or was too slow, and runs no more; says why."""


class Worker:
    """An engine's process. A call that takes longer than `bound` seconds ends it."""

    def __init__(self, name: str, folder: Path, workload: Path, *, bare: bool = False) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", name, str(folder), str(workload), *(["--bare"] * bare)]
        environment = {**os.environ, **OFFLINE, "MEM0_DIR": str(folder / "home")}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def call(self, do: str, bound: float, **arguments: Any) -> Any:
        """The result; None where the engine has no such operation.

        Raises:
            Stopped: too slow, or failed.
        """
        assert self._process.stdin and self._process.stdout
        timer = threading.Timer(bound, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        reply = json.loads(line) if line else {"error": f"over {bound:.0f} s" if timer.finished.is_set() else "died"}
        if "error" in reply:
            raise Stopped(reply["error"])
        return reply.get("value")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def started(name: str, folder: Path, workload: Path, *, bare: bool = False) -> Iterator[Worker]:
    """A worker for a block."""
    worker = Worker(name, folder, workload, bare=bare)
    try:
        yield worker
    finally:
        worker.close()


class Arena:
    """All engines at one size."""

    def __init__(
        self, size: int, names: Sequence[str], root: Path, workload: Path, options: argparse.Namespace
    ) -> None:
        self.size, self.names, self.root, self.workload, self.options = size, list(names), root, workload, options
        self.workers: dict[str, Worker] = {}
        self.cells: Cells = {}
        self.spent = 0  # spare items that were added
        for name in self.names:
            self.put("search by", name, ENGINES[name].finds)
            self.put("an add is synced", name, ENGINES[name].syncs)

    def put(self, row: str, name: str, value: Any) -> None:
        """Fill one cell."""
        self.cells.setdefault(row, {})[name] = value

    def run(self, work: Workload) -> Cells:
        """Every figure of this size."""
        with ExitStack() as stack:
            for name in self.names:
                self.workers[name] = stack.enter_context(started(name, self.root / name, self.workload))
                self._stage(f"load {name}", name, partial(self._load, name))
            self._recall(work)
            for kind, label in KINDS.items():
                self._rounds(f"search, {label}", "search", self.options.searches, {"kind": kind}, warm=WARM)
            for kind in ("agent", "run"):
                self._rounds(f"list, {KINDS[kind]}", "listing", self.options.searches // 2, {"kind": kind}, warm=WARM)
            self._adds("single add, durable", self.options.adds)
            for name in list(self.workers):
                self._stage("memory", name, partial(self._memory, name))
            self._fast()
        for name in self.names:
            if isinstance(self.cells.get("load and index, s", {}).get(name), float):
                self._stage(f"open {name}", name, partial(self._reopen, name))
        return self.cells

    def _stage(self, title: str, name: str, work: Callable[[], None]) -> None:
        progress(f"{self.size}: {title}")
        try:
            work()
        except Stopped as stop:
            self._drop(name, title, str(stop))

    def _drop(self, name: str, row: str, why: str) -> None:
        progress(f"{self.size}: {name} stopped in {row!r}: {why}\n")
        self.put("stopped", name, f"{row}: {why}")
        if name in self.workers:
            self.workers.pop(name).close()

    def _load(self, name: str) -> None:
        worker, bound, spent, first = self.workers[name], self.options.load_bound, 0.0, 0.0
        worker.call("open", bound)
        if name == "bare file":
            return
        bulk = min(ENGINES[name].bulk, self.size)
        for start in range(0, self.size, bulk):
            seconds = worker.call("load", bound, start=start, count=min(bulk, self.size - start))
            spent += seconds
            if start < 10_000:
                first += seconds
            progress(f"{self.size}: load {name}, {start + bulk} in {spent:.1f} s")
            if spent > bound:
                self.put("load and index, s", name, f"{start + bulk:,} of {self.size:,} in {spent:.0f} s")
                raise Stopped(f"{start + bulk:,} of {self.size:,} items in {spent:.0f} s")
        settled = worker.call("settle", bound)
        self.put(f"batch add of {min(10_000, self.size):,}, s", name, first)
        self.put("load and index, s", name, spent + settled)

    def _recall(self, work: Workload) -> None:
        asked = work.questions[: self.options.searches]
        exact = nearest(work, self.size, len(asked))
        for name in list(self.workers):
            self._stage(f"recall {name}", name, partial(self._recall_of, name, exact))

    def _recall_of(self, name: str, exact: list[set[int]]) -> None:
        if name == "bare file":
            return
        worker, bound = self.workers[name], self.options.bound
        found: list[list[int]] = []
        begun = time.monotonic()
        while len(found) < len(exact) and time.monotonic() - begun < bound:
            found += worker.call("nearest", 2 * bound, start=len(found), count=TURN) or []
        shares = [len(set(one) & known) / len(known) for one, known in zip(found, exact, strict=False)]
        self.put("recall@10 of the vectors", name, statistics.mean(shares))
        checked = worker.call("check", 2 * bound, start=0, count=20)
        if checked and checked["strays"]:
            self.put("stopped", name, f"a filtered search left its scope {checked['strays']} times of 20")

    def _rounds(
        self, row: str, do: str, total: int, arguments: Mapping[str, Any], *, warm: int = 0, first: int = 0
    ) -> None:
        """The engines take turns until each has done `total` operations or used up its time."""
        times: dict[str, list[float]] = {name: [] for name in self.workers}
        open_to = dict.fromkeys(self.workers, total + warm)
        while open_to:
            for name in list(open_to):
                done = len(times[name])
                progress(f"{self.size}: {row}, {name} {done}")
                count = min(TURN, open_to[name] - done)
                try:
                    some = self.workers[name].call(
                        do, 4 * self.options.bound, start=first + done, count=count, **arguments
                    )
                except Stopped as stop:
                    self._drop(name, row, str(stop))
                    del open_to[name]
                    continue
                times[name] += some or []
                over = sum(times[name]) > 1e3 * self.options.bound
                if some is None or over or len(times[name]) >= open_to[name]:
                    del open_to[name]
        for name, taken in times.items():
            if taken[warm:]:
                self.put(f"{row}: p50 ms", name, float(np.median(taken[warm:])))
                self.put(f"{row}: p95 ms", name, float(np.percentile(taken[warm:], 95)))

    def _adds(self, row: str, total: int) -> None:
        self._rounds(row, "add", total, {}, first=self.size + self.spent, warm=WARM)
        self.spent += total + WARM

    def _memory(self, name: str) -> None:
        self.put("memory to load and serve, MiB", name, self.workers[name].call("memory", 60))

    def _fast(self) -> None:
        """Close everything, note the sizes, and open again without syncs what can do without."""
        for name in list(self.workers):
            self._stage(f"close {name}", name, partial(self._sizes, name))
        for name in list(self.workers):
            progress(f"{self.size}: {name} without syncs")
            try:
                if self.workers[name].call("open", self.options.bound, fast=True) is not None:
                    continue
            except Stopped:
                pass
            self.workers.pop(name).close()
        self._adds("single add, without sync", self.options.adds)

    def _sizes(self, name: str) -> None:
        sizes = self.workers[name].call("close", 60)
        if name == "bare file":
            return
        items = self.size + self.spent
        self.put("bytes an item", name, sizes["file"] / items)
        if sizes["index"]:
            self.put("bytes an item, index cache", name, sizes["index"] / items)

    def _reopen(self, name: str) -> None:
        """What a fresh process pays, three times; and a rebuild."""
        runs = [self._fresh(name) for _ in range(3)]
        for row in runs[0]:
            self.put(row, name, statistics.median(run[row] for run in runs))
        if self.options.no_rebuild:
            return
        with started(name, self.root / name, self.workload, bare=True) as worker:
            worker.call("open", self.options.load_bound)
            seconds = worker.call("rebuild", self.options.load_bound)
            if seconds is not None:
                self.put("rebuild of the indexes, s", name, seconds)

    def _fresh(self, name: str) -> dict[str, float]:
        with started(name, self.root / name, self.workload, bare=True) as worker:
            opened = worker.call("open", self.options.bound)
            (first,) = worker.call("search", self.options.bound, kind="all", start=0, count=1) or [float("nan")]
            worker.call("search", 4 * self.options.bound, kind="all", start=0, count=10)
            return {
                "fresh process: import, s": opened["import"],
                "fresh process: open, s": opened["open"],
                "fresh process: first search, s": first / 1e3,
                "fresh process: memory, MiB": worker.call("memory", 60),
            }


def nearest(work: Workload, size: int, count: int) -> list[set[int]]:
    """The ten nearest items of each question, by comparing all."""
    asked = np.stack([question.vector for question in work.questions[:count]])
    scores = asked @ work.vectors[:size].T
    return [set(row.tolist()) for row in np.argpartition(-scores, 10, axis=1)[:, :10]]


def progress(text: str) -> None:
    """One line on stderr that is written over."""
    print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


def table(size: int, cells: Cells, names: Sequence[str]) -> str:
    """The figures of one size as a Markdown table."""
    lines = [f"| {size:,} items | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for row, found in cells.items():
        if row != "stopped":
            shown = [cell(row, found.get(name), found.get("memkit"), mine=name == "memkit") for name in names]
            lines.append(f"| {row} | {' | '.join(shown)} |")
    notes = [f"{name} stopped in {why}." for name, why in cells.get("stopped", {}).items()]
    return "\n".join(lines + ([""] + notes if notes else []))


def cell(row: str, value: Any, memkit: Any, *, mine: bool) -> str:
    """A figure with how many times memkit's it is."""
    if not isinstance(value, float):
        return value or "–"
    figure = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if mine or not isinstance(memkit, float) or not memkit or row.startswith("recall"):
        return figure
    ratio = value / memkit
    return f"{figure} ({ratio:.2g}×)" if ratio < 99.5 else f"{figure} ({ratio:.0f}×)"


def machine() -> str:
    """Where this ran."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return f"{platform.system()}, {os.cpu_count()} cores, load {load} at the start, Python {platform.python_version()}"


def releases(names: Sequence[str]) -> str:
    """Versions of what is compared."""
    owners = packages_distributions()
    modules = [module.partition(".")[0] for name in names for module in ENGINES[name].modules]
    found = {owner: version(owner) for module in modules for owner in owners.get(module, [])}
    return ", ".join(f"{owner} {number}" for owner, number in sorted(found.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="items, separated by commas")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--quick", action="store_true", help="1,000 items and few repetitions")
    parser.add_argument("--searches", type=int, default=100, help="searches of each kind (default: %(default)s)")
    parser.add_argument("--adds", type=int, default=200, help="single adds of each kind (default: %(default)s)")
    parser.add_argument("--bound", type=float, default=30, help="seconds a cell may take (default: %(default)s)")
    parser.add_argument("--load-bound", type=float, default=120, help="seconds a load may take (default: %(default)s)")
    parser.add_argument("--no-rebuild", action="store_true", help="leave out rebuilding the indexes")
    parser.add_argument("--dir", type=Path, help="where the engines store: a real disk, for syncs to mean something")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.searches, options.adds, options.bound, options.load_bound = "1000", 20, 30, 5, 10
    return options


def main() -> None:
    options = parse()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    wanted = [name.strip() for name in options.engines.split(",")]
    absent = {name: module for name in wanted if (module := missing(name))}
    print(machine())
    for name, module in absent.items():
        print(f"{name}: not installed ({module})")
    names = [name for name in wanted if name not in absent]
    print(releases(names))
    results: dict[str, Any] = {"machine": machine(), "releases": releases(names), "not installed": absent, "sizes": {}}
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        for size in sizes:
            root = Path(folder) / str(size)
            progress(f"{size}: making the data")
            work = make(size + SPARE, size, max(options.searches, options.adds) + WARM)
            work.save(root / "workload")
            arena = Arena(size, names, root, root / "workload", options)
            cells = arena.run(work)
            progress("")
            print(f"\n{table(size, cells, names)}", flush=True)
            results["sizes"][size] = cells
            slow = [name for name in names if isinstance(cells.get("load and index, s", {}).get(name), str)]
            names = [name for name in names if name not in slow]  # a larger size would be cut as well
            for name in slow:
                print(f"\n{name} is left out of larger sizes: {cells['load and index, s'][name]}")
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
