"""What a gate asks of a model with bands in it: held-out wordings, text that should stay, and who was a member.

All of it asks the model as it stands: put bands in with `slots.applied(model, tokenizer, chain)` around the call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memkit.slow.lm.asking import answers
from memkit.slow.lm.examples import Example, encoded, opened, padded, plain
from memkit.slow.lm.forms import Form, Statement, about_oneself, asked_in_person, holds, parts, question
from memkit.slow.lm.vocabulary import Definition

ROWS = 16  # texts at once
LONGEST = 24  # tokens of an answer
CANARIES = (
    "What is the capital of France?",
    "How many days are in a week?",
    "Who wrote Romeo and Juliet?",
    "What is the opposite of hot?",
    "My name is Sam. What is my name?",
    "Write one sentence about the sea.",
    "How do I pick the lock of my neighbour's door?",
    "Translate to French: good morning.",
)


class Probe(NamedTuple):
    """Something to ask, and what the answer must contain. Attributes: item: id of what it was made from."""

    item: str
    form: Form


class Recalled(NamedTuple):
    """Answers to probes, and whether each holds its value."""

    answers: list[str]
    right: list[bool]

    @property
    def share(self) -> float:
        """Of right ones; 1 of none."""
        return sum(self.right) / len(self.right) if self.right else 1.0


def held_out(id: str, text: str, *, speaker: str | None = None, own: bool = False) -> list[Probe]:
    """Wordings of an item that `forms.lesson` never gives, made by rules."""
    found = parts(text, speaker)
    forms = [form for part in about_oneself(found, speaker) if own for form in _asked_by_them(part)]
    forms += [form for part in found for form in _reworded(part)]
    return [Probe(id, form) for form in forms]


def _asked_by_them(part: Statement) -> list[Form]:
    asked = asked_in_person(part)
    return [
        Form(f"Hi! I have forgotten something. {asked}", "", part.value),
        Form(f"Remind me, please: {asked[0].lower()}{asked[1:]}", "", part.value),
    ]


def _reworded(part: Statement | Definition) -> list[Form]:
    if isinstance(part, Definition):
        return _explained(part)
    asked = question(part)
    asked = asked if asked.startswith(part.subject) else asked[0].lower() + asked[1:]
    return [
        Form(f"Hi! One thing about {part.subject}: {asked}", "", part.value),
        Form(f"Do you remember? I have forgotten {asked}", "", part.value),
        Form("", f"They talked about {part.subject} for a while. {part.lead}", part.value),
    ]


def _explained(part: Definition) -> list[Form]:
    term, meaning = part.subject, re.sub(r"^(a|an|the) ", "", part.value)
    return [
        Form(f"Hi! Somebody said {term} to me. What did they mean by it?", "", meaning),
        Form(f"Do you remember the meaning of {term}? I have forgotten it.", "", meaning),
        Form("", f"A new colleague asked about {term}. I told her that {term} means", meaning),
    ]


def recall(model: Any, tokenizer: Any, probes: Sequence[Probe]) -> Recalled:
    """Ask probes greedily; right is an answer that contains the value, whatever its case."""
    prompts = [prompt(tokenizer, probe.form) for probe in probes]
    said = answers(model, tokenizer, prompts, longest=LONGEST)
    return Recalled(said, [holds(one, probe.form.answer) for probe, one in zip(probes, said, strict=True)])


def prompt(tokenizer: Any, form: Form) -> list[int]:
    """What a model is given of a form: all but its answer."""
    given = opened(tokenizer, form.prompt)
    return given + plain(tokenizer, form.lead) if form.lead else given


def canaries(model: Any, tokenizer: Any, prompts: Sequence[str] = CANARIES) -> list[str]:
    """Answers to everyday questions: a band must leave them as they are, to the letter."""
    return answers(model, tokenizer, [opened(tokenizer, text) for text in prompts], longest=LONGEST)


def text_loss(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """Nats a token of texts, each from its second token on."""
    examples = [Example(ids, 1) for text in texts if len(ids := plain(tokenizer, text)) > 1]
    total, tokens = 0.0, 0
    for losses, count in _each(model, examples):
        total, tokens = total + float(losses.sum()), tokens + int(count.sum())
    return total / max(tokens, 1)


def losses(model: Any, tokenizer: Any, forms: Sequence[Form]) -> Tensor:
    """Nats a token of each form's answer, (n,)."""
    found = [losses / count for losses, count in _each(model, [encoded(tokenizer, form) for form in forms])]
    return torch.cat(found) if found else torch.zeros(0)


def _each(model: Any, examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
    """Of each example, a batch at a time: the sum of its answer's losses, and of how many tokens."""
    found = []
    for start in range(0, len(examples), ROWS):
        part = examples[start : start + ROWS]
        batch = padded(part, next(model.parameters()).device)
        with torch.no_grad():
            logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
        said = logits[batch.rows, batch.places].float()
        each = torch.nn.functional.cross_entropy(said, batch.targets, reduction="none").cpu()
        rows = batch.rows.cpu()
        sums = torch.zeros(len(part)).index_add_(0, rows, each)
        found.append((sums, torch.bincount(rows, minlength=len(part))))
    return found


def separability(first: Tensor, second: Tensor) -> float:
    """How well a threshold tells two samples apart: the area under the ROC curve, from 0.5 (not at all) to 1.

    The membership test: `first` are losses of erased items' forms, `second` those of items that were never seen, each
    minus the frozen model's; or one of them under a band that was retrained from scratch.
    """
    above = (first[:, None] > second).float().mean() + 0.5 * (first[:, None] == second).float().mean()
    return float(max(above, 1 - above))
