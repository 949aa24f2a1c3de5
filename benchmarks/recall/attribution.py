"""Does `recall.observe` name the items that an answer used, and no others?

    python -m benchmarks.recall.attribution

For each LoCoMo question with evidence: the ten best hits, and the gold answer, alone, within a sentence, or as the
evidence's own words in another order. And answers that used nothing: "I don't know", and the answer to a question of
another conversation. Printed: how often anything is named, and of what is named, how much is evidence.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.recall.__main__ import _cache, progress
from benchmarks.recall.datasets import DEFAULT_DATA, load
from benchmarks.recall.systems import USER, Cached, stored
from memkit.attribution import attribute, nearness
from memkit.items import Hit

FORMS = ("alone", "in a sentence", "own words", "does not know", "of another conversation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args()
    embedder, rng = Cached(_cache()), random.Random(0)
    files = sorted((options.data / "locomo").glob("conv-*"))
    answers = {path: _answers(path) for path in files}
    counts = {form: [0, 0, 0, 0] for form in FORMS}  # asked, named something, named items, right ones
    for path in files:
        (conversation,) = load(path)
        foreign = [text for other, known in answers.items() if other != path for text in known.values()]
        texts = {turn.id: turn.text for turn in conversation.turns}
        progress(conversation.name)
        with stored(conversation, embedder) as memory:
            for question in conversation.answered:
                answer = answers[path].get(question.id)
                hits = memory.search(question.text, limit=10, user_id=USER)
                if not answer or not {hit.id for hit in hits} & set(question.evidence):
                    continue
                words = texts[question.evidence[0]].split()
                said = dict(
                    zip(
                        FORMS,
                        (
                            answer,
                            f"As far as I can see, it was {answer}, from what they said.",
                            " ".join(rng.sample(words, len(words))),
                            "I don't know, that was not mentioned.",
                            rng.choice(foreign),
                        ),
                        strict=True,
                    )
                )
                for form, text in said.items():
                    near = nearness(embedder.embed_query(text), _vectors(embedder, hits), hits)
                    named = attribute(text, question.text, hits, citations={}, near=near)
                    right = len(set(named) & set(question.evidence)) if form in FORMS[:3] else 0
                    for place, value in enumerate((1, bool(named), len(named), right)):
                        counts[form][place] += value
    progress("")
    print("| answer | asked | something named, % | of it evidence, % |\n| --- | --- | --- | --- |")
    for form, (asked, some, named, right) in counts.items():
        print(f"| {form} | {asked} | {100 * some / asked:.1f} | {100 * right / named if named else 0:.1f} |")


def _vectors(embedder: Cached, hits: Sequence[Hit]) -> dict[int, Any]:
    texts = [f"{hit.metadata['name']}: {hit.text}" if hit.metadata.get("name") else hit.text for hit in hits]
    return {hit.position: vector for hit, vector in zip(hits, embedder.embed_documents(texts), strict=True)}


def _answers(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        record = json.load(file)
    return {q["id"]: str(q["answer"]) for q in record["questions"] if q.get("answer") and q.get("category") != "5"}


if __name__ == "__main__":
    main()
