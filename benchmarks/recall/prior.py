"""Where the prior weights of `memkit.ranking` come from: fit them again, to several kinds of data with equal say.

    python -m benchmarks.recall.prior                      # LoCoMo, BEAM 100K, NQ and facts, and each left out
    python -m benchmarks.recall.prior --sets locomo,beam

Listwise softmax with ridge over the candidates that a search looks at, each set weighing as much as 300 questions.
Prints the weights beside the shipped ones, and what each choice does to every set: R@1, R@10, MRR. What a set would
like for itself and what it loses under weights that were fitted without it show how far the weights may be trusted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.recall.__main__ import _cache, progress
from benchmarks.recall.datasets import DEFAULT_DATA, Conversation, Question, Turn, load_set
from benchmarks.recall.metrics import METRICS, measure
from benchmarks.recall.systems import USER, Cached, stored
from benchmarks.recall.vocabulary import world
from memkit.ranking import PRIOR
from memkit.recall import Asked, candidates
from memkit.signals import NAMES, SCALES
from memkit_storage.filters import Filter

RIDGE, SAY = 3.0, 300
FIXED = ("time", "importance", "adapted", "needs", "recency", "words", "novelty")  # set by hand: no data tells


class Case(NamedTuple):
    """One question: ids and signals (n, F) of its candidates, which of them answer it, and all that do."""

    ids: list[str]
    signals: Any
    gold: Any
    evidence: tuple[str, ...]


def facts() -> list[Conversation]:
    """Single facts about many people, among a conversation; asked for in ordinary words."""
    return [_drawn(seed) for seed in (0, 1)]


def _drawn(seed: int) -> Conversation:
    drawing = world(seed)
    turns = tuple(Turn(m["id"], m["content"], time=m.get("timestamp")) for m in drawing.messages)
    asked = enumerate(drawing.asked["ordinary"])
    questions = tuple(Question(f"{seed}/{i}", ask.text, tuple(ask.answers), "fact") for i, ask in asked)
    return Conversation("facts", f"facts-{seed}", turns, questions)


def cases(conversations: Sequence[Conversation], embedder: Any) -> list[Case]:
    """Every question with its candidates."""
    found = []
    for conversation in conversations:
        progress(conversation.name)
        with stored(conversation, embedder) as memory:
            for question in conversation.answered:
                where = Filter.parse({"user_id": USER})
                asked = Asked(question.text, embedder.embed_query(question.text), where, None, 0)
                pool = candidates(memory._index, asked, 20)
                ids = [pool.rows[position].id for position in pool.positions.tolist()]
                gold = np.isin(ids, question.evidence)
                found.append(Case(ids, pool.signals, gold, question.evidence))
    return found


def fit(sets: Sequence[Sequence[Case]]) -> Any:
    """Weights (F,) that fit all sets best; those that are set by hand stay as they are."""
    start = torch.tensor([PRIOR[name] for name in NAMES]) * torch.tensor(SCALES)
    free = torch.tensor([name not in FIXED for name in NAMES])
    moved = torch.zeros(len(NAMES), dtype=torch.float64, requires_grad=True)
    lists = [
        (torch.tensor(case.signals / SCALES), torch.tensor(case.gold), SAY / len(some))
        for some in sets
        for case in some
        if case.gold.any()
    ]
    optimiser = torch.optim.LBFGS([moved], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        weights = torch.where(free, moved, start)
        total = RIDGE / 2 * (moved**2).sum()
        for signals, gold, say in lists:
            total = total - say * torch.log_softmax(signals @ weights, 0)[gold].mean()
        total.backward()
        return total

    optimiser.step(loss)
    return torch.where(free, moved.detach(), start).numpy() / SCALES


def scores(some: Sequence[Case], weights: Any) -> str:
    """R@1, R@10 and MRR under some weights."""
    rows = []
    for case in some:
        order = np.argsort(-(case.signals @ weights), kind="stable")
        rows.append(measure([case.ids[i] for i in order.tolist()], case.evidence))
    means = np.mean(rows, axis=0)
    return " / ".join(f"{means[METRICS.index(name)]:.1f}" for name in ("R@1", "R@10", "MRR"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--sets", default="locomo,beam,nq,facts")
    parser.add_argument("--cache", type=Path, default=_cache())
    options = parser.parse_args()
    embedder = Cached(options.cache)
    names = options.sets.split(",")
    sets = {n: cases(facts() if n == "facts" else load_set(options.data, n), embedder) for n in names}
    progress("")
    chosen = {"shipped": np.array([PRIOR[name] for name in NAMES]), "all": fit(list(sets.values()))}
    for name, some in sets.items():
        chosen[f"only {name}"] = fit([some])
        if len(sets) > 2:
            chosen[f"without {name}"] = fit([other for key, other in sets.items() if key != name])
    print(f"| R@1 / R@10 / MRR with weights | {' | '.join(sets)} |\n| --- |{' --- |' * len(sets)}")
    for label, weights in chosen.items():
        print(f"| {label} | {' | '.join(scores(some, weights) for some in sets.values())} |")
    print(f"\n| signal | {' | '.join(chosen)} |\n| --- |{' --- |' * len(chosen)}")
    for i, name in enumerate(NAMES):
        print(f"| {name} | {' | '.join(f'{weights[i]:.2f}' for weights in chosen.values())} |")


if __name__ == "__main__":
    main()
