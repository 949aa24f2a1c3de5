"""Reading a stretch of a long text: chunks that are all full, in a window that is full, so that all are alike.

The work of a chunk goes from buffers to buffers of one shape. On a GPU it is recorded once, as a CUDA graph, and
replayed for every chunk: small chunks then do not wait for Python to launch their kernels, a thousand and more of them.
A model that others have put hooks into is not recorded: nobody knows what they look at.

axes: u users · t tokens
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
    """Alike chunks, one after the other: begin, read some, end; and begin again where there are more of them.

    Args:
        scored: of which no step may look at a value.
        window: full, of the shape of those to come. state: likewise, on the model's device. tokens: t.
        record: whether to record the work of a chunk.
    """

    def __init__(self, scored: Scored, window: Window, state: LMState, tokens: int, *, record: bool) -> None:
        self._scored, self._tokens, self._window, self._state = scored, tokens, window, state
        self._keys = [torch.zeros_like(layer.keys) for layer in window.cache.layers]
        self._values = [torch.zeros_like(layer.values) for layer in window.cache.layers]
        self._weights, self._momentum = torch.zeros_like(state.weights), torch.zeros_like(state.momentum)
        self._position = torch.zeros_like(window.position, device=state.weights.device)
        self._inputs = self._position[:, None].repeat(1, tokens)
        self._targets, self._surprise = self._inputs.clone(), self._inputs.float()
        self._step = recorded(self._chunk, state.weights.device) if record else self._chunk

    def begin(self, window: Window, state: LMState) -> None:
        """Go on from a window and a state of the same shapes, which stay as they are."""
        self._window, self._state, self._read = window, state, 0
        self._position.copy_(window.position)
        self._weights.copy_(state.weights)
        self._momentum.copy_(state.momentum)
        for layer, keys, values in zip(window.cache.layers, self._keys, self._values, strict=True):
            keys.copy_(layer.keys)
            values.copy_(layer.values)

    def read(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One chunk: inputs and targets (u, t) give surprise (u, t), all on the model's device."""
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._step()
        self._read += self._tokens
        return self._surprise.clone()

    def end(self) -> tuple[Window, LMState]:
        """What is in view after it, and the state; the tokens of the state are not counted."""
        cache = self._cache()
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
        window = self._window._replace(cache=cache, position=self._window.position + self._read)
        return window, self._state._replace(weights=self._weights.clone(), momentum=self._momentum.clone())

    def _cache(self) -> Any:
        cache = copied(self._window.cache)
        for layer, keys, values in zip(cache.layers, self._keys, self._values, strict=True):
            layer.keys, layer.values = keys, values
        return cache

    def _chunk(self) -> None:
        """One chunk, from the buffers to the buffers."""
        places = self._position[:, None] + torch.arange(self._tokens, device=self._position.device)
        chunk = Chunk(self._inputs, self._targets, places, torch.ones_like(places, dtype=torch.bool), None)
        state, cache = LMState(self._weights, self._momentum, self._state.tokens), self._cache()
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


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A recording of work from buffers to buffers on a GPU, which its `replay` does again; else the work.

    Other threads may use the GPU meanwhile. Nothing is recorded under autocast, which keeps casts.
    """
    if torch.is_autocast_enabled("cuda"):
        return work
    try:
        with torch.cuda.device(device):
            graph = torch.cuda.CUDAGraph()
            _warm(work)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                work()
    except RuntimeError:  # some part of it looks at a value
        return work
    return graph.replay


def _warm(work: Callable[[], None]) -> None:
    """Do it once, on a stream of its own, as recording asks for."""
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    with torch.cuda.stream(side):
        work()
    main.wait_stream(side)


def recordable(model: nn.Module) -> bool:
    """Whether a pass of a model may be recorded: on one GPU, and without hooks of others in it."""
    devices = {parameter.device for parameter in model.parameters()}
    return len(devices) == 1 and devices.pop().type == "cuda" and not hooked(model)


def hooked(model: nn.Module) -> bool:
    """Whether a model has hooks in it besides those of this package."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    hooks = (hook for module in model.modules() for kind in kinds for hook in getattr(module, kind).values())
    return any(not getattr(hook, "__module__", "").startswith(__package__) for hook in hooks)
