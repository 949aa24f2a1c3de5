"""The three persons of English: what a speaker says of themselves, told of them, asked by them, and told to them."""

from __future__ import annotations

import re
from collections.abc import Sequence

IRREGULAR = {
    "went": "go", "got": "get", "bought": "buy", "met": "meet", "won": "win", "wrote": "write", "began": "begin",
    "made": "make", "took": "take", "left": "leave", "grew": "grow", "sold": "sell", "found": "find", "saw": "see",
}  # fmt: skip
PLAIN_VERBS = (  # whose present is not their past, too
    "live|work|like|love|hate|play|want|need|drive|drink|eat|study|own|speak|teach|prefer|enjoy|collect|know|keep|run"
    "|support|cook|bake|paint|sing|dance|swim|ride|write|watch|follow|wear|rent|manage|build|sell|use|make|take|go|grow"
    "|volunteer|practise|practice|train|share|sleep|visit|attend|coach|design|sew|knit|fish|hike|travel|commute"
)
VERB_FORMS = (
    (r"(\w+[^aeious])ies", "does", r"\1y"),
    (r"(\w+(?:ch|sh|ss|x|o))es", "does", r"\1"),
    (r"(\w{2,}[^su])s", "does", r"\1"),
    (r"(\w+)ied", "did", r"\1y"),
    (r"(\w*(?:v|c|s|at|ir)e)d", "did", r"\1"),
    (r"(\w+)ed", "did", r"\1"),
)
THIRD = (  # of a speaker's words about themselves; {} is their name
    (r"\bI(?:'m|’m| am)\b", "{} is"),
    (r"\bI(?:'ve|’ve| have)\b", "{} has"),
    (r"\bI(?:'ll|’ll)\b", "{} will"),
    (r"\bI\b", "{}"),
    (r"\b[Mm]y\b", "{}'s"),
    (r"\b[Mm]e\b", "{}"),
)
FIRST = (  # of a question about a speaker, when they ask it themselves
    (r"\b(?:does|do) {}\b(?!['’])", "do I"),
    (r"\bis {}\b(?!['’])", "am I"),
    (r"\bhas {}\b(?!['’])", "have I"),
    (r"\b{}['’]s\b", "my"),
    (r"\b{}\b", "I"),
)
LAST_NAMED = (  # of a question about whom was named before, likewise
    (r"\b(?:does|do) (?:he|she|they|it)\b", "do I"),
    (r"\b(?:is|are) (?:he|she|they|it)\b", "am I"),
    (r"\b(?:has|have) (?:he|she|they|it)\b", "have I"),
    (r"\b(?:(?:his|her|its)(?= \w)|their)\b", "my"),
    (r"\b(?:he|she|they|it|him|her|them)\b", "I"),
)
SECOND = (  # of a statement about a speaker, when it is told to them
    (r"\b{} is\b", "you are"),
    (r"\b{} has\b", "you have"),
    (r"\b{} was\b", "you were"),
    (r"\b{}['’]s\b", "your"),
    (r"\b{}\b", "you"),
)


def third(sentence: str, name: str) -> str:
    """What a speaker says of themselves as others would say it: "I live here" gives "Ana lives here"."""
    sentence = re.sub(rf"\bI ({PLAIN_VERBS})\b", lambda found: f"I {_with_s(found[1])}", sentence)
    for pattern, told in THIRD:
        sentence = re.sub(pattern, told.replace("{}", name.replace("\\", r"\\")), sentence)
    return sentence


def _with_s(verb: str) -> str:
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search(r"(ch|sh|ss|x|o)$", verb) else "s")


def first(question: str, name: str) -> str:
    """A question about a speaker as they ask it: "Where does Ana live?" and "Where does she live?" give "Where do I
    live?"."""
    return _turned(question, name, FIRST if name in question else LAST_NAMED)


def second(statement: str, name: str) -> str:
    """A statement about a speaker as it is told to them: "Ana lives in" gives "You live in"."""
    acts = re.match(rf"{re.escape(name)} (?!is\b|has\b|was\b)(\w+)", statement)
    done = infinitive(acts[1]) if acts else None
    if acts and done and done[0] == "does":
        statement = f"{name} {done[1]}{statement[acts.end() :]}"
    return _turned(statement, name, SECOND)


def _turned(text: str, name: str, person: Sequence[tuple[str, str]]) -> str:
    for pattern, turned in person:
        text = re.sub(pattern.replace("{}", re.escape(name)), turned, text)
    return text[:1].upper() + text[1:]


def infinitive(verb: str) -> tuple[str, str] | None:
    """The auxiliary and infinitive of a verb form: "plays" gives does, play; None for what is not known as one."""
    if verb in IRREGULAR:
        return "did", IRREGULAR[verb]
    found = ((auxiliary, re.fullmatch(form, verb), plain) for form, auxiliary, plain in VERB_FORMS)
    return next(((auxiliary, match.expand(plain)) for auxiliary, match, plain in found if match), None)
