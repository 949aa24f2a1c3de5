"""Reading a stream with a causal language model through a small window, and writing fast weights while it reads.

A chunk of tokens is scored first and learned from after, once; of a long text every third one is only scored. What it
sees of the past is a sliding key-value cache: the first few tokens of the stream, on which models rest their attention
[X], and the last of the window. The gradient comes from the chunk alone and goes down to the lowest layer with fast
weights; the signal at the last hidden state,

    dL/dh = sum over the likeliest tokens of p(token) W[token]  -  W[target],

leaves out the tail of the vocabulary, which spares the backward pass of the largest matrix of a small model.

axes: u users, one row each · t tokens · d hidden dims

[X] G. Xiao et al., Efficient Streaming Language Models with Attention Sinks (arXiv 2309.17453).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from memkit.fast.lm import weights
from memkit.fast.lm.places import Place, head, places
from memkit.fast.lm.weights import LMState, Rule

SINKS = 4  # first tokens of a stream that stay in view
CACHE_NAMES = ("cache", "past_key_values")  # of the argument, newest first
LIKELY = 64  # tokens that the signal is made of, besides the target
REST = 3  # of a long text, every third chunk is only read: that costs little of what is learned, and spares a third
SEED = 20_512_24695  # of the keys: a state means nothing under others

Tokens = list[int]
Surprise = npt.NDArray[np.float32]


class FastWeights:
    """Hooks that add what fast weights say to the maps they stand beside, and nothing while `said` is None.

    Args:
        model: whose upper MLPs get them. rank: directions of each.
    """

    def __init__(self, model: nn.Module, rank: int) -> None:
        self.places = places(model)
        self.scale = torch.tensor([place.scale for place in self.places])
        self.said: Sequence[Tensor] | None = None  # (u, r, o) of each place
        self.rank = min(rank, *(min(place.keys, place.values) for place in self.places))
        with torch.inference_mode(False):  # what gradients pass through must not be made in it
            self._keys = [self._made(place, SEED + at) for at, place in enumerate(self.places)]
        self._hooks: list[Any] = []

    def _made(self, place: Place, seed: int) -> Tensor:
        weight = place.module.weight
        assert isinstance(weight, Tensor)
        return weights.keys(place.keys, self.rank, seed).to(weight)

    def start(self, users: int) -> LMState:
        """Nothing read, on the model's device."""
        return weights.start(users, len(self.places), self.rank, self.places[0].values, self._keys[-1].device)

    def install(self) -> None:
        """Put the hooks in."""
        for at, place in enumerate(self.places):
            self._hooks.append(place.module.register_forward_hook(lambda _, x, y, at=at: self._added(at, x[0], y)))

    def remove(self) -> None:
        """Take them out again; the model is as it was."""
        while self._hooks:
            self._hooks.pop().remove()

    def _added(self, at: int, x: Tensor, y: Tensor) -> Tensor:
        if self.said is None:
            return y
        return y + weights.read(x, self._keys[at].to(x), self.said[at].to(x.device)).to(y.dtype)


class _Window(NamedTuple):
    """What a row still sees: the cache, which of its slots hold tokens (u, slots), and how far each row is (u,)."""

    cache: Any
    held: Tensor
    position: Tensor


class Reader:
    """Reads for several users at once, a row each, and keeps what each still sees and the token that comes next.

    Args:
        fast: of the same model, installed. window: tokens in view before a chunk. chunk: tokens between writes.
        first: a token that opens every stream. rest: of so many chunks in a row the last is only read; 0: none is.
    """

    def __init__(
        self, model: Any, fast: FastWeights, *, users: int, window: int, chunk: int, first: int, rest: int = REST
    ) -> None:
        self._model, self._fast, self._users, self._rest = model, fast, users, rest
        self._window_size, self._chunk, self._first = window, chunk, first
        self._head = head(model)
        self._device = next(model.parameters()).device
        config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        self._farthest = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
        self._cache_name = next(name for name in CACHE_NAMES if name in signature(model.forward).parameters)
        self.forget()

    def forget(self) -> None:
        """Begin a new stream: nothing before it is in view. What was learned stays."""
        self._window: _Window | None = None
        self._next = [self._first] * self._users

    def view(self) -> tuple[_Window | None, Tokens]:
        """What is in view, to come back to with `look`."""
        window = self._window
        return window and window._replace(cache=_copied(window.cache)), list(self._next)

    def look(self, view: tuple[_Window | None, Tokens]) -> None:
        """Come back to a view."""
        self._window, self._next = view[0], list(view[1])

    def read(self, state: LMState, texts: Sequence[Tokens], rule: Rule | None) -> tuple[LMState, list[Surprise]]:
        """Read one row of tokens a user; some may be empty.

        Without a rule nothing is learned.

        Returns:
            The state after them, and of each token how surprising it was when it came, in nats.
        """
        found: list[list[Surprise]] = [[] for _ in texts]
        steps = range(0, max(map(len, texts), default=0), self._chunk)
        with _undisturbed(self._model), torch.inference_mode(False):
            for number, at in enumerate(steps, 1):
                targets = [text[at : at + self._chunk] for text in texts]
                rests = rule is not None and self._rest > 0 and number % self._rest == 0
                state, surprises = self._step(state, targets, None if rests else rule)
                if rests:
                    state = state._replace(tokens=state.tokens + torch.tensor([len(row) for row in targets]))
                for row, surprise in zip(found, surprises, strict=True):
                    row.append(surprise)
        return state, [np.concatenate(row) if row else np.zeros(0, np.float32) for row in found]

    def _step(self, state: LMState, targets: list[Tokens], rule: Rule | None) -> tuple[LMState, list[Surprise]]:
        """Score a chunk, then learn from it."""
        lengths = torch.tensor([len(row) for row in targets])
        inputs = [[token, *row[:-1]] if row else [] for token, row in zip(self._next, targets, strict=True)]
        self._next = [row[-1] if row else token for token, row in zip(self._next, targets, strict=True)]
        values = [one.clone().requires_grad_(rule is not None) for one in state.weights.detach().unbind(1)]
        with self._acting(values if rule is not None or bool(state.tokens.any()) else None):
            hidden, surprise, signal = self._forward(_padded(inputs), _padded(targets), lengths, rule is not None)
        rows = [surprise[row, :length].cpu().numpy() for row, length in enumerate(lengths.tolist())]
        if rule is None:
            return state, rows
        gradient = torch.stack(torch.autograd.grad(hidden, values, signal), dim=1)
        state = rule.write(state, gradient, lengths / self._chunk, self._fast.scale)
        return state._replace(tokens=state.tokens + lengths), rows

    @contextmanager
    def _acting(self, values: Sequence[Tensor] | None) -> Iterator[None]:
        before, self._fast.said = self._fast.said, values
        try:
            yield
        finally:
            self._fast.said = before

    def _forward(self, inputs: Tensor, targets: Tensor, lengths: Tensor, learn: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The last hidden states (u, t, d) with their graph, surprise (u, t) of the targets, and dL/d(hidden)."""
        window = self._opened(inputs.shape[1])
        real = torch.arange(inputs.shape[1]) < lengths[:, None]
        held = torch.cat([window.held, real], dim=1)
        places = (window.position[:, None] + torch.arange(inputs.shape[1])).clamp(max=self._farthest - 1)
        with torch.set_grad_enabled(learn), _caught(self._head) as caught:
            logits = self._model(
                input_ids=inputs.to(self._device),
                attention_mask=None if held.all() else held.long().to(self._device),
                position_ids=places.to(self._device),
                use_cache=True,
                **{self._cache_name: window.cache},
            ).logits
        with torch.no_grad():
            self._window = self._slid(window.cache, held, window.position + lengths)
            surprise, signal = self._judged(logits.float(), targets.to(self._device), real.to(self._device), learn)
        return caught[0], surprise, signal.to(caught[0])

    def _opened(self, tokens: int) -> _Window:
        """What is in view; nothing, when the positions that the model knows are used up."""
        window = self._window
        if window is None or int(window.position.max()) + tokens > self._farthest:
            from transformers import DynamicCache

            none = torch.zeros(self._users, 0, dtype=torch.bool)
            return _Window(DynamicCache(), none, torch.zeros(self._users, dtype=torch.int64))
        return window

    def _slid(self, cache: Any, held: Tensor, position: Tensor) -> _Window:
        """The window moved to the end: of each row the sinks and its last tokens stay, empty slots go to the left."""
        newer = held.flip(1).cumsum(1).flip(1)
        stays = held & ((held.cumsum(1) <= SINKS) | (newer <= self._window_size - SINKS))
        size = int(stays.sum(1).max())
        slots = torch.argsort(stays.int(), dim=1, stable=True)[:, stays.shape[1] - size :]
        for layer in cache.layers:
            layer.keys, layer.values = _taken(layer.keys, slots), _taken(layer.values, slots)
        return _Window(cache, stays.gather(1, slots), position)

    def _judged(self, logits: Tensor, targets: Tensor, real: Tensor, learn: bool) -> tuple[Tensor, Tensor]:
        """Surprise (u, t), and the signal (u, t, d) of the mean surprise of each row; none of it if nothing learns."""
        surprise = logits.logsumexp(-1) - logits.gather(-1, targets[..., None])[..., 0]
        if not learn:
            return surprise, surprise[..., :0]
        top, tokens = logits.topk(min(LIKELY, logits.shape[-1]), dim=-1)
        share = torch.softmax(top, dim=-1)
        matrix = self._head.weight
        assert isinstance(matrix, Tensor)
        signal = torch.einsum("utk,utkd->utd", share.to(matrix.dtype), matrix[tokens]) - matrix[targets]
        return surprise, signal * (real / real.sum(1, keepdim=True).clamp(min=1))[..., None]


def _copied(cache: Any) -> Any:
    """A cache that goes its own way; tensors are shared, and never written in place."""
    twin = copy(cache)
    twin.layers = [copy(layer) for layer in cache.layers]
    return twin


def _taken(kept: Tensor, slots: Tensor) -> Tensor:
    """Of keys or values (u, heads, slots, d), some slots of each row, without their history."""
    at = slots.to(kept.device)[:, None, :, None].expand(-1, kept.shape[1], -1, kept.shape[3])
    return kept.detach().gather(2, at)


def _padded(rows: Sequence[Tokens]) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])


@contextmanager
def _caught(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module is given, with its graph; the module itself sees it without."""
    seen: list[Tensor] = []

    def catch(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0])
        return (args[0].detach(), *args[1:])

    hook = module.register_forward_pre_hook(catch)
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """A model that neither trains nor drops out meanwhile; afterwards it is as it was."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = [module for module in model.modules() if module.training]
    for parameter in trained:
        parameter.requires_grad_(False)
    model.eval()
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of what two rows of tokens begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
