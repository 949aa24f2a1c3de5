"""What two items say about each other: the same again, the same subject anew, or the end of what was.

`repeats` holds if the newer item says all that the older one says. `supersedes` is for what can be told with
confidence from English sentences alone, and says no to everything else:

    value     "My flight is on Monday" -> "The flight is on Tuesday": one subject, one slot, two values of one kind
    end       "I drive a Volvo" -> "I sold my Volvo"; "I eat meat" -> "I no longer eat meat"
    exchange  "I use Spotify for music" -> "I switched from Spotify to Tidal"

Questions, plans and conditions state nothing, and what happened on two days ("I went for a run") happened twice. What
is not trusted supersedes nothing that is, however new: it `yields` to what it contradicts or imitates. How often it is
right is measured in tests/test_packing.py on sentences written for that, part of them after the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from memkit.items import Hit, is_trusted
from memkit_storage.analyzer import analyze
from memkit_storage.rows import Vector

ALIKE = 0.9  # cosine of two wordings of one thing
OVERLAP = 0.75  # tokens that two such wordings share, as a share of all
RELATED = 0.3  # cosine below which no rule about words is believed
LONGEST = 25  # words of a sentence that the rules read
LONG = 600  # characters of an item that they read
_SHARE = 0.5  # of an item's content, that must have been superseded for the item to be called so

_EMPTY = frozenset(analyze("a an the oh hey hi well so just really very that also yeah please btw and"))
_COMMON = _EMPTY | frozenset(
    analyze(
        "i me my we us our you your he she his her they their it its this is am are was be been have has had do does "
        "did own use drive drink eat take go got get to of in on at for from with by as every now currently still "
        "usually always"
    )
)
_NEGATIONS = frozenset(analyze("no not never dont doesnt didnt isnt arent wasnt cant wont nothing none without"))
_SENTENCE = re.compile(r"[^.!?\n]+(?:\.(?=\w)[^.!?\n]+)*[.!?]*")
_TITLE = re.compile(r"\b(Dr|Mr|Mrs|Ms|Prof|St)\.")
_OPEN = re.compile(
    r"\?|\b(?:if|might|(?-i:may)|maybe|perhaps|would|could|should|wish|hope|hoping|want|wants|wanted|planning"
    r"|plans? (?:to|on)|think|thinking|thought|consider(?:ing)?|going to|will|wonder(?:ing)?|dream|almost|about to"
    r"|used to)\b",
    re.IGNORECASE,
)
_EPISODE = re.compile(
    r"\b(?:today|tonight|yesterday|tomorrow|ago|(?:this|last|next) (?:morning|afternoon|evening|night|week(?:end)?"
    r"|month|year|time))\b",
    re.IGNORECASE,
)
_ADVERB = re.compile(
    r"\b(?:now|currently|actually|just|finally|officially|presently|these days|as of \w+|recently|already)\b[, ]*",
    re.IGNORECASE,
)
_ENDED = re.compile(
    r"\b(?:no longer|any ?more|sold|quit|gave up|given up|stopped|cancell?ed|got rid of)\b|"
    r"\b(?:do|does|am|is|are)(?: not\b|n'?t\b)|\b(?:can(?:no|')t|never)\b",
    re.IGNORECASE,
)
_ENDING = frozenset(analyze("longer anymore any more sold quit gave given up stop cancel canceled rid")) | _NEGATIONS
_EXCHANGED = re.compile(
    r"\b(?:switch(?:ed)?|changed|went|moved) from (?P<old>.+?) to\b|\breplaced (?P<old2>.+?) (?:with|by)\b",
    re.IGNORECASE,
)
_NAME = r"(?P<v>[A-Z][\w&'\u2019-]*(?:,? (?:[A-Z][\w&'\u2019-]*))*)"
_SLOTS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (
            "is",
            r"^(?P<s>(?:[Mm]y|[Oo]ur|[Hh]is|[Hh]er|[Tt]heir|[Tt]he|\w+'s) .{1,50}?"
            r"|(?!(?:It|That|This|There|He|She|They|I|We|You)\b)[A-Z]\w+)"
            r" (?:is|are|'s|has(?! been)|costs?|weighs?|takes?"
            r"|(?:has been |have been |have |has |was |were |is |are |got )?(?:moved|changed|rescheduled|postponed"
            r"|pushed(?: back)?|raised|lowered|increased|reduced|cut|updated|set|extended|renamed|due|called|named"
            r"|scheduled|dropped|grew|grown|risen|rose))"
            r"(?: (?:due|called|named|set|scheduled|planned|down|up|back))?"
            r"(?: (?:at|on|in|to|for|by|around|about|from .{1,30}? to))* (?P<v>.+)$",
        ),
        ("home", rf"^(?P<s>.{{1,40}}?) (?:[Ll]ives?|(?:am |is |are |'m |'s )?(?:living|based)) in {_NAME}"),
        ("home", rf"^(?P<s>.{{1,40}}?) (?:have |has |'ve )?(?:moved|relocated) (?:from [\w ]+? )?to {_NAME}"),
        ("work", rf"^(?P<s>.{{1,40}}?) (?:works?|(?:am |is |'m )?working) (?:at|for) {_NAME}"),
        ("work", rf"^(?P<s>.{{1,40}}?) (?:joined|(?:have |has )?started (?:working )?at) {_NAME}"),
        ("favourite", r"^(?P<s>.{1,30}?\bfavou?rite .{1,30}?) (?:is|are) (?P<v>.+)$"),
    )
)
# of these there is one at a time, whatever it is
_ROLES = frozenset(
    analyze("name nickname password boss manager landlord roommate dentist therapist coach capital address status")
)
_HELD = "held"
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("day", r"(?i)^(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?)\b"),
        (
            "date",
            r"(?i)^(?:the )?(?:\d{1,2}(?:st|nd|rd|th)? (?:of )?)?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)",
        ),
        ("date", r"^\d{4}-\d\d-\d\d|^the \d{1,2}(?:st|nd|rd|th)\b"),
        ("hour", r"(?i)^(?:\d{1,2}(?::\d\d)?(?: ?[ap]\.?m\b|(?= ?$)| o'clock)|\d{1,2}:\d\d|noon|midnight)"),
        ("number", r"^(?P<unit>[$€£]?)\d(?:[\d.,]*\d)? ?(?P<unit2>[%€£$a-zA-Z]*)"),
    )
)


def scope_of(hit: Hit) -> tuple[str | None, ...]:
    """Who owns an item and who says it: items of different ones neither repeat nor contradict each other."""
    return hit.user_id, hit.agent_id, speaker_of(hit)


def speaker_of(hit: Hit) -> str | None:
    """The speaker's name, or the role of a message without one; on one line."""
    name = hit.metadata.get("name") or hit.metadata.get("role")
    return " ".join(name.split()) or None if isinstance(name, str) else None


def is_newer(one: Hit, other: Hit) -> bool:
    """Whether the first one happened later or, at the same time, was recorded later."""
    return (one.occurred_at, one.position) > (other.occurred_at, other.position)


def cosine(one: Hit, other: Hit, vectors: Mapping[int, Vector]) -> float | None:
    """Of their vectors; None when one is missing."""
    a, b = vectors.get(one.position), vectors.get(other.position)
    return None if a is None or b is None else float(np.dot(a, b))


def precedence(hit: Hit) -> tuple[bool, datetime, int]:
    """What decides between two items that say different things: trust, then time."""
    return is_trusted(hit.metadata), hit.occurred_at, hit.position


def repeats(newer: Hit, older: Hit, similarity: float | None) -> bool:
    """Whether the newer item says all that the older one says, in nearly the same words and order.

    Nothing is lost when the older one is left out: its words, but for a few empty ones, are a subsequence of the
    newer one's, which adds no negation. Without vectors only equal texts count.
    """
    if scope_of(newer) != scope_of(older):
        return False
    if newer.text == older.text:
        return True
    new, old = _said(newer.text), _said(older.text)
    return _alike(newer, older, similarity) and _within(old, new) and not (set(new) - set(old)) & _NEGATIONS


def _alike(one: Hit, other: Hit, similarity: float | None) -> bool:
    """Whether two items are worded nearly alike."""
    if similarity is None or similarity < ALIKE:
        return False
    said, also = set(_said(one.text)), set(_said(other.text))
    return bool(said and also) and len(said & also) >= OVERLAP * len(said | also)


def supersedes(newer: Hit, older: Hit, similarity: float | None) -> bool:
    """Whether the newer item surely makes the older one a thing of the past (the rules stand above)."""
    if is_trusted(older.metadata) and not is_trusted(newer.metadata):  # it may be quoted, and ends nothing
        return False
    return _contradicts(newer, older, similarity)


def yields(hit: Hit, to: Hit, similarity: float | None) -> bool:
    """Whether an item comes after another: superseded; or, where only that is trusted, against it or in its words."""
    if is_trusted(hit.metadata) or not is_trusted(to.metadata):
        return is_newer(to, hit) and supersedes(to, hit, similarity)
    newer, older = (hit, to) if is_newer(hit, to) else (to, hit)
    copied = scope_of(hit) == scope_of(to) and (hit.text == to.text or _alike(hit, to, similarity))
    return copied or _contradicts(newer, older, similarity)


def _contradicts(newer: Hit, older: Hit, similarity: float | None) -> bool:
    if similarity is None or similarity < RELATED or scope_of(newer) != scope_of(older):
        return False
    news = [new for new in _statements(newer.text) if new.changes]
    old = _statements(older.text) if news else ()
    total = sum(len(one.content) for one in old)
    gone = sum(len(one.content) for one in old if any(_undone(one, new) for new in news))
    return total > 0 and gone >= _SHARE * total


def may_supersede(text: str) -> bool:
    """Whether a text says anything that could make another a thing of the past."""
    return any(one.changes for one in _statements(text))


class _Statement(NamedTuple):
    """A sentence: what of it counts, the slot that it fills with a value, and what it says is over.

    A question, a plan or an episode claims nothing lasting: `lasting` is False, and nothing else is known of it.
    """

    content: frozenset[str]
    lasting: bool
    slot: tuple[str, tuple[str, ...]] | None = None
    value: str = ""
    ends: bool = False
    exchanged: frozenset[str] = frozenset()

    @property
    def changes(self) -> bool:
        """Whether it can make another statement a thing of the past."""
        return self.slot is not None or self.ends or bool(self.exchanged)


@lru_cache(maxsize=2048)
def _statements(text: str) -> tuple[_Statement, ...]:
    if len(text) > LONG:
        return ()
    plain = _TITLE.sub(r"\1", text.replace("\u2019", "'"))
    return tuple(_read(sentence) for sentence in _SENTENCE.findall(plain) if sentence.strip(" .!?"))


def _read(sentence: str) -> _Statement:
    plain = " ".join(_ADVERB.sub("", sentence.replace("I'm ", "I am ")).split())
    content = frozenset(analyze(plain)) - _COMMON
    if len(plain.split()) > LONGEST or _OPEN.search(sentence) or _EPISODE.search(sentence):
        return _Statement(content, lasting=False)
    slot, value = _slot(plain.rstrip(" .!"))
    exchange = _EXCHANGED.search(sentence)
    exchanged = frozenset(analyze(exchange["old"] or exchange["old2"])) - _COMMON if exchange else frozenset()
    return _Statement(content, True, slot, value, bool(_ENDED.search(sentence)), exchanged)


def _slot(plain: str) -> tuple[tuple[str, tuple[str, ...]] | None, str]:
    """(what the sentence is about, its value); (None, "") if it fills no slot that holds one value at a time."""
    for kind, pattern in _SLOTS:
        found = pattern.match(plain)
        subject = tuple(_subject(found["s"])) if found else ()
        if found is None or not subject or _NEGATIONS & set(analyze(plain)):
            continue
        if kind == "is":
            value = _HELD if subject[-1] in _ROLES else _kind_of(found["v"])
            if value:
                return (value, subject), found["v"]
            continue
        return (kind, subject), found["v"]
    return None, ""


def _subject(text: str) -> Iterator[str]:
    """Whom or what: a determiner says little, but "I" and "my" are somebody."""
    return (token for token in analyze(text) if token not in _DETERMINERS)


_DETERMINERS = frozenset(analyze("the a an my our this new have has")) - {"i"}


def _kind_of(value: str) -> str | None:
    """Day, date, hour, or a number with its unit; None for everything else, which may be true beside another."""
    for kind, pattern in _KINDS:
        found = pattern.match(value)
        if found:
            return kind + "".join(unit or "" for unit in found.groups())
    return None


def _undone(old: _Statement, new: _Statement) -> bool:
    if not old.lasting or not old.content:
        return False
    if old.slot is not None and old.slot == new.slot:
        return _differ(old.value, new.value)
    if old.ends:
        return False
    if new.exchanged:
        return new.exchanged <= old.content and len(old.content) <= len(new.exchanged) + 2
    return new.ends and old.content <= new.content and new.content - old.content <= _ENDING


def _differ(old: str, new: str) -> bool:
    before, after = set(analyze(old)) - _EMPTY, set(analyze(new)) - _EMPTY
    return not before <= after and not after <= before


@lru_cache(maxsize=1024)
def _said(text: str) -> tuple[str, ...]:
    return tuple(token for token in analyze(text) if token not in _EMPTY)


def _within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Whether the first is a subsequence of the second."""
    rest = iter(whole)
    return all(token in rest for token in part)
