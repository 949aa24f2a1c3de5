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
- *beside facts*: *later* where three made-up facts about the speaker have slots as well, without the style and with it;
  *facts*: how many of nine wordings of them, which were not taught, are told right then.
- *everyday*: of the gate's everyday questions, how many are answered as before, to the letter. *text*: how the loss on
  unrelated text differs, relatively. *s*: seconds of the clock, of the sleep, in which two styles are learned.

The sleep leaves facts alone, which the messages are full of.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import tables
from benchmarks.models import MODELS, load
from benchmarks.recall.datasets import Conversation
from benchmarks.recall.datasets import load as conversations
from memkit import Memory
from memkit.fast.lm.places import identity
from memkit.slow.bands import Band
from memkit.slow.lm import probes
from memkit.slow.lm.anchors import TEXTS
from memkit.slow.lm.expert import Expert
from memkit.slow.lm.forms import Form, lesson
from memkit.slow.lm.held import acting
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import train

TAUGHT, LATER = 128, 48
NEVER = 1 << 30  # new facts that a sleep waits for
USER = "ana"
FACTS = ("{}'s parrot is called Biscuit.", "{} works as a glassblower.", "{} was born in Tralee.")


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


def loss(model: Any, tokenizer: Any, name: str, texts: Sequence[str]) -> float:
    """Of messages under a name, nats a token."""
    return float(probes.losses(model, tokenizer, [Form("", f"{name}:", text) for text in texts]).mean())


def told(model: Any, tokenizer: Any, cut: Parts) -> Told:
    """Measure."""
    return Told(
        loss(model, tokenizer, cut.name, cut.later),
        loss(model, tokenizer, cut.name, cut.others),
        loss(model, tokenizer, cut.other, cut.others),
        probes.canaries(model, tokenizer),
        probes.text_loss(model, tokenizer, TEXTS),
    )


class Measured(NamedTuple):
    """Of a conversation: before and after a sleep, its seconds, its bands, and what `beside` gives."""

    before: Told
    after: Told
    seconds: float
    bands: list[Band]
    facts: list[tuple[float, float]]


def measure(model: Any, tokenizer: Any, cut: Parts, device: str | None) -> Measured:
    """Learn, and ask."""
    before = told(model, tokenizer, cut)
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "a.mem", cache_dir=folder) as memory:
        memory.add(cut.before, user_id=USER)
        began = time.perf_counter()
        bands = memory.consolidate(model, tokenizer, device=device, style=True, due=NEVER).bands
        seconds = time.perf_counter() - began
        with memory.attach(model, tokenizer, user_id=USER, listen=False):
            after = told(model, tokenizer, cut)
        own = acting(memory._store, memory._fast.family({"user_id": USER}), identity(model))
    return Measured(before, after, seconds, bands, beside(model, tokenizer, cut, own, device))


def beside(
    model: Any, tokenizer: Any, cut: Parts, own: Sequence[Expert], device: str | None
) -> list[tuple[float, float]]:
    """Loss of later messages, and share of the facts told, where facts about the speaker act alone and with the style."""
    texts = [fact.format(cut.name) for fact in FACTS]
    made = [one for at, text in enumerate(texts) if (one := lesson(str(at), text)) is not None]
    asked = [probe for at, text in enumerate(texts) for probe in probes.held_out(str(at), text)]
    facts, found = train(model, tokenizer, made, device=device).expert, []
    for chain in ([facts], [facts, *own]):
        with applied(model, tokenizer, chain):
            share = probes.recall(model, tokenizer, asked).share
            found.append((loss(model, tokenizer, cut.name, cut.later), share))
    return found


HEAD = "| speaker | later | another as them | another | beside facts | facts | everyday | text | s |"


def line(cut: Parts, found: Measured) -> str:
    """A row of the table."""
    before, after, facts = found.before, found.after, found.facts
    pairs = [*zip(before[:3], after[:3], strict=True), (facts[0][0], facts[1][0])]
    same = sum(a == b for a, b in zip(before.everyday, after.everyday, strict=True))
    cells = (
        cut.name,
        *(f"{a:.2f} to {b:.2f}" for a, b in pairs),
        f"{facts[0][1]:.0%} to {facts[1][1]:.0%}",
        f"{same} of {len(before.everyday)}",
        f"{after.text / before.text - 1:+.2%}",
        f"{found.seconds:.0f}",
    )
    return tables.row(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--device", help="where to train")
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.model, torch.bfloat16)
    print(tables.ruled(HEAD))
    notes = []
    for conversation in (one for path in options.data for one in conversations(path)):
        cut = parts(conversation)
        found = measure(model, tokenizer, cut, options.device)
        print(line(cut, found), flush=True)
        notes += [f"{cut.name}: {'; '.join(band.reasons)}" for band in found.bands]
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
