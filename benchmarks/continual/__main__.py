"""Five batches of new facts, one after the other, into a frozen language model: who still knows them at the end?

    python -m benchmarks.continual --data ../shared/data/relations                      # all learners, seed 0
    python -m benchmarks.continual --data ../shared/data/relations --learners band --seeds 0 1 2 3 4
    python -m benchmarks.continual --results results.jsonl --figure docs/figures/continual.svg

Facts of wording A are learned; after each batch all facts so far are asked in wordings B and C, which nobody trains on
(see `facts`). Right is an answer that contains the value. Relative forgetting: of what was right after its own batch,
the share that is lost at the end, all batches but the last. Text: the change of loss on unrelated English.
Controls, strangers: the share of answers to general questions, and to questions about made-up subjects that were never
taught, that are the same to the letter as the frozen model's. Seconds are of the processor. Each run is a line of JSON in
`--results`; those that are there already are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.continual import asking, facts, report
from benchmarks.continual.asking import Host
from benchmarks.continual.learners import Band, Consolidated, Elastic, Full, Learner, LoRA, Neighbours, Prompt, Replay
from benchmarks.models import best_device, load

LEARNERS: dict[str, Callable[[Host, int, Path], Learner]] = {
    "frozen": lambda host, seed, _: Learner(host, seed),
    "full": lambda host, seed, _: Full(host, seed),
    "LoRA": lambda host, seed, _: LoRA(host, seed),
    "EWC": lambda host, seed, _: Elastic(host, seed),
    **{
        f"replay{share}": lambda host, seed, _, share=share: Replay(host, seed, share / 100)
        for share in (5, 20, 50, 80)
    },
    "kNN": lambda host, seed, _: Neighbours(host, seed),
    "band": lambda host, seed, _: Band(host, seed),
    **{f"band{steps}": lambda host, seed, _, steps=steps: Band(host, seed, steps) for steps in (10, 20)},
    "memory": Consolidated,
    "prompt1": lambda host, seed, folder: Prompt(host, seed, folder, 1),
    "prompt3": lambda host, seed, folder: Prompt(host, seed, folder, 3),
}


def run(name: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One learner on one drawing of facts."""
    host = Host(*load(options.model, torch.bfloat16, options.device))
    before = _untaught(host, options.data, seed, asking.answers)
    batches = facts.batches(options.data, seed=seed, batches=options.batches, facts=options.facts)
    torch.manual_seed(seed)
    learner = LEARNERS[name](host, seed, folder)
    matrix: list[list[list[float]]] = []  # after batch i, of batch j: completions, questions
    seconds = 0.0
    for number, batch in enumerate(batches):
        began = time.process_time()
        learner.learn(batch)
        seconds += time.process_time() - began
        known = [fact for one in batches[: number + 1] for fact in one]
        right = np.array(asking.scores(known, learner.answer(known)), float).reshape(2, number + 1, -1).mean(-1)
        matrix.append(right.T.tolist())
        print(name, seed, number, np.round(right, 2).tolist(), round(seconds), flush=True)
    with learner.acting():
        after = _untaught(learner.host, options.data, seed, asking.answers)
    return {
        "learner": learner.name, "seed": seed, "model": options.model, "facts": options.batches * options.facts,
        "matrix": matrix, "seconds": seconds, "bytes": learner.bytes(), "tokens": float(np.mean(getattr(learner, "extra", [0]))),
        "text": after[0] / before[0] - 1, **{
            kind: float(np.mean([a == b for a, b in zip(said, same, strict=True)])) for kind, said, same in zip(("controls", "strangers"), after[1:], before[1:], strict=True)
        },
    }  # fmt: skip


def _untaught(
    host: Host, data: Path, seed: int, answers: Callable[..., list[str]]
) -> tuple[float, list[str], list[str]]:
    """What should stay: loss on text, answers to general questions, answers about subjects that were never taught."""
    strangers = facts.strangers(data, seed=seed)
    return asking.text_loss(host), asking.controls(host), answers(host, asking.asked(host.tokenizer, strangers))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the relations data")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--learners", nargs="*", default=[], choices=sorted(LEARNERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--facts", type=int, default=10, help="in a batch")
    parser.add_argument("--results", type=Path, default=Path("continual.jsonl"))
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(arguments)
    wanted = (options.learners or list(LEARNERS)) if options.data else []
    for seed in options.seeds:
        for name in wanted:
            if not report.done(options.results, name, seed):
                with tempfile.TemporaryDirectory() as folder:
                    result = {"name": name, **run(name, seed, options, Path(folder))}
                with options.results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    print(report.table(report.read(options.results)))
    if options.figure:
        report.figure(report.read(options.results), options.figure)


if __name__ == "__main__":
    main()
