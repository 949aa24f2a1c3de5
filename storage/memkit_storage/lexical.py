"""Term statistics over every living row, and the BM25 score that they give.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the idf of Lucene,
which is never negative: idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)). LanceDB's full-text index uses the same form.

The statistics are global: they count a row once, wherever it is indexed. A score therefore does not change when the
row moves from the tail to the LanceDB table.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

import numpy as np

K1 = 1.2
B = 0.75
_HEAD = struct.Struct("<8sQQQ")  # magic, documents, total length, distinct terms
_MAGIC = b"memkitT1"


class TermStats:
    """Document frequencies of a changing set of documents; a document is its list of tokens, repeats included.

    Not thread-safe: the owner's lock covers it.
    """

    __slots__ = ("df", "docs", "length")

    def __init__(self) -> None:
        self.docs = 0
        self.length = 0
        self.df: dict[str, int] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TermStats):
            return NotImplemented
        return (self.docs, self.length, self.df) == (other.docs, other.length, other.df)

    __hash__ = None  # type: ignore[assignment]

    def add(self, tokens: Sequence[str]) -> None:
        """Count one more document."""
        self.docs += 1
        self.length += len(tokens)
        df = self.df
        for term in set(tokens):
            df[term] = df.get(term, 0) + 1

    def remove(self, tokens: Sequence[str]) -> None:
        """Forget a document that was added with these tokens."""
        self.docs -= 1
        self.length -= len(tokens)
        for term in set(tokens):
            left = self.df[term] - 1
            if left:
                self.df[term] = left
            else:
                del self.df[term]

    @property
    def avgdl(self) -> float:
        """Mean document length in tokens; 1.0 when there is nothing to average, so that it can divide."""
        return self.length / self.docs if self.docs and self.length else 1.0

    def idf(self, term: str) -> float:
        """Weight of a term, > 0: the rarer the term, the larger."""
        df = self.df.get(term, 0)
        return math.log(1 + (self.docs - df + 0.5) / (df + 0.5))

    def copy(self) -> TermStats:
        """An independent copy."""
        other = TermStats()
        other.docs, other.length, other.df = self.docs, self.length, self.df.copy()
        return other

    def for_terms(self, terms: Iterable[str]) -> TermStats:
        """An independent copy that knows these terms only: enough to score them, in constant time."""
        other = TermStats()
        other.docs, other.length = self.docs, self.length
        other.df = {term: self.df[term] for term in terms if term in self.df}
        return other

    def to_bytes(self) -> bytes:
        """The statistics as bytes: a head, little-endian u32 frequencies, and the terms joined by newlines.

        Raises:
            ValueError: a term holds a newline (an analyzer splits at white space, so none should).
        """
        text = "\n".join(self.df)
        if text.count("\n") != max(len(self.df) - 1, 0):
            raise ValueError("a term holds a newline: the analyzer must split at white space")
        counts = np.fromiter(self.df.values(), "<u4", len(self.df)).tobytes()
        head = _HEAD.pack(_MAGIC, self.docs, self.length, len(self.df))
        return head + counts + text.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> TermStats:
        """Statistics written by `to_bytes`.

        Raises:
            ValueError: the bytes are no such thing; a flipped bit inside is the caller's checksum's business.
        """
        if len(data) < _HEAD.size:
            raise ValueError(f"term statistics need {_HEAD.size} bytes, got {len(data)}")
        magic, docs, length, terms = _HEAD.unpack_from(data)
        end = _HEAD.size + 4 * terms
        if magic != _MAGIC or len(data) < end:
            raise ValueError("not term statistics, or cut short")
        counts = np.frombuffer(data, "<u4", terms, _HEAD.size).tolist()
        names = data[end:].decode().split("\n") if terms else []
        stats = cls()
        stats.docs, stats.length = docs, length
        stats.df = dict(zip(names, counts, strict=True))
        return stats


def join(tokens: Iterable[str]) -> str:
    """Tokens as one string; a token is not empty and holds no white space."""
    return " ".join(tokens)


def split(lex: str) -> list[str]:
    """Tokens of a joined string."""
    return lex.split(" ") if lex else []


def unique(terms: Iterable[str]) -> list[str]:
    """Query terms without repeats, in order: asking twice does not count twice."""
    return list(dict.fromkeys(terms))


def bm25(terms: Iterable[str], tokens: Sequence[str], stats: TermStats) -> float:
    """Score of one document: the definition, which the tail's postings and the index must agree with.

    Args:
        terms: of the query; repeats count once.
        tokens: of the document, repeats included.
        stats: of all documents, this one among them.
    """
    return bm25_scores(terms, [tokens], stats)[0]


def bm25_scores(terms: Iterable[str], documents: Iterable[Sequence[str]], stats: TermStats) -> list[float]:
    """Scores of several documents, as `bm25` of each."""
    weights = {term: stats.idf(term) for term in terms}
    scores = []
    for tokens in documents:
        norm = K1 * (1 - B + B * len(tokens) / stats.avgdl)
        score, said = 0.0, weights.keys() & tokens
        for term, idf in weights.items():
            if term in said:
                tf = tokens.count(term)
                score += idf * (tf * (K1 + 1) / (tf + norm))
        scores.append(score)
    return scores
