"""The best evidence as text for a prompt, within a hard budget of tokens.

    [1] 2026-05-03 14:05 Ana: I found a flat in Lisbon.
    [2] Bob: Congratulations! Which part?
    [3] Ana: Alfama, next to
        the river.
    [4] 2026-06-11 (also 2026-04-30) Ana: The rent is due.

Every item begins a line with its number, and nothing else does: further lines of a text are indented, and a number
that some text has in brackets itself is not given to any item. Times are UTC; the time of day is shown where items of
one day differ in it. A line without a time follows on the line above, in the same conversation or document.

What is taken: hits in their order, each that still fits, the best one always first. Of items that repeat each other
the newest stands for all ("also" tells when else it was said) and the others are not cited. Where one makes another a
thing of the past (`memkit.relations`), the newer comes first, the older is marked in order of time and never stands
alone; so it is with an item that is not trusted and contradicts or imitates one that is, however new it is. Room that
is left goes to single turns that are missing between two others.

The budget holds for the final text as `count` sees it, whatever `count` is: each state that was kept has been counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from memkit.items import Hit, is_trusted
from memkit.relations import cosine, is_newer, precedence, repeats, speaker_of, yields
from memkit_storage.errors import CallableFailed
from memkit_storage.rows import Vector

Order = Literal["time", "best"]
Count = Callable[[str], int]
Neighbour = Callable[[Hit, int], Hit | None]

USEFUL = 8  # words of a cut item; fewer are left out
SESSION = timedelta(hours=1)  # of silence ends a conversation
_BRACKETED = re.compile(r"\[\s*(\d{1,9})\s*\]")
# a word with what follows it; in scripts without spaces a character is a word
_WORD = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]\s*|\S+?(?=[\u3040-\u9fff])|\S+\s*"
)
_SENTENCE_END = re.compile(r"[.!?…。！？]['\")\]]*\s*$")


class Packed(NamedTuple):
    """Context: the text, the items in it best first, number in the text -> item id, and the size by `count`."""

    text: str
    hits: list[Hit]
    citations: dict[int, str]
    tokens: int


NOTHING = Packed("", [], {}, 0)


def estimate_tokens(text: str) -> int:
    """A tokenizer-free estimate on the safe side: four bytes a token, and never fewer than one a word."""
    return max(len(text.encode()) // 4 + 1, len(text.split())) if text else 0


def pack(
    hits: Sequence[Hit],
    *,
    max_tokens: int,
    vectors: Mapping[int, Vector],
    neighbours: Neighbour,
    order: Order = "time",
    count: Count = estimate_tokens,
) -> Packed:
    """Hits as dated, numbered lines, as far as the budget goes.

    Args:
        hits: best first.
        max_tokens: hard limit of the text by `count`.
        vectors: log position -> unit (d,); where one is missing, only equal texts count as repeated.
        neighbours: (hit, step) -> the item before (-1) or after (1) it in its scope and run, if any.
        order: "time" is oldest first with missing turns filled in; "best" is best first, of versions the newest.
        count: tokens of a text; any callable will do, it need not be additive or grow with the text.

    Returns:
        Empty when nothing fits. An item that is too long to stand alone is cut at the end of a sentence, or else of
        a word, and ends in "…", if at least `USEFUL` words fit.

    Raises:
        CallableFailed: `count` raised or returned no number.
    """
    draft = _Draft.of(hits, vectors, neighbours, order)
    budget = _Budget(max_tokens, count)
    chosen = _chosen(draft, budget)
    if order == "time":
        chosen = _filled(draft, chosen, budget)
    if not chosen:
        return NOTHING
    text, citations = draft.written(chosen)
    return Packed(text, [line.hit for line in chosen], citations, budget.size(text))


@dataclass(frozen=True, slots=True)
class _Budget:
    limit: int
    count: Count

    def size(self, text: str) -> int:
        try:
            return int(self.count(text))
        except Exception as error:
            raise CallableFailed(
                f"count_tokens failed with {type(error).__name__}: {error}; pass a callable text -> number of tokens"
            ) from error

    def holds(self, text: str) -> bool:
        return self.size(text) <= self.limit


class _Line(NamedTuple):
    """A hit as it is printed: its text, maybe cut, and the older ones that it stands for."""

    hit: Hit
    text: str
    also: tuple[Hit, ...] = ()

    @property
    def when(self) -> tuple[datetime, int]:
        return self.hit.occurred_at, self.hit.position


@dataclass(frozen=True, slots=True)
class _Draft:
    """All that may be printed, best first, and how it hangs together.

    Attributes:
        ahead: position of an item that yields to another one -> that one.
        after: memo of what follows an item in its conversation.
    """

    lines: tuple[_Line, ...]
    ahead: Mapping[int, Hit]
    neighbours: Neighbour
    order: Order
    after: dict[int, Hit | None] = field(default_factory=dict)

    @classmethod
    def of(cls, hits: Sequence[Hit], vectors: Mapping[int, Vector], neighbours: Neighbour, order: Order) -> _Draft:
        lines = _collapsed(hits, vectors)
        ahead = _ahead(lines, vectors)
        return cls(tuple(_in_turn(lines, ahead)), ahead, neighbours, order)

    def follower(self, hit: Hit) -> Hit | None:
        """The next turn of the same conversation, or chunk of the same document; it happened later or as it was."""
        if hit.position not in self.after:
            found = self.neighbours(hit, 1) if _belongs(hit) else None
            joined = found is not None and _belongs(found) == _belongs(hit) and is_newer(found, hit)
            close = joined and found is not None and found.occurred_at - hit.occurred_at <= SESSION
            self.after[hit.position] = found if close else None
        return self.after[hit.position]

    def written(self, chosen: Sequence[_Line]) -> tuple[str, dict[int, str]]:
        """The text, and number in it -> item id."""
        passages = self._passages(chosen)
        printed = [line for passage in passages for line in passage]
        numbers = dict(zip((line.hit.position for line in printed), _numbers(printed), strict=True))
        clocks = _clocks(passages)
        rows = [
            f"[{numbers[line.hit.position]}] {self._head(line, first=i == 0, numbers=numbers, clocks=clocks)}"
            f"{_indented(line.text)}"
            for passage in passages
            for i, line in enumerate(passage)
        ]
        return "\n".join(rows), {numbers[line.hit.position]: line.hit.id for line in printed}

    def _head(self, line: _Line, *, first: bool, numbers: Mapping[int, int], clocks: frozenset[object]) -> str:
        """Time, notes and speaker."""
        stamp = "%Y-%m-%d %H:%M" if line.hit.occurred_at.date() in clocks else "%Y-%m-%d"
        parts = [f"{line.hit.occurred_at:{stamp}}"] if first else []
        if line.also:
            parts.append(_also(line.hit.occurred_at, [one.occurred_at for one in line.also]))
        ahead = self.ahead.get(line.hit.position)
        if ahead is not None and ahead.position in numbers and self.order == "time":
            doubted = is_trusted(ahead.metadata) and not is_trusted(line.hit.metadata)
            parts.append(f"({'not trusted, unlike' if doubted else 'superseded by'} [{numbers[ahead.position]}])")
        speaker = speaker_of(line.hit)
        return "".join(f"{part} " for part in [*parts, *([f"{speaker}:"] if speaker else [])])

    def _passages(self, chosen: Sequence[_Line]) -> list[list[_Line]]:
        """Lines in the order of print; those of one passage follow each other in their conversation."""
        if self.order == "time":
            return self._chains(chosen)
        passages: list[list[_Line]] = []
        for line in chosen:
            before = self.follower(passages[-1][-1].hit) if passages else None
            if before is not None and before.position == line.hit.position:
                passages[-1].append(line)
            else:
                passages.append([line])
        return passages

    def _chains(self, chosen: Sequence[_Line]) -> list[list[_Line]]:
        known = {line.hit.position: line for line in chosen}
        follows: dict[int, _Line] = {}
        preceded: set[int] = set()
        for line in sorted(chosen, key=lambda one: one.when):
            after = self.follower(line.hit)
            if after is not None and after.position in known and after.position not in preceded:
                follows[line.hit.position] = known[after.position]
                preceded.add(after.position)
        heads = sorted((line for line in chosen if line.hit.position not in preceded), key=lambda one: one.when)
        return [list(_chain(head, follows)) for head in heads]


def _chain(head: _Line, follows: Mapping[int, _Line]) -> Iterator[_Line]:
    line: _Line | None = head
    while line is not None:
        yield line
        line = follows.get(line.hit.position)


def _belongs(hit: Hit) -> tuple[str, object] | None:
    """What a passage is made of: turns of a conversation, or chunks of one document. A note stands alone."""
    if speaker_of(hit) is not None:
        return "conversation", hit.run_id
    source = hit.metadata.get("source")
    return ("document", source) if source and "chunk" in hit.metadata else None


# which


def _collapsed(hits: Sequence[Hit], vectors: Mapping[int, Vector]) -> list[_Line]:
    """Of hits that repeat each other the newest, at the place of the best; one that is not trusted stands for none that
    is, and does not tell when else it was said."""
    kept: list[list[Hit]] = []
    for hit in hits:
        group = next((group for group in kept if _same(group[0], hit, vectors)), None)
        if group is None:
            kept.append([hit])
        elif all(one.position != hit.position for one in group):
            group.append(hit)
            group.sort(key=precedence, reverse=True)
    return [
        _Line(
            first, first.text, tuple(one for one in rest if is_trusted(one.metadata) or not is_trusted(first.metadata))
        )
        for first, *rest in kept
    ]


def _same(one: Hit, other: Hit, vectors: Mapping[int, Vector]) -> bool:
    first, then = (one, other) if precedence(one) > precedence(other) else (other, one)
    return repeats(first, then, cosine(first, then, vectors))


def _ahead(lines: Sequence[_Line], vectors: Mapping[int, Vector]) -> dict[int, Hit]:
    """Position of each item that yields to another -> the first, by trust and then by time, that it yields to."""
    ranked = sorted((line.hit for line in lines), key=precedence, reverse=True)
    found: dict[int, Hit] = {}
    for i, first in enumerate(ranked):
        for then in ranked[i + 1 :]:
            if then.position not in found and yields(then, first, cosine(then, first, vectors)):
                found[then.position] = first
    return found


def _in_turn(lines: Sequence[_Line], ahead: Mapping[int, Hit]) -> Iterator[_Line]:
    """Best first, but what an item yields to stands before it."""
    left = {line.hit.position: line for line in lines}
    for line in lines:
        line_up: list[_Line] = []
        hit: Hit | None = line.hit
        while hit is not None and hit.position in left:
            line_up.append(left.pop(hit.position))
            hit = ahead.get(hit.position)
        yield from reversed(line_up)


def _chosen(draft: _Draft, budget: _Budget) -> list[_Line]:
    """Lines that fit, best first; the first of them cut if it must be."""
    chosen: list[_Line] = []
    for line in draft.lines:
        there = {one.hit.position for one in chosen}
        ahead = draft.ahead.get(line.hit.position)
        if ahead is not None and ahead.position not in there:
            continue
        if budget.holds(draft.written([*chosen, line])[0]):
            chosen.append(line)
        elif not chosen:
            part = _cut(draft, line, budget)
            chosen = [part] if part else []
    return chosen


def _cut(draft: _Draft, line: _Line, budget: _Budget) -> _Line | None:
    """As much of an item as fits alone: to the end of a sentence if that keeps half of it, or else of a word."""
    words = _WORD.findall(line.text)
    low, high = 0, len(words) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if budget.holds(draft.written([_shortened(line, words, middle)])[0]):
            low = middle
        else:
            high = middle - 1
    ends = [i for i in range(max(USEFUL, low // 2), low + 1) if _SENTENCE_END.search(words[i - 1])]
    for size in (*ends[-1:], low):
        part = _shortened(line, words, size)
        if size >= USEFUL and budget.holds(draft.written([part])[0]):
            return part
    return None


def _shortened(line: _Line, words: Sequence[str], size: int) -> _Line:
    return line._replace(text=f"{''.join(words[:size]).rstrip()} …")


def _filled(draft: _Draft, chosen: list[_Line], budget: _Budget) -> list[_Line]:
    """With the turns that are missing between two others, as far as there is room."""
    known = {hit.position for line in (*chosen, *draft.lines) for hit in (line.hit, *line.also)}
    printed = {line.hit.position for line in chosen}
    for line in list(chosen):
        gap = draft.follower(line.hit)
        beyond = draft.follower(gap) if gap is not None and gap.position not in known else None
        if gap is None or beyond is None or beyond.position not in printed:
            continue
        wider = [*chosen, _Line(gap, gap.text)]
        if budget.holds(draft.written(wider)[0]):
            chosen, known = wider, known | {gap.position}
    return chosen


# how


def _numbers(printed: Sequence[_Line]) -> list[int]:
    """1, 2, …, without those that some text has in brackets: a citation means one thing."""
    taken = {int(digits) for line in printed for digits in _BRACKETED.findall(f"{speaker_of(line.hit)} {line.text}")}
    numbers: list[int] = []
    number = 0
    while len(numbers) < len(printed):
        number += 1
        if number not in taken:
            numbers.append(number)
    return numbers


def _clocks(passages: Sequence[Sequence[_Line]]) -> frozenset[object]:
    """Days of which items differ in their time of day."""
    times: dict[object, set[tuple[int, int]]] = {}
    for passage in passages:
        for line in passage:
            at = line.hit.occurred_at
            times.setdefault(at.date(), set()).add((at.hour, at.minute))
    return frozenset(day for day, different in times.items() if len(different) > 1)


def _also(last: datetime, others: Sequence[datetime]) -> str:
    days = sorted({one.date() for one in others} - {last.date()})
    if not days:
        return "(said twice)" if len(others) == 1 else f"(said {len(others) + 1} times)"
    return f"(also {days[0]})" if len(others) == 1 else f"(also {len(others)} times since {days[0]})"


def _indented(text: str) -> str:
    """A text whose further lines cannot be taken for lines of their own."""
    return "\n    ".join(text.splitlines())
