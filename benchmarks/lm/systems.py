"""Ways to read a stream through a small window: memkit's, its ablations, and what it is compared with.

All but `in_prompt` go through memkit's own reader, a row for each stream: frozen rows have the same window, the same chunks
and the same cache as rows that learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.lm.streams import retrieved
from memkit.fast.lm.attached import CHUNK, RANK, WINDOW
from memkit.fast.lm.places import head
from memkit.fast.lm.reader import FastWeights, Reader, Surprise
from memkit.fast.lm.weights import LMState, Rule, start

Rows = Sequence[list[int]]


class Outcome(NamedTuple):
    """Surprise of each stream's tokens, of the unrelated text right after (learning nothing), bytes of state a user."""

    surprise: list[Surprise]
    after: list[Surprise]
    size: int


class Plain(NamedTuple):
    """Plain stochastic gradient descent on the fast weights, its gradient clipped to a norm of 1 in all."""

    rate: float = 0.3

    def write(self, state: LMState, gradient: Tensor, fullness: Tensor, scale: Tensor) -> LMState:
        norm = gradient.flatten(1).norm(dim=1).clamp(min=1.0)
        step = self.rate * (fullness.to(gradient) / norm).view(-1, 1, 1, 1) * gradient
        return state._replace(weights=state.weights - step)


class RMS(NamedTuple):
    """Each weight moves by its gradient over the root of the mean square of its last ones, which `momentum` holds."""

    rate: float = 1e-4
    decay: float = 0.95

    def write(self, state: LMState, gradient: Tensor, fullness: Tensor, scale: Tensor) -> LMState:
        share = fullness.to(gradient).view(-1, 1, 1, 1)
        begun = state.momentum.flatten(1).any(1).view(-1, 1, 1, 1)
        mixed = self.decay * state.momentum + (1 - self.decay) * gradient**2
        square = torch.where(share > 0, torch.where(begun, mixed, gradient**2), state.momentum)
        return LMState(state.weights - self.rate * share * gradient / (square.sqrt() + 1e-12), square, state.tokens)


class Whole(FastWeights):
    """The whole of each map instead of a low rank beside it: dynamic evaluation in place."""

    def __init__(self, model: nn.Module, rank: int) -> None:
        super().__init__(model, 1)
        self.lower = 0

    def start(self, users: int) -> LMState:
        place = self.places[0]
        return start(users, len(self.places), place.keys, place.values)

    def _key(self, at: int, x: Tensor) -> Tensor:
        return x


class Raw(FastWeights):
    """Keys as they come, of any length."""

    def _key(self, at: int, x: Tensor) -> Tensor:
        return x @ self._keys[at].to(x)


class Exact(FastWeights):
    """The gradient goes through all layers with fast weights."""

    def __init__(self, model: nn.Module, rank: int) -> None:
        super().__init__(model, rank)
        self.lower = 0


class Fewer(FastWeights):
    """In the upper two fifths of the layers, not the upper half."""

    def __init__(self, model: nn.Module, rank: int) -> None:
        super().__init__(model, rank)
        skipped = max(1, len(self.places) // 5)
        self.places, self._keys, self.scale = self.places[skipped:], self._keys[skipped:], self.scale[skipped:]
        self.lower = max(0, self.lower - skipped)


def read(
    model: Any,
    first: int,
    rows: Rows,
    unrelated: list[int],
    rule: Any | None,
    *,
    rank: int = RANK,
    window: int = WINDOW,
    fast: Callable[[nn.Module, int], FastWeights] = FastWeights,
) -> Outcome:
    """Read streams, then score the unrelated text with what was learned, nothing else in view."""
    beside = fast(model, rank)
    beside.install()
    try:
        reader = Reader(model, beside, users=len(rows), window=window, chunk=CHUNK, first=first)
        state, surprise = reader.read(beside.start(len(rows)), rows, rule)
        reader.forget()
        return Outcome(
            surprise, reader.read(state, [unrelated] * len(rows), None)[1], state.bytes_per_user if rule else 0
        )
    finally:
        beside.remove()


@torch.no_grad()
def in_prompt(model: Any, first: int, row: list[int], begin: int, budget: int) -> Surprise:
    """A frozen model that sees, before each chunk from `begin` on, what BM25 retrieves and then the window, anew.

    Args:
        budget: tokens to retrieve from before the window; 0 for a window without any.
    """
    found = []
    for at in range(begin, len(row), CHUNK):
        view = row[max(0, at - WINDOW) : at]
        more = retrieved(row, at - len(view), view[-CHUNK:], budget) if budget else []
        targets = row[at : at + CHUNK]
        ids = torch.tensor([[first, *more, *view, *targets]], device=model.device)
        scores = model(ids).logits[0, -len(targets) - 1 : -1].float().log_softmax(-1).cpu()
        found.append(-scores.gather(1, torch.tensor(targets)[:, None])[:, 0].numpy())
    return np.concatenate(found)


# hidden-state slots at the output


class Slots(NamedTuple):
    """A cache of the last hidden states and the tokens that followed them, read where one is near enough.

    Attributes:
        size: states kept, the newest. nearest: how many speak. gate: the least cosine, of centred states.
        sharpness: of the softmax over cosines. most: weight of what they say, at a cosine of 1.
    """

    size: int = 4096
    nearest: int = 16
    gate: float = 0.5
    sharpness: float = 20.0
    most: float = 0.3

    def read(self, hidden: Tensor, row: list[int], surprise: Surprise) -> Surprise:
        """What surprise becomes; hidden states (t, d) and tokens are written after each chunk, as fast weights are."""
        tokens, better = torch.tensor(row), torch.from_numpy(surprise.astype(np.float64)).neg().exp()
        for at in range(CHUNK, len(row), CHUNK):
            begin = max(0, at - self.size)
            centre = hidden[begin:at].mean(0)
            keys = nn.functional.normalize(hidden[begin:at] - centre, dim=-1)
            query = nn.functional.normalize(hidden[at : at + CHUNK] - centre, dim=-1)
            cosine, near = (query @ keys.T).topk(min(self.nearest, at - begin), dim=-1)
            share = torch.softmax(self.sharpness * cosine, dim=-1)
            says = (share * (tokens[begin + near] == tokens[at : at + CHUNK, None])).sum(-1).double()
            weight = self.most * ((cosine[:, 0] - self.gate) / (1 - self.gate)).clamp(0, 1).double()
            better[at : at + CHUNK] = (1 - weight) * better[at : at + CHUNK] + weight * says
        return better.log().neg().float().numpy()


@contextmanager
def hidden_states(model: Any) -> Iterator[list[Tensor]]:
    """What the output map is given meanwhile: a tensor (u, t, d) a chunk."""
    seen: list[Tensor] = []
    hook = head(model).register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().float().cpu()))
    try:
        yield seen
    finally:
        hook.remove()


ABLATIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "keys of any length, rate 0.01": (Rule(rate=0.01, limit=1.0), {"fast": Raw}),
    "the gradient through all of these layers": (Rule(), {"fast": Exact}),
    "upper two fifths of the layers": (Rule(), {"fast": Fewer}),
    "no momentum": (Rule(momentum=0.0), {}),
    "clipped SGD for the orthogonal step, rate 0.1": (Plain(0.1), {}),
    "RMS-normalised step, rate 1e-4": (RMS(1e-4), {}),
    "rank 32": (Rule(), {"rank": 32}),
    "rank 128": (Rule(), {"rank": 128}),
    "rank 256": (Rule(), {"rank": 256}),
    "half the rate": (Rule(rate=Rule().rate / 2), {}),
    "twice the rate": (Rule(rate=Rule().rate * 2), {}),
}
