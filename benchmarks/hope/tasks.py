"""Sequences that ask a memory something: recall of pairs, state tracking, a needle.

A task draws tokens (b, t) and the answers (b, t) that are due at each token, -1 where none is. What is drawn depends on
the generator alone.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Generator, Tensor

NONE = -1
PAIRED = 32  # keys of mqar, and as many values
HIDDEN_IN_HAY = 16  # keys of a haystack, and as many values
FILLER = 16
NEEDLES = 4  # pairs of a haystack: the one that is placed, and three wherever there is room
S3 = list(permutations(range(3)))  # the first leaves all in place
SWAPS = [(0, 1, 2), (1, 0, 2), (0, 2, 1)]


def mqar(rng: Generator, batch: int, pairs: int) -> tuple[Tensor, Tensor]:
    """Multi-query associative recall (Arora et al., arXiv 2312.04927): pairs k v k v ..., then every key once, anew.

    The answer is due at the key that is asked. Keys are 0 .. PAIRED - 1 and differ, values are the numbers above.
    """
    keys = torch.stack([torch.randperm(PAIRED, generator=rng)[:pairs] for _ in range(batch)])
    values = PAIRED + torch.randint(PAIRED, (batch, pairs), generator=rng)
    order = torch.stack([torch.randperm(pairs, generator=rng) for _ in range(batch)])
    told = torch.stack([keys, values], dim=2).flatten(1)
    answers = torch.full_like(told, NONE)
    return torch.cat([told, keys.gather(1, order)], 1), torch.cat([answers, values.gather(1, order)], 1)


def parity(rng: Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Bits; at each, whether an odd number of ones has come, this bit included."""
    bits = torch.randint(2, (batch, length), generator=rng)
    return bits, bits.cumsum(1) % 2


def word_problem(rng: Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Swaps of neighbours among three things, or none; at each, the order they are in, one of the six of S3.

    The two swaps generate the group, which does not commute: it is not enough to count them.
    """
    words = torch.randint(len(SWAPS), (batch, length), generator=rng)
    table = torch.tensor([[S3.index(tuple(order[i] for i in swap)) for swap in SWAPS] for order in S3])
    order, orders = torch.zeros(batch, dtype=torch.long), []
    for t in range(length):
        order = table[order, words[:, t]]
        orders.append(order)
    return words, torch.stack(orders, 1)


def haystack(rng: Generator, batch: int, length: int, *, depth: float | None = None) -> tuple[Tensor, Tensor]:
    """NEEDLES pairs in filler, then their keys, each to be answered with its value.

    Args:
        depth: place the first pair at this share of the length, 0 the beginning and 1 the end, and want no other
            answer; None: place it anywhere and want all answers.

    Returns:
        tokens (b, length + NEEDLES) and answers.
    """
    slots = length // 2
    first = (
        torch.randint(slots, (batch,), generator=rng)
        if depth is None
        else torch.full((batch,), round(depth * (slots - 1)))
    )
    at = torch.stack([_others(rng, slots, int(slot)) for slot in first]) * 2
    keys = torch.stack([torch.randperm(HIDDEN_IN_HAY, generator=rng)[:NEEDLES] for _ in range(batch)])
    values = HIDDEN_IN_HAY + torch.randint(HIDDEN_IN_HAY, (batch, NEEDLES), generator=rng)
    hay = 2 * HIDDEN_IN_HAY + torch.randint(FILLER, (batch, length), generator=rng)
    hay = hay.scatter(1, at, keys).scatter(1, at + 1, values)
    order = torch.stack([torch.randperm(NEEDLES, generator=rng) for _ in range(batch)])
    due = values if depth is None else torch.where(torch.arange(NEEDLES) == 0, values, NONE)
    return torch.cat([hay, keys.gather(1, order)], 1), torch.cat([torch.full_like(hay, NONE), due.gather(1, order)], 1)


def _others(rng: Generator, slots: int, first: int) -> Tensor:
    """(NEEDLES,) places that differ, the given one first."""
    anywhere = torch.randperm(slots, generator=rng)
    return torch.cat([torch.tensor([first]), anywhere[anywhere != first][: NEEDLES - 1]])
