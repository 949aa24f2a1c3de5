"""Runs as a table and as a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Run = dict[str, Any]
COLUMNS = (
    "learner", "seeds", "B at the end", "C at the end", "own batch", "relative forgetting", "text loss", "controls",
    "strangers", "tokens more", "seconds", "MB",
)  # fmt: skip


def read(path: Path) -> list[Run]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def done(path: Path, name: str, seed: int) -> bool:
    return any(run["name"] == name and run["seed"] == seed for run in read(path))


def end(run: Run) -> np.ndarray:
    """Share right of completions and questions after the last batch, (2,)."""
    return np.array(run["matrix"][-1]).mean(0)


def own(run: Run) -> float:
    """Share right of each batch right after it was learned."""
    return float(np.mean([np.mean(row[-1]) for row in run["matrix"]]))


def forgetting(run: Run) -> float:
    """Of what was right after its own batch, the share that is lost at the end; all batches but the last."""
    learned = np.array([np.mean(row[-1]) for row in run["matrix"][:-1]])
    kept = np.array(run["matrix"][-1]).mean(1)[:-1]
    return float(1 - kept.sum() / learned.sum()) if learned.sum() else 0.0


def table(runs: Sequence[Run]) -> str:
    """A row a learner, means over seeds."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for name in dict.fromkeys(run["learner"] for run in runs):
        some = [run for run in runs if run["learner"] == name]
        cells = [
            name, str(len(some)), _spread([end(run)[0] for run in some]), _spread([end(run)[1] for run in some]),
            f"{np.mean([own(run) for run in some]):.1%}", f"{np.mean([forgetting(run) for run in some]):.1%}",
            *(f"{np.mean([run[key] for run in some]):{form}}" for key, form in (("text", "+.2%"), ("controls", ".0%"), ("strangers", ".0%"), ("tokens", ".0f"), ("seconds", ".0f"))),
            f"{np.mean([run['bytes'] for run in some]) / 1e6:.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(shares: Sequence[float]) -> str:
    worst = f" ({min(shares):.0%} to {max(shares):.0%})" if len(shares) > 1 else ""
    return f"{np.mean(shares):.1%}{worst}"


def figure(runs: Sequence[Run], path: Path) -> None:
    """What is left after the fifth batch, by share of replay and by seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8, "svg.fonttype": "none", "font.family": "sans-serif"})
    drawn, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), sharey=True)
    shares = {"LoRA": 0, "replay5": 5, "replay20": 20, "replay50": 50, "replay80": 80}
    points = {share: [end(r).mean() for r in runs if r["name"] == name] for name, share in shares.items()}
    line = [(share, np.mean(found)) for share, found in points.items() if found]
    left.plot(*zip(*line, strict=True), "o-", label="LoRA")
    band = [end(r).mean() for r in runs if r["name"] == "band"]
    if band:
        left.axhline(np.mean(band), color="C3", label="band, no replay")
    left.set(
        xlim=(-4, 84), xlabel="replayed share of a batch, %", ylabel="right after the last batch", ylim=(-0.02, 1.05)
    )
    left.legend(frameon=False)
    for name in dict.fromkeys(run["learner"] for run in runs):
        some = [run for run in runs if run["learner"] == name]
        x, y = np.mean([r["seconds"] for r in some]), np.mean([end(r).mean() for r in some])
        right.plot(x, y, "o", color="C3" if name.startswith("band") else "C0")
        right.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    right.set(xscale="symlog", xlim=(-0.5, 20000), xlabel="processor seconds of learning")
    drawn.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path)
