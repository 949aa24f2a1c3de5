"""One small sequence model, trained from nothing with each mixer in turn: recall, state tracking, a needle.

    python -m benchmarks.hope.sequence mqar                      # or parity, s3, needle
    python -m benchmarks.hope.sequence s3 --ablations            # self-modifying Titans without one part each
    python -m benchmarks.hope.sequence needle --plots FOLDER --json FILE     # goes on from the rows in FILE
    python -m benchmarks.hope.sequence mqar --device cpu                     # default: a GPU where there is one

Equal for all rows of a task: embedding, one block of which only the mixer differs, head, steps, batches, tokens, AdamW
with warm-up and cosine, and the search (two peak rates on a seed of its own, the lower final training loss wins; HOPE
and the ablations take the rate of the full Titans). State bytes are equal for all but attention, whose state grows
(given for the length of training), and the ablations that say so. CPU seconds are of one training.

Accuracy of greedy answers on fresh sequences, per cent, mean ± standard deviation over seeds. mqar: trained on 2 to 16
pairs. parity and s3: trained on 4 to 32 tokens; a column is the tokens of that stretch. needle: trained on 8 to 64
tokens, tested with the needle at 0, 25, 50, 75 and 100 % of the length; a column is the mean over these depths, and
`cells` the lowest and highest of all lengths and depths.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.hope.mixers import ABLATIONS, BASELINES, DIM, TITANS, state_bytes
from benchmarks.hope.plots import lines
from benchmarks.hope.tasks import FILLER, HIDDEN_IN_HAY, NONE, PAIRED, S3, haystack, mqar, parity, word_problem
from benchmarks.hope.training import Model, train
from benchmarks.models import best_device

Draw = Callable[[Generator, int], tuple[Tensor, Tensor]]
ROWS = BASELINES | TITANS | ABLATIONS
FULL = "self-modifying Titans"
RATES, TUNING_SEED, TOKENS, TESTED = (4e-3, 8e-3), 1_000, 1_024, 64
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Task(NamedTuple):
    """What is drawn for a step, by one of the sizes; and for each column of the table, one or more tests."""

    symbols: int
    draw: Callable[[Generator, int, int], tuple[Tensor, Tensor]]
    sizes: Sequence[int]
    longest: int
    steps: int
    tests: dict[str, list[Draw]]


def _stretches(draw: Any) -> dict[str, list[Draw]]:
    """Up to the length of training, and by doubling up to eight times that; only the new half is asked."""

    def asked(low: int, high: int) -> Draw:
        def test(rng: Generator, batch: int) -> tuple[Tensor, Tensor]:
            tokens, answers = draw(rng, batch, high)
            answers[:, :low] = NONE
            return tokens, answers

        return test

    return {f"{low + 1}-{high}": [asked(low, high)] for low, high in ((0, 32), (32, 64), (64, 128), (128, 256))}


def _depths(length: int) -> list[Draw]:
    return [lambda rng, batch, at=at: haystack(rng, batch, length, depth=at) for at in DEPTHS]


TASKS = {
    "mqar": Task(
        2 * PAIRED, mqar, (2, 4, 8, 16), 48, 1_500,
        {f"{pairs} pairs": [lambda rng, batch, p=pairs: mqar(rng, batch, p)] for pairs in (4, 8, 16, 32)},
    ),
    "parity": Task(2, parity, (4, 8, 16, 32), 32, 600, _stretches(parity)),
    "s3": Task(len(S3), word_problem, (4, 8, 16, 32), 32, 1_000, _stretches(word_problem)),
    "needle": Task(
        2 * HIDDEN_IN_HAY + FILLER, haystack, (8, 16, 32, 64), 64, 1_200,
        {f"{length} tokens": _depths(length) for length in (64, 128, 256, 512)},
    ),
}  # fmt: skip


def fitted(
    name: str, task: Task, *, rate: float, seed: int, steps: int | None = None, device: str = "cpu"
) -> tuple[Model, list[float]]:
    """A row's model trained on a task, and the loss of each step."""
    torch.manual_seed(seed)
    model = Model(ROWS[name](), nn.Embedding(task.symbols, DIM), task.symbols).to(device)
    return model, train(
        model, lambda rng: _loss(model, *_batch(task, rng)), steps=steps or task.steps, rate=rate, seed=seed
    )


def _batch(task: Task, rng: Generator) -> tuple[Tensor, Tensor]:
    """TOKENS or so, in sequences of one of the sizes."""
    size = task.sizes[int(torch.randint(len(task.sizes), (1,), generator=rng))]
    return task.draw(rng, TOKENS * task.sizes[-1] // (task.longest * size), size)


def _loss(model: Model, tokens: Tensor, answers: Tensor) -> Tensor:
    said = model(tokens).flatten(0, 1)
    return cross_entropy(said, answers.flatten().to(said.device), ignore_index=NONE)


def accuracies(model: Model, task: Task, seed: int) -> dict[str, list[float]]:
    """Accuracy at each test of each column, on sequences that were not trained on."""
    rng = Generator().manual_seed(10_000 + seed)
    with torch.no_grad():
        return {column: [_accuracy(model, *draw(rng, TESTED)) for draw in some] for column, some in task.tests.items()}


def _accuracy(model: Model, tokens: Tensor, answers: Tensor) -> float:
    right = model(tokens).argmax(-1).cpu() == answers
    return float(right[answers != NONE].float().mean())


# the table


def best_rate(name: str, task: Task, device: str) -> float:
    """The peak rate with the lowest loss over the last fifty steps."""
    losses = {rate: fitted(name, task, rate=rate, seed=TUNING_SEED, device=device)[1] for rate in RATES}
    return min(losses, key=lambda rate: float(np.mean(losses[rate][-50:])))


def row(name: str, task: Task, rate: float, seeds: int, device: str) -> dict[str, Any]:
    """All figures of one row: scores[column][seed][test]."""
    seconds, scores = 0.0, []
    for seed in range(seeds):
        print(f"\r\033[K{name} {seed}", end="\r", file=sys.stderr, flush=True)
        began = time.process_time()
        model, _ = fitted(name, task, rate=rate, seed=seed, device=device)
        seconds += (time.process_time() - began) / seeds
        scores.append(accuracies(model, task, seed))
    columns = {column: [of[column] for of in scores] for column in task.tests}
    size = state_bytes(ROWS[name](), task.longest)
    return {"rate": rate, "bytes": size, "seconds": seconds, "scores": columns}


def _printed(name: str, found: dict[str, Any]) -> str:
    of = {column: np.array(values) * 100 for column, values in found["scores"].items()}
    cells = [f"{values.mean():.1f} ± {values.mean(1).std():.1f}" for values in of.values()]
    every = np.concatenate([values.mean(0) for values in of.values()])
    if len(every) > len(of):
        cells.append(f"{every.min():.1f} to {every.max():.1f}")
    return f"| {name} | {' | '.join(cells)} | {found['bytes']:,} | {found['seconds']:.0f} | {found['rate']:g} |"


def table(
    title: str, names: Sequence[str], seeds: int, kept: Path | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Print one task; returns each row's figures.

    Args:
        kept: a file with the rows that there are already; each new one is added to it.
    """
    task, known = TASKS[title], json.loads(kept.read_text(encoding="utf-8")) if kept and kept.exists() else {}
    rates = {name if name in BASELINES else FULL: one["rate"] for name, one in known.items()}
    found: dict[str, Any] = {}
    heads = [*task.tests, *["cells"] * (title == "needle"), "state bytes", "CPU s", "rate"]
    print(f"\n## {title}\n\n| | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}", flush=True)
    for name in names:
        if name not in known:
            tuned = name if name in BASELINES else FULL
            rates[tuned] = rates.get(tuned) or best_rate(tuned, task, device)
            known[name] = row(name, task, rates[tuned], seeds, device)
            if kept:
                kept.write_text(json.dumps(known, indent=1), encoding="utf-8")
        found[name] = known[name]
        print(_printed(name, found[name]), flush=True)
    return found


def plot(title: str, found: dict[str, Any], folder: Path) -> None:
    """Accuracy against the columns."""
    curves = {}
    for name, one in found.items():
        values = [np.array(of).mean(1) * 100 for of in one["scores"].values()]
        curves[name] = [float(v.mean()) for v in values], [float(v.std()) for v in values]
    lines(folder / f"{title}.svg", list(TASKS[title].tests), curves, ylabel=f"{title}: accuracy, %")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of one task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--ablations", action="store_true", help="Titans without a part each, and not the others")
    parser.add_argument("--rows", help="some of them only, by comma")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plots", type=Path, help="folder for a figure")
    parser.add_argument("--json", type=Path, help="keep every figure there, and train no row that stands in it")
    parser.add_argument("--device", default=best_device())
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)  # small tensors: more threads would wait for each other
    names = asked.rows.split(",") if asked.rows else list(ABLATIONS if asked.ablations else BASELINES | TITANS)
    found = table(asked.task, names, asked.seeds, asked.json, asked.device)
    if asked.plots:
        plot(asked.task, found, asked.plots)


if __name__ == "__main__":
    main()
