"""Times that a query names, resolved against the time at which it is asked.

English, Gregorian, UTC. What is wanted is stretches of time with their width ("last May", "the 1990s", "a few days
ago"), which point-in-time parsers such as dateparser do not give, and megabytes of other languages would be the price.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # first month, in the north
NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "couple": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip
FAR = datetime(9000, 1, 1, tzinfo=UTC)
BEGIN = datetime(1, 1, 1, tzinfo=UTC)
OPEN = timedelta(days=3650)  # that "before" and "after" reach
REACH = 0.5  # of a span's length: how far outside it half of the overlap is lost

_MONTH = r"(?P<{0}>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"  # noqa: E501
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_UNIT = r"(?P<unit>day|week|month|year)"
_WHEN = re.compile(
    r"\bwhen\b|\b(?:what|which) (?:date|day|month|year|time)\b|\bhow long\b|\bhow recently\b|\bsince what\b",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"\d|yesterday|today|tonight|\b(?:last|this|past|previous|recent\w*)\b|\bago\b|day\b|weekend|christmas|new year|"
    rf"halloween|{'|'.join(month[:3] for month in MONTHS)}|spring|summer|autumn|winter|\bfall\b",
    re.IGNORECASE,
)
_SIDE = re.compile(r"(before|until|after|since)\b", re.IGNORECASE)


class Span(NamedTuple):
    """A stretch of time, half open, aware UTC; `text` is what the query says."""

    start: datetime
    end: datetime
    text: str


def asks_when(query: str) -> bool:
    """Whether a query asks for a time itself.

    >>> asks_when("When did Ana move?"), asks_when("What did Ana do in May?")
    (True, False)
    """
    return bool(_WHEN.search(query))


def spans(query: str, now: datetime) -> list[Span]:
    """The times that a query names, in their order there; none if it names none.

    Args:
        now: when it is asked, aware.

    >>> [s.start.date().isoformat() for s in spans("what happened last May?", datetime(2026, 3, 1, tzinfo=UTC))]
    ['2025-05-01']
    """
    if not _HINT.search(query):
        return []
    now = now.astimezone(UTC)
    found: list[tuple[int, int, Span]] = []
    for pattern, resolve in _RULES:
        for match in pattern.finditer(query):
            if any(start < match.end() and match.start() < end for start, end, _ in found):
                continue  # a longer expression has these words
            span = _resolved(resolve, match, now)
            if span is not None:
                found.append((match.start(), match.end(), span))
    return [_bounded(query, start, span) for start, _, span in sorted(found, key=lambda one: one[0])]


def overlap(found: list[Span], moments_us: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How well moments (n,) in µs fit the spans: 1 within one, halved each half length outside of it."""
    best = np.zeros(len(moments_us))
    for span in found:
        start, end = (int(edge.timestamp() * 1e6) for edge in (span.start, span.end))
        outside = np.maximum(np.maximum(start - moments_us, moments_us - (end - 1)), 0)
        best = np.maximum(best, 0.5 ** (outside / (REACH * (end - start))))
    return np.where(best < 0.01, 0.0, best)


def _resolved(
    resolve: Callable[[re.Match[str], datetime], tuple[datetime, datetime]], match: re.Match[str], now: datetime
) -> Span | None:
    try:
        return Span(*resolve(match, now), match.group().strip())
    except (ValueError, OverflowError):  # the 31st of June
        return None


def _bounded(query: str, start: int, span: Span) -> Span:
    """ "before", "after" and "since" open a span on one side."""
    within = _SIDE.match(span.text)
    before = within or re.search(r"\b(before|until|after|since)\s+(?:the\s+)?$", query[:start], re.IGNORECASE)
    if before is None:
        return span
    word = before.group(1).lower()
    text = span.text if within else f"{word} {span.text}"
    if word in ("before", "until"):
        return Span(max(BEGIN, span.start - OPEN), span.start, text)
    edge = span.end if word == "after" else span.start
    return Span(edge, min(FAR, edge + OPEN), text)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _days(start: datetime, count: int = 1) -> tuple[datetime, datetime]:
    return start, start + timedelta(days=count)


def _month(year: int, month: int, count: int = 1) -> tuple[datetime, datetime]:
    last = year * 12 + month - 1 + count
    return datetime(year, month, 1, tzinfo=UTC), datetime(last // 12, last % 12 + 1, 1, tzinfo=UTC)


def _number_of(name: str) -> int:
    return next(i for i, month in enumerate(MONTHS, 1) if month.startswith(name.lower().rstrip(".")[:3]))


def _date(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    """A day of a month, of the year that is said or of the last one in which it has been."""
    month, day = _number_of(match["month"]), int(match["day"])
    if match["year"]:
        return _days(datetime(int(match["year"]), month, day, tzinfo=UTC))
    this = datetime(now.year, month, day, tzinfo=UTC)
    return _days(this if this <= now else this.replace(year=now.year - 1))


def _iso(match: re.Match[str], _: datetime) -> tuple[datetime, datetime]:
    return _days(datetime(int(match["year"]), int(match["month"]), int(match["day"]), tzinfo=UTC))


def _slashed(match: re.Match[str], _: datetime) -> tuple[datetime, datetime]:
    """07/05/2023 may be either: the span covers the month-first reading if the other is no date."""
    one, other, year = int(match["one"]), int(match["other"]), int(match["year"])
    month, day = (one, other) if one <= 12 else (other, one)
    return _days(datetime(year, month, day, tzinfo=UTC))


def _month_of_year(match: re.Match[str], _: datetime) -> tuple[datetime, datetime]:
    return _month(int(match["year"]), _number_of(match["month"]))


def _named_month(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    """The month that has begun last; "last" skips the present one, "this" takes this year's."""
    month, word = _number_of(match["month"]), (match["word"] or "").lower()
    if word == "this":
        return _month(now.year, month)
    past = month < now.month or (month == now.month and word != "last")
    return _month(now.year if past else now.year - 1, month)


def _season(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    month = SEASONS[match["season"].lower()]
    if match["year"]:
        return _month(int(match["year"]), month, 3)
    begun = now.month >= month
    ended = now.month >= month + 3
    last = (match["word"] or "").lower() == "last"
    year = now.year if (ended if last else begun) else now.year - 1
    return _month(year, month, 3)


def _unit(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    """last week, this month, the past year."""
    unit, word = match["unit"].lower(), match["word"].lower()
    today = _midnight(now)
    if word in ("past", "recent"):
        return now - timedelta(days=_LENGTH[unit]), now + timedelta(seconds=1)
    back = 0 if word == "this" else 1
    if unit == "day":
        return _days(today - timedelta(days=back))
    if unit == "week":
        return _days(today - timedelta(days=today.weekday() + 7 * back), 7)
    if unit == "year":
        return _month(now.year - back, 1, 12)
    place = now.year * 12 + now.month - 1 - back
    return _month(place // 12, place % 12 + 1)


_LENGTH = {"day": 1, "week": 7, "month": 30, "year": 365}


def _ago(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    """So many units ago: a day exactly, what is longer with a tolerance of half a unit, "a few" with more."""
    unit, word = match["unit"].lower(), match["number"].lower()
    vague = word in ("few", "several", "some")
    number = 3 if vague else NUMBERS.get(word) or int(word)
    length = timedelta(days=_LENGTH[unit])
    middle = _midnight(now) + timedelta(hours=12) - number * length
    width = length * (2 if vague else 1) if unit == "day" else length * (number if vague else max(1, number / 4))
    return middle - width / 2, middle + width / 2


def _weekday(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    back = (now.weekday() - DAYS.index(match["weekday"].lower())) % 7 or 7
    return _days(_midnight(now) - timedelta(days=back))


def _weekend(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    saturday = _midnight(now) - timedelta(days=(now.weekday() - 5) % 7)
    return _days(saturday - timedelta(days=7 if now.weekday() >= 5 and match["word"] == "last" else 0), 2)


def _feast(match: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    month, day, before = {"christmas": (12, 25, 2), "halloween": (10, 31, 1), "new year": (1, 1, 1)}[
        match["feast"].lower()
    ]
    year = int(match["year"]) if match["year"] else now.year
    there = datetime(year, month, day, tzinfo=UTC)
    if there > now and not match["year"]:
        there = there.replace(year=year - 1)
    return there - timedelta(days=before), there + timedelta(days=2)


_PAST = r"(?P<word>last|this|past|previous|recent)"
_LEAD = (
    r"(?:\b(?:in|of|during|since|until|before|after|by|from|between|and|to|for|early|late|mid)\s+"
    r"(?:early\s+|late\s+)?)"
)

_Rule = tuple[re.Pattern[str], Callable[[re.Match[str], datetime], tuple[datetime, datetime]]]
_RULES: tuple[_Rule, ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), resolve)
    for pattern, resolve in (
        (rf"\b{_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)\b", _iso),
        (rf"\b(?P<one>\d\d?)[/.](?P<other>\d\d?)[/.]{_YEAR}\b", _slashed),
        (rf"\b{_DAY}\s+(?:of\s+)?{_MONTH.format('month')}(?:,?\s+{_YEAR})?\b", _date),
        (rf"\b{_MONTH.format('month')}\s+{_DAY}(?:,?\s+{_YEAR})?\b(?!\d)", _date),
        (rf"\b{_MONTH.format('month')},?\s+(?:of\s+)?{_YEAR}\b", _month_of_year),
        (rf"\bq(?P<quarter>[1-4])\s+{_YEAR}\b", lambda m, _: _month(int(m["year"]), 3 * int(m["quarter"]) - 2, 3)),
        (rf"\b(?:(?P<word>last|this)\s+)?(?P<season>spring|summer|autumn|winter)(?:\s+(?:of\s+)?{_YEAR})?\b", _season),
        (rf"\b(?:(?P<word>last)\s+)?(?P<season>fall)\s+(?:of\s+)?{_YEAR}\b", _season),
        (rf"\b(?P<feast>christmas|halloween|new year)(?:'?s)?(?:\s+(?:day|eve))?(?:\s+(?:of\s+)?{_YEAR})?\b", _feast),
        (r"\b(?:the\s+)?(?P<year>(?:19|20)\d)0s\b", lambda m, _: _month(10 * int(m["year"]), 1, 120)),
        (rf"\b(?P<number>\d{{1,3}}|{'|'.join(NUMBERS)}|few|several|some)\s+(?:of\s+)?{_UNIT}s?\s+(?:ago|back)\b", _ago),
        (r"\byesterday\b", lambda _, now: _days(_midnight(now) - timedelta(days=1))),
        (r"\b(?:today|tonight)\b", lambda _, now: _days(_midnight(now))),
        (r"\brecently\b", lambda _, now: (now - timedelta(days=30), now + timedelta(seconds=1))),
        (rf"\b(?:the\s+)?{_PAST}\s+{_UNIT}\b", _unit),
        (r"\b(?:(?P<word>last|this|the)\s+)weekend\b", _weekend),
        (rf"\b(?:last|on|this past)\s+(?P<weekday>{'|'.join(DAYS)})\b", _weekday),
        (rf"\b(?P<word>last|this)\s+{_MONTH.format('month')}(?!\w)", _named_month),
        (rf"{_LEAD}(?P<word>)?{_MONTH.format('month')}(?!\w)", _named_month),
        (rf"(?<![\d./-]){_YEAR}(?![\d/-])\b", lambda m, _: _month(int(m["year"]), 1, 12)),
    )
)
