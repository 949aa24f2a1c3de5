"""Bands as people see them: what was let in or turned away, what each was made from, and how to take one back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from memkit_storage import lineage
from memkit_storage.errors import ItemNotFound
from memkit_storage.format import FrameType
from memkit_storage.lineage import Record
from memkit_storage.log import now_us
from memkit_storage.rows import SCOPE_FIELDS
from memkit_storage.store import Store
from memkit_storage.times import to_datetime


class Band(BaseModel):
    """A consolidated set of parameters, and its lineage. A value; the file holds the parameters.

    Attributes:
        id: of the band. kind: "recall" (ranking, needs, the user's words); inside a language model "lm" (what
            items say) or "style" (how people write).
        scope: whose it is. parent: the band that was in force when it was made.
        promoted: it passed the gate. in_force: it acts now. reasons: of the gate, either way.
        items, feedbacks: how much of the log it was made from. span: first and last log position of that.
        chain: hex chain value of the log when it was made. digest: SHA-256 over what it was made from.
        model: identity of the embedder, or of the language model. hyper: settings of the training.
        metrics: at the gate. bytes: of its parameters; 0 once they are gone.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    kind: str
    scope: dict[str, str]
    parent: str | None
    created_at: datetime
    promoted: bool
    in_force: bool
    reasons: list[str]
    items: int = 0
    feedbacks: int = 0
    span: tuple[int, int] | None = None
    chain: str = ""
    digest: str = ""
    model: str | None = None
    hyper: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A band before it is in the file.

    Attributes:
        family: of scopes. scope: by name. positions: of the versions it was made from. digest: over them.
        learned: whatever else its kind needs in its frame (`memkit.fast.family.packed` for a recall band).
        arrays: parameters, in the safetensors format. chain: of the log that it was made from.
    """

    id: str
    kind: str
    family: tuple[str | None, ...]
    scope: Mapping[str, str]
    parent: str | None
    positions: Sequence[int]
    digest: str
    chain: str
    model: str | None
    promoted: bool
    reasons: Sequence[str]
    hyper: Mapping[str, Any]
    metrics: Mapping[str, float]
    learned: Mapping[str, Any]
    arrays: bytes

    def packed(self) -> dict[str, Any]:
        """The payload of its BAND frame; one that was turned away leaves its lineage alone."""
        covers = lineage.ranges(self.positions)
        value: dict[str, Any] = {
            **self.learned,
            **self.scope,
            "band": self.id,
            "kind": self.kind,
            "family": list(self.family),
            "parent": self.parent,
            "time": now_us(),
            "verdict": "promoted" if self.promoted else "rejected",
            "reasons": list(self.reasons),
            "covers": covers,
            "items": len(set(self.positions)),
            "span": [covers[0][0], covers[-1][1]] if covers else None,
            "chain": self.chain,
            "digest": self.digest,
            "hyper": dict(self.hyper),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
        }
        if self.model is not None:
            value["model"] = self.model
        if self.promoted:
            value["arrays"] = self.arrays
        return value


def write(store: Store, made: Made) -> Band | None:
    """Append a band: one frame, so that it is in force whole or not at all.

    Returns:
        None, and nothing is written, if something that it was made from has been erased meanwhile.

    Raises:
        ReadOnly, StorageFailed: nothing was written.
    """
    if not store.record_learning(FrameType.BAND, made.packed(), made_from=made.positions):
        return None
    return next(band for band in bands(store) if band.id == made.id)


def bands(store: Store) -> list[Band]:
    """Every band of the file, oldest first."""
    store.refresh()
    found = lineage.records(store)
    acting = {record.id for record in lineage.in_force(found).values()}
    return [_shown(record, record.id in acting) for record in found]


def _shown(record: Record, in_force: bool) -> Band:
    value = record.value
    span = value.get("span")
    return Band(
        id=record.id,
        kind=value["kind"],
        scope={name: value[name] for name in SCOPE_FIELDS if value.get(name)},
        parent=value.get("parent"),
        created_at=to_datetime(value.get("time", 0)),
        promoted=value["verdict"] == "promoted",
        in_force=in_force,
        reasons=[str(reason) for reason in value.get("reasons", [])],
        items=int(value.get("items", 0)),
        feedbacks=int(value.get("learned", 0)),
        span=(span[0], span[1]) if span else None,
        chain=value.get("chain", ""),
        digest=value.get("digest", ""),
        model=value.get("model") or value.get("embedder"),
        hyper=value.get("hyper", {}),
        metrics=value.get("metrics", {}),
        bytes=record.size,
    )


def switch(store: Store, band: str, *, on: bool, reason: str, allowed: Iterable[str]) -> list[str]:
    """Switch a band off, and every band that was made starting from it; or the band alone on again.

    Args:
        allowed: ids that the caller may touch.

    Returns:
        The ids that were switched; none, if it was so already.

    Raises:
        ItemNotFound: there is no such band among those allowed, or its parameters are gone.
    """
    store.refresh()
    found = {record.id: record for record in lineage.records(store)}
    if band not in found or band not in set(allowed):
        raise ItemNotFound(f"no band {band!r} here; bands() lists them")
    if on and not found[band].size:
        raise ItemNotFound(f"the parameters of band {band!r} are gone; consolidate() makes a new one from the log")
    line = [band] if on else lineage.descendants(list(found.values()), band)
    chosen = [id_ for id_ in line if found[id_].on is not on]
    for id_ in chosen:
        value = {"switch": id_, "on": on, "time": now_us(), "reason": reason}
        store.record_learning(FrameType.BAND, value)
    return chosen


def digest_of(parts: Iterable[Any]) -> str:
    """SHA-256, in hex, over values that JSON can hold."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, ensure_ascii=False, sort_keys=True).encode())
    return digest.hexdigest()
