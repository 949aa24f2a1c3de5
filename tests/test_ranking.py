"""How two signals become one score: bounded, monotone, and blind to what else was fetched."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.ranking import Background, Mode, dense_surprisal, lexical_surprisal, rank
from memkit_storage.lexical import K1, TermStats, bm25


class Match(NamedTuple):
    """A candidate, shaped as the index gives it."""

    position: int
    lexical: float
    dense: float


MODES: list[Mode] = ["hybrid", "vector", "text"]
TYPICAL = Background(600, lexical_rms=2.3, lexical_bound=60.0, dense_mean=0.24, dense_std=0.12)

modes = st.sampled_from(MODES)
bm25s = st.floats(0, 60)
cosines = st.floats(-1, 1)
backgrounds = st.builds(
    Background,
    items=st.integers(1, 10**7),
    lexical_rms=st.sampled_from([0.0]) | st.floats(1e-3, 50),
    lexical_bound=st.floats(60, 200),
    dense_mean=st.floats(-0.5, 0.95),
    dense_std=st.floats(0, 0.5),
)


@st.composite
def candidate_lists(draw: st.DrawFn) -> list[Match]:
    positions = draw(st.lists(st.integers(0, 10**9), unique=True, max_size=30))
    return [Match(position, draw(bm25s), draw(cosines)) for position in positions]


def order(candidates: list[Match], mode: Mode, background: Background = TYPICAL) -> list[int]:
    return [scored.position for scored in rank(candidates, mode=mode, background=background)]


@given(candidate_lists(), modes, backgrounds)
def test_scores_lie_between_0_and_1_and_never_rise_down_the_list(candidates, mode, background):
    """A reader can take the score for a share, and the first hit has the highest."""
    scores = [scored.score for scored in rank(candidates, mode=mode, background=background)]

    assert all(0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)


@given(bm25s, bm25s, cosines, cosines, backgrounds)
def test_better_signals_never_rank_below_worse_ones(words, more_words, meaning, more_meaning, background):
    """With neither signal lower, the score is not lower, in any mode."""
    words, more_words = sorted((words, more_words))
    meaning, more_meaning = sorted((meaning, more_meaning))
    worse, better = Match(1, words, meaning), Match(2, more_words, more_meaning)

    for mode in MODES:
        ranked = rank([worse, better], mode=mode, background=background)

        assert [scored.position for scored in ranked] == [2, 1]
        assert ranked[0].score >= ranked[1].score


@pytest.mark.parametrize("better", [Match(1, 9.0, 0.5), Match(1, 8.0, 0.6)])
def test_one_better_signal_is_enough_in_hybrid(better):
    """Hybrid listens to both signals: either one alone decides between otherwise equal items."""
    first, second = rank([Match(2, 8.0, 0.5), better], mode="hybrid", background=TYPICAL)

    assert (first.position, second.position) == (1, 2)
    assert first.score > second.score


@given(candidate_lists(), candidate_lists(), modes, backgrounds)
def test_other_candidates_change_neither_score_nor_order(candidates, others, mode, background):
    """What else was fetched, better or worse, leaves an item's score and its place among the rest alone."""
    others = [one._replace(position=one.position + 10**9 + 1) for one in others]
    alone = rank(candidates, mode=mode, background=background)

    together = rank(others + candidates, mode=mode, background=background)

    assert [scored for scored in together if scored.position <= 10**9] == alone


@given(candidate_lists(), modes, st.randoms(use_true_random=False))
def test_order_of_candidates_does_not_matter(candidates, mode, random):
    """Tail and table may hand over their candidates in any order."""
    shuffled = random.sample(candidates, len(candidates))

    assert rank(shuffled, mode=mode, background=TYPICAL) == rank(candidates, mode=mode, background=TYPICAL)


@pytest.mark.parametrize("mode", MODES)
def test_of_equals_the_newer_comes_first(mode):
    """Equal signals rank by position, newest first."""
    assert order([Match(position, 8.0, 0.5) for position in (4, 9, 1)], mode) == [9, 4, 1]


def test_no_candidates_give_no_results():
    """An empty file or filter ranks to nothing."""
    for mode in MODES:
        assert rank([], mode=mode, background=Background.of(0, [])) == []


def test_single_modes_ignore_the_other_signal():
    """`vector` is the cosine, `text` is BM25, and each shows its own score."""
    lexical, dense = Match(1, 30.0, 0.1), Match(2, 3.0, 0.9)

    by_vector = rank([lexical, dense], mode="vector", background=TYPICAL)
    by_text = rank([lexical, dense], mode="text", background=TYPICAL)

    assert [(scored.position, scored.score) for scored in by_vector] == [(2, 0.9), (1, 0.1)]
    assert [(scored.position, scored.score) for scored in by_text] == [(1, 0.5), (2, 0.05)]


def test_negative_cosines_keep_their_order():
    """A floored score does not hide which of two opposites is nearer."""
    assert order([Match(1, 0.0, -0.2), Match(2, 0.0, -0.7)], "vector") == [1, 2]


@given(candidate_lists().filter(len), modes, backgrounds)
def test_explained_parts_add_up_to_the_score(candidates, mode, background):
    """`explain=True` accounts for the whole score, beside the signals as measured."""
    measured = {one.position: one for one in candidates}
    for scored in rank(candidates, mode=mode, background=background):
        explained = scored.explained()

        assert math.isclose(explained["lexical_part"] + explained["dense_part"], scored.score, abs_tol=1e-12)
        assert (explained["lexical"], explained["dense"]) == measured[scored.position][1:]
        assert scored.signals.items() <= explained.items()


def test_a_query_of_rare_words_leans_on_words_and_one_of_common_words_on_meaning():
    """The same two candidates change places with how many items hold the query's terms: nothing else is told."""
    said, meant = Match(1, 7.0, 0.30), Match(2, 2.0, 0.65)
    rare = Background.of(1_000, [3, 5], dense_mean=0.2, dense_std=0.1)
    common = Background.of(1_000, [700, 400, 300, 500, 250], dense_mean=0.2, dense_std=0.1)

    assert order([said, meant], "hybrid", rare) == [1, 2]
    assert order([said, meant], "hybrid", common) == [2, 1]


@given(candidate_lists(), st.floats(0.1, 1), st.floats(0, 0.8))
def test_an_embedder_with_narrow_cosines_ranks_the_same(candidates, scale, shift):
    """Scaling and shifting all cosines, background included, changes no surprisal."""
    narrow = Background(
        TYPICAL.items,
        TYPICAL.lexical_rms,
        TYPICAL.lexical_bound,
        dense_mean=shift + scale * TYPICAL.dense_mean,
        dense_std=scale * TYPICAL.dense_std,
    )

    for one in candidates:
        expected = dense_surprisal(one.dense, TYPICAL)
        assert math.isclose(dense_surprisal(shift + scale * one.dense, narrow), expected, rel_tol=1e-6, abs_tol=1e-9)


def test_dense_surprisal_is_the_upper_tail_of_the_normal():
    """Values of -ln Q(z) from tables, on both sides of the mean and where erfc is about to underflow."""
    standard = Background(1, 1.0, 1.0, dense_mean=0.0, dense_std=1.0)
    tables = {-3.0: 0.00135081, 0.0: math.log(2), 1.0: 1.84102165, 3.0: 6.60772622, 5.0: 15.06499839}

    for z, nats in tables.items():
        assert dense_surprisal(z, standard) == pytest.approx(nats, rel=1e-6)


def test_dense_surprisal_has_no_step_where_its_formulas_meet():
    """The asymptotic form takes over within a thousandth, and upwards."""
    below, above = (dense_surprisal(z, Background(1, 1.0, 1.0, 0.0, 1.0)) for z in (24.999, 25.0))

    assert 0 < above - below < 0.05
    assert below == pytest.approx(above, rel=1e-3)


def test_items_that_are_all_alike_give_meaning_no_say():
    """A file of one text repeated has no spread of cosines; rounding noise must not decide."""
    alike = Background(50, 2.0, 60.0, dense_mean=0.8, dense_std=0.0)

    assert dense_surprisal(0.80005, alike) == pytest.approx(math.log(2), abs=0.05)


def test_words_of_no_item_leave_the_ranking_to_meaning():
    """Without a known term BM25 is 0 for all, and hybrid orders as vector does."""
    unknown = Background.of(100, [0], dense_mean=0.2, dense_std=0.1)
    candidates = [Match(1, 0.0, 0.3), Match(2, 0.0, 0.6), Match(3, 0.0, -0.1)]

    assert lexical_surprisal(0.0, unknown) == 0.0
    assert order(candidates, "hybrid", unknown) == order(candidates, "vector", unknown) == [2, 1, 3]


def test_lexical_background_is_the_rms_of_independent_terms():
    """For one-word items of average length, each term's BM25 is its idf, and the closed form is exact."""
    corpus = [["tea"]] * 3 + [["coffee"]] * 5 + [["milk"]] * 12
    stats = TermStats()
    for tokens in corpus:
        stats.add(tokens)
    scores = [bm25(["tea"], tokens, stats) for tokens in corpus]

    background = Background.of(stats.docs, [stats.df["tea"]])

    assert background.lexical_rms == pytest.approx(math.sqrt(sum(score**2 for score in scores) / len(scores)))
    assert background.lexical_bound == pytest.approx(stats.idf("tea") * (K1 + 1))


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8), min_size=1, max_size=20))
def test_no_text_exceeds_the_lexical_bound(corpus):
    """`text` scores are shares of a bound that holds for every item of the file."""
    stats = TermStats()
    for tokens in corpus:
        stats.add(tokens)
    terms = ["a", "b", "c"]

    background = Background.of(stats.docs, [stats.df.get(term, 0) for term in terms])

    assert all(bm25(terms, tokens, stats) <= background.lexical_bound for tokens in corpus)


def test_terms_of_no_item_lower_no_score():
    """Words that the file does not know are no reason to doubt those that it knows."""
    assert Background.of(100, [3, 0, 40, 0]) == Background.of(100, [3, 40])


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6)))
def test_background_is_finite_for_any_frequencies(items, frequencies):
    """Empty files, unknown terms and terms of every item give usable numbers."""
    background = Background.of(items, [min(df, items) for df in frequencies])

    assert math.isfinite(background.lexical_rms)
    assert background.lexical_rms >= 0
    assert background.lexical_bound >= 0
