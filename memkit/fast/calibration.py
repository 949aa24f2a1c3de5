"""How near a past need must come, in this family of scopes, to be the one that is asked again.

Where people ask the same things over and over, a need half as near is the same; where all questions are about one
subject, it is another. Nobody can say beforehand: so it is learned, from what turned out useful when a past need came
near. The chance that the nearest one, z standard deviations nearer than unrelated needs come to each other
(`memkit.fast.familiarity`), is asked again is taken for

    p(again | z) = 1 / (1 + exp(even - z))

and the point of even chances, `even`, has a normal distribution, updated by two Newton steps an answer (assumed density
filtering with a Laplace approximation [1]). Its slope is 1: one that is learned too goes flat where feedback names
wrong items, and then everything is a little familiar.

It begins at START and only ever comes nearer: a need that comes back word for word must be known whatever came before.

[1] M. Opper, A Bayesian Approach to On-line Learning (1998), section 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

START = 3.0  # standard deviations
STRENGTH = 0.4  # precision that START is known with: that of two answers at even chances
RANGE = (-2.0, 6.0)  # standard deviations: further out one is as another
OFTEN = 1.5  # standard deviations below START at which needs surely come again
SURE = 2.0  # standard errors of the point that are held against it then
STEPS = 2  # Newton steps an answer


class Calibration(NamedTuple):
    """The point of even chances, in standard deviations, and the precision that it is known with."""

    even: float = START
    precision: float = STRENGTH


UNTAUGHT = Calibration()


def chance(state: Calibration, z: npt.NDArray[Any] | float) -> npt.NDArray[np.float64]:
    """That a need is asked again whose nearest past one is this near, in (0, 1); z and result of one shape."""
    return np.asarray(1 / (1 + np.exp(state.even - np.clip(z, *RANGE))), np.float64)


def returning(state: Calibration) -> float:
    """How surely needs come again in other words here, in [0, 1]: 0 where nobody knows."""
    error = state.precision**-0.5
    return float(np.clip((START - state.even - SURE * error) / OFTEN, 0, 1))


def learn(state: Calibration, z: float, again: bool, weight: float = 1.0) -> Calibration:
    """The state after one answer.

    Args:
        z: how near the nearest past need was. again: whether it was the one that was asked.
        weight: of the feedback that says so, in (0, 1].
    """
    even = state.even
    for _ in range(STEPS):
        expected = float(chance(Calibration(even), z))
        slope = weight * (again - expected) + state.precision * (even - state.even)
        even -= slope / (state.precision + weight * expected * (1 - expected))
    known = float(chance(Calibration(even), z))
    return Calibration(min(even, START), state.precision + weight * known * (1 - known))
