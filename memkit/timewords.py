"""Times that a query names, resolved against the time at which it is asked.

English, Gregorian, UTC, weeks from Monday, seasons of the north. Rules of our own, because a query names stretches of
time ("last May", "the 1990s", "a few days ago"), where the light and kept parsers (parsedatetime, dateparser) give
points, look to the future, and take milliseconds or megabytes of other languages.

Does not cover: times of day, holidays that move, two dates that differ in a word ("the day before the party"),
fiscal calendars, "the 5th" without a month.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memkit.timerules import (
    DAYS,
    FEASTS,
    LENGTHS,
    MICROSECOND,
    MONTHS,
    PLAIN_MONTHS,
    RULES,
    SEASONS,
    SOME,
    WORDS,
    Rule,
    Stretch,
    Words,
    any_of,
    bounds,
    date,
    feast,
    months,
    season,
    share,
)

BEGIN = datetime.min.replace(tzinfo=UTC)  # where what "before" says starts
FAR = datetime.max.replace(tzinfo=UTC)  # where what "after" says ends
REACH = 0.5  # of a span's length: how far outside it half of the overlap is lost
LONGEST = timedelta(days=365)  # a longer span is no softer at its edges than a year
MAX_QUERY = 4000  # characters; what is longer is a text to look up, not a question about a time

WEAK_LEADS = ("", "at", "for", "from", "on", "around")  # "for June" may be a gift
THIRDS = {"early": 0, "start": 0, "beginning": 0, "mid": 1, "middle": 1, "late": 2, "end": 2}


class Span(NamedTuple):
    """A stretch of time, half open, aware UTC; `text` is what the query says."""

    start: datetime
    end: datetime
    text: str


class _Atom(NamedTuple):
    """An expression found: where its words begin and end, what goes before it, the readings of it."""

    begin: int
    end: int
    lead: str
    sure: bool
    yearly: bool  # it comes each year, and the words say no year
    readings: list[Stretch]  # of the expression itself
    meant: list[Stretch]  # with what goes before it: "since", "two weeks before"


def asks_when(query: str) -> bool:
    """Whether a query asks for a time itself.

    >>> asks_when("When did Ana move?"), asks_when("What did Ana do in May?")
    (True, False)
    """
    return bool(_WHEN.search(query[:MAX_QUERY]))


def spans(query: str, now: datetime) -> list[Span]:
    """The times that a query names, in their order there; none if it names none.

    A name of a month or season that is a word too ("may", "June", "fall") counts only with a year, a day or a word
    such as "in" or "last". A date with two readings (07/05/2023) gives both.

    Args:
        now: when it is asked, aware.

    >>> [s.start.date().isoformat() for s in spans("what happened last May?", datetime(2026, 3, 1, tzinfo=UTC))]
    ['2025-05-01']
    """
    query = query[:MAX_QUERY]
    if not _HINT.search(query.lower()):
        return []
    now = now.astimezone(UTC)
    atoms = [atom for match in _ATOM.finditer(query) if (atom := _read(match, query, now)) is not None]
    found: list[Span] = []
    while atoms:
        first, *rest = atoms
        joined = _joins(query, first, rest[0]) if rest else ""
        group = atoms[: 2 if joined else 1]
        if joined == "to":
            found.append(_range(query, *group))
        elif any(atom.sure for atom in group):
            found += [
                Span(*one, query[atom.begin : atom.end]) for atom in group for one in atom.meant if one[0] < one[1]
            ]
        atoms = atoms[len(group) :]
    return found


def overlap(found: list[Span], moments_us: int | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How well moments in µs, of any shape, fit the spans, in [0, 1] and of the same shape.

    1 within a span; outside it, halved with each half length of the span (half a year at most), 0 below 0.01.
    """
    moments = np.clip(np.asarray(moments_us, np.int64), -(2**61), 2**61)  # differences stay within int64
    best = np.zeros(moments.shape)
    for span in found:
        start, end = _us(span.start), _us(span.end)
        outside = np.maximum(np.maximum(start - moments, moments - (end - 1)), 0)
        best = np.maximum(best, 0.5 ** (outside / (REACH * min(end - start, LONGEST // MICROSECOND))))
    return np.where(best < 0.01, 0.0, best)


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND


# -- from words to atoms ---------------------------------------------------------------------------------------------


def _read(match: re.Match[str], query: str, now: datetime) -> _Atom | None:
    """What the rule that matched says; None for what is no date after all, such as the 31st of June."""
    rule = RULES[int((match.lastgroup or "r0")[1:])]
    begin = match.start(match.lastgroup or 0)
    inner = rule.pattern.match(query, begin)
    if inner is None:  # 7/5.2023: signs that differ, which the alternation lets pass
        return None
    words = {key: (value or "").lower() for key, value in inner.groupdict().items()}
    words["word"] = words.get("word", "").rpartition(" ")[2]  # "this past" is past
    lead = " ".join((match["lead"] or "").lower().split())
    try:
        readings = [_part(match["part"], one) for one in rule.resolve(words, now)]
        meant = [_meant(lead, *one) for one in readings]
    except (ValueError, OverflowError):
        return None
    named = bool(words["word"] or words.get("year"))
    sure = rule.sure or bool(match["part"] or words.get("year")) or _supported(rule, inner, words, lead)
    yearly = rule.resolve in (date, months, season, share, feast) and not named
    return _Atom(match.start(), inner.end(), lead, sure, yearly, readings, meant) if readings else None


def _supported(rule: Rule, inner: re.Match[str], words: Words, lead: str) -> bool:
    """Whether what is said around a word that may be no time ("may", "June", "fall", "Q1") makes it one."""
    if rule.resolve not in (date, months):
        return bool(words["word"]) or lead not in ("", "at", "from")
    verb = inner["month"] in ("may", "march", "mar")
    if rule.resolve is date:
        return bool(words["ordinal"]) or not verb or lead not in WEAK_LEADS or lead == "on"
    if words["word"]:
        return not verb or words["word"] == "last"  # "this may be", "the next may"
    owned = inner.string[inner.end() : inner.end() + 2] in ("'s", "\u2019s")  # what is June's
    return words["month"] in PLAIN_MONTHS or (not owned and lead not in WEAK_LEADS)


def _joins(query: str, first: _Atom, last: _Atom) -> str:
    """ "to" if both are the ends of one stretch, "and" if the one supports the other, "" if they are apart."""
    between = query[first.end : last.begin].strip().lower()
    if between in ("to", "-", "\u2013", "through", "until") or (not between and last.lead in ("until", "till")):
        return "to"
    if between in ("and", "or", "&"):
        return "to" if first.lead == "between" else "and"
    return ""


def _range(query: str, first: _Atom, last: _Atom) -> Span:
    """From the one to the other; a first end without a year ("between March and May 2023") takes the last one's."""
    (start, first_end), (last_start, end) = first.readings[0], last.readings[-1]
    if first.yearly:
        later = (start.month, start.day) > (last_start.month, last_start.day)
        month = datetime(max(1, last_start.year - later), start.month, 1, tzinfo=UTC)
        start = first_end = month + timedelta(days=start.day - 1)
    return Span(min(start, last_start), max(first_end, end), query[first.begin : last.end])


def _meant(lead: str, start: datetime, end: datetime) -> Stretch:
    """ "before", "after" and "since" open a stretch on one side; "two weeks before" names another one."""
    *gap, word = lead.replace("prior to", "before").split() or [""]
    if not gap or word not in ("before", "after"):
        before = (BEGIN, start)
        sides = {"before": before, "until": before, "till": before, "after": (end, FAR), "since": (start, FAR)}
        return sides.get(word, (start, end))
    sign, edge = (-1, start) if word == "before" else (1, end)
    if gap[-1] in DAYS:
        day = start + sign * timedelta(days=sign * (DAYS.index(gap[-1]) - start.weekday()) % 7 or 7)
        return day, day + timedelta(days=1)
    unit = timedelta(days=LENGTHS[gap[-1].rstrip("s")])
    if gap[0] in ("the", "a", "an", "one"):
        ends = [edge, edge + sign * unit]
    else:
        ends = [start + sign * unit * count + timedelta(hours=12) for count in bounds(gap[0])]
    return min(ends), max(ends)


def _part(words: str | None, stretch: Stretch) -> Stretch:
    """The third of a stretch that "early", "mid" or "late" name."""
    if not words:
        return stretch
    begin = stretch[0] + THIRDS[re.split(r"[\s-]", words.lower())[0]] * (stretch[1] - stretch[0]) / 3
    return begin, begin + (stretch[1] - stretch[0]) / 3


_LEADS = (
    rf"(?:(?:the\s|{SOME.replace('?P<number>', '?:')}\s)(?:of\s)?(?:{any_of(list(LENGTHS)[1:])})s?\s{{1,3}}"
    rf"|(?:on\s)?(?:the\s)?(?:{any_of(DAYS)})\s{{1,3}})?(?:before|after|prior to)"
    r"|between|from|until|till|since|in|on|for|during|over|throughout|at|around|within|back in"
)
_PART = r"(?:early|mid|late)[\s-]{1,3}(?:in\s)?(?:the\s)?|(?:start|beginning|middle|end)\s{1,3}of\s{1,3}(?:the\s)?"
_HINT = re.compile(  # of text in lower case, and first of all the letters it may begin with: five times as fast
    r"\b(?=[\dabcdfhjlmnopqrstvwxy])(?:\d|[qh]\d|"
    + any_of((*MONTHS, *DAYS, *SEASONS, *FEASTS, *WORDS, "weekend", "ago", "back"))
    + r"|yesterday|today|tonight|tomorrow|recently|lately|day\s{1,3}before|other\s{1,3}day|day\s{1,3}after)"
)
_WHEN = re.compile(
    r"\bwhen(?:'s|\s+(?:did|do|does|was|were|is|are|am|will|would|has|have|had|can|could|should|might|exactly)\b)"
    r"|\b(?:know|remember|recall|tell me|remind me|sure|wonder(?:ing)?|find out|ask(?:ed)?)\s+when\b"
    r"|^\W*when\b[^,]*$|\b(?:since|until|till) when\b|\b(?:what|which) (?:date|day|month|year|time)\b"
    r"|\bhow (?:long|recently|much time|many (?:days|weeks|months|years))\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"\(\?P<[a-z]+>")
_ATOM = re.compile(
    rf"(?<![\w$€£#@/.-])(?:(?P<lead>{_LEADS})\s{{1,3}})?(?:the\s{{1,3}})?(?P<part>{_PART})?(?:"
    + "|".join(
        f"(?P<r{at}>" + _NAME.sub("(?:", rule.pattern.pattern).replace("(?P=dot)", "[/.-]") + ")"
        for at, rule in enumerate(RULES)
    )
    + ")",
    re.IGNORECASE,
)
