"""The judge of clues: what all conversations share carries over to another one, and chance does not."""

from __future__ import annotations

import numpy as np

from benchmarks.recall.abstention import cell, judged_by_others


def drawn(strength, seed=0):
    rng = np.random.default_rng(seed)
    answered = np.arange(400) % 4 > 0
    values = rng.normal(size=(400, 3)) + np.outer(answered, [strength, 0, 0])
    return values, answered, np.repeat(np.arange(8), 50)


def test_a_clue_that_holds_everywhere_tells_a_new_conversation():
    values, answered, group = drawn(4)
    assert cell(judged_by_others(values, answered, group), answered).startswith(("0.99", "1.00"))


def test_chance_is_no_clue():
    values, answered, group = drawn(0)
    low, high = cell(judged_by_others(values, answered, group), answered).split("[")[1].rstrip("]").split(", ")
    assert float(low) < 0.5 < float(high)
