"""A user's own words: sentences that say what a term means.

Rules know how people explain a word: "By X we mean Y", "X means Y", "X stands for Y", "We call Y the X", "X = Y", "An X
is a Y". Where the wording alone does not say that a word is explained, the term must be one that no reader of English
can know: quoted, an abbreviation, or not among the usual words. So "A zibbet is a short coffee break" is a definition,
and "A dog is an animal that barks" is not.

Plain English, one sentence at a time. A word that few texts have ("lacteal") passes for somebody's own.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

WORDS = 4  # of a term, at most
LONGEST = 16  # words of a meaning: what a short answer still holds
LONG = 400  # characters of a sentence that rules still read
_POINTERS = "it this that these those he she they we i you there here what which who everything nothing something"
_TIMES = "time day days night week month year lot while moment morning evening afternoon weekend way"
POINTERS, TIMES = frozenset(_POINTERS.split()), frozenset(_TIMES.split())

_TERM, _MEANING = r"(?P<term>\S.*?)", r"(?P<meaning>\S.*)"
_QUOTED = r"(?P<term>[\"“][^\"“”]+[\"”]|'[^']+')"
_SPELLED = re.compile(r"[\w&/'’ .-]*[^\W\d_][\w&/'’ .-]*")  # with a letter in it
_WE = r"(?:[Ww]e|I|[Tt]hey|[Pp]eople|[Ee]veryone|[Ee]verybody)"
_HERE = r"(?: (?:here|(?:for|to|with) (?:us|me)|at work|in (?:our|my) \w+))?"
_WORD = r"(?:(?:our|my|an?|the) )?(?:own |nick)?(?:slang|word|name|term|code|short|shorthand)"
_THING = r"(?:an?|the|when|what|where|how|any|every|our|my) .+"
_AMONG_US = re.compile(r"(?:(?:In|At|For|With|Among) (?:(?:our|my) \w+|us|me|work)|Here),? (?=\S)")

# how a word is explained, and what may be the term: "any"; what is called so ("thing"); one's "own" word alone; or one
# that is not written like a name or a title, either ("no name")
DEFINITIONS = tuple(
    (name, allowed, re.compile(pattern))
    for name, allowed, pattern in (
        ("By X we mean Y", "any", rf"(?:[Bb]y|[Ww]ith) {_TERM},? {_WE} (?:just |always )?mean {_MEANING}"),
        ("When we say X we mean Y", "any", rf"(?:[Ww]hen|[Ii]f) {_WE} say {_QUOTED},? {_WE} mean {_MEANING}"),
        ('We call Y "X"', "any", rf"{_WE} call (?P<meaning>{_THING}?) {_QUOTED}"),
        ("We call Y the X", "thing", rf"[Ww]e call (?P<meaning>{_THING}?) (?P<term>(?:the|an?) [a-z][\w -]*?)"),
        ("X is our word for Y", "any", rf"{_TERM} is {_WORD} for {_MEANING}"),
        ("X stands for Y", "own", rf"{_TERM} (?:stands for|is an abbreviation (?:of|for)){_HERE} {_MEANING}"),
        ("X means Y", "own", rf"{_TERM}{_HERE} means{_HERE} {_MEANING}"),
        ("X = Y", "own", rf"{_TERM} ?= ?(?P<meaning>[^\W_]+(?:(?:,? |['’-])[^\W_]+)+)"),
        ("An X is a Y", "no name", rf"(?:[Aa]n? )?{_TERM}{_HERE} is{_HERE} (?P<meaning>{_THING})"),
    )
)


class Definition(NamedTuple):
    """A sentence that explains a word. Attributes: subject: the term. value: what it means. sentence: as it stands."""

    subject: str
    value: str
    sentence: str


def definition(sentence: str) -> Definition | None:
    """What a sentence, without its last mark, explains; None if nothing."""
    if len(sentence) > LONG:
        return None
    opened = _AMONG_US.match(sentence)
    said = sentence[opened.end() :] if opened else sentence
    for _, allowed, pattern in DEFINITIONS:
        found = pattern.fullmatch(said)
        if found and _is_term(found["term"], allowed) and _is_meaning(found["meaning"], found["term"]):
            return Definition(_bare(found["term"]), found["meaning"].strip(" ,:"), sentence)
    return None


def _is_term(written: str, allowed: str) -> bool:
    """Whether what stands in a term's place can be one."""
    term = _bare(written)
    words = term.lower().split()
    if not 0 < len(words) <= WORDS or words[0] in POINTERS or not _SPELLED.fullmatch(term):
        return False
    if allowed == "no name" and not written.strip("\"“'")[:1].islower():
        return False
    if allowed == "any" or written[0] in "\"“'":
        return True
    if allowed == "thing":
        return not TIMES & set(words)
    return is_abbreviation(term) or (len(words) == 1 and not is_usual(words[0]))


def _is_meaning(meaning: str, term: str) -> bool:
    """Whether words stand in a meaning's place, not too many, and not the term again."""
    told = re.search(r"[^\W\d_]{2,}", meaning) is not None
    return told and len(meaning.split()) <= LONGEST and _bare(term).lower() not in meaning.lower()


def _bare(written: str) -> str:
    """A term without quotes and article, in lower case where only its first letter has a capital."""
    term = re.sub(r"^(?:[Tt]he|[Aa]n?) (?=\S)", "", written.strip(" ,").strip("\"“”'"))
    return term[:1].lower() + term[1:] if term[1:].islower() and not is_abbreviation(term) else term


def is_abbreviation(term: str) -> bool:
    """Whether a term is a capital and then capitals or digits: "QBR", "P2"."""
    return re.fullmatch(r"[A-Z][A-Z0-9&/.-]+", term) is not None


def is_usual(word: str) -> bool:
    """Whether a lower-case word, as it stands or without its ending, is among those that English texts are full of."""
    stems = {word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ing")}
    stems |= {word.removesuffix("ing") + "e"} if word.endswith("ing") else set()
    return not word.isalpha() or not stems.isdisjoint(_usual())


@cache
def _usual() -> frozenset[str]:
    text = files("memkit").joinpath("data", "minilm_vocab.txt").read_text(encoding="utf-8")
    return frozenset(word for word in text.splitlines() if word.isalpha())
