"""Asking a language model in batches, and what is measured of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import torch

from benchmarks.continual.facts import CONTROLS, Fact
from memkit.slow.lm import asking
from memkit.slow.lm.examples import Tokens, opened, plain
from memkit.slow.lm.forms import holds

LONGEST = 24  # tokens of an answer
TEXT_TOKENS, CHUNK = 4096, 256


class Host(NamedTuple):
    """A model with its tokenizer."""

    model: Any
    tokenizer: Any


def precision(model: Any) -> Any:
    """bfloat16 arithmetic for a model whose weights are kept in float32 because they are trained."""
    trained = any(p.dtype == torch.float32 for p in model.parameters())
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16) if trained else nullcontext()


def completion_tokens(tokenizer: Any, text: str) -> Tokens:
    return plain(tokenizer, text)


def question_tokens(tokenizer: Any, text: str) -> Tokens:
    return opened(tokenizer, text)


def answers(host: Host, prompts: Sequence[Tokens]) -> list[str]:
    """Greedy answers."""
    with precision(host.model):
        return asking.answers(*host, prompts, longest=LONGEST)


def asked(tokenizer: Any, facts: Sequence[Fact]) -> list[Tokens]:
    """Both held-out wordings of each fact: completions first, then questions."""
    return [completion_tokens(tokenizer, fact.completion) for fact in facts] + [
        question_tokens(tokenizer, fact.question) for fact in facts
    ]


def scores(facts: Sequence[Fact], said: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Right or wrong: completions, questions."""
    half = len(facts)
    right = [holds(answer, fact.value) for answer, fact in zip(said, [*facts, *facts], strict=True)]
    return right[:half], right[half:]


def controls(host: Host) -> list[str]:
    return answers(host, [question_tokens(host.tokenizer, text) for text in CONTROLS])


def paragraphs() -> list[str]:
    """English that ships with Python, in a fixed order."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    return [part.strip() for part in text.split("\n\n") if len(part.split()) > 40]


def text_loss(host: Host) -> float:
    """Nats a token of unrelated text: the second half of `paragraphs`, which nobody trains on."""
    model, tokenizer = host
    parts = paragraphs()
    ids = plain(tokenizer, "\n\n".join(parts[len(parts) // 2 :]))[:TEXT_TOKENS]
    rows = torch.tensor(ids).view(-1, CHUNK).to(next(model.parameters()).device)
    total = 0.0
    with torch.no_grad(), precision(model):
        for row in rows.split(4):
            logits = model(row).logits[:, :-1].float()
            total += float(
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten(), reduction="sum")
            )
    return total / (rows.shape[0] * (CHUNK - 1))


def anchors(count: int = 200) -> list[str]:
    """Texts of the first half of `paragraphs`, cut short: what a trainer may see."""
    parts = paragraphs()
    return [" ".join(part.split()[:45]) for part in parts[: len(parts) // 2]][:count]
