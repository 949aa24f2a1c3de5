"""Reading a stretch of a long text: chunks that are all full, in a window that is full, so that all are alike.

The work of a chunk goes from buffers to buffers of one shape. On a GPU it is recorded once, as a CUDA graph, and
replayed for every chunk: small chunks then do not wait for Python to launch their kernels, a thousand and more of them.

axes: u users · t tokens · l layers · r rank · o dims that a map writes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memkit.fast.lm.weights import LMState
from memkit.fast.lm.window import SINKS, Window, copied

WORTH = 16  # chunks from which recording pays: it takes as long as about three of them


class Chunk(NamedTuple):
    """Tokens to read.

    Attributes:
        inputs, targets, places: (u, t) ids, those that come next, positions. real: (u, t) which of them are tokens.
        mask: (u, slots + t), 1 on tokens of the window and of these; None where all are.
    """

    inputs: Tensor
    targets: Tensor
    places: Tensor
    real: Tensor
    mask: Tensor | None

    def to(self, device: torch.device) -> Chunk:
        """The chunk on a device."""
        return Chunk(
            self.inputs.to(device),
            self.targets.to(device),
            self.places.to(device),
            self.real.to(device),
            None if self.mask is None else self.mask.to(device),
        )


Scored = Callable[[LMState, Chunk, Any], tuple[LMState, Tensor]]  # of a model's cache: the state, surprise (u, t)


class Stretch:
    """Some alike chunks, one after the other.

    Args:
        scored: of which no step may look at a value. window: full. state: on the model's device. tokens: t.
    """

    def __init__(self, scored: Scored, window: Window, state: LMState, tokens: int) -> None:
        self._scored, self._window, self._tokens, self._read = scored, window, tokens, 0
        self._count = state.tokens
        self._keys = [layer.keys.clone() for layer in window.cache.layers]
        self._values = [layer.values.clone() for layer in window.cache.layers]
        self._weights, self._momentum = state.weights.clone(), state.momentum.clone()
        device, users = state.weights.device, len(window.position)
        self._position = window.position.to(device, copy=True)
        self._inputs = torch.zeros(users, tokens, dtype=torch.int64, device=device)
        self._targets, self._surprise = self._inputs.clone(), self._inputs.float()
        held = [*self._keys, *self._values, self._weights, self._momentum, self._position]
        self._step = recorded(self._chunk, held)

    def read(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One chunk: inputs and targets (u, t) give surprise (u, t), all on the model's device."""
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._step()
        self._read += self._tokens
        return self._surprise.clone()

    def end(self) -> tuple[Window, LMState]:
        """What is in view after it, and the state; the tokens of the state are not counted."""
        window = self._window._replace(cache=self._cache(), position=self._window.position + self._read)
        return window, LMState(self._weights, self._momentum, self._count)

    def _cache(self) -> Any:
        cache = copied(self._window.cache)
        for layer, keys, values in zip(cache.layers, self._keys, self._values, strict=True):
            layer.keys, layer.values = keys, values
        return cache

    def _chunk(self) -> None:
        """One chunk, from the buffers to the buffers."""
        places = self._position[:, None] + torch.arange(self._tokens, device=self._position.device)
        chunk = Chunk(self._inputs, self._targets, places, torch.ones_like(places, dtype=torch.bool), None)
        state, cache = LMState(self._weights, self._momentum, self._count), self._cache()
        state, surprise = self._scored(state, chunk, cache)
        self._weights.copy_(state.weights)
        self._momentum.copy_(state.momentum)
        self._surprise.copy_(surprise)
        self._position.add_(self._tokens)
        for layer, keys, values in zip(cache.layers, self._keys, self._values, strict=True):
            keys.copy_(_slid(layer.keys, keys.shape[2]))
            values.copy_(_slid(layer.values, values.shape[2]))


def _slid(longer: Tensor, size: int) -> Tensor:
    """Of keys or values (u, heads, slots, d) the sinks and the last, `size` in all, without their history."""
    last = longer.shape[2] - size + SINKS
    return torch.cat([longer[:, :, :SINKS], longer[:, :, last:]], dim=2).detach()


def recorded(work: Callable[[], None], held: Sequence[Tensor]) -> Callable[[], None]:
    """What does the work, from now on, as it is done now; on a GPU a recording of it, if it can be recorded.

    It cannot if some part of it, another's hook perhaps, waits for the device, or under autocast, which keeps casts.

    Args:
        held: what the work changes, and must find as it was when it is first done.
    """
    if held[0].device.type != "cuda" or torch.is_autocast_enabled("cuda"):
        return work
    before = [one.clone() for one in held]
    try:
        _warm(work)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    except RuntimeError:
        return work
    else:
        return graph.replay
    finally:
        for one, was in zip(held, before, strict=True):
            one.copy_(was)


def _warm(work: Callable[[], None]) -> None:
    """Do it once, on a stream of its own, as recording asks for.

    Raises:
        RuntimeError: it waits for the device.
    """
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    with torch.cuda.stream(side), _never_waiting():
        work()
    main.wait_stream(side)


@contextmanager
def _never_waiting() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
