"""What a sleep does to the questions that come after it: the recall band against the online fast tier and the prior.

    python -m benchmarks.recall.consolidated                         # LoCoMo from ../shared/data
    python -m benchmarks.recall.consolidated --seeds 0,1,2,3,4 --json out.json
    python -m benchmarks.recall.consolidated chats/ other.json.gz    # any conversations of the documented formats

Every conversation goes into a memory file of its own. A seed draws half of its questions; each of these is searched
and then answered by feedback, of a kind of user (`told` in `benchmarks.recall.systems`). The other half is searched, by
the same memory, with what was learned online; then `memory.consolidate()` sleeps, and the other half is searched once
more. Four rows: the prior (no feedback); the online fast tier; what acts after the sleep, which is the band if the gate
let it in and else the online tier; and the band alone, whatever the gate said. Nothing is learned from the other half.

Differences are paired by question. A question that several seeds ask counts once, with its mean: the 95 % bootstrap
intervals are over questions, which are not independent within a conversation: see also in how many of those a figure
rises.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recall.__main__ import default_cache, progress
from benchmarks.recall.datasets import DEFAULT_DATA, Conversation, Question, load, load_set
from benchmarks.recall.metrics import METRICS, interval, measure
from benchmarks.recall.systems import SHOWN, USER, Cached, ranked, stored, told
from memkit import Memory
from memkit.slow import recall_band

REGIMES = {"shown in the ten": "online, shown", "shown, 40 % wrong": "online, 40 % wrong"}
PRIOR, ONLINE, AFTER, BAND = "prior", "online fast tier", "after the sleep", "the band, gate or not"
ARMS = (PRIOR, ONLINE, AFTER, BAND)
PAIRS = ((ONLINE, PRIOR), (AFTER, PRIOR), (AFTER, ONLINE), (BAND, ONLINE))
COLUMNS = [METRICS.index(name) for name in ("R@1", "R@10", "MRR")]

Scores = dict[str, dict[tuple[str, str], list[list[float]]]]  # arm -> (conversation, question) -> METRICS of each seed


@dataclass
class Run:
    """One regime: its kind of user, scores, and what each sleep said."""

    system: str
    scores: Scores = field(default_factory=lambda: {arm: {} for arm in ARMS})
    sleeps: list[dict[str, Any]] = field(default_factory=list)

    def add(self, arm: str, conversation: Conversation, scores: Mapping[str, list[float]]) -> None:
        """One seed's scores of questions of a conversation."""
        for question, found in scores.items():
            self.scores[arm].setdefault((conversation.name, question), []).append(found)


def asked(memory: Memory, questions: Sequence[Question]) -> dict[str, list[float]]:
    """METRICS by question, as a memory ranks now."""
    return {question.id: measure(ranked(memory, PRIOR, question.text), question.evidence) for question in questions}


def untaught(conversation: Conversation, embedder: Any) -> dict[str, list[float]]:
    """Scores of every question under the prior."""
    with stored(conversation, embedder) as memory:
        return asked(memory, conversation.answered)


def live(run: Run, conversation: Conversation, prior: Mapping[str, list[float]], embedder: Any, seed: int) -> None:
    """One conversation under one seed: teach by half of the questions, sleep, and ask the other half."""
    rng = np.random.default_rng([seed, len(conversation.turns)])
    order = rng.permutation(len(conversation.answered)).tolist()
    half = len(order) // 2
    taught, rest = ([conversation.answered[i] for i in part] for part in (order[:half], order[half:]))
    run.add(PRIOR, conversation, {question.id: prior[question.id] for question in rest})
    with stored(conversation, embedder) as memory:
        given = sum(_teach(memory, question, run.system, rng) for question in taught)
        online = asked(memory, rest)
        bands = memory.consolidate().bands
        promoted = bool(bands and bands[0].promoted)
        after = asked(memory, rest) if promoted else online
        band = asked(_with_band(memory), rest) if bands and not promoted else after
    for arm, scores in ((ONLINE, online), (AFTER, after), (BAND, band)):
        run.add(arm, conversation, scores)
    reasons = list(bands[0].reasons) if bands else ["too few feedbacks"]
    sleep = {"conversation": conversation.name, "seed": seed, "feedbacks": given}
    run.sleeps.append(sleep | {"promoted": promoted, "reasons": reasons})


def _teach(memory: Memory, question: Question, system: str, rng: np.random.Generator) -> bool:
    shown = ranked(memory, PRIOR, question.text)[:SHOWN]
    used = told(system, question, shown, rng)
    if used:
        memory.feedback(question.text, used=used, user_id=USER)
    return bool(used)


def _with_band(memory: Memory) -> Memory:
    """The memory as it would rank had the gate let the band in."""
    (feedbacks,) = memory._fast.families().values()
    solved = recall_band.solve(memory._fast, feedbacks)
    assert solved is not None
    return memory.scope(user_id=USER).branch(solved.state)


# tables


def by_question(run: Run, arm: str) -> np.ndarray:
    """(questions, COLUMNS) means over seeds."""
    return np.array([np.mean(found, axis=0)[COLUMNS] for found in run.scores[arm].values()])


def table(run: Run) -> str:
    """Every arm, and the paired differences."""
    names = " | ".join(METRICS[column] for column in COLUMNS)
    lines = [f"| | {names} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    lines += [f"| {arm} | {' | '.join(f'{x:.1f}' for x in by_question(run, arm).mean(axis=0))} |" for arm in ARMS]
    lines += ["", f"| paired difference | {names} | conversations in which MRR rises, falls |"]
    lines += [f"| --- |{' --- |' * (len(COLUMNS) + 1)}"]
    for one, base in PAIRS:
        gain = by_question(run, one) - by_question(run, base)
        cells = [_cell(gain[:, column]) for column in range(gain.shape[1])]
        lines.append(f"| {one} - {base} | {' | '.join(cells)} | {_agreement(run, gain)} |")
    return "\n".join(lines)


def _cell(values: np.ndarray) -> str:
    low, high = interval(values)
    return f"{values.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def _agreement(run: Run, gain: np.ndarray) -> str:
    names = np.array([name for name, _ in run.scores[PRIOR]])
    means = [gain[names == name, -1].mean() for name in dict.fromkeys(names.tolist())]
    return f"{sum(mean > 0 for mean in means)}, {sum(mean < 0 for mean in means)} of {len(means)}"


def verdicts(run: Run) -> str:
    """How often the gate let a band in, on how much feedback, and why not."""
    let_in = sum(sleep["promoted"] for sleep in run.sleeps)
    counts = [sleep["feedbacks"] for sleep in run.sleeps]
    why = Counter(reason.partition(":")[0] for s in run.sleeps if not s["promoted"] for reason in s["reasons"])
    told = f"Let in {let_in} of {len(run.sleeps)} bands, made from {min(counts)} to {max(counts)} feedbacks."
    return told + (f" Turned away for: {', '.join(f'{name} {n}' for name, n in why.most_common())}." if why else "")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="conversation files or folders, instead of LoCoMo")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with locomo/")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="drawings of the half that teaches")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where vectors are kept between runs")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each regime."""
    options = parse(arguments)
    conversations = [found for path in options.paths for found in load(path)] or load_set(options.data, "locomo")
    if not conversations:
        raise SystemExit(f"no conversations: nothing under {options.data}; pass --data or files")
    seeds, embedder, figures = [int(seed) for seed in options.seeds.split(",")], Cached(options.cache), {}
    priors = [untaught(conversation, embedder) for conversation in conversations]
    for regime, system in REGIMES.items():
        run = Run(system)
        for seed in seeds:
            for conversation, prior in zip(conversations, priors, strict=True):
                progress(f"{regime}, seed {seed}: {conversation.name}")
                live(run, conversation, prior, embedder, seed)
        progress("")
        count = len(run.scores[PRIOR])
        print(f"\n## Feedback: {regime}. {len(conversations)} conversations, {len(seeds)} seeds, {count} questions\n")
        print(f"{table(run)}\n\n{verdicts(run)}")
        figures[regime] = {"sleeps": run.sleeps} | {arm: by_question(run, arm).mean(axis=0).tolist() for arm in ARMS}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
