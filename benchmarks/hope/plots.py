"""Curves as small SVG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def lines(
    path: Path,
    x: Sequence[str],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    ylabel: str,
) -> None:
    """One curve a row, means with standard deviations, against the columns x in equal steps. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "memkit", "font.size": 8}):
        figure, axes = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
        for name, (means, deviations) in curves.items():
            axes.errorbar(range(len(x)), means, deviations, label=name, marker=".", linewidth=1, capsize=2)
        axes.set_xticks(range(len(x)), x)
        axes.set_ylabel(ylabel)
        axes.legend(fontsize=6)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
