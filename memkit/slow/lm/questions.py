"""Which slots speak while a user's turn is answered: those whose own question, with its answer, the turn is like.

A subject that was named opens its slots (`slots.gate`), and in plain text that is all. In a chat it is known what is
wanted of it: "Where does Orla Venn live?" is compared with the questions that its slots answer, in the first person
("Where do I live? Porto."), so that no name counts. Are all of them unlike it, its slots stay shut, and the model says
what it always said; requests for whatever is known ("Tell me about Orla Venn.") open them all. A question that names
nobody is about who was named last ("And where does she work?"). Questions of users about themselves (`own`) open, of
slots that belong to no name, the one that is nearest, so that ever so many do not disturb each other.

While a turn goes on slots are shut: what is wanted is known at its end. Vectors are those of the embedder that comes
with memkit, whichever embedder a memory has.

axes: s slots · q questions of slots · e dims of their vectors
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from memkit.embed import default_embedder
from memkit.slow.lm import own, person
from memkit.slow.lm.ear import Turn
from memkit.slow.lm.expert import ASKED, TIED, Expert
from memkit.slow.lm.forms import Lesson, sentences

OWN, NAMED = 0.4, 0.35  # see `near`; less is asked for of who is named: it is about them at any rate
FURTHER, MOST = 0.025, 0.52
WHATEVER = re.compile(  # asks for all that is known of somebody, who is "I" here
    r"(?:\w+[,!] )?(?:(?:and|but|so) )?(?:(?:can|could|would|will) you (?:please )?|please )?"
    r"(?:(?:what|how) about|(?:and )?what (?:do|can|could) you (?:know|remember|say|tell me) (?:of|about)"
    r"|(?:tell me|talk|speak)(?: more| something| everything| all)?(?: you know)? (?:of|about)|describe|introduce"
    r"|do you (?:know|remember)|who am|what am|and|who)? ?I(?: to me)?[?.!]*",
    re.IGNORECASE,
)


def vectors(questions: Sequence[str]) -> Tensor:
    """What questions are compared by: (q, e), unit length."""
    found = torch.from_numpy(default_embedder().embed_documents(list(questions)))
    return found.reshape(len(questions), ASKED)


@lru_cache(maxsize=1024)
def _vector(question: str) -> Tensor:
    return vectors([question])[0]


def keys(lessons: Sequence[Lesson], beside: Sequence[Lesson]) -> list[list[str]]:
    """What each lesson's slot is compared by: its questions, each with every answer that some lesson about the same
    has, so that slots of one question open together.

    Args:
        beside: lessons that other slots have learned.
    """
    answers: dict[tuple[str, str], list[str]] = {}
    for about, question, answer in dict.fromkeys(
        (one.subject, *pair) for one in (*lessons, *beside) for pair in one.asked
    ):
        answers.setdefault((about, question), []).append(answer)
    return [
        [
            f"{question} {answer}."
            for question in dict.fromkeys(q for q, _ in one.asked)
            for answer in answers[one.subject, question]
        ]
        for one in lessons
    ]


def near(count: int, first: float) -> float:
    """The cosine that a question must have with the nearest of so many: of many, one is nearer by chance."""
    return min(MOST, first + FURTHER * math.log(max(count, 1)))


def wish(turn: str) -> str:
    """What is wanted with a turn: its last question or, where none is asked, its last sentence."""
    said = sentences(turn)
    return next((one for one in reversed(said) if one.endswith("?")), said[-1] if said else "")


class Wanted:
    """What a chain's slots are wanted for. Attributes: heard: (s,) whether a slot is, and not for its name alone."""

    def __init__(self, chain: Sequence[Expert]) -> None:
        starts = accumulate((len(expert.items) for expert in chain), initial=0)
        self._asks = torch.cat([expert.asks + start for expert, start in zip(chain, starts, strict=False)])
        self._asked = torch.cat([expert.asked for expert in chain])
        names = [name for expert in chain for name in expert.names]
        self.heard = torch.zeros(len(names), dtype=torch.bool).index_fill(0, self._asks, True)
        self._of = {
            name: self.heard & torch.tensor([one == name for one in names], dtype=torch.bool) for name in {"", *names}
        }
        self._names = names

    def by(self, turn: Turn, named: Tensor, allowed: Tensor) -> Tensor:
        """Which slots speak while a turn is answered, or goes on (s,).

        Args:
            named: slots that names have opened (s,). allowed: those that may open (s,).
        """
        found = torch.zeros_like(self.heard)
        if turn.text is None:
            return found
        mine = own.asked(turn.text) if turn.whole and not turn.named else None
        if mine is not None:
            among = self._of[""] & allowed
            alike = self._alike(mine, among)
            best = alike >= max(near(int(among.sum()), OWN), float(alike.max()) - TIED)
            return found.index_fill(0, self._asks[best], True)
        wanted = wish(turn.text)
        for name in {self._names[at] for at in (named & self.heard).nonzero()[:, 0].tolist()} - {""}:
            among = self._of[name] & named
            asked = person.first(wanted, name)
            alike = self._alike(own.PREAMBLE.sub("", asked, count=1), among)
            if WHATEVER.fullmatch(asked) or alike.max() >= near(int(among.sum()), NAMED):
                found |= among
        return found

    def _alike(self, question: str, among: Tensor) -> Tensor:
        """Cosines with the questions of slots (q,), zero for those that are not among them."""
        return (self._asked @ _vector(question)).where(among[self._asks], 0.0)
