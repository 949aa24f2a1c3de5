"""When a slot opens: key phrases of a subject, found by reading the lower layers alone.

axes: t tokens · m tokens of a phrase · d hidden dims
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memkit.slow.lm.examples import Tokens, opened, plain
from memkit.slow.lm.expert import PHRASE
from memkit.slow.lm.forms import carriers
from memkit.slow.lm.slots import layers, scope_layer

BATCH = 16  # texts at once


class Scale(NamedTuple):
    """Mean and spread of states on anchor texts, (d,) each."""

    mean: Tensor
    spread: Tensor

    def unit(self, states: Tensor) -> Tensor:
        """States centred, scaled, and of unit length."""
        return torch.nn.functional.normalize((states - self.mean) / self.spread, dim=-1)


class Phrase(NamedTuple):
    """States of a subject's tokens (m, d), and the cosine that each must reach."""

    states: Tensor
    near: float


class _ReachedError(Exception):
    """The layer that was asked for has spoken."""


def states(model: Any, rows: Sequence[Tokens], layer: int) -> list[Tensor]:
    """What a layer gives for each row of tokens, (t, d) in the model's precision; no layer above it is run."""
    found: dict[int, Tensor] = {}
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        hidden = _lower(model, [rows[at] for at in part], layer)
        found.update({at: hidden[row, : len(rows[at])] for row, at in enumerate(part)})
    return [found[at] for at in range(len(rows))]


def _lower(model: Any, rows: Sequence[Tokens], layer: int) -> Tensor:
    width, device = max(map(len, rows)), next(model.parameters()).device
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    with _stopping(layers(model)[layer]) as caught, torch.no_grad():
        try:
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        except _ReachedError:
            return caught[0]
    raise AssertionError("the layer was not run")


@contextmanager
def _stopping(layer: torch.nn.Module) -> Iterator[list[Tensor]]:
    caught: list[Tensor] = []

    def stop(_: torch.nn.Module, args: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise _ReachedError

    hook = layer.register_forward_hook(stop)
    try:
        yield caught
    finally:
        hook.remove()


def scale(model: Any, tokenizer: Any, anchors: Sequence[str]) -> Scale:
    """How states are spread on anchor texts; the first token of each, which models rest on, is left out."""
    found = torch.cat([one[1:] for one in _read(model, tokenizer, anchors)])
    return Scale(found.mean(0), found.std(0) + 1e-6)


def phrases(model: Any, tokenizer: Any, subject: str, scale: Scale, anchors: Sequence[Tensor]) -> list[Phrase]:
    """Key phrases of a subject: one for each way that its tokens are cut, and others for where they begin a text, after
    the token that opens texts or without it.

    A phrase opens half-way between the least alike naming of the subject and the most alike place in anchor texts.

    Args:
        anchors: unit states of anchor texts (t, d).

    Returns:
        None at all where the subject's tokens are not found, or are no nearer to each other than to anchor texts.
    """
    named: dict[tuple[int, tuple[int, ...]], list[Tensor]] = {}
    spelled = dict.fromkeys((subject, subject[0].upper() + subject[1:]))  # a word may begin a sentence
    first = opened(tokenizer, "")
    rows = [plain(tokenizer, text) for one in spelled for text in carriers(one)]
    rows += [first + plain(tokenizer, one) for one in spelled if first]
    cuts = dict.fromkeys(tuple(plain(tokenizer, text)) for one in spelled for text in (one, " " + one))
    for row, hidden in zip(rows, states(model, rows, scope_layer(model)), strict=True):
        for cut, end in _namings(row, cuts):
            before = end + 1 - len(cut)
            place = (min(before, len(first) + 1), cut)  # the first token of a text is unlike the same token later
            named.setdefault(place, []).append(scale.unit(hidden[: end + 1].float())[-len(cut) :][-PHRASE:])
    return [phrase for same in named.values() if (phrase := _phrase(torch.stack(same), anchors)) is not None]


def _phrase(same: Tensor, anchors: Sequence[Tensor]) -> Phrase | None:
    """What namings of a subject (n, m, d) have in common."""
    key = torch.nn.functional.normalize(same.mean(0), dim=-1)
    least = float((same * key).sum(-1).min())
    most = max((_nearest(one, key) for one in anchors), default=0.0)
    return Phrase(key, (least + most) / 2) if least > most else None


def _read(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[Tensor]:
    rows = [row for text in texts if len(row := plain(tokenizer, text)) > 1]
    return [one.float() for one in states(model, rows, scope_layer(model))]


def read(model: Any, tokenizer: Any, texts: Sequence[str], scale: Scale) -> list[Tensor]:
    """Unit states of texts, (t, d) each."""
    return [scale.unit(one) for one in _read(model, tokenizer, texts)]


def _namings(row: Tokens, cuts: Iterable[tuple[int, ...]]) -> list[tuple[tuple[int, ...], int]]:
    """Where a row names a subject: how its tokens are cut there, and where the last of them is."""
    return [
        (cut, at + len(cut) - 1)
        for cut in cuts
        for at in range(len(row) - len(cut) + 1)
        if tuple(row[at : at + len(cut)]) == cut
    ]


def _nearest(text: Tensor, key: Tensor) -> float:
    """Cosine of the worst token of a phrase, where a text is most like it."""
    size = len(text) - len(key) + 1
    if size < 1:
        return 0.0
    alike = text @ key.T
    return float(torch.stack([alike[at : at + size, at] for at in range(len(key))]).amin(0).max())
