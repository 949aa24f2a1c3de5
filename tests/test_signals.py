"""The yardstick of vectors, and each signal by examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.background import OWN, PATIENCE, Background, Spread, Whitening
from memkit.ranking import PRIOR, prior, score
from memkit.signals import NAMES, SCALES, SIGNALS, Query, Window, measure
from memkit_storage.analyzer import analyze
from memkit_storage.index import Found
from memkit_storage.rows import Row
from memkit_storage.sample import Sample
from memkit_storage.tail import Passage, unit
from memkit_storage.timeline import Around

D = 16
DAY = 86_400_000_000


def vectors(n, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32) + 0.5)


def sample(n=200, pairs=()):
    return Sample((n, 1, 0), vectors(n), np.array(pairs, np.int64).reshape(-1, 2))


def passage(text, position=0, seed=1, us=0, **metadata):
    one = Row(f"i{position}", text, vectors(1, seed)[0], metadata=metadata, occurred_us=us, position=position)
    return Passage.of(one, analyze(one.searchable))


def found(items=100, **frequencies):
    return Found([], items, frequencies, 10.0, 50 * DAY, sample())


def signals(text, *passages, around=None, frequencies=None, items=100, coherent=1.0):
    here = found(items, **(frequencies or {}))
    asked = Query.of(text, vectors(1, 9)[0], here, 60 * DAY)
    background = Background.of(here.sample)
    background = Background(background.raw, background.white, background.whitening, coherent)
    window = Window.of([p.row.position for p in passages], around or {})
    matched = np.ones(len(passages), bool)
    values = measure(asked, passages, window, background, length=here.length, items=items, matched=matched)
    return [dict(zip(NAMES, row, strict=True)) for row in values.tolist()]


# the yardstick


@pytest.mark.parametrize("n", [2, 5, 40, 200])
def test_whitening_is_what_the_full_eigendecomposition_gives(n):
    rows, other = vectors(n), vectors(7, 3)
    trust = n / (n + PATIENCE)
    mean = trust * rows.mean(axis=0)
    values, directions = np.linalg.eigh((rows - mean).T @ (rows - mean) / n)
    scale = 1 / np.sqrt((1 - trust * OWN) * values.mean() + trust * OWN * np.maximum(values, 0) + 1e-12)
    naive = unit(((other - mean) @ (directions * scale) @ directions.T).astype(np.float32))
    assert np.allclose(Whitening.of(rows).apply(other), naive, atol=2e-4)


def test_whitening_keeps_zero_rows_and_makes_the_rest_unit():
    rows = vectors(50)
    rows[3] = 0
    white = Whitening.of(rows).apply(rows)
    assert not white[3].any()
    assert np.allclose(np.linalg.norm(np.delete(white, 3, 0), axis=1), 1, atol=1e-5)


def test_little_is_changed_by_little():
    rows = vectors(3)
    white = Whitening.of(vectors(1)).apply(rows)
    assert np.allclose(white @ white.T, rows @ rows.T, atol=1e-5)


def test_whitening_brings_strangers_apart():
    rows = vectors(400)
    white = Whitening.of(rows).apply(rows)
    assert abs((white[:-1] * white[1:]).sum(axis=1).mean()) < (rows[:-1] * rows[1:]).sum(axis=1).mean() / 3


def test_coherence_tells_a_conversation_from_a_pile():
    pairs = [(i, i + 1) for i in range(0, 200, 2)]
    assert Background.of(sample(200, pairs)).coherence < 0.5
    rows = vectors(200)
    rows[1::2] = unit(rows[0::2] + 0.1 * vectors(100, 5))
    assert Background.of(Sample((1, 1, 0), rows, np.array(pairs))).coherence == 1
    assert Background.of(sample(200)).coherence == 0.5
    assert Background.of(sample(0)).coherence == 0.5


def test_a_spread_counts_in_standard_deviations():
    spread = Spread.of(np.array([0.1, 0.3]))
    assert spread.z(np.array([0.2, 0.4])) == pytest.approx([0, 2])
    assert Spread.of(np.zeros(0)).z(np.array([0.5])) == pytest.approx([0.5])


# signals


def test_words_are_bm25_and_coverage_counts_by_rarity():
    one, two = signals(
        "blue boat", passage("a blue boat", 1), passage("a blue car", 2), frequencies={"blue": 50, "boat": 2}
    )
    assert one["words"] > two["words"] > 0
    assert one["coverage"] == pytest.approx(1)
    assert 0 < two["coverage"] < 0.3
    assert (one["phrase"], two["phrase"]) == (pytest.approx(1), 0)


def test_a_short_turn_borrows_from_its_neighbours_within_the_session():
    turns = [passage("which boat is yours?", 1), passage("the blue one", 2), passage("and the boat is fast", 3)]
    together = {2: Around(np.array([1, 2, 3]), np.array([1, 1, 1]), 1)}
    apart = {2: Around(np.array([1, 2, 3]), np.array([1, 2, 3]), 1)}
    near, far = (signals("boat", *turns, around=a, frequencies={"boat": 2})[1] for a in (together, apart))
    assert near["coverage_near"] > far["coverage_near"] == far["coverage"] == 0
    assert near["words_near"] > 0
    assert near["reply"] > 0 == far["reply"]
    assert signals("boat", *turns, around=together, frequencies={"boat": 2}, coherent=0.0)[1]["coverage_near"] == 0


def test_a_long_item_borrows_less_than_a_short_one():
    around = {2: Around(np.array([1, 2]), np.array([1, 1]), 1)}
    lent = [
        signals("boat", passage("the boat", 1), passage(text, 2), around=around, frequencies={"boat": 2})[1]
        for text in ("yes", "yes " * 300)
    ]
    assert lent[0]["coverage_near"] > 3 * lent[1]["coverage_near"] > 0


@pytest.mark.parametrize(
    ("query", "metadata", "text", "name", "value"),
    [
        ("what did Ana say", {"name": "Ana"}, "x", "speaker", 1),
        ("what did Ana Maria say", {"name": "ana maria"}, "x", "speaker", 1),
        ("what was said", {"name": "Ana"}, "x", "speaker", 0),
        ("my boat", {"role": "user"}, "x", "role", 1),
        ("my boat", {"role": "assistant"}, "x", "role", -1),
        ("which boat did you suggest", {"role": "assistant"}, "x", "role", 0),
        ("when did I sail", {}, "last May", "when", 1),
        ("when did I sail", {}, "often", "when", 0),
        ("what did I sail", {}, "last May", "when", 0),
        ("how many boats", {}, "I have three", "number", 1),
        ("which boats", {}, "I have three", "number", 0),
        ("boats", {}, "Who? Me. You?", "question", 2 / 3),
        ("boats", {"importance": 0.7}, "x", "importance", 0.7),
        ("boats", {"importance": 9}, "x", "importance", 1),
        ("boats", {"importance": float("nan")}, "x", "importance", 0),
        ("boats", {"importance": True}, "x", "importance", 0),
        ("boats", {"importance": "high"}, "x", "importance", 0),
    ],
)
def test_a_signal_by_example(query, metadata, text, name, value):
    assert signals(query, passage(text, **metadata))[0][name] == pytest.approx(value)


def test_naming_another_speaker_counts_against():
    one, two = signals("what did Bob say", passage("x", 1, name="Ana"), passage("x", 2, name="Bob"))
    assert (one["speaker"], two["speaker"]) == (-1, 1)


def test_times_that_the_query_names_and_age():
    old, new = signals("what happened in 1970", passage("x", 1, us=20 * DAY), passage("x", 2, us=50 * DAY))
    assert (old["time"], new["time"]) == (1, 1)
    assert old["recency"] < new["recency"] == 0
    assert signals("what happened in 1999", passage("x", us=DAY))[0]["time"] == 0


def test_an_item_near_its_predecessor_is_no_news():
    turns = [passage("x", 1, seed=1), passage("x", 2, seed=1), passage("x", 3, seed=2)]
    around = {2: Around(np.array([1, 2, 3]), np.array([1, 1, 1]), 1)}
    values = signals("q", *turns, around=around)
    assert values[1]["novelty"] == pytest.approx(0, abs=1e-5)
    assert values[2]["novelty"] > 0.2
    assert values[0]["novelty"] == 1


TEXT = st.text(max_size=40) | st.sampled_from(["", "?", "東京 タワー", "🙂🙂", "boat boat"])


@given(st.lists(TEXT, min_size=1, max_size=6), TEXT.filter(str.strip))
@settings(deadline=None, max_examples=60)
def test_any_text_gives_finite_signals_whatever_the_order(texts, query):
    passages = [passage(text, i, seed=i) for i, text in enumerate(texts)]
    around = {0: Around(np.arange(len(texts)), np.zeros(len(texts), np.int64), 0)}
    forth = signals(query, *passages, around=around)
    back = signals(query, *passages[::-1], around=around)[::-1]
    assert all(np.isfinite(list(values.values())).all() for values in forth)
    for one, other in zip(forth, back, strict=True):
        assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-4)


# one number


def test_every_signal_has_a_weight_and_a_scale():
    assert PRIOR.keys() == SIGNALS.keys() == set(NAMES)
    assert (SCALES > 0).all()
    assert prior().totals(np.eye(len(NAMES))) == pytest.approx(list(PRIOR.values()))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3))
def test_scores_grow_with_totals_and_stay_in_bounds(total, more):
    assert 0 <= score(total) <= score(total + more) <= 1
