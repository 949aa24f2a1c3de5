"""What can be seen of a candidate: each signal named, cheap, and measured against the file at large.

Signals depend on the query, the candidate, the items next to it in time, and on statistics of the file. They do not
depend on where a row is indexed. An item borrows from its neighbours the more, the shorter it is: a turn like "Yes,
in May!" says little by itself. English only: `question`, `when`, `number` and `role` read the wording of the query.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from memkit.background import Background, Spread
from memkit.timewords import asks_when, overlap, spans
from memkit_storage.analyzer import analyze
from memkit_storage.index import Found
from memkit_storage.lexical import K1, B, unique
from memkit_storage.rows import Vector
from memkit_storage.tail import Passage, unit
from memkit_storage.timeline import Around

Floats = npt.NDArray[np.float64]

SIGNALS = {
    "words": "BM25 of the item, in multiples of what unrelated items reach",
    "words_near": "the same, with words borrowed from its neighbours",
    "coverage": "share of the query that it says, by rarity of the words",
    "coverage_near": "the same, with words borrowed from its neighbours",
    "phrase": "share of the query's pairs of words that stand together in it",
    "meaning": "cosine with the query, in standard deviations above the file's mean",
    "meaning_white": "the same between whitened vectors",
    "meaning_near": "the same, the item's vector mixed with its neighbours'",
    "session_words": "the best `words` among the candidates of its session",
    "session_meaning": "the best `meaning_white` among them",
    "brevity": "logarithm of its length over 25 tokens, where it is shorter",
    "question": "share of its sentences that ask",
    "reply": "`words` of the question that it follows",
    "speaker": "1 if the query names its speaker, -1 if it names another one",
    "role": "1 if the user said it, -1 if the assistant did; 0 if the query asks what the assistant said",
    "when": "1 if the query asks for a time and it names one",
    "number": "1 if the query asks for a number and it names one",
    "time": "how well `occurred_at` fits a time that the query names",
    "recency": "how long before the file's newest item it occurred, -log2(1 + days) / 10",
    "importance": "`importance` in its metadata, 0 to 1",
    "novelty": "how unlike its predecessors it is: 1 - the nearest whitened cosine",
    "adapted": "what `meaning` gains by what feedback taught about the user's words",
    "needs": "how well it served such needs before",
}
NAMES = tuple(SIGNALS)

_SPREAD = {
    "coverage": 0.15, "coverage_near": 0.15, "phrase": 0.1, "meaning": 1.5, "meaning_white": 1.5, "meaning_near": 1.5,
    "session_words": 1.5, "brevity": 0.5, "question": 0.4, "speaker": 0.5, "role": 0.7, "when": 0.4, "number": 0.4,
    "time": 0.3, "recency": 0.1, "importance": 0.3, "novelty": 0.1, "needs": 0.2,
}  # fmt: skip
SCALES = np.array([_SPREAD.get(name, 1.0) for name in NAMES])  # what a signal varies by among candidates: a fixed unit

BORROW = 40.0  # tokens; an item of so many borrows half of each neighbour
HOP = 0.5  # what the second neighbour counts, against the first
MIX = 0.6  # of neighbours' vectors, against their words
BRIEF = 25  # tokens
DAY_US = 86_400_000_000

_NUMBER = re.compile(
    r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|twice|once)\b", re.IGNORECASE
)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|long|far|often|tall|big)\b|\bwhat (?:number|amount|age|price|percentage)\b", re.IGNORECASE
)
_TIME = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|weeks?|months?|years?|weekend|days?|recently|since|january|"
    r"february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|wednesday|"
    r"thursday|friday|saturday|sunday|spring|summer|autumn|winter|(?:19|20)\d\d|\d{1,2}:\d\d)\b",
    re.IGNORECASE,
)
_ASKS_ASSISTANT = re.compile(
    r"\b(?:did|have|had) you\b|\bthe assistant\b|\byou (?:\w+ ){0,2}?(?:said|told|suggested|recommended|gave|mentioned|"
    r"listed|explained|provided|wrote|advised|proposed|described)\b",
    re.IGNORECASE,
)
_ENDS = re.compile(r"[.!?]+")


@dataclass(frozen=True, slots=True)
class Query:
    """A query as the signals see it: vector (d,), distinct terms with their rarity (idf), and when it is asked.

    `meant` is the vector of the query in the file's words, as far as feedback has taught the user's own.
    """

    text: str
    vector: Vector
    terms: list[str]
    idf: Floats
    latest_us: int
    now_us: int
    meant: Vector | None = None

    @classmethod
    def of(cls, text: str, vector: Vector, found: Found, now_us: int, *, meant: Vector | None = None) -> Query:
        """A query about a file, asked at a time (µs)."""
        terms = unique(analyze(text))
        n = found.items
        df = np.array([found.frequencies.get(term, 0) for term in terms], np.float64)
        return cls(text, vector, terms, np.log(1 + (n - df + 0.5) / (df + 0.5)), found.latest_us, now_us, meant)


@dataclass(frozen=True, slots=True)
class Window:
    """For each of n rows, the rows beside it (-1 where none): previous two, next two; and its session's number."""

    beside: npt.NDArray[np.int64]
    session: npt.NDArray[np.int64]

    @classmethod
    def of(cls, positions: Sequence[int], around: Mapping[int, Around]) -> Window:
        """From the neighbourhoods of some of the rows; who is not in the same session is no neighbour."""
        place = {position: i for i, position in enumerate(positions)}
        before = np.full(len(positions), -1, np.int64)
        session = np.array(positions, np.int64)
        for near in around.values():
            rows = [place.get(position, -1) for position in near.positions.tolist()]
            begins = near.sessions.tolist()
            for i, row in enumerate(rows):
                if row >= 0:
                    session[row] = begins[i]
                    if i and begins[i - 1] == begins[i]:
                        before[row] = rows[i - 1]
        after = np.full(len(positions), -1, np.int64)
        after[before[before >= 0]] = np.flatnonzero(before >= 0)
        return cls(np.stack([before, _hop(before), after, _hop(after)]), session)

    def borrowed(self, values: Floats) -> Floats:
        """(..., n) what the neighbours have of some values (..., n)."""
        there = self.beside >= 0
        shares = np.where(there, np.array([1, HOP, 1, HOP])[:, None], 0)
        return np.asarray((values[..., self.beside] * shares).sum(axis=-2), np.float64)

    def mixed(self, vectors: Vector, share: Floats) -> Vector:
        """(n, d) unit vectors with a share (n,) of their neighbours' in them."""
        weights = np.eye(len(vectors), dtype=np.float32)
        for beside, weight in zip(self.beside, (1, HOP, 1, HOP), strict=True):
            there = np.flatnonzero(beside >= 0)
            weights[there, beside[there]] += weight * share[there]
        return unit(weights @ vectors)


def _hop(step: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(step >= 0, step[step], -1)


def measure(
    query: Query,
    passages: Sequence[Passage],
    window: Window,
    background: Background,
    *,
    length: float,
    items: int,
    matched: npt.NDArray[np.bool_],
    learned: Mapping[str, Floats] | None = None,
) -> Floats:
    """(n, len(NAMES)) signals of n passages.

    Args:
        window: who stands beside whom.
        length: tokens of an item of the file, on average. `items`: how many there are.
        matched: which passages speak for their session: those that the search found.
        learned: (n,) values of signals that feedback taught, by name.
    """
    values = _lexical(query, passages, window, background.coherence, (length, items))
    values |= _dense(query, passages, window, background)
    values |= _session(values, window, matched)
    values |= _shape(query, passages, window, values["words"])
    values |= _about(query, passages)
    values |= learned or {}
    none = np.zeros(len(passages))
    return np.stack([values.get(name, none) for name in NAMES], axis=1)


def _lexical(
    query: Query, passages: Sequence[Passage], window: Window, coherence: float, size: tuple[float, int]
) -> dict[str, Floats]:
    length, items = size
    counts = np.array([[p.tokens.count(term) for p in passages] for term in query.terms], np.float64)
    counts = counts.reshape(len(query.terms), len(passages))
    lengths = np.array([len(p.tokens) for p in passages], np.float64)
    share, usual = coherence * BORROW / (BORROW + lengths), coherence * BORROW / (BORROW + length)
    more, longer = counts + share * window.borrowed(counts), lengths + share * window.borrowed(lengths)
    bound = float(query.idf.sum()) or 1.0
    context = 1 + usual * 2 * (1 + HOP)  # items that an item stands for, with what it borrows
    return {
        "words": _bm25(query.idf, counts, lengths, length) / _reached(query.idf, items, 1),
        "words_near": _bm25(query.idf, more, longer, length * context) / _reached(query.idf, items, context),
        "coverage": query.idf @ (counts > 0) / bound,
        "coverage_near": query.idf @ np.minimum(1, more) / bound,
        "phrase": _phrase(query, passages, counts),
    }


def _bm25(idf: Floats, counts: Floats, lengths: Floats, average: float) -> Floats:
    norm = K1 * (1 - B + B * lengths / (average or 1))
    return np.asarray(idf @ (counts * (K1 + 1) / (counts + norm)), np.float64)


def _reached(idf: Floats, items: int, context: float) -> float:
    """What BM25 of unrelated items reaches, over sqrt(2): the root mean square, terms taken as independent."""
    df = (items + 1) / np.exp(idf) if items else idf  # idf = ln((n + 1) / (df + 0.5))
    alone = np.clip((df - 0.5) / max(items, 1), 0, 1)
    share = 1 - (1 - alone) ** context
    known = alone > 0
    mean, variance = (share * idf)[known].sum(), (share * (1 - share) * idf**2)[known].sum()
    return math.sqrt((mean**2 + variance) / 2) or 1.0


def _phrase(query: Query, passages: Sequence[Passage], counts: Floats) -> Floats:
    weight = dict(zip(query.terms, query.idf.tolist(), strict=True))
    place = {term: i for i, term in enumerate(query.terms)}
    pairs = {(one, other): weight[one] + weight[other] for one, other in pairwise(analyze(query.text))}
    found = np.zeros(len(passages))
    several = np.flatnonzero(counts.sum(axis=0) > 1).tolist()  # occurrences of terms; a pair takes two
    said = {i: f" {' '.join(passages[i].tokens)} " for i in several}
    for (one, other), rarity in pairs.items():
        for i in np.flatnonzero((counts[place[one]] > 0) & (counts[place[other]] > 0)).tolist():
            found[i] += rarity * (f" {one} {other} " in said.get(i, ""))
    return found / (sum(pairs.values()) or 1.0)


def _dense(query: Query, passages: Sequence[Passage], window: Window, background: Background) -> dict[str, Floats]:
    together = np.stack([unit(query.vector[None])[0], *(p.vector for p in passages)])
    whitened = background.whitening.apply(together)
    asked, vectors, asked_white, white = together[0], together[1:], whitened[0], whitened[1:]
    spread, spread_white = Spread.of(background.raw @ asked), Spread.of(background.white @ asked_white)
    lengths = np.array([len(p.tokens) for p in passages], np.float64)
    near = window.mixed(white, background.coherence * MIX * BORROW / (BORROW + lengths))
    beside = window.beside[:2]
    alike = np.where(beside >= 0, (white @ white.T)[np.arange(len(white)), beside], 0).max(axis=0)
    meaning = spread.z(np.vecdot(vectors, asked))
    return {
        "meaning": meaning,
        "adapted": _gained(query, vectors, background) - meaning if query.meant is not None else np.zeros(len(vectors)),
        "meaning_white": spread_white.z(np.vecdot(white, asked_white)),
        "meaning_near": spread_white.z(np.vecdot(near, asked_white)),
        "novelty": 1 - np.asarray(np.clip(alike, 0, 1), np.float64),
    }


def _gained(query: Query, vectors: Vector, background: Background) -> Floats:
    """`meaning` for the query in the file's words."""
    assert query.meant is not None
    return Spread.of(background.raw @ query.meant).z(np.vecdot(vectors, query.meant))


def _session(values: Mapping[str, Floats], window: Window, matched: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    _, number = np.unique(window.session, return_inverse=True)
    found = {}
    for name, source in (("session_words", "words"), ("session_meaning", "meaning_white")):
        best = np.zeros(len(number))
        np.maximum.at(best, number[matched], values[source][matched])
        found[name] = best[number]
    return found


def _shape(query: Query, passages: Sequence[Passage], window: Window, words: Floats) -> dict[str, Floats]:
    lengths = np.array([len(p.tokens) for p in passages], np.float64)
    asks = np.array([_questions(p.row.text) for p in passages])
    before = window.beside[0]
    when, number = asks_when(query.text), bool(_ASKS_NUMBER.search(query.text))
    return {
        "brevity": np.minimum(0, np.log((lengths + 1) / BRIEF)),
        "question": asks,
        "reply": np.where(before >= 0, (asks[before] > 0) * words[before], 0),
        "when": np.array([float(when and bool(_TIME.search(p.row.text))) for p in passages]),
        "number": np.array([float(number and bool(_NUMBER.search(p.row.text))) for p in passages]),
    }


def _questions(text: str) -> float:
    asks = text.count("?")
    return asks / len(_ENDS.findall(text)) if asks else 0.0


def _about(query: Query, passages: Sequence[Passage]) -> dict[str, Floats]:
    """Signals of who, when and how important."""
    times = np.array([p.row.occurred_us for p in passages], np.int64)
    age = np.maximum(0, query.latest_us - times) / DAY_US
    named = spans(query.text, datetime.fromtimestamp(query.now_us / 1e6, UTC))
    return {
        "speaker": _speaker(query, passages),
        "role": _role(query, passages),
        "time": np.asarray(overlap(named, times), np.float64) if named else np.zeros(len(passages)),
        "recency": -np.log2(1 + age) / 10,
        "importance": np.array([_importance(p.row.metadata.get("importance")) for p in passages]),
    }


def _speaker(query: Query, passages: Sequence[Passage]) -> Floats:
    names = [str(p.row.metadata.get("name") or "").lower() for p in passages]
    asked = query.text.lower()
    named = {name for name in set(names) if name and re.search(rf"\b{re.escape(name.split()[0])}\b", asked)}
    if not named:
        return np.zeros(len(names))
    return np.array([0.0 if not name else 1.0 if name in named else -1.0 for name in names])


def _role(query: Query, passages: Sequence[Passage]) -> Floats:
    side = 0.0 if _ASKS_ASSISTANT.search(query.text) else 1.0
    known = {"user": side, "human": side, "assistant": -side, "ai": -side}
    return np.array([known.get(str(p.row.metadata.get("role")), 0.0) for p in passages])


def _importance(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return 0.0
    return float(min(max(value, 0), 1))
