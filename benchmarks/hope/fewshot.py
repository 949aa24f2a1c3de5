"""From 1 to 256 examples: what is known of ten intents, by learners on the same sentence vectors.

    python -m benchmarks.hope.fewshot --data FOLDER --plots FOLDER          # clinc150/ and banking77/ are in FOLDER

Ten intents and an order of their examples are drawn for each seed; a learner meets 1, 2, 4 ... 256 examples, each once,
and is asked after each power of two for the intents of all test sentences of the ten. Accuracy, per cent, mean ±
standard deviation over seeds. Vectors: default embedder, centred by the mean of all training sentences, unit length.
Step and ridge are the best of a grid at ten intents of a seed of their own.

Gated DeltaNet and self-modifying Titans are trained before, on episodes of 64 examples of the intents that are not
drawn for the test, with labels shuffled, at equal state bytes, steps and search. They see the vectors through 32
numbers that are trained too; the other learners see all of them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from benchmarks.hope.learners import Learner, delta, hebbian, rls
from benchmarks.hope.mixers import BASELINES, DIM, TITANS, state_bytes
from benchmarks.hope.plots import lines
from benchmarks.hope.training import Model, train
from benchmarks.recall.systems import Cached
from memkit_storage.index import default_cache_dir

WAYS, SHOTS = 10, tuple(2**i for i in range(9))
STEPS, EPISODE, BATCH, RATES, TUNING_SEED = 600, 64, 16, (4e-3, 8e-3), 1_000


class Sentences(NamedTuple):
    """Vectors (n, f) of unit length and labels (n,), to learn from and to test with."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def sentences(folder: Path) -> Sentences:
    """A data set of intents, embedded by the default embedder."""
    embedder, parts = Cached(default_cache_dir() / "benchmarks"), []
    for part in ("train", "test"):
        found = labelled(folder, part)
        vectors = torch.from_numpy(np.asarray(embedder.embed_documents([row["text"] for row in found]), np.float32))
        parts.append((vectors, [row["label"] for row in found]))
    names, mean = sorted(set(parts[0][1])), parts[0][0].mean(0)
    x, test_x = (normalize(vectors - mean, dim=-1) for vectors, _ in parts)
    y, test_y = (torch.tensor([names.index(label) for label in labels]) for _, labels in parts)
    return Sentences(x, y, test_x, test_y)


def labelled(folder: Path, part: str) -> list[dict[str, str]]:
    """The `text` and `label` of each line."""
    with gzip.open(folder / f"{part}.jsonl.gz", "rt", encoding="utf-8") as rows:
        return [json.loads(row) for row in rows]


def drawn(data: Sentences, seed: int) -> tuple[Sentences, Sentences]:
    """Ten intents, numbered 0 to 9, with their examples shuffled; and the sentences of all other intents."""
    rng = Generator().manual_seed(seed)
    order = torch.randperm(int(data.y.max()) + 1, generator=rng)[:WAYS]
    at = torch.isin(data.y, order).nonzero()[:, 0]
    at = at[torch.randperm(len(at), generator=rng)][: SHOTS[-1]]
    asked = torch.isin(data.test_y, order)
    number = torch.full((int(data.y.max()) + 1,), -1).scatter(0, order, torch.arange(WAYS))
    others = ~torch.isin(data.y, order)
    ten = Sentences(data.x[at], number[data.y[at]], data.test_x[asked], number[data.test_y[asked]])
    return ten, Sentences(data.x[others], data.y[others], data.test_x[~asked], data.test_y[~asked])


class Prototypes:
    """The nearest mean of a class."""

    def __init__(self, features: int) -> None:
        self.sums = torch.zeros(WAYS, features)

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Add examples to the means."""
        self.sums = self.sums + one_hot(y, WAYS).float().T @ x

    def predict(self, x: Tensor) -> Tensor:
        """The class whose mean is nearest in angle."""
        return (x @ normalize(self.sums, dim=-1).T).argmax(1)

    def size(self) -> int:
        """Bytes of the sums."""
        return self.sums.numel() * 4


class Nearest:
    """The class of the nearest example: all are kept."""

    def __init__(self, features: int) -> None:
        self.x, self.y = torch.zeros(0, features), torch.zeros(0, dtype=torch.long)

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Keep examples."""
        self.x, self.y = torch.cat([self.x, x]), torch.cat([self.y, y])

    def predict(self, x: Tensor) -> Tensor:
        """That of the nearest."""
        return self.y[(x @ self.x.T).argmax(1)]

    def size(self) -> int:
        """Bytes of the examples."""
        return self.x.numel() * 4


class Trained:
    """A sequence model that reads (x, no label), then (x, label), and says the label at the first of the two."""

    def __init__(self, model: Model) -> None:
        self.model, self.state = model, model.block.start(1)

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Read examples."""
        with torch.no_grad():
            _, self.state = self.model.read(tokens(x, y)[None], self.state)

    def predict(self, x: Tensor) -> Tensor:
        """Each from the same state."""
        with torch.no_grad():
            asked = tokens(x, torch.zeros(len(x), dtype=torch.long))[::2, None]
            return self.model.read(asked, _repeated(self.state, len(x)))[0][:, -1].argmax(-1)

    def size(self) -> int:
        """Bytes of the state, as the mixers count them."""
        return state_bytes(self.model.block, 0)


def _repeated(state: Any, count: int) -> Any:
    """A state of one user for many."""
    if isinstance(state, Tensor):
        return state.expand(count, *state.shape[1:])
    return type(state)(*(_repeated(part, count) for part in state)) if hasattr(state, "_fields") else state


def tokens(x: Tensor, y: Tensor) -> Tensor:
    """(2 t, f + WAYS): each vector without its label, then with it. They are scaled, to be of the size of one-hots."""
    x, label = x * x.shape[-1] ** 0.5, one_hot(y, WAYS).float() * WAYS**0.5
    return torch.stack([torch.cat([x, torch.zeros_like(label)], -1), torch.cat([x, label], -1)], 1).flatten(0, 1)


MIXERS = {
    "trained gated DeltaNet": BASELINES["gated DeltaNet"],
    "trained self-modifying Titans": TITANS["self-modifying Titans"],
}


def trained(name: str, others: Sentences, rate: float, seed: int, *, steps: int = STEPS) -> tuple[Model, float]:
    """A model that has learned to learn from the other intents, and its final loss."""
    torch.manual_seed(seed)
    model = Model(MIXERS[name](), nn.Linear(others.x.shape[1] + WAYS, DIM), WAYS)

    def loss(rng: Generator) -> Tensor:
        some = [_episode(others, rng) for _ in range(BATCH)]
        said = model(torch.stack([tokens(*one) for one in some]))[:, ::2]
        return cross_entropy(said.flatten(0, 1), torch.cat([y for _, y in some]))

    return model, float(np.mean(train(model, loss, steps=steps, rate=rate, seed=seed)[-50:]))


def _episode(others: Sentences, rng: Generator) -> tuple[Tensor, Tensor]:
    intents = others.y.unique()
    order = intents[torch.randperm(len(intents), generator=rng)[:WAYS]]
    same = others.y[:, None] == order
    at = same.any(1).nonzero()[:, 0]
    at = at[torch.randperm(len(at), generator=rng)[:EPISODE]]
    return others.x[at], same[at].long().argmax(1)


# the table

Make = Callable[[int, float], Learner]
LEARNERS: dict[str, tuple[Make, Sequence[float]]] = {
    "prototypes": (lambda f, _: Prototypes(f), (0.0,)),
    "nearest neighbour": (lambda f, _: Nearest(f), (0.0,)),
    "Hebbian": (lambda f, _: hebbian(f, WAYS), (0.0,)),
    "delta rule": (lambda f, step: delta(f, WAYS, step), (0.1, 0.3, 1.0)),
    "least squares": (lambda f, ridge: rls(f, WAYS, ridge), (0.1, 0.3, 1.0)),
}


def curve(learner: Learner, data: Sentences) -> list[float]:
    """Accuracy after each of SHOTS."""
    met, found = 0, []
    for shots in SHOTS:
        learner.learn(data.x[met:shots], data.y[met:shots])
        met = shots
        found.append(float((learner.predict(data.test_x) == data.test_y).float().mean()))
    return found


def learner(name: str, data: Sentences, seed: int, chosen: float) -> tuple[Learner, Sentences]:
    """A row's learner for a seed, and the ten intents that it is to learn."""
    ten, others = drawn(data, seed)
    if name in MIXERS:
        return Trained(trained(name, others, chosen, seed)[0]), ten
    return LEARNERS[name][0](data.x.shape[1], chosen), ten


def _chosen(name: str, data: Sentences) -> float:
    if name in MIXERS:
        others = drawn(data, TUNING_SEED)[1]
        return min(RATES, key=lambda rate: trained(name, others, rate, TUNING_SEED)[1])
    return max(LEARNERS[name][1], key=lambda step: sum(curve(*learner(name, data, TUNING_SEED, step))))


def table(title: str, data: Sentences, names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Print one data set; returns means and deviations of each row."""
    print(
        f"\n## {title}\n\n| examples | {' | '.join(map(str, SHOTS))} | KB |\n|{' --- |' * (len(SHOTS) + 2)}", flush=True
    )
    curves = {}
    for name in names:
        print(f"\r\033[K{name}", end="\r", file=sys.stderr, flush=True)
        chosen, found = _chosen(name, data), []
        for seed in range(seeds):
            one, ten = learner(name, data, seed, chosen)
            found.append(curve(one, ten))
        means, spread = 100 * np.mean(found, 0), 100 * np.std(found, 0)
        cells = [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in zip(means, spread, strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {one.size() / 1_000:.0f} |", flush=True)
        curves[name] = means.tolist(), spread.tolist()
    return curves


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder with clinc150/ and banking77/")
    parser.add_argument("--sets", default="clinc150,banking77")
    parser.add_argument("--rows", help="some of them only, by comma")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plots", type=Path, help="folder for the figures")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)  # small tensors: more threads would wait for each other
    names = asked.rows.split(",") if asked.rows else [*LEARNERS, *MIXERS]
    for title in asked.sets.split(","):
        curves = table(title, sentences(asked.data / title), names, asked.seeds)
        if asked.plots:
            lines(asked.plots / f"fewshot-{title}.svg", list(map(str, SHOTS)), curves, ylabel=f"{title}: accuracy, %")


if __name__ == "__main__":
    main()
