"""Bands acting in a language model: hooks that open slots as tokens come, and add what open slots say.

covers: dense decoders of Hugging Face; batches with padding on the left; decoding with a cache that keeps its rows.
does not cover: beam search, which reorders the rows of a cache.

axes: b rows · t tokens · s slots · m tokens of a phrase · l layers · n sets of directions · r directions in one, the
norm among them · o dims written · d hidden dims
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from memkit.fast.lm import weights
from memkit.fast.lm.places import identity, places
from memkit.fast.lm.reader import CACHE_NAMES
from memkit.slow.lm.doors import Doors, Seen, opening
from memkit.slow.lm.ear import Ear, Heard
from memkit.slow.lm.expert import PHRASE, Expert
from memkit_storage.errors import InvalidInput, ModelMismatch

RANK = 4
SEED, APART = 20_512_24695, 1009  # of K, and from one set to the next: slots mean nothing under others
SCOPE = 0.15  # of the layers, below the one whose states open slots


def layers(model: nn.Module) -> list[nn.Module]:
    """A decoder's layers: its longest list of modules."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def scope_layer(model: nn.Module) -> int:
    """The layer whose output opens slots."""
    return int(SCOPE * len(layers(model)))


class Slots:
    """Hooks in one model that add what open slots say; one chain of bands a row, or one for all rows.

    Args:
        model: a dense decoder of Hugging Face, not compiled.
        tokenizer: of the model, whose chat template tells turns of users; None: everything is plain text.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.places = model, places(model)
        self._ear = None if tokenizer is None else Ear(tokenizer)
        self._rank = min(RANK, self.places[0].values, *(place.keys for place in self.places))
        self.values: Tensor | None = None  # (s, l, r, o)
        self.open: Tensor | None = None  # (b, t, s), of the tokens of this pass, and of the slots open in it
        self._which: Tensor | None = None  # those slots; None: all
        self.fixed: Tensor | None = None  # the same, where the caller knows it; keys are not asked then
        self._bands: list[Expert] = []
        self._hooks: list[Any] = []
        self._doors: Doors | None = None
        self._mask: Tensor | None = None
        self._ids: Tensor | None = None
        self._before: Seen | None = None
        self._after: Seen | None = None

    def start(self, slots: int) -> Tensor:
        """A of slots that have learned nothing, on the model's device."""
        return torch.zeros(slots, len(self.places), self._rank + 1, self.places[0].values, device=self._device)

    @property
    def _device(self) -> torch.device:
        weight = self.places[0].module.weight
        assert isinstance(weight, Tensor)
        return weight.device

    def _keys_of(self, sets: Sequence[int]) -> list[Tensor]:
        """K (n, dims, r) of each place."""
        with torch.inference_mode(False):  # what gradients pass through must not be made in it
            found = [
                [_directions(place.keys, self._rank, SEED + at + APART * one) for one in sets]
                for at, place in enumerate(self.places)
            ]
            weight = self.places[0].module.weight
            assert isinstance(weight, Tensor)
            return [torch.stack(of_place).to(weight) for of_place in found]

    def use(self, *chains: Sequence[Expert]) -> Self:
        """Let these bands act: one chain for every row, or one chain a row of the batches to come; none for none.

        Raises:
            ModelMismatch: a band was trained in another model. InvalidInput: its arrays are of another shape.
        """
        bands = list({id(expert): expert for chain in chains for expert in chain}.values())
        name, shape = identity(self.model) if bands else "", tuple(self.start(0).shape[1:])
        for expert in bands:
            if expert.model != name:
                raise ModelMismatch(f"a band of {expert.model} for {name}: consolidate again with this model")
            if tuple(expert.values.shape[1:]) != shape:
                raise InvalidInput(f"slots of shape {tuple(expert.values.shape[1:])}, not {shape}; consolidate again")
        device = self._device
        self._bands = [expert.to(device) for expert in bands]
        self._doors = Doors(bands, self._ear) if bands else None
        parts = [expert.values for expert in self._bands if expert.items]
        self.values = torch.cat(parts) if parts else None
        read = [at for expert in bands for at in expert.directions.tolist()]
        sets = sorted(set(read))
        self._keys = self._keys_of(sets) if sets else []
        self._set = torch.tensor([sets.index(at) for at in read], device=device)
        allowed = [[any(e is one for one in chain) for e in bands for _ in e.items] for chain in chains]
        self._allowed = torch.tensor(allowed, dtype=torch.bool, device=device)
        return self

    def install(self) -> Self:
        """Put the hooks in."""
        self._hooks = [
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.model.register_forward_hook(self._end),
            layers(self.model)[scope_layer(self.model)].register_forward_hook(lambda _, x, y: self._look(y)),
            *(
                place.module.register_forward_hook(lambda _, x, y, at=at: self.added(at, x[0], y))
                for at, place in enumerate(self.places)
            ),
        ]
        return self

    def remove(self) -> None:
        """Take them out again; the model is as it was."""
        while self._hooks:
            self._hooks.pop().remove()

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(self, *exc: object) -> None:
        self.remove()

    # one forward pass

    def _begin(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        cache = next((given[name] for name in CACHE_NAMES if given.get(name) is not None), None)
        self._before = getattr(cache, "memkit_open", None) if cache is not None and cache.get_seq_length() else None
        mask = given.get("attention_mask")
        self._mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        self._ids = given.get("input_ids", args[0] if args else None)
        self.open, self._after, self._which = self.fixed, None, None

    def _look(self, output: Any) -> None:
        """Compare the states of the scope layer with the keys, and settle what is open at each token."""
        if self.values is None or self._doors is None or self.fixed is not None:
            return
        hidden = output[0] if isinstance(output, tuple) else output
        rows, tokens, dims = hidden.shape
        if self._before is None or len(self._before.open) != rows or self._before.open.shape[1] != len(self.values):
            shut = torch.zeros(rows, len(self.values), dtype=torch.bool, device=hidden.device)
            self._before = Seen(shut, hidden.new_zeros(rows, PHRASE - 1, dims), [Heard()] * rows)
        whole = torch.cat([self._before.tail, hidden.detach()], dim=1)
        opens = torch.cat([opening(whole[:, PHRASE - e.keys.shape[1] :], e) for e in self._bands if e.items], dim=-1)
        if self._mask is not None:
            opens &= self._mask[:, -tokens:, None].bool()
        allowed = self._allowed_rows(rows)
        held, named, heard = self._doors.settled(opens, allowed, self._ids, self._before)
        self._after = Seen(named[:, -1], whole[:, 1 - PHRASE :], heard)
        self._which = held.flatten(0, 1).any(0).nonzero()[:, 0]
        self.open = held[..., self._which] if len(self._which) else None

    def _allowed_rows(self, rows: int) -> Tensor:
        if rows % len(self._allowed):
            raise InvalidInput(f"a batch of {rows} rows for {len(self._allowed)} chains of bands; pass rows for each")
        return self._allowed.repeat_interleave(rows // len(self._allowed), dim=0)

    def _end(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        cache = next((getattr(output, name) for name in CACHE_NAMES if getattr(output, name, None) is not None), None)
        if cache is not None and self._after is not None:
            cache.memkit_open = self._after  # what decoding goes on from stays with the cache that it goes on from
        self.open = None

    def added(self, at: int, x: Tensor, y: Tensor) -> Tensor:
        """What a map gives, with what open slots say."""
        if self.open is None or self.values is None:
            return y
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        which = slice(None) if self._which is None else self._which
        seen = torch.einsum("btk,nkr->btnr", x, self._keys[at].to(x))[:, :, self._set[which]]
        seen = torch.cat([seen, norm[:, :, None].expand(*seen.shape[:3], 1)], dim=-1)  # b t s r
        mixed = (self.open.to(x)[..., None] * seen).flatten(2)  # b t (s r)
        said = mixed @ self.values[which, at].to(x).flatten(0, 1)
        return y + (self.places[at].scale * said).to(y.dtype)


@lru_cache(maxsize=512)
def _directions(dims: int, rank: int, seed: int) -> Tensor:
    return weights.keys(dims, rank, seed)


@contextmanager
def applied(model: Any, tokenizer: Any, *chains: Sequence[Expert]) -> Iterator[Slots]:
    """A model with bands in it: `with applied(model, tokenizer, chain): model.generate(...)`; afterwards it is as
    it was."""
    with Slots(model, tokenizer).use(*chains) as slots:
        yield slots
