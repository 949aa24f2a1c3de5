"""Does hybrid search find at least what the better of its two signals finds?

Every conversation goes into a memory file of its own through the public API; every question is searched in
the three modes; the ids found are compared with the ids that the data set cites. From the repository root:

    python -m benchmarks.retrieval                        # LoCoMo, turn level
    python -m benchmarks.retrieval --beam 100K --nq       # and long assistant chats, and Wikipedia passages

Printed, in per cent: recall@1/5/10 (the share of a question's evidence among the first k) and MRR (of the
first evidence) with 95 % bootstrap intervals over questions; the paired difference of hybrid to the better
single signal; and in how many conversations it rose: questions of one conversation are not independent.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.datasets import DEFAULT_DATA, Conversation, load_beam, load_locomo, load_nq
from memkit import Memory

Mode = Literal["text", "vector", "hybrid"]
Scores = dict[str, npt.NDArray[np.float64]]

MODES: tuple[Mode, ...] = ("text", "vector", "hybrid")
DEPTH = 10
RESAMPLES = 10_000


class Answer(NamedTuple):
    """Where one search found the evidence of one question: `ranks` are 0-based and hold what was found."""

    conversation: str
    cited: int
    ranks: tuple[int, ...]


def recall_at(answer: Answer, k: int) -> float:
    """The share of the cited turns that stand among the first k."""
    return sum(rank < k for rank in answer.ranks) / answer.cited


def reciprocal_rank(answer: Answer) -> float:
    """1 / (1-based rank of the first cited turn), 0 if none was found."""
    return 1 / (1 + min(answer.ranks)) if answer.ranks else 0.0


MEASURES: dict[str, Callable[[Answer], float]] = {
    "R@1": lambda answer: recall_at(answer, 1),
    "R@5": lambda answer: recall_at(answer, 5),
    "R@10": lambda answer: recall_at(answer, 10),
    "MRR": reciprocal_rank,
}


def ask(conversation: Conversation, folder: Path) -> dict[Mode, list[Answer]]:
    """Store one conversation in a fresh file and search all its questions in every mode."""
    answers: dict[Mode, list[Answer]] = {mode: [] for mode in MODES}
    with Memory(folder / f"{conversation.name}.mem") as memory:
        memory.add([turn.message() for turn in conversation.turns])
        for question in conversation.questions:
            for mode in MODES:
                hits = memory.search(question.text, limit=DEPTH, mode=mode)
                ranks = tuple(rank for rank, hit in enumerate(hits) if hit.id in question.evidence)
                answers[mode].append(Answer(conversation.name, len(question.evidence), ranks))
    return answers


def bootstrap(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and its 95 % percentile interval; `values` is (n,), one number a question."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def score(answers: Sequence[Answer]) -> Scores:
    """Every measure of every answer, in per cent."""
    return {name: np.array([100 * f(answer) for answer in answers]) for name, f in MEASURES.items()}


def report(name: str, answers: dict[Mode, list[Answer]]) -> None:
    """Print the table of one data set."""
    owners = [answer.conversation for answer in answers["hybrid"]]
    scores = {mode: score(answers[mode]) for mode in MODES}
    best: Mode = max(("text", "vector"), key=lambda mode: scores[mode]["R@10"].mean())
    gain = {measure: scores["hybrid"][measure] - scores[best][measure] for measure in MEASURES}
    print(f"\n{name}: {len(set(owners))} stores, {len(owners)} questions")
    print(" " * 16 + "".join(f"{measure:<22}" for measure in MEASURES))
    for mode in MODES:
        print(_row(mode, scores[mode], ""))
    print(_row(f"hybrid - {best}", gain, "+"))
    print("R@10 by store:  " + _signs(owners, gain["R@10"]))


def _row(label: str, scores: Scores, sign: str) -> str:
    cells = (bootstrap(scores[measure]) for measure in MEASURES)
    texts = (f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]" for mean, low, high in cells)
    return f"{label:<16}" + "".join(f"{text:<22}" for text in texts)


def _signs(owners: Sequence[str], gain: npt.NDArray[np.float64]) -> str:
    means = {name: gain[np.array(owners) == name].mean() for name in dict.fromkeys(owners)}
    listed = ", ".join(f"{name} {mean:+.1f}" for name, mean in means.items())
    return f"{sum(mean > 0 for mean in means.values())} of {len(means)} higher ({listed})"


def measure(name: str, conversations: Sequence[Conversation]) -> None:
    """Ask every conversation of a data set, then report."""
    answers: dict[Mode, list[Answer]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        for conversation in conversations:
            for mode, found in ask(conversation, Path(folder)).items():
                answers[mode].extend(found)
    report(name, answers)


def main() -> None:
    """Parse the arguments and measure what was asked for."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with locomo/, beam/ and nq/")
    parser.add_argument("--beam", nargs="?", const="100K", choices=["100K", "500K"], help="also BEAM chats")
    parser.add_argument("--nq", action="store_true", help="also Natural Questions passages")
    options = parser.parse_args()
    measure("LoCoMo", load_locomo(options.data))
    if options.beam:
        measure(f"BEAM {options.beam}", load_beam(options.data, size=options.beam))
    if options.nq:
        measure("Natural Questions", load_nq(options.data))


if __name__ == "__main__":
    main()
