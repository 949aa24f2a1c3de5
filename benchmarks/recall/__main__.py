"""How well memkit finds what a question needs, against its own single signals, with and without feedback.

    python -m benchmarks.recall                                  # LoCoMo, BEAM 100K, NQ from ../shared/data
    python -m benchmarks.recall --sets locomo --systems bm25,dense,prior
    python -m benchmarks.recall chats/ other.json.gz             # any conversations of the documented formats
    python -m benchmarks.recall --quick                          # one conversation of each set

Every conversation goes into a memory file of its own, turn by turn, through the public API and with the default
embedder (its vectors are cached between runs); every question is searched, and the ids found are compared with the
ids that the data cites. Online systems get feedback after each question has been scored, in the order of the file
and, with --seeds, shuffled. Printed in per cent with 95 % bootstrap intervals over questions, which are not
independent within a conversation: see also in how many conversations a figure rises.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recall.datasets import DEFAULT_DATA, SETS, Conversation, load, load_set
from benchmarks.recall.metrics import METRICS, auroc, interval
from benchmarks.recall.systems import (
    FIXED,
    ONLINE,
    USER,
    Answers,
    Cached,
    ask,
    ask_online,
    stored,
    taught_elsewhere,
)
from memkit.evidence import abstains

Results = dict[str, Answers]
TRANSFER = 20  # questions of another kind of data that are learned from before
FOREIGN = 60  # questions of every other conversation that are put to one


def run_set(conversations: Sequence[Conversation], embedder: Any, options: argparse.Namespace) -> Results:
    """Every system on every conversation of one set."""
    results: Results = {}
    for place, conversation in enumerate(conversations, 1):
        for system in options.systems:
            progress(f"{conversation.kind} {place}/{len(conversations)} {conversation.name}: {system}")
            answers = results.setdefault(system, Answers())
            for seed in options.seeds if system in ONLINE else options.seeds[:1]:
                with stored(conversation, embedder) as memory:
                    if system in ONLINE:
                        ask_online(memory, conversation, system, answers, seed)
                    else:
                        ask(memory, conversation, system, answers)
    return results


def transfer(conversations: Sequence[Conversation], source: Conversation, embedder: Any) -> Results:
    """What feedback on another kind of data does to these conversations."""
    carry = taught_elsewhere(source, embedder, TRANSFER)
    name = f"prior + {TRANSFER} feedbacks on {source.kind}"
    answers = Answers()
    for conversation in conversations:
        progress(f"{conversation.kind} {conversation.name}: {name}")
        with stored(conversation, embedder) as memory:
            ask(carry(memory), conversation, "carried", answers)
    return {name: answers}


def confidences(conversations: Sequence[Conversation], embedder: Any) -> dict[str, list[float]]:
    """What recall says of its evidence, by whose question it is: own, unanswerable, or another conversation's."""
    found: dict[str, list[float]] = {}
    for conversation in conversations:
        progress(f"{conversation.kind} {conversation.name}: confidence")
        with stored(conversation, embedder) as memory:
            asked = {"own": conversation.answered, "unanswerable": conversation.unanswered}
            others = [c for c in conversations if c.name != conversation.name and c.kind == "locomo"]
            for other in others if conversation.kind == "locomo" else []:
                some = np.random.default_rng(0).permutation(len(other.answered))[:FOREIGN]
                for i in some.tolist():
                    question = other.answered[i]
                    kind = "foreign, adversarial" if question.category == "5" else "foreign"
                    asked[kind] = (*asked.get(kind, ()), question)
            for kind, questions in asked.items():
                sure = [memory.recall(question.text, user_id=USER).confidence for question in questions]
                found.setdefault(kind, []).extend(sure)
    return found


def table(results: Results) -> str:
    """METRICS of every system, with intervals."""
    lines = [f"| | {' | '.join(METRICS)} |", f"| --- |{' --- |' * len(METRICS)}"]
    for system, answers in results.items():
        scores = np.array(answers.scores)
        cells = [_cell(scores[:, column]) for column in range(len(METRICS))]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Any, sign: str = "") -> str:
    low, high = interval(values)
    return f"{values.mean():{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def differences(results: Results) -> str:
    """Prior against the better single signal, online against prior: paired, on R@10 and R@1."""
    pairs = []
    if {"bm25", "dense", "prior"} <= results.keys():
        best = max(("bm25", "dense"), key=lambda name: np.array(results[name].scores)[:, 2].mean())
        pairs.append(("prior", best))
    pairs += [(name, "prior") for name in results if name not in FIXED and "prior" in results]
    lines = [
        "| paired difference | R@1 | R@10 | MRR | conversations in which R@10 rises |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, base in pairs:
        gain = _paired(results[name], results[base])
        if gain is not None:
            cells = [_cell(gain[:, METRICS.index(metric)], "+") for metric in ("R@1", "R@10", "MRR")]
            lines.append(f"| {name} - {base} | {' | '.join(cells)} | {_rises(results[name], gain)} |")
    return "\n".join(lines)


def _paired(one: Answers, base: Answers) -> Any:
    """Differences of scores, question by question; online systems may ask in another order, and several times."""
    known: dict[tuple[str, str], list[float]] = {}
    for conversation, key, scores in zip(base.conversations, base.keys, base.scores, strict=True):
        known[conversation, key] = scores
    pairs = zip(one.conversations, one.keys, one.scores, strict=True)
    gains = [np.subtract(scores, known[conversation, key]) for conversation, key, scores in pairs]
    return np.array(gains) if gains else None


def _rises(answers: Answers, gain: Any) -> str:
    column = METRICS.index("R@10")
    names = np.array(answers.conversations)
    means = [gain[names == name, column].mean() for name in dict.fromkeys(answers.conversations)]
    return f"{sum(mean > 0 for mean in means)} of {len(means)}"


def by_category(results: Results) -> str:
    """R@10 of every system by category of question."""
    kinds = sorted({category for answers in results.values() for category in answers.categories})
    lines = [f"| R@10 | {' | '.join(kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    for system, answers in results.items():
        scores, categories = np.array(answers.scores)[:, METRICS.index("R@10")], np.array(answers.categories)
        cells = [f"{scores[categories == kind].mean():.1f} (n={int((categories == kind).sum())})" for kind in kinds]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def latency(results: Results) -> str:
    """Milliseconds of searches and feedbacks."""
    lines = ["| ms | search p50 | p95 | feedback p50 | p95 |", "| --- | --- | --- | --- | --- |"]
    for system, answers in results.items():
        cells = [
            f"{np.percentile(some, p):.1f}" if some else "–"
            for some in (answers.search_ms, answers.feedback_ms)
            for p in (50, 95)
        ]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def progress(text: str) -> None:
    """One line on stderr that is written over."""
    print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ",".join((*FIXED, *ONLINE))
    parser.add_argument("paths", nargs="*", type=Path, help="conversation files or folders, instead of --sets")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with locomo/, beam/, nq/, …")
    parser.add_argument("--sets", default="locomo,beam,nq", help=f"of {', '.join(SETS)} (default: %(default)s)")
    parser.add_argument(
        "--systems", default=everything, help="of " + everything.replace("%", "%%") + "; separate by commas"
    )
    parser.add_argument("--seeds", default="0", help="orders of the questions for online systems; 0: as in the file")
    parser.add_argument("--quick", action="store_true", help="one conversation of each set")
    parser.add_argument("--no-confidence", action="store_true", help="leave out the AUROC of abstention")
    parser.add_argument("--transfer", action="store_true", help="also weights learned on another kind of data")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where vectors are kept between runs")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    options = parser.parse_args(arguments)
    names = options.systems.replace("online, ", "online; ").split(",")
    options.systems = [name.strip().replace("online; ", "online, ") for name in names]
    unknown = [name for name in options.systems if name not in (*FIXED, *ONLINE)]
    if unknown:
        parser.error(f"unknown systems {unknown}")
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    return options


def default_cache() -> Path:
    """Where benchmarks keep vectors between runs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "memkit" / "benchmarks"


def chosen(options: argparse.Namespace) -> dict[str, list[Conversation]]:
    """Conversations by set."""
    given = [found for path in options.paths for found in load(path)]
    sets: dict[str, list[Conversation]] = {}
    for conversation in given:
        sets.setdefault(conversation.kind, []).append(conversation)
    for name in [] if given else options.sets.split(","):
        sets[name] = load_set(options.data, name)
    return {name: some[:1] if options.quick else some for name, some in sets.items() if some}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for, and print it set by set."""
    options = parse(arguments)
    sets = chosen(options)
    if not sets:
        raise SystemExit(f"no conversations: nothing under {options.data}; pass --data or files")
    embedder = Cached(options.cache)
    figures: dict[str, Any] = {}
    for name, conversations in sets.items():
        results = run_set(conversations, embedder, options)
        others = [some[0] for kind, some in sets.items() if kind != name and len(some[0].answered) >= TRANSFER]
        if options.transfer and others:
            results |= transfer(conversations, others[0], embedder)
        questions = sum(len(conversation.answered) for conversation in conversations)
        progress("")
        print(f"\n## {name}: {len(conversations)} conversations, {questions} questions\n")
        print("\n\n".join((table(results), differences(results), by_category(results), latency(results))))
        figures[name] = {
            system: dict(zip(METRICS, np.array(a.scores).mean(axis=0).tolist(), strict=True))
            for system, a in results.items()
        }
        if not options.no_confidence:
            sure = confidences(conversations, embedder)
            progress("")
            rest = {kind: values for kind, values in sure.items() if kind != "own" and values}
            areas = {kind: auroc(sure["own"], values) for kind, values in rest.items()}
            print(
                "\nAUROC of recall's confidence, own questions against: "
                + (
                    ", ".join(f"{kind} {area:.3f} (n={len(rest[kind])})" for kind, area in areas.items())
                    or "none at hand"
                )
            )
            shares = {kind: 100 * np.mean([abstains(one) for one in values]) for kind, values in sure.items() if values}
            print("Recall abstains, per cent: " + ", ".join(f"{kind} {share:.1f}" for kind, share in shares.items()))
            figures[name]["auroc"] = areas
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
