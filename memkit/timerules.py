"""The wordings of time that queries use, and the stretches of time that they name.

Each rule is a pattern, with groups that name its parts, and a function from those parts and the present to its
readings. `memkit.timewords` finds the rules in a query and puts together what they say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # first month
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}
FEASTS = {  # month, day, days before it that count, days after it
    "christmas": (12, 25, 2, 1), "xmas": (12, 25, 2, 1), "halloween": (10, 31, 1, 0), "new year": (1, 1, 1, 1),
    "valentine's day": (2, 14, 0, 0),
}  # fmt: skip
RELATIVE = {  # days from today, of the first and after the last
    "day before yesterday": (-2, -1), "day after tomorrow": (2, 3), "yesterday": (-1, 0), "last night": (-1, 1),
    "today": (0, 1), "tonight": (0, 1), "this morning": (0, 1), "this afternoon": (0, 1), "this evening": (0, 1),
    "tomorrow": (1, 2), "the other day": (-7, 0), "recently": (-30, 1), "lately": (-30, 1),
}  # fmt: skip
NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip
VAGUE = {"couple": (1, 4), "few": (1.5, 5.5), "some": (1.5, 9), "several": (2.5, 9), "many": (5, 30), "": (1.5, 9)}
LENGTHS = {  # in days
    "minute": 1 / 1440, "hour": 1 / 24, "day": 1, "week": 7, "fortnight": 14, "month": 30.44, "quarter": 91.3,
    "year": 365.25, "decade": 3652.5,
}  # fmt: skip
WORDS = {"last": -1, "past": -1, "previous": -1, "this": 0, "current": 0, "next": 1, "coming": 1}

Stretch = tuple[datetime, datetime]  # half open, aware UTC
Words = dict[str, str]  # the named groups of a rule, in lower case, "" if absent
MICROSECOND = timedelta(microseconds=1)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _days(start: datetime, count: int = 1) -> list[Stretch]:
    return [(start, start + timedelta(days=count))]


def _months_from(year: int, month: int, count: int = 1) -> list[Stretch]:
    """`count` months from a month that may be 0 or less, or 13 or more, of a year."""
    first, last = year * 12 + month - 1, year * 12 + month - 1 + count
    return [tuple(datetime(at // 12, at % 12 + 1, 1, tzinfo=UTC) for at in (first, last))]  # type: ignore[list-item]


def _turn(word: str, now: datetime, at: Callable[[int], list[Stretch]]) -> list[Stretch]:
    """What comes once a year: by default the one that has begun last, with "last" one that is over."""
    turns = [at(now.year + year) for year in (1, 0, -1, -2)]
    if word in ("this", "current"):
        return next((turn for turn in turns if turn[0][0] <= now < turn[0][1]), turns[1])
    if WORDS.get(word) == 1:
        return next(turn for turn in reversed(turns) if turn[0][0] > now)
    edge = 1 if WORDS.get(word) == -1 else 0
    return next(turn for turn in turns if turn[0][edge] <= now)


def _year(words: Words) -> int:
    year = int(words["year"])
    return year if year > 99 else year + (2000 if year < 70 else 1900)


def _yearly(words: Words, now: datetime, at: Callable[[int], list[Stretch]]) -> list[Stretch]:
    return at(_year(words)) if words["year"] else _turn(words["word"], now, at)


def date(words: Words, now: datetime) -> list[Stretch]:
    """A day of a month, or days from the one to the other; without a year, of the last year that has had it."""
    month, day = MONTHS.index(words["month"][:3]) + 1, int(words["day"])
    count = max(1, int(words["until"] or day) - day + 1)
    years = [_year(words)] if words["year"] else range(now.year, now.year - 9, -1)  # a 29th of February is rare
    for year in years:
        try:
            there = datetime(year, month, day, tzinfo=UTC)
        except ValueError:
            continue
        if words["year"] or there <= now:
            return _days(there, count)
    return []


def _numeric(words: Words, _: datetime) -> list[Stretch]:
    """Both readings of 07/05/2023, the one there is of 25/12/2023; dots put the day first."""
    one, other, year = int(words["one"]), int(words["other"]), _year(words)
    orders = [(other, one)] if words["dot"] == "." or one == other else [(one, other), (other, one)]
    return [s for month, day in orders if 0 < month <= 12 for s in _days(datetime(year, month, day, tzinfo=UTC))]


def _iso(words: Words, _: datetime) -> list[Stretch]:
    year, month = int(words["year"]), int(words["month"])
    return _days(datetime(year, month, int(words["day"]), tzinfo=UTC)) if words["day"] else _months_from(year, month)


def months(words: Words, now: datetime) -> list[Stretch]:
    """A month, by its name."""
    month = MONTHS.index(words["month"][:3]) + 1
    return _yearly(words, now, lambda year: _months_from(year, month))


def season(words: Words, now: datetime) -> list[Stretch]:
    """A season of the north, three whole months."""
    return _yearly(words, now, lambda year: _months_from(year, SEASONS[words["season"]], 3))


def share(words: Words, now: datetime) -> list[Stretch]:
    """A quarter or a half of a year."""
    number = int(words["digit"] or ORDINALS[words["ordinal"]])
    count = 6 if words["share"].startswith("h") else 3
    return _yearly(words, now, lambda year: _months_from(year, (number - 1) * count + 1, count))


def feast(words: Words, now: datetime) -> list[Stretch]:
    """A feast that has a fixed date, with the days about it that count."""
    month, day, before, after = FEASTS[" ".join(words["feast"].split())]

    def at(year: int) -> list[Stretch]:
        return _days(datetime(year, month, day, tzinfo=UTC) - timedelta(days=before), before + 1 + after)

    return _yearly(words, now, at)


def _unit(words: Words, now: datetime) -> list[Stretch]:
    """last week, this month, next year: whole ones of the calendar."""
    unit, turn, today = words["unit"], WORDS[words["word"]], _midnight(now)
    if unit in ("day", "week", "weekend", "fortnight"):
        length = {"day": 1, "fortnight": 14}.get(unit, 7)
        start = today - timedelta(days=0 if unit == "day" else today.weekday() - 5 * (unit == "weekend"))
        return _days(start + timedelta(days=turn * length), 2 if unit == "weekend" else length)
    count = {"month": 1, "quarter": 3, "year": 12, "decade": 120}[unit]
    place = now.year * 12 + now.month - 1
    return _months_from(0, place - place % count + 1 + turn * count, count)


def _weekend(_: Words, now: datetime) -> list[Stretch]:
    """The weekend: the one that has begun last."""
    return _days(_midnight(now) - timedelta(days=(now.weekday() - 5) % 7), 2)


def bounds(text: str) -> tuple[float, float]:
    """Fewest and most units that a number says: a tolerance of half a unit, or of an eighth of a long number."""
    if text in VAGUE:
        return VAGUE[text]
    number = NUMBERS.get(text) or int(text)
    width = max(1.0, number / 4) / 2
    return number - width, number + width


def _ago(words: Words, now: datetime) -> list[Stretch]:
    """So many units ago; days and longer are counted from noon, so that "two days ago" is a day of the calendar."""
    least, most = (timedelta(days=count * LENGTHS[words["unit"]]) for count in bounds(words["number"]))
    middle = now if LENGTHS[words["unit"]] < 1 else _midnight(now) + timedelta(hours=12)
    return [(middle - most, middle - least)]


def _running(words: Words, now: datetime) -> list[Stretch]:
    """The last three months, the next few days, the past week: up to now, or from it."""
    text = words["number"]
    count = (VAGUE[text][1] if text in VAGUE else NUMBERS.get(text) or int(text)) if text else 1
    length = timedelta(days=count * LENGTHS[words["unit"]])
    return [(now, now + length)] if WORDS[words["word"]] > 0 else [(now - length, now + MICROSECOND)]


def _weekday(words: Words, now: datetime) -> list[Stretch]:
    """The last one before today; "this" is of the present week, "next" the first to come."""
    today, ahead = _midnight(now), DAYS.index(words["weekday"]) - now.weekday()
    turn = WORDS[words["word"] or "last"]
    if turn == 0:
        return _days(today + timedelta(days=ahead))
    return _days(today + timedelta(days=(ahead % 7 or 7) if turn > 0 else (ahead % 7 or 7) - 7 - 7 * (ahead == 0)))


def _years(words: Words, _: datetime) -> list[Stretch]:
    first, last = int(words["year"]), int(words["until"] or words["year"])
    return _months_from(min(first, last), 1, 12 * (abs(last - first) + 1))


def _decade(words: Words, _: datetime) -> list[Stretch]:
    tens = int(words["decade"])
    return _months_from(10 * (tens if tens > 99 else tens + (200 if tens < 3 else 190)), 1, 120)


def _relative(words: Words, now: datetime) -> list[Stretch]:
    first, last = RELATIVE[" ".join(words["relative"].split())]
    return _days(_midnight(now) + timedelta(days=first), last - first)


# -- the rules, the more specific first ------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A wording of time, and what it means; `sure` if it is a time whatever goes before it."""

    pattern: re.Pattern[str]
    resolve: Callable[[Words, datetime], list[Stretch]]
    sure: bool


def any_of(words: Iterable[str]) -> str:
    """A pattern for any of these words; a space in one may be up to three."""
    return "|".join(word.replace(" ", r"\s{1,3}") for word in words)


PLAIN_MONTHS = ("january", "february", "july", "september", "october", "november", "december")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_FULL_YEAR = r"(?P<year>(?:19|20)\d\d)(?!\d)"
_OF_YEAR = rf"(?:,?\s{{1,3}}(?:of\s{{1,3}}|in\s{{1,3}})?{_FULL_YEAR})?"
_DAY = r"(?P<day>[0-3]?\d)(?P<ordinal>st|nd|rd|th)?(?:\s?[-–]\s?(?P<until>[0-3]?\d)(?:st|nd|rd|th)?)?(?![\d:])"
_WORD = rf"(?P<word>(?:this\s{{1,3}})?(?:{any_of(WORDS)}))"
SOME = rf"(?P<number>\d{{1,3}}|{any_of(NUMBERS)}|{any_of(word for word in VAGUE if word)})"
_THINGS = r"people|tokens|words|miles|km|k?m|steps|dollars|euros|bucks|calories|pounds|kg|items|pages|lines|users|times"

RULES = tuple(
    Rule(re.compile(pattern, re.IGNORECASE), resolve, sure)
    for pattern, resolve, sure in (
        (rf"{_FULL_YEAR}[-/](?P<month>[01]?\d)(?:[-/](?P<day>[0-3]?\d))?(?![\d/-])", _iso, True),
        (
            r"(?P<one>\d\d?)(?P<dot>[/.-])(?P<other>\d\d?)(?P=dot)(?P<year>(?:19|20)\d\d|(?<=/)\d\d)(?![\d/.-])",
            _numeric,
            True,
        ),
        (rf"{_DAY}\s{{1,3}}(?:of\s{{1,3}})?{_MONTH}{_OF_YEAR}", date, False),
        (rf"{_MONTH}\s{{1,3}}(?:the\s{{1,3}})?{_DAY}{_OF_YEAR}(?!\s{{1,3}}(?:{_THINGS})\b)", date, False),
        (rf"(?:{_WORD}\s{{1,3}})?{_MONTH}{_OF_YEAR}", months, False),
        (rf"(?:{_WORD}\s{{1,3}})?(?P<season>{any_of(SEASONS)})\b{_OF_YEAR}", season, False),
        (rf"(?P<share>[qh])(?P<digit>(?<=q)[1-4]|(?<=h)[12])\b(?P<ordinal>){_OF_YEAR}", share, False),
        (
            rf"(?P<digit>)(?P<ordinal>{any_of(ORDINALS)})\s{{1,3}}(?P<share>quarter|half)"
            rf"\s{{1,3}}(?:of\s{{1,3}})?{_FULL_YEAR}",
            share,
            True,
        ),
        (
            rf"(?:{_WORD}\s{{1,3}})?(?P<feast>{any_of(FEASTS)})(?:'?s)?\b(?:\s{{1,3}}(?:day|eve)\b)?{_OF_YEAR}",
            feast,
            True,
        ),
        (rf"(?P<relative>{any_of(RELATIVE)})\b", _relative, True),
        (
            rf"(?:{SOME}\s{{1,3}})?(?:of\s{{1,3}})?(?P<unit>{any_of(LENGTHS)})s?\s{{1,3}}(?:ago|back)\b",
            _ago,
            True,
        ),
        (rf"{_WORD}\s{{1,3}}{SOME}\s{{1,3}}(?:of\s{{1,3}})?(?P<unit>{any_of(LENGTHS)})s?\b", _running, True),
        (rf"(?P<word>past)\s{{1,3}}(?P<number>)(?P<unit>{any_of(LENGTHS)})s?\b", _running, True),
        (rf"{_WORD}\s{{1,3}}(?P<unit>weekend|{any_of(list(LENGTHS)[3:])})\b", _unit, True),
        (r"(?:the\s{1,3})?weekend\b", _weekend, False),
        (
            rf"(?<!\bevery\s)(?<!\beach\s)(?<!\bother\s)(?:{_WORD}\s{{1,3}})?(?P<weekday>{any_of(DAYS)})\b",
            _weekday,
            True,
        ),
        (r"'?(?P<decade>(?:19|20)\d|(?<=the\s)\d|(?<=')\d)0'?s\b", _decade, True),
        (
            rf"{_FULL_YEAR}(?:\s?[-\u2013]\s?(?P<until>(?:19|20)\d\d)(?!\d))?(?![-/.]\d|\s{{1,3}}(?:{_THINGS})\b)",
            _years,
            True,
        ),
    )
)
