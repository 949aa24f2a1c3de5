"""A sealed index beside the tail that it was made from, for tests of the one against the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memkit_storage.filters import Filter
from memkit_storage.lance import IndexKey, LanceIndex
from memkit_storage.lexical import TermStats
from memkit_storage.rows import Row
from memkit_storage.tail import Rows, Tail, unit

pytest.importorskip("lancedb")

DIM = 16
WORDS = [*(f"w{i}" for i in range(40)), "東京", "straße", "🙂", "o'clock", "a\u00a0b", "AND", "x" * 300]
KEY = IndexKey(file_id="ab" * 16, generation=1, embedder="e/0", dim=DIM, analyzer="1")
rng = np.random.default_rng


def make(position: int, words: str, seed: int = 1, user_id: str | None = None, **metadata: Any) -> Row:
    vector = rng(seed).standard_normal(DIM) * bool(seed)
    vector = (vector / (np.linalg.norm(vector) or 1)).astype(np.float16).astype(np.float32)
    return Row(f"i{position}", words, vector, user_id=user_id, metadata=metadata, position=position)


def many(count: int, start: int = 0) -> list[Row]:
    draw = rng(start)
    texts = [" ".join(f"w{i}" for i in draw.zipf(1.4, draw.integers(3, 20)) % 400) for _ in range(count)]
    return [make(start + i, text, start + i + 1, f"u{i % 50}") for i, text in enumerate(texts)]


def query(seed: int) -> np.ndarray:
    return rng(seed).standard_normal(DIM).astype(np.float32)


class Both:
    """The same living rows in an exact tail and in an index."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stats = TermStats()
        self.tail = Tail(DIM, self.stats, analyze=str.split)
        self.index: LanceIndex | None = None

    def seal(self, rows: Sequence[Row], dead: Sequence[int] = (), key: IndexKey = KEY) -> LanceIndex:
        for row in rows:
            self.tail.add(row)
        for position in dead:
            self.tail.remove(position)
        self.tail.settle()
        tokens = [row.text.split() for row in rows]
        marks: dict[str, Any] = {"watermark": max((r.position for r in rows), default=0), "chain": "c0ffee"}
        self.index = LanceIndex.seal(self.root, key, self.index, rows, tokens, dead, stats=self.stats, **marks)
        return self.index

    def agree(self, seed: int, terms: Sequence[str], k: int, where: Filter | None = None) -> None:
        assert self.index is not None
        allowed = self.tail.select(where)
        near, said = self.tail.dense(query(seed), k, allowed), self.tail.lexical(terms, k, allowed)
        assert self.index.dense(query(seed), k, where)[0] == near
        assert self.index.lexical(terms, k, self.stats, where)[0] == said
        expected = self.tail.score([position for position, _ in [*near, *said]], query(seed), terms)
        assert self.index.search(query(seed), terms, k, where, frozenset(), self.stats)[0] == expected


def exact(rows: Sequence[Row]) -> Rows:
    """The same rows, all of which are scored."""
    vectors = unit(np.stack([row.vector for row in rows]))
    return Rows(np.array([row.position for row in rows]), vectors, [row.text.split() for row in rows])
