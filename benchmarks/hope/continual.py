"""Five tasks, one after the other: what is left of the first when the last has been learned.

    python -m benchmarks.hope.continual                              # digits, two protocols; CLINC150 from ../shared/data
    python -m benchmarks.hope.continual --data FOLDER --seeds 5 --json out.json

Digits of scikit-learn (8 x 8) as 1,024 random Fourier features. *Permuted* (domain-incremental): five fixed orders of
the pixels, ten classes each. *Split* (class-incremental): two digits a task, ten classes at the end, no task labels at
the test. *CLINC150* (class-incremental): the intents of a domain a task, as sentence vectors of the default embedder.

Rows of networks see each task 8 times, memories once. Step sizes are chosen for each row from a grid of three on a seed
of its own. Forgetting: accuracy right after learning a task less that at the end, the mean over all tasks but the last;
relative: as a share of the mean accuracy right after learning.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.hope.learners import Learner, Network, delta, hebbian, rls
from benchmarks.recall.systems import Cached
from memkit_storage.index import default_cache_dir

Make = Callable[[int, int, float], Learner]
Row = tuple[Make, Sequence[float]]  # a learner of features, classes and a setting, and the settings to choose from
ROWS: dict[str, Row] = {
    "sequential fine-tuning": (lambda f, c, s: Network(f, c, s), (3e-4, 1e-3, 3e-3)),
    "fine-tuning, CMS schedule 16/4/1": (lambda f, c, s: Network(f, c, s, periods=(16, 4, 1)), (3e-4, 1e-3, 3e-3)),
    "EWC": (lambda f, c, s: Network(f, c, 1e-3, ewc=s), (1e1, 1e2, 1e3)),
    "replay, 20 a task": (lambda f, c, s: Network(f, c, s, replay=20), (3e-4, 1e-3, 3e-3)),
    "replay, CMS schedule 16/4/1": (
        lambda f, c, s: Network(f, c, s, replay=20, periods=(16, 4, 1)), (3e-4, 1e-3, 3e-3),
    ),
    "replay of everything": (lambda f, c, s: Network(f, c, s, replay=None), (3e-4, 1e-3, 3e-3)),
    "Hebbian": (lambda f, c, _: hebbian(f, c), (0.0,)),
    "delta rule": (lambda f, c, s: delta(f, c, s), (0.1, 0.3, 1.0)),
    "gated delta, 0.999": (lambda f, c, s: delta(f, c, s, 0.999), (0.1, 0.3, 1.0)),
    "recursive least squares": (lambda f, c, s: rls(f, c, s), (0.01, 0.1, 1.0)),
}  # fmt: skip
TUNING_SEED = 1_000


class Task(NamedTuple):
    """Features (n, f) and labels (n,), to learn from and to test with."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


class Outcome(NamedTuple):
    """Accuracy over all tests at the end, forgetting in points, relative forgetting, seconds, bytes kept."""

    accuracy: float
    forgetting: float
    relative: float
    seconds: float
    size: int


def run(learner: Learner, tasks: Sequence[Task]) -> Outcome:
    """Teach the tasks in order, and test."""
    began, after = time.perf_counter(), []
    for task in tasks:
        learner.learn(task.x, task.y)
        after.append(_accuracy(learner, task))
    seconds = time.perf_counter() - began
    end = [_accuracy(learner, task) for task in tasks]
    lost = [(a - e) for a, e in zip(after[:-1], end[:-1], strict=True)]
    relative = sum(lost) / max(sum(after[:-1]), 1e-9)
    return Outcome(float(np.mean(end)), float(np.mean(lost)), relative, seconds, learner.size())


def _accuracy(learner: Learner, task: Task) -> float:
    return float((learner.predict(task.test_x) == task.test_y).float().mean())


# tasks


def digits(seed: int, *, permuted: bool) -> list[Task]:
    """Five tasks of handwritten digits; a seed shuffles the examples, the features and the tasks."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    raw = load_digits()
    order = rng.permutation(len(raw.target))
    x, y = raw.data[order].astype(np.float32) / 16, raw.target[order]
    features = _fourier(rng, x.shape[1])
    train = np.arange(len(y)) < 1_300
    if permuted:
        orders = [rng.permutation(x.shape[1]) for _ in range(5)]
        return [_task(features(x[:, order]), y, train) for order in orders]
    pairs = rng.permutation(10).reshape(5, 2)
    return [_task(features(x)[among], y[among], train[among]) for among in (np.isin(y, pair) for pair in pairs)]


def _fourier(rng: np.random.Generator, dim: int, count: int = 1_024) -> Callable[[Any], Any]:
    """Random Fourier features (Rahimi and Recht 2007) of a Gaussian kernel, of unit length."""
    directions, phases = rng.normal(size=(dim, count)) / 1.5, rng.uniform(0, 2 * np.pi, count)
    return lambda x: np.cos(x @ directions + phases) * (2 / count) ** 0.5


def _task(x: Any, y: Any, train: Any) -> Task:
    x = torch.from_numpy(np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32))
    y, train = torch.from_numpy(np.asarray(y, np.int64)), torch.from_numpy(train)
    return Task(x[train], y[train], x[~train], y[~train])


class Intents:
    """CLINC150 by domain: as many tasks as there are domains in the folder, in an order of the seed's."""

    def __init__(self, folder: Path) -> None:
        domains = json.loads(_text(folder / "domains.json.gz"))
        self.domains = [sorted(intents) for _, intents in sorted(domains.items())]
        embedder = Cached(default_cache_dir() / "benchmarks")
        self.parts = {}
        for part in ("train", "test"):
            lines = [json.loads(line) for line in _text(folder / f"{part}.jsonl.gz").splitlines()]
            vectors = np.asarray(embedder.embed_documents([line["text"] for line in lines]), np.float32)
            self.parts[part] = vectors, np.array([line["label"] for line in lines])

    def tasks(self, seed: int) -> list[Task]:
        """One task a domain."""
        rng = np.random.default_rng(seed)
        names = [intent for domain in self.domains for intent in domain]
        mean = self.parts["train"][0].mean(axis=0)  # of unlabelled text: the memories need centred keys
        return [
            Task(*self._part("train", at, names, mean, rng), *self._part("test", at, names, mean, rng))
            for at in rng.permutation(len(self.domains))
        ]

    def _part(self, part: str, at: int, names: list[str], mean: Any, rng: Any) -> tuple[Tensor, Tensor]:
        vectors, labels = self.parts[part]
        among = rng.permutation(np.flatnonzero(np.isin(labels, self.domains[at])))
        centred = vectors[among] - mean
        y = torch.tensor([names.index(label) for label in labels[among]])
        return torch.from_numpy(centred / np.linalg.norm(centred, axis=1, keepdims=True)), y


def _text(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return lines.read()


# the table


def table(title: str, tasks: Callable[[int], list[Task]], seeds: int, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Print one protocol; returns each row's outcomes by seed."""
    found: dict[str, Any] = {}
    print(f"\n## {title}\n\n| | accuracy at the end | forgetting | relative forgetting | s | MB kept | step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (make, grid) in rows.items():
        step = max(grid, key=lambda s: _outcome(make, s, tasks, TUNING_SEED).accuracy) if len(grid) > 1 else grid[0]
        outcomes = [_outcome(make, step, tasks, seed) for seed in range(seeds)]
        found[name] = [outcome._asdict() for outcome in outcomes]
        cells = [_spread([getattr(o, part) for o in outcomes]) for part in ("accuracy", "forgetting", "relative")]
        seconds, size = np.mean([o.seconds for o in outcomes]), outcomes[0].size / 1e6
        print(f"| {name} | {' | '.join(cells)} | {seconds:.1f} | {size:.1f} | {step:g} |", flush=True)
    return found


def _outcome(make: Make, step: float, tasks: Callable[[int], list[Task]], seed: int) -> Outcome:
    print(f"\r\033[K{seed}", end="", file=sys.stderr, flush=True)
    torch.manual_seed(seed)
    some = tasks(seed)
    classes = 1 + max(int(task.y.max()) for task in some)
    return run(make(some[0].x.shape[1], classes, step), some)


def _spread(values: Sequence[float]) -> str:
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder with clinc150/")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: " + ", ".join(ROWS).replace("%", "%%"))
    parser.add_argument("--protocols", default="permuted,split,clinc150")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    asked = parser.parse_args(arguments)
    rows = {n: row for n, row in ROWS.items() if n in asked.rows.split(",") or asked.rows == ",".join(ROWS)}
    found = {}
    for name in asked.protocols.split(","):
        if name == "clinc150":
            intents = Intents(asked.data / "clinc150")
            found[name] = table("CLINC150, a domain a task: class-incremental", intents.tasks, asked.seeds, rows)
        else:
            kind = "domain" if name == "permuted" else "class"
            title = f"digits, {name}: {kind}-incremental"
            found[name] = table(title, lambda s, p=name == "permuted": digits(s, permuted=p), asked.seeds, rows)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
