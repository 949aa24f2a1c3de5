"""What the signals and the learned tiers cost: an update, and a search beside the retrieval of its candidates.

    python -m benchmarks.recall.latency                          # 100,000 items
    python -m benchmarks.recall.latency --items 10000

Items, vectors and questions of `benchmarks.workload`, one file, durability "os", one thread. *Candidates*: the two searches
of the index alone. *Search*: `Memory.search` with its 23 signals, before any feedback and after FEEDBACKS of the user who
asks. Each is put QUESTIONS questions that nobody has asked before, in turns, so that they share the machine's moods; *asked
again* are the questions that the feedback was about. Updates: one feedback of one used and nine passed-over items, and 50
candidates for the ranker. Milliseconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from benchmarks.workload import DIM, Workload, unit
from memkit import Memory
from memkit.fast import adapter, needs, ranker
from memkit.ingest import Draft
from memkit.recall import CANDIDATES
from memkit.signals import NAMES
from memkit_storage.filters import Filter

QUESTIONS, WARM, FEEDBACKS, UPDATES, BATCH = 200, 10, 30, 300, 10_000


def timed(work: Callable[[Any], object], over: Iterable[Any]) -> tuple[float, float]:
    """p50 and p95 of a call, in milliseconds."""
    taken = []
    for one in over:
        began = time.perf_counter()
        work(one)
        taken.append(1e3 * (time.perf_counter() - began))
    return percentiles(taken)


def percentiles(taken: Sequence[float]) -> tuple[float, float]:
    """p50 and p95."""
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 95))


def updates() -> dict[str, tuple[float, float]]:
    """One feedback, by each part of the fast tier."""
    rng = np.random.default_rng(0)
    signals, used = rng.normal(size=(50, len(NAMES))), np.arange(50) == 3
    query, target, wrong = (unit(rng.normal(size=(n, DIM))).astype(np.float32) for n in (1, 1, 9))
    ranking, words, past = ranker.empty(), adapter.empty(DIM), needs.empty(DIM)
    for i in range(64):
        past = needs.learn(past, unit(rng.normal(size=(1, DIM)))[0].astype(np.float32), used=[i], wrong=[100 + i])
    parts: dict[str, Callable[[Any], object]] = {
        "ranker": lambda _: ranker.learn(ranking, signals, used),
        "adapter": lambda _: adapter.learn(words, query[0], target, wrong=wrong),
        "memory of needs": lambda _: needs.learn(past, query[0], used=[5], wrong=[7, 8]),
    }
    whole = {"all three": lambda _: [part(None) for part in parts.values()]}
    return {f"update: {name}": timed(part, range(UPDATES)) for name, part in (parts | whole).items()}


class Ready:
    """An embedder that has every vector already."""

    def __init__(self, data: Workload) -> None:
        self._known = data.lookup()

    def __call__(self, texts: Sequence[str]) -> Any:
        return np.stack([self._known[text] for text in texts])


def searches(data: Workload, folder: Path) -> dict[str, tuple[float, float]]:
    """Candidates alone, and whole searches, before and after feedback."""
    with Memory(folder / "latency.mem", embedder=Ready(data), cache_dir=folder, durability="os") as memory:
        for start in range(0, len(data.texts), BATCH):
            entries = data.entries(start, min(BATCH, len(data.texts) - start))
            memory.add_drafts([Draft(one.text, id=str(one.number)) for one in entries])
        memory.rebuild()  # as many rows sealed as there are, on every machine
        every, index = Filter.parse(None), memory._index
        asks: dict[str, Callable[[Any], object]] = {
            "candidates": lambda q: index.search(q.vector, q.text, CANDIDATES, every),
            "search": lambda q: memory.search(q.text),
        }
        fresh = iter(data.questions)
        for work in asks.values():  # opened, and the background is there
            timed(work, islice(fresh, WARM))
        found = in_turns(asks, fresh)
        for question in data.questions[:FEEDBACKS]:
            memory.feedback(question.text, used=str(question.target))
        found |= in_turns({f"{name}, after feedback": work for name, work in asks.items()}, fresh)
        found["search, asked again"] = timed(asks["search"], data.questions[:FEEDBACKS])
    return found


def in_turns(asks: Mapping[str, Callable[[Any], object]], questions: Iterator[Any]) -> dict[str, tuple[float, float]]:
    """p50 and p95 of several calls, each with QUESTIONS questions of its own."""
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(QUESTIONS):
        for name, work in asks.items():
            question = next(questions)
            began = time.perf_counter()
            work(question)
            taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: percentiles(some) for name, some in taken.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    data = workload.make(options.items, options.items, 2 * WARM + 4 * QUESTIONS)
    with tempfile.TemporaryDirectory() as folder:
        found = updates() | searches(data, Path(folder))
    print(f"{options.items:,} items\n\n| ms | p50 | p95 |\n| --- | --- | --- |")
    for name, (middle, high) in found.items():
        print(f"| {name} | {middle:.2f} | {high:.2f} |")


if __name__ == "__main__":
    main()
