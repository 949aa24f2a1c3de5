"""Forms as tokens: what a model is given, and which tokens it has to say.

axes: b rows · t tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memkit.slow.lm.forms import Form

Tokens = list[int]


class Example(NamedTuple):
    """A form as tokens. Attributes: ids: all of them. start: where the answer begins."""

    ids: Tokens
    start: int


class Padded(NamedTuple):
    """Examples side by side, padded on the right.

    Attributes:
        ids: (b, t). mask: (b, t), 1 on tokens. rows, places: of the states that say each answer token. targets: it.
    """

    ids: Tensor
    mask: Tensor
    rows: Tensor
    places: Tensor
    targets: Tensor


def plain(tokenizer: Any, text: str) -> Tokens:
    """A text's tokens, with nothing put around them."""
    ids: Tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def opened(tokenizer: Any, prompt: str) -> Tokens:
    """Tokens of a prompt as the model expects it: its chat template, or Question and Answer where it has none.

    An empty prompt is plain text, which begins as the tokenizer begins texts.
    """
    if not prompt:
        first = tokenizer.bos_token_id
        return [first] if first is not None else []
    if not getattr(tokenizer, "chat_template", None):
        return opened(tokenizer, "") + plain(tokenizer, f"Question: {prompt}\nAnswer:")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    return plain(tokenizer, text)


def encoded(tokenizer: Any, form: Form) -> Example:
    """A form as tokens; an answer to a prompt ends with the token that ends a turn."""
    chat = bool(form.prompt) and bool(getattr(tokenizer, "chat_template", None))
    space = "" if chat or not form.prompt else " "
    given = opened(tokenizer, form.prompt) + (plain(tokenizer, space + form.lead) if form.lead else [])
    answer = plain(tokenizer, (" " if form.lead else space) + form.answer)
    end = [tokenizer.eos_token_id] if form.prompt and tokenizer.eos_token_id is not None else []
    if not given:
        given, answer = answer[:1], answer[1:]
    return Example(given + answer + end, len(given))


def padded(examples: Sequence[Example], device: torch.device | None = None) -> Padded:
    """Examples as one batch."""
    width = max(len(example.ids) for example in examples)
    ids = torch.tensor([example.ids + [0] * (width - len(example.ids)) for example in examples])
    mask = torch.tensor([[1] * len(e.ids) + [0] * (width - len(e.ids)) for e in examples])
    said = [(row, at) for row, example in enumerate(examples) for at in range(example.start, len(example.ids))]
    rows, ends = torch.tensor(said).T
    return Padded(*(to_device(part, device) for part in (ids, mask, rows, ends - 1, ids[rows, ends])))


def to_device(array: Tensor, device: torch.device | None) -> Tensor:
    """An array on a device; neither side waits for the other."""
    on_gpu = device is not None and device.type == "cuda"
    return (array.pin_memory() if on_gpu else array).to(device, non_blocking=True)
