"""How near a past need must come: what answers teach, and what of a feedback teaches it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit import Memory
from memkit.fast import calibration
from memkit.fast.calibration import START, UNTAUGHT, Calibration, chance, learn, returning
from memkit.fast.family import FamilyState
from memkit.fast.feedback import Feedback
from memkit.fast.trust import Trust
from memkit.signals import NAMES
from tests.support import embed

answers = st.lists(st.tuples(st.floats(-5, 12), st.booleans(), st.floats(0.05, 1)), max_size=30)


def taught(given_answers, state=UNTAUGHT):
    for z, again, weight in given_answers:
        state = learn(state, z, again, weight)
    return state


@given(answers)
def test_it_stays_in_its_bounds_and_is_known_ever_better(given_answers):
    state = UNTAUGHT
    for z, again, weight in given_answers:
        after = learn(state, z, again, weight)
        assert np.isfinite(after.even)
        assert after.even <= START
        assert after.precision > state.precision
        state = after
    assert 0 <= returning(state) <= 1


@given(st.floats(-5, 12), st.floats(-5, 12))
def test_the_nearer_the_likelier(one, other):
    low, high = sorted((one, other))
    assert 0 < chance(UNTAUGHT, low) <= chance(UNTAUGHT, high) < 1


@given(answers, st.floats(-2, 6), st.floats(0.05, 1))
def test_a_need_that_is_asked_again_brings_even_chances_nearer_and_another_one_takes_them_away(before, z, weight):
    state = taught(before)
    assert learn(state, z, True, weight).even < state.even
    assert learn(state, z, False, weight).even >= state.even or state.even == START


@given(st.lists(st.floats(-2, 6), min_size=1, max_size=20))
def test_needs_that_are_never_the_same_change_nothing(near):
    state = taught([(z, False, 1.0) for z in near])
    assert state.even == START
    assert returning(state) == 0


def test_it_finds_the_point_of_even_chances():
    """Against the answers of a known one, at 400 of which its posterior is 0.15 wide."""
    rng = np.random.default_rng(0)
    for truth in (-1.0, 0.5, 2.0):
        z = rng.uniform(-2, 6, 400)
        right = rng.random(400) < chance(Calibration(truth), z)
        found = taught(zip(z.tolist(), right.tolist(), [1.0] * 400, strict=True))
        assert found.even == pytest.approx(truth, abs=0.5)


def test_needs_that_come_again_from_afar_are_known_to_return():
    state = taught([(1.0, True, 1.0)] * 8)
    assert returning(state) > 0.9
    assert returning(UNTAUGHT) == 0
    assert returning(taught([(6.0, True, 1.0)] * 60)) == 0  # word for word says nothing about other words
    assert returning(Calibration(START - 1, precision=1.0)) == 0 < returning(Calibration(START - 1, precision=64.0))


# through the front door

TEXTS = [f"note {i} about {topic}" for topic in ("boats", "soup", "chess", "rain") for i in range(10)]


@pytest.fixture
def ana(tmp_path):
    path = tmp_path / "a.mem"
    with Memory(path, embedder=embed, cache_dir=tmp_path / "cache", durability="os") as memory:
        memory.add([{"role": "user", "content": t, "id": f"ana-{i}"} for i, t in enumerate(TEXTS)], user_id="ana")
        yield memory.scope(user_id="ana")


def told(ana):
    """The newest feedback in the log: how near the nearest past need was, and whether it was asked again."""
    newest = Feedback.unpacked([value for _, value in ana._store.learned(0)][-1])
    return newest.familiar, newest.again


def state(ana):
    return ana._fast.learned({"user_id": "ana"}).calibration


def test_feedback_says_whether_the_nearest_past_need_was_asked_again(ana):
    ana.feedback("what about the soup", used="ana-17")
    assert told(ana) == (None, False)  # there was none
    assert state(ana) == UNTAUGHT
    ana.feedback("what about the soup", used="ana-17")
    familiar, again = told(ana)
    assert familiar > 2
    assert again
    ana.feedback("what about the soup", used="ana-12")
    assert told(ana)[0] > 2
    assert not told(ana)[1]


def test_a_recall_tells_how_near_the_need_was_when_it_was_asked(ana):
    ana.feedback("what about the soup", used="ana-17")
    recall = ana.recall("what about the soup")
    ana.feedback("who plays chess", used="ana-22")
    ana.feedback(recall, used="ana-17")
    assert told(ana) == (recall.pool.remembered.z, True)


def test_who_says_only_what_misled_says_something_of_the_nearest_need_alone(ana):
    ana.feedback("what about the soup", used="ana-17")
    ana.feedback("what about the soup", used=(), wrong="ana-3")
    assert told(ana) == (None, False)
    ana.feedback("what about the soup", used=(), wrong="ana-17")
    assert told(ana)[0] is not None
    assert not told(ana)[1]


def test_a_need_whose_items_are_gone_or_out_of_sight_says_nothing(ana):
    ana.feedback("what about the soup", used="ana-17")
    ana.delete("ana-17")
    ana.feedback("what about the soup", used="ana-12")
    assert told(ana) == (None, False)


def test_it_is_replayed_and_kept_in_a_snapshot(ana, monkeypatch):
    monkeypatch.setattr("memkit.fast.tier.SNAPSHOT_EVERY", 3)
    for i in range(4):
        ana.feedback(f"what about the soup {i % 2}", used="ana-17")
    learned = state(ana)
    assert learned.even < START
    ana._fast.save()
    ana._fast._forget()
    restored = state(ana)
    monkeypatch.setattr("memkit.fast.tier.FastTier._restore", lambda self, value: None)
    ana._fast._forget()
    assert state(ana) == restored == learned


def test_needs_that_are_known_to_come_again_are_believed_whatever_they_won():
    lost = replace(FamilyState.empty(8), trust_needs=Trust(won=0.0, lost=1.0))
    assert lost.memory == 0
    assert lost.weights.values[NAMES.index("needs")] == 0
    often = replace(lost, calibration=Calibration(START - 2 * calibration.OFTEN, precision=64.0))
    assert often.memory == 1
    assert often.weights.values[NAMES.index("needs")] > 0
    assert replace(often, trust_needs=Trust(won=1.0, lost=0.0)).memory == 1
