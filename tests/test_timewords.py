"""Times that a query names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memkit.timewords import Span, asks_when, overlap, spans

NOW = datetime(2026, 3, 18, 15, tzinfo=UTC)  # a Wednesday
DAY_US = 86_400_000_000


def named(query: str) -> list[tuple[str, str]]:
    return [(span.start.date().isoformat(), span.end.date().isoformat()) for span in spans(query, NOW)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("what happened yesterday?", "2026-03-17", "2026-03-18"),
        ("the day before yesterday", "2026-03-16", "2026-03-17"),
        ("today", "2026-03-18", "2026-03-19"),
        ("what is on tomorrow", "2026-03-19", "2026-03-20"),
        ("last week", "2026-03-09", "2026-03-16"),
        ("next week", "2026-03-23", "2026-03-30"),
        ("this month", "2026-03-01", "2026-04-01"),
        ("last month", "2026-02-01", "2026-03-01"),
        ("last quarter", "2025-10-01", "2026-01-01"),
        ("last year", "2025-01-01", "2026-01-01"),
        ("early last year", "2025-01-01", "2025-05-02"),
        ("last decade", "2010-01-01", "2020-01-01"),
        ("the last two weeks", "2026-03-04", "2026-03-18"),
        ("the past week", "2026-03-11", "2026-03-18"),
        ("the next three days", "2026-03-18", "2026-03-21"),
        ("last May", "2025-05-01", "2025-06-01"),
        ("last March", "2025-03-01", "2025-04-01"),
        ("where did I go in March?", "2026-03-01", "2026-04-01"),
        ("where did I go in may?", "2025-05-01", "2025-06-01"),
        ("next April", "2026-04-01", "2026-05-01"),
        ("in June", "2025-06-01", "2025-07-01"),
        ("the plans of December", "2025-12-01", "2026-01-01"),
        ("mid-May", "2025-05-11", "2025-05-21"),
        ("at the end of June", "2025-06-21", "2025-07-01"),
        ("in 2023", "2023-01-01", "2024-01-01"),
        ("2022-2023", "2022-01-01", "2024-01-01"),
        ("in May 2023", "2023-05-01", "2023-06-01"),
        ("in May of 2023", "2023-05-01", "2023-06-01"),
        ("on 7 May 2023", "2023-05-07", "2023-05-08"),
        ("on the 7th of May", "2025-05-07", "2025-05-08"),
        ("May 7th, 2023", "2023-05-07", "2023-05-08"),
        ("7-9 May 2023", "2023-05-07", "2023-05-10"),
        ("Dec. 5", "2025-12-05", "2025-12-06"),
        ("29 February", "2024-02-29", "2024-03-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("the log of 2023-05-07T10:00", "2023-05-07", "2023-05-08"),
        ("2023-12", "2023-12-01", "2024-01-01"),
        ("25/12/2023", "2023-12-25", "2023-12-26"),
        ("12/25/23", "2023-12-25", "2023-12-26"),
        ("7.5.2023", "2023-05-07", "2023-05-08"),
        ("two weeks ago", "2026-03-01", "2026-03-08"),
        ("2 days ago", "2026-03-16", "2026-03-17"),
        ("a few days ago", "2026-03-13", "2026-03-17"),
        ("last Tuesday", "2026-03-17", "2026-03-18"),
        ("on Wednesday", "2026-03-11", "2026-03-12"),
        ("next Wednesday", "2026-03-25", "2026-03-26"),
        ("this Friday", "2026-03-20", "2026-03-21"),
        ("over the weekend", "2026-03-14", "2026-03-16"),
        ("Last weekend", "2026-03-14", "2026-03-16"),
        ("last summer", "2025-06-01", "2025-09-01"),
        ("this summer", "2026-06-01", "2026-09-01"),
        ("this winter", "2026-12-01", "2027-03-01"),
        ("in the fall", "2025-09-01", "2025-12-01"),
        ("winter 2022", "2022-12-01", "2023-03-01"),
        ("Q3 2023", "2023-07-01", "2023-10-01"),
        ("in Q4", "2025-10-01", "2026-01-01"),
        ("the second half of 2023", "2023-07-01", "2024-01-01"),
        ("in the 1990s", "1990-01-01", "2000-01-01"),
        ("in the 90s", "1990-01-01", "2000-01-01"),
        ("at Christmas", "2025-12-23", "2025-12-27"),
        ("new year's eve 2023", "2022-12-31", "2023-01-03"),
        ("between March and May 2023", "2023-03-01", "2023-06-01"),
        ("from November to February", "2025-11-01", "2026-03-01"),
        ("from 2019 until 2021", "2019-01-01", "2022-01-01"),
        ("between last week and yesterday", "2026-03-09", "2026-03-18"),
        ("the week before August 3, 2023", "2023-07-27", "2023-08-03"),
        ("two weeks before August 11, 2023", "2023-07-25", "2023-08-01"),
        ("a day after 11 August 2023", "2023-08-12", "2023-08-13"),
        ("3 days after 11 August 2023", "2023-08-14", "2023-08-15"),
        ("a few days prior to Christmas 2023", "2023-12-18", "2023-12-22"),
        ("the Sunday before October 25, 2022", "2022-10-23", "2022-10-24"),
        ("on the Tuesday after October 25, 2022", "2022-11-01", "2022-11-02"),
        ("my plans for the summer", "2025-06-01", "2025-09-01"),
        ("after 2022", "2023-01-01", "9999-12-31"),
        ("since last year", "2025-01-01", "9999-12-31"),
        ("before June", "0001-01-01", "2025-06-01"),
        ("until the 7th of May 2023", "0001-01-01", "2023-05-07"),
    ],
)
def test_a_time_is_resolved_against_now(query, start, end):
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    "query",
    [
        "May I ask about april and will she march?",
        "will you march on",
        "I came and may go, this may be all, and the next may follow",
        "What did June say to April?",
        "did Ana like June's gift for August?",
        "a letter from June",
        "a gift for June",
        "the talk of every other Monday",
        "Summer said hi",
        "did she fall for a winter coat?",
        "march 20 miles",
        "a model of 2048 tokens",
        "it cost $2020",
        "in the morning",
        "the decision was mad",
        "he is in his 40s",
        "version 1.2.20",
        "31.02.2023",
        "30 February",
        "7/5.2023",
        "2023-13-01",
        "call 555-1234",
        "",
    ],
)
def test_a_word_that_is_no_time_names_none(query):
    assert named(query) == []


@pytest.mark.parametrize(
    ("now", "query", "start", "end"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), "last month", "2025-12-01", "2026-01-01"),
        (datetime(2025, 12, 31, 23, tzinfo=UTC), "next month", "2026-01-01", "2026-02-01"),
        (datetime(2026, 1, 1, tzinfo=UTC), "yesterday", "2025-12-31", "2026-01-01"),
        (datetime(2026, 1, 10, tzinfo=UTC), "last winter", "2024-12-01", "2025-03-01"),
        (datetime(2026, 1, 10, tzinfo=UTC), "this winter", "2025-12-01", "2026-03-01"),
        (datetime(2024, 3, 1, tzinfo=UTC), "yesterday", "2024-02-29", "2024-03-01"),
        (datetime(2024, 1, 5, tzinfo=UTC), "February 29", "2020-02-29", "2020-03-01"),
        (datetime(2024, 3, 1, tzinfo=UTC), "in February", "2024-02-01", "2024-03-01"),
        (datetime(2026, 3, 22, 12, tzinfo=UTC), "last weekend", "2026-03-14", "2026-03-16"),
        (datetime(2026, 1, 1, tzinfo=UTC), "new year", "2025-12-31", "2026-01-03"),
    ],
)
def test_years_turn_and_leap_days_are_kept(now, query, start, end):
    assert [(f"{s.start:%Y-%m-%d}", f"{s.end:%Y-%m-%d}") for s in spans(query, now)] == [(start, end)]


def test_a_date_with_two_readings_gives_both():
    assert named("on 07/05/2023") == [("2023-07-05", "2023-07-06"), ("2023-05-07", "2023-05-08")]


def test_several_times_come_in_their_order_with_their_words():
    found = spans("what changed after May 2021, and in the summer of 2023 or on 7 June 2023?", NOW)
    assert [span.text for span in found] == ["after May 2021", "in the summer of 2023", "on 7 June 2023"]


def test_a_month_counts_beside_one_that_is_sure():
    assert named("June and July 2023") == [("2025-06-01", "2025-07-01"), ("2023-07-01", "2023-08-01")]


def test_hours_are_counted_from_now():
    (span,) = spans("two hours ago", NOW)
    assert span.start == NOW - timedelta(hours=2.5)
    assert span.end == NOW - timedelta(hours=1.5)


def test_another_zone_is_taken_into_account():
    late = datetime(2026, 3, 18, 1, tzinfo=timezone(timedelta(hours=3)))
    assert f"{spans('today', late)[0].start:%Y-%m-%d}" == "2026-03-17"


def test_what_is_too_long_to_be_a_question_is_read_at_its_beginning_only():
    assert len(spans("1 May 2020, " * 5000, NOW)) == 333


@pytest.mark.parametrize(
    "query",
    [
        "When did she move?",
        "what year was it",
        "how long has he had it?",
        "do you remember when Ana left?",
        "since when?",
    ],
)
def test_asking_for_a_time_is_noticed(query):
    assert asks_when(query)


@pytest.mark.parametrize(
    "query", ["what did she buy in May 2020?", "When I was young, what did I eat?", "what did she say when I came?"]
)
def test_a_time_that_is_only_named_is_not_asked_for(query):
    assert not asks_when(query)


WORDS = """last next this May may June 2023 1990s in from between and to 7 the 7th of week weeks two few ago before since
    after weekend Q3 first half 99 31 29 February days Monday winter fall early mid- end Christmas eve 's 07/05/2023
    2024-02-30 - 1/2.2023 day yesterday hours decade""".split()
MOMENTS = st.datetimes(timezones=st.just(UTC))
QUERIES = st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))


@given(QUERIES, MOMENTS)
@example("before yesterday and after tomorrow", datetime.min.replace(tzinfo=UTC))
@example("before yesterday and after tomorrow", datetime.max.replace(tzinfo=UTC))
@example("since 2 hours ago", datetime.max.replace(tzinfo=UTC))
@example("from winter to last year", datetime.max.replace(tzinfo=UTC))
def test_any_text_at_any_moment_gives_stretches_that_are_not_empty(text, now):
    for span in spans(text, now):
        assert span.start < span.end
        assert span.start.tzinfo is UTC
        assert span.end.tzinfo is UTC
        assert span.text in text


@given(st.text())
def test_asking_for_a_time_takes_any_text(text):
    assert asks_when(text) in (True, False)


@given(MOMENTS)
def test_months_of_a_year_lie_end_to_end(now):
    names = "January February March April May June July August September October November December".split()
    found = [span for name in names for span in spans(f"in {name} 2023", now)]
    assert [one.end for one in found[:-1]] == [one.start for one in found[1:]]
    (year,) = spans("in 2023", now)
    assert (found[0].start, found[-1].end) == (year.start, year.end)


@given(st.integers(1, 4000), st.integers(-2000, 6000), st.integers(0, 2000))
def test_overlap_is_one_within_and_falls_off_outside(length, offset, further):
    span = Span(NOW, NOW + timedelta(days=length), "")
    base = int(NOW.timestamp() * 1e6)
    near, far = overlap([span], np.array([base + offset * DAY_US, base + (offset + further) * DAY_US]))
    assert 0 <= near <= 1
    assert (near == 1) == (0 <= offset < length)
    if offset >= length:
        assert far <= near
    if offset + further < 0:
        assert near <= far


def test_overlap_halves_each_half_length():
    span = Span(NOW, NOW + timedelta(days=10), "")
    end = int(span.end.timestamp() * 1e6) - 1
    assert overlap([span], end + np.arange(3) * 5 * DAY_US).tolist() == [1, 0.5, 0.25]


def test_what_lies_far_outside_an_open_span_fits_it_no_better_than_one_of_a_year():
    after = int(datetime(2027, 6, 1, tzinfo=UTC).timestamp() * 1e6)
    assert overlap(spans("before June", NOW), after) < 0.1


def test_overlap_takes_the_best_span_any_shape_and_the_ends_of_int64():
    found = spans("in 1999 or 2023", NOW)
    edges = np.array([[np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
    assert overlap(found, edges).tolist() == [[0, 0]]
    assert overlap(found, int(datetime(2023, 5, 1, tzinfo=UTC).timestamp() * 1e6)) == 1
    assert overlap([], edges).tolist() == [[0, 0]]
