"""Tier 1, kept: what feedback taught each family of scopes, derived from the feedback frames of the log.

A family is a user and an agent (or, where neither is named, a run): runs of one user and agent learn together, others
never. A family's state is made by replaying its feedback in the order of the log, from its newest snapshot on. It can
be dropped at any time; replaying gives it back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from memkit.fast import adapter, needs, ranker
from memkit.fast.adapter import AdapterState
from memkit.fast.family import Family, FamilyState, calibrated, needs_judged, packed, unpacked, words_judged
from memkit.fast.feedback import Feedback
from memkit.vectors import FileVectors
from memkit_storage.format import FrameType
from memkit_storage.lineage import records
from memkit_storage.rows import Vector
from memkit_storage.store import UNUSABLE, Store

SNAPSHOT_EVERY = 128  # feedbacks of a family; replaying so many takes a tenth of a second
SOURCE_CAP = 100.0  # weight that one named source can put into a family in all


@dataclass
class _Lesson:
    """A family's feedback, how much of it is in its state, and the band that the state goes on from, if any."""

    feedbacks: list[dict[str, Any]] = field(default_factory=list)
    state: FamilyState | None = None
    learned: int = 0
    saved: int = 0
    band: str | None = None


class FastTier:
    """The learned state of a store's families. Thread-safe.

    Args:
        share: let all scopes of the file learn together: the owner's decision.
    """

    def __init__(self, store: Store, vectors: FileVectors, *, share: bool = False) -> None:
        self._store, self._vectors, self._share = store, vectors, share
        self._lock = threading.RLock()
        self._wrote = False
        self._forget()

    def _forget(self) -> None:
        self._lessons: dict[Family, _Lesson] = {}
        self._read = 0
        self._off: frozenset[str] = frozenset()
        self._of = self._version()

    def _version(self) -> tuple[int, int]:
        return self._store.log.header.generation, int(self._store.config.get("epoch", 0))

    def family(self, scope: Mapping[str, str]) -> Family:
        """The family that a scope belongs to."""
        if self._share:
            return ()
        user, agent = scope.get("user_id"), scope.get("agent_id")
        return (user, agent) if user or agent else (None, None, scope.get("run_id"))

    def learned(self, scope: Mapping[str, str], as_of: int | None = None) -> FamilyState | None:
        """What a scope's family has learned, now or by a time (µs); None before any feedback."""
        with self._lock:
            self._catch_up()
            lesson = self._lessons.get(self.family(scope))
            if lesson is None or not lesson.feedbacks:
                return None
            if as_of is not None:
                return self.replayed(f for f in lesson.feedbacks if f.get("time", 0) <= as_of)
            return self._state(lesson)

    def record(self, feedback: Feedback) -> None:
        """Log a feedback, and learn from it."""
        self._store.record_learning(FrameType.FEEDBACK, feedback.packed(self._version()[1]))
        self._wrote = True
        self.learned(feedback.scope)

    def reset(self, scope: Mapping[str, str], time_us: int) -> None:
        """Forget what a scope's family has learned; without a scope, what every family has. The log keeps it."""
        self._store.record_learning(FrameType.FEEDBACK, {"time": time_us, "reset": True, **scope})

    def families(self) -> dict[Family, list[dict[str, Any]]]:
        """The logged feedback of each family, oldest first, as far as nobody has reset it."""
        with self._lock:
            self._catch_up()
            return {family: list(lesson.feedbacks) for family, lesson in self._lessons.items() if lesson.feedbacks}

    def replayed(self, feedbacks: Iterable[dict[str, Any]]) -> FamilyState | None:
        """What these feedbacks teach, one after the other, from nothing; None if there are none."""
        state = None
        for value in feedbacks:
            state = self._taught(state or FamilyState.empty(int(self._store.config["dim"])), value)
        return state

    def reworded(self, feedbacks: Sequence[dict[str, Any]]) -> AdapterState:
        """The query adapter solved twice: the second time, feedback that disagrees with all the rest counts less."""
        told = [one for feedback, weight in weighed(feedbacks) if (one := self._said(feedback, weight))]
        first = _adapted(told, [weight for *_, weight in told], int(self._store.config["dim"]))
        misfits = np.array([adapter.misfit(first, vector, used, wrong) for vector, used, wrong, _ in told])
        usual = max(float(np.median(misfits)), 1e-6) if len(misfits) else 1.0
        agreed = 1 / (1 + (misfits / usual) ** 2)
        return _adapted(told, [2 * a * w for a, (*_, w) in zip(agreed.tolist(), told, strict=True)], len(first.mean))

    def _said(self, feedback: Feedback, weight: float) -> tuple[Vector, Vector, Vector, float] | None:
        """Vectors of the query, of what was used and of what was passed over; None if one of them is missing."""
        passed = [id_ for id_ in (*feedback.wrong, *feedback.shown) if id_ not in feedback.used]
        used, others = (
            self._meant(feedback.used, feedback.time_us),
            self._meant(dict.fromkeys(passed), feedback.time_us),
        )
        if not weight or not used or not others or not (vector := self._vector(feedback)).any():
            return None
        return vector, np.stack(used), np.stack(others), weight

    def branch(self, state: FamilyState | None) -> Branch:
        """A tier that starts from a state and keeps what it learns to itself."""
        return Branch(self._store, self._vectors, state)

    def save(self) -> None:
        """Write a snapshot of each family that has learned much since its last one; who only read writes nothing."""
        if not self._wrote:
            return
        with self._lock:
            for family, lesson in self._lessons.items():
                if lesson.state is not None and lesson.learned - lesson.saved >= SNAPSHOT_EVERY:
                    assert lesson.state is not None
                    value = packed(lesson.state, family, lesson.feedbacks[: lesson.learned], self._of[1])
                    self._store.record_learning(FrameType.STATE, value | {"band": lesson.band})
                    lesson.saved = lesson.learned

    # following the log

    def _catch_up(self) -> None:
        if self._of != self._version() or self._read > len(self._store.learning):
            self._forget()
        with self._store.lock:
            fresh = list(self._store.learned(self._read))
            if any(kind == FrameType.BAND and "switch" in value for kind, value in fresh):
                fresh = self._from_the_start()
            for kind, value in fresh:
                self._follow(kind, value)
            self._read = len(self._store.learning)

    def _from_the_start(self) -> list[tuple[FrameType, dict[str, Any]]]:
        """A band was switched: what stands on it must go, or come back."""
        self._forget()
        self._off = frozenset(record.id for record in records(self._store) if not record.on)
        return list(self._store.learned(0))

    def _follow(self, kind: FrameType, value: dict[str, Any]) -> None:
        if value.get("model"):
            return  # of a language model: `memkit.fast.lm.saved` reads it
        if kind == FrameType.BAND:
            self._stand_on(value)
        elif kind == FrameType.STATE:
            self._resume(value)
        elif not value.get("reset"):
            scope = {name: value[name] for name in ("user_id", "agent_id", "run_id") if value.get(name)}
            self._lessons.setdefault(self.family(scope), _Lesson()).feedbacks.append(value)
        else:
            self._reset(value)

    def _reset(self, value: dict[str, Any]) -> None:
        scope = {name: value[name] for name in ("user_id", "agent_id", "run_id") if value.get(name)}
        if scope and not self._share:
            self._lessons.pop(self.family(scope), None)
        else:
            self._lessons.clear()

    def _stand_on(self, value: dict[str, Any]) -> None:
        """A band of the slow tier that was let in: the family's state goes on from it (`memkit.slow`)."""
        if value.get("arrays") and value.get("band") not in self._off:
            self._restore(value)

    def _resume(self, value: dict[str, Any]) -> None:
        """A snapshot, unless it was taken by someone who did not know the band in force."""
        lesson = self._lessons.get(tuple(value.get("family", ())))
        if lesson is not None and lesson.band == value.get("band"):
            self._restore(value)

    def _restore(self, value: dict[str, Any]) -> None:
        """A snapshot or a band stands for the feedback before it, if it is of this very feedback and this version's."""
        try:
            lesson = self._lessons.get(tuple(value["family"]))
            if lesson is None or value["epoch"] != self._of[1]:
                return
            learned = value["learned"]
            if len(lesson.feedbacks) < learned or lesson.feedbacks[learned - 1]["time"] != value["through"]:
                return
            state = unpacked(value)
            if lesson.state is not None:  # the same needs, as a rule: what was made ready of them goes on
                state._ready.extend(lesson.state._ready)
            lesson.state, lesson.band = state, value.get("band")
            lesson.learned = lesson.saved = learned
        except UNUSABLE:
            return  # of signals that are not measured any more, or by a faulty writer: replay

    def _state(self, lesson: _Lesson) -> FamilyState:
        state = lesson.state or FamilyState.empty(int(self._store.config["dim"]))
        for value in lesson.feedbacks[lesson.learned :]:
            state = self._taught(state, value)
        lesson.state, lesson.learned = state, len(lesson.feedbacks)
        return state

    def _taught(self, state: FamilyState, value: dict[str, Any]) -> FamilyState:
        """The state after one logged feedback; one that cannot be read teaches nothing."""
        try:
            return self._learned_from(state, value)
        except UNUSABLE:
            return state

    def _learned_from(self, state: FamilyState, value: dict[str, Any]) -> FamilyState:
        feedback = Feedback.unpacked(value)
        weight, sources = _trusted(feedback, state.sources)
        if not weight:
            return replace(state, sources=sources)
        vector = self._vector(feedback)
        ids = tuple(dict.fromkeys([*state.ids, *feedback.used, *feedback.wrong]))
        number = {id_: i for i, id_ in enumerate(ids)}
        used, wrong = ([number[id_] for id_ in some] for some in (feedback.used, feedback.wrong))
        learned = ranker.learn(state.ranker, feedback.signals, feedback.labels > 0, weight)
        served = needs.learn(state.needs, vector, used=used, wrong=wrong, weight=weight)
        return replace(
            state,
            ranker=learned,
            needs=served,
            words=self._worded(state.words, feedback, vector, weight),
            ids=ids,
            sources=sources,
            feedbacks=state.feedbacks + 1,
            trust_needs=needs_judged(state, feedback),
            trust_words=words_judged(state, feedback),
            calibration=calibrated(state, feedback, weight),
            _ready=list(state._ready),
        )

    def _vector(self, feedback: Feedback) -> Vector:
        """Of its query, by the embedder in force."""
        return feedback.vector if feedback.epoch == self._version()[1] else self._vectors.query(feedback.query)

    def can_read(self, feedbacks: Iterable[Mapping[str, Any]]) -> bool:
        """Whether all of it can be learned from: what is older than the embedder in force needs that embedder."""
        return all(value.get("epoch") == self._version()[1] for value in feedbacks) or self._vectors.changed() is None

    def _worded(self, state: AdapterState, feedback: Feedback, vector: Vector, weight: float) -> AdapterState:
        """What the user's words mean, by the items that were used as against the others that were shown."""
        used = self._meant(feedback.used, feedback.time_us)
        passed = [id_ for id_ in (*feedback.wrong, *feedback.shown) if id_ not in feedback.used]
        others = self._meant(dict.fromkeys(passed), feedback.time_us)
        if not used or not others or not vector.any():
            return state
        return adapter.learn(state, vector, np.stack(used), weight=weight, wrong=np.stack(others))

    def _meant(self, ids: Iterable[str], time_us: int) -> list[Vector]:
        """Vectors of items as they were at a time."""
        with self._store.lock:
            rows = [self._store.get(id_, time_us) for id_ in ids]
        return [row.vector for row in rows if row is not None and row.vector.any()]


class Branch(FastTier):
    """A state apart from the log: for trying out, and for what must not stay."""

    def __init__(self, store: Store, vectors: FileVectors, state: FamilyState | None) -> None:
        super().__init__(store, vectors)
        self._apart = state

    def learned(self, scope: Mapping[str, str], as_of: int | None = None) -> FamilyState | None:
        """The branch's own state, whatever the scope."""
        return self._apart

    def record(self, feedback: Feedback) -> None:
        """Learn from a feedback without logging it."""
        start = self._apart or FamilyState.empty(int(self._store.config["dim"]))
        self._apart = self._taught(start, feedback.packed(self._version()[1]))

    def reset(self, scope: Mapping[str, str], time_us: int) -> None:
        """Forget what the branch has learned."""
        self._apart = None

    def save(self) -> None:
        """Nothing of a branch is kept."""


def weighed(feedbacks: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Feedback, float]]:
    """Logged feedback with the weight that each gets, untrusted and excessive ones none; unusable ones are left out."""
    sources: dict[str, float] = {}
    for value in feedbacks:
        with suppress(*UNUSABLE):
            feedback = Feedback.unpacked(value)
            weight, sources = _trusted(feedback, sources)
            yield feedback, weight


def _adapted(told: Sequence[tuple[Vector, Vector, Vector, float]], weights: Sequence[float], dim: int) -> AdapterState:
    state = adapter.empty(dim)
    for (vector, used, wrong, _), weight in zip(told, weights, strict=True):
        state = adapter.learn(state, vector, used, weight=min(weight, 1.0), wrong=wrong)
    return state


def _trusted(feedback: Feedback, sources: dict[str, float]) -> tuple[float, dict[str, float]]:
    """The weight that a feedback gets, and what its source has spent then."""
    if not feedback.trusted:
        return 0.0, sources
    if feedback.source is None:
        return feedback.weight, sources
    spent = sources.get(feedback.source, 0.0)
    weight = min(feedback.weight, max(0.0, SOURCE_CAP - spent))
    return weight, sources | {feedback.source: spent + weight}
