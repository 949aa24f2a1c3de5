"""Times that a query names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.timewords import Span, asks_when, overlap, spans

NOW = datetime(2026, 3, 18, 15, tzinfo=UTC)  # a Wednesday
DAY_US = 86_400_000_000


def named(query: str) -> list[tuple[str, str]]:
    return [(f"{span.start:%Y-%m-%d}", f"{span.end:%Y-%m-%d}") for span in spans(query, NOW)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("what happened yesterday?", "2026-03-17", "2026-03-18"),
        ("today", "2026-03-18", "2026-03-19"),
        ("last week", "2026-03-09", "2026-03-16"),
        ("this month", "2026-03-01", "2026-04-01"),
        ("last month", "2026-02-01", "2026-03-01"),
        ("last year", "2025-01-01", "2026-01-01"),
        ("last May", "2025-05-01", "2025-06-01"),
        ("last March", "2025-03-01", "2025-04-01"),
        ("where did I go in March?", "2026-03-01", "2026-04-01"),
        ("in June", "2025-06-01", "2025-07-01"),
        ("in 2023", "2023-01-01", "2024-01-01"),
        ("in May 2023", "2023-05-01", "2023-06-01"),
        ("on 7 May 2023", "2023-05-07", "2023-05-08"),
        ("on the 7th of May", "2025-05-07", "2025-05-08"),
        ("May 7th, 2023", "2023-05-07", "2023-05-08"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("25/12/2023", "2023-12-25", "2023-12-26"),
        ("two weeks ago", "2026-03-01", "2026-03-08"),
        ("a few days ago", "2026-03-14", "2026-03-16"),
        ("last Tuesday", "2026-03-17", "2026-03-18"),
        ("on Wednesday", "2026-03-11", "2026-03-12"),
        ("over the weekend", "2026-03-14", "2026-03-16"),
        ("last summer", "2025-06-01", "2025-09-01"),
        ("winter 2022", "2022-12-01", "2023-03-01"),
        ("Q3 2023", "2023-07-01", "2023-10-01"),
        ("in the 1990s", "1990-01-01", "2000-01-01"),
        ("at Christmas", "2025-12-23", "2025-12-27"),
        ("after 2022", "2023-01-01", "2032-12-29"),
        ("since last month", "2026-02-01", "2036-01-30"),
        ("before June", "2015-06-04", "2025-06-01"),
    ],
)
def test_a_time_is_resolved_against_now(query, start, end):
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    "query",
    [
        "May I ask about april and will she march?",
        "What did June say?",
        "in the morning",
        "the decision was mad",
        "31.02.2023",
        "call 555-1234",
        "",
    ],
)
def test_a_word_that_is_no_time_names_none(query):
    assert named(query) == []


def test_several_times_come_in_their_order():
    assert [start for start, _ in named("between March 2021 and May 2023")] == ["2021-03-01", "2023-05-01"]


def test_another_zone_is_taken_into_account():
    late = datetime(2026, 3, 18, 1, tzinfo=timezone(timedelta(hours=3)))
    assert f"{spans('today', late)[0].start:%Y-%m-%d}" == "2026-03-17"


@pytest.mark.parametrize("query", ["When did she move?", "what year was it", "how long has he had it?"])
def test_asking_for_a_time_is_noticed(query):
    assert asks_when(query)
    assert not asks_when("what did she buy in May 2020?")


@given(st.text(), st.integers(-2_000_000_000, 16_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC)))
def test_any_text_gives_stretches_that_are_not_empty(text, now):
    for span in spans(text, now):
        assert span.start < span.end
        assert span.start.tzinfo is not None
        assert span.text


WORDS = ["last", "May", "2023", "in", "7", "week", "two", "ago", "before", "weekend", "Q3", "99", "31", "June", "days"]


@given(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join))
def test_any_mix_of_time_words_gives_stretches_that_are_not_empty(text):
    assert all(span.start < span.end for span in spans(text, NOW))


@given(st.integers(1, 400), st.integers(-2000, 2000), st.integers(0, 2000))
def test_overlap_is_one_within_and_falls_off_outside(length, offset, further):
    span = Span(NOW, NOW + timedelta(days=length), "")
    base = int(NOW.timestamp() * 1e6)
    near, far = overlap([span], np.array([base + offset * DAY_US, base + (offset + further) * DAY_US]))
    assert 0 <= near <= 1
    assert (near == 1) == (0 <= offset < length)
    if offset >= length:
        assert far <= near
    assert overlap([], np.array([base])) == 0
