"""An item that several texts lead to is found by the best of them, and ends with all of them."""

from __future__ import annotations

import pytest

from memkit.errors import InvalidInput
from memkit.ingest import Draft
from memkit.multivector import WHOLE, ids, in_parts, nearest, replace


def put(memory, id_, *texts, **metadata):
    replace(memory, [id_], in_parts(Draft(texts[0], id=id_, metadata=metadata), texts[1:]))


@pytest.fixture
def filled(memory):
    put(memory, "a", "red boat", "old piano", kind="x")
    put(memory, "b", "blue dog", "red boat deck", "green garden", kind="y")
    memory.add("a red boat alone", id="c")
    return memory


def test_an_item_counts_as_its_best_text(filled):
    found = nearest(filled, "old piano", limit=3)
    assert sorted(item.id for item, _ in found) == ["a", "b", "c"]
    assert found[0][0].id == "a"
    assert found[0][1] == pytest.approx(1.0, abs=1e-3)
    assert found[0][0].text == "red boat"
    assert [item.id for item, _ in nearest(filled, "green garden", limit=1)] == ["b"]


def test_as_many_items_as_were_asked_for_are_found_behind_those_that_do_not_pass(memory):
    for number in range(40):
        put(memory, f"no{number}", "red boat", f"red boat {number}")
    put(memory, "yes", "a red dog")
    found = nearest(memory, "red boat", limit=1, passes=lambda item: item.id == "yes")
    assert [item.id for item, _ in found] == ["yes"]
    assert len(nearest(memory, "red boat", limit=100)) == 41


def test_a_filter_says_which_items_are_meant(filled):
    assert [item.id for item in filled.list(WHOLE).items] == ["a", "b", "c"]
    assert [item.id for item, _ in nearest(filled, "red boat", limit=9, where={"kind": "y"})] == ["b"]


def test_what_a_new_version_has_no_more_is_not_found_any_more(filled):
    put(filled, "b", "blue dog", kind="y")
    assert {item.id for item, _ in nearest(filled, "garden", limit=9)} == {"a", "b", "c"}
    assert ids(filled.get("b")) == ["b"]
    assert filled.stats().items == 4
    replace(filled, ["a", "none"], [])
    assert [item.id for item in filled.list().items] == ["b", "c"]


def test_parts_that_a_crash_left_behind_do_not_count(filled):
    filled.add_drafts(in_parts(Draft("blue dog", id="b"), []))  # and nothing ended
    assert filled.get("b#2").text == "green garden"
    assert "b" not in {item.id for item, _ in nearest(filled, "green garden", limit=1)}


def test_whatever_filter_erases_an_item_erases_its_parts(filled, tmp_path):
    assert filled.erase({"kind": "y"}).checked
    assert b"green garden" not in (tmp_path / "a.mem").read_bytes()
    assert filled.stats().items == 3


def test_a_failing_write_ends_nothing(filled):
    with pytest.raises(InvalidInput):
        replace(filled, ["a"], [Draft(" ", id="a")])
    assert filled.get("a#1").text == "old piano"
