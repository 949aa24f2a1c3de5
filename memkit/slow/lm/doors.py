"""Which slots are open at each token: those of whom was named last, and while a user's turn is answered, those wanted.

axes: b rows · t tokens · s slots · k key phrases · m tokens of a phrase · d hidden dims
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memkit.slow.lm.ear import Ear, Heard, Turn
from memkit.slow.lm.expert import FACTS, Expert
from memkit.slow.lm.questions import Wanted


def opening(hidden: Tensor, expert: Expert) -> Tensor:
    """Which slots each token opens: hidden (b, t, d), m - 1 tokens more than are asked for, gives (b, t - m + 1, s)."""
    keys, size = expert.keys.to(hidden.device), hidden.shape[1] - expert.keys.shape[1] + 1
    blank = (keys.norm(dim=-1) < 0.5).float() * 2.0  # before a phrase begins anything may stand
    alike = torch.einsum("btd,kmd->btkm", unit(hidden, expert), keys) + blank
    worst = torch.stack([alike[:, at : at + size, :, at] for at in range(keys.shape[1])]).amin(0)
    owned = torch.zeros(len(keys), len(expert.items), device=hidden.device)
    owned[torch.arange(len(keys)), expert.owner.to(hidden.device)] = 1.0
    found: Tensor = (worst > expert.near.to(hidden.device)).float() @ owned > 0
    return found


def unit(hidden: Tensor, expert: Expert) -> Tensor:
    """States centred, scaled, and of unit length, (..., d)."""
    centred = (hidden.float() - expert.mean.to(hidden.device)) / expert.spread.to(hidden.device)
    return torch.nn.functional.normalize(centred, dim=-1)


def lanes(chain: Sequence[Expert]) -> list[str]:
    """The lane of each slot of a chain."""
    return [expert.lane for expert in chain for _ in expert.items]


def gate(opens: Tensor, before: Tensor | None = None, of: Sequence[str] = ()) -> Tensor:
    """Which slots are open at each token (b, t, s): in each lane those opened last, `before` (b, s) until then.

    Args:
        of: the lane of each slot; none: they share one.
    """
    if len(set(of)) > 1:
        held = torch.empty_like(opens)
        for lane in set(of):
            at = [slot for slot, own in enumerate(of) if own == lane]
            held[..., at] = gate(opens[..., at], None if before is None else before[:, at])
        return held
    start = torch.zeros_like(opens[:, :1]) if before is None else before[:, None]
    steps = torch.arange(1, opens.shape[1] + 1, device=opens.device)
    last = torch.where(opens.any(-1), steps, 0).cummax(1).values
    return torch.cat([start, opens], dim=1).gather(1, last[..., None].expand(-1, -1, opens.shape[2]))


class Seen(NamedTuple):
    """Where a pass ends: which slots names have opened (b, s), the last states of the scope layer (b, m - 1, d), and
    what was heard of each row."""

    open: Tensor
    tail: Tensor
    heard: Sequence[Heard]


class Doors:
    """What opens the slots of a chain of bands.

    Args:
        ear: hears turns of users; None: everything is plain text.
    """

    def __init__(self, chain: Sequence[Expert], ear: Ear | None) -> None:
        self._lanes = lanes(chain)
        self._facts = torch.tensor([lane == FACTS for lane in self._lanes], dtype=torch.bool)
        self._wanted, self._ear = Wanted(chain), ear

    def settled(
        self, opens: Tensor, allowed: Tensor, ids: Tensor | None, before: Seen | None = None
    ) -> tuple[Tensor, Tensor, Sequence[Heard]]:
        """Which slots are open at each token (b, t, s), which of them names have opened (b, t, s), and what was heard.

        Args:
            opens: what each token opens (b, t, s). allowed: which slots may open in a row (b, s).
            ids: the tokens (b, t); None where they are not known.
        """
        opens = opens & allowed[:, None]
        named = gate(opens, before.open if before else None, self._lanes)
        heard = before.heard if before else [Heard()] * len(opens)
        if ids is None or self._ear is None or not self._wanted.heard.any():
            return named, named, heard
        names = (opens.cpu() & self._facts).any(-1).tolist()
        open_, after = named.clone(), []
        for row, tokens in enumerate(ids.tolist()):
            turns, ends = self._ear.row(tokens, names[row], heard[row])
            after.append(ends)
            mine, may = named[row].cpu(), allowed[row].cpu()
            for start, end in _stretches(turns, mine):
                if (turn := turns[start]) is not None:
                    open_[row, start:end] = self._open(turn, mine[start], may).to(named.device)
        return open_, named, after

    def _open(self, turn: Turn, named: Tensor, allowed: Tensor) -> Tensor:
        return self._wanted.by(turn, named, allowed).where(self._wanted.heard, named)


def _stretches(turns: Sequence[Turn | None], named: Tensor) -> Iterator[tuple[int, int]]:
    """From where to where turn and named slots (t, s) stay as they are."""
    moved = (named[1:] != named[:-1]).any(-1).tolist()
    cuts = [at for at in range(1, len(turns)) if moved[at - 1] or turns[at] != turns[at - 1]]
    return zip([0, *cuts], [*cuts, len(turns)], strict=True)
