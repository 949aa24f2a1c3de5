"""Intents that come in sequence: what is known of all of them in the end, against learning them all at once.

    python -m benchmarks.hope.intents                      # CLINC150 and Banking77 from ../shared/data
    python -m benchmarks.hope.intents --shots 10           # ten examples an intent, and memkit's own search beside
    python -m benchmarks.hope.intents --data FOLDER --seeds 5 --json out.json

Class-incremental: a seed draws the order of the intents, which come TASK of a set at a time, each example once; no task
labels at the test. All rows see the same sentence vectors of the default embedder, centred by the mean of the training
sentences and of unit length.

- *joint*: logistic and ridge regression of all examples of all tasks so far, solved anew after each. Ridge regression
  from the log is what memkit's sleep does with the query adapter, at one weight for every feedback.
- *recursive least squares*: `memkit.fast.rules.rls_chunked`, the rule of memkit's query adapter, each example once.
- *streaming discriminant*: a mean of each intent and one covariance within all, which are sums and need no log (Hayes
  and Kanan, Lifelong machine learning with deep streaming linear discriminant analysis, 2020). Not in memkit.
- *memory of needs*: `memkit.fast.needs`, the examples as needs that their intent served; 2,048 at most, the nearest of one intent joined.
- *memkit, examples are items*: a `memkit.Memory` with the examples, the intent in their metadata: that of the nearest
  (`mode="vector"`). SEARCHED test sentences a task.
- *memkit, intents are items*: a `memkit.Memory` whose items are the names of the intents; each example is a query, and
  `feedback` says which item served it; the first of `search` answers. With --shots alone: feedback takes 0.1 s.
- *the same, after each sleep*: `memory.consolidate()` after each task.
- *fine-tuning*: a linear softmax head by Adam, task after task, EPOCHS times each.

Ridge, step and C are chosen on a seed of its own. Forgetting: accuracy right after a task less that at the end, the mean
over all tasks but the last. Some of it is no forgetting: there are more intents to be taken for. How much, the joint
rows show, which have forgotten nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.hope.continual import Row, Task, table
from benchmarks.hope.fewshot import labelled, sentences
from benchmarks.hope.learners import rls
from benchmarks.recall.systems import Cached
from memkit import Memory
from memkit.fast import familiarity, needs
from memkit_storage.index import default_cache_dir

TASK = {"clinc150": 15, "banking77": 5}  # intents
EPOCHS, BATCH = 20, 32
SEARCHED = 50
RIDGES = (0.1, 1.0, 10.0)
JOINT = ("joint logistic regression", "joint ridge regression")


class Joint:
    """Everything that has come so far, solved anew after each task.

    Args:
        solve: of features and labels: what predicts labels.
    """

    def __init__(self, solve: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]) -> None:
        self.solve, self.seen = solve, []

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Log a task's examples, and solve."""
        self.seen.append((x, y))
        self.read = self.solve(*(torch.cat(parts) for parts in zip(*self.seen, strict=True)))

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest label."""
        return self.read(x)

    def size(self) -> int:
        """The examples."""
        return sum(x.numel() * x.element_size() for x, _ in self.seen)


def ridge(strength: float) -> Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]:
    """Least squares to one-hot labels, without an intercept."""

    def solve(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        x = x.double()
        gram = x.T @ x + strength * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(gram, x.T @ one_hot(y).double())
        return lambda asked: (asked.double() @ weights).argmax(1)

    return solve


def discriminant(shrink: float) -> Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]:
    """Linear discriminant analysis, the covariance within intents shrunk to a multiple of the identity."""

    def solve(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        x, label = x.double(), one_hot(y).double()
        count = label.sum(0)
        means = label.T @ x / count.clamp(min=1)[:, None]
        within = x - means[y]
        covariance, eye = within.T @ within / len(x), torch.eye(x.shape[1], dtype=x.dtype)
        covariance = (1 - shrink) * covariance + shrink * covariance.trace() / len(eye) * eye
        weights = torch.linalg.solve(covariance, means.T)
        offset = ((means.T * weights).sum(0) / 2).masked_fill(count == 0, torch.inf)
        return lambda asked: (asked.double() @ weights - offset).argmax(1)

    return solve


def logistic(strength: float) -> Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]:
    """Multinomial logistic regression; `strength` is scikit-learn's C."""

    def solve(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        from sklearn.linear_model import LogisticRegression

        if len(y.unique()) < 2:
            return lambda asked: y[:1].expand(len(asked))
        model = LogisticRegression(C=strength, max_iter=1_000).fit(x.numpy(), y.numpy())
        return lambda asked: torch.from_numpy(model.predict(asked.numpy()))

    return solve


class Head:
    """A linear softmax head, fine-tuned task after task."""

    def __init__(self, features: int, classes: int, rate: float) -> None:
        self.head, self.rate = nn.Linear(features, classes), rate

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Fine-tune on a task."""
        optimizer = torch.optim.Adam(self.head.parameters(), self.rate)
        for _ in range(EPOCHS):
            for at in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                cross_entropy(self.head(x[at]), y[at]).backward()
                optimizer.step()

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class."""
        with torch.no_grad():
            return self.head(x).argmax(1)

    def size(self) -> int:
        """Of the head."""
        return sum(p.numel() * p.element_size() for p in self.head.parameters())


class Needs:
    """Every example is a need that an item, its intent, served."""

    def __init__(self, features: int) -> None:
        self.state = needs.empty(features)

    def learn(self, x: Tensor, y: Tensor) -> None:
        """One feedback an example."""
        for vector, label in zip(x.numpy(), y.tolist(), strict=True):
            self.state = needs.learn(self.state, vector, used=[label])
        keys = self.state.keys
        covariance = np.asarray(np.cov(keys.T), np.float32)
        self.ready = familiarity.prepare(
            self.state, familiarity.whitening_of(self.state, keys.mean(axis=0), covariance, len(keys))
        )

    def predict(self, x: Tensor) -> Tensor:
        """The item that served the nearest need."""
        found = [familiarity.recall(self.state, vector, prepared=self.ready).nearest for vector in x.numpy()]
        return torch.tensor([items[0] for items in found])

    def size(self) -> int:
        """Of the state."""
        return sum(array.nbytes for array in needs.to_arrays(self.state).values())


class Searching:
    """A memory in a file of its own. Vectors stand for the texts that they were made of.

    Args:
        said: the text of each vector, by its bytes. names: of the intents.
    """

    def __init__(self, said: dict[bytes, str], names: Sequence[str], embedder: Any) -> None:
        self.said, self.names = said, names
        path = Path(mkdtemp())
        finalize(self, rmtree, path, ignore_errors=True)
        self.memory = Memory(path / "a.mem", embedder=embedder, cache_dir=path / "cache", durability="os")

    def texts(self, x: Tensor) -> list[str]:
        """What the vectors were made of."""
        return [self.said[vector.tobytes()] for vector in x.numpy()]

    def size(self) -> int:
        """Of the file."""
        return self.memory.stats().file_bytes


class Examples(Searching):
    """Every example is an item."""

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Add the examples."""
        pairs = zip(self.texts(x), y.tolist(), strict=True)
        self.memory.add([{"role": "user", "content": text, "metadata": {"intent": label}} for text, label in pairs])

    def predict(self, x: Tensor) -> Tensor:
        """The intent of the nearest one."""
        found = [self.memory.search(text, limit=1, mode="vector")[0] for text in self.texts(x)]
        return torch.tensor([hit.metadata["intent"] for hit in found])


class Taught(Searching):
    """Every intent is an item that bears its name, and every example a query that it serves.

    Args:
        sleeps: consolidate after each task.
    """

    def __init__(self, said: dict[bytes, str], names: Sequence[str], embedder: Any, *, sleeps: bool) -> None:
        super().__init__(said, names, embedder)
        self.sleeps = sleeps

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Add the intents of the task, and tell which of them served each example."""
        for label in y.unique().tolist():
            self.memory.add(self.names[label].replace("_", " "), id=str(label))
        for text, label in zip(self.texts(x), y.tolist(), strict=True):
            self.memory.feedback(text, used=str(label))
        if self.sleeps:
            self.memory.consolidate()

    def predict(self, x: Tensor) -> Tensor:
        """The item that is found first."""
        return torch.tensor([int(self.memory.search(text, limit=1)[0].id) for text in self.texts(x)])


# the stream


class Stream:
    """A set of intents, in an order of the seed's."""

    def __init__(self, folder: Path, size: int, shots: int | None) -> None:
        self.data, self.size, self.shots = sentences(folder), size, shots
        parts = [labelled(folder, part) for part in ("train", "test")]
        self.names = sorted({row["label"] for row in parts[0]})
        both = zip((self.data.x, self.data.test_x), parts, strict=True)
        self.said = {v.tobytes(): row["text"] for x, rows in both for v, row in zip(x.numpy(), rows, strict=True)}
        self.embedder = Cached(default_cache_dir() / "benchmarks")

    def tasks(self, seed: int, searched: int | None = None) -> list[Task]:
        """TASK intents each; `searched` limits the test sentences of one."""
        rng = np.random.default_rng(seed)
        order = torch.from_numpy(rng.permutation(len(self.names)))
        return [self._task(some, rng, searched) for some in order.split(self.size)]

    def _task(self, intents: Tensor, rng: np.random.Generator, searched: int | None) -> Task:
        x, y, test_x, test_y = self.data
        kept = [torch.from_numpy(rng.permutation((y == i).nonzero()[:, 0].numpy()))[: self.shots] for i in intents]
        at = torch.cat(kept)[torch.from_numpy(rng.permutation(sum(map(len, kept))))]
        asked = torch.from_numpy(rng.permutation(torch.isin(test_y, intents).nonzero()[:, 0].numpy()))[:searched]
        return Task(x[at], y[at], test_x[asked], test_y[asked])


ROWS: dict[str, Row] = {
    JOINT[0]: (lambda f, c, s: Joint(logistic(s)), (10.0, 100.0)),
    JOINT[1]: (lambda f, c, s: Joint(ridge(s)), RIDGES),
    "recursive least squares": (rls, RIDGES),
    "streaming discriminant": (lambda f, c, s: Joint(discriminant(s)), (0.05, 0.2, 0.5)),
    "memory of needs": (lambda f, c, s: Needs(f), (0.0,)),
    "fine-tuning": (Head, (1e-3, 1e-2)),
}


def searching(stream: Stream) -> dict[str, Row]:
    """Rows that go through `memkit.Memory`."""
    common = (stream.said, stream.names, stream.embedder)
    rows: dict[str, Row] = {"memkit, examples are items": (lambda f, c, s: Examples(*common), (0.0,))}
    if stream.shots:
        rows["memkit, intents are items"] = (lambda f, c, s: Taught(*common, sleeps=False), (0.0,))
        rows["the same, after each sleep"] = (lambda f, c, s: Taught(*common, sleeps=True), (0.0,))
    return rows


def behind(found: dict[str, Any]) -> str:
    """How each row's accuracy and forgetting differ from those of the better joint row, in points."""
    joint = max((name for name in JOINT if name in found), key=lambda name: _mean(found[name], "accuracy"))
    lines = [f"| points more than {joint} | accuracy at the end | forgetting |", "| --- | --- | --- |"]
    for name, outcomes in found.items():
        gaps = [_mean(outcomes, part) - _mean(found[joint], part) for part in ("accuracy", "forgetting")]
        lines.append(f"| {name} | {gaps[0]:+.1f} | {gaps[1]:+.1f} |")
    return "\n".join(lines)


def _mean(outcomes: Sequence[dict[str, float]], part: str) -> float:
    return 100 * float(np.mean([outcome[part] for outcome in outcomes]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder with clinc150/ and banking77/")
    parser.add_argument("--sets", default="clinc150,banking77")
    parser.add_argument("--shots", type=int, help="examples an intent; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--search-seeds", type=int, default=1, help="of the rows that search; 0: none of them")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    asked = parser.parse_args(arguments)
    figures = {}
    for name in asked.sets.split(","):
        stream = Stream(asked.data / name, TASK[name], asked.shots)
        each = f"{asked.shots or 'all'} examples an intent"
        figures[name] = table(f"{name}, {TASK[name]} intents a task, {each}", stream.tasks, asked.seeds, ROWS)
        print(f"\n{behind(figures[name])}")
        if not asked.search_seeds:
            continue
        some = f"{name}, {each}, through memkit.Memory: {SEARCHED} test sentences a task"
        joint = {JOINT[1]: (lambda f, c, s: Joint(ridge(s)), (1.0,))}
        rows = joint | searching(stream)
        figures[f"{name}, search"] = table(some, lambda s, i=stream: i.tasks(s, SEARCHED), asked.search_seeds, rows)
        print(f"\n{behind(figures[f'{name}, search'])}")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
