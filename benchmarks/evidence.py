"""Does recall say when it has no evidence? Questions put to the right and to the wrong conversation.

    python -m benchmarks.evidence [--data ../shared/data]

Every LoCoMo conversation is asked its own questions and, as questions that it cannot answer, those of another
conversation and of Natural Questions. Printed: the share of questions for which `recall` claims evidence.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.datasets import load_locomo, load_nq
from memkit import Memory

EACH = 100  # questions of each kind a conversation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    data = parser.parse_args().data
    conversations = list(load_locomo(data))
    foreign = [question.text for question in next(iter(load_nq(data))).questions][:EACH]
    print(f"{'conversation':<12} {'own':>8} {'other chat':>12} {'trivia':>8}   share with evidence, per cent")
    for i, one in enumerate(conversations):
        other = [question.text for question in conversations[i - 1].questions][:EACH]
        own = [question.text for question in one.questions][:EACH]
        with (
            tempfile.TemporaryDirectory() as folder,
            Memory(f"{folder}/a.mem", cache_dir=folder, durability="os") as memory,
        ):
            memory.add([turn.message() for turn in one.turns])
            shares = [
                100 * sum(memory.recall(q).evidence for q in asked) / len(asked) for asked in (own, other, foreign)
            ]
        print(f"{one.name:<12} {shares[0]:8.1f} {shares[1]:12.1f} {shares[2]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
