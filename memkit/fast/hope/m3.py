"""M3, multi-scale momentum Muon: an optimizer with a momentum of the last steps and one of the chunks before.

Nested Learning [NL], algorithm 1 and equation 75. With g the gradient of a matrix, each step

    M1 <- b1 M1 + (1 - b1) g          V <- b2 V + (1 - b2) g^2          O1 = orthogonal(M1)
    W  <- W - lr (O1 + a O2) / sqrt(V + eps)

and every `period` steps, from the sum of the chunk's gradients, for use in the next one

    M2 <- b3 M2 + (1 - b3) sum(g) / period            O2 = orthogonal(M2)

where orthogonal(M) has the singular vectors of M and singular values near 1 (Newton-Schulz, the quintic of Muon [M]).
[NL] prints M1, M2 and V as sums without decay: `literal=True` does so (M += b g). What has no two dimensions (biases,
gains) takes M1 and M2 as they are, without the orthogonal factor. sqrt(V + eps) is averaged over a matrix: elementwise
it would undo the orthogonality. [NL] calls M3 a proof of concept, slower than Muon.

[NL] A. Behrouz et al., Nested Learning (arXiv 2512.24695), section 7.2.
[M]  K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from memkit_storage.errors import InvalidInput

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Of a matrix (..., r, c): the same singular vectors, singular values pressed into about [0.7, 1.2].

    A singular value below about 1e-3 of the norm stays small: five steps lift by 3.4 each. Each step multiplies by a
    polynomial of X X' from the left, and these commute: they are multiplied first, and X is touched twice.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-30)
    square = x @ x.mT
    one = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    factor = one
    for _ in range(steps):
        lift = a * one + b * square + c * square @ square
        factor, square = lift @ factor, lift @ lift @ square
    found: Tensor = factor @ x
    return found.mT if tall else found


class M3(torch.optim.Optimizer):
    """M3 as a torch optimizer.

    Args:
        params: of a module, or parameter groups. Of a matrix, the last two dimensions count.
        lr: the length of a step in the spectral norm, over the root mean square of the gradient.
        betas: b1, b2, b3, each in [0, 1).
        alpha: a, what the slow momentum counts beside the fast one.
        period: steps of a chunk.
        normalise: divide by sqrt(V + eps); without, matrices move as with Muon.
        literal: add up, as printed, instead of averaging.

    Raises:
        InvalidInput: a setting out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        *,
        betas: tuple[float, float, float] = (0.9, 0.99, 0.9),
        alpha: float = 0.5,
        period: int = 10,
        eps: float = 1e-8,
        normalise: bool = False,
        literal: bool = False,
    ) -> None:
        if not lr > 0 or period < 1 or not all(0 <= beta < 1 for beta in betas):
            raise InvalidInput(f"lr={lr}, period={period}, betas={betas}: lr above 0, period from 1, betas in [0, 1)")
        settings = {"lr": lr, "betas": betas, "alpha": alpha, "period": period, "eps": eps}
        super().__init__(params, {**settings, "normalise": normalise, "literal": literal})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all parameters that have a gradient; returns what the closure gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _step(parameter, parameter.grad, self.state[parameter], group)
        return loss


def _step(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        zeros = {name: torch.zeros_like(parameter) for name in ("fast", "square", "slow", "chunk", "direction")}
        state.update(zeros, steps=0)
    first, second, _ = group["betas"]
    _moved(state["fast"], gradient, first, group)
    _moved(state["square"], gradient.square(), second, group)
    state["chunk"] += gradient
    state["steps"] += 1
    direction = _direction(state["fast"]) + group["alpha"] * state["direction"]
    if group["normalise"]:
        direction = direction / (state["square"].mean() + group["eps"]).sqrt()
    parameter.sub_(direction, alpha=group["lr"])
    if state["steps"] % group["period"] == 0:
        _slow(state, group)


def _slow(state: dict[str, Any], group: dict[str, Any]) -> None:
    """The end of a chunk: what the next one takes along of it."""
    share = 1.0 if group["literal"] else 1.0 / group["period"]
    _moved(state["slow"], state["chunk"] * share, group["betas"][2], group)
    state["direction"] = _direction(state["slow"])
    state["chunk"].zero_()


def _moved(moment: Tensor, value: Tensor, beta: float, group: dict[str, Any]) -> None:
    """An average that forgets, or the sum that is printed."""
    if group["literal"]:
        moment.add_(value, alpha=beta)
    else:
        moment.mul_(beta).add_(value, alpha=1 - beta)


def _direction(moment: Tensor) -> Tensor:
    return orthogonal(moment) if moment.ndim > 1 else moment.clone()
