"""How somebody writes: a slot a speaker, learned from their messages, open where they are about to write.

The slot of a fact hangs on one item and opens where its subject is named. That of a style hangs on the newest messages
of a speaker and opens on their name with a colon, as chats and requests have it ("Ana: ", "Write a message as Ana:").
Styles have a lane of their own: what is known of Ana and how she writes are open side by side, and her style is shut by
another speaker's colon, be it that of somebody without a style, whose slot says nothing.

The newest messages of a speaker are kept from training: a style passes if their loss falls by more than noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from memkit.items import is_trusted
from memkit.slow.lm import probes
from memkit.slow.lm.expert import STYLE, Expert
from memkit.slow.lm.forms import Form, Lesson
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import Recipe, scoped
from memkit.slow.replay import replay
from memkit_storage.rows import Row

LEAST, NEWEST = 32, 256  # messages of a speaker: without so many no style, and no more are learned from
WORDS, LONGEST = 4, 280  # words of a message that says how one writes, at least; characters of it, at most
HELD_OUT = 8  # one message in so many, the newest, is a probe; eight at least
ASKED = 3  # one message in so many is learned as what was asked for, too
AGAIN = 0.25  # new messages, of those known, from which a style is learned again
NOISE, GAIN = 2.0, 0.02  # standard errors, and nats a token, that a gain must exceed
OTHERS = ("User", "Assistant", "Human", "AI", "System")  # who may speak next
RECIPE = Recipe(steps=40, rate=0.003, lessons=1, keep=0.0, shown=12)


class Gain(NamedTuple):
    """What a style does to messages that it was not learned from.

    Attributes:
        before, after: nats a token, means over messages. error: standard error of the difference, paired by message.
    """

    before: float
    after: float
    error: float

    @property
    def is_real(self) -> bool:
        """Whether it is more than noise, and than nothing."""
        return self.before - self.after > max(NOISE * self.error, GAIN)

    def __str__(self) -> str:
        doubt = "" if self.is_real else ", which may be noise"
        return f"{self.before:.2f} to {self.after:.2f} nats a token{doubt}"


def messages(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Of each speaker the newest trusted messages that are long enough, no named source with more than its share."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        name = written_by(row)
        if name and is_trusted(row.metadata) and len(row.text.split()) >= WORDS:
            found.setdefault(name, []).append(row)
    return {name: replay(same[-NEWEST:], limit=NEWEST).rows for name, same in found.items()}


def written_by(row: Row) -> str | None:
    """Who wrote a message; None of what is no message, or a machine's."""
    role, name = row.metadata.get("role"), row.metadata.get("name")
    if isinstance(name, str) and name.strip() and role not in {"tool", "function"}:
        return name.strip()
    return row.user_id if role == "user" else None


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Messages to learn from, and later ones to judge by."""
    cut = len(rows) - max(HELD_OUT, len(rows) // HELD_OUT)
    return list(rows[:cut]), list(rows[cut:])


def lesson(name: str, rows: Sequence[Row]) -> Lesson:
    """What is learned of a speaker: their messages after their name, and some as an answer to a request."""
    forms = [*written(name, rows), *(Form(f"Write a message as {name}:", "", _begin(r.text)) for r in rows[::ASKED])]
    return Lesson(name, "", f"{name}:", tuple(dict.fromkeys(forms)))


def written(name: str, rows: Sequence[Row]) -> list[Form]:
    """Messages as a chat shows them: "Ana: ..."."""
    return [Form("", f"{name}:", _begin(row.text)) for row in rows]


def _begin(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0] or text[:LONGEST]


def gain(model: Any, tokenizer: Any, chain: Sequence[Expert], style: Expert, forms: Sequence[Form]) -> Gain:
    """What a style adds to what acts already.

    Args:
        chain: bands that act without it. forms: later messages.
    """
    arms = []
    for bands in (chain, [*chain, style]):
        with applied(model, tokenizer, bands):
            arms.append(probes.losses(model, tokenizer, forms))
    before, after = arms
    error = float((before - after).std() / len(forms) ** 0.5) if len(forms) > 1 else float("inf")
    return Gain(float(before.mean()), float(after.mean()), error)


def silent(model: Any, tokenizer: Any, names: Iterable[str]) -> Expert:
    """Slots that say nothing, open on the colons of speakers who have no style: they shut that of who spoke before."""
    found = scoped(model, tokenizer, [Lesson(name, "", f"{name}:", ()) for name in names])[0]
    return found.to("cpu")._replace(lane=STYLE, values=torch.zeros_like(found.values, device="cpu"))
