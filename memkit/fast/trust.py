"""How far a learned tier has earned belief: by what it did to answers that were judged afterwards.

Each time feedback tells what was useful, the tier is asked what it did to it: the reciprocal rank of the best useful
candidate with the tier, minus that without it. Gains and losses are added up, older ones fading; the tier acts to the
degree to which gains prevail, from 0 to 1. It begins with some credit, and a few losses spend it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FADE = 0.98  # of what was won and lost before, at each judgement
STEEP = 1.5  # how much of the balance is needed to be believed fully: two thirds


class Trust(NamedTuple):
    """Sums of reciprocal ranks that a tier has won and lost."""

    won: float = 1.0
    lost: float = 0.4

    @property
    def degree(self) -> float:
        """To which the tier acts, in [0, 1]."""
        return float(np.clip(STEEP * (self.won - self.lost) / (self.won + self.lost), 0, 1))

    def judged(
        self, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], used: npt.NDArray[np.bool_]
    ) -> Trust:
        """After one feedback.

        Args:
            before, after: (n,) totals of the candidates without and with the tier.
            used: (n,) which of them were useful.
        """
        if not used.any() or np.array_equal(before, after):
            return self
        gain = _reciprocal_rank(after, used) - _reciprocal_rank(before, used)
        return Trust(FADE * self.won + max(gain, 0.0), FADE * self.lost + max(-gain, 0.0))


def _reciprocal_rank(totals: npt.NDArray[np.float64], used: npt.NDArray[np.bool_]) -> float:
    return 1 / (1 + int((totals > totals[used].max()).sum()))
