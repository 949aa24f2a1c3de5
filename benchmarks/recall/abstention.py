"""What could tell that a familiar subject lacks just this answer: clues of a recall, one by one and together.

    python -m benchmarks.recall.abstention                       # BEAM 100K from ../shared/data
    python -m benchmarks.recall.abstention chats/                # other conversations with questions that have no answer

AUROC of each clue: the chance that it is higher for a question that the conversation answers than for one that it does
not; 0.5 is chance, and far below it the clue points the other way. Brackets are 95 % bootstrap intervals over questions.
*Together*: a ridge logistic regression on all of them, each conversation judged by the others. It may turn clues around,
which says how a set writes its questions, and not what evidence looks like: see whether it does.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recall.__main__ import default_cache, progress
from benchmarks.recall.datasets import DEFAULT_DATA, Conversation, load, load_set
from benchmarks.recall.metrics import auroc
from benchmarks.recall.systems import USER, Cached, stored
from memkit.embed import default_embedder
from memkit.evidence import FUNCTION_WORDS, clues, confidence
from memkit.items import Hit
from memkit.recall import Pool
from memkit.signals import NAMES
from memkit_storage.analyzer import analyze

READ = 5  # hits whose sentences are read one by one
SENTENCES = 60
RIDGE = 10.0
DRAWS = 1_000
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def measured(conversation: Conversation, cached: Any, embedder: Any) -> tuple[Any, Any, list[str]]:
    """(n, clues), (n,) whether the conversation answers the question, and the clues' names."""
    rows: list[Mapping[str, float]] = []
    questions = [*conversation.answered, *conversation.unanswered]
    with stored(conversation, cached) as memory:
        for place, question in enumerate(questions):
            progress(f"{conversation.name} {place}/{len(questions)}")
            recall = memory.recall(question.text, user_id=USER)
            hits = memory.search(question.text, user_id=USER)
            rows.append(_pool_clues(recall.pool, hits) | _sentence_clues(recall.pool, hits, embedder))
    answered = np.arange(len(questions)) < len(conversation.answered)
    return np.array([list(row.values()) for row in rows]), answered, list(rows[0])


def _pool_clues(pool: Pool, hits: Sequence[Hit]) -> dict[str, float]:
    coverage, unknown, _ = clues(pool, hits, [USER])
    best = {name: float(pool.signals[:, NAMES.index(name)].max()) for name in ("words", "phrase", "meaning_white")}
    totals = pool.totals
    return {
        "confidence": confidence(pool, hits, [USER]),
        "coverage": coverage,
        "known": -unknown,
        "best total": float(totals[0]),
        "lead over the sixth": float(totals[0] - totals[min(5, len(totals) - 1)]),
        "lead over the mean": float(totals[0] - totals.mean()),
    } | {f"best {name}": value for name, value in best.items()}


def _sentence_clues(pool: Pool, hits: Sequence[Hit], embedder: Any) -> dict[str, float]:
    """How much of the question one sentence says, and how near the nearest sentence is."""
    assert pool.query is not None
    rarity = dict(zip(pool.query.terms, pool.query.idf.tolist(), strict=True))
    content = {term: idf for term, idf in rarity.items() if term not in FUNCTION_WORDS}
    said = [one for hit in hits[:READ] for one in _SENTENCE.findall(hit.text) if len(one.split()) > 3][:SENTENCES]
    shares = [_share(content, one) for one in said] or [0.0]
    items = [_share(content, hit.text) for hit in hits]
    vectors = np.asarray(embedder.embed_documents(said or [""]), np.float64)
    near = np.sort(vectors @ pool.query.vector / np.linalg.norm(vectors, axis=1) / np.linalg.norm(pool.query.vector))
    return {
        "one sentence covers": max(shares),
        "one item covers": max(items),
        "items that cover half as much": float(sum(share > 0.5 * max(items) for share in items)),
        "nearest sentence": float(near[-1]),
        "its lead": float(near[-1] - near[-6:].mean()),
    }


def _share(content: Mapping[str, float], text: str) -> float:
    there = set(analyze(text))
    return sum(idf for term, idf in content.items() if term in there) / (sum(content.values()) or 1.0)


def judged_by_others(values: Any, answered: Any, group: Any) -> Any:
    """(n,) log odds that a question is answered, by a regression on the other conversations' questions."""
    odds = np.zeros(len(answered))
    for one in np.unique(group):
        rest = group != one
        mean, spread = values[rest].mean(axis=0), values[rest].std(axis=0) + 1e-9
        scaled = np.column_stack([np.ones(len(values)), (values - mean) / spread])
        odds[~rest] = scaled[~rest] @ _logistic(scaled[rest], answered[rest])
    return odds


def _logistic(rows: Any, labels: Any) -> Any:
    """Weights by Newton's method; both labels count the same, the constant is not shrunk."""
    weights, ridge = np.zeros(rows.shape[1]), np.r_[1e-6, np.full(rows.shape[1] - 1, RIDGE)]
    balance = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    for _ in range(30):
        sure = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (balance * (sure - labels)) + ridge * weights
        bend = rows.T @ (rows * (balance * sure * (1 - sure))[:, None]) + np.diag(ridge)
        weights = weights - np.linalg.solve(bend, slope)
    return weights


def cell(score: Any, answered: Any) -> str:
    """AUROC with its interval."""
    own, none = score[answered], score[~answered]
    rng = np.random.default_rng(0)
    drawn = [auroc(rng.choice(own, len(own)).tolist(), rng.choice(none, len(none)).tolist()) for _ in range(DRAWS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{auroc(own.tolist(), none.tolist()):.2f} [{low:.2f}, {high:.2f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    conversations = [found for path in options.paths for found in load(path)] or load_set(options.data, "beam")
    cached, embedder = Cached(default_cache()), default_embedder()
    parts = [measured(one, cached, embedder) for one in conversations if one.answered and one.unanswered]
    if not parts:
        raise SystemExit("no conversation with both kinds of questions; pass --data or files")
    progress("")
    values, answered = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    group = np.repeat(np.arange(len(parts)), [len(part[1]) for part in parts])
    print(f"{answered.sum()} questions with an answer, {(~answered).sum()} without\n\n| | AUROC |\n| --- | --- |")
    for column, name in enumerate(parts[0][2]):
        print(f"| {name} | {cell(values[:, column], answered)} |")
    if len(parts) > 1:
        print(f"| together | {cell(judged_by_others(values, answered, group), answered)} |")


if __name__ == "__main__":
    main()
