"""The online ranker: what feedback says about how much each signal is worth, and how far that is to be believed.

Learning. Feedback names which of the shown candidates helped. Its likelihood is a listwise softmax over the
candidates [1], mixed with a share of chance so that a label that makes no sense teaches nothing:

    p(used) = (1 - CHANCE) * sum over used of softmax(w . x / TEMPERATURE) + CHANCE * |used| / n

The posterior over w is kept as a normal distribution and updated by two Newton steps per feedback (assumed density
filtering with a Laplace approximation [2]), starting at the prior weights: constant size, any order of arrival.

Guard. How far the weights in use move from the prior is decided by evidence, prequentially [3]: before each update, the
posterior and two points on the way to it are asked how much better than the prior each would have ranked what turned
out useful (reciprocal rank). A point is believed as far as its gains exceed their standard error: not below MARGIN
errors, fully CONFIDENT errors above that. Older gains fade, so that a bad stretch leads back to the prior.

    t_b = sum of gains / sqrt(NOISE + sum of squared gains)
    in use = prior + max over b of b * clip((t_b - MARGIN) / CONFIDENT, 0, 1) * (posterior - prior)

[1] Z. Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach (2007), eq. 4.
[2] M. Opper, A Bayesian Approach to On-line Learning (1998), section 3.
[3] A. P. Dawid, Statistical Theory: The Prequential Approach (1984).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from memkit.ranking import Weights, prior
from memkit.signals import SCALES

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]

STRENGTH = 8.0  # precision of the prior, in units of a signal's usual spread
TEMPERATURE = 2.0  # by which totals are divided to be log-odds
CHANCE = 0.1
STEPS = 2  # Newton steps an update
BLEND = np.array([0.25, 0.5, 1.0])  # from the prior to the posterior: points that are judged
MARGIN, CONFIDENT = 0.5, 1.0  # standard errors
NOISE = 0.5  # squared gain that is assumed before any is seen
FADE = 0.99  # of the evidence, at each judgement
NO_EVIDENCE = np.zeros((2, len(BLEND)))


class RankerState(NamedTuple):
    """What feedback has taught about F signals: posterior mean (F,) and precision (F, F), the evidence (2, B) for each
    point of BLEND (sums of gains over the prior, and of their squares), all float64, and how many updates there were
    (1,)."""

    mean: Floats
    precision: Floats
    evidence: Floats
    updates: Floats


def empty() -> RankerState:
    """Nothing learned: the prior."""
    return RankerState(start(), np.eye(len(SCALES)) * STRENGTH, NO_EVIDENCE.copy(), np.zeros(1))


def weights(state: RankerState) -> Weights:
    """The weights in use: the prior, moved towards the posterior as far as the guard lets them."""
    origin = start()
    return Weights((origin + believed(state.evidence) * (state.mean - origin)) / SCALES)


def believed(evidence: Floats) -> float:
    """How far evidence (2, B) lets the weights move from the prior to the posterior, in [0, 1]."""
    gains, squares = evidence
    errors = gains / np.sqrt(NOISE + squares)
    return float((BLEND * np.clip((errors - MARGIN) / CONFIDENT, 0, 1)).max())


def learn(state: RankerState, signals: Floats, used: npt.NDArray[np.bool_], weight: float = 1.0) -> RankerState:
    """The state after one feedback.

    Args:
        signals: (n, F) of the candidates that were there to choose from.
        used: (n,) which of them helped. If none or all did, or a number is not finite, the state stays as it is.
        weight: in (0, 1], how much the feedback counts.
    """
    import torch

    if not used.any() or used.all() or not np.isfinite(signals).all():
        return state
    scaled = torch.from_numpy(np.ascontiguousarray(signals / SCALES))
    mask = torch.from_numpy(used)
    mean, precision = torch.from_numpy(state.mean), torch.from_numpy(state.precision)
    evidence = judged(torch.from_numpy(state.evidence), scaled, mask, mean, weight)
    mean, precision = posterior(mean, precision, scaled, mask, weight)
    if not (bool(torch.isfinite(mean).all()) and bool(torch.isfinite(precision).all())):
        return state
    return RankerState(mean.numpy(), precision.numpy(), evidence.numpy(), state.updates + 1)


def posterior(
    mean: torch.Tensor, precision: torch.Tensor, scaled: torch.Tensor, used: torch.Tensor, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (F,) and precision (F, F) after one observation of scaled signals (n, F); two Newton steps."""
    import torch

    features = scaled / TEMPERATURE
    target = used.double() / used.sum()
    point, curved = mean, precision
    for _ in range(STEPS):
        share = torch.softmax(features @ point, 0)
        said = (1 - CHANCE) * share[used].sum()
        sense = weight * said / (said + CHANCE * used.sum() / len(used))
        centre = share @ features
        pull = sense * (target @ features - centre) - precision @ (point - mean)
        curved = precision + sense * ((features.T * share) @ features - torch.outer(centre, centre))
        point = point + torch.linalg.solve(curved, pull)
    return point, (curved + curved.T) / 2


def judged(
    evidence: torch.Tensor, scaled: torch.Tensor, used: torch.Tensor, mean: torch.Tensor, weight: float
) -> torch.Tensor:
    """The evidence (2, B) after each point of BLEND was asked to rank what turned out useful.

    Args:
        scaled: (n, F) signals over their usual spread. used: (n,). mean: (F,) of a posterior that has not seen them.
    """
    import torch

    origin = torch.from_numpy(start())
    points = origin + torch.from_numpy(np.r_[0.0, BLEND])[:, None] * (mean - origin)
    totals = scaled @ points.T  # (n, 1 + B)
    rank = (totals > totals[used].max(dim=0).values).sum(dim=0)
    found = weight / (1 + rank.double())
    gains = found[1:] - found[0]
    return FADE * evidence + torch.stack([gains, gains**2])


def start() -> Floats:
    """The prior weights (F,), in units of a signal's usual spread."""
    return np.asarray(prior().values * SCALES, np.float64)


def to_arrays(state: RankerState) -> dict[str, Floats]:
    """For saving."""
    return state._asdict()


def from_arrays(arrays: Mapping[str, Floats]) -> RankerState:
    """What `to_arrays` gave.

    Raises:
        KeyError, ValueError: an array is missing, or has another shape than the signals of this version.
    """
    state = RankerState(*(np.asarray(arrays[name], np.float64) for name in RankerState._fields))
    if [a.shape for a in state] != [a.shape for a in empty()]:
        raise ValueError(f"learned weights for {len(state.mean)} signals; this version has {len(SCALES)}")
    return state
