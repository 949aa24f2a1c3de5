"""Long documents become chunks at headings, paragraphs and sentences; nothing but white space is lost between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# of chunks of encyclopedia prose, 1 in 250 exceeds the 256 tokens that the default embedder sees at once;
# at 1,200 characters it is 1 in 10
LIMIT = 1_100
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
# . ! ? and their kin with closing quotes before white space; CJK sentences end without any
_SENTENCE_END = re.compile(r"[.!?…।؟۔][\"'”’»)\]]*\s+|[。！？｡]+[」』）】”’]*")
# a full stop after one of these ends no sentence: titles, initials, ordinals, and so on
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[])(?:[^\W\d_]|\d{1,2}|Dr|Mr|Mrs|Ms|Prof|St|Sr|Jr|Nr|No|Fig|vs|cf|bzw|ca|approx|e\.g|i\.e|z\.B|d\.h)\.$"
)
_LONGEST_ABBREVIATION = 8

Bounds = Callable[[str, int, int], Iterator[int]]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document.

    Attributes:
        start: offset of its first character in the document.
        headings: the headings that it stands under, outermost first.
    """

    text: str
    start: int
    headings: tuple[str, ...] = ()


def chunks(text: str, limit: int = LIMIT) -> list[Chunk]:
    """Pieces of at most `limit` characters, in order; what one chunk cannot hold is cut where it hurts least.

    A Markdown heading with text under it begins a chunk, and a code fence that fits is kept whole. Paragraphs are cut
    only when longer than the limit, at sentence ends; sentences likewise, at line ends, then between words; a word
    last.
    """
    return [chunk for section in _sections(text) for chunk in _packed(section, limit)]


def _lines(text: str) -> Iterator[tuple[int, str, int]]:
    """(offset, line, fence): 0 outside of code fences, else which fence of the text the line belongs to."""
    offset, count, mark = 0, 0, ""
    for line in text.splitlines(keepends=True):
        match = _FENCE.match(line)
        rest = line[match.end() :].strip() if match else ""
        opens = match is not None and not mark and not (match[1][0] == "`" and "`" in rest)
        closes = match is not None and bool(mark) and match[1].startswith(mark) and not rest
        if opens and match:
            mark, count = match[1], count + 1
        yield offset, line, count if mark else 0
        if closes:
            mark = ""
        offset += len(line)


def _sections(text: str) -> Iterator[Chunk]:
    """The document from heading to heading, each with its path of headings; a bare heading joins what follows it."""
    path: list[tuple[int, str]] = []
    start, body = 0, False
    for offset, line, fence in _lines(text):
        heading = None if fence else _HEADING.match(line)
        if heading is None:
            body = body or not line.isspace()
            continue
        if body:
            yield Chunk(text[start:offset], start, tuple(title for _, title in path))
            start, body = offset, False
        level = len(heading[1])
        path = [entry for entry in path if entry[0] < level] + [(level, _title(heading[2]))]
    yield Chunk(text[start:], start, tuple(title for _, title in path))


def _title(text: str) -> str:
    """The words of a heading, without the #s that may close it."""
    title = text.rstrip()
    bare = title.rstrip("#")
    return bare.rstrip() if bare != bare.rstrip() else title


def _packed(section: Chunk, limit: int) -> Iterator[Chunk]:
    """Consecutive pieces of a section, joined as long as they fit."""
    first = end = 0
    for a, b in _pieces(section.text, limit):
        if b - first > limit:
            yield from _chunk(section, first, end)
            first = a
        end = b
    yield from _chunk(section, first, end)


def _chunk(section: Chunk, a: int, b: int) -> Iterator[Chunk]:
    text = section.text[a:b]
    if text.strip():
        lead = len(text) - len(text.lstrip())
        yield Chunk(text.strip(), section.start + a + lead, section.headings)


def _pieces(text: str, limit: int) -> Iterator[Span]:
    for a, b, fence in _blocks(text):
        yield from _fitting(text, a, b, limit, _OF_CODE if fence else _OF_PROSE)


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, is a code fence) of paragraphs and fences."""
    start, current = 0, 0
    for offset, line, fence in _lines(text):
        if fence != current:
            yield start, offset, bool(current)
            start, current = offset, fence
        if not fence and line.isspace():
            yield start, offset + len(line), False
            start = offset + len(line)
    yield start, len(text), bool(current)


def _fitting(text: str, a: int, b: int, limit: int, bounds: tuple[Bounds, ...]) -> Iterator[Span]:
    """Spans of text[a:b] within the limit, cut at the first kind of bound that suffices for each."""
    if b - a <= limit:
        yield a, b
    elif not bounds:
        yield from ((c, min(c + limit, b)) for c in range(a, b, limit))
    else:
        start = a
        for cut in (*bounds[0](text, a, b), b):
            if cut > start:
                yield from _fitting(text, start, cut, limit, bounds[1:])
                start = cut


def _sentence_ends(text: str, a: int, b: int) -> Iterator[int]:
    for match in _SENTENCE_END.finditer(text, a, b):
        before = text[max(a, match.start() - _LONGEST_ABBREVIATION) : match.start() + 1]
        goes_on = text[match.end() : match.end() + 1].islower() or _ABBREVIATION.search(before)
        if not goes_on:
            yield match.end()


def _ends(pattern: str) -> Bounds:
    matches = re.compile(pattern).finditer
    return lambda text, a, b: (match.end() for match in matches(text, a, b))


# the second kind of prose bounds: some people write no capitals
_OF_PROSE: tuple[Bounds, ...] = (_sentence_ends, _ends(_SENTENCE_END.pattern), _ends(r"\n"), _ends(r"\s+"))
_OF_CODE: tuple[Bounds, ...] = (_ends(r"\n"), _ends(r"\s+"))
