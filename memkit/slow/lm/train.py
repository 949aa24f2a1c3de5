"""Training a band inside a language model: lessons become slots.

Lessons with one subject are learned together, and apart from all others, because their slots are never open together:
in each step every lesson of a group shows one of its forms, and the gradient of a slot comes from the forms that open
it. What is learned of a subject depends on nothing but its own lessons, so a band without an item is, up to rounding,
the band that never had it. Of the log's older items those are replayed whose subject comes again: their forms go on
being learned beside the new ones, while the slots of the bands before stay as they are.

The loss is that of the answers' tokens, and how far answers to questions that no item answers, and that open slots all
the same, move from the frozen model's (KL on its likeliest tokens). Only the upper half of the layers is run: below it
nothing changes.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memkit.fast.lm.places import identity
from memkit.slow.lm import checkpoints, questions, scope, upper
from memkit.slow.lm.anchors import ANCHORS
from memkit.slow.lm.asking import continued
from memkit.slow.lm.checkpoints import Point
from memkit.slow.lm.ear import Ear
from memkit.slow.lm.examples import Example, encoded, opened
from memkit.slow.lm.expert import PHRASE, SETS, Expert
from memkit.slow.lm.forms import Lesson, in_sight
from memkit.slow.lm.slots import Slots
from memkit.slow.lm.unrelated import unrelated
from memkit.slow.lm.upper import Row, Weights, Where

KEPT_TOKENS = 6  # of each answer that should stay as it was
FEW, SHARED = 3, 2 / 3  # slots of one subject, above which their steps are shorter, by this power of their number
MANY, LONGER = 24, 0.5  # likewise, above which there are more steps
TOLD = 8  # steps between two words of progress: each waits for the device


class Recipe(NamedTuple):
    """How slots are trained; the default was chosen on facts that no figure is from.

    Attributes:
        steps: of a group; more, where one subject has many lessons. lessons: of a group, about.
        rate: of AdamW, in units of a map's own scale.
        keep: weight of what should stay. distil: of context distillation, KL from the model that sees the text.
        shown: forms of a lesson in a step.
    """

    steps: int = 40
    rate: float = 0.007
    lessons: int = 12
    keep: float = 2.0
    distil: float = 0.0
    shown: int = 1


class Progress(NamedTuple):
    """How far training is. Attributes: group, groups, step, steps: counts. loss: nats an answer token."""

    group: int
    groups: int
    step: int
    steps: int
    loss: float


class Report(NamedTuple):
    """What training did.

    Attributes:
        losses: a list a group, of each step, nats an answer token.
        learned: of each item, of all forms at the end, in the worse of its slots.
        shut: items with no phrase that tells their subject from other text: not learned. left: the time did not reach.
        seconds: of the clock, of this run. steps: of this run and of those that it went on from.
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


class Work(NamedTuple):
    """What is to be learned, and beside what."""

    lessons: Sequence[Lesson]
    parent: Sequence[Expert]
    replay: Sequence[Lesson]
    anchors: Sequence[str]
    recipe: Recipe
    seed: int

    def digest(self, model: str) -> str:
        """Names this work: a checkpoint of other work is not gone on from."""
        chain = [(one.items, round(float(one.values.double().sum()), 6)) for one in self.parent]
        return checkpoints.digest(model, self._replace(parent=[]), chain)


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
        model: without bands in it; frozen meanwhile, and as it was afterwards. lessons: of new items.
        parent: bands that act beside the new one, which leaves them as they are. replay: lessons of theirs.
        anchors: texts that open no slot, for the scale and the nearness of keys.
        seconds: after which no new group is begun.
        device: where to train; default: where the model is, or on a GPU instead of the CPU where there is one.
        progress: is told now and then; what it raises ends training, and a checkpoint goes on from there.
        checkpoint: a file that a call with the same arguments goes on from; gone when training is done.

    Raises:
        InvalidInput: the model is no dense decoder.
    """
    until = None if seconds is None else time.monotonic() + seconds
    work = Work(lessons, parent, replay, anchors, recipe, seed)
    with frozen(model, device) as where, _halved(model, where), torch.inference_mode(False):
        return _Trainer(model, tokenizer, work, progress, checkpoint).run(until)


class _Trainer:
    """One call of `train`."""

    def __init__(self, model: Any, tokenizer: Any, work: Work, progress: Any, checkpoint: Path | None) -> None:
        self.model, self.tokenizer, self.work = model, tokenizer, work
        self.progress, self.checkpoint = progress, checkpoint
        self.device = next(model.parameters()).device
        self.slots, self.ear = Slots(model, tokenizer), Ear(tokenizer)

    def run(self, until: float | None) -> Trained:
        """All groups that the time allows, from where the checkpoint is."""
        began = time.monotonic()
        work = self.work
        blank, known, shut = scoped(self.model, self.tokenizer, work.lessons, work.anchors, work.replay)
        groups = grouped(list(enumerate(known)), work.recipe.lessons)
        self.name = self.work.digest(blank.model)
        done = checkpoints.load(self.checkpoint, self.name) if self.checkpoint else Point.start()
        while done.group < len(groups) and (until is None or time.monotonic() < until):
            done = self.learned(blank, groups[done.group], done, len(groups))
        left = list(dict.fromkeys(one.id for group in groups[done.group :] for _, one in group))
        whole = [at for at, one in enumerate(known) if one.id not in left]
        expert = blank.only(whole)
        if whole:
            expert = expert._replace(values=torch.stack([done.values[str(at)].cpu() for at in whole]).float())
        learned = {known[int(at)].id: loss for at, loss in sorted(done.learned.items(), key=lambda pair: pair[1])}
        if self.checkpoint:
            self.checkpoint.unlink(missing_ok=True)
        report = Report(
            done.losses, learned, shut, left, time.monotonic() - began, sum(len(losses) for losses in done.losses)
        )
        return Trained(expert.to("cpu"), report)

    def learned(self, blank: Expert, group: Sequence[tuple[int, Lesson]], done: Point, groups: int) -> Point:
        """One group of slots with their lessons, from where its checkpoint is."""
        recipe, names, lessons = self.work.recipe, [str(at) for at, _ in group], [one for _, one in group]
        weights = Weights(recipe.keep, recipe.distil)
        chain = [
            *(one.to(self.device) for one in self.work.parent if one.items),
            blank.only([at for at, _ in group]),
        ]
        forms, kept = self.prepared(lessons, chain)
        steps = _steps(recipe.steps, lessons)
        share = _shares(lessons).to(self.device)
        values = nn.Parameter(self.slots.start(len(lessons)))
        optimizer = torch.optim.AdamW([values], lr=recipe.rate, weight_decay=0.0, fused=self.device.type == "cuda")
        first = checkpoints.resume(done, values, optimizer)
        losses: list[Any] = list(done.losses[done.group]) if first else []
        with Slots(self.model, self.tokenizer).use(chain) as slots, upper.head_of(self.model) as where:
            before = torch.cat([one.values for one in chain[:-1]]) if chain[:-1] else values[:0].detach()
            for step in range(first, steps):
                slots.values = torch.cat([before, values * share])
                optimizer.param_groups[0]["lr"] = recipe.rate * min(1.0, 1.5 * (1 - step / steps))
                loss, told = upper.loss(self.model, slots, self.shown(forms, kept, step), where, weights)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                losses.append(told)
                self.noted(done, step + 1, losses, values, optimizer)
                if self.progress and (step + 1) % TOLD == 0:
                    self.progress(Progress(done.group, groups, step + 1, steps, float(told)))
            slots.values = torch.cat([before, values.detach() * share])
            ends = {name: self.end(slots, rows, where) for name, rows in zip(names, forms, strict=False)}
        done = done.after(_numbers(losses), dict(zip(names, values.detach() * share, strict=True)), ends)
        if self.checkpoint:
            checkpoints.save(self.checkpoint, self.name, done)
        return done

    def prepared(self, lessons: Sequence[Lesson], chain: Sequence[Expert]) -> tuple[list[list[Row]], list[list[Row]]]:
        """What training does not change: rows by lesson, the replayed ones last; rows that should stay, by subject."""
        subjects, scopes = sorted({one.subject for one in lessons} - {""}), {one.scope for one in lessons}
        again = [one for one in apart(self.work.replay) if one.scope in scopes]
        forms = [self.read(one, chain) for one in [*lessons, *again]]
        if not self.work.recipe.keep:
            return forms, []
        about = {name: [one for one in (*lessons, *again) if one.subject == name] for name in subjects}
        return forms, self.kept(about, chain)

    def kept(self, about: dict[str, list[Lesson]], chain: Sequence[Expert]) -> list[list[Row]]:
        """By subject, rows of questions that no item answers, where slots speak all the same."""
        texts = [(name, text) for name, some in about.items() for text in unrelated(name, some)]
        prompts = [Example(ids := opened(self.tokenizer, text), len(ids)) for _, text in texts]
        open_ = [row.open[-1].any() for row in upper.read(self.model, prompts, chain, self.ear)]
        asked = [(name, prompt.ids) for (name, _), prompt, is_ in zip(texts, prompts, open_, strict=True) if is_]
        said = continued(self.model, self.tokenizer, [prompt for _, prompt in asked], KEPT_TOKENS)
        examples = [Example(prompt + answer, len(prompt)) for (_, prompt), answer in zip(asked, said, strict=True)]
        rows = [row._replace(said=False) for row in upper.read(self.model, examples, chain, self.ear)]
        found: dict[str, list[Row]] = {}
        for (name, _), row in zip(asked, upper.taught(self.model, rows, rows), strict=True):
            found.setdefault(name, []).append(row)
        return list(found.values())

    def read(self, one: Lesson, chain: Sequence[Expert]) -> list[Row]:
        """A lesson's forms; what the frozen model makes of them with the text before its eyes, if that is wanted."""
        rows = upper.read(self.model, [encoded(self.tokenizer, form) for form in one.forms], chain, self.ear)
        if not self.work.recipe.distil:
            return rows
        seen = [encoded(self.tokenizer, in_sight(form, one.text)) for form in one.forms]
        return upper.taught(self.model, rows, upper.read(self.model, seen, chain, self.ear))

    def shown(self, forms: list[list[Row]], kept: list[list[Row]], step: int) -> list[Row]:
        """Forms of every lesson and one answer of every subject that should stay, each in an order of its own."""
        each = self.work.recipe.shown
        turns = [(some, step * each + n) for some in forms for n in range(each)] + [(some, step) for some in kept]
        return [some[_nth(f"{self.work.seed} {some[0].example.ids}", len(some), at)] for some, at in turns]

    def noted(self, done: Point, step: int, losses: list[Any], values: Tensor, optimizer: Any) -> None:
        """Write a checkpoint, when the last one is old."""
        if self.checkpoint and checkpoints.due():
            losses[:] = _numbers(losses)
            checkpoints.save(self.checkpoint, self.name, done.within(step, losses, values, optimizer))

    def end(self, slots: Slots, rows: Sequence[Row], where: Where) -> float:
        """The loss of a lesson's forms."""
        with torch.no_grad():
            return float(upper.loss(self.model, slots, rows, where, Weights(0.0, 0.0))[1])


def scoped(
    model: Any,
    tokenizer: Any,
    lessons: Sequence[Lesson],
    anchors: Sequence[str] = ANCHORS,
    beside: Sequence[Lesson] = (),
) -> tuple[Expert, list[Lesson], list[str]]:
    """A band that has learned nothing, with what opens its slots; their lessons; and the items that nothing opens.

    Args:
        beside: lessons that slots beside it have learned.
    """
    scale = scope.scale(model, tokenizer, anchors)
    states = scope.read(model, tokenizer, anchors, scale)
    subjects = {one.subject for one in lessons if one.subject}
    found = {name: scope.phrases(model, tokenizer, name, scale, states) for name in sorted(subjects)}
    known = [one for one in apart(lessons) if (found[one.subject] if one.subject else one.asked)]
    keys = [(at, phrase) for at, one in enumerate(known) for phrase in found.get(one.subject, ())]
    filled = [nn.functional.pad(phrase.states, (0, 0, PHRASE - len(phrase.states), 0)) for _, phrase in keys]
    asked = [(at, text) for at, texts in enumerate(questions.keys(known, apart(beside))) for text in texts]
    device = scale.mean.device
    blank = Expert(
        identity(model),
        tuple(one.id for one in known),
        scale.mean,
        scale.spread,
        torch.stack(filled) if filled else scale.mean.new_zeros(0, PHRASE, len(scale.mean)),
        torch.tensor([at for at, _ in keys], dtype=torch.int64, device=device),
        torch.tensor([phrase.near for _, phrase in keys], device=device),
        Slots(model, tokenizer).start(len(known)),
        _directions(known, apart(beside)).to(device),
        questions.vectors([text for _, text in asked]),
        torch.tensor([at for at, _ in asked], dtype=torch.int64),
        tuple(one.subject for one in known),
    )
    return blank, known, [one.id for one in lessons if one.id not in blank.items]


def apart(lessons: Iterable[Lesson]) -> list[Lesson]:
    """A lesson a slot."""
    return [one for whole in lessons for one in (whole._replace(own=None), whole.own) if one is not None]


def _directions(lessons: Sequence[Lesson], beside: Sequence[Lesson]) -> Tensor:
    """Which set of directions each lesson's slot reads: another one for each of a subject, while there are others."""
    counts = Counter(one.scope for one in beside)
    found = []
    for one in lessons:
        found.append(counts[one.scope] % SETS)
        counts[one.scope] += 1
    return torch.tensor(found, dtype=torch.int64)


def _shares(lessons: Sequence[Lesson]) -> Tensor:
    """How long the steps of each slot are, (s, 1, 1, 1): the more of one subject there are the shorter, because all of
    them go down one slope at once."""
    counts = Counter(one.scope for one in lessons)
    return torch.tensor([max(1.0, counts[one.scope] / FEW) ** -SHARED for one in lessons])[:, None, None, None]


def _steps(usual: int, lessons: Sequence[Lesson]) -> int:
    """How many steps a group takes."""
    largest = max(Counter(one.scope for one in lessons).values())
    return round(usual * float(max(1.0, largest / MANY) ** LONGER))


@contextmanager
def frozen(model: Any, device: str | torch.device | None) -> Iterator[torch.device]:
    """A model that neither trains nor drops out, on a device; afterwards it is where and as it was."""
    home, training = next(model.parameters()).device, [module for module in model.modules() if module.training]
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    away = torch.device(device or ("cuda" if home.type == "cpu" and torch.cuda.is_available() else home))
    model.to(away).eval().requires_grad_(False)
    try:
        yield away
    finally:
        model.to(home)
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextmanager
def _halved(model: Any, device: torch.device) -> Iterator[None]:
    """On a GPU, arithmetic of a float32 model in bfloat16."""
    single = next(model.parameters()).dtype == torch.float32
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda" and single):
        yield


def grouped(slots: Iterable[tuple[int, Lesson]], size: int) -> list[list[tuple[int, Lesson]]]:
    """Slots with their lessons by what opens them, as many of those to a group as bring about `size` lessons."""
    scopes: dict[str, list[tuple[int, Lesson]]] = {}
    for at, one in slots:
        scopes.setdefault(one.scope, []).append((at, one))
    groups: list[list[tuple[int, Lesson]]] = []
    for same in scopes.values():
        if groups and len(groups[-1]) + len(same) <= size:
            groups[-1] += same
        else:
            groups.append(list(same))
    return groups


def _nth(name: str, count: int, step: int) -> int:
    """Which form is shown in a step: all of them, in another order each time round."""
    order = list(range(count))
    random.Random(f"{name} {step // count}").shuffle(order)  # noqa: S311
    return order[step % count]


def _numbers(losses: Sequence[Any]) -> list[float]:
    """Losses on a device, or numbers already, as numbers; waits for the device once."""
    told = [loss for loss in losses if isinstance(loss, Tensor)]
    fresh = iter(torch.stack(told).tolist() if told else [])
    return [round(next(fresh) if isinstance(loss, Tensor) else loss, 4) for loss in losses]
