"""The life that the soak of language model bands lives: what it holds for true is what the file says."""

from __future__ import annotations

import pytest

from benchmarks.lm import soak
from benchmarks.lm.streams import shipped
from memkit import Memory
from memkit.slow.lm.forms import lesson


@pytest.fixture
def life(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=soak.embed, cache_dir=tmp_path / "cache", durability="os") as memory:
        lived = soak.Life(memory, soak.small_talk(shipped()), seed=0)
        schedule = [event for event, count in soak.EVENTS.items() for _ in range(count if event != "talk" else 4)]
        for _ in range(12):
            for place in lived.rng.permutation(len(schedule)).tolist():
                lived.happen(schedule[place] if lived.facts else "new")
        yield lived


def test_what_is_true_is_what_the_newest_item_says(life):
    assert len(life.facts) > 5
    for known in life.facts:
        assert life.memory.get(known.item).text == known.fact(known.value).statement
        assert known.value not in known.old[-3:]
        assert not known.says(f"It is {known.value}.", [*known.old, *known.poison])


def test_deleted_facts_are_gone_and_poison_is_not_trusted(life):
    texts = {item.text: item for item in life.memory.list(limit=1_000).items}
    assert life.gone
    for known in life.gone:
        assert known.fact(known.value).statement not in texts
    assert all(
        not texts[known.fact(value).statement].metadata.get("trusted", True)
        for known in life.facts
        for value in known.poison
        if known.fact(value).statement in texts and value not in [known.value, *known.old]
    )


def test_events_are_two_hundred_a_sleep_and_a_twentieth_of_them_poison():
    assert sum(soak.EVENTS.values()) == 200
    assert soak.EVENTS["poison"] + soak.EVENTS["falsehood"] == 10


def test_rules_learn_nothing_from_small_talk_and_something_from_each_falsehood():
    assert len(soak.small_talk(shipped())) > 5
    assert all(lesson("", text, speaker=soak.USER) is not None for text in soak.FALSEHOODS)


def test_a_line_has_a_cell_for_each_column():
    row = soak.Row(10, 2_000, 0.9, 1, 0, 0, 0, 0.0001, 1, 9, 1, 0, 2_000_000, 1_000_000, 55)
    assert soak.line(row).count("|") == soak.HEAD.count("|")
