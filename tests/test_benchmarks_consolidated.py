"""The benchmark of sleeps on later questions: halves that do not meet, arms that are paired, tables that count."""

from __future__ import annotations

from support import embed

from benchmarks.recall import consolidated
from benchmarks.recall.datasets import Conversation, Question, Turn

NAMES, THINGS = ("ana", "bo", "cleo", "dan"), ("boat", "dog", "piano", "garden", "cello", "bike")


def conversation():
    pairs = [(name, thing) for name in NAMES for thing in THINGS for _ in range(2)]
    turns = tuple(Turn(f"D1:{i}", f"{name} likes the {thing} number {i}") for i, (name, thing) in enumerate(pairs))
    questions = tuple(Question(f"q{i}", f"number {i} {turn.text[:9]}", (turn.id,), "4") for i, turn in enumerate(turns))
    return Conversation("made", "one", turns, questions)


def test_every_arm_answers_the_half_that_taught_nothing():
    one = conversation()
    prior = consolidated.untaught(one, embed)
    assert len(prior) == 48
    run = consolidated.Run("online, shown")
    for seed in range(2):
        consolidated.live(run, one, prior, embed, seed)
    asked = {arm: {key: len(found) for key, found in scores.items()} for arm, scores in run.scores.items()}
    assert len({tuple(sorted(found.items())) for found in asked.values()}) == 1
    assert sum(asked[consolidated.PRIOR].values()) == 48
    assert [sleep["seed"] for sleep in run.sleeps] == [0, 1]
    assert all(sleep["reasons"] for sleep in run.sleeps)
    text = consolidated.table(run)
    assert text.count("paired difference") == 1
    assert "of 2 bands" in consolidated.verdicts(run)
