"""One feedback: what was asked, what was there to choose from, and what helped. As it stands in the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memkit.signals import NAMES
from memkit_storage.rows import SCOPE_FIELDS, Vector

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]

KEPT = 50  # candidates of a feedback, best first; more change nothing that is learned


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the fast tier learns from.

    Attributes:
        vector: (d,) of the query.
        scope: of the search.
        used, wrong: ids of items that helped, and that misled. `shown`: of the best that were there to choose from.
        signals: (n, len(NAMES)) of the candidates; none if they were measured by another version.
        labels: (n,) 1 used, -1 wrong, 0 neither.
        epoch: of the vectors of the file when it was given.
        familiar: how near the nearest past need was, in standard deviations; None if that says nothing.
        again: whether what had served that one served again.
        weight: in (0, 1]. `source`: who says so, None for the caller. `trusted`: False is logged, not learned from.
    """

    time_us: int
    query: str
    vector: Vector
    scope: Mapping[str, str]
    used: tuple[str, ...]
    wrong: tuple[str, ...]
    shown: tuple[str, ...]
    signals: Floats
    labels: Labels
    weight: float = 1.0
    source: str | None = None
    trusted: bool = True
    epoch: int = 0
    familiar: float | None = None
    again: bool = False

    def packed(self, epoch: int) -> dict[str, Any]:
        """The payload of a FEEDBACK frame (docs/format.md §4)."""
        value: dict[str, Any] = {
            "time": self.time_us,
            "query": self.query,
            "vector": self.vector.astype("<f2").tobytes(),
            "epoch": epoch,
            "used": list(self.used),
            "wrong": list(self.wrong),
            "shown": list(self.shown),
            "names": " ".join(NAMES),
            "signals": self.signals[:KEPT].astype("<f4").tobytes(),
            "labels": self.labels[:KEPT].astype("i1").tobytes(),
            "weight": self.weight,
            "trusted": self.trusted,
            **self.scope,
        }
        if self.familiar is not None:
            value |= {"familiar": self.familiar, "again": self.again}
        return value if self.source is None else value | {"source": self.source}

    @classmethod
    def unpacked(cls, value: Mapping[str, Any]) -> Feedback:
        """What `packed` gave; signals that this version does not measure are left out."""
        labels = np.frombuffer(value["labels"], "i1")
        signals = np.frombuffer(value["signals"], "<f4").astype(np.float64)
        if value["names"] != " ".join(NAMES):
            labels, signals = labels[:0], signals[:0]
        return cls(
            time_us=value["time"],
            query=value["query"],
            vector=np.frombuffer(value["vector"], "<f2").astype(np.float32),
            scope={name: value[name] for name in SCOPE_FIELDS if value.get(name)},
            used=tuple(value["used"]),
            wrong=tuple(value["wrong"]),
            shown=tuple(value["shown"]),
            signals=signals.reshape(-1, len(NAMES)),
            labels=labels,
            weight=float(value["weight"]),
            source=value.get("source"),
            trusted=bool(value["trusted"]),
            epoch=int(value["epoch"]),
            familiar=None if value.get("familiar") is None else float(value["familiar"]),
            again=bool(value.get("again")),
        )
