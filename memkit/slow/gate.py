"""The gate: what a band has to show before it is let in. Every decision comes with its reasons and its numbers.

A band is compared with what acts now, on questions whose answer the log knows:

- *probes*: the newest feedback, which the trial was not trained on. It must not lose, and not be worse than the prior.
- *old probes*: the feedback before. The band itself must not have lost what was known.
- *canaries*: items that are looked for by their own words. Whatever was learned, these must still be found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

NOISE = 1.0  # standard errors by which an arm may be behind and still count as level
OLD_LOSS = 0.01  # of mean reciprocal rank
CANARY_LOSS = 0.03  # of 24, one may come second instead of first


class Verdict(NamedTuple):
    """Whether a band is let in, why, and the numbers that say so."""

    promoted: bool
    reasons: list[str]
    metrics: dict[str, float]


class Arms(NamedTuple):
    """Reciprocal ranks of the same questions under three arms, each (n,)."""

    prior: Sequence[float]
    now: Sequence[float]
    band: Sequence[float]

    @property
    def means(self) -> tuple[float, float, float]:
        """Of prior, now and band; 0 of nothing."""
        prior, now, band = (float(np.mean(arm)) if len(arm) else 0.0 for arm in self)
        return prior, now, band


def judge(probes: Arms, old: Arms, canaries: Arms, *, sound: bool, least: int) -> Verdict:
    """The verdict on a band.

    Args:
        probes: of a trial that has not seen them. old, canaries: of the band itself.
        sound: its numbers are finite and bounded. least: how many probes are needed.
    """
    faults: list[str] = []
    if not sound:
        faults.append("its numbers are not finite, or out of bounds")
    if len(probes.band) < least:
        faults.append(f"{len(probes.band)} probes; {least} are needed")
    faults += _behind("probes", probes.band, probes.now, "what acts now")
    faults += _behind("probes", probes.band, probes.prior, "the prior")
    faults += _lost("old probes", old, OLD_LOSS)
    faults += _lost("canaries", canaries, CANARY_LOSS)
    metrics = {**_named("probes", probes), **_named("old", old), **_named("canaries", canaries)}
    prior, now, band = probes.means
    gain = f"mean reciprocal rank of {len(probes.band)} probes {band:.3f}; now {now:.3f}, prior {prior:.3f}"
    return Verdict(not faults, faults or [gain], metrics)


def _behind(what: str, band: Sequence[float], other: Sequence[float], name: str) -> list[str]:
    """A loss that is more than noise."""
    if len(band) < 2:
        return []
    difference = np.asarray(band) - np.asarray(other)
    error = float(difference.std(ddof=1) / len(difference) ** 0.5)
    if difference.mean() >= -NOISE * error:
        return []
    return [f"{what}: {np.mean(band):.3f}, {name} {np.mean(other):.3f} (standard error {error:.3f})"]


def _lost(what: str, arms: Arms, allowed: float) -> list[str]:
    _, now, band = arms.means
    return [f"{what}: {band:.3f}, now {now:.3f}"] if band < now - allowed else []


def _named(what: str, arms: Arms) -> Mapping[str, float]:
    names = (f"{what}_prior", f"{what}_now", f"{what}_band")
    return dict(zip(names, arms.means, strict=True)) | {what: float(len(arms.band))}
