"""Asking a language model many things at once: greedy answers, batches of prompts of like length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from memkit.slow.lm.examples import Tokens, opened
from memkit.slow.lm.forms import Writer, asked_by

ROWS = 24  # prompts at once
LONGEST_QUESTION = 32  # tokens


def answers(model: Any, tokenizer: Any, prompts: Sequence[Tokens], *, longest: int = 12) -> list[str]:
    """What the model says to each prompt, at most `longest` tokens, without special tokens."""
    return [tokenizer.decode(said, skip_special_tokens=True) for said in continued(model, tokenizer, prompts, longest)]


def continued(model: Any, tokenizer: Any, prompts: Sequence[Tokens], longest: int) -> list[Tokens]:
    """The tokens that the model puts after each prompt, its end-of-turn token among them."""
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    found: dict[int, Tokens] = {}
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        found.update(zip(part, _generated(model, tokenizer, [prompts[at] for at in part], longest), strict=True))
    return [found[at] for at in range(len(prompts))]


def writer(model: Any, tokenizer: Any) -> Writer:
    """The model as the writer of questions about a text; see `forms.asked_by`."""

    def ask(prompts: Sequence[str]) -> list[str]:
        return answers(model, tokenizer, [opened(tokenizer, text) for text in prompts], longest=LONGEST_QUESTION)

    return asked_by(ask)


def _generated(model: Any, tokenizer: Any, rows: list[Tokens], longest: int) -> list[Tokens]:
    width, device = max(map(len, rows)), next(model.parameters()).device
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    end = tokenizer.eos_token_id
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=longest,
            do_sample=False,
            pad_token_id=end,
            eos_token_id=end,
        )
    return [_cut(row, end) for row in out[:, width:].tolist()]


def _cut(row: Tokens, end: int | None) -> Tokens:
    return row[: row.index(end) + 1] if end in row else row
