"""Where training is, in a file that outlives a kill: msgpack around safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import torch
from torch import Tensor

EVERY = 5.0  # seconds between checkpoints within a group
_last = 0.0


class Point(NamedTuple):
    """Groups that are done, and how far the next one is.

    Attributes:
        group: number of the first group that is not done. step: of it.
        values: of items that are done. losses: a list a group. learned: an item's loss at its end.
        arrays: the unfinished group's values and its optimizer's state.
    """

    group: int
    step: int
    values: dict[str, Tensor]
    losses: list[list[float]]
    learned: dict[str, float]
    arrays: dict[str, Tensor]

    @classmethod
    def start(cls) -> Point:
        """Nothing done."""
        return cls(0, 0, {}, [], {}, {})

    def within(self, step: int, losses: list[float], values: Tensor, optimizer: Any) -> Point:
        """In the midst of the next group."""
        state = optimizer.state[values]
        arrays = {"values": values.detach(), "m": state["exp_avg"], "v": state["exp_avg_sq"], "step": state["step"]}
        return self._replace(step=step, losses=[*self.losses[: self.group], losses], arrays=arrays)

    def after(self, losses: list[float], values: Mapping[str, Tensor], learned: Mapping[str, float]) -> Point:
        """The next group is done."""
        told = [*self.losses[: self.group], losses]
        return Point(self.group + 1, 0, {**self.values, **values}, told, {**self.learned, **learned}, {})


def resume(point: Point, values: Tensor, optimizer: Any) -> int:
    """Put an unfinished group's values and optimizer state back; the step to go on with."""
    if not point.step:
        return 0
    with torch.no_grad():
        values.copy_(point.arrays["values"])
    step = point.arrays["step"].to(values.device) if optimizer.defaults["fused"] else point.arrays["step"]
    optimizer.state[values] = {
        "step": step,
        "exp_avg": point.arrays["m"].to(values.device),
        "exp_avg_sq": point.arrays["v"].to(values.device),
    }
    return point.step


def of(folder: Path, stem: str, newest: int) -> tuple[Path, int]:
    """The checkpoint of a sleep, and the log position up to which it learns: of one that was cut short, or a new one.

    Args:
        folder: where it is. stem: names whose sleep it is. newest: log position up to which a new one would learn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{stem}-*.sleep"))
    if found:
        return found[0], int(found[0].stem.rpartition("-")[2])
    return folder / f"{stem}-{newest}.sleep", newest


def digest(*work: Any) -> str:
    """What is trained, and how: a checkpoint of other work is not gone on from."""
    return hashlib.sha256(repr(work).encode()).hexdigest()


def due() -> bool:
    """Whether the last checkpoint is old enough for another."""
    return time.monotonic() - _last > EVERY


def save(path: Path, work: str, point: Point) -> None:
    """Write a checkpoint; a kill leaves the one before. Where its directory is gone, there is none."""
    global _last  # noqa: PLW0603
    from safetensors.torch import save as pack

    names = list(point.values)
    arrays = {f"item-{at}": point.values[name] for at, name in enumerate(names)} | point.arrays
    value = {
        "work": work,
        "group": point.group,
        "step": point.step,
        "names": names,
        "losses": point.losses,
        "learned": point.learned,
        "arrays": pack({name: array.float().cpu().contiguous() for name, array in arrays.items()}),
    }
    part = path.with_name(path.name + ".part")
    with suppress(FileNotFoundError):
        with part.open("wb") as file:
            file.write(msgpack.packb(value))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    _last = time.monotonic()


def load(path: Path, work: str) -> Point:
    """Where training was; the start, where there is no checkpoint of this work that can be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load as unpack

    try:
        value = msgpack.unpackb(path.read_bytes())
        if value["work"] != work:
            return Point.start()
        arrays = unpack(value["arrays"])
        values = {name: arrays.pop(f"item-{at}") for at, name in enumerate(value["names"])}
        return Point(value["group"], value["step"], values, value["losses"], value["learned"], arrays)
    except (OSError, ValueError, KeyError, TypeError, msgpack.UnpackException, SafetensorError):
        return Point.start()
