"""The data of `benchmarks.speed`: made from a seed, the same for every engine, with vectors made beforehand.

Vectors stand in 400 topics of unequal size with a low-rank structure of their own, as those of real texts do; texts
are 8 to 60 words drawn by Zipf's law from 40,000. Every item has three scopes: one of 200 users, the one agent of all
items, and a run of ten items. A question takes six words of an item and a vector near the item's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DIM = 384
SEED = 7
TOPICS, LATENT = 400, 32
VOCABULARY = 40_000
USERS = 200
PER_RUN = 10
AGENT = "agent"

Floats = npt.NDArray[np.float32]
Scope = dict[str, Any]  # field -> name


@dataclass(frozen=True, slots=True)
class Entry:
    """One item; the vector is (DIM,) float32 of unit length."""

    number: int
    text: str
    vector: Floats

    @property
    def scope(self) -> Scope:
        """Its user, agent and run."""
        return {
            "user_id": f"u{self.number * 7919 % USERS}",
            "agent_id": AGENT,
            "run_id": f"r{self.number // PER_RUN}",
        }


@dataclass(frozen=True, slots=True)
class Question:
    """A query: words and a unit vector (DIM,); `target` is the item that it was made from."""

    text: str
    vector: Floats
    target: int

    def scope(self, kind: str) -> Scope:
        """The filter of one kind of search: `all` none, `user` a 200th, `agent` every item, `run` ten items."""
        scope = Entry(self.target, "", self.vector).scope
        return {} if kind == "all" else {f"{kind}_id": scope[f"{kind}_id"]}


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts and vectors (n, DIM) of items, and questions about the first `asked` of them."""

    texts: Sequence[str]
    vectors: Floats
    questions: Sequence[Question]

    def entries(self, start: int, count: int) -> list[Entry]:
        """Items by number."""
        return [Entry(i, self.texts[i], self.vectors[i]) for i in range(start, start + count)]

    def lookup(self) -> dict[str, Floats]:
        """The vector of each text: what stands for an embedder."""
        known = dict(zip(self.texts, self.vectors, strict=True))
        return known | {question.text: question.vector for question in self.questions}

    def save(self, folder: Path) -> None:
        """Write it for the engines' processes."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "asked.npy", np.stack([question.vector for question in self.questions]))
        (folder / "texts").write_text("\n".join(self.texts))
        (folder / "questions").write_text(json.dumps([[q.text, q.target] for q in self.questions]))

    @classmethod
    def load(cls, folder: Path, *, items: bool) -> Workload:
        """What `save` wrote; without `items` only the questions, as a process that only searches has them."""
        asked = np.load(folder / "asked.npy")
        pairs = json.loads((folder / "questions").read_text())
        questions = [Question(text, vector, target) for (text, target), vector in zip(pairs, asked, strict=True)]
        if not items:
            return cls([], np.zeros((0, DIM), np.float32), questions)
        return cls((folder / "texts").read_text().split("\n"), np.load(folder / "vectors.npy"), questions)


def make(count: int, asked: int, questions: int, seed: int = SEED) -> Workload:
    """`count` items, and `questions` about the first `asked` of them."""
    rng = np.random.default_rng(seed)
    vectors = _vectors(rng, count)
    texts = _texts(rng, count)
    targets = rng.integers(0, asked, questions).tolist()
    near = unit(vectors[targets] + 0.5 * unit(rng.normal(size=(questions, DIM))))
    words = [" ".join(rng.permutation(texts[target].split())[:6].tolist()) for target in targets]
    return Workload(texts, vectors, [Question(*one) for one in zip(words, near, targets, strict=True)])


def unit(rows: npt.ArrayLike) -> Floats:
    """Rows (n, d) at length one."""
    matrix = np.asarray(rows, np.float32)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)


def _vectors(rng: np.random.Generator, count: int) -> Floats:
    centres = unit(rng.normal(size=(TOPICS, DIM)))
    latent = rng.normal(size=(LATENT, DIM)).astype(np.float32) / np.sqrt(DIM)
    topics = rng.choice(TOPICS, count, p=_zipf(TOPICS))
    blocks = [
        unit(
            centres[part]
            + 0.5 / np.sqrt(LATENT) * rng.normal(size=(len(part), LATENT)).astype(np.float32) @ latent * np.sqrt(2)
            + 0.5 / np.sqrt(DIM) * rng.normal(size=(len(part), DIM)).astype(np.float32)
        )
        for part in np.array_split(topics, max(1, count // 10_000))
    ]
    return np.concatenate(blocks)


def _texts(rng: np.random.Generator, count: int) -> list[str]:
    vocabulary = np.array(list(_words(rng)))
    lengths = rng.integers(8, 61, count)
    words = vocabulary[rng.choice(VOCABULARY, int(lengths.sum()), p=_zipf(VOCABULARY))].tolist()
    ends = np.cumsum(lengths).tolist()
    texts = [" ".join(words[end - size : end]) for end, size in zip(ends, lengths.tolist(), strict=True)]
    seen: dict[str, int] = {}
    for i, text in enumerate(texts):  # equal texts would be one text to an embedder
        texts[i] = text if seen.setdefault(text, i) == i else f"{text} {vocabulary[i % VOCABULARY]} {i}"
    return texts


def _words(rng: np.random.Generator) -> Iterator[str]:
    """Distinct pronounceable words."""
    syllables = [consonant + vowel for consonant in "bdfghjklmnprstvwz" for vowel in ("a", "e", "i", "o", "u", "ai")]
    seen: set[str] = set()
    while len(seen) < VOCABULARY:
        word = "".join(rng.choice(syllables, rng.integers(2, 5)))
        if word not in seen:
            seen.add(word)
            yield word


def _zipf(size: int) -> npt.NDArray[np.float64]:
    weights = 1 / np.arange(1, size + 1)
    return np.asarray(weights / weights.sum(), np.float64)
