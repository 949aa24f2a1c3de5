"""Recall and search through the front door: rerankers, expansions, budgets, and knowing that there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memkit import Memory
from memkit.errors import CallableFailed, InvalidInput
from memkit.signals import SIGNALS
from tests.support import embed

TEXTS = ["red apple pie", "green apple", "blue sky over the sea", "the sea is cold in May", "a pie shop by the sea"]


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=embed, cache_dir=tmp_path / "cache", durability="os") as memory:
        memory.add([{"role": "user", "content": t, "id": f"i{i}"} for i, t in enumerate(TEXTS)])
        yield memory


def ids(hits):
    return [hit.id for hit in hits]


def test_a_reranker_has_the_last_word(memory):
    hits = memory.search("apple", limit=5, rerank=lambda query, texts: [-len(text) for text in texts])
    assert ids(hits) == ["i1", "i0", "i4", "i2", "i3"]
    assert hits[0].signals["rerank"] == -len("green apple")


def test_a_cross_encoder_is_a_reranker(memory):
    class Encoder:
        def predict(self, pairs):
            return np.array([float(text.startswith("a ")) for query, text in pairs if query == "apple"])

    assert memory.search("apple", rerank=Encoder())[0].id == "i4"


@pytest.mark.parametrize(
    "rerank", [lambda q, t: 1 / 0, lambda q, t: [0.0], lambda q, t: [np.nan] * len(t), lambda q, t: "many", 7]
)
def test_a_reranker_that_fails_is_named_and_changes_nothing(memory, rerank):
    before = memory.search("apple")
    for call in (memory.search, memory.recall):
        with pytest.raises(CallableFailed, match="rerank"):
            call("apple", rerank=rerank)
    assert memory.search("apple") == before


def test_several_queries_find_what_each_finds(memory):
    found = ids(memory.search(["green apple", "blue sky"], limit=2))
    assert set(found) == {"i1", "i2"}
    assert ids(memory.search(["green apple", "green apple"])) == ids(memory.search("green apple"))
    with pytest.raises(InvalidInput, match="2 queries"):
        memory.search(["a", "b"], mode="text")
    with pytest.raises(InvalidInput, match="query="):
        memory.search(["apple", ""])
    with pytest.raises(InvalidInput, match="0 queries"):
        memory.search([])


def test_an_expansion_adds_queries(memory):
    assert "i2" in ids(memory.recall("green apple", expand=lambda query: ["blue sky"]).hits)
    for expand in (lambda query: 1 / 0, lambda query: [""], lambda query: [7], lambda query: None):
        with pytest.raises(CallableFailed, match="expand"):
            memory.recall("apple", expand=expand)


@given(
    limit=st.integers(1, 120),
    query=st.sampled_from(["apple pie", "sea", "cold May"]),
    order=st.sampled_from(["time", "best"]),
)
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
def test_a_budget_holds_by_the_callers_own_count(memory, limit, query, order):
    recall = memory.recall(query, max_tokens=limit, count_tokens=len, order=order)
    if recall.hits:
        assert len(recall.text) <= limit
        assert recall.tokens == len(recall.text)
        assert {hit.id for hit in recall.hits} == set(recall.citations.values())


@pytest.mark.parametrize("budget", [0, -1, 1.5, True, "many", None])
def test_a_budget_that_is_none_is_refused(memory, budget):
    with pytest.raises(InvalidInput, match="max_tokens"):
        memory.recall("apple", max_tokens=budget)


def test_a_large_memory_says_when_it_has_never_heard_of_it(memory):
    memory.add([f"note {i} about the boat, the sail and the harbour" for i in range(200)])
    own, foreign = memory.recall("the sail of the boat"), memory.recall("Which vaccine did Zenobia develop?")
    assert own.confidence > 0.5 > foreign.confidence
    assert not own.abstained
    assert foreign.abstained
    assert foreign.hits == []
    assert "nothing" in foreign.text


def test_an_empty_memory_abstains(tmp_path):
    with Memory(tmp_path / "b.mem", embedder=embed) as memory:
        recall = memory.recall("anything")
        assert (recall.abstained, recall.confidence, recall.hits) == (True, 0.0, [])


def test_every_signal_of_a_hit_is_explained(memory):
    hit = memory.search("apple pie", explain=True)[0]
    named = {name: value for name, value in hit.signals.items() if not name.endswith("_weight")}
    assert named.keys() == SIGNALS.keys()
    assert named["coverage"] == pytest.approx(1)
    assert named["phrase"] == pytest.approx(1)
    assert named["words"] > 0


def test_neighbours_lend_their_words_in_a_conversation(tmp_path):
    """A reply that says nothing of the question's words is found through the turn before it."""
    with Memory(tmp_path / "c.mem", embedder=embed, cache_dir=tmp_path / "cache", durability="os") as memory:
        topics = ["lighthouse", "bakery", "regatta", "orchard"]
        turns = [f"{t} {t} talk number {i}" for t in topics for i in range(6)]
        turns[2:4] = ["which colour has the lighthouse lighthouse door ?", "lighthouse , yellow I think"]
        memory.add([{"role": "user", "content": text, "id": f"t{i}"} for i, text in enumerate(turns)])
        found = {hit.id: hit for hit in memory.search("colour of the lighthouse door", limit=24)}
        assert found["t3"].signals["coverage"] < found["t3"].signals["coverage_near"]
        assert found["t3"].signals["reply"] > 0
        assert found["t3"].score > found["t5"].score
