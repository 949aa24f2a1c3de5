"""Fifty sleeps over a life with contradictions, deletions and poison: what drifts, what goes stale, how the file grows.

    python -m benchmarks.soak                                    # 50 sleeps of 200 events
    python -m benchmarks.soak --sleeps 10 --seed 3 --json out.json

Two users share a file. Between two sleeps there are EVENTS: new facts about made-up people; facts that change, by
`update` or by a new statement that contradicts the old one (in sentences of the kinds that `memkit.relations` reads); deletions; questions in another wording whose answer is fed
back if it stands among the ten found; and 5 % poison: half are untrusted items that contradict a fact, half are feedback
that names a wrong item, untrusted or from a named source. Then `memory.consolidate()`; every ten sleeps `compact()`.

Measured after every tenth sleep, on facts that nothing but poisonous feedback touches (probes, PROBES a user): how often
the right item is first, and the mean reciprocal rank, as memkit ranks and as it would without anything learned (`prior`;
there are more and more items to be taken for the answer). Stale: of ASKED facts that have changed, how often the first
item of `recall` about the fact is an old one (of an updated item there is but the new version). Poison: how often an
untrusted item, which may be quoted, comes first where it contradicts a fact. Deleted: how often `search` still finds a
deleted item. Vectors are bags of hashed words.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import tables
from memkit import Memory
from memkit.slow.bands import Band
from memkit.slow.rounds import SleepReport

DIM = 64
USERS = ("ana", "bo")
PROBES, ASKED = 40, 100
EVERY = 10  # sleeps from one line, and one compaction, to the next
EVENTS = {"new": 110, "update": 20, "contradict": 20, "delete": 10, "ask": 30, "poison item": 5, "poison feedback": 5}
RELATIONS = {  # how it is stated, how it is asked in those words, and in others
    "home": ("{p} lives in {v}.", "which place does {p} live in?", "home town of {p}"),
    "work": ("{p} works at {v}.", "{p} works at which firm?", "employer of {p}"),
    "colour": ("{p}'s favourite colour is {v}.", "what is {p}'s favourite colour?", "the shade that {p} likes best"),
    "dish": ("{p}'s favourite dish is {v}.", "what is {p}'s favourite dish?", "the meal that {p} likes best"),
    "manager": ("{p}'s manager is {v}.", "who is {p}'s manager?", "whom does {p} report to"),
    "dentist": ("{p}'s dentist is {v}.", "who is {p}'s dentist?", "who looks after the teeth of {p}"),
    "landlord": ("{p}'s landlord is {v}.", "who is {p}'s landlord?", "who owns the flat of {p}"),
    "coach": ("{p}'s coach is {v}.", "who is {p}'s coach?", "who trains {p}"),
}
SYLLABLES = ["ba", "ko", "li", "mu", "ne", "pa", "ri", "so", "ta", "vu", "ze", "do"]


class Row(NamedTuple):
    """One line: after so many sleeps. Shares are in [0, 1]; bands and seconds are since the line before."""

    sleeps: int
    items: int
    first: float
    reciprocal: float
    prior_first: float
    prior_reciprocal: float
    stale: float
    poisoned: float
    deleted: int
    promoted: int
    rejected: int
    unexplained: int
    canaries: float
    before: int
    after: int
    seconds: float


@dataclass
class Fact:
    """Something that is true of a person, and the items that say or said so, the newest last."""

    user: str
    person: str
    relation: str
    ids: list[str] = field(default_factory=list)
    changed: bool = False

    @property
    def question(self) -> str:
        """In the words of the statement."""
        return RELATIONS[self.relation][1].format(p=self.person)

    @property
    def asked(self) -> str:
        """In other words."""
        return RELATIONS[self.relation][2].format(p=self.person)


@cache
def _direction(word: str) -> Any:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).normal(size=DIM)


def embed(texts: list[str]) -> Any:
    """(n, DIM) a random direction for each word."""
    words = [text.lower().replace("'s", " ").strip(".?").split() for text in texts]
    return np.stack([np.sum([_direction(word) for word in some], axis=0) for some in words])


class Events:
    """A life in a memory: its events are methods, everything is drawn from a seed, and `facts` are those in force."""

    facts: list[Any]

    def __init__(self, memory: Memory, seed: int) -> None:
        self.memory, self.rng = memory, np.random.default_rng(seed)

    def happen(self, event: str) -> None:
        """One event."""
        getattr(self, "_" + event.replace(" ", "_"))()

    def day(self, events: dict[str, int]) -> None:
        """So many of each event, in any order; as long as nothing is true, something new becomes so."""
        schedule = [event for event, count in events.items() for _ in range(count)]
        for place in self.rng.permutation(len(schedule)).tolist():
            self.happen(schedule[place] if self.facts else "new")

    def nights(
        self, sleeps: int, every: int, events: dict[str, int], sleep: Callable[[], SleepReport]
    ) -> Iterator[tuple[int, list[Band], float]]:
        """Live and sleep; every so many sleeps: how many, the bands made since the last time, seconds a sleep."""
        made: list[Band] = []
        seconds = 0.0
        for number in range(1, sleeps + 1):
            self.day(events)
            start = time.perf_counter()
            made += sleep().bands
            seconds += time.perf_counter() - start
            print(f"\r\033[K{number} of {sleeps}", end="", file=sys.stderr, flush=True)
            if number % every == 0:
                yield number, made, seconds / every
                made, seconds = [], 0.0

    def _draw(self, some: Sequence[Any]) -> Any:
        return some[int(self.rng.integers(len(some)))]


class Life(Events):
    """What happens, and what is true."""

    def __init__(self, memory: Memory, seed: int, probes: int = PROBES) -> None:
        super().__init__(memory, seed)
        self.facts: list[Fact] = []
        self.gone: list[Fact] = []
        self.poison: dict[str, Fact] = {}
        self.known: set[tuple[str, str, str]] = set()
        self.probes = [self._new(user) for user in USERS for _ in range(probes)]

    def _name(self, syllables: int) -> str:
        return "".join(self._draw(SYLLABLES) for _ in range(syllables)).title()

    def _new(self, user: str | None = None) -> Fact:
        key = (user or self._draw(USERS), self._name(3), self._draw(list(RELATIONS)))
        if key in self.known:
            return self._new(user)
        self.known.add(key)
        fact = Fact(*key)
        self._state(fact)
        if user is None:
            self.facts.append(fact)
        return fact

    def _text(self, fact: Fact) -> str:
        return RELATIONS[fact.relation][0].format(p=fact.person, v=self._name(4))

    def _state(self, fact: Fact) -> None:
        (item,) = self.memory.add(self._text(fact), user_id=fact.user)
        fact.ids.append(item.id)

    def _update(self) -> None:
        fact = self._draw(self.facts)
        self.memory.scope(user_id=fact.user).update(fact.ids[-1], self._text(fact))
        fact.changed = True

    def _contradict(self) -> None:
        fact = self._draw(self.facts)
        self._state(fact)
        fact.changed = True

    def _delete(self) -> None:
        fact = self.facts.pop(int(self.rng.integers(len(self.facts))))
        self.memory.delete(fact.ids)
        self.gone.append(fact)

    def _ask(self) -> None:
        fact = self._draw(self.facts)
        hits = self.memory.search(fact.asked, limit=10, user_id=fact.user)
        if fact.ids[-1] in [hit.id for hit in hits]:
            self.memory.feedback(fact.asked, used=fact.ids[-1], user_id=fact.user)

    def _poison_item(self) -> None:
        fact = self._draw(self.facts)
        metadata = {"trusted": False, "source": "stranger"}
        (item,) = self.memory.add(self._text(fact), user_id=fact.user, metadata=metadata)
        self.poison[item.id] = fact

    def _poison_feedback(self) -> None:
        fact = self._draw(self.facts + self.probes)
        others = [hit.id for hit in self.memory.search(fact.asked, user_id=fact.user) if hit.id not in fact.ids]
        if others:
            who: dict[str, Any] = {"source": "stranger"} if self.rng.random() < 0.5 else {"trusted": False}
            self.memory.feedback(fact.asked, used=self._draw(others), user_id=fact.user, **who)

    # measuring

    def recalled(self, memory: Memory) -> tuple[float, float]:
        """Of the probes: share that is first, and mean reciprocal rank."""
        ranks = []
        for fact in self.probes:
            found = [hit.id for hit in memory.search(fact.asked, limit=20, user_id=fact.user)]
            ranks.append(1 / (1 + found.index(fact.ids[0])) if fact.ids[0] in found else 0.0)
        return float(np.mean(np.equal(ranks, 1))), float(np.mean(ranks))

    def stale(self) -> float:
        """Of facts that have changed, said anew or updated: the share whose answer is an old one."""
        changed = [fact for fact in self.facts if fact.changed]
        answers = [self._answer(fact, fact.ids) for fact in changed[-ASKED:]]
        pairs = zip(answers, changed[-ASKED:], strict=True)
        return float(np.mean([answer is not None and answer != fact.ids[-1] for answer, fact in pairs]))

    def poisoned(self) -> float:
        """Of facts that poison contradicts: the share whose answer is the poison."""
        some = [(id_, fact) for id_, fact in self.poison.items() if fact not in self.gone][-ASKED:]
        return float(np.mean([self._answer(fact, [*fact.ids, id_]) == id_ for id_, fact in some]))

    def _answer(self, fact: Fact, about: Sequence[str]) -> str | None:
        hits = self.memory.recall(fact.question, user_id=fact.user).hits
        return next((hit.id for hit in hits if hit.id in about), None)

    def found_again(self) -> int:
        """How many deleted items a search still finds."""
        gone = [(fact, set(fact.ids)) for fact in self.gone[-ASKED:]]
        return sum(hit.id in ids for fact, ids in gone for hit in self.memory.search(fact.question, user_id=fact.user))


def live(
    memory: Memory, sleeps: int, seed: int, *, every: int = EVERY, events: dict[str, int] | None = None
) -> Iterator[Row]:
    """Live, sleep, and give a line every so many sleeps; the file is compacted then."""
    life = Life(memory, seed)
    for sleep, made, seconds in life.nights(sleeps, every, events or EVENTS, memory.consolidate):
        yield _measured(life, sleep, made, seconds)


def _measured(life: Life, sleep: int, made: list[Any], seconds: float) -> Row:
    memory = life.memory
    before = memory.stats().file_bytes
    memory.compact()
    stats = memory.stats()
    canaries = [band.metrics["canaries_band"] - band.metrics["canaries_now"] for band in made if band.promoted]
    return Row(
        sleep,
        stats.items,
        *life.recalled(memory),
        *life.recalled(memory.branch(None)),
        stale=life.stale(),
        poisoned=life.poisoned(),
        deleted=life.found_again(),
        promoted=sum(band.promoted for band in made),
        rejected=sum(not band.promoted for band in made),
        unexplained=sum(not band.reasons or not band.digest or not band.chain for band in made),
        canaries=min(canaries, default=0.0),
        before=before,
        after=stats.file_bytes,
        seconds=seconds,
    )


HEAD = (
    "| sleeps | items | probes: first, MRR | by the prior | stale | poison first | deleted found | bands let in, not "
    "| unexplained | worst canaries | MB, compacted | s a sleep |"
)


def line(row: Row) -> str:
    """A row of the table."""
    cells = (
        f"{row.sleeps}",
        f"{row.items:,}",
        f"{100 * row.first:.1f}, {100 * row.reciprocal:.1f}",
        f"{100 * row.prior_first:.1f}, {100 * row.prior_reciprocal:.1f}",
        f"{row.stale:.1%}",
        f"{row.poisoned:.1%}",
        f"{row.deleted}",
        f"{row.promoted}, {row.rejected}",
        f"{row.unexplained}",
        f"{row.canaries:+.3f}",
        f"{row.before / 1e6:.1f}, {row.after / 1e6:.1f}",
        f"{row.seconds:.1f}",
    )
    return tables.row(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line every ten sleeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sleeps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every figure there too")
    asked = parser.parse_args(arguments)
    rows: list[Row] = []
    print(tables.ruled(HEAD))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mem"
        with Memory(path, embedder=embed, cache_dir=Path(folder) / "cache", durability="os") as memory:
            for row in live(memory, asked.sleeps, asked.seed):
                rows.append(row)
                print(f"\r\033[K{line(row)}", flush=True)
            print(f"\nThe file verifies: {memory.verify().ok}. Events a sleep: {sum(EVENTS.values())}.")
    if asked.json:
        asked.json.write_text(json.dumps([row._asdict() for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
