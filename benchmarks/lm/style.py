"""Whether a language model writes more like somebody after a sleep.

    python -m benchmarks.lm.style --data ../shared/data/locomo/conv-26.json.gz ../shared/data/locomo/conv-30.json.gz
    python -m benchmarks.lm.style --data CHAT --device cuda    # any conversation that benchmarks.recall.datasets reads

Of each conversation the first TAUGHT messages of the first speaker are remembered, with all that others say in between;
`Memory.consolidate(model, tokenizer, style=True)`, and the memory is attached. Losses are nats a token, means over
messages, each after "Name:" alone:

- *later*: the speaker's next messages, which neither training nor the gate had, before the sleep and after it.
- *another as them*: what the other speaker says from then on, under this speaker's name. What a style gains there is the
  kind of text that chats are; what it gains more of *later* is the person.
- *another*: the same under the other speaker's own name, who has a style of their own.
- *everyday*: of the gate's everyday questions, how many are answered as before, to the letter. *text*: how the loss on
  unrelated text differs, relatively. *s*: seconds of the clock, of the sleep, in which two styles are learned.

Without `--facts` the sleep leaves facts alone, which the messages are full of.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.models import MODELS, load
from benchmarks.recall.datasets import Conversation
from benchmarks.recall.datasets import load as conversations
from memkit import Memory
from memkit.slow.lm import probes
from memkit.slow.lm.anchors import TEXTS
from memkit.slow.lm.forms import Form

TAUGHT, LATER = 128, 48
NEVER = 1 << 30  # new facts that a sleep waits for
USER = "ana"


class Told(NamedTuple):
    """What a model makes of it all, once."""

    later: float
    as_them: float
    another: float
    everyday: list[str]
    text: float


class Parts(NamedTuple):
    """A conversation, cut where the first speaker has said enough."""

    name: str
    other: str
    before: list[dict[str, str]]
    later: list[str]
    others: list[str]


def parts(conversation: Conversation) -> Parts:
    """What is remembered, and what both say afterwards.

    Raises:
        SystemExit: one of them says too little.
    """
    turns = [turn for turn in conversation.turns if turn.speaker and len(turn.text.split()) > 3]
    name = turns[0].speaker or ""
    other = next(turn.speaker for turn in turns if turn.speaker != name) or ""
    cut = [at for at, turn in enumerate(turns) if turn.speaker == name][:TAUGHT][-1] + 1
    later = [turn.text for turn in turns[cut:] if turn.speaker == name][:LATER]
    others = [turn.text for turn in turns[cut:] if turn.speaker == other][:LATER]
    if min(len(later), len(others)) < 8:
        raise SystemExit(f"{conversation.name}: fewer than eight messages after {name}'s first {TAUGHT}")
    return Parts(name, other, [turn.message() for turn in turns[:cut]], later, others)


def told(model: Any, tokenizer: Any, cut: Parts) -> Told:
    """Measure."""

    def loss(name: str, texts: Sequence[str]) -> float:
        return float(probes.losses(model, tokenizer, [Form("", f"{name}:", text) for text in texts]).mean())

    return Told(
        loss(cut.name, cut.later),
        loss(cut.name, cut.others),
        loss(cut.other, cut.others),
        probes.canaries(model, tokenizer),
        probes.text_loss(model, tokenizer, TEXTS),
    )


def measure(
    model: Any, tokenizer: Any, cut: Parts, device: str | None, due: int = 1
) -> tuple[Told, Told, float, list[str]]:
    """Before and after a sleep; its seconds, and what its bands say of themselves."""
    before = told(model, tokenizer, cut)
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "a.mem", cache_dir=folder) as memory:
        memory.add(cut.before, user_id=USER)
        began = time.perf_counter()
        made = memory.consolidate(model, tokenizer, device=device, style=True, due=due).bands
        seconds = time.perf_counter() - began
        with memory.attach(model, tokenizer, user_id=USER, listen=False):
            after = told(model, tokenizer, cut)
    said = [
        f"{band.kind}, {'let in' if band.promoted else 'turned away'}, {band.metrics['seconds']:.0f} s: {'; '.join(band.reasons[:4])}"
        for band in made
    ]
    return before, after, seconds, said


def line(cut: Parts, before: Told, after: Told, seconds: float) -> str:
    """A row of the table."""
    pairs = zip(before[:3], after[:3], strict=True)
    same = sum(a == b for a, b in zip(before.everyday, after.everyday, strict=True))
    losses = " | ".join(f"{a:.2f} to {b:.2f}" for a, b in pairs)
    return f"| {cut.name} | {losses} | {same} of {len(before.everyday)} | {after.text / before.text - 1:+.2%} | {seconds:.0f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--device", help="where to train")
    parser.add_argument("--facts", action="store_true", help="learn the facts of the messages, too")
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.model, torch.bfloat16)
    print(
        "| speaker | later | another as them | another | everyday | text | s |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    notes = []
    for path in options.data:
        for conversation in conversations(path):
            cut = parts(conversation)
            before, after, seconds, said = measure(model, tokenizer, cut, options.device, 1 if options.facts else NEVER)
            print(line(cut, before, after, seconds), flush=True)
            notes += [f"{cut.name}: {one}" for one in said]
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
