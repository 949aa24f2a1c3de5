"""What one family of scopes has learned from feedback, as a value; how its parts are judged, and how it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from memkit.background import Background
from memkit.fast import adapter, calibration, familiarity, needs, ranker
from memkit.fast.adapter import AdapterState
from memkit.fast.calibration import UNTAUGHT, Calibration
from memkit.fast.familiarity import Prepared, Whitening
from memkit.fast.feedback import Feedback
from memkit.fast.needs import NeedsState
from memkit.fast.trust import Trust
from memkit.ranking import Weights
from memkit.signals import NAMES
from memkit_storage.rows import Vector
from memkit_storage.sample import milestone

Family = tuple[str | None, ...]

UNPROVED = Trust()
_NEEDS, _ADAPTED = NAMES.index("needs"), NAMES.index("adapted")


class Remembered(NamedTuple):
    """What past needs say about a query: how well items (by id) served such a need, in (0, 1]; how near the nearest
    past need is, in standard deviations (-inf without any); and the items that served that one, best first."""

    bonus: dict[str, float]
    z: float
    nearest: tuple[str, ...]


NOTHING = Remembered({}, float("-inf"), ())


@dataclass(frozen=True, slots=True, eq=False)
class FamilyState:
    """What one family has learned: a value, which nothing changes.

    Attributes:
        ranker, needs: of `memkit.fast`. `words`: of its query adapter.
        ids: the items that `needs` knows by number.
        sources: weight that each named source has put in.
        feedbacks: how many were learned from.
        trust_needs, trust_words: how far `needs` and `words` have earned belief.
        calibration: how near a past need must come to be asked again.
    """

    ranker: ranker.RankerState
    needs: NeedsState
    words: AdapterState
    ids: tuple[str, ...]
    sources: dict[str, float]
    feedbacks: int
    trust_needs: Trust = UNPROVED
    trust_words: Trust = UNPROVED
    calibration: Calibration = UNTAUGHT
    _ready: list[tuple[Background, Prepared]] = field(default_factory=list, repr=False)  # kept for reading

    @classmethod
    def empty(cls, dim: int) -> FamilyState:
        """Nothing learned."""
        return cls(ranker.empty(), needs.empty(dim), adapter.empty(dim), (), {}, 0)

    @property
    def weights(self) -> Weights:
        """Of the signals, in use."""
        values = ranker.weights(self.ranker).values.copy()
        values[_ADAPTED] *= self.trust_words.degree
        values[_NEEDS] *= self.memory
        return Weights(values)

    @property
    def memory(self) -> float:
        """How far past needs are believed, in [0, 1]: they won, or they are known to come again."""
        return max(self.trust_needs.degree, calibration.returning(self.calibration))

    def adapted(self, query: Vector) -> tuple[Vector, float]:
        """The query in the file's words (d,), and how far feedback supports that, in [0, 1]."""
        return adapter.adapt(self.words, query)

    def remembered(self, query: Vector, background: Background) -> Remembered:
        """What past needs say about a query (d,)."""
        if not len(self.needs.keys):
            return NOTHING
        ready = self._prepared(background)
        found = familiarity.recall(self.needs, query, prepared=ready, calibration=self.calibration)
        bonus = {self.ids[number]: value for number, value in found.bonus.items()}
        return Remembered(bonus, found.z, tuple(self.ids[number] for number in found.nearest))

    def _prepared(self, background: Background) -> Prepared:
        former = self._ready[-1] if self._ready else None
        known = milestone(len(self.needs.keys))
        if former is not None and former[0] is background and milestone(len(former[1].raw)) == known:
            if former[1].raw is self.needs.keys:
                return former[1]
            whitening = former[1].whitening
        else:
            whitening = _whitening(needs.first(self.needs, known), background)
        ready = familiarity.prepare(self.needs, whitening, former[1] if former else None)
        self._ready[:] = [(background, ready)]
        return ready


def _whitening(state: NeedsState, background: Background) -> Whitening:
    mean = background.raw.mean(axis=0) if len(background.raw) else np.zeros(state.keys.shape[1], np.float32)
    centred = background.raw - mean
    covariance = centred.T @ centred / max(len(centred), 1)
    return familiarity.whitening_of(state, mean, np.asarray(covariance, np.float32), len(centred))


# what feedback says of it


def needs_judged(state: FamilyState, feedback: Feedback) -> Trust:
    """What bringing back the items of past needs, fully believed, does to this answer."""
    without, believed = _with_and_without(state, feedback, _NEEDS)
    lifted = familiarity.lift(believed, feedback.signals[:, _NEEDS])
    return state.trust_needs.judged(without, lifted, feedback.labels > 0)


def calibrated(state: FamilyState, feedback: Feedback, weight: float) -> Calibration:
    """How near a past need must come, after this feedback told whether the nearest one was asked again."""
    if feedback.familiar is None:
        return state.calibration
    return calibration.learn(state.calibration, feedback.familiar, feedback.again, weight)


def words_judged(state: FamilyState, feedback: Feedback) -> Trust:
    """What the query adapter, fully believed, does to this answer."""
    without, believed = _with_and_without(state, feedback, _ADAPTED)
    return state.trust_words.judged(without, believed, feedback.labels > 0)


def _with_and_without(state: FamilyState, feedback: Feedback, signal: int) -> tuple[Any, Any]:
    """Totals (n,) as they are in use but for one signal: without it, and with all of its weight."""
    values = state.weights.values.copy()
    values[signal] = 0.0
    without = feedback.signals @ values
    return without, without + feedback.signals[:, signal] * ranker.weights(state.ranker).values[signal]


# at rest


def packed(state: FamilyState, family: Family, feedbacks: Sequence[dict[str, Any]], epoch: int) -> dict[str, Any]:
    """What a frame holds of a state that was learned from a family's first feedbacks; `unpacked` reads it."""
    from safetensors.numpy import save

    parts = {"ranker": ranker.to_arrays(state.ranker), "needs": needs.to_arrays(state.needs)}
    parts["adapter"] = adapter.to_arrays(state.words)
    arrays = {f"{part}.{name}": np.array(a, order="C") for part, found in parts.items() for name, a in found.items()}
    return {
        "family": list(family),
        "learned": len(feedbacks),
        "through": feedbacks[-1]["time"],
        "epoch": epoch,
        "feedbacks": state.feedbacks,
        "ids": list(state.ids),
        "sources": state.sources,
        "trust": [list(state.trust_needs), list(state.trust_words)],
        "calibration": list(state.calibration),
        "arrays": save(arrays),
    }


def unpacked(value: Mapping[str, Any]) -> FamilyState:
    """What `packed` gave.

    Raises:
        KeyError, ValueError, TypeError: written by another version, or not by memkit.
    """
    from safetensors.numpy import load

    arrays = load(value["arrays"])
    parts: dict[str, dict[str, Any]] = {"ranker": {}, "needs": {}, "adapter": {}}
    for name, array in arrays.items():
        part, _, field_name = name.partition(".")
        parts[part][field_name] = array
    return FamilyState(
        ranker.from_arrays(parts["ranker"]),
        needs.from_arrays(parts["needs"]),
        adapter.from_arrays(parts["adapter"]),
        tuple(value["ids"]),
        dict(value["sources"]),
        int(value["feedbacks"]),
        trust_needs=Trust(*value["trust"][0]),
        trust_words=Trust(*value["trust"][1]),
        calibration=Calibration(*value["calibration"]),
    )
