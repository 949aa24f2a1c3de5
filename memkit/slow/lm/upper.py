"""Running only the upper half of a model, where slots are: from states that are read once to the answers' logits.

axes: b rows · t tokens · n answer tokens · v vocabulary · s slots · d hidden dims
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memkit.fast.lm.places import head
from memkit.slow.lm import scope
from memkit.slow.lm.doors import Doors, opening
from memkit.slow.lm.ear import Ear
from memkit.slow.lm.examples import Example, Tokens, padded, to_device
from memkit.slow.lm.expert import PHRASE, Expert
from memkit.slow.lm.slots import Slots, layers, scope_layer

LIKELY = 64  # tokens of a frozen answer that are compared


class Row(NamedTuple):
    """A form, or a question whose answer should stay.

    Attributes:
        hidden: (t, d) below the upper half. open: (t, s) which slots are open at each token.
        said: whether the answer's tokens are to be learned; else it should stay as the teacher has it.
        teacher: the frozen model's likeliest tokens (n, 64) and their log-probabilities; of a form, as it finds them
            with the item's text before its eyes.
    """

    example: Example
    hidden: Tensor
    open: Tensor
    said: bool = True
    teacher: tuple[Tensor, Tensor] | None = None


class Where:
    """Of which tokens the head speaks: (n,) rows, (n,) places."""

    rows: Tensor
    places: Tensor


@contextmanager
def head_of(model: Any) -> Iterator[Where]:
    """Let the head see only some states: logits become (n, v), which spares the largest matrix of a small model."""
    where = Where()
    hook = head(model).register_forward_pre_hook(lambda _, args: (args[0][where.rows, where.places], *args[1:]))
    try:
        yield where
    finally:
        hook.remove()


@contextmanager
def skipped(lower: Sequence[nn.Module], hidden: Tensor) -> Iterator[None]:
    """Instead of running these layers, go on from what the last of them once gave."""
    for layer in lower:
        layer.forward = lambda *_, **__: hidden
    try:
        yield
    finally:
        for layer in lower:
            del layer.forward


def half(model: Any) -> int:
    """How many layers are below the slots."""
    return len(layers(model)) // 2


def read(model: Any, examples: Sequence[Example], chain: Sequence[Expert], ear: Ear | None = None) -> list[Row]:
    """Run the lower half, once."""
    tokens = [example.ids for example in examples]
    early = scope.states(model, tokens, scope_layer(model))
    below = scope.states(model, tokens, half(model) - 1)
    rows = zip(examples, below, early, strict=True)
    return [Row(example, hidden, open_at(states, chain, example.ids, ear)) for example, hidden, states in rows]


def open_at(states: Tensor, chain: Sequence[Expert], ids: Tokens | None = None, ear: Ear | None = None) -> Tensor:
    """Which slots of a chain are open at each token of a text (t, s), bool.

    Args:
        states: of the scope layer (t, d). ids, ear: the tokens, and who hears turns of users among them.
    """
    whole = nn.functional.pad(states.float(), (0, 0, PHRASE - 1, 0))[None]
    opens = torch.cat([opening(whole, expert) for expert in chain], dim=-1)
    allowed = torch.ones_like(opens[:, 0])
    return Doors(chain, ear).settled(opens, allowed, None if ids is None else torch.tensor([ids]))[0][0]


def taught(model: Any, rows: Sequence[Row], seen: Sequence[Row]) -> list[Row]:
    """Rows with what the model as it is finds likely at their answers' tokens, reading `seen` in their place."""
    found = []
    with torch.no_grad(), head_of(model) as where:
        for start in range(0, len(rows), scope.BATCH):
            part = seen[start : start + scope.BATCH]
            said, _ = logits(model, part, where)
            at = where.rows
            top, tokens = said.log_softmax(-1).topk(min(LIKELY, said.shape[-1]), dim=-1)
            found += [(tokens[at == n], top[at == n]) for n in range(len(part))]
    return [row._replace(teacher=teacher) for row, teacher in zip(rows, found, strict=True)]


def logits(model: Any, rows: Sequence[Row], where: Where) -> tuple[Tensor, Tensor]:
    """Of the answers' tokens, row after row: logits (n, v), and the token itself (n,).

    Padding stands on the right, where no token of a row sees it: the model needs no mask, and does not ask for one.
    """
    device = next(model.parameters()).device
    batch = padded([row.example for row in rows], device)
    hidden = nn.utils.rnn.pad_sequence([row.hidden for row in rows], batch_first=True).to(device)
    where.rows, where.places = batch.rows, batch.places
    with skipped(layers(model)[: half(model)], hidden):
        found: Tensor = model(input_ids=batch.ids, use_cache=False).logits
    return found.float(), batch.targets


class Weights(NamedTuple):
    """Of KL from the teacher, beside the loss of answers. Attributes: keep: of what should stay. distil: of forms."""

    keep: float
    distil: float


def loss(model: Any, slots: Slots, rows: Sequence[Row], where: Where, weights: Weights) -> tuple[Tensor, Tensor]:
    """What a step goes down, and what is told of it.

    Args:
        slots: installed, with the values that act.

    Returns:
        The sum over rows of the mean over each one's answer, so that the part of a slot does not depend on how many
        others there are; and the mean over the forms' answer tokens, nats.
    """
    slots.fixed = nn.utils.rnn.pad_sequence([row.open for row in rows], batch_first=True)
    found, targets = logits(model, rows, where)
    count = torch.tensor([len(row.example.ids) - row.example.start for row in rows])
    at = torch.repeat_interleave(count)
    said = to_device(torch.tensor([row.said for row in rows])[at], found.device)
    each = nn.functional.cross_entropy(found, targets, reduction="none") * said
    told = each.sum().detach() / said.sum()
    teachers = [row.teacher for row in rows if row.teacher is not None]
    if teachers:
        which = torch.tensor([row.teacher is not None for row in rows])[at].nonzero()[:, 0]
        each = each + torch.where(said, weights.distil, weights.keep) * _moved(
            found, to_device(which, found.device), teachers
        )
    return (each / to_device(count[at], found.device)).sum(), told


def _moved(said: Tensor, which: Tensor, teachers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """KL from the frozen model at some places, over its likeliest tokens and all others as one, (n,); 0 elsewhere."""
    tokens, frozen = (torch.cat(part) for part in zip(*teachers, strict=True))
    now = said[which].log_softmax(-1).gather(-1, tokens)
    rest, rest_now = (torch.log((1 - part.exp().sum(-1)).clamp(min=1e-6)) for part in (frozen, now))
    kl = (frozen.exp() * (frozen - now)).sum(-1) + rest.exp() * (rest - rest_now)
    return torch.zeros_like(said[:, 0]).index_copy(0, which, kl)
