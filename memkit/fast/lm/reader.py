"""Reading a stream with a causal language model through a small window, and writing fast weights while it reads.

A chunk of tokens is scored first and learned from after, once. What it sees of the past is a window; a long text is
read in stretches of chunks that are all alike. The gradient comes from the chunk alone. Its signal at the last hidden
state,

    dL/dh = sum over the likeliest tokens of p(token) W[token]  -  W[target],

leaves out the tail of the vocabulary, which spares the backward pass of the largest matrix of a small model. It goes
back through three fifths of the layers with fast weights; the lower ones take what arrives there unchanged, as the
residual stream would carry it, without a backward pass of their own.

axes: u users, one row each · t tokens · d hidden dims
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from memkit.fast.lm import weights
from memkit.fast.lm.places import Place, head, places
from memkit.fast.lm.stretch import WORTH, Chunk, Scored, Stretch, recordable
from memkit.fast.lm.weights import LMState, Rule
from memkit.fast.lm.window import Window

CACHE_NAMES = ("cache", "past_key_values")  # of the argument, newest first
LIKELY = 64  # tokens that the signal is made of, besides the target
SEED = 20_512_24695  # of the keys: a state means nothing under others

Tokens = list[int]
Rows = list[Tokens]  # one a user
Surprise = npt.NDArray[np.float32]


class Acting(NamedTuple):
    """Fast weights of each place (u, r, o) in one pass, and what was heard of the lower places."""

    values: list[Tensor]
    heard: list[Tensor]


class FastWeights:
    """Hooks that add what fast weights say to the maps they stand beside, and nothing while `said` is None.

    Args:
        model: whose upper MLPs get them. rank: directions of each.

    Attributes:
        lower: how many of the places, the lowest, the gradient does not go through.
    """

    def __init__(self, model: nn.Module, rank: int) -> None:
        self.places = places(model)
        self.said: Sequence[Tensor] | None = None  # (u, r, o) of each place
        self.rank = min(rank, *(min(place.keys, place.values) for place in self.places))
        self.lower = 2 * len(self.places) // 5
        self._heard: list[Tensor] | None = None  # of the lower places: keys (b, t, r), and what the last of them gives
        with torch.inference_mode(False):  # what gradients pass through must not be made in it
            self._keys = [self._made(place, SEED + at) for at, place in enumerate(self.places)]
            self.scale = torch.tensor([place.scale for place in self.places], device=self._keys[-1].device)
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

    @contextmanager
    def acting(self, values: Sequence[Tensor] | None, *, learns: bool = False) -> Iterator[Acting]:
        """Say these (u, r, o) in each place for a pass; if something learns from it, for `gradient`."""
        before, heard = self.said, list[Tensor]()
        if values is not None:
            values = [one.clone().requires_grad_(learns and at >= self.lower) for at, one in enumerate(values)]
        self.said, self._heard = values, heard if learns else None
        try:
            yield Acting(values or [], heard)
        finally:
            self.said, self._heard = before, None

    def gradient(self, acting: Acting, hidden: Tensor, signal: Tensor) -> Tensor:
        """dL/dA (u, l, r, o) of what acted in a pass, from the last hidden states of it and dL/d(hidden)."""
        *keys, output = acting.heard or [hidden]
        below = [output] if keys else []
        found = torch.autograd.grad(hidden, below + acting.values[self.lower :], signal)
        lower = [weights.gradient(key, found[0]) for key in keys]
        return torch.stack([*lower, *found[len(below) :]], dim=1)

    def _key(self, at: int, x: Tensor) -> Tensor:
        return weights.key(x, self._keys[at].to(x))

    def _added(self, at: int, x: Tensor, y: Tensor) -> Tensor:
        if self.said is None:
            return y
        key = self._key(at, x)
        added = y + weights.read(key, self.said[at].to(x.device)).to(y.dtype)
        if self._heard is None or at >= self.lower:
            return added
        self._heard.append(key)
        if at == self.lower - 1:  # the gradient comes as far as here
            added.requires_grad_()
            self._heard.append(added)
        return added


class Reader:
    """Reads for several users at once, a row each, and keeps what each still sees and the token that comes next.

    Args:
        fast: of the same model, installed. window: tokens in view before a chunk. chunk: tokens between writes.
        first: a token that opens every stream.
    """

    def __init__(self, model: Any, fast: FastWeights, *, users: int, window: int, chunk: int, first: int) -> None:
        self._model, self._fast, self._users = model, fast, users
        self._window_size, self._chunk, self._first = window, chunk, first
        self._head = head(model)
        self._device = next(model.parameters()).device
        config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        self._farthest = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
        self._cache_name = next(name for name in CACHE_NAMES if name in signature(model.forward).parameters)
        self.forget()

    def forget(self) -> None:
        """Begin a new stream: nothing before it is in view. What was learned stays."""
        self._window = Window.empty(self._users)
        self._next = [self._first] * self._users

    def view(self) -> tuple[Window, Tokens]:
        """What is in view, to come back to with `look`."""
        return self._window.copy(), list(self._next)

    def look(self, view: tuple[Window, Tokens]) -> None:
        """Come back to a view."""
        self._window, self._next = view[0], list(view[1])

    def read(self, state: LMState, texts: Sequence[Tokens], rule: Rule | None) -> tuple[LMState, list[Surprise]]:
        """Read one row of tokens a user; some may be empty.

        Without a rule nothing is learned.

        Returns:
            The state after them, and of each token how surprising it was when it came, in nats.
        """
        steps = range(0, max(map(len, texts), default=0), self._chunk)
        chunks = [[text[at : at + self._chunk] for text in texts] for at in steps]
        scored = partial(self._scored, rule, rule is not None or bool(state.tokens.any()))
        found: list[list[Surprise]] = [[] for _ in texts]
        stretch, record = None, recordable(self._model)
        with _undisturbed(self._model), torch.inference_mode(False):
            while chunks:
                many = self._alike(chunks)
                if many > 1:
                    stretch = stretch or Stretch(scored, self._window, state, self._chunk, record=record)
                    state, surprise = self._stretch(stretch, state, chunks[:many])
                else:
                    state, surprise = self._ragged(scored, state, chunks[0])
                for row, one, text in zip(found, surprise, zip(*chunks[:many], strict=True), strict=True):
                    row.append(one[: sum(map(len, text))])
                del chunks[:many]
        if rule is not None:
            state = state._replace(tokens=state.tokens + torch.tensor(list(map(len, texts))))
        return state, [np.concatenate(row) if row else np.zeros(0, np.float32) for row in found]

    def _alike(self, chunks: Sequence[Rows]) -> int:
        """How many of the next chunks are read as a stretch; 1 where the next is no part of one that is worth it."""
        window = self._window
        if not window.held.all() or window.held.shape[1] < self._window_size:
            return 1
        room = (self._farthest - int(window.position.max())) // self._chunk
        full = takewhile(lambda rows: all(len(row) == self._chunk for row in rows), chunks[:room])
        many = sum(1 for _ in full)
        return many if many >= WORTH else 1

    def _stretch(self, stretch: Stretch, state: LMState, chunks: Sequence[Rows]) -> tuple[LMState, Surprise]:
        """Read alike chunks; surprise (u, t) of all their tokens."""
        targets = torch.tensor(chunks).to(self._device)
        before = torch.tensor(self._next).to(self._device)[:, None]
        rows = targets.transpose(0, 1).flatten(1)
        inputs = torch.split(torch.cat([before, rows[:, :-1]], dim=1), self._chunk, dim=1)
        stretch.begin(self._window, state)
        surprise = [stretch.read(*part) for part in zip(inputs, targets, strict=True)]
        self._window, state = stretch.end()
        self._next = [row[-1] for row in chunks[-1]]
        return state, torch.cat(surprise, dim=1).cpu().numpy()

    def _ragged(self, scored: Scored, state: LMState, targets: Rows) -> tuple[LMState, Surprise]:
        """Read one chunk, of which rows may be short or empty; surprise (u, t)."""
        inputs = [[token, *row[:-1]] if row else [] for token, row in zip(self._next, targets, strict=True)]
        real = torch.arange(max(map(len, targets))) < torch.tensor(list(map(len, targets)))[:, None]
        window = self._opened(real.shape[1])
        held = torch.cat([window.held, real], dim=1)
        places = (window.position[:, None] + torch.arange(real.shape[1])).clamp(max=self._farthest - 1)
        mask = None if held.all() else held.long()
        chunk = Chunk(_padded(inputs), _padded(targets), places, real, mask).to(self._device)
        state, surprise = scored(state, chunk, window.cache)
        self._window = window.slid(real, self._window_size)
        self._next = [row[-1] if row else token for token, row in zip(self._next, targets, strict=True)]
        return state, surprise.cpu().numpy()

    def _opened(self, tokens: int) -> Window:
        """What is in view; nothing, when the positions that the model knows are used up."""
        used_up = int(self._window.position.max()) + tokens > self._farthest
        return Window.empty(self._users) if used_up else self._window

    def _scored(
        self, rule: Rule | None, acts: bool, state: LMState, chunk: Chunk, cache: Any
    ) -> tuple[LMState, Tensor]:
        """Score a chunk, then learn from it: the state and surprise (u, t). Nothing here waits for the device.

        Args:
            acts: whether the fast weights do; before anything was learned the model is left as it is.
        """
        learns, values = rule is not None, state.weights.detach().unbind(1)
        with (
            torch.set_grad_enabled(learns),
            self._fast.acting(values if acts else None, learns=learns) as acting,
            _caught(self._head) as caught,
        ):
            logits = self._model(
                input_ids=chunk.inputs,
                attention_mask=chunk.mask,
                position_ids=chunk.places,
                use_cache=True,
                **{self._cache_name: cache},
            ).logits
        with torch.no_grad():
            surprise, signal = self._judged(logits.float(), chunk.targets, chunk.real, learns)
        if rule is None:
            return state, surprise
        gradient = self._fast.gradient(acting, caught[0], signal.to(caught[0]))
        with torch.no_grad():
            return rule.write(state, gradient, chunk.real.sum(1) / self._chunk, self._fast.scale), surprise

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
    """A model that neither trains, nor drops out, nor is compiled meanwhile; afterwards it is as it was."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = [module for module in model.modules() if module.training]
    compiled = {module: vars(module).pop("_compiled_call_impl", None) for module in model.modules()}
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
        for module, call in compiled.items():
            if call is not None:
                module._compiled_call_impl = call


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of what two rows of tokens begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
