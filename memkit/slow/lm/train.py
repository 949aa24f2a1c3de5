"""Training a band inside a language model: lessons become slots.

Lessons with one subject are learned together, and apart from all others, because their slots are never open together:
in each step every lesson of a group shows one of its forms, and the gradient of a slot comes from the forms that open
it. What is learned of a subject depends on nothing but its own lessons, so a band without an item is, up to rounding,
the band that never had it. Of the log's older items those are replayed whose subject comes again: their forms go on
being learned beside the new ones, while the slots of the bands before stay as they are.

The loss is that of the answers' tokens, and how far answers to questions that no item answers move from the frozen
model's (KL on its likeliest tokens). Only the upper half of the layers is run: below it nothing changes, so its states
are read once.

axes: b rows · t tokens · n answer tokens · v vocabulary · s slots
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memkit.fast.lm.places import head, identity
from memkit.slow.lm import checkpoints, scope
from memkit.slow.lm.anchors import ANCHORS
from memkit.slow.lm.asking import continued
from memkit.slow.lm.examples import Example, Padded, encoded, opened, padded, plain
from memkit.slow.lm.expert import PHRASE, Expert, Slots, gate, layers, opening, scope_layer
from memkit.slow.lm.forms import Lesson, unrelated

KEPT_TOKENS = 6  # of each answer that should stay as it was
LIKELY = 64  # tokens of it that are compared


class Recipe(NamedTuple):
    """How slots are trained.

    Attributes:
        steps: of a group. rate: of AdamW, in units of a map's own scale. lessons: of a group, about.
        keep: weight of what should stay. decay: AdamW's.
    """

    steps: int = 40
    rate: float = 0.007
    lessons: int = 12
    keep: float = 2.0
    decay: float = 0.0


class Progress(NamedTuple):
    """How far training is. Attributes: group, groups, step, steps: counts. loss: of the step, nats a token."""

    group: int
    groups: int
    step: int
    steps: int
    loss: float


class Report(NamedTuple):
    """What training did.

    Attributes:
        losses: (steps) a group, nats an answer token. learned: of each item, the mean loss of its forms at the end.
        shut: items with no key phrase that tells their subject from other text: not learned.
        left: items that the time did not reach. seconds: of the clock. steps: done, in this run and before.
    """

    losses: list[list[float]]
    learned: dict[str, float]
    shut: list[str]
    left: list[str]
    seconds: float
    steps: int


class Trained(NamedTuple):
    """A band, and how it came to be."""

    expert: Expert
    report: Report


def train(
    model: Any,
    tokenizer: Any,
    lessons: Sequence[Lesson],
    *,
    parent: Sequence[Expert] = (),
    replay: Sequence[Lesson] = (),
    anchors: Sequence[str] = ANCHORS,
    recipe: Recipe = Recipe(),  # noqa: B008
    seconds: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Callable[[Progress], object] | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Learn lessons into the slots of a new band.

    Args:
        model: frozen, without hooks of bands; put into evaluation mode and back. lessons: new ones.
        parent: bands that act beside the new one, which leaves them as they are. replay: lessons of theirs.
        anchors: texts that open no slot, for the scale and the nearness of keys.
        seconds: after which no new group is begun. device: where to train; default: where the model is.
        progress: is told after each step; what it raises ends training, and a checkpoint goes on from there.
        checkpoint: a file that a run with the same arguments goes on from; gone when training is done.

    Raises:
        InvalidInput: the model is no dense decoder.
    """
    began = time.monotonic()
    home = next(model.parameters()).device
    model.to(device or home)
    training, wanted = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)
    try:
        with torch.inference_mode(False):
            return _Trainer(model, tokenizer, recipe, seed, progress).run(
                lessons, parent, replay, anchors, checkpoint, None if seconds is None else began + seconds
            )
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        model.train(training).to(home)


class _Row(NamedTuple):
    """A form, or a question whose answer should stay: tokens, states below the upper half, and what they open."""

    lesson: int  # of the group; -1 of an older one
    example: Example
    hidden: Tensor  # (t, d)
    open: Tensor  # (t, s)
    teacher: tuple[Tensor, Tensor] | None = None  # of the likeliest tokens (n, 64): which, their log-probabilities


class _Group(NamedTuple):
    """What is learned together: the bands before, the new slots, rows by lesson, rows that should stay."""

    names: list[str]
    slots: Slots
    rows: list[list[_Row]]
    kept: list[_Row]


class _Trainer:
    """One call of `train`."""

    def __init__(self, model: Any, tokenizer: Any, recipe: Recipe, seed: int, progress: Any) -> None:
        self.model, self.tokenizer, self.recipe, self.seed = model, tokenizer, recipe, seed
        self.progress = progress or (lambda _: None)
        self.slots = Slots(model)
        self.device = next(model.parameters()).device
        self.half = len(layers(model)) // 2

    def run(
        self,
        lessons: Sequence[Lesson],
        parent: Sequence[Expert],
        replay: Sequence[Lesson],
        anchors: Sequence[str],
        checkpoint: Path | None,
        until: float | None,
    ) -> Trained:
        began = time.monotonic()
        blank, shut = self.scoped(lessons, anchors)
        groups = grouped([one for one in lessons if one.id in blank.items], self.recipe.lessons)
        work = checkpoints.digest(blank.model, self.recipe, self.seed, lessons, replay, [e.items for e in parent])
        done = checkpoints.load(checkpoint, work) if checkpoint else checkpoints.Point.start()
        left: list[str] = []
        for number, group in enumerate(groups):
            if number < done.group:
                continue
            if until is not None and time.monotonic() > until:
                left += [one.id for one in group]
                continue
            ids = {one.id for one in group}
            expert = blank.without(set(blank.items) - ids)
            done = self.learned(expert, group, parent, replay, done, (number, len(groups)), checkpoint, work)
        expert = blank.without(set(left))
        values = torch.stack([done.values[item] for item in expert.items]) if expert.items else expert.values
        if checkpoint:
            checkpoint.unlink(missing_ok=True)
        report = Report(done.losses, done.learned, shut, left, time.monotonic() - began, sum(map(len, done.losses)))
        return Trained(expert._replace(values=values.float().cpu()), report)

    # what opens slots

    def scoped(self, lessons: Sequence[Lesson], anchors: Sequence[str]) -> tuple[Expert, list[str]]:
        """A band that has learned nothing, with the phrases that open it; and the items that have none."""
        scale = scope.scale(self.model, self.tokenizer, anchors)
        states = scope.read(self.model, self.tokenizer, anchors, scale)
        by_subject = {
            subject: scope.phrases(self.model, self.tokenizer, subject, scale, states)
            for subject in dict.fromkeys(one.subject for one in lessons)
            if subject
        }
        open_ = [one for one in lessons if by_subject.get(one.subject)]
        keys = [(at, phrase) for at, one in enumerate(open_) for phrase in by_subject[one.subject]]
        blank = Expert(
            identity(self.model),
            tuple(one.id for one in open_),
            scale.mean,
            scale.spread,
            torch.stack([_filled(phrase.states) for _, phrase in keys])
            if keys
            else torch.zeros(0, PHRASE, len(scale.mean), device=self.device),
            torch.tensor([at for at, _ in keys], dtype=torch.int64, device=self.device),
            torch.tensor([phrase.near for _, phrase in keys], device=self.device),
            self.slots.start(len(open_)),
        )
        return blank, [one.id for one in lessons if one not in open_]

    # a group

    def learned(
        self,
        expert: Expert,
        lessons: Sequence[Lesson],
        parent: Sequence[Expert],
        replay: Sequence[Lesson],
        done: checkpoints.Point,
        place: tuple[int, int],
        checkpoint: Path | None,
        work: str,
    ) -> checkpoints.Point:
        """One group, from where its checkpoint is."""
        group = self.prepared(expert, lessons, [e for e in parent if e.items], replay)
        values = torch.nn.Parameter(self.slots.start(len(lessons)))
        optimizer = torch.optim.AdamW(
            [values], lr=self.recipe.rate, weight_decay=self.recipe.decay, fused=self.device.type == "cuda" or None
        )
        first = checkpoints.resume(done, values, optimizer)
        losses = done.losses[place[0]] if first else []
        before = group.slots.values
        with group.slots, head_of(self.model) as where:
            for step in range(first, self.recipe.steps):
                rows = self.shown(group, step)
                optimizer.param_groups[0]["lr"] = self.recipe.rate * min(1.0, 1.5 * (1 - step / self.recipe.steps))
                group.slots.values = values if before is None else torch.cat([before, values])
                loss, told = self.loss(group.slots, rows, where)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(told.detach())  # read later: a step waits for nothing
                if checkpoint and checkpoints.due():
                    now = done.within(place[0], step + 1, _numbers(losses), values, optimizer)
                    checkpoints.save(checkpoint, work, now)
                self.progress(Progress(*place, step + 1, self.recipe.steps, float(told)))
            group.slots.values = values.detach() if before is None else torch.cat([before, values.detach()])
            ends = self.ends(group, where)
        found = dict(zip(group.names, values.detach(), strict=True))
        done = done.after(place[0], _numbers(losses), found, ends)
        if checkpoint:
            checkpoints.save(checkpoint, work, done)
        return done

    def prepared(
        self, expert: Expert, lessons: Sequence[Lesson], parent: Sequence[Expert], replay: Sequence[Lesson]
    ) -> _Group:
        """Everything about a group that training does not change."""
        chain = [*parent, expert]
        slots = Slots(self.model).use(chain)
        slots.values = torch.cat([e.values.to(self.device) for e in parent]) if parent else None
        subjects = {one.subject for one in lessons}
        again = [one for one in replay if one.subject in subjects]
        rows = [
            self.read([encoded(self.tokenizer, form) for form in one.forms], chain, at if at < len(lessons) else -1)
            for at, one in enumerate([*lessons, *again])
        ]
        prompts = [opened(self.tokenizer, text) for subject in sorted(subjects) for text in unrelated(subject)]
        kept = self.kept(prompts, chain) if self.recipe.keep else []
        return _Group([one.id for one in lessons], slots, rows, kept)

    def read(self, examples: list[Example], chain: Sequence[Expert], lesson: int) -> list[_Row]:
        """Run the lower half, once."""
        rows = [example.ids for example in examples]
        early = scope.states(self.model, rows, scope_layer(self.model))
        below = scope.states(self.model, rows, self.half - 1)
        return [
            _Row(lesson, example, hidden, open_at(states, chain))
            for example, states, hidden in zip(examples, early, below, strict=True)
        ]

    def kept(self, prompts: list[list[int]], chain: Sequence[Expert]) -> list[_Row]:
        """Questions with the frozen model's own answers, and how likely it found each token."""
        said = continued(self.model, self.tokenizer, prompts, KEPT_TOKENS)
        examples = [Example(prompt + answer, len(prompt)) for prompt, answer in zip(prompts, said, strict=True)]
        rows = self.read(examples, chain, -1)
        found = []
        with torch.no_grad(), head_of(self.model) as where:
            for start in range(0, len(rows), scope.BATCH):
                part = rows[start : start + scope.BATCH]
                batch = padded([row.example for row in part], self.device)
                logits = self.upper(part, batch, where).log_softmax(-1)
                top, tokens = logits.topk(min(LIKELY, logits.shape[-1]), dim=-1)
                found += [
                    row._replace(teacher=(tokens[batch.rows == at], top[batch.rows == at])) for at, row in enumerate(part)
                ]
        return found

    def shown(self, group: _Group, step: int) -> list[_Row]:
        """A form of every lesson, and half as many questions that should stay as there are lessons."""
        forms = [rows[_nth(f"{self.seed} {rows[0].example.ids}", len(rows), step)] for rows in group.rows]
        if not group.kept:
            return forms
        subjects = len(group.kept) // len(unrelated(""))
        each = len(unrelated(""))
        return forms + [group.kept[at * each + (step + at) % each] for at in range(subjects)]

    def loss(self, slots: Slots, rows: list[_Row], where: Where) -> tuple[Tensor, Tensor]:
        """Sum over rows of the mean over each one's answer, so that no slot's part depends on how many others there
        are; and the mean over the lessons' tokens, to be told."""
        batch = padded([row.example for row in rows], self.device)
        slots.fixed = nn.utils.rnn.pad_sequence([row.open for row in rows], batch_first=True).to(self.device)
        logits = self.upper(rows, batch, where)
        each = nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        lessons = torch.tensor([row.teacher is None for row in rows], device=self.device)[batch.rows]
        teachers = [row.teacher for row in rows if row.teacher is not None]
        if teachers:
            each = torch.where(lessons, each, self.recipe.keep * self.moved(logits, ~lessons, teachers))
        share = 1.0 / torch.bincount(batch.rows, minlength=len(rows))[batch.rows]
        return (each * share).sum(), (each * lessons).sum().detach() / lessons.sum()

    def moved(self, logits: Tensor, which: Tensor, teachers: list[tuple[Tensor, Tensor]]) -> Tensor:
        """KL from the frozen model, over its likeliest tokens and all others as one, (n,); 0 elsewhere."""
        tokens, frozen = (torch.cat(part) for part in zip(*teachers, strict=True))
        now = logits[which].log_softmax(-1).gather(-1, tokens)
        rest, rest_now = (torch.log((1 - part.exp().sum(-1)).clamp(min=1e-6)) for part in (frozen, now))
        kl = (frozen.exp() * (frozen - now)).sum(-1) + rest.exp() * (rest - rest_now)
        return torch.zeros_like(logits[:, 0]).masked_scatter(which, kl)

    def upper(self, rows: list[_Row], batch: Padded, where: Where) -> Tensor:
        """Logits (n, v) of the answers' tokens, from the states below the upper half."""
        hidden = nn.utils.rnn.pad_sequence([row.hidden for row in rows], batch_first=True).to(self.device)
        where.rows, where.places = batch.rows, batch.places
        with skipped(layers(self.model)[: self.half], hidden):
            logits: Tensor = self.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
        return logits.float()

    def ends(self, group: _Group, where: Where) -> dict[str, float]:
        """The mean loss of each lesson's forms."""
        found = {}
        for name, rows in zip(group.names, group.rows, strict=False):
            with torch.no_grad():
                found[name] = float(self.loss(group.slots, rows, where)[1])
        return found


class Where:
    """Of which tokens the head should speak."""

    rows: Tensor
    places: Tensor


@contextmanager
def head_of(model: Any) -> Iterator[Where]:
    """Let the head see only some states: logits become (n, v)."""
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
        layer.forward = lambda *_, **__: hidden  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in lower:
            del layer.forward


def open_at(states: Tensor, chain: Sequence[Expert]) -> Tensor:
    """Which slots of a chain are open at each token of a text (t, s), bool."""
    padded_ = nn.functional.pad(states.float(), (0, 0, PHRASE - 1, 0))[None]
    return gate(torch.cat([opening(padded_, expert) for expert in chain], dim=-1))[0]


def grouped(lessons: Sequence[Lesson], size: int) -> list[list[Lesson]]:
    """Lessons by subject, as many subjects to a group as bring about `size` lessons."""
    subjects: dict[str, list[Lesson]] = {}
    for one in lessons:
        subjects.setdefault(one.subject, []).append(one)
    groups: list[list[Lesson]] = []
    for same in subjects.values():
        if groups and len(groups[-1]) + len(same) <= size:
            groups[-1] += same
        else:
            groups.append(list(same))
    return groups


def _nth(name: str, count: int, step: int) -> int:
    """Which form a lesson shows in a step: all of them, in another order each time round."""
    order = list(range(count))
    random.Random(f"{name} {step // count}").shuffle(order)
    return order[step % count]


def _filled(states: Tensor) -> Tensor:
    """A phrase with zeros before its first token, (PHRASE, d)."""
    return nn.functional.pad(states, (0, 0, PHRASE - len(states), 0))


def _numbers(losses: Sequence[Any]) -> list[float]:
    return [round(float(loss), 4) for loss in losses]
