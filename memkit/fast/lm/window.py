"""What a stream still sees of its past: a sliding key-value cache, the same for every model.

Kept are the first few tokens of the stream, on which models rest their attention [X], and the last of the window. The
tensors of a cache are never written in place: a copy of a window shares them.

axes: u users, one row each · t tokens

[X] G. Xiao et al., Efficient Streaming Language Models with Attention Sinks (arXiv 2309.17453).
"""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

SINKS = 4  # first tokens of a stream that stay in view


class Window(NamedTuple):
    """What each row sees.

    Attributes:
        cache: of the model. held: (u, slots) which of its slots hold tokens. position: (u,) how far each row is.
    """

    cache: Any
    held: Tensor
    position: Tensor

    @classmethod
    def empty(cls, users: int) -> Self:
        """Nothing in view."""
        from transformers import DynamicCache

        return cls(DynamicCache(), torch.zeros(users, 0, dtype=torch.bool), torch.zeros(users, dtype=torch.int64))

    def copy(self) -> Self:
        """A window that goes its own way."""
        return self._replace(cache=copied(self.cache))

    def slid(self, real: Tensor, size: int) -> Self:
        """The window moved to the end, after its cache has taken tokens of which `real` (u, t) are some.

        Of each row the sinks and its last tokens stay, `size` in all; empty slots go to the left.
        """
        held = torch.cat([self.held, real], dim=1)
        newer = held.flip(1).cumsum(1).flip(1)
        stays = held & ((held.cumsum(1) <= SINKS) | (newer <= size - SINKS))
        most = int(stays.sum(1).max())
        slots = torch.argsort(stays.int(), dim=1, stable=True)[:, stays.shape[1] - most :]
        for layer in self.cache.layers:
            layer.keys, layer.values = _taken(layer.keys, slots), _taken(layer.values, slots)
        return self._replace(held=stays.gather(1, slots), position=self.position + real.sum(1))


def copied(cache: Any) -> Any:
    """A cache that shares its tensors with another."""
    twin = copy(cache)
    twin.layers = [copy(layer) for layer in cache.layers]
    return twin


def _taken(kept: Tensor, slots: Tensor) -> Tensor:
    """Of keys or values (u, heads, slots, d), some slots of each row, without their history."""
    at = slots.to(kept.device)[:, None, :, None].expand(-1, kept.shape[1], -1, kept.shape[3])
    return kept.detach().gather(2, at)
