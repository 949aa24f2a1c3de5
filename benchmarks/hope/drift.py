"""A stream of keys and values in which the values drift, and half-way are all replaced: who follows, and how fast.

    python -m benchmarks.hope.drift --plots FOLDER

16 random unit keys of 16 dims, one drawn at a time and told with its value; a value moves by a share DRIFT of its size
at every time step. Each learner says the value from the key before it is told. Error: |said - value|^2, as a share of
|value|^2, per cent; 100 is to say nothing. Columns are stretches of 1,024 pairs; values are replaced at 512.

The rules are set by the best of a grid on a stream of its own. Gated DeltaNet and self-modifying Titans are trained
before, on shorter streams of other keys and values (64 pairs; each told after it has been asked, so two tokens a pair),
with equal state bytes, steps and search. Mean ± standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from benchmarks.hope.mixers import BASELINES, DIM, TITANS
from benchmarks.hope.plots import lines
from benchmarks.hope.training import Model, train
from memkit.fast.rules import DeltaState, RLSState, gated_delta_chunked, rls_chunked

KEYS, SIZE, LENGTH, DRIFT = 16, 16, 1_024, 0.02
WINDOW, STEPS, SHORT, RATES, TUNING_SEED = 64, 600, 64, (4e-3, 8e-3), 1_000
STRETCHES = {
    "1-64": (0, 64),
    "257-512": (256, 512),
    "513-576": (512, 576),
    "577-640": (576, 640),
    "769-1024": (768, 1_024),
}
Predict = Callable[[Tensor, Tensor], Tensor]


def stream(rng: Generator, length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """Keys and values (t, SIZE) as they come; in the middle all values are drawn anew."""
    keys = normalize(torch.randn(KEYS, SIZE, generator=rng), dim=-1)
    values, told = torch.randn(KEYS, SIZE, generator=rng), []
    order = torch.randint(KEYS, (length,), generator=rng)
    for t in range(length):
        moved = torch.randn(KEYS, SIZE, generator=rng)
        values = moved if t == length // 2 else (1 - DRIFT**2) ** 0.5 * values + DRIFT * moved
        told.append(values[order[t]])
    return keys[order], torch.stack(told)


# learners: from keys and values (t, SIZE) to what is said of each before it is told


def _asked(keys: Tensor) -> Tensor:
    """Queries of the rules, which read after the write: that of a time is the next key."""
    return torch.cat([keys[1:], keys[-1:]])


def _before(y: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(y[:1]), y[:-1]])


def hebbian(keys: Tensor, values: Tensor, *, step: float, alpha: float) -> Tensor:
    """M_t = alpha M_{t-1} + step v k'."""
    at = torch.arange(len(keys))
    shares = alpha ** (at[:, None] - at).clamp(min=0)
    return _before(step * (_asked(keys) @ keys.T * shares).tril() @ values)


def gated_delta(keys: Tensor, values: Tensor, *, step: float, alpha: float = 1.0) -> Tensor:
    """The delta rule, with alpha below 1 the gated one."""
    steps = torch.full((len(keys),), step)
    state = DeltaState(torch.zeros(SIZE, SIZE))
    return _before(
        gated_delta_chunked(state, _asked(keys), keys, values, beta=steps, alpha=torch.full_like(steps, alpha))[0]
    )


def rls(keys: Tensor, values: Tensor, *, lam: float, ridge: float) -> Tensor:
    """Recursive least squares, in double precision."""
    k, v = keys.double(), values.double()
    state = RLSState(torch.zeros(SIZE, SIZE).double(), torch.eye(SIZE).double() / ridge)
    return _before(rls_chunked(state, _asked(k), k, v, weight=torch.ones(len(k)).double(), lam=lam)[0]).float()


RULES: dict[str, tuple[Callable[..., Tensor], Mapping[str, Sequence[float]]]] = {
    "Hebbian": (hebbian, {"step": (0.03, 0.1, 0.3, 1.0), "alpha": (1.0, 0.99, 0.97, 0.9)}),
    "delta rule": (gated_delta, {"step": (0.1, 0.3, 0.5, 0.7, 1.0)}),
    "gated delta": (gated_delta, {"step": (0.3, 0.5, 0.7, 1.0), "alpha": (0.999, 0.99, 0.97)}),
    "least squares": (rls, {"lam": (1.0,), "ridge": (0.01, 0.1)}),
    "forgetting least squares": (rls, {"lam": (0.99, 0.97, 0.95, 0.9), "ridge": (0.01, 0.1)}),
}
TRAINED = {
    "trained gated DeltaNet": BASELINES["gated DeltaNet"],
    "trained self-modifying Titans": TITANS["self-modifying Titans"],
}


def _tokens(keys: Tensor, values: Tensor) -> Tensor:
    """(2 t, 2 SIZE): a key alone, then with its value."""
    asked, told = torch.cat([keys, torch.zeros_like(values)], -1), torch.cat([keys, values], -1)
    return torch.stack([asked, told], 1).flatten(0, 1)


def trained(name: str, rate: float, seed: int, *, steps: int = STEPS) -> tuple[Model, float]:
    """A model that has learned to read such streams, and its final loss."""
    torch.manual_seed(seed)
    model = Model(TRAINED[name](), nn.Linear(2 * SIZE, DIM), SIZE)

    def loss(rng: Generator) -> Tensor:
        some = [stream(rng, SHORT) for _ in range(16)]
        said = model(torch.stack([_tokens(*one) for one in some]))[:, ::2]
        return (said - torch.stack([values for _, values in some])).square().mean()

    return model, float(np.mean(train(model, loss, steps=steps, rate=rate, seed=seed)[-50:]))


def _says(model: Model) -> Predict:
    def predict(keys: Tensor, values: Tensor) -> Tensor:
        with torch.no_grad():
            said: Tensor = model(_tokens(keys, values)[None])[0, ::2]
        return said

    return predict


# the table


def errors(predict: Predict, seed: int) -> Any:
    """(LENGTH,) squared errors as shares of the mean squared length."""
    keys, values = stream(Generator().manual_seed(10_000 + seed))
    wrong = (predict(keys, values) - values).square().sum(-1) / values.square().sum(-1).mean()
    return wrong.numpy()


def learners(name: str, seeds: int) -> tuple[list[Predict], str]:
    """One for each seed, and what the search chose."""
    if name in TRAINED:
        rate = min(RATES, key=lambda rate: trained(name, rate, TUNING_SEED)[1])
        return [_says(trained(name, rate, seed)[0]) for seed in range(seeds)], f"rate {rate:g}"
    rule, grid = RULES[name]
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    best = min(settings, key=lambda s: errors(lambda k, v: rule(k, v, **s), TUNING_SEED).mean())
    return [lambda k, v: rule(k, v, **best)] * seeds, ", ".join(f"{key} {value:g}" for key, value in best.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", help="some of them only, by comma")
    parser.add_argument("--plots", type=Path, help="folder for a figure")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)  # small tensors: more threads would wait for each other
    print(f"| | {' | '.join(STRETCHES)} | set |\n|{' --- |' * (len(STRETCHES) + 2)}")
    curves = {}
    for name in asked.rows.split(",") if asked.rows else [*RULES, *TRAINED]:
        print(f"\r\033[K{name}", end="\r", file=sys.stderr, flush=True)
        some, chosen = learners(name, asked.seeds)
        every = 100 * np.stack([errors(predict, seed) for seed, predict in enumerate(some)])
        cells = [every[:, low:high].mean(1) for low, high in STRETCHES.values()]
        print(f"| {name} | {' | '.join(f'{c.mean():.1f} ± {c.std():.1f}' for c in cells)} | {chosen} |", flush=True)
        over = every.reshape(len(every), -1, WINDOW).mean(2)
        curves[name] = over.mean(0).tolist(), over.std(0).tolist()
    if asked.plots:
        ends = [str(end) for end in range(WINDOW, LENGTH + 1, WINDOW)]
        lines(asked.plots / "drift.svg", ends, curves, ylabel="drifting values: error, %")


if __name__ == "__main__":
    main()
