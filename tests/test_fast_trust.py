"""How far a tier that learns is believed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memkit.fast.trust import Trust

BEFORE = np.array([3.0, 2.0, 1.0])
USED = np.array([False, True, False])
LIFTED, LOWERED = np.array([3.0, 4.0, 1.0]), np.array([3.0, 2.0, 2.5])


def after(trust, totals, times):
    for _ in range(times):
        trust = trust.judged(BEFORE, totals, USED)
    return trust


def test_it_begins_with_some_credit():
    assert 0 < Trust().degree < 1


def test_a_tier_that_helps_is_believed_and_one_that_harms_is_not():
    assert after(Trust(), LIFTED, 5).degree == 1
    assert after(Trust(), LOWERED, 6).degree == 0


def test_belief_that_was_spent_can_be_earned_again():
    assert after(after(Trust(), LOWERED, 20), LIFTED, 20).degree > 0.5


def test_a_tier_that_did_nothing_is_not_judged():
    trust = Trust()
    assert trust.judged(BEFORE, BEFORE, USED) is trust
    assert trust.judged(BEFORE, LIFTED, np.zeros(3, bool)) is trust


@given(st.lists(st.sampled_from([LIFTED, LOWERED, BEFORE]), max_size=60))
def test_belief_stays_within_bounds(history):
    trust = Trust()
    for totals in history:
        trust = trust.judged(BEFORE, totals, USED)
        assert 0 <= trust.degree <= 1
