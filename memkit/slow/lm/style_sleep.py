"""A sleep in which a language model learns how people write: a band of styles beside that of facts.

A band holds the styles of a family: those of before, and those that were learned anew, because there are a quarter more
messages than then, or because one that it was made from has changed or ended. What is new goes through a gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from memkit.fast.family import Family
from memkit.fast.lm.places import identity
from memkit.fast.tier import FastTier
from memkit.slow import bands
from memkit.slow.bands import Made
from memkit.slow.gate import Verdict
from memkit.slow.lm import checkpoints, gate, style
from memkit.slow.lm.expert import STYLE as LANE
from memkit.slow.lm.expert import Expert, to_arrays
from memkit.slow.lm.held import STYLE, Held, held, made_from
from memkit.slow.lm.sleep import LanguageModel, StoppedError, exam_of, families, has_one_user, positions, scope_of
from memkit.slow.lm.train import Progress, Report, frozen, train
from memkit.slow.rounds import Budget, SleepReport, Slept, go_round
from memkit.slow.rounds import Progress as Rounds
from memkit.writing import new_id
from memkit_storage import lineage
from memkit_storage.lineage import Record
from memkit_storage.rows import Row
from memkit_storage.store import Store


class StyleSleeper:
    """Makes the style bands of one file.

    Args:
        lm: the model; its writer is not asked. folder: of the index, which an erasure removes.
    """

    def __init__(self, store: Store, tier: FastTier, lm: LanguageModel, folder: Path) -> None:
        self._store, self._tier, self._lm, self._folder = store, tier, lm, folder
        self._name, self._pair = identity(lm.model), (lm.model, lm.tokenizer)

    def sleep(self, scope: Mapping[str, str], budget: Budget, *, progress: Rounds | None = None) -> SleepReport:
        """One sleep for the families that have items within a scope (all, without one)."""
        self._store.refresh()
        found = families(self._store, self._tier, scope).items()
        work = {family: partial(self._slept, family, rows, budget) for family, rows in found}
        return go_round(work, budget, progress)

    def _slept(self, family: Family, rows: Sequence[Row], budget: Budget) -> Slept:
        stem = f"style-{bands.digest_of([family, self._name])[:16]}"
        checkpoint, through = checkpoints.of(self._folder, stem, max(row.position for row in rows))
        later = any(row.position > through for row in rows)
        rows = [row for row in rows if row.position <= through]
        said = style.messages(rows)
        before = held(self._store, family, self._name, kind=STYLE)
        mine = [r for r in lineage.records(self._store) if r.purpose == (STYLE, family, self._name)]
        last = mine[-1] if mine else None
        due = {name: same for name, same in said.items() if _is_due(name, same, before, last)}
        if not due:
            checkpoint.unlink(missing_ok=True)
            reason = f"nobody has enough new messages for a style; it takes {style.LEAST}"
            return Slept(reason=reason, finished=not later)
        try:
            with frozen(self._lm.model, self._lm.device):
                trained = self._trained(due, budget, checkpoint)
                made = self._learned(family, rows, due, before, trained)
        except StoppedError:
            return Slept(finished=False)
        if set(made.report.left) >= set(due):
            return Slept(finished=False)
        looked = set(positions(last.value.get("looked", []))) if last else set()
        band = bands.write(self._store, self._made(family, made, before, looked))
        losses = [loss for each in made.report.losses for loss in each]
        return Slept.with_band(band, losses, finished=not (made.report.left or later))

    def _learned(
        self,
        family: Family,
        rows: Sequence[Row],
        due: Mapping[str, list[Row]],
        before: Held | None,
        trained: tuple[Expert, Report],
    ) -> _Learned:
        facts = held(self._store, family, self._name)
        chain = gate.chain(facts.expert if facts else None)
        expert, report = trained
        passed, reasons, metrics = self._sifted(expert, due, chain)
        reasons += [f"{name}: their name is not told from other text" for name in report.shut]
        kept = before.expert.without(set(before.whole.items) - set(made_from(before.record))) if before else None
        whole = self._whole(family, kept, passed)
        faults = ["nothing new was learned"]
        if passed.items:
            known = set(facts.expert.items) if facts else set()
            asked = exam_of([row for row in rows if row.id in known], own=has_one_user(family))
            old = asked.about(known)
            metrics |= gate.compared(*self._pair, [*chain, *gate.chain(kept)], [*chain, whole], old)
            faults = gate.worse(metrics)
        learned = {name: same for name, same in due.items() if name not in report.left}
        return _Learned(whole, passed.items, learned, report, Verdict(not faults, faults + reasons, metrics))

    def _whole(self, family: Family, kept: Expert | None, passed: Expert) -> Expert:
        """All styles, and silent slots of who else may speak."""
        kept = kept.without(set(passed.items)) if kept else None
        whole = kept.beside(passed) if kept else passed
        known = {name.lower() for name in whole.items}
        others = dict.fromkeys(name for name in (*style.OTHERS, *family) if name and name.lower() not in known)
        return whole.beside(style.silent(*self._pair, others)) if whole.items else whole

    def _trained(self, due: Mapping[str, list[Row]], budget: Budget, checkpoint: Path) -> tuple[Expert, Report]:
        def told(_: Progress) -> None:
            if budget.stopped() or not self._folder.is_dir():
                raise StoppedError

        trained = train(
            *self._pair,
            [style.lesson(name, style.split(same)[0]) for name, same in due.items()],
            recipe=style.RECIPE,
            seconds=budget.left,
            progress=told,
            checkpoint=checkpoint,
        )
        return trained.expert._replace(lane=LANE), trained.report

    def _sifted(
        self, trained: Expert, due: Mapping[str, list[Row]], chain: Sequence[Expert]
    ) -> tuple[Expert, list[str], dict[str, float]]:
        """The styles that gain, why each stands or falls, and the figures."""
        opened = gate.opened_by_others(*self._pair, trained)
        reasons = [f"{name}: it opens on text that is about somebody else" for name in opened]
        gains = {
            name: style.gain(*self._pair, chain, trained, style.written(name, style.split(due[name])[1]))
            for name in trained.items
            if name not in opened
        }
        real = {name for name, one in gains.items() if one.is_real}
        reasons += [f"{name}: later messages {one}" for name, one in gains.items()]
        metrics = {f"{name} {when}": getattr(one, when) for name, one in gains.items() for when in ("before", "after")}
        return trained.without(set(trained.items) - real), reasons, metrics

    def _made(self, family: Family, made: _Learned, before: Held | None, looked: set[int]) -> Made:
        learned = [row for same in made.learned.values() for row in same]
        old = made_from(before.record) if before else {}
        slots = {name: old[name] for name in made.whole.items if name in old and name not in made.new}
        slots |= {name: {r.id: r.position for r in style.split(made.learned[name])[0]} for name in made.new}
        return Made(
            id=new_id(),
            kind=STYLE,
            family=family,
            scope=scope_of(family),
            parent=before.record.id if before else None,
            positions=[*(r.position for r in learned), *(at for of in slots.values() for at in of.values())],
            digest=bands.digest_of([row.id, row.position, row.text] for row in learned),
            chain=(self._store.log.cursor.chain or b"").hex(),
            model=self._name,
            promoted=made.verdict.promoted,
            reasons=made.verdict.reasons,
            hyper=style.RECIPE._asdict(),
            metrics=made.verdict.metrics | {"seconds": made.report.seconds, "steps": float(made.report.steps)},
            learned={"looked": lineage.ranges(looked | {row.position for row in learned}), "held": slots},
            arrays=_packed(made.whole),
        )


class _Learned(NamedTuple):
    """What a sleep came to.

    Attributes:
        whole: all slots. new: speakers whose style passed. learned: messages of each speaker that was looked at.
    """

    whole: Expert
    new: tuple[str, ...]
    learned: dict[str, list[Row]]
    report: Report
    verdict: Verdict


def _is_due(name: str, rows: Sequence[Row], before: Held | None, last: Record | None) -> bool:
    """Whether a style is to be learned: for the first time, of enough new messages, or without one that has ended."""
    if len(rows) < style.LEAST:
        return False
    looked = set(positions(last.value.get("looked", []))) if last else set()
    fresh = sum(row.position not in looked for row in rows)
    lost = before is not None and last is not None and before.record.id == last.id and name in before.stale
    return lost or fresh > style.AGAIN * (len(rows) - fresh)


def _packed(whole: Expert) -> bytes:
    from safetensors.torch import save

    return save(to_arrays(whole))
