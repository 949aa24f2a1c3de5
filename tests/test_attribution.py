"""Which items an answer used, and what a recall learns from an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit import Memory
from memkit.attribution import attribute
from memkit.errors import InvalidInput
from memkit.items import Recall
from tests.support import embed


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=embed, cache_dir=tmp_path / "cache", durability="os") as memory:
        texts = ["the boat is painted green", "the boat is moored in Horta", "soup needs leeks", "the boat leaks a lot"]
        memory.add([{"role": "user", "content": t, "id": f"i{i}"} for i, t in enumerate(texts)], user_id="ana")
        yield memory


def named(memory, answer, query="where is the boat", near=None, citations=None):
    hits = memory.search(query, user_id="ana")
    return attribute(answer, query, hits, citations=citations or {}, near=near or {})


def test_an_answer_in_an_items_own_words_names_it(memory):
    assert set(named(memory, "It is moored in Horta.")) == {"i1"}


def test_a_citation_counts_more_than_words(memory):
    assert set(named(memory, "Moored in Horta [2].", citations={2: "i0"})) == {"i0"}
    assert set(named(memory, "Moored in Horta [7].", citations={2: "i0"})) == {"i1"}


@pytest.mark.parametrize(
    "answer",
    ["I don't know.", "That was not mentioned, Horta maybe.", "Paris", "the boat is", "?!", "where is the boat"],
)
def test_an_answer_that_used_nothing_names_nothing(memory, answer):
    assert named(memory, answer) == {}


def test_items_that_explain_alike_are_told_apart_by_meaning_or_not_at_all(memory):
    memory.add("the boat was moored in Horta harbour", id="again", user_id="ana")
    assert named(memory, "moored in Horta") == {}
    assert set(named(memory, "moored in Horta", near={"i1": 0.4, "again": 0.8})) == {"again"}


@given(st.text())
def test_any_answer_gives_probabilities(answer):
    assert attribute(answer, "a question", [], citations={1: "x"}, near={}) in ({}, {"x": 0.95})


def test_observing_an_answer_teaches_what_it_used(memory):
    recall = memory.recall("where is the boat", user_id="ana")
    assert recall.observe("It is moored in Horta.").keys() == {"i1"}
    ((_, value),) = memory._store.learned(0)
    assert (value["used"], value["source"]) == (["i1"], "observe")
    assert 0 < value["weight"] <= 0.5
    assert memory.search("where is the boat", user_id="ana")[0].id == "i1"


def test_observing_an_answer_that_used_nothing_writes_nothing(memory):
    recall = memory.recall("where is the boat", user_id="ana")
    size = memory.stats().file_bytes
    assert recall.observe("I don't know.") == {}
    assert memory.stats().file_bytes == size


def test_what_cannot_be_observed_says_so(memory):
    recall = memory.recall("where is the boat", user_id="ana")
    for answer in ("", "  ", None):
        with pytest.raises(InvalidInput, match="answer="):
            recall.observe(answer)
    with pytest.raises(InvalidInput, match="feedback"):
        Recall.model_validate_json(recall.model_dump_json()).observe("Horta")
    assert list(memory._store.learned(0)) == []
