"""Questions of people about themselves: "Where do I live?" opens what is known of the user, who is named nowhere.

Such a question is told by its words, in a turn of the user's and nowhere else: it asks, in the first person, for what
is so ("What is my dog called?", "Remind me where I live."), not for help or advice ("How do I boil an egg?", "What
should I cook?"), and the turn says nothing of the speaker itself ("My name is Sam. What is my name?"), nor names
somebody that is known. It opens the slot whose own question with its answer is most like it, by the vectors of the
embedder that comes with memkit, if it is like it at all, from the beginning of the answer on until the next turn.

axes: s slots · q questions of slots · e dims of their vectors
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memkit.embed import default_embedder
from memkit.slow.lm.examples import Tokens, opened
from memkit.slow.lm.expert import ASKED, TIED, Expert
from memkit.slow.lm.forms import Lesson, sentences

NEAR, FURTHER, MOST = 0.4, 0.025, 0.52  # see `near`
LONGEST = 128  # tokens of a turn that may be such a question
SAMPLES = "Where is it?", "Thank you."  # turns that have neither beginning nor end in common
ME = re.compile(r"\b(?:I|me|my|mine|myself)\b", re.IGNORECASE)
ASKS = re.compile(  # with its mark, or without one if its words are in the order of a question
    r"(?:(?:and|but|so|ok|okay|hi|hey|hello|please|sorry|again)\b[,:]? *)*"
    r"(?:(?:what|which|where|when|who|whom|whose|how|(?:in|on|at|for|to|with) (?:what|which|whom|whose))\b.*\?"
    r"|(?:do|did|am|was|have|had) (?:I|we)\b.*\?"
    r"|(?:what|where|when|who|which \w+|whose \w+)(?:[’']s| is| are| was| were| do| does| did| am| have) (?:I|my)\b)",
    re.IGNORECASE,
)
REMINDS = re.compile(r"\b(?:remind|tell|recall|remember|know|forgot|forgotten|forget|wonder)\b", re.IGNORECASE)
SEEKS_HELP = re.compile(
    r"\b(?:can|could|should|shall|would|will|may|might|must|if|help|need|want|why)\b|\bhow (?:do|to)\b", re.IGNORECASE
)
PREAMBLE = re.compile(
    r"(?:please,? )?(?:(?:can|could|would|will) you (?:please )?)?(?:remind|tell) me\b(?: again\b|,? please\b)*[,:]? *"
    r"|do you (?:still |happen to )?(?:remember|know) ",
    re.IGNORECASE,
)
TO_YOU = re.compile(r"\b(?:you|your|we|our|us)\b", re.IGNORECASE)


def asked(turn: str) -> str | None:
    """What users ask about themselves with the end of a turn, without "remind me"; None where they ask nothing."""
    said = sentences(turn)
    if not said or any(ME.search(one) and not (one.endswith("?") or REMINDS.search(one)) for one in said[:-1]):
        return None
    last = said[-1]
    reminds = REMINDS.search(last)
    asks = ASKS.match(last) or reminds
    bare = re.sub(r"\b(?:can|could|will|would) you\b", "", last, flags=re.IGNORECASE) if reminds else last
    mine = PREAMBLE.sub("", last, count=1)
    about_them = asks and ME.search(mine) and not SEEKS_HELP.search(bare) and (reminds or not TO_YOU.search(last))
    return mine if about_them else None


def vectors(questions: Sequence[str]) -> Tensor:
    """What questions are compared by: (q, e), unit length."""
    found = torch.from_numpy(default_embedder().embed_documents(list(questions)))
    return found.reshape(len(questions), ASKED)


def keys(lessons: Sequence[Lesson], beside: Sequence[Lesson]) -> list[list[str]]:
    """What opens each lesson's slot: its questions, each with every answer that some lesson has, so that slots of one
    question open together.

    Args:
        beside: lessons that other slots have learned.
    """
    answers: dict[str, list[str]] = {}
    for question, answer in dict.fromkeys(pair for one in (*lessons, *beside) for pair in one.asked):
        answers.setdefault(question, []).append(answer)
    questions = (dict.fromkeys(question for question, _ in one.asked) for one in lessons)
    return [[f"{question} {answer}." for question in some for answer in answers[question]] for some in questions]


def opened_by(question: str, chain: Sequence[Expert], allowed: Tensor) -> Tensor:
    """Which slots of a chain a question opens (s,), of those that are allowed (s,)."""
    starts = accumulate((len(expert.items) for expert in chain), initial=0)
    slots = torch.cat([expert.asks + start for expert, start in zip(chain, starts, strict=False)])
    alike = torch.cat([expert.asked for expert in chain]) @ vectors([question])[0]
    alike[~allowed.cpu()[slots]] = 0.0
    best = alike >= max(near(int(allowed.cpu()[slots].sum())), float(alike.max()) - TIED)
    return torch.zeros(len(allowed), dtype=torch.bool).index_fill(0, slots[best], True)


def near(count: int) -> float:
    """The cosine that a question must have with the nearest of so many: of many, one is nearer by chance."""
    return min(MOST, NEAR + FURTHER * math.log(max(count, 1)))


class Heard(NamedTuple):
    """What was heard of a row so far.

    Attributes:
        last: its last tokens, as many as a mark has. turn: those of the user's turn that goes on; None: none does.
        named: whether somebody who is known was named in it. asked: what the turn before the answer asked, if it did.
    """

    last: tuple[int, ...] = ()
    turn: tuple[int, ...] | None = None
    named: bool = False
    asked: str | None = None


class Ear:
    """Hears turns of users among the tokens of a model, by the marks that its chat template puts around them.

    Args:
        tokenizer: without a chat template, turns are "Question: ..." as in `examples.opened`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        first, second = (opened(tokenizer, text) for text in SAMPLES)
        special = {*getattr(tokenizer, "all_special_ids", ()), *getattr(tokenizer, "added_tokens_decoder", ())}
        before = _common(first, second)
        begins = max((at for at, token in enumerate(before) if token in special), default=0)
        if begins == 0 and before[:1] == opened(tokenizer, ""):  # what opens a text, not a turn
            begins = 1
        self.begins = tuple(before[begins:])
        self.ends = tuple(reversed(_common(first[::-1], second[::-1])))

    def row(self, ids: Tokens, named: Sequence[bool], heard: Heard) -> tuple[list[str | None], Heard]:
        """At each token of a row the question that is being answered, if any is, and what was heard until its end.

        Args:
            named: whether a token names somebody who is known.
        """
        found = []
        for token, names in zip(ids, named, strict=True):
            heard = self._next(token, names, heard)
            found.append(heard.asked)
        return found, heard

    def _next(self, token: int, names: bool, heard: Heard) -> Heard:
        last = (*heard.last, token)[-max(len(self.begins), len(self.ends)) :]
        turn = None if heard.turn is None or len(heard.turn) > LONGEST else (*heard.turn, token)
        if self.ends and last[-len(self.ends) :] == self.ends:
            text = "" if turn is None or heard.named else self._tokenizer.decode(list(turn[: -len(self.ends)]))
            return Heard(last, None, False, asked(text))
        if self.begins and last[-len(self.begins) :] == self.begins:
            return Heard(last, turn=())
        return Heard(last, turn, heard.named or names, None if names else heard.asked)


def _common(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """What two rows of tokens begin with."""
    size = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), 0)
    return list(first[:size])
