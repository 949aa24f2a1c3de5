"""States of attached language models in the file: STATE frames with a `model`. See docs/format.md.

A scope family has one such state: its newest. It is derived: compaction keeps the newest, erasure drops them all, and
whoever has the text can read it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from memkit.fast.lm.weights import LMState
from memkit_storage.errors import ModelMismatch
from memkit_storage.format import FrameType
from memkit_storage.log import now_us
from memkit_storage.rows import SCOPE_FIELDS
from memkit_storage.store import UNUSABLE, Store

Family = tuple[str | None, ...]


def save(store: Store, scope: Mapping[str, str], family: Family, model: str, state: LMState) -> None:
    """Write one user's state. Its momentum is not kept: the next chunk starts it anew.

    Raises:
        ReadOnly, StorageFailed: nothing was written.
    """
    from safetensors.torch import save as pack

    store.refresh()
    value = {
        **scope,
        "family": list(family),
        "model": model,
        "position": store.log.cursor.position,
        "time": now_us(),
        "tokens": int(state.tokens[0]),
        "arrays": pack({"weights": state.weights[0].half().cpu().contiguous()}),
    }
    store.record_learning(FrameType.STATE, value)


def restore(store: Store, family: Family, model: str, empty: LMState, as_of: int | None = None) -> LMState:
    """A family's state, on the device of `empty`; `empty` where there is none, or where it was reset since.

    Raises:
        ModelMismatch: it was made inside another model.
    """
    value = _newest(store, family, as_of)
    if value is None:
        return empty
    if value["model"] != model:
        raise ModelMismatch(
            f"the state of {_named(family)} was made inside {value['model']}, and this model is {model}: attach that "
            "one, or pass fresh=True to start anew with this one"
        )
    try:
        return _unpacked(value, empty)
    except UNUSABLE:
        return empty  # of a rank or form that is not written any more: derived, so it starts anew


def _unpacked(value: dict[str, Any], empty: LMState) -> LMState:
    from safetensors.torch import load

    found = load(value["arrays"])["weights"].to(empty.weights)[None]
    if found.shape != empty.weights.shape or not found.isfinite().all():
        raise ValueError("of another form")
    return empty._replace(weights=found, tokens=torch.tensor([int(value["tokens"])]))


def _newest(store: Store, family: Family, as_of: int | None) -> dict[str, Any] | None:
    store.refresh()
    newest = None
    with store.lock:
        for kind, value in store.learned(0):
            if as_of is not None and value.get("time", 0) > as_of:
                continue
            if kind == FrameType.STATE and value.get("model") and tuple(value.get("family", ())) == family:
                newest = value
            elif value.get("reset") and _covers(value, family):
                newest = None
    return newest


def _covers(reset: Mapping[str, Any], family: Family) -> bool:
    """Whether what was learned in a family was given up: in all, or in this one."""
    user, agent, run = (reset.get(name) for name in SCOPE_FIELDS)
    return not (user or agent or run) or not family or ((user, agent) if user or agent else (None, None, run)) == family


def _named(family: Family) -> str:
    names = [f"{name}={value!r}" for name, value in zip(SCOPE_FIELDS, family, strict=False) if value]
    return ", ".join(names) or "the file"
