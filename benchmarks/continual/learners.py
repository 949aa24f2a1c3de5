"""What learns facts one batch after another, all from the same forms of wording A.

    frozen           the model as it is
    full             fine-tuning of all weights
    LoRA             peft, rank 8 on every linear map, one adapter that goes on learning
    LoRA + replay    a share of each batch are forms of older facts
    LoRA + EWC       the adapter is held back where older batches were sensitive (diagonal Fisher information)
    kNN              no training: last hidden states of the forms, whose next tokens are said where a state is near
    prompt           no training: `Memory.search` puts the best fact, or the three best, before the question
    band             memkit's slots, trained by hand
    memory           the same as users have them: `Memory.add`, `consolidate(model, tokenizer)`, `attach`; with the gate

Trained baselines see `STEPS` batches of `ROWS` forms a batch of facts, a quarter of each batch are anchor texts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.continual.asking import Host, anchors, answers, asked, completion_tokens, precision, question_tokens
from benchmarks.continual.facts import Fact
from memkit.slow.lm.examples import Example, encoded, padded, plain
from memkit.slow.lm.expert import Expert, to_arrays
from memkit.slow.lm.forms import Lesson, lesson
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import Recipe, train
from memkit.slow.lm.upper import head_of

STEPS, ROWS, ANCHOR_ROWS = 40, 8, 2
RATES = {"full": 3e-5, "LoRA": 1e-3}
STIFFNESS, FISHER_ROWS = 1e4, 32


def lessons(facts: Sequence[Fact]) -> list[Lesson]:
    """Forms of wording A, made by rules."""
    made = [lesson(fact.id, fact.statement) for fact in facts]
    return [one for one in made if one is not None]


class Learner:
    """The frozen model; others override what they change."""

    name = "frozen"

    def __init__(self, host: Host, seed: int) -> None:
        self.host, self.seed, self.facts = host, seed, []  # type: ignore[var-annotated]

    def learn(self, facts: Sequence[Fact]) -> None:
        self.facts += facts

    def answer(self, facts: Sequence[Fact]) -> list[str]:
        with self.acting():
            return answers(self.host, asked(self.host.tokenizer, facts))

    @contextmanager
    def acting(self) -> Iterator[None]:
        """While what was learned acts on the model, for measures that ask it directly."""
        yield

    def bytes(self) -> int:
        return 0


class Trained(Learner):
    """Gradient descent on parameters of its own, with an optimizer for each batch of facts."""

    rate, replay = RATES["LoRA"], 0.0

    def __init__(self, host: Host, seed: int) -> None:
        super().__init__(host, seed)
        self.old: list[Example] = []
        self.anchors = [Example(plain(host.tokenizer, text), 1) for text in anchors()]
        self.adapt()
        self.trained = [p for p in self.host.model.parameters() if p.requires_grad]

    def adapt(self) -> None:
        """Choose what is trained."""

    def learn(self, facts: Sequence[Fact]) -> None:
        rng = random.Random(f"{self.seed} {len(self.facts)}")
        new = [encoded(self.host.tokenizer, form) for one in lessons(facts) for form in one.forms]
        optimizer = torch.optim.AdamW(self.trained, lr=self.rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5))
        self.host.model.train()
        with head_of(self.host.model) as self.where:
            for _ in range(STEPS):
                loss = self.loss(self._rows(rng, new)) + self.penalty()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
                optimizer.step()
                schedule.step()
            self.host.model.eval()
            self.after(rng, new)
        self.old += new
        super().learn(facts)

    def _rows(self, rng: random.Random, new: list[Example]) -> list[Example]:
        count = ROWS - ANCHOR_ROWS
        again = sum(rng.random() < self.replay for _ in range(count)) if self.old else 0
        return (
            rng.sample(new, count - again)
            + rng.choices(self.old, k=again) * (again > 0)
            + rng.sample(self.anchors, ANCHOR_ROWS)
        )

    def loss(self, rows: list[Example]) -> Tensor:
        """Mean over rows of the mean over each one's answer tokens."""
        batch = padded(rows, self.host.model.device)
        with precision(self.host.model):
            self.where.rows, self.where.places = batch.rows, batch.places
            logits = self.host.model(input_ids=batch.ids, attention_mask=batch.mask).logits.float()
        each = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        count = torch.bincount(batch.rows, minlength=len(rows))
        return (each / count[batch.rows]).sum() / len(rows)

    def penalty(self) -> Tensor | float:
        return 0.0

    def after(self, rng: random.Random, new: list[Example]) -> None:
        """What is kept of a batch of facts when it was learned."""

    def bytes(self) -> int:
        return sum(p.numel() * 2 for p in self.trained)


class Full(Trained):
    name, rate = "full", RATES["full"]

    def adapt(self) -> None:
        self.host = Host(self.host.model.float(), self.host.tokenizer)
        self.host.model.requires_grad_(True)


class LoRA(Trained):
    name = "LoRA"

    def adapt(self) -> None:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(self.seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        self.host = Host(get_peft_model(self.host.model, config), self.host.tokenizer)
        for parameter in self.host.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


class Replay(LoRA):
    def __init__(self, host: Host, seed: int, replay: float = 0.5) -> None:
        self.replay = replay
        self.name = f"LoRA + replay {replay:.0%}"
        super().__init__(host, seed)


class Elastic(LoRA):
    name = "LoRA + EWC"

    def adapt(self) -> None:
        super().adapt()
        self.held: list[tuple[list[Tensor], list[Tensor]]] = []  # Fisher information, values

    def penalty(self) -> Tensor | float:
        return sum(
            (
                STIFFNESS / 2 * (f * (p - v) ** 2).sum()
                for fisher, values in self.held
                for f, p, v in zip(fisher, self.trained, values, strict=True)
            ),
            start=0.0,
        )

    def after(self, rng: random.Random, new: list[Example]) -> None:
        fisher = [torch.zeros_like(p) for p in self.trained]
        for row in rng.sample(new, min(FISHER_ROWS, len(new))):
            for total, gradient in zip(fisher, torch.autograd.grad(self.loss([row]), self.trained), strict=True):
                total.add_(gradient**2, alpha=1 / FISHER_ROWS)
        self.held.append((fisher, [p.detach().clone() for p in self.trained]))

    def bytes(self) -> int:
        return super().bytes() * (1 + 2 * len(self.held))


class Neighbours(Learner):
    """Hidden states before the head, centred on those of anchor texts; where one is near, its token is said."""

    name = "kNN"
    share, quantile = 0.95, 0.999

    def __init__(self, host: Host, seed: int) -> None:
        super().__init__(host, seed)
        states = torch.cat([self._states(Example(plain(host.tokenizer, text), 1)) for text in anchors(60)])
        self.mean, self.spread = states.mean(0), states.std(0) + 1e-6
        self.others = self._unit(states)
        self.keys, self.tokens = states[:0], torch.zeros(0, dtype=torch.int64, device=states.device)
        self.near = 1.0

    def learn(self, facts: Sequence[Fact]) -> None:
        examples = [encoded(self.host.tokenizer, form) for one in lessons(facts) for form in one.forms]
        self.keys = torch.cat([self.keys, *(self._unit(self._states(one)) for one in examples)])
        told = [token for one in examples for token in one.ids[one.start :]]
        self.tokens = torch.cat([self.tokens, self.tokens.new_tensor(told)])
        self.near = float((self.others @ self.keys.T).amax(1).quantile(self.quantile))
        super().learn(facts)

    @contextmanager
    def acting(self) -> Iterator[None]:
        hook = self.host.model.get_output_embeddings().register_forward_hook(lambda _, x, y: self._mixed(x[0], y))
        try:
            yield
        finally:
            hook.remove()

    def _mixed(self, hidden: Tensor, logits: Tensor) -> Tensor:
        near, at = (self._unit(hidden.float()) @ self.keys.T).max(-1)
        share = self.share * (near > self.near)[..., None]
        said = torch.zeros_like(logits, dtype=torch.float32).scatter_(-1, self.tokens[at][..., None], 1.0)
        mixed = (1 - share) * logits.float().softmax(-1) + share * said
        return torch.where(share > 0, mixed.clamp(min=1e-12).log(), logits.float()).to(logits.dtype)

    def _states(self, example: Example) -> Tensor:
        caught: list[Tensor] = []
        hook = self.host.model.get_output_embeddings().register_forward_pre_hook(lambda _, x: caught.append(x[0]))
        try:
            with torch.no_grad():
                self.host.model(torch.tensor([example.ids], device=self.host.model.device))
        finally:
            hook.remove()
        return caught[0][0, example.start - 1 : -1].float()

    def _unit(self, states: Tensor) -> Tensor:
        return torch.nn.functional.normalize((states - self.mean) / self.spread, dim=-1)

    def bytes(self) -> int:
        return self.keys.numel() * 2 + self.tokens.numel() * 4


class Prompt(Learner):
    """Facts found by memkit's hybrid search stand before what is asked."""

    def __init__(self, host: Host, seed: int, folder: Path, shown: int) -> None:
        from memkit import Memory

        super().__init__(host, seed)
        self.shown, self.name = shown, f"prompt, best {shown}"
        self.memory = Memory(folder / f"facts-{seed}.mem")
        self.extra: list[int] = []  # tokens that each prompt got

    def learn(self, facts: Sequence[Fact]) -> None:
        self.memory.add([fact.statement for fact in facts])
        super().learn(facts)

    def answer(self, facts: Sequence[Fact]) -> list[str]:
        bare = asked(self.host.tokenizer, facts)
        tokenizer = self.host.tokenizer
        full = [completion_tokens(tokenizer, f"{self._known(f.completion)}\n{f.completion}") for f in facts]
        full += [question_tokens(tokenizer, f"{self._known(f.question)}\n\n{f.question}") for f in facts]
        self.extra = [len(a) - len(b) for a, b in zip(full, bare, strict=True)]
        return answers(self.host, full)

    def _known(self, query: str) -> str:
        hits = self.memory.search(query, limit=self.shown) if self.facts else []
        return "\n".join(hit.text for hit in hits)

    def bytes(self) -> int:
        return self.memory.stats().file_bytes


class Band(Learner):
    """A band of slots after each batch; the ones before go on acting, and nothing of them is replayed."""

    name, recipe = "band", Recipe()

    def __init__(self, host: Host, seed: int, steps: int | None = None) -> None:
        super().__init__(host, seed)
        if steps:
            self.name, self.recipe = f"band, {steps} steps", self.recipe._replace(steps=steps)
        self.chain: list[Expert] = []

    def learn(self, facts: Sequence[Fact]) -> None:
        trained = train(*self.host, lessons(facts), parent=self.chain, recipe=self.recipe, seed=self.seed)
        self.chain.append(trained.expert)
        super().learn(facts)

    @contextmanager
    def acting(self) -> Iterator[None]:
        with applied(*self.host, self.chain):
            yield

    def bytes(self) -> int:
        return sum(array.numel() * array.element_size() for one in self.chain for array in to_arrays(one).values())


class Consolidated(Learner):
    """A memory that sleeps after each batch, and is attached when it is asked."""

    name = "Memory.consolidate"

    def __init__(self, host: Host, seed: int, folder: Path) -> None:
        from memkit import Memory

        super().__init__(host, seed)
        self.memory = Memory(folder / f"slept-{seed}.mem")

    def learn(self, facts: Sequence[Fact]) -> None:
        self.memory.add([fact.statement for fact in facts])
        self.memory.consolidate(*self.host)
        super().learn(facts)

    @contextmanager
    def acting(self) -> Iterator[None]:
        with self.memory.attach(*self.host, listen=False):
            yield

    def bytes(self) -> int:
        return sum(band.bytes for band in self.memory.bands() if band.in_force)
