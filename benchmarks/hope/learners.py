"""Classifiers that meet their tasks one after the other: networks that are fine-tuned, and memories that are written.

All see the same frozen features, (n, f) of unit length. A network may see its task's examples several times, a memory
sees each once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from memkit.fast.rules import DeltaState, RLSState, delta_chunked, gated_delta_chunked, rls_chunked

EPOCHS, BATCH, HIDDEN = 8, 32, 128


class Learner(Protocol):
    """One row of the table."""

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Meet a task: features (n, f) and labels (n,)."""

    def predict(self, x: Tensor) -> Tensor:
        """Labels (n,) of features (n, f)."""

    def size(self) -> int:
        """Bytes that are kept from task to task."""


class Network:
    """A two-layer perceptron fine-tuned with Adam, task after task.

    Args:
        replay: examples of each past task that are kept and mixed in, half of each batch; None: all of them, 0: none.
        periods: a CMS schedule, the steps from one update of the first layer, the second and the head to the next.
        ewc: strength of elastic weight consolidation (Kirkpatrick et al. 2017), 0: none.
    """

    def __init__(
        self, features: int, classes: int, rate: float, *, replay: int | None = 0, periods: Any = None, ewc: float = 0.0
    ) -> None:
        self.net = nn.Sequential(
            nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
        )
        self.layers = [layer for layer in self.net if isinstance(layer, nn.Linear)]
        self.rate, self.replay, self.periods, self.ewc = rate, replay, periods, ewc
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.anchors: list[tuple[list[Tensor], list[Tensor]]] = []

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Fine-tune on a task."""
        optimizers = [torch.optim.Adam(layer.parameters(), self.rate) for layer in self.layers]
        step = 0
        for _ in range(EPOCHS):
            for at in torch.randperm(len(x)).split(BATCH):
                self._loss(*self._batch(x[at], y[at])).backward()
                step += 1
                self._update(optimizers, step)
        self._remember(x, y)

    def _update(self, optimizers: list[torch.optim.Optimizer], step: int) -> None:
        """Every layer at each step, or each at its own period by the sum of its gradients."""
        for optimizer, period in zip(optimizers, self.periods or (1, 1, 1), strict=True):
            if step % period == 0:
                optimizer.step()
                optimizer.zero_grad()

    def _batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if not self.kept:
            return x, y
        past_x, past_y = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        at = torch.randint(len(past_x), (len(x),))
        return torch.cat([x, past_x[at]]), torch.cat([y, past_y[at]])

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = cross_entropy(self.net(x), y)
        for weights, importance in self.anchors:
            moved = zip(self.net.parameters(), weights, importance, strict=True)
            loss = loss + self.ewc / 2 * sum((f * (p - w).square()).sum() for p, w, f in moved)
        return loss

    def _remember(self, x: Tensor, y: Tensor) -> None:
        if self.replay != 0:
            at = torch.randperm(len(x))[: self.replay]
            self.kept.append((x[at], y[at]))
        if self.ewc:
            self.anchors.append(([p.detach().clone() for p in self.net.parameters()], self._fisher(x, y)))

    def _fisher(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The diagonal of the empirical Fisher information, from a hundred examples."""
        total = [torch.zeros_like(p) for p in self.net.parameters()]
        for i in torch.randperm(len(x))[:100].tolist():
            self.net.zero_grad()
            cross_entropy(self.net(x[i : i + 1]), y[i : i + 1]).backward()
            total = [
                t + p.grad.square() for t, p in zip(total, self.net.parameters(), strict=True) if p.grad is not None
            ]
        self.net.zero_grad()
        return [t / min(len(x), 100) for t in total]

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class."""
        with torch.no_grad():
            return self.net(x).argmax(1)

    def size(self) -> int:
        """Weights, kept examples, anchors."""
        parts = [*self.net.parameters(), *(t for pair in self.kept for t in pair)]
        parts += [t for anchor in self.anchors for some in anchor for t in some]
        return sum(t.numel() * t.element_size() for t in parts)


class FastWeights:
    """A linear memory from features to one-hot labels, written once by each example in order of arrival."""

    def __init__(self, state: Any, write: Callable[[Any, Tensor, Tensor], Any]) -> None:
        self.state, self.write = state, write

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Write a task's examples."""
        classes = self.state.memory.shape[0]
        self.state = self.write(self.state, x, one_hot(y, classes).float())

    def predict(self, x: Tensor) -> Tensor:
        """The class that is read loudest."""
        return (x @ self.state.memory.T).argmax(1)

    def size(self) -> int:
        """Of the state."""
        return sum(part.numel() * part.element_size() for part in self.state)


def hebbian(features: int, classes: int) -> FastWeights:
    """M <- M + v k'."""

    def write(state: DeltaState, x: Tensor, v: Tensor) -> DeltaState:
        return DeltaState(state.memory + v.T @ x)

    return FastWeights(DeltaState(torch.zeros(classes, features)), write)


def delta(features: int, classes: int, beta: float, alpha: float = 1.0) -> FastWeights:
    """The delta rule, or with alpha below 1 the gated one with a constant gate."""

    def write(state: DeltaState, x: Tensor, v: Tensor) -> DeltaState:
        steps = torch.full((len(x),), beta)
        if alpha == 1:
            return delta_chunked(state, x, x, v, beta=steps)[1]
        return gated_delta_chunked(state, x, x, v, beta=steps, alpha=torch.full((len(x),), alpha))[1]

    return FastWeights(DeltaState(torch.zeros(classes, features)), write)


def rls(features: int, classes: int, ridge: float) -> FastWeights:
    """Recursive least squares, in double precision."""

    def write(state: RLSState, x: Tensor, v: Tensor) -> RLSState:
        x, v = x.double(), v.double()
        return rls_chunked(state, x, x, v, weight=torch.ones(len(x), dtype=torch.float64), chunk=64)[1]

    eye = torch.eye(features, dtype=torch.float64)
    return _Double(RLSState(torch.zeros(classes, features, dtype=torch.float64), eye / ridge), write)


class _Double(FastWeights):
    def predict(self, x: Tensor) -> Tensor:
        return (x.double() @ self.state.memory.T).argmax(1)
