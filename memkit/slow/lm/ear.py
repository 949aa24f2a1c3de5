"""Hearing users: their turns among the tokens of a model, by the marks that its chat template puts around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from memkit.slow.lm.examples import Tokens, opened

LONGEST = 128  # tokens of a turn that are kept: its last ones
SAMPLES = "Where is it?", "Thank you."  # turns that have neither beginning nor end in common


class Turn(NamedTuple):
    """A user's turn.

    Attributes:
        text: its end, as much as is kept; None while it goes on. named: whether somebody who is known is named in it.
        whole: whether the text is all of it.
    """

    text: str | None = None
    named: bool = False
    whole: bool = True


class Heard(NamedTuple):
    """What was heard of a row so far.

    Attributes:
        last: its last tokens, as many as a mark has. said: those of the user's turn that goes on; None: none does.
        turn: the last turn; None before the first one.
    """

    last: tuple[int, ...] = ()
    said: tuple[int, ...] | None = None
    turn: Turn | None = None


class Ear:
    """Hears turns of users.

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

    def row(self, ids: Tokens, named: Sequence[bool], heard: Heard) -> tuple[list[Turn | None], Heard]:
        """At each token of a row the turn that goes on or is being answered, and what was heard until its end.

        Args:
            named: whether a token names somebody who is known.
        """
        found = []
        for token, names in zip(ids, named, strict=True):
            heard = self._next(token, names, heard)
            found.append(heard.turn)
        return found, heard

    def _next(self, token: int, names: bool, heard: Heard) -> Heard:
        last = (*heard.last, token)[-max(len(self.begins), len(self.ends)) :]
        if self.begins and last[-len(self.begins) :] == self.begins:
            return Heard(last, (), Turn())
        if heard.said is None or heard.turn is None:
            return Heard(last, None, heard.turn)
        named, said = heard.turn.named or names, (*heard.said, token)
        if self.ends and last[-len(self.ends) :] == self.ends:
            text = self._tokenizer.decode(list(said[: -len(self.ends)]))
            return Heard(last, None, Turn(text, named, heard.turn.whole))
        return Heard(last, said[-LONGEST:], Turn(None, named, heard.turn.whole and len(said) <= LONGEST))


def _common(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """What two rows of tokens begin with."""
    size = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), 0)
    return list(first[:size])
