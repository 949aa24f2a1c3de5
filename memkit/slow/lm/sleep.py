"""A sleep inside a language model: items of the log become slots beside its weights.

A band holds all that a family's model knows: the slots of the band before whose items are as they were, and new ones
trained beside them. So going back to the band before is going back to what was known then. Items that have changed,
ended, or been superseded by a newer one lose their slots, and those that were learned together with them are trained
again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from memkit.errors import InvalidInput
from memkit.fast.family import Family
from memkit.fast.lm.places import identity
from memkit.fast.tier import FastTier
from memkit.items import Hit
from memkit.relations import cosine, is_newer, may_supersede, supersedes
from memkit.slow import bands
from memkit.slow.bands import Made
from memkit.slow.gate import Verdict
from memkit.slow.lm import checkpoints, gate, probes
from memkit.slow.lm.expert import Expert, to_arrays
from memkit.slow.lm.forms import Lesson, Writer, lesson, tells
from memkit.slow.lm.held import KIND, Held, held
from memkit.slow.lm.train import Progress, Recipe, Report, frozen, train
from memkit.slow.replay import Replay, replay
from memkit.slow.rounds import Budget, SleepReport, Slept, go_round
from memkit.slow.rounds import Progress as Rounds
from memkit.writing import new_id
from memkit_storage import lineage
from memkit_storage.filters import Filter
from memkit_storage.rows import SCOPE_FIELDS, Row, Vector
from memkit_storage.store import Store

USER = "the user"  # of a memory without scopes


class LanguageModel(NamedTuple):
    """What bands are trained in.

    Attributes:
        model, tokenizer: of `AutoModelForCausalLM` and `AutoTokenizer`. device: where to train; None: as `train`.
        writer: text -> questions with answers, besides those made by rules. recipe: of the training.
    """

    model: Any
    tokenizer: Any
    device: str | None = None
    writer: Writer | None = None
    recipe: Recipe = Recipe()


class StoppedError(Exception):
    """The sleep was asked to stop in the midst of training."""


class LMSleeper:
    """Makes the language model bands of one file.

    Args:
        folder: of the index, which an erasure removes; what a killed training goes on from is there.

    Raises:
        InvalidInput: a memory is attached to the model, or it is no dense decoder.
    """

    def __init__(self, store: Store, tier: FastTier, lm: LanguageModel, folder: Path) -> None:
        if getattr(lm.model, "_memkit_attached", False):
            raise InvalidInput("this model has a memory attached; consolidate after that block, or with another copy")
        self._store, self._tier, self._lm, self._folder = store, tier, lm, folder
        self._name = identity(lm.model)

    def sleep(
        self, scope: Mapping[str, str], budget: Budget, *, due: int = 1, progress: Rounds | None = None
    ) -> SleepReport:
        """One sleep for the families that have items within a scope (all, without one).

        Args:
            due: new items from which a family is worth a band.
        """
        self._store.refresh()
        found = families(self._store, self._tier, scope).items()
        work = {family: partial(self._slept, family, rows, budget, due) for family, rows in found}
        return go_round(work, budget, progress)

    def _slept(self, family: Family, rows: Sequence[Row], budget: Budget, due: int) -> Slept:
        stem = f"lm-{bands.digest_of([family, self._name])[:16]}"
        checkpoint, through = checkpoints.of(self._folder, stem, max(row.position for row in rows))
        everything, rows = rows, [row for row in rows if row.position <= through]
        later = len(rows) < len(everything)
        before = held(self._store, family, self._name)
        work = _Consolidation(self._lm, rows, before, self._looked(family), own=has_one_user(family))
        if work.idle:
            checkpoint.unlink(missing_ok=True)
            return Slept(reason="nothing new since the last sleep", finished=not later)
        if work.lessons < due and not checkpoint.exists():
            return Slept(reason=f"{work.lessons} new items of which there is something to learn")
        chosen = replay(work.fresh, self._tier.families().get(family, []))
        try:
            with frozen(self._lm.model, self._lm.device):
                made = work.learned(chosen, checkpoint, budget)
        except StoppedError:
            return Slept(finished=False)
        if made is None:
            checkpoint.unlink(missing_ok=True)
            return Slept(reason="no trusted new item of which there is something to learn", finished=not later)
        band = bands.write(self._store, self._made(family, work, made))
        losses = [loss for group in made.report.losses for loss in group]
        left = later or bool(made.report.left) or len(chosen.rows) + len(chosen.untrusted) < len(work.fresh)
        return Slept.with_band(band, losses, finished=not left)

    def _looked(self, family: Family) -> set[int]:
        """Positions that the newest band of a family looked at, let in or not."""
        mine = [r for r in lineage.records(self._store) if r.purpose == (KIND, family, self._name)]
        return set(positions(mine[-1].value.get("looked", []))) if mine else set()

    def _made(self, family: Family, work: _Consolidation, made: _Learned) -> Made:
        from safetensors.torch import save

        held_ = {row.id: row.position for row in work.rows if row.id in made.whole.items}
        taught = [row for row in work.rows if row.id in held_ or row.position in made.trained]
        return Made(
            id=new_id(),
            kind=KIND,
            family=family,
            scope=scope_of(family),
            parent=work.before.record.id if work.before else None,
            positions=[row.position for row in taught],
            digest=bands.digest_of([row.id, row.position, row.text] for row in taught),
            chain=(self._store.log.cursor.chain or b"").hex(),
            model=self._name,
            promoted=made.verdict.promoted,
            reasons=[*made.verdict.reasons, *made.failures],
            hyper=self._lm.recipe._asdict(),
            metrics=made.verdict.metrics | {"seconds": made.report.seconds, "steps": float(made.report.steps)},
            learned={"looked": lineage.ranges(work.settled | made.looked), "held": held_},
            arrays=save(to_arrays(made.whole)),
        )


def families(store: Store, tier: FastTier, scope: Mapping[str, str]) -> dict[Family, list[Row]]:
    """All living items of each family that has some within a scope, in the order of the log."""
    whose = {name: scope[name] for name in ("user_id", "agent_id") if name in scope} or scope
    everyone = tier.family(scope) == ()  # the file's owner shares what is learned
    found: dict[Family, list[Row]] = {}
    for row in store.select(Filter.parse({} if everyone else dict(whose))):
        named = {name: value for name, value in zip(SCOPE_FIELDS, row.scope, strict=True) if value}
        found.setdefault(tier.family(named), []).append(row)
    return found


def scope_of(family: Family) -> dict[str, str]:
    """A family's scope, by name."""
    return {name: value for name, value in zip(SCOPE_FIELDS, family, strict=False) if value}


class _Learned(NamedTuple):
    """What a consolidation came to.

    Attributes:
        looked, trained: log positions; those of items that were left out at the end are among both, because slots of
            one subject are learned together. failures: what was left out, in words.
    """

    whole: Expert
    report: Report
    verdict: Verdict
    looked: set[int]
    trained: set[int]
    failures: list[str]


class _Consolidation:
    """One family's sleep: its items, what acts now, and what is new."""

    def __init__(
        self, lm: LanguageModel, rows: Sequence[Row], before: Held | None, looked: set[int], *, own: bool
    ) -> None:
        self._lm, self.rows, self.before, self._own = lm, rows, before, own
        self._lessons = {row.id: self._lesson(row) for row in rows}
        self.settled = set(positions(before.record.value["looked"])) if before else set()
        ended = _superseded(rows, self._lessons, self.settled)
        known = before.apart_from(ended) if before else None
        self.kept = known if known and known.items else None
        lost = set(before.whole.items) - set(known.items) if before and known else set()
        self.settled |= {row.position for row in rows if row.id in ended}
        self._told = self._told_by(self.kept)
        left = [row for row in rows if row.id not in ended and (row.position not in self.settled or row.id in lost)]
        self.fresh = [row for row in left if not self._is_told(self._lessons[row.id])]
        self.idle = all(row.position in looked for row in self.fresh) and not (lost and looked <= self.settled)

    @property
    def lessons(self) -> int:
        """How many of the new items have one, by rules; those of a writer are not asked for yet."""
        return len(self.fresh) if self._lm.writer else sum(self._lessons[row.id] is not None for row in self.fresh)

    def _told_by(self, kept: Expert | None) -> set[tuple[str, str]]:
        """Questions and answers that slots tell."""
        items = kept.items if kept else ()
        return {pair for id_ in items if (one := self._lessons.get(id_)) for pair in tells(one)}

    def _is_told(self, one: Lesson | None) -> bool:
        """Whether the slots that stay tell it: who says it again adds nothing, as long as they are there."""
        return one is not None and tells(one) <= self._told

    def _lesson(self, row: Row, writer: Writer | None = None) -> Lesson | None:
        when = time.strftime("%d %B %Y", time.gmtime(row.occurred_us / 1e6))
        own = self._own and is_own(row)
        return lesson(row.id, row.text, speaker=speaker(row), own=own, when=when, writer=writer)

    def learned(self, chosen: Replay, checkpoint: Path, budget: Budget) -> _Learned | None:
        """A band; None where no item has a lesson."""
        made = {row.position: self._lesson(row, self._lm.writer) for row in chosen.rows}
        new = _distinct([one for one in made.values() if one is not None], self._told)
        if not new:
            return None
        subjects = {one.subject for one in new}
        items = set(self.kept.items) if self.kept else set()
        old = [one for id_, one in self._lessons.items() if one and id_ in items and one.subject in subjects]
        expert, report = self._trained(new, old, checkpoint, budget)
        model, tokenizer = self._lm.model, self._lm.tokenizer
        exam = exam_of(self.rows, own=self._own)
        passed, failed = gate.sifted(model, tokenizer, expert, self.kept, exam)
        failed |= dict.fromkeys(report.shut, "its subject is not told from other text")
        whole = self.kept.beside(passed) if self.kept else passed
        verdict = gate.judge(model, tokenizer, whole, self.kept, exam)
        again = {one.id for one in made.values() if one} - {one.id for one in new}  # left until the first ones go
        done = {row.position for row in chosen.rows if row.id not in again.union(report.left)}
        trained = {position for position in done if made[position]}
        done |= {row.position for row in chosen.untrusted}
        return _Learned(whole, report, verdict, done, trained, [f"{id_}: {why}" for id_, why in failed.items()])

    def _trained(
        self,
        new: Sequence[Lesson],
        old: Sequence[Lesson],
        checkpoint: Path,
        budget: Budget,
    ) -> tuple[Expert, Report]:
        def told(_: Progress) -> None:
            if budget.stopped() or not checkpoint.parent.is_dir():  # which an erasure removes
                raise StoppedError

        return train(
            self._lm.model,
            self._lm.tokenizer,
            new,
            parent=gate.chain(self.kept),
            replay=old,
            recipe=self._lm.recipe,
            seconds=budget.left,
            progress=told,
            checkpoint=checkpoint,
        )


def _distinct(lessons: Sequence[Lesson], told: set[tuple[str, str]]) -> list[Lesson]:
    """Lessons that tell something that neither was told nor is told by one before them."""
    found = []
    for one in lessons:
        if not tells(one) <= told:
            found.append(one)
            told = told | tells(one)
    return found


def _superseded(rows: Sequence[Row], lessons: Mapping[str, Lesson | None], settled: Collection[int]) -> set[str]:
    """Items that a newer one about the same subject, not looked at before, surely makes a thing of the past."""
    alike: dict[str, list[Hit]] = {}
    for row in rows:
        one = lessons[row.id]
        if one is not None:
            alike.setdefault(one.subject, []).append(Hit.from_row(row, score=0.0))
    vectors = {row.position: row.vector for row in rows}
    return {old.id for same in alike.values() for old in _past(same, vectors, settled)}


def _past(same: Sequence[Hit], vectors: Mapping[int, Vector], settled: Collection[int]) -> Iterator[Hit]:
    fresh = [hit for hit in same if hit.position not in settled and may_supersede(hit.text)]
    for old in same if fresh else ():
        if any(is_newer(new, old) and supersedes(new, old, cosine(new, old, vectors)) for new in fresh):
            yield old


def positions(ranges: Sequence[Sequence[int]]) -> Iterator[int]:
    """What `lineage.ranges` made ranges of."""
    for first, last in ranges:
        yield from range(first, last + 1)


def speaker(row: Row) -> str | None:
    """Whom the first person of an item means."""
    owner = row.agent_id if row.metadata.get("role") == "assistant" else row.user_id
    name = row.metadata.get("name") or owner or (USER if is_own(row) and not row.agent_id else None)
    return name if isinstance(name, str) else None


def exam_of(rows: Iterable[Row], *, own: bool) -> gate.Exam:
    """What a gate asks of items. Args: own: whether one user asks, whose own questions are among it."""
    return gate.Exam.of(
        probe
        for row in rows
        for probe in probes.held_out(row.id, row.text, speaker=speaker(row), own=own and is_own(row))
    )


def has_one_user(family: Family) -> bool:
    """Whether all who ask in a family's name are one: its user, or the one of a memory without users and agents."""
    return bool(family) and (family[0] is not None or len(family) == len(SCOPE_FIELDS))


def is_own(row: Row) -> bool:
    """Whether it was said by whom the memory is of, who will ask for it: the user of a chat, or of the scope."""
    role, name = row.metadata.get("role"), row.metadata.get("name")
    if role is None and name is None:
        return row.metadata.keys().isdisjoint({"source", "document"})  # which what was read from a file has
    return role in {None, "user"} and (name is None or str(name).casefold() == (row.user_id or "").casefold())
