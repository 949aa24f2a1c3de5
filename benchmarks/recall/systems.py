"""What is compared: ways to rank, and ways to give feedback. Everything goes through `memkit.Memory`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.recall.datasets import Conversation, Question
from benchmarks.recall.metrics import measure
from memkit import Memory
from memkit.embed import default_embedder

USER = "someone"
DEPTH = 20
SHOWN = 10  # hits that a user sees
RRF = 60  # of reciprocal rank fusion
ONLINE = {
    "online": "every question's evidence is fed back after it was asked",
    "online, shown": "only what stands among the ten shown",
    "online, 1 in 4": "the same for one question in four",
    "online, 20 % wrong": "the same; one feedback in five names a wrong item of the ten",
    "online, 40 % wrong": "the same; two in five",
}
FIXED = ("bm25", "dense", "rrf", "prior")


class Cached:
    """The default embedder with its vectors kept in a folder, one file a text."""

    def __init__(self, folder: Path) -> None:
        self._inner = default_embedder()
        self._folder = folder / hashlib.sha256(self._inner.describe().name.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)

    def embed_documents(self, texts: list[str]) -> Any:
        """(n, d)."""
        paths = [self._path("d", text) for text in texts]
        missing = {text: path for text, path in zip(texts, paths, strict=True) if not path.exists()}
        names = list(missing)
        for start in range(0, len(names), 64):
            part = names[start : start + 64]
            for text, vector in zip(part, self._inner.embed_documents(part), strict=True):
                np.save(missing[text], vector)
        return np.stack([np.load(path) for path in paths])

    def embed_query(self, text: str) -> Any:
        """(d,)."""
        path = self._path("q", text)
        if not path.exists():
            np.save(path, self._inner.embed_query(text))
        return np.load(path)

    def _path(self, kind: str, text: str) -> Path:
        return self._folder / f"{kind}{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"


@dataclass
class Answers:
    """Per question: its conversation, id, category and METRICS; per call: milliseconds."""

    conversations: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    search_ms: list[float] = field(default_factory=list)
    feedback_ms: list[float] = field(default_factory=list)

    def add(self, conversation: Conversation, question: Question, ranked: Sequence[str]) -> None:
        """One more."""
        self.conversations.append(conversation.name)
        self.keys.append(question.id)
        self.categories.append(question.category)
        self.scores.append(measure(ranked, question.evidence))


@contextmanager
def stored(conversation: Conversation, embedder: Any) -> Any:
    """A memory that holds a conversation, in a file of its own."""
    with (
        TemporaryDirectory() as folder,
        Memory(Path(folder) / "a.mem", embedder=embedder, cache_dir=Path(folder) / "cache", durability="os") as memory,
    ):
        memory.add([turn.message() for turn in conversation.turns], user_id=USER)
        yield memory


def ranked(memory: Memory, system: str, query: str) -> list[str]:
    """Ids as a system ranks them."""
    if system == "rrf":
        return _rrf(ranked(memory, "bm25", query), ranked(memory, "dense", query))
    mode = {"bm25": "text", "dense": "vector"}.get(system, "hybrid")
    return [hit.id for hit in memory.search(query, limit=DEPTH, mode=mode, user_id=USER)]  # type: ignore[arg-type]


def _rrf(*rankings: Sequence[str]) -> list[str]:
    score: dict[str, float] = {}
    for ranking in rankings:
        for place, id_ in enumerate(ranking, 1):
            score[id_] = score.get(id_, 0.0) + 1 / (RRF + place)
    return sorted(score, key=lambda id_: -score[id_])[:DEPTH]


def ask(memory: Memory, conversation: Conversation, system: str, answers: Answers) -> None:
    """Every question, without feedback."""
    for question in conversation.answered:
        start = time.perf_counter()
        found = ranked(memory, system, question.text)
        answers.search_ms.append(1e3 * (time.perf_counter() - start))
        answers.add(conversation, question, found)


def ask_online(
    memory: Memory, conversation: Conversation, system: str, answers: Answers, seed: int, limit: int | None = None
) -> None:
    """Every question, scored first and fed back then; seed 0 keeps the order of the file, others shuffle it."""
    rng = np.random.default_rng(seed)
    questions = conversation.answered
    order = range(len(questions)) if seed == 0 else rng.permutation(len(questions)).tolist()
    for i in list(order)[:limit]:
        question = questions[i]
        start = time.perf_counter()
        found = ranked(memory, system, question.text)
        answers.search_ms.append(1e3 * (time.perf_counter() - start))
        answers.add(conversation, question, found)
        used = told(system, question, found[:SHOWN], rng)
        if used:
            start = time.perf_counter()
            memory.feedback(question.text, used=used, user_id=USER)
            answers.feedback_ms.append(1e3 * (time.perf_counter() - start))


def told(system: str, question: Question, shown: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Which items a feedback names, by the kind of user that a system stands for."""
    if system == "online":
        return list(question.evidence)
    if system.endswith("1 in 4") and rng.random() >= 0.25:
        return []
    wrong = {"online, 20 % wrong": 0.2, "online, 40 % wrong": 0.4}.get(system, 0.0)
    others = [id_ for id_ in shown if id_ not in question.evidence]
    if rng.random() < wrong and others:
        return [others[int(rng.integers(len(others)))]]
    return [id_ for id_ in question.evidence if id_ in shown]


def taught_elsewhere(source: Conversation, embedder: Any, count: int) -> Callable[[Memory], Memory]:
    """What `count` questions of another conversation teach, carried into a memory: a branch of it."""
    answers = Answers()
    with stored(source, embedder) as memory:
        ask_online(memory, source, "online, shown", answers, 0, count)
        state = memory.scope(user_id=USER).snapshot()
    return lambda target: target.scope(user_id=USER).branch(state)
