"""The levels of the continuum memory: how often each is written, and whether it learns at all.

    turn      every feedback: the online ranker, the adapter, the memory of needs; in a language model, every chunk
    session   every SESSION feedbacks: a snapshot of the turn level, from which it goes on after a restart
    sleep     every SLEEP feedbacks, or when it is asked for: bands, solved from the whole log and let in by a gate

A schedule of periods protects nothing by itself (docs/hope.md); what a level holds outlasts it because the next slower
one is made by replaying the log before the faster one lets go. A slow level that never changes anything is dead: the
usual fault of such systems, and nothing shows it but a look. (Nested Learning, arXiv 2512.24695, §7.1.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from memkit.fast import ranker
from memkit.fast.family import Family, FamilyState, unpacked
from memkit.fast.tier import SNAPSHOT_EVERY, FastTier
from memkit_storage import lineage
from memkit_storage.format import FrameType
from memkit_storage.store import UNUSABLE, Store

SESSION = SNAPSHOT_EVERY
SLEEP = 32  # feedbacks of a family after which a watcher sleeps for it
DEAD_AFTER = 3  # sleeps without a change after which a level is called dead


class Level(BaseModel):
    """One level of one family.

    Attributes:
        name, period: feedbacks between its writes. scope: whose it is.
        updates: how often it was written. pending: feedbacks since the last time.
        change: norm of what its last write changed in the weights of the signals, in usual spreads (turn: since the
            last session); None: not known.
        gain: mean reciprocal rank that the last write won on its probes over the level below; None: not measured.
        dead: it is due or was asked, and has changed nothing for a while.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    period: int
    scope: dict[str, str]
    updates: int
    pending: int
    change: float | None = None
    gain: float | None = None
    dead: bool = False


def levels(store: Store, tier: FastTier) -> list[Level]:
    """Every level of every family that has feedback."""
    snapshots = _snapshots(store)
    found: list[Level] = []
    for family, feedbacks in tier.families().items():
        scope = scope_of(feedbacks)
        saved = snapshots.get(family, [])
        found.append(_turn(tier, scope, len(feedbacks), _read(saved[-1]) if saved else None))
        found.append(_session(saved, scope, len(feedbacks)))
        found.append(_sleep(store, family, scope, len(feedbacks)))
    return found


def scope_of(feedbacks: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The scope of a family, by what its feedback has in common."""
    names = ("user_id", "agent_id") if any(v.get("user_id") or v.get("agent_id") for v in feedbacks) else ("run_id",)
    return {
        name: feedbacks[0][name]
        for name in names
        if feedbacks[0].get(name) and all(value.get(name) == feedbacks[0][name] for value in feedbacks)
    }


def within(view: Mapping[str, str], scope: Mapping[str, str]) -> bool:
    """Whether a family's scope lies in a view: what the view names, the family has. Runs learn together, so a view of a
    run shows what its user and agent have learned."""
    return all(scope.get(name) == value for name, value in view.items() if name != "run_id" or name in scope)


def _turn(tier: FastTier, scope: dict[str, str], feedbacks: int, snapshot: Any) -> Level:
    change = _distance(tier.learned(scope), snapshot)
    dead = feedbacks >= SESSION and change == 0
    return Level(name="turn", period=1, scope=scope, updates=feedbacks, pending=0, change=change, dead=dead)


def _session(values: Sequence[dict[str, Any]], scope: dict[str, str], feedbacks: int) -> Level:
    states = [_read(value) for value in values[-2:]]
    change = _distance(states[-1], states[0] if len(states) > 1 else None) if states else None
    pending = feedbacks - (int(values[-1]["learned"]) if values else 0)
    return Level(
        name="session",
        period=SESSION,
        scope=scope,
        updates=len(values),
        pending=max(pending, 0),
        change=change,
        dead=pending >= 2 * SESSION or change == 0,
    )


def _sleep(store: Store, family: Family, scope: dict[str, str], feedbacks: int) -> Level:
    mine = [r for r in lineage.records(store) if r.value["kind"] == "recall" and tuple(r.value["family"]) == family]
    let_in = [record for record in mine if record.value["verdict"] == "promoted"]
    metrics = let_in[-1].value.get("metrics", {}) if let_in else {}
    recent = mine[-DEAD_AFTER:]
    return Level(
        name="sleep",
        period=SLEEP,
        scope=scope,
        updates=len(let_in),
        pending=feedbacks - max((int(record.value.get("learned", 0)) for record in mine), default=0),
        change=metrics.get("change"),
        gain=metrics["probes_band"] - metrics["probes_now"] if "probes_band" in metrics else None,
        dead=len(recent) == DEAD_AFTER and not any(r.value["verdict"] == "promoted" for r in recent),
    )


def _snapshots(store: Store) -> dict[Family, list[dict[str, Any]]]:
    found: dict[Family, list[dict[str, Any]]] = {}
    with store.lock:
        for kind, value in store.learned(0):
            if kind == FrameType.STATE and not value.get("model") and "through" in value:
                found.setdefault(tuple(value.get("family", ())), []).append(value)
    return found


def _read(value: dict[str, Any]) -> FamilyState | None:
    try:
        return unpacked(value)
    except UNUSABLE:
        return None


def _distance(one: FamilyState | None, other: FamilyState | None) -> float | None:
    """Between the weights of two states; None stands for the prior."""
    if one is None:
        return None
    origin = ranker.start() if other is None else other.ranker.mean
    return float(np.linalg.norm(one.ranker.mean - origin))
