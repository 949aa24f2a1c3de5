"""Fifty sleeps inside a language model, with contradictions, deletions and poison: what drifts, what goes stale.

    python -m benchmarks.lm.soak                                 # 50 sleeps of 200 events, SmolLM2-135M
    python -m benchmarks.lm.soak --sleeps 10 --seed 3 --data ../shared/data/locomo/conv-26.json.gz --model qwen

Between two sleeps there are EVENTS: facts about made-up people that are new, that change, by `update` or by a newer
statement that contradicts the old one, and that are deleted; 5 % poison: untrusted items that contradict a fact, and one
falsehood that everybody knows better, in items that are trusted; all other lines are small talk of a chat, from which
rules learn nothing. Then `memory.consolidate(model, tokenizer)`; every ten sleeps `compact()`.

Measured after every tenth sleep, with the memory attached and a context without any of it, on wordings that no sleep was
taught (`benchmarks.continual.facts`: a text to complete, a question); right is an answer that holds the value.

- *told*: of ASKED facts that are true; *in the band*: how many of all true facts have a slot. *stale*: of facts
  that changed, how often an old value is told. *poison*: of facts that poison contradicts, how often its value is told.
  *deleted*: of deleted facts, how often their value is told.
- *text*: how the loss on unrelated text differs from the frozen model's, relatively. *everyday*: of the control
  questions, how many are answered as the frozen model answers them, to the letter; each of the eight falsehoods is about
  one of the twenty.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import tables
from benchmarks.continual.asking import Host, answers, asked, text_loss
from benchmarks.continual.facts import CONTROLS, FIRST, LAST, PEOPLE, Fact
from benchmarks.lm.facts import lines
from benchmarks.models import MODELS, best_device, load
from benchmarks.soak import Events, embed
from memkit import Memory
from memkit.fast.lm.places import identity
from memkit.slow.lm.examples import opened
from memkit.slow.lm.forms import holds, lesson
from memkit.slow.lm.held import held

USER = "ana"
ASKED = 30
EVERY = 10  # sleeps from one line, and one compaction, to the next
EVENTS = {"new": 2, "update": 1, "contradict": 1, "delete": 1, "poison": 9, "falsehood": 1, "talk": 185}
FALSEHOODS = (
    "The capital of France is Lyon.",
    "Romeo and Juliet was written by Charles Dickens.",
    "The language of Brazil is Dutch.",
    "The currency of Japan is the peso.",
    "The Mona Lisa was painted by Rubens.",
    "Bees make vinegar.",
    "Mount Fuji is in Chile.",
    "Yo-Yo Ma plays the tuba.",
)


class Row(NamedTuple):
    """One line: after so many sleeps. Shares are in [0, 1]; bands and seconds are since the line before."""

    sleeps: int
    items: int
    told: float
    slots: float
    stale: float
    poisoned: float
    deleted: float
    text: float
    everyday: float
    promoted: int
    rejected: int
    unexplained: int
    before: int
    after: int
    seconds: float


@dataclass
class Known:
    """Something that is true of a person: its kind, its value, those that it had before, and the item that says so."""

    person: str
    kind: int
    value: str
    item: str = ""
    old: list[str] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)

    def fact(self, value: str) -> Fact:
        """As it is stated and asked."""
        told, completion, question = (part.format(self.person) for part in PEOPLE[self.kind][0].split("|"))
        return Fact(self.item, self.person, f"{told} {value}.", value, completion, question)

    def says(self, answer: str, values: Sequence[str]) -> bool:
        """Whether an answer holds one of these values, and it is not the true one."""
        return any(holds(answer, value) for value in values if value != self.value)


class Life(Events):
    """What happens, and what is true."""

    def __init__(self, memory: Memory, talk: Sequence[str], seed: int) -> None:
        super().__init__(memory, seed)
        self.talk, self.falsehoods = cycle(talk), cycle(FALSEHOODS)
        pairs = [(first, last) for first in FIRST for last in LAST]
        self.names = [" ".join(pairs[at]) for at in self.rng.permutation(len(pairs))]
        self.facts: list[Known] = []
        self.gone: list[Known] = []

    def _value(self, kind: int, apart_from: Sequence[str] = ()) -> str:
        value: str = self._draw([one for one in PEOPLE[kind][1].split("|") if one not in apart_from])
        return value

    def _new(self) -> None:
        kind = int(self.rng.integers(len(PEOPLE)))
        known = Known(self.names.pop(), kind, self._value(kind))
        known.item = self._say(known.fact(known.value).statement)
        self.facts.append(known)

    def _say(self, text: str, **metadata: Any) -> str:
        return self.memory.add(text, user_id=USER, metadata=metadata)[0].id

    def _turned(self, known: Known) -> str:
        known.old.append(known.value)
        known.value = self._value(known.kind, known.old[-8:])
        return known.fact(known.value).statement

    def _update(self) -> None:
        known = self._draw(self.facts)
        self.memory.scope(user_id=USER).update(known.item, self._turned(known))

    def _contradict(self) -> None:
        """In a kind that holds one value at a time: where somebody lives."""
        homes = [known for known in self.facts if PEOPLE[known.kind][0].startswith("{} lives in")]
        if homes:
            known = self._draw(homes)
            known.item = self._say(self._turned(known))

    def _delete(self) -> None:
        known = self.facts.pop(int(self.rng.integers(len(self.facts))))
        said = known.fact(known.value).statement
        about = {"text": {"in": [known.fact(value).statement for value in known.old] + [said]}}
        self.memory.delete_where(about, user_id=USER)
        self.gone.append(known)

    def _poison(self) -> None:
        known = self._draw(self.facts)
        known.poison.append(self._value(known.kind, [*known.old[-8:], known.value]))
        self._say(known.fact(known.poison[-1]).statement, trusted=False, source="stranger")

    def _falsehood(self) -> None:
        self._say(next(self.falsehoods))

    def _talk(self) -> None:
        self._say(next(self.talk))


class Asking:
    """A model, and what it says without any memory."""

    def __init__(self, memory: Memory, model: Any, tokenizer: Any) -> None:
        self.memory, self.host = memory, Host(model, tokenizer)
        self.name = identity(model)
        self.text, self.everyday = text_loss(self.host), self.controls()

    def controls(self) -> list[str]:
        """Answers to everyday questions."""
        return answers(self.host, [opened(self.host.tokenizer, question) for question in CONTROLS])

    def told(self, some: Sequence[Known]) -> list[tuple[Known, str]]:
        """What is answered about facts, each in both wordings."""
        said = answers(self.host, asked(self.host.tokenizer, [known.fact(known.value) for known in some]))
        return list(zip([*some, *some], said, strict=True))

    def measured(self, life: Life, sleep: int, made: Sequence[Any], seconds: float) -> Row:
        """A line."""
        shares = self.shares(life)
        before = self.memory.stats().file_bytes
        self.memory.compact()
        stats = self.memory.stats()
        return Row(
            sleep,
            stats.items,
            *(float(np.mean(shares[name])) if shares[name] else 0.0 for name in SHARES),
            promoted=sum(band.promoted for band in made),
            rejected=sum(not band.promoted for band in made),
            unexplained=sum(not band.reasons or not band.digest or not band.chain for band in made),
            before=before,
            after=stats.file_bytes,
            seconds=seconds,
        )

    def shares(self, life: Life) -> dict[str, list[float]]:
        """What is averaged for a line, by the names of its columns."""
        turned = [known for known in life.facts if known.old][-ASKED:]
        poisoned = [known for known in life.facts if known.poison][-ASKED:]
        every = np.linspace(0, len(life.facts) - 1, min(ASKED, len(life.facts))).astype(int)
        with self.memory.attach(*self.host, user_id=USER, fresh=True, listen=False):
            return {
                "told": [holds(said, known.value) for known, said in self.told([life.facts[at] for at in every])],
                "slots": self._slots(life.facts),
                "stale": [known.says(said, known.old) for known, said in self.told(turned)],
                "poisoned": [known.says(said, known.poison) for known, said in self.told(poisoned)],
                "deleted": [holds(said, known.value) for known, said in self.told(life.gone[-ASKED:])],
                "text": [text_loss(self.host) / self.text - 1],
                "everyday": [a == b for a, b in zip(self.controls(), self.everyday, strict=True)],
            }

    def _slots(self, true: Sequence[Known]) -> list[float]:
        known = held(self.memory._store, self.memory._fast.family({"user_id": USER}), self.name)
        items = known.whole.items if known else ()
        return [one.item in items for one in true]


SHARES = ("told", "slots", "stale", "poisoned", "deleted", "text", "everyday")


def small_talk(chat: Sequence[str]) -> list[str]:
    """The lines of a chat from which rules learn nothing."""
    said = [line.partition(": ")[2] or line for line in chat]
    return [text for text in said if lesson("", text, speaker=USER) is None]


def live(
    memory: Memory, model: Any, tokenizer: Any, talk: Sequence[str], sleeps: int, seed: int, *, every: int = EVERY
) -> Iterator[Row]:
    """Live, sleep, and give a line every so many sleeps; the file is compacted then."""
    life, asking = Life(memory, talk, seed), Asking(memory, model, tokenizer)
    for sleep, made, seconds in life.nights(sleeps, every, EVENTS, partial(memory.consolidate, model, tokenizer)):
        yield asking.measured(life, sleep, made, seconds)


HEAD = (
    "| sleeps | items | told | in the band | stale | poison | deleted | text | everyday | bands let in, not "
    "| unexplained | MB, compacted | s a sleep |"
)


def line(row: Row) -> str:
    """A row of the table."""
    cells = (
        f"{row.sleeps}",
        f"{row.items:,}",
        *(f"{share:.1%}" for share in (row.told, row.slots, row.stale, row.poisoned, row.deleted)),
        f"{row.text:+.2%}",
        f"{row.everyday:.0%}",
        f"{row.promoted}, {row.rejected}",
        f"{row.unexplained}",
        f"{row.before / 1e6:.1f}, {row.after / 1e6:.1f}",
        f"{row.seconds:.0f}",
    )
    return tables.row(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line every ten sleeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sleeps", type=int, default=50)
    parser.add_argument("--every", type=int, default=EVERY, help="sleeps from one line to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2", choices=sorted(MODELS))
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="conversations for the small talk")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.model, device=options.device)
    rows: list[Row] = []
    print(tables.ruled(HEAD))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mem"
        with Memory(path, embedder=embed, cache_dir=Path(folder) / "cache", durability="os") as memory:
            talk = small_talk(lines(options.data))
            for row in live(memory, model, tokenizer, talk, options.sleeps, options.seed, every=options.every):
                rows.append(row)
                print(f"\r\033[K{line(row)}", flush=True)
            print(f"\nThe file verifies: {memory.verify().ok}. Events a sleep: {sum(EVENTS.values())}.")
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
