"""Does the approximate index find what an exact search finds, and from how many rows does it pay?

Sentences of docstrings of the installed Python packages, embedded with memkit's default embedder; other sentences
of the same kind are the questions. From the repository root:

    python -m benchmarks.ann_recall                  # 20,000 sentences
    python -m benchmarks.ann_recall --n 50000

For each size: seconds to build and milliseconds to open the index; recall@10 and @30 of the defaults against an
exact search; then medians of one search in milliseconds:

    ann, flat    by meaning in LanceDB, with the index and comparing every row
    words        by words in LanceDB
    hybrid       both at once, 30 rows of each; `scoped`: of one user among 10 rows each, `half`: of half of all rows
    tail         the same hybrid search, exact, in memory

The index pays from the size where `ann` falls below `flat` (`lance_table.ANN_FROM`). Vectors are kept in the
temporary directory between runs.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import random
import re
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memkit.embed import default_embedder
from memkit_storage import lance_table
from memkit_storage.analyzer import ANALYZER_VERSION, analyze
from memkit_storage.filters import Filter
from memkit_storage.lance import IndexKey, LanceIndex
from memkit_storage.lexical import TermStats
from memkit_storage.rows import Row, Vector
from memkit_storage.tail import Tail

SIZES = (2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
PER_USER = 10
BLOCK = 2_048


@dataclass(frozen=True, slots=True)
class Question:
    """A sentence that is in no index, its unit vector (d,) and its tokens."""

    vector: Vector
    terms: list[str]


def sentences(count: int) -> list[str]:
    """Distinct sentences of 6 to 40 words, in a fixed order for one installation."""
    paths = sysconfig.get_paths()
    modules = [path for root in ("stdlib", "purelib") for path in sorted(Path(paths[root]).rglob("*.py"))]
    random.Random(0).shuffle(modules)
    found: dict[str, None] = {}
    for module in modules:
        for text in _docstrings(module):
            for part in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
                sentence = " ".join(part.split())
                if 6 <= len(sentence.split()) <= 40:
                    found.setdefault(sentence)
        if len(found) >= count:
            break
    return list(found)[:count]


def _docstrings(module: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(module.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def embed(texts: Sequence[str]) -> Vector:
    """(n, d) unit vectors, rounded as a log rounds them."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / "memkit-ann-recall" / f"{digest}.npy"
    if not kept.exists():
        embedder, blocks = default_embedder(), []
        for start in range(0, len(texts), BLOCK):
            blocks.append(np.asarray(embedder.embed_documents(list(texts[start : start + BLOCK])), np.float16))
            print(f"\rembedded {start + len(blocks[-1])} of {len(texts)}", end="", file=sys.stderr, flush=True)
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, np.concatenate(blocks))
    return np.asarray(np.load(kept), np.float32)


def median_ms(call: Callable[[Question], object], questions: Sequence[Question]) -> float:
    """Median wall time of a call, after two that are not counted."""
    times = []
    for question in [*questions[:2], *questions]:
        start = time.perf_counter()
        call(question)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[2:]))


def measure(rows: Sequence[Row], questions: Sequence[Question], root: Path) -> dict[str, float]:
    """All figures of one size; the index is built in `root`."""
    stats = TermStats()
    tail = Tail(len(rows[0].vector), stats)
    for row in rows:
        tail.add(row)
    tail.settle()
    tokens = [tail.tokens(row.position) for row in rows]
    key = IndexKey(file_id="", generation=0, embedder="", dim=len(rows[0].vector), analyzer=ANALYZER_VERSION)
    start = time.perf_counter()
    LanceIndex.seal(root, key, None, rows, tokens, watermark=rows[-1].position, chain="", stats=stats)
    built = time.perf_counter()
    index = LanceIndex.open(root, key)
    assert index is not None
    opened = time.perf_counter()
    figures = {"build s": built - start, "open ms": 1e3 * (opened - built)}
    for k in (10, 30):
        figures[f"recall@{k}"] = recall(index, tail, questions, k)
    return figures | latencies(index, tail, questions, stats)


def recall(index: LanceIndex, tail: Tail, questions: Sequence[Question], k: int) -> float:
    """Share of the k nearest rows that the index finds."""
    hits = [len(set(tail.dense(q.vector, k)) & set(index.dense(q.vector, k)[0])) for q in questions]
    return float(np.mean(hits)) / k


def latencies(index: LanceIndex, tail: Tail, questions: Sequence[Question], stats: TermStats) -> dict[str, float]:
    """Median milliseconds of each kind of search."""
    half = Filter.parse({"agent_id": "a"})
    one = Filter.parse({"user_id": "u7"})

    def hybrid(where: Filter | None) -> Callable[[Question], object]:
        return lambda q: index.search(q.vector, q.terms, 30, where, frozenset(), stats)

    def flat(q: Question) -> object:
        search = index.table().search(q.vector, vector_column_name="vector").distance_type("cosine")
        return search.bypass_vector_index().limit(30).select(["position", "_distance"]).to_arrow()

    def exact(q: Question) -> object:
        near, said = tail.dense(q.vector, 30), tail.lexical(q.terms, 30)
        return tail.score([position for position, _ in {*near, *said}], q.vector, q.terms)

    return {
        "ann": median_ms(lambda q: index.dense(q.vector, 30), questions),
        "flat": median_ms(flat, questions[:30]),
        "words": median_ms(lambda q: index.lexical(q.terms, 30, stats), questions),
        "hybrid": median_ms(hybrid(None), questions),
        "scoped": median_ms(hybrid(one), questions),
        "half": median_ms(hybrid(half), questions),
        "tail": median_ms(exact, questions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall and speed of the approximate index on real embeddings.")
    parser.add_argument("--n", type=int, default=20_000, help="sentences in the largest index (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=200, help="sentences to search with (default: %(default)s)")
    options = parser.parse_args()

    texts = sentences(options.n + options.questions)
    vectors = embed(texts)
    questions = [Question(v, analyze(t)) for v, t in zip(vectors, texts[: options.questions], strict=False)]
    corpus = [
        Row(str(i), text, vector, user_id=f"u{i // PER_USER}", agent_id="ab"[i % 2], position=i)
        for i, (text, vector) in enumerate(zip(texts[options.questions :], vectors[options.questions :], strict=True))
    ]
    start = time.perf_counter()
    lance_table.lancedb()
    print(f"\nimport of lancedb: {time.perf_counter() - start:.2f} s; {vectors.shape[1]} dimensions")
    for count in sorted({size for size in SIZES if size < len(corpus)} | {len(corpus)}):
        with tempfile.TemporaryDirectory() as root:
            figures = measure(corpus[:count], questions, Path(root))
        if count == min(SIZES[0], len(corpus)):
            print(f"{'rows':>8}" + "".join(f"{name:>10}" for name in figures))
        print(f"{count:>8}" + "".join(f"{value:>10.3f}" for value in figures.values()), flush=True)


if __name__ == "__main__":
    main()
