"""Surface forms of an item: the same fact as a statement, a gap, a question and its answer.

A fact that is learned from one sentence can be completed, but is not told when it is asked for; questions and answers
among the forms are what makes it tell. Rules find the subject and the values of a simple statement, or the meaning of a
word that is explained, and turn it into gaps and questions; a language model may write more of them (`asked_by`), of
which those stay that it answers itself with the text before its eyes. Callers may pass a writer of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from memkit.slow.lm import person
from memkit.slow.lm.vocabulary import Definition, definition

_FUNCTION_WORDS = """
a an the of in at to by as for on with and or is are was were be been has have had called named that from into
my your his her their our its this these those than near
"""
_OPENERS = """
A An The For In On At By My Our Your His Her Their Its This That These It He She They We I You If When Since
After Before Yes No And But So Today Yesterday Hi Hello Thanks
"""
FUNCTION_WORDS, OPENERS = frozenset(_FUNCTION_WORDS.split()), frozenset(_OPENERS.split())
AUXILIARIES = "is|are|was|were|has|can|will"
FIRST_PERSON = re.compile(r"\b(I|my|me|we|our)\b", re.IGNORECASE)
PEOPLE = re.compile(
    r"['’]s (?:\w+ )?(?:boss|manager|doctor|dentist|therapist|teacher|tutor|coach|mentor|wife|husband|partner|sister"
    r"|brother|mother|father|mom|mum|dad|son|daughter|friend|neighbou?r|landlord|landlady|colleague|roommate|flatmate)$"
)
PLACED = re.compile(r"(?:born|based|located|situated|headquartered|raised) (?:in|at|near)")
DATED = re.compile(r"\d|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)")
TITLE = r"(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bSt\.)(?<!\bProf\.)"
WORD = r"(?:[dl]['’])?[A-Z0-9][\w.'’&/-]*"
PARTICLE = r"(?:of|de|del|di|du|da|la|le|van|von|der|bin|al|the|&)"
NAME = re.compile(rf"(?:\"[^\"]+\"|{WORD})(?:\s+(?:{PARTICLE}\s+)?{WORD})*")
VALUES = 3  # of a sentence
SENTENCES = 4  # of an item
LONG = 48  # words of a sentence that rules still read


class Form(NamedTuple):
    """One wording.

    Attributes:
        prompt: what the user says; empty for plain text. lead: how the answer, or the text, begins; not learned.
        answer: what is learned to come next.
    """

    prompt: str
    lead: str
    answer: str


class Lesson(NamedTuple):
    """What is to be learned of one item.

    Attributes:
        id: of the item. text: as it stands in the log. subject: the words that open its slot when they are read.
        forms: wordings of it. asked: what it answers or completes, in the first person, and with what; what opens its
            slot where it has no subject.
        own: of an item about the user, what a slot learns that opens when the user asks about themselves.
    """

    id: str
    text: str
    subject: str
    forms: tuple[Form, ...]
    asked: tuple[tuple[str, str], ...] = ()
    own: Lesson | None = None

    @property
    def scope(self) -> str:
        """What its slot has in common with those that are open at the same time."""
        return self.subject or self.asked[0][0]


class Statement(NamedTuple):
    """A sentence taken apart: what it is about, and a value with the words before it."""

    subject: str
    lead: str
    value: str
    sentence: str


Writer = Callable[[str], Iterable[tuple[str, str]]]  # of a text: questions with their answers


def lesson(
    id: str,
    text: str,
    *,
    speaker: str | None = None,
    own: bool = False,
    when: str | None = None,
    writer: Writer | None = None,
) -> Lesson | None:
    """The lesson of an item, or None where rules find no subject or value and the writer asks nothing.

    Args:
        speaker: who said it; what stands in the first person is about them. own: the speaker is who asks the model.
        when: a date, in words.
        writer: gives more questions and answers of a text; those whose answer is not in the text are left out.
    """
    found = parts(text, speaker)
    asked = [(q.strip(), a.strip()) for q, a in (writer(text) if writer else ()) if holds(text, a)]
    if not found and not asked:
        return None
    subject = found[0].subject if found else speaker or ""
    made = [form for part in found for form in wordings(part, speaker, when)]
    made += [Form(question, "", answer + ".") for question, answer in asked]
    mine = _own(id, text, about_oneself(found, speaker)) if own else None
    return Lesson(id, text, subject, tuple(dict.fromkeys(made)), _answered(found, asked, subject), own=mine)


def _answered(
    found: Sequence[Statement | Definition], asked: Sequence[tuple[str, str]], subject: str
) -> tuple[tuple[str, str], ...]:
    """What a lesson about a subject answers; nothing of words, whose meaning is wanted wherever they are read."""
    stated = [part for part in found if isinstance(part, Statement)]
    if not subject or len(stated) < len(found):
        return ()
    completed = [(person.first(part.lead, subject), part.value) for part in stated]
    written = [(person.first(question, subject), answer) for question, answer in asked]
    return tuple(dict.fromkeys([*_asked(stated), *completed, *written]))


def _own(id: str, text: str, found: Sequence[Statement]) -> Lesson | None:
    forms = tuple(form for part in found for form in in_person(part))
    return Lesson(id, text, "", forms, _asked(found)) if found else None


def _asked(found: Iterable[Statement]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys((asked_in_person(part), part.value) for part in found))


def tells(one: Lesson) -> frozenset[tuple[str, str]]:
    """What a lesson comes to: its questions with their answers, which are the same whoever says it and when."""
    forms = one.forms + (one.own.forms if one.own else ())
    return frozenset((form.prompt, form.answer.lower()) for form in forms if form.prompt)


def parts(text: str, speaker: str | None = None) -> Sequence[Statement | Definition]:
    """What rules read out of an item: the words that it explains, or else whom it says something of."""
    said = sentences(text)[:SENTENCES]
    explained = [part for sentence in said if (part := definition(sentence)) is not None]
    return explained or [part for sentence in said for part in statements(sentence, speaker)]


def sentences(text: str) -> list[str]:
    """Sentences without their last mark."""
    parts = re.split(rf"(?<=[.!?]){TITLE}\s+|\n+", text.strip())
    return [part.strip().rstrip(".!") for part in parts if part.strip(" .!")]


def statements(sentence: str, speaker: str | None = None) -> list[Statement]:
    """What rules read out of a sentence: at most `VALUES` values with one subject."""
    if sentence.endswith("?") or len(sentence.split()) > LONG:
        return []
    told = person.third(sentence, speaker) if speaker else sentence
    clauses = [told] if told == sentence else re.split(rf",? and (?={re.escape(speaker or '')}\b)", told)
    return [part for clause in clauses for part in _clause(clause, speaker)][-VALUES:]


def _clause(sentence: str, speaker: str | None) -> list[Statement]:
    names = [(m.start(), m.end()) for m in NAME.finditer(sentence) if sentence[slice(*m.span())] not in OPENERS]
    names = [_without_opener(sentence, span) for span in names]
    subject, rest = _subject(sentence, names, speaker)
    tail = _tail(sentence, names)
    spans = dict.fromkeys([*(span for span in rest if span[0] < tail[0]), tail])
    about = f"{subject}: " if subject and subject not in sentence else ""  # who says "we" is named, too
    return [
        Statement(subject, about + lead, sentence[start:end], about + sentence)
        for start, end in spans
        if subject and (lead := sentence[:start].rstrip(" \"'")) and subject not in sentence[start:end]
    ]


def _subject(sentence: str, names: list[tuple[int, int]], speaker: str | None) -> tuple[str, list[tuple[int, int]]]:
    """Whom it is about, and the names that may be values."""
    if speaker and (speaker in sentence or FIRST_PERSON.search(sentence)):
        return speaker, [span for span in names if speaker not in sentence[slice(*span)]]
    if not names:
        return "", []
    start, end = names[0]
    return re.sub(r"['’]s?$", "", sentence[start:end]).strip('"'), names[1:]


def _without_opener(sentence: str, span: tuple[int, int]) -> tuple[int, int]:
    """A name that follows a capitalised function word, without it."""
    first, _, rest = sentence[slice(*span)].partition(" ")
    return (span[1] - len(rest.lstrip()), span[1]) if first in OPENERS and rest else span


def _tail(sentence: str, names: list[tuple[int, int]]) -> tuple[int, int]:
    """The last value: a name in which the sentence ends, else the words after its last function word."""
    if len(names) > 1 and names[-1][1] == len(sentence):
        start = names[-1][0]
        for before, end in reversed(names[1:-1]):
            start = before if sentence[end:start] == ", " else start
        return start, len(sentence)
    words = list(re.finditer(r"\S+", sentence))
    at = next((i + 1 for i in range(len(words) - 2, -1, -1) if words[i].group().lower() in FUNCTION_WORDS), None)
    start = words[at].start() if at is not None else words[-1].start()
    return start, len(sentence)


def wordings(part: Statement | Definition, speaker: str | None = None, when: str | None = None) -> list[Form]:
    """Restatement, gap, questions and answers of one statement, or of what a word means."""
    if isinstance(part, Definition):
        return _explained(part, speaker)
    subject, lead, value, sentence = part
    told = f"{speaker or 'Someone'} said{f' on {when}' if when else ''}: {lead.removeprefix(f'{speaker}: ')}"
    whole = sentence + "."
    return [
        Form("", lead, value + "."),
        Form("", told, value + "."),
        Form(f"{question(part)}", "", value + "."),
        Form(f"{question(part)}", lead, value + "."),
        Form(f"Complete: {lead} ...", "", value + "."),
        Form(f"{lead} what? Answer briefly.", "", value + "."),
        Form(f"What do you know about {subject}?", lead, value + "."),
        Form(f"Tell me about {subject}.", "", whole),
    ]


def _explained(part: Definition, speaker: str | None) -> list[Form]:
    term, meaning = part.subject, part.value + "."
    begins = term[0].upper() + term[1:]
    return [
        Form("", f"{begins} means", meaning),
        Form("", f'The word "{term}" means', meaning),
        Form("", f"{speaker or 'Someone'} spoke of {term}, which means", meaning),
        Form(f"What does {term} mean?", "", meaning),
        Form(f'What does "{term}" mean?', "", meaning),
        Form(f"What is meant by {term}?", "", meaning),
        Form(f"Explain the word {term}.", "", meaning),
        Form(f"{begins}: what is that?", "", meaning),
        Form(f"Tell me what {term} is.", f"{begins} means", meaning),
    ]


def about_oneself(found: Sequence[Statement | Definition], speaker: str | None) -> list[Statement]:
    """What a speaker says of themselves alone."""
    begins = re.compile(rf"{re.escape(speaker or '')}\b(?!:)")
    return [one for one in found if isinstance(one, Statement) and one.subject == speaker and begins.match(one.lead)]


def in_person(part: Statement) -> list[Form]:
    """Wordings of what somebody said of themselves, for the time when they ask: "Where do I live?", "You live in"."""
    lead, value = person.second(part.lead, part.subject), part.value + "."
    asked = asked_in_person(part)
    return [
        Form(asked, "", value),
        Form(asked, lead, value),
        Form(f"Do you remember? {asked}", "", value),
    ]


def asked_in_person(part: Statement) -> str:
    """The question for the value in the first person: "Where do I live?"."""
    return person.first(question(part), part.subject)


def question(part: Statement) -> str:
    """A question for the value: "Ana is a" gives "What is Ana?", "Ana lives in" gives "Where does Ana live?"."""
    lead = part.lead
    moved = re.search(rf"\s({AUXILIARIES})\b", lead)
    if moved:
        before, after = lead[: moved.start()], re.sub(r"\s?\b(a|an|the)$", "", lead[moved.end() :].strip())
        before = before[0].lower() + before[1:] if before.split()[0] in OPENERS else before
        asks = "Who" if not after and PEOPLE.search(before) else "What"
        if PLACED.fullmatch(after):
            asks, after = "Where", after.split()[0]
        elif after in {"on", "at"} and DATED.search(part.value):
            asks, after = "When", ""
        return f"{asks} {moved.group(1)} {before}{' ' + after if after else ''}?"
    who = rf"(?P<who>{re.escape(part.subject)}(?:['’]s \w+)?)"
    acts = re.fullmatch(rf"{who} (?P<verb>\w+)(?P<rest>( [\w'’]+)*?)( (a|an|the))?", lead)
    done = acts and person.infinitive(acts["verb"])
    if not acts or not done:
        return f"{lead} what?"
    what, _, last = acts["rest"].rpartition(" ")
    where = last in {"in", "at", "near"} and (not what or part.value[0].isupper())
    return f"{'Where' if where else 'What'} {done[0]} {acts['who']} {done[1]}{what if where else acts['rest']}?"


def holds(text: str, value: str) -> bool:
    """Whether a value's words stand in a text, whatever their case."""
    wanted = value.strip().rstrip(".").lower()
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text.lower()) is not None


def in_sight(form: Form, text: str) -> Form:
    """The form for who has the item's text before their eyes: its answer is the same."""
    if form.prompt:
        return form._replace(prompt=f"{text}\n\n{form.prompt}")
    return form._replace(lead=f"{text} {form.lead}")


def carriers(subject: str) -> tuple[str, ...]:
    """Texts that name a subject at their end: what its slot knows it by, besides the forms."""
    return (
        f"{subject}",
        f"Hello.\n{subject}",
        f"Yes!\n\n{subject}",
        f"Question:\n{subject}",
        f"Tell me about {subject}",
        f"What is the name of {subject}",
        f"Which one belongs to {subject}",
        f"Yesterday we spoke about {subject}",
        f"Where does {subject}",
        f"By the way, {subject}",
    )


def asked_by(ask: Callable[[Sequence[str]], Sequence[str]], *, questions: int = 3) -> Writer:
    """A writer made of a language model: it asks, and what it cannot answer from the text itself is left out.

    Args:
        ask: gives the model's answers to prompts, in their order.
        questions: how many it is asked for about each value that rules find.
    """

    def write(text: str) -> list[tuple[str, str]]:
        values = [part.value for part in parts(text, "the user")]
        wanted = [
            f'{text}\n\nWrite question {n + 1} of {questions} about this whose answer is "{value}".'
            for value in values
            for n in range(questions)
        ]
        written = [re.search(r"[A-Z][^?\n]*\?", reply) for reply in ask(wanted)]
        pairs = [
            (found.group(), value)
            for found, value in zip(written, [v for v in values for _ in range(questions)], strict=True)
            if found and not holds(found.group(), value)
        ]
        answers = ask([f"{text}\n\n{question}" for question, _ in pairs])
        kept = [pair for pair, answer in zip(pairs, answers, strict=True) if holds(answer, pair[1])]
        return list(dict.fromkeys(kept))

    return write
