"""Feedback through the front door: what it teaches, whom, and what it leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memkit import Memory
from memkit.errors import InvalidInput, ItemNotFound, ReadOnly
from memkit.signals import NAMES
from memkit_storage.format import FrameType
from tests.support import embed

TEXTS = [f"note {i} about {topic}" for topic in ("boats", "soup", "chess", "rain") for i in range(10)]


@pytest.fixture
def memory(tmp_path):
    with open_(tmp_path) as memory:
        for user in ("ana", "bob"):
            memory.add([{"role": "user", "content": t, "id": f"{user}-{i}"} for i, t in enumerate(TEXTS)], user_id=user)
        yield memory


def open_(folder, name="a.mem", **options):
    return Memory(folder / name, embedder=embed, cache_dir=folder / "cache", durability="os", **options)


def ranking(memory, query="what about the soup", **scope):
    return [(hit.id, hit.score, hit.signals) for hit in memory.search(query, limit=20, **scope)]


def test_what_helped_once_comes_first_when_the_need_is_asked_again(memory):
    ana = memory.scope(user_id="ana")
    assert ana.search("what about the soup")[0].id != "ana-17"
    ana.feedback("what about the soup", used="ana-17")
    assert ana.search("what about the soup")[0].id == "ana-17"


def test_what_one_scope_learned_changes_nothing_for_another(memory):
    before = ranking(memory, user_id="bob"), ranking(memory), ranking(memory, user_id="ana", agent_id="x")
    memory.feedback("what about the soup", used=["ana-17"], user_id="ana")
    after = ranking(memory, user_id="bob"), ranking(memory), ranking(memory, user_id="ana", agent_id="x")
    assert after == before
    assert memory.search("what about the soup", user_id="ana")[0].id == "ana-17"


def test_the_owner_may_let_all_scopes_learn_together(tmp_path):
    with open_(tmp_path, share_learning=True) as memory:
        memory.add([{"role": "user", "content": t, "id": f"i{i}"} for i, t in enumerate(TEXTS)])
        memory.feedback("what about the soup", used=["i17"], run_id=None)
        assert memory.search("what about the soup")[0].id == "i17"


def test_a_reopened_file_has_learned_the_same(memory, tmp_path):
    for i in range(3):
        memory.feedback(f"what about soup {i}", used=[f"ana-1{i}"], wrong=[f"ana-{i}"], user_id="ana")
    before = ranking(memory, user_id="ana")
    memory.close()
    with open_(tmp_path) as again:
        assert ranking(again, user_id="ana") == before
        again.rebuild()
        assert ranking(again, user_id="ana") == before
        again.compact()
        assert ranking(again, user_id="ana") == before


def test_another_handle_sees_what_was_learned(memory, tmp_path):
    with open_(tmp_path) as other:
        ranking(other, user_id="ana")
        memory.feedback("what about the soup", used="ana-17", user_id="ana")
        assert other.search("what about the soup", user_id="ana")[0].id == "ana-17"


def test_a_recall_takes_feedback_with_its_own_scope(memory):
    recall = memory.recall("what about the soup", user_id="ana")
    memory.feedback(recall, used=[recall.hits[-1].id])
    assert memory.search("what about the soup", user_id="ana")[0].id == recall.hits[-1].id
    assert type(recall).model_validate_json(recall.model_dump_json()).hits == recall.hits


def test_reset_fast_forgets_in_its_scope_and_keeps_the_log(memory):
    fresh = ranking(memory, user_id="ana")
    for user in ("ana", "bob"):
        memory.feedback("what about the soup", used=f"{user}-17", user_id=user)
    memory.scope(user_id="ana").reset_fast()
    assert ranking(memory, user_id="ana") == fresh
    assert memory.search("what about the soup", user_id="bob")[0].id == "bob-17"
    memory.reset_fast()
    assert memory.search("what about the soup", user_id="bob")[0].id != "bob-17"
    assert len(list(memory._store.learned(0))) == 4


def test_a_snapshot_can_be_branched_without_touching_the_memory(memory):
    ana = memory.scope(user_id="ana")
    ana.feedback("what about the soup", used="ana-17")
    snapshot, before = ana.snapshot(), ranking(ana)
    branch = ana.branch(snapshot)
    assert ranking(branch) == before
    branch.feedback("what about the soup", used="ana-12")
    assert ranking(branch) != before
    assert ranking(ana) == before
    assert len(list(memory._store.learned(0))) == 1
    assert ranking(ana.branch(None))[0][0] != "ana-17"


def test_the_past_has_learned_only_what_it_was_told_by_then(memory):
    ana = memory.scope(user_id="ana")
    before = memory.stats().position
    moment = ana.get("ana-0").updated_at
    ana.feedback("what about the soup", used="ana-17")
    later = ana.at("2999-01-01T00:00:00Z")
    assert later.search("what about the soup")[0].id == "ana-17"
    past = ana.at(moment)
    assert past.snapshot() is None
    with pytest.raises(ReadOnly):
        past.feedback("soup", used="ana-1")
    assert memory.stats().position == before


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, InvalidInput, "used= or wrong="),
        ({"used": ["ana-1"], "wrong": ["ana-1"]}, InvalidInput, "both used and wrong"),
        ({"used": ["nobody"]}, ItemNotFound, "nobody"),
        ({"used": ["bob-1"]}, ItemNotFound, "bob-1"),
        ({"wrong": ["bob-1"]}, ItemNotFound, "bob-1"),
        ({"used": [""]}, InvalidInput, "id"),
        ({"used": ["ana-1"], "weight": 0}, InvalidInput, "weight=0"),
        ({"used": ["ana-1"], "weight": 1.5}, InvalidInput, "weight=1.5"),
        ({"used": ["ana-1"], "weight": math.nan}, InvalidInput, "weight=nan"),
    ],
)
def test_bad_feedback_is_refused_and_teaches_nothing(memory, arguments, error, words):
    ana = memory.scope(user_id="ana")
    before, size = ranking(ana), memory.stats().file_bytes
    with pytest.raises(error, match=words):
        ana.feedback("what about the soup", **arguments)
    assert (ranking(ana), memory.stats().file_bytes) == (before, size)


@pytest.mark.parametrize("query", ["", "  ", None, 7])
def test_feedback_needs_a_query(memory, query):
    with pytest.raises(InvalidInput, match="query="):
        memory.feedback(query, used="ana-1")


def test_untrusted_feedback_is_logged_and_not_learned_from(memory):
    before = ranking(memory, user_id="ana")
    memory.feedback("what about the soup", used="ana-17", trusted=False, user_id="ana")
    assert ranking(memory, user_id="ana") == before
    ((kind, value),) = memory._store.learned(0)
    assert (kind, value["used"], value["trusted"]) == (FrameType.FEEDBACK, ["ana-17"], False)


def test_a_named_source_can_put_in_only_so_much(memory, monkeypatch):
    monkeypatch.setattr("memkit.fast.tier.SOURCE_CAP", 2.0)
    ana = memory.scope(user_id="ana")
    for _ in range(2):
        ana.feedback("what about the soup", used="ana-17", source="plugin")
    full = ranking(ana)
    for _ in range(5):
        ana.feedback("what about the soup", used="ana-12", source="plugin")
    assert ranking(ana) == full
    ana.feedback("what about the soup", used="ana-12")
    assert ranking(ana) != full


def test_erased_items_take_the_feedback_about_them_along(memory, tmp_path):
    memory.feedback("what about the soup", used=["ana-17", "ana-12"], user_id="ana")
    memory.feedback("a very private soup question", used=["ana-17"], user_id="ana")
    memory.erase({"id": "ana-17"})
    left = [value for _, value in memory._store.learned(0)]
    assert [value["used"] for value in left] == [["ana-12"]]
    assert b"very private" not in (tmp_path / "a.mem").read_bytes()
    assert memory.search("what about the soup", user_id="ana")[0].id == "ana-12"


def test_export_and_merge_carry_feedback_along(memory, tmp_path):
    memory.feedback("what about the soup", used="ana-17", user_id="ana")
    memory.feedback("what about the soup", used="bob-17", user_id="bob")
    memory.export(tmp_path / "ana.mem", user_id="ana")
    with open_(tmp_path, "ana.mem") as ana:
        assert ana.search("what about the soup", user_id="ana")[0].id == "ana-17"
        assert len(list(ana._store.learned(0))) == 1
    with open_(tmp_path, "new.mem") as new:
        new.merge(tmp_path / "ana.mem")
        new.merge(tmp_path / "ana.mem")
        assert new.search("what about the soup", user_id="ana")[0].id == "ana-17"
        assert len(list(new._store.learned(0))) == 1


def test_a_snapshot_in_the_file_gives_the_state_that_replaying_gives(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("memkit.fast.tier.SNAPSHOT_EVERY", 3)
    rng = np.random.default_rng(0)
    for i in range(7):
        memory.feedback(f"what about {TEXTS[i]}", used=[f"ana-{rng.integers(40)}"], user_id="ana")
        if i == 4:
            memory.close()
            memory.__init__(tmp_path / "a.mem", embedder=embed, cache_dir=tmp_path / "cache")
    kinds = [kind for kind, _ in memory._store.learned(0)]
    assert kinds.count(FrameType.STATE) == 1
    here = ranking(memory, user_id="ana")
    memory._fast._forget()
    monkeypatch.setattr("memkit.fast.tier.FastTier._restore", lambda self, value: None)
    assert ranking(memory, user_id="ana") == here


def test_who_only_reads_what_was_learned_writes_nothing(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("memkit.fast.tier.SNAPSHOT_EVERY", 1)
    monkeypatch.setattr("memkit.fast.tier.FastTier.save", lambda self: None)
    memory.feedback("what about the soup", used="ana-17", user_id="ana")
    memory.close()
    monkeypatch.undo()
    monkeypatch.setattr("memkit.fast.tier.SNAPSHOT_EVERY", 1)
    before = (tmp_path / "a.mem").read_bytes()
    with open_(tmp_path) as reader:
        assert reader.search("what about the soup", user_id="ana")[0].id == "ana-17"
    assert (tmp_path / "a.mem").read_bytes() == before


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"time": "late", "query": 7, "used": "ana-1", "user_id": "ana"},
        {"time": 1, "query": "x", "vector": b"abc", "used": ["ana-1"], "user_id": "ana"},
        {"time": 1, "query": "x", "used": None, "labels": b"", "signals": 3, "names": "", "user_id": "ana"},
    ],
)
@pytest.mark.parametrize("kind", [FrameType.FEEDBACK, FrameType.STATE])
def test_what_a_faulty_writer_left_teaches_nothing_and_breaks_nothing(memory, tmp_path, kind, value):
    ana = memory.scope(user_id="ana")
    ana.feedback("what about the soup", used="ana-17")
    before = ranking(ana)
    memory._store.record_learning(kind, value)
    assert ranking(ana) == before
    memory.compact()
    assert ranking(ana) == before
    assert memory.verify().ok
    with open_(tmp_path, "b.mem") as other:
        other.merge(tmp_path / "a.mem")
        assert ranking(other.scope(user_id="ana"))[0][0] == "ana-17"


def test_feedback_measured_by_other_signals_still_remembers_the_need(memory, monkeypatch):
    memory.feedback("what about the soup", used="ana-17", user_id="ana")
    assert memory.scope(user_id="ana").snapshot().ranker.updates[0] == 1
    memory._fast._forget()
    monkeypatch.setattr("memkit.fast.feedback.NAMES", (*NAMES[:-1], "another"))
    state = memory.scope(user_id="ana").snapshot()
    assert state.ranker.updates[0] == 0
    assert memory.search("what about the soup", user_id="ana")[0].id == "ana-17"


def test_an_item_that_is_gone_is_not_brought_back_by_a_need(memory):
    ana = memory.scope(user_id="ana")
    ana.feedback("what about the soup", used="ana-17")
    ana.delete("ana-17")
    assert "ana-17" not in [hit.id for hit in ana.search("what about the soup", limit=50)]
    hits = ana.search("what about the soup", where={"id": {"nin": ["ana-12"]}}, limit=50)
    assert hits
    assert "ana-12" not in {hit.id for hit in hits}
