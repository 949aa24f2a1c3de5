"""The recall band: what all of a family's feedback says, solved together instead of one answer after the other.

Ranker. The online ranker sees each feedback once and starts at the prior with a fixed strength. Here the same
likelihood (`memkit.fast.ranker`) is maximised over all feedback at once by Newton's method; the strength of the prior
is the one under which feedback that was held out is likeliest; and the guard's evidence is of weights that had not
seen the feedback they are judged by. A wrong answer stands out against all the others, and is believed less.

Adapter. Recursive least squares is exact, but it clips an error when it comes, before it is known who is right. Here it
is solved a second time, with each feedback weighted by how well it agrees with what all of them together say [1].

Needs. As online: the newest answer to a need is what counts.

axes: m feedbacks · n candidates · f signals

[1] Iteratively reweighted least squares with Cauchy weights; P. J. Huber, Robust Statistics (1981), section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from memkit.fast import ranker
from memkit.fast.family import FamilyState
from memkit.fast.feedback import Feedback
from memkit.fast.tier import FastTier, weighed
from memkit.signals import SCALES

if TYPE_CHECKING:
    import torch

STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of the prior, as `ranker.STRENGTH`
FOLDS = 4
NEWTON = 12
FARTHEST = 2.0  # length of a Newton step, in usual spreads


class Batch(NamedTuple):
    """Feedback as arrays: features (m, n, f), which candidates exist and were used (m, n), and weights (m,)."""

    features: torch.Tensor
    there: torch.Tensor
    used: torch.Tensor
    weight: torch.Tensor

    def part(self, chosen: Sequence[int]) -> Batch:
        """Some of the feedback."""
        return Batch(*(tensor[list(chosen)] for tensor in self))


class Fit(NamedTuple):
    """Posterior mean (f,) and precision (f, f), and the loss after each Newton step."""

    mean: torch.Tensor
    precision: torch.Tensor
    losses: list[float]


class Solved(NamedTuple):
    """A family's state, solved and as the fast tier has it; the settings that were chosen; the loss after each step."""

    state: FamilyState
    online: FamilyState
    hyper: dict[str, Any]
    losses: list[float]


def solve(tier: FastTier, feedbacks: Sequence[dict[str, Any]]) -> Solved | None:
    """What a family's feedback says together; None when none of it can be learned from.

    Args:
        tier: of the same file. feedbacks: payloads of FEEDBACK frames, oldest first.
    """
    online = tier.replayed(feedbacks)
    if online is None:
        return None
    told = [(feedback, weight) for feedback, weight in weighed(feedbacks) if weight and _usable(feedback)]
    if not told:
        return Solved(online, online, {}, [])
    batch = _batch(told)
    strength = _strength(batch)
    fit = fitted(batch, strength)
    evidence = _evidence(batch, strength)
    learned = ranker.RankerState(fit.mean.numpy(), fit.precision.numpy(), evidence, np.full(1, float(len(told))))
    words = tier.reworded(feedbacks)
    whole = replace(online, ranker=learned, words=words)
    return Solved(whole, online, {"strength": strength, "folds": FOLDS}, fit.losses)


def _usable(feedback: Feedback) -> bool:
    used = feedback.labels > 0
    return bool(used.any() and not used.all() and np.isfinite(feedback.signals).all())


def _batch(told: Sequence[tuple[Feedback, float]]) -> Batch:
    import torch

    longest = max(len(feedback.signals) for feedback, _ in told)
    features = torch.zeros(len(told), longest, len(SCALES), dtype=torch.float64)
    there, used = (torch.zeros(len(told), longest, dtype=torch.bool) for _ in range(2))
    for row, (feedback, _) in enumerate(told):
        n = len(feedback.signals)
        features[row, :n] = torch.from_numpy(feedback.signals / SCALES / ranker.TEMPERATURE)
        there[row, :n], used[row, :n] = True, torch.from_numpy(feedback.labels > 0)
    return Batch(features, there, used, torch.tensor([weight for _, weight in told], dtype=torch.float64))


def fitted(batch: Batch, strength: float) -> Fit:
    """The weights under which the feedback is likeliest, with a normal prior of a strength, by Newton's method."""
    import torch

    start = torch.from_numpy(ranker.start())
    point, losses = start, []
    precision = torch.eye(len(start), dtype=torch.float64) * strength
    for _ in range(NEWTON):
        share, sense = _explained(batch, point)
        centre = torch.einsum("mn,mnf->mf", share, batch.features)
        even = batch.used.double() / batch.used.sum(1, keepdim=True)
        target = torch.einsum("mn,mnf->mf", even, batch.features)
        pull = sense @ (target - centre) - strength * (point - start)
        flat, counts = batch.features.flatten(0, 1), (sense[:, None] * share).flatten()
        spread = (flat.T * counts) @ flat - (centre.T * sense) @ centre
        precision = torch.eye(len(start), dtype=torch.float64) * strength + (spread + spread.T) / 2
        step = torch.linalg.solve(precision, pull)
        point = point + step * (FARTHEST / step.norm().clamp(min=FARTHEST))
        losses.append(float(surprise(batch, point).mean()))
    return Fit(point, precision, losses)


def _explained(batch: Batch, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax shares (m, n), and how far each feedback makes sense and counts (m,)."""
    import torch

    share = torch.softmax((batch.features @ point).masked_fill(~batch.there, -torch.inf), dim=1)
    said = (1 - ranker.CHANCE) * (share * batch.used).sum(1)
    return share, batch.weight * said / (said + _chance(batch))


def _chance(batch: Batch) -> torch.Tensor:
    return ranker.CHANCE * batch.used.sum(1) / batch.there.sum(1)


def surprise(batch: Batch, point: torch.Tensor) -> torch.Tensor:
    """-log p of what was used (m,), in nats, under weights."""
    import torch

    share = torch.softmax((batch.features @ point).masked_fill(~batch.there, -torch.inf), dim=1)
    return -torch.log((1 - ranker.CHANCE) * (share * batch.used).sum(1) + _chance(batch))


def _folds(size: int) -> list[tuple[list[int], list[int]]]:
    """(learned from, held out) for each of the folds: blocks of time, so that one need is rarely on both sides."""
    blocks = np.array_split(np.arange(size), min(FOLDS, size))
    return [(np.setdiff1d(np.arange(size), block).tolist(), block.tolist()) for block in blocks if size > len(block)]


def _strength(batch: Batch) -> float:
    """Under which held-out feedback is likeliest."""
    folds = _folds(len(batch.weight))
    if not folds:
        return ranker.STRENGTH

    def held_out(strength: float) -> float:
        return sum(
            float((surprise(batch.part(out), fitted(batch.part(kept), strength).mean) * batch.weight[out]).sum())
            for kept, out in folds
        )

    return min(STRENGTHS, key=held_out)


def _evidence(batch: Batch, strength: float) -> ranker.Floats:
    """The guard's evidence (`ranker`), each feedback judged by weights that have not seen it."""
    import torch

    evidence = torch.from_numpy(ranker.NO_EVIDENCE)
    for kept, out in _folds(len(batch.weight)):
        mean = fitted(batch.part(kept), strength).mean
        for row in out:
            there = batch.there[row]
            scaled = batch.features[row][there] * ranker.TEMPERATURE
            evidence = ranker.judged(evidence, scaled, batch.used[row][there], mean, float(batch.weight[row]))
    return np.asarray(evidence.numpy(), np.float64)
