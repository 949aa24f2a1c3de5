"""A band inside a language model: a slot an item, opened by its subject, beside weights that stay as they are.

A map y = W x at the end of an upper layer's MLP becomes

    y = W x + s sum over open slots of A_i f_i(x),    f_i(x) = [K_i x ; |x| / sqrt(dims)]

K_i: one of a few sets of fixed orthonormal directions, which are the same for everyone, as of the fast tier; slots that
are open together read different ones, or they would be one slot. A_i: what slot i has learned, zero at the start. s:
root mean square of the singular values of W.

A slot is shut until its subject is read: until the states of the last few tokens at an early layer, centred and scaled
by mean and spread on anchor texts, are each as near to those of a key phrase of the slot as they are where its subject
is named, and nowhere else. It stays open until another subject opens other slots of its lane: what is known of somebody
and how they write are lanes of their own, open side by side. In a chat slots speak only if they are asked, and what is
about the user has a second slot, which opens on questions in the first person (`memkit.slow.lm.questions`). While every
slot is shut the model is bit for bit as it was. Slots that are never open together are learned apart, and one can be
taken out without a trace in the others.
Related: GRACE [G] (keys with a radius), WISE [W] (a side memory with a router), MEMOIR [M] (a sparse mask an edit).

This is the band as a value; `memkit.slow.lm.slots` lets bands act.

axes: s slots · k key phrases · m tokens of a phrase · l layers · r directions, the norm among them · o dims written ·
d hidden dims

[G] T. Hartvigsen et al., Aging with GRACE (arXiv 2211.11031).
[W] P. Wang et al., WISE (arXiv 2405.14768).
[M] K. Wang et al., MEMOIR (arXiv 2506.07899).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from memkit_storage.errors import InvalidInput

SETS = 16  # of directions K
PHRASE = 8  # tokens of a key phrase, at most; of a longer subject the last ones
ASKED, TIED = 384, 0.02  # dims of a question's vector; cosines that are no further apart are alike
FP16_MAX = 65504.0
FACTS, STYLE = "facts", "style"  # lanes


class Expert(NamedTuple):
    """One band's slots; a value, which nothing changes.

    Attributes:
        model: `identity` of the model that it was trained in. items: ids, one a slot; an item may have two.
        mean, spread: (d,) of the states that keys are compared with, on anchor texts.
        keys: (k, m, d) unit length, zero before the first token. owner: (k,) the slot of each.
        near: (k,) cosine that every token of a phrase must reach.
        values: A (s, l, r, o), float32. directions: (s,) which set of directions each slot reads.
        asked: (q, e) unit vectors of the questions that slots answer, with the answer. asks: (q,) the slot of each.
        names: of each slot, the subject that it is about; empty for those that are about whom a question is from.
        lane: slots of one silence each other, and those of others act beside them.
    """

    model: str
    items: tuple[str, ...]
    mean: Tensor
    spread: Tensor
    keys: Tensor
    owner: Tensor
    near: Tensor
    values: Tensor
    directions: Tensor
    asked: Tensor
    asks: Tensor
    names: tuple[str, ...]
    lane: str = FACTS

    def to(self, device: str | torch.device) -> Expert:
        """The band on a device; its questions stay on the CPU, where they are compared."""
        return self._replace(
            mean=self.mean.to(device),
            spread=self.spread.to(device),
            keys=self.keys.to(device),
            owner=self.owner.to(device),
            near=self.near.to(device),
            values=self.values.to(device),
            directions=self.directions.to(device),
        )

    def without(self, ids: Collection[str]) -> Expert:
        """The band with these items' slots taken out; the others are as they were."""
        return self.only([at for at, item in enumerate(self.items) if item not in ids])

    def only(self, slots: Sequence[int]) -> Expert:
        """The band with these slots alone, in their order."""
        kept = list(slots)
        place = torch.full((len(self.items),), -1, device=self.owner.device)
        place[kept] = torch.arange(len(kept), device=place.device)
        owner, asks = place[self.owner], place.cpu()[self.asks]
        return self._replace(
            items=tuple(self.items[at] for at in kept),
            keys=self.keys[owner >= 0],
            owner=owner[owner >= 0],
            near=self.near[owner >= 0],
            values=self.values[kept],
            directions=self.directions[kept],
            asked=self.asked[asks >= 0],
            asks=asks[asks >= 0],
            names=tuple(self.names[at] for at in kept),
        )

    def beside(self, other: Expert) -> Expert:
        """One band with the slots of both, which were trained in one model; this one's scale of keys stays."""
        owner = torch.cat([self.owner, other.owner + len(self.items)])
        return self._replace(
            items=self.items + other.items,
            keys=torch.cat([self.keys, other.keys]),
            owner=owner,
            near=torch.cat([self.near, other.near]),
            values=torch.cat([self.values, other.values]),
            directions=torch.cat([self.directions, other.directions]),
            asked=torch.cat([self.asked, other.asked]),
            asks=torch.cat([self.asks, other.asks + len(self.items)]),
            names=self.names + other.names,
        )

    def together(self, ids: Collection[str]) -> set[str]:
        """Items that were learned with those of `ids`, because what opens one opens the other; `ids` included."""
        alike = torch.einsum("kmd,jmd->kjm", self.keys, self.keys) + (self.keys.norm(dim=-1) < 0.5)[:, None]
        pairs = (alike.amin(-1) > torch.minimum(self.near, self.near[:, None])).nonzero()
        linked = torch.zeros(len(self.items), len(self.items), dtype=torch.bool)
        linked[self.owner[pairs[:, 0]], self.owner[pairs[:, 1]]] = True
        same = (self.asked @ self.asked.T > 1 - TIED).nonzero()
        own = torch.tensor([not self.names[at] for at in self.asks.tolist()], dtype=torch.bool)
        same = same[own[same].all(-1)]  # what names open is linked already
        linked[self.asks[same[:, 0]], self.asks[same[:, 1]]] = True
        linked |= linked.T.clone()
        reached = torch.tensor([item in ids for item in self.items], dtype=torch.bool)
        while not torch.equal(wider := reached | linked[reached].any(0), reached):
            reached = wider
        return {item for item, is_reached in zip(self.items, reached.tolist(), strict=True) if is_reached}


def to_arrays(expert: Expert) -> dict[str, Tensor]:
    """A band for a safetensors frame: floats in half precision, names as bytes."""
    value = expert.values.clamp(-FP16_MAX, FP16_MAX)
    about = json.dumps({name: getattr(expert, name) for name in ("model", "items", "names", "lane")}).encode()
    return {
        "about": torch.from_numpy(np.frombuffer(about, np.uint8).copy()),
        "mean": expert.mean.float().cpu().contiguous(),
        "spread": expert.spread.float().cpu().contiguous(),
        "keys": expert.keys.half().cpu().contiguous(),
        "owner": expert.owner.int().cpu().contiguous(),
        "near": expert.near.float().cpu().contiguous(),
        "values": value.half().cpu().contiguous(),
        "directions": expert.directions.int().cpu().contiguous(),
        "asked": expert.asked.half().cpu().contiguous(),
        "asks": expert.asks.int().cpu().contiguous(),
    }


def from_arrays(arrays: Mapping[str, Any]) -> Expert:
    """A band from what `to_arrays` gave, as tensors or numpy arrays.

    Raises:
        InvalidInput: an array is missing, of another shape, or not finite.
    """
    try:
        found = {name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()}
        about = json.loads(bytes(found["about"].numpy().astype(np.uint8)))
        floats = [found[name].float() for name in ("mean", "spread", "keys", "near", "values")]
        mean, spread, keys, near, values = floats
        owner, items = found["owner"].long(), tuple(map(str, about["items"]))
        read = found["directions"].long() if "directions" in found else torch.zeros(len(items), dtype=torch.int64)
        asked = found["asked"].float() if "asked" in found else torch.zeros(0, ASKED)
        asks = found["asks"].long() if "asks" in found else torch.zeros(0, dtype=torch.int64)
        names = tuple(map(str, about.get("names", [""] * len(items))))
        lane = str(about.get("lane", FACTS))
        expert = Expert(
            str(about["model"]), items, mean, spread, keys, owner, near, values, read, asked, asks, names, lane
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"not a language model's band: {error}; train it again from the log") from error
    slots, width = len(items), mean.shape
    shaped = (
        keys.ndim == 3
        and keys.shape[::2] == (len(owner), *width)
        and spread.shape == width
        and near.shape == owner.shape
        and values.ndim == 4
        and len(values) == len(read) == len(expert.names) == slots
        and asked.shape == (len(asks), ASKED)
    )
    bounds = (owner, slots), (read, SETS), (asks, slots)
    owned = all(bool(((at >= 0) & (at < most)).all()) for at, most in bounds)
    if not (shaped and owned and all(f.isfinite().all() for f in (*floats, asked))):
        raise InvalidInput(f"a band of {slots} items whose arrays do not fit; train it again from the log")
    return expert
