"""Term statistics, BM25 and the exact tail, against their definitions and against rank_bm25."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rank_bm25 import BM25Okapi

from memkit_storage.filters import Filter
from memkit_storage.lexical import TermStats, bm25, join, split, unique
from memkit_storage.rows import Row
from memkit_storage.tail import Found, Rows, Tail

DIM = 8
WORDS = ["ana", "lisbon", "moved", "may", "tea", "東京", "straße", "🙂"]
texts = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
users = st.sampled_from([None, "ana", "bo"])


def vector(seed: int) -> np.ndarray:
    """A unit vector as a log keeps it, or zeros for seed 0; few seeds, so that equal vectors occur."""
    if not seed:
        return np.zeros(DIM, np.float32)
    values = np.random.default_rng(seed).standard_normal(DIM)
    return (values / np.linalg.norm(values)).astype(np.float16).astype(np.float32)


def make(position: int, text: str, seed: int = 1, user_id: str | None = None, **metadata: Any) -> Row:
    return Row(f"i{position}", text, vector(seed), user_id=user_id, metadata=metadata, position=position)


class Reference(BM25Okapi):
    """rank_bm25 with Lucene's idf in place of its own."""

    def _calc_idf(self, nd: dict[str, int]) -> None:
        self.idf = {t: math.log(1 + (self.corpus_size - n + 0.5) / (n + 0.5)) for t, n in nd.items()}


def reference_scores(documents: Sequence[list[str]], terms: list[str]) -> list[float]:
    if not any(documents):
        return [0.0] * len(documents)
    return Reference(documents, k1=1.2, b=0.75).get_scores(terms).tolist()


# statistics


@given(st.lists(st.tuples(texts, st.booleans()), min_size=1), st.lists(st.sampled_from(WORDS)))
def test_scores_are_those_of_rank_bm25_after_any_adds_and_removes(
    documents: list[tuple[str, bool]], terms: list[str]
) -> None:
    """An outside library computes the same scores from the documents that are left."""
    stats = TermStats()
    for text, _ in documents:
        stats.add(split(text))
    for text, removed in documents:
        if removed:
            stats.remove(split(text))
    left = [split(text) for text, removed in documents if not removed]

    scores = [bm25(terms, tokens, stats) for tokens in left]

    assert scores == pytest.approx(reference_scores(left, unique(terms)))


@given(st.lists(texts), st.lists(texts))
def test_removing_documents_restores_the_statistics(kept: list[str], passing: list[str]) -> None:
    """Nothing of a removed document stays behind."""
    expected = TermStats()
    stats = TermStats()
    for text in kept:
        expected.add(split(text))
    for text in kept + passing:
        stats.add(split(text))
    for text in passing:
        stats.remove(split(text))

    assert stats == expected
    assert stats.avgdl == expected.avgdl


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1)))
def test_statistics_survive_bytes(tokens: list[str]) -> None:
    """Any terms, in any script, are read back as they were written."""
    stats = TermStats()
    stats.add(tokens)

    assert TermStats.from_bytes(stats.to_bytes()) == stats


@pytest.mark.parametrize("size", [0, 10, 31, 33, 40])
def test_cut_statistics_are_refused(size: int) -> None:
    """Bytes that end early are an error, not fewer terms."""
    stats = TermStats()
    stats.add(["lisbon", "tea"])

    with pytest.raises(ValueError, match=r"term statistics|argument"):
        TermStats.from_bytes(stats.to_bytes()[:size])


def test_a_term_with_a_newline_is_refused() -> None:
    """It would be read back as two."""
    stats = TermStats()
    stats.add(["two\nlines"])

    with pytest.raises(ValueError, match="newline"):
        stats.to_bytes()


def test_statistics_for_a_query_score_like_all_of_them() -> None:
    """The cut-down copy is enough, and independent."""
    stats = TermStats()
    for text in ("ana tea", "tea may may", "lisbon"):
        stats.add(split(text))
    few = stats.for_terms(["tea", "absent"])
    expected = bm25(["tea", "absent"], ["tea", "ana"], stats)
    stats.add(["tea"])

    assert bm25(["tea", "absent"], ["tea", "ana"], few) == expected
    assert set(few.df) == {"tea"}


def test_a_term_in_every_document_still_counts_for_something() -> None:
    """The idf is never negative, unlike Okapi's."""
    stats = TermStats()
    for _ in range(5):
        stats.add(["tea"])

    assert stats.idf("tea") > 0


def test_joined_tokens_split_again() -> None:
    """No tokens, one, or several."""
    assert [split(join(tokens)) for tokens in ([], ["a"], ["a", "b", "a"])] == [[], ["a"], ["a", "b", "a"]]


# the tail against its definition


def exact_order(scores: dict[int, float], k: int) -> Found:
    return sorted(scores.items(), key=lambda item: (-item[1], -item[0]))[:k]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    wide, broad = a.astype(np.float64), b.astype(np.float64)
    return float(wide @ broad / np.linalg.norm(wide) / np.linalg.norm(broad))


class TailMachine(RuleBasedStateMachine):
    """A tail, and a plain list of the rows that should be in it, from which everything is computed anew."""

    @initialize()
    def start(self) -> None:
        self.stats = TermStats()
        self.tail = Tail(DIM, self.stats, analyze=str.split)
        self.rows: dict[int, Row] = {}
        self.sealed: list[list[str]] = []
        self.next = 0

    @rule(text=texts, seed=st.integers(0, 5), user=users, known=st.booleans(), times=st.sampled_from([1, 1, 40]))
    def add(self, text: str, seed: int, user: str | None, known: bool, times: int) -> None:
        for _ in range(times):
            row = make(self.next, text, seed, user)
            self.tail.add(row, text.split() if known else None)
            self.rows[self.next] = row
            self.next += 1

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), times=st.sampled_from([1, 1, 60]))
    def remove(self, data: st.DataObject, times: int) -> None:
        start = data.draw(st.integers(0, len(self.rows) - 1))
        for position in list(self.rows)[start : start + times]:
            assert self.tail.remove(position)
            del self.rows[position]

    @rule(position=st.integers(-1, 3000))
    def remove_a_stranger(self, position: int) -> None:
        if position not in self.rows:
            assert not self.tail.remove(position)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        watermark = data.draw(st.sampled_from(sorted(self.rows)))
        self.tail.drop(watermark)
        self.sealed += [row.text.split() for p, row in self.rows.items() if p <= watermark]
        self.rows = {p: row for p, row in self.rows.items() if p > watermark}

    @rule(seed=st.integers(0, 6), k=st.integers(0, 30), user=st.none() | users)
    def search_by_meaning(self, seed: int, k: int, user: str | None) -> None:
        where = Filter.parse({"user_id": user}) if user else None
        query = 3 * vector(seed)
        rows = {p: r for p, r in self.rows.items() if r.vector.any() and (not user or r.user_id == user)}
        expected = {p: cosine(r.vector, query) for p, r in rows.items()} if query.any() else {}

        found = self.tail.dense(query, k, self.tail.select(where))

        assert [score for _, score in found] == pytest.approx([s for _, s in exact_order(expected, k)], abs=1e-6)
        assert all(score == pytest.approx(expected[position], abs=1e-6) for position, score in found)
        assert found == exact_order(dict(found), k), "equal scores: the newest first"
        assert found == self.as_rows(rows).dense(query, k)

    @rule(terms=st.lists(st.sampled_from(WORDS), max_size=5), k=st.integers(0, 30), user=st.none() | users)
    def search_by_words(self, terms: list[str], k: int, user: str | None) -> None:
        where = Filter.parse({"user_id": user}) if user else None
        allowed = self.tail.select(where)

        found = self.tail.lexical(terms, k, allowed)

        rows = {p: r for p, r in self.rows.items() if not user or r.user_id == user}
        scores = {p: bm25(terms, r.text.split(), self.stats) for p, r in rows.items()}
        assert found == exact_order({p: s for p, s in scores.items() if s > 0}, k)
        assert found == self.as_rows(rows).lexical(terms, k, self.stats)

    @rule(seed=st.integers(0, 6), terms=st.lists(st.sampled_from(WORDS), max_size=5))
    def score(self, seed: int, terms: list[str]) -> None:
        positions = sorted(self.rows)[::2]
        expected = {
            p: (
                cosine(self.rows[p].vector, vector(seed)) if seed and self.rows[p].vector.any() else 0.0,
                bm25(terms, self.rows[p].text.split(), self.stats),
            )
            for p in positions
        }

        scores = self.tail.score(positions, vector(seed), terms)

        assert scores.keys() == expected.keys()
        for position, (near, words) in scores.items():
            assert near == pytest.approx(expected[position][0], abs=1e-6)
            assert words == expected[position][1]
        assert scores == self.as_rows(self.rows).score(positions, vector(seed), terms, self.stats)

    def as_rows(self, rows: dict[int, Row]) -> Rows:
        """The same rows as the index would return them."""
        from memkit_storage.tail import unit

        vectors = np.array([row.vector for row in rows.values()], np.float32).reshape(-1, DIM)
        return Rows(np.array(list(rows), np.int64), unit(vectors), [row.text.split() for row in rows.values()])

    @invariant()
    def holds_the_rows(self) -> None:
        assert len(self.tail) == len(self.rows)
        assert list(self.tail.rows) == [self.rows[p] for p in sorted(self.rows)]

    @invariant()
    def counts_every_living_row_once(self) -> None:
        self.tail.settle()
        expected = TermStats()
        for tokens in [*self.sealed, *(row.text.split() for row in self.rows.values())]:
            expected.add(tokens)
        assert self.stats == expected
        assert all(self.tail.tokens(p) == row.text.split() for p, row in list(self.rows.items())[:3])


TestTail = TailMachine.TestCase
TestTail.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def filled(*rows: Row) -> Tail:
    tail = Tail(DIM, TermStats(), analyze=str.split)
    for row in rows:
        tail.add(row)
    return tail


def test_equal_scores_put_the_newest_first() -> None:
    """The rule that the index follows as well."""
    tail = filled(*(make(position, "tea", 1) for position in (3, 9, 5)))

    assert [position for position, _ in tail.dense(vector(1), 2)] == [9, 5]
    assert [position for position, _ in tail.lexical(["tea"], 2)] == [9, 5]


def test_a_row_without_a_vector_is_found_by_its_words_only() -> None:
    """A cosine with zeros means nothing."""
    tail = filled(make(0, "tea", 0), make(1, "may", 2))

    assert tail.dense(vector(1), 5) == [(1, pytest.approx(cosine(vector(1), vector(2)), abs=1e-6))]
    assert [position for position, _ in tail.lexical(["tea"], 5)] == [0]
    assert tail.score([0], vector(1), [])[0][0] == 0.0


def test_a_query_without_a_direction_finds_nothing_by_meaning() -> None:
    """All rows would be equally near."""
    assert filled(make(0, "tea")).dense(np.zeros(DIM, np.float32), 5) == []


def test_repeated_query_terms_count_once() -> None:
    """Asking twice is not asking for twice as much."""
    tail = filled(make(0, "tea may"), make(1, "may"))

    assert tail.lexical(["tea", "may", "tea"], 5) == tail.lexical(["tea", "may"], 5)


def test_a_long_text_counts_every_occurrence() -> None:
    """Term frequencies are not clipped at a byte."""
    tail = filled(make(0, "tea " * 70_000), make(1, "tea"))

    assert tail.lexical(["tea"], 5)[0][1] == bm25(["tea"], ["tea"] * 70_000, tail._stats)


def test_rows_of_another_scope_are_not_selected() -> None:
    """Not even rows whose scope is missing, and missing can be asked for."""
    tail = filled(make(0, "tea", 1, "ana"), make(1, "tea", 1, None), make(2, "tea", 1, "bo"))

    def found(where: dict[str, Any]) -> list[int]:
        return [position for position, _ in tail.lexical(["tea"], 5, tail.select(Filter.parse(where)))]

    assert found({"user_id": "ana"}) == [0]
    assert found({"user_id": "nobody"}) == []
    assert found({"user_id": {"in": ["ana", "bo"]}}) == [2, 0]


def test_metadata_is_filtered_row_by_row() -> None:
    """What is not a scope is asked of each row that is left."""
    tail = filled(
        make(0, "tea", 1, "ana", price=3), make(1, "tea", 1, "ana", price=5), make(2, "tea", 1, "bo", price=5)
    )

    allowed = tail.select(Filter.parse({"user_id": "ana", "price": {"gte": 4}}))

    assert [position for position, _ in tail.dense(vector(1), 5, allowed)] == [1]


def test_the_speaker_is_analysed_with_the_text() -> None:
    """What is searchable is what is embedded."""
    tail = Tail(DIM, TermStats())
    tail.add(make(0, "I like tea", 1, name="Caroline"))

    assert [position for position, _ in tail.lexical(tail.tokens(0)[:1], 5)] == [0]
    assert len(tail.tokens(0)) > len(Tail(DIM, TermStats(), analyze=str.split)._analyze("I like"))
