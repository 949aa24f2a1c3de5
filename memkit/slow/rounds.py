"""Going round the families of a file: one after the other, within a budget, with a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from memkit.fast.family import Family
from memkit.slow.bands import Band

Progress = Callable[[int, int], None]
Feedbacks = Sequence[dict[str, Any]]

LEAST = 16  # feedbacks of a family that a band is made from
BYTES_A_FEEDBACK = 3 * 50 * 23 * 8  # of a batch, with the copies that folds make


class SleepReport(BaseModel):
    """What a sleep did.

    Attributes:
        bands: that were made, let in or not. skipped: scope -> why nothing was made for it.
        losses: band id -> training loss after each step. seconds: on the wall.
        finished: False when the budget ran out or it was interrupted; the next sleep goes on.
    """

    model_config = ConfigDict(frozen=True)

    bands: list[Band]
    skipped: dict[str, str]
    losses: dict[str, list[float]]
    seconds: float
    finished: bool

    def also(self, other: SleepReport) -> SleepReport:
        """Both as one; a scope may have been skipped for either reason."""
        parts = (self, other)
        names = dict.fromkeys(name for part in parts for name in part.skipped)
        return SleepReport(
            bands=self.bands + other.bands,
            skipped={name: "; ".join(part.skipped[name] for part in parts if name in part.skipped) for name in names},
            losses=self.losses | other.losses,
            seconds=max(self.seconds, other.seconds),
            finished=self.finished and other.finished,
        )


@dataclass
class Budget:
    """How long and how large a sleep may be, and whether it was asked to stop.

    Args:
        seconds: on the wall; None for any. megabytes: of memory for feedback; None for any.
        stopped: asked between steps.
    """

    seconds: float | None = None
    megabytes: int | None = None
    stopped: Callable[[], bool] = lambda: False
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float | None:
        """Seconds; None without a limit."""
        return None if self.seconds is None else self.seconds - (time.monotonic() - self.begun)

    @property
    def over(self) -> bool:
        """Whether to stop now."""
        return (self.left is not None and self.left <= 0) or self.stopped()

    def fitting(self, feedbacks: Feedbacks) -> Feedbacks:
        """The newest feedback that memory allows."""
        if self.megabytes is None:
            return feedbacks
        return feedbacks[-max(LEAST, self.megabytes * 1_000_000 // BYTES_A_FEEDBACK) :]


class Slept(NamedTuple):
    """Of one family: a band with the loss after each step, or why there is none; whether nothing is left to do."""

    band: Band | None = None
    losses: Sequence[float] = ()
    reason: str = ""
    finished: bool = True

    @classmethod
    def with_band(cls, band: Band | None, losses: Sequence[float], *, finished: bool = True) -> Slept:
        """Of a band as it was written, or was not because something that it was made from was erased meanwhile."""
        if band is None:
            return cls(reason="items were erased meanwhile; the next sleep does without them", finished=False)
        return cls(band, losses, finished=finished)


def go_round(
    work: Mapping[Family, Callable[[], Slept]], budget: Budget, progress: Progress | None = None
) -> SleepReport:
    """Do the work of each family until the budget is over."""
    done: dict[Family, Slept] = {}
    for family, sleep in work.items():
        if budget.over:
            break
        done[family] = sleep()
        if progress:
            progress(len(done), len(work))
    made = [(slept.band, slept.losses) for slept in done.values() if slept.band]
    return SleepReport(
        bands=[band for band, _ in made],
        skipped={_named(family): slept.reason for family, slept in done.items() if slept.reason},
        losses={band.id: list(losses) for band, losses in made},
        seconds=time.monotonic() - budget.begun,
        finished=len(done) == len(work) and all(slept.finished for slept in done.values()),
    )


def _named(family: Family) -> str:
    return " / ".join(name for name in family if name) or "(no scope)"
