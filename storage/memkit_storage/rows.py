"""A row: one version of one item, as the log records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
NO_VECTOR: Vector = np.zeros(0, np.float32)
SCOPE_FIELDS = ("user_id", "agent_id", "run_id")


@dataclass(frozen=True, slots=True)
class Row:
    """One version of an item. Times are microseconds since 1970 UTC; `vector` is (d,) float32, unit length or zero.

    `position` is the log position of this version (consecutive row numbers, never reused).
    `first` is the position at which the item was first recorded: it orders listings and never changes.
    `surprise`, in [0, 1], is how unlike the items before it the version was when it was written; None: not known.
    """

    id: str
    text: str
    vector: Vector
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    occurred_us: int = 0
    created_us: int = 0
    updated_us: int = 0
    surprise: float | None = None
    position: int = -1
    first: int = -1

    @property
    def scope(self) -> tuple[str | None, str | None, str | None]:
        """(user_id, agent_id, run_id)."""
        return (self.user_id, self.agent_id, self.run_id)

    @property
    def searchable(self) -> str:
        """What is analysed and embedded."""
        return searchable(self.text, self.metadata)


def searchable(text: str, metadata: Mapping[str, Any]) -> str:
    """The words by which a text is found: its own, with the speaker (`name` in the metadata) before them."""
    name = metadata.get("name")
    return f"{name}: {text}" if isinstance(name, str) and name else text
