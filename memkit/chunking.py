"""Long documents become chunks at headings, paragraphs and sentences; nothing but white space is lost between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LIMIT = 1_200  # characters; about 200 words, which fit into the 256 tokens that the default embedder sees
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
# after . ! ? … (with closing quotes) before white space; CJK sentence ends need no space
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])")


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
    """Pieces of at most `limit` characters, in order.

    A Markdown heading begins a piece and code fences are kept whole where they fit. A sentence is cut only when it
    alone is longer than the limit: then at white space, then anywhere.
    """
    found: list[Chunk] = []
    for section in _sections(text):
        found += _packed(section, limit)
    return found


def _sections(text: str) -> Iterator[Chunk]:
    """The document from heading to heading, each with its path of headings."""
    path: list[tuple[int, str]] = []
    start = offset = 0
    fenced = False
    for line in text.splitlines(keepends=True):
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line.rstrip("\r\n"))
        if heading:
            yield Chunk(text[start:offset], start, tuple(title for _, title in path))
            start, level = offset, len(heading.group(1))
            path = [entry for entry in path if entry[0] < level] + [(level, heading.group(2))]
        offset += len(line)
    yield Chunk(text[start:], start, tuple(title for _, title in path))


def _packed(section: Chunk, limit: int) -> Iterator[Chunk]:
    """Consecutive pieces of a section, joined as long as they fit."""
    first, end = None, 0
    for a, b in _pieces(section.text, limit):
        if first is not None and b - first > limit:
            yield from _chunk(section, first, end)
            first = None
        first, end = (a if first is None else first), b
    if first is not None:
        yield from _chunk(section, first, end)


def _chunk(section: Chunk, a: int, b: int) -> Iterator[Chunk]:
    text = section.text[a:b]
    if text.strip():
        lead = len(text) - len(text.lstrip())
        yield Chunk(text.strip(), section.start + a + lead, section.headings)


def _pieces(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """(start, end) of blocks; of sentences where a block is too long; of words where a sentence is."""
    for a, b in _blocks(text):
        if b - a <= limit:
            yield a, b
            continue
        for c, d in _split(text, a, b, _SENTENCE_END):
            yield from [(c, d)] if d - c <= limit else _cut(text, c, d, limit)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Paragraphs and whole code fences."""
    start = offset = 0
    fenced = False
    for line in text.splitlines(keepends=True):
        fenced ^= bool(_FENCE.match(line))
        offset += len(line)
        if not fenced and not line.strip():
            yield start, offset
            start = offset
    yield start, len(text)


def _split(text: str, a: int, b: int, bound: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    start = a
    for match in bound.finditer(text, a, b):
        if match.end() > start:
            yield start, match.end()
            start = match.end()
    if start < b:
        yield start, b


def _cut(text: str, a: int, b: int, limit: int) -> Iterator[tuple[int, int]]:
    while b - a > limit:
        space = max(text.rfind(" ", a + 1, a + limit), text.rfind("\n", a + 1, a + limit))
        end = space + 1 if space > a + limit // 2 else a + limit
        yield a, end
        a = end
    yield a, b
