"""What the table of learners does not show of a band: erasure, other questions about a subject, subjects together.

    python -m benchmarks.continual.limits --data ../shared/data/relations --seed 6

One batch of facts is learned. Then

    erased       one item is taken out with those that were learned with it, and these are learned again without it: how
                 often its value is still said; its forms' losses beside those under a band that never saw it (retrained
                 from scratch), and beside items of another drawing that nobody learned (area under the ROC curve of the
                 losses minus the frozen model's: .5 is no difference)
    neighbours   questions about a subject that no item answers, none of them trained: how often the answer holds a value
                 of the subject all the same
    together     a question about one subject after a chat about another: how often it is right
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.continual import asking, facts, learners
from benchmarks.continual.asking import Host
from benchmarks.continual.facts import Fact
from benchmarks.models import load
from memkit.slow.lm import probes
from memkit.slow.lm.expert import Expert
from memkit.slow.lm.forms import Lesson, holds
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import train

NEIGHBOURS = ("How old is {}?", "What colour does {} like best?", "Please write a short poem about {}.")


def losses(host: Host, lessons: Sequence[Lesson], chain: Sequence[Expert]) -> torch.Tensor:
    with applied(*host, chain):
        return probes.losses(*host, [form for one in lessons for form in one.forms])


def erased(host: Host, batch: list[Fact], strangers: list[Fact], whole: Expert) -> None:
    """Erase a fact of a subject that has two; compare with a band that never saw it."""
    subjects = [fact.subject for fact in batch]
    gone = next(fact for fact in batch if subjects.count(fact.subject) == 2)
    lessons = learners.lessons(batch)
    touched = whole.together({gone.id})
    began = time.process_time()
    again = train(*host, [one for one in lessons if one.id in touched - {gone.id}]).expert
    seconds = time.process_time() - began
    chain = [whole.without(touched), again]
    scratch = train(*host, [one for one in lessons if one.id != gone.id]).expert
    mine, never = [one for one in lessons if one.id == gone.id], learners.lessons(strangers)
    kept = [one for one in lessons if one.id != gone.id]
    gap = (losses(host, mine, chain) - losses(host, mine, [scratch])).abs()
    others = (losses(host, kept, chain) - losses(host, kept, [scratch])).abs()
    change = {
        name: losses(host, some, chain) - losses(host, some, []) for name, some in (("erased", mine), ("never", never))
    }
    member = losses(host, mine, [whole]) - losses(host, mine, [])
    with applied(*host, chain):
        said = asking.answers(host, asking.asked(host.tokenizer, [gone]))
    print(
        f"erased {gone.statement!r}: retrained {len(touched) - 1} in {seconds:.0f} s; said still {sum(holds(one, gone.value) for one in said)} of 2: {said}"
    )
    print(
        f"  its losses beside a band that never saw it: differ by {gap.mean():.4f} on average, {gap.max():.4f} at most (nats a token); the others' by {others.mean():.4f}"
    )
    print(f"  told apart from that band {probes.separability(losses(host, mine, chain), losses(host, mine, [scratch])):.2f}; "
          f"from items that nobody learned {probes.separability(change['erased'], change['never']):.2f}; before it was erased {probes.separability(member, change['never']):.2f}")  # fmt: skip


def neighbours(host: Host, batch: list[Fact], chain: Sequence[Expert]) -> None:
    values: dict[str, list[str]] = {}
    for fact in batch:
        values.setdefault(fact.subject, []).append(fact.value)
    asked = [(subject, text.format(subject)) for subject in values for text in NEIGHBOURS]
    with applied(*host, chain):
        said = asking.answers(host, [asking.question_tokens(host.tokenizer, text) for _, text in asked])
    leaked = [
        any(holds(one, value) for value in values[subject]) for (subject, _), one in zip(asked, said, strict=True)
    ]
    print(
        f"neighbours: {sum(leaked)} of {len(leaked)} answers hold a value that was not asked for ({np.mean(leaked):.0%})"
    )


def together(host: Host, batch: list[Fact], chain: Sequence[Expert]) -> None:
    prompts = []
    for fact in batch:
        other = next(one for one in batch if one.subject != fact.subject)
        chat = [
            {"role": "user", "content": other.question},
            {"role": "assistant", "content": other.value + "."},
            {"role": "user", "content": fact.question},
        ]
        text = host.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        prompts.append(asking.completion_tokens(host.tokenizer, text))
    with applied(*host, chain):
        said = asking.answers(host, prompts)
    right = [holds(one, fact.value) for one, fact in zip(said, batch, strict=True)]
    print(f"together: {sum(right)} of {len(right)} right after a chat about another subject")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the relations data")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args(arguments)
    host = Host(*load(options.model, torch.bfloat16))
    batch = facts.batches(options.data, seed=options.seed)[0]
    whole = train(*host, learners.lessons(batch)).expert
    with applied(*host, [whole]):
        completions, questions = asking.scores(batch, asking.answers(host, asking.asked(host.tokenizer, batch)))
    print(f"learned: {sum(completions)} and {sum(questions)} of {len(batch)} in the two held-out wordings")
    neighbours(host, batch, [whole])
    together(host, batch, [whole])
    erased(host, batch, facts.strangers(options.data, seed=options.seed)[:5], whole)


if __name__ == "__main__":
    main()
