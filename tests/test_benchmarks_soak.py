"""Three sleeps over a life with contradictions, deletions and poison: nothing drifts, and the numbers are there."""

from __future__ import annotations

import pytest

from benchmarks import soak
from memkit import Memory

EVENTS = {"new": 20, "update": 5, "contradict": 5, "delete": 3, "ask": 40, "poison item": 2, "poison feedback": 2}


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=soak.embed, cache_dir=tmp_path / "cache", durability="os") as memory:
        yield memory


@pytest.mark.slow
def test_sleeps_over_a_poisoned_life_explain_themselves_and_lose_nothing(memory):
    (row,) = soak.live(memory, 3, seed=0, every=3, events=EVENTS)
    assert row.promoted + row.rejected == len(memory.bands()) > 0
    assert (row.unexplained, row.deleted) == (0, 0)
    assert row.first >= row.prior_first - 0.05
    assert row.stale <= 0.02
    assert row.poisoned == 0
    assert row.after <= row.before
    assert memory.verify().ok
    assert soak.line(row).count("|") == soak.HEAD.count("|")


def test_a_life_is_drawn_by_its_seed(memory):
    life = soak.Life(memory, seed=1, probes=2)
    for event in soak.EVENTS:
        life.happen("new")
        life.happen(event)
    assert len(life.probes) == 4
    assert len(life.gone) == len(life.poison) == 1
    assert sum(fact.changed for fact in life.facts + life.gone) >= 1
    assert life.found_again() == 0
