"""One sleep: what the log holds is replayed into bands, and what passes the gate acts from then on.

    snapshot -> replay -> train -> gate -> one frame

The work for recall bands; inside a language model the same is done by `memkit.slow.lm.sleep`.

A family of scopes is done when its band is in the file: let in or turned away, by one appended frame. So a sleep that
is killed has lost at most the family that it was at, and the next one goes on from there. Readers and writers of the
file do not wait: only the frame itself is written under the appender's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from memkit.fast.family import Family, FamilyState, packed
from memkit.fast.feedback import Feedback
from memkit.fast.tier import FastTier, weighed
from memkit.items import is_trusted
from memkit.ranking import prior
from memkit.recall import Asked, candidates
from memkit.slow import bands, gate, recall_band
from memkit.slow.bands import Made
from memkit.slow.clock import scope_of, within
from memkit.slow.gate import Arms, Verdict
from memkit.slow.recall_band import Solved
from memkit.slow.rounds import LEAST, Budget, Feedbacks, Progress, SleepReport, Slept, go_round
from memkit.writing import new_id
from memkit_storage import files, lineage
from memkit_storage.errors import Busy
from memkit_storage.filters import Filter
from memkit_storage.index import Index
from memkit_storage.log import now_us
from memkit_storage.rows import Row
from memkit_storage.store import Store

HELD_OUT = 4  # one feedback in so many, the newest, is a probe
PROBES = 4  # that a verdict needs
CANARIES = 24
OUTERMOST = 50.0  # norm of the weights, in usual spreads


class Sleeper:
    """Makes recall bands for one file.

    Args:
        tier: of the same store, not branched.
    """

    def __init__(self, store: Store, index: Index, tier: FastTier) -> None:
        self._store, self._index, self._tier = store, index, tier

    def sleep(
        self, scope: Mapping[str, str], budget: Budget, *, due: int = 1, progress: Progress | None = None
    ) -> SleepReport:
        """One sleep for the families within a scope (all, without one).

        Args:
            due: new feedbacks from which a family is worth a band.
        """
        self._store.refresh()
        work = {
            family: partial(self._slept, family, told, budget, due)
            for family, told in self._tier.families().items()
            if within(scope, scope_of(told))
        }
        return go_round(work, budget, progress)

    def _slept(self, family: Family, told: Feedbacks, budget: Budget, due: int) -> Slept:
        reason = self._idle(family, told, due)
        return Slept(reason=reason) if reason else self._consolidated(family, budget.fitting(told))

    def _idle(self, family: Family, told: Feedbacks, due: int) -> str | None:
        """Why there is nothing to do for a family, if so."""
        if len(told) < LEAST:
            return f"{len(told)} feedbacks; a band is made from {LEAST}"
        if not self._tier.can_read(told):
            return "feedback from before a change of the embedder; consolidate() where that embedder is at hand"
        last = self._last(family)
        if last is None:
            return None
        fresh = sum(value["time"] > last.value.get("through", 0) for value in told)
        return None if fresh >= due else f"{fresh} feedbacks since band {last.id}"

    def _last(self, family: Family) -> lineage.Record | None:
        """The newest band of a family whose lineage is whole: made, whatever the gate said, and not erased since."""
        mine = [r for r in lineage.records(self._store) if r.value["kind"] == "recall"]
        return next((r for r in reversed(mine) if tuple(r.value["family"]) == family and "through" in r.value), None)

    def _consolidated(self, family: Family, told: Feedbacks) -> Slept:
        with _few_threads():
            chain = (self._store.log.cursor.chain or b"").hex()
            whole = recall_band.solve(self._tier, told)
            assert whole is not None  # a family that has feedback has a state
            verdict = self._judged(told, whole, scope_of(told))
        parent = lineage.in_force(lineage.records(self._store)).get(("recall", family, None))
        change = float(np.linalg.norm(whole.state.ranker.mean - whole.online.ranker.mean))
        epoch = int(self._store.config.get("epoch", 0))
        learned = packed(whole.state, family, told, epoch) | {"embedder": self._store.config.get("embedder")}
        made = Made(
            id=new_id(),
            kind="recall",
            family=family,
            scope=scope_of(told),
            parent=parent.id if parent else None,
            positions=self._positions(told),
            digest=bands.digest_of([v["time"], v["query"], v["used"], v["wrong"], v["weight"]] for v in told),
            chain=chain,
            model=None,
            promoted=verdict.promoted,
            reasons=verdict.reasons,
            hyper=whole.hyper,
            metrics=verdict.metrics | {"change": change},
            learned={name: value for name, value in learned.items() if name != "arrays"},
            arrays=learned["arrays"],
        )
        return Slept.with_band(bands.write(self._store, made), whole.losses)

    def _positions(self, told: Feedbacks) -> list[int]:
        """Log positions of every version of what the feedback is about."""
        ids = dict.fromkeys(id_ for value in told for name in ("used", "wrong", "shown") for id_ in value[name])
        with self._store.lock:
            catalog = self._store.catalog
            return [int(catalog.column("position")[i]) for id_ in ids for i in catalog.history(id_)]

    # judging

    def _judged(self, told: Feedbacks, whole: Solved, scope: Mapping[str, str]) -> Verdict:
        cut = len(told) - len(told) // HELD_OUT
        trial = recall_band.solve(self._tier, told[:cut])
        assert trial is not None
        return gate.judge(
            _ranks(told[cut:], trial),
            _ranks(told[:cut], whole),
            self._found(scope, whole),
            sound=_is_sound(whole.state),
            least=PROBES,
        )

    def _found(self, scope: Mapping[str, str], whole: Solved) -> Arms:
        """Reciprocal ranks of items that are looked for by their own words."""
        where = Filter.parse(dict(scope))
        rows = [row for row in self._store.select(where) if is_trusted(row.metadata) and row.vector.any()]
        chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(CANARIES, len(rows))).astype(int).tolist()]
        arms = [[self._rank(row, where, state) for row in chosen] for state in (None, whole.online, whole.state)]
        return Arms(*arms)

    def _rank(self, row: Row, where: Filter, state: FamilyState | None) -> float:
        asked = Asked(row.searchable, row.vector, where, state, now_us())
        pool = candidates(self._index, asked, CANARIES)
        same = [pool.rows[position].text == row.text for position in pool.positions.tolist()]
        return 1 / (1 + same.index(True)) if any(same) else 0.0


def _ranks(told: Feedbacks, solved: Solved) -> Arms:
    """Reciprocal ranks of what was used, among the candidates as they were measured then."""
    arms: Arms = Arms([], [], [])
    weights = [prior().values, solved.online.weights.values, solved.state.weights.values]
    for feedback, weight in weighed(told):
        used = feedback.labels > 0
        if weight and used.any() and not used.all():
            for arm, values in zip(arms, weights, strict=True):
                arm.append(_reciprocal(feedback, values, used))  # type: ignore[attr-defined]
    return arms


def _reciprocal(feedback: Feedback, weights: Any, used: Any) -> float:
    totals = feedback.signals @ weights
    return 1 / (1 + int((totals > totals[used].max()).sum()))


def _is_sound(state: FamilyState) -> bool:
    mean = state.ranker.mean
    return bool(np.isfinite(mean).all() and np.linalg.norm(mean) < OUTERMOST and np.isfinite(state.words.weights).all())


@contextmanager
def sole_sleeper(root: Path) -> Iterator[None]:
    """Be the only one who consolidates a file; `root` is the directory of its index.

    Raises:
        Busy: somebody else does.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "sleep.lock").open("a") as handle:
        if not files.try_lock(handle.fileno()):
            raise Busy(f"{root}: a sleep is under way already; wait for it, or stop that process")
        try:
            yield
        finally:
            files.unlock(handle.fileno())


@contextmanager
def _few_threads() -> Iterator[None]:
    """One thread for torch meanwhile: the application has the other cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
