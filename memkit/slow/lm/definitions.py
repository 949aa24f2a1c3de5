"""A user's own words: sentences that say what a term means.

    >>> definition("We call the small meeting room the aquarium")
    Definition(term='aquarium', meaning='the small meeting room')

A table of plain English patterns. A sentence that is not surely about a word gives nothing: "a dog is an animal" is no
definition of anybody's own, and reads as one only with the term in quotes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

QUOTED = r"[\"“'‘](?P<term>[^\"”'’]{1,40})[\"”'’]"
PLAIN = r"(?P<term>[\w-]{3,}(?: [\w-]+)?)"
LAST = r"(?:(?:the|a|an) )?(?P<term>[\w-]{3,})"
MEANING = r"(?P<meaning>(?!a lot\b|the world\b|so much\b)[\w'’-]+ [\w'’ ,-]*\w{3}[\w'’ ,-]*)"  # two words and more
WHO = r"(?:we|I|they|people|everyone|my \w+|our \w+|the \w+)"
IN = r"(?:(?:in|at|for|with|among|between) [^,]{1,40}, )?"
_NOBODYS = """
this that it which what he she they we i you there who all none everything nothing being having my your his her our
their its some any no day today tomorrow tonight yesterday now later back again morning evening week weekend month year
"""
NOBODYS = frozenset(_NOBODYS.split())  # no term begins with one
PATTERNS = [
    re.compile(f"{IN}{pattern}", re.IGNORECASE)
    for pattern in (
        f"(?:by|with|when {WHO} say) (?:{QUOTED}),? {WHO} means? (?P<meaning>.+)",
        f"(?:by|when {WHO} say) {PLAIN},? {WHO} means? {MEANING}",
        f"{QUOTED} (?:means|stands for|is short for|is {WHO} word for) (?P<meaning>.+)",
        f"{PLAIN} (?:means|stands for|is short for|is our word for) {MEANING}",
        f"an? {QUOTED} is (?P<meaning>.+)",
        f"{WHO} calls? (?P<meaning>.+?) {QUOTED}",
        f"{WHO} calls? (?P<meaning>(?:the|an?|our|my|his|her|their|this|every) .+?) {LAST}",
        f"(?P<meaning>.+?) (?:is|are) what {WHO} calls? {QUOTED}",
        f"{PLAIN} = {MEANING}",
    )
]


class Definition(NamedTuple):
    """A term, without its article, and what it means, in the sentence's own words."""

    term: str
    meaning: str


def definition(sentence: str) -> Definition | None:
    """What a sentence, without its last mark, defines; None if it is no definition by the rules."""
    for pattern in PATTERNS:
        found = pattern.fullmatch(sentence.strip())
        if found is None:
            continue
        term = re.sub(r"^(?:the|an?) ", "", found["term"].strip(), flags=re.IGNORECASE)
        first = term.split()[0].lower() if term else ""
        if first and first not in NOBODYS and term.lower() not in found["meaning"].lower():
            return Definition(term, found["meaning"].strip(" ,"))
    return None
