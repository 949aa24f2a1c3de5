"""Low-rank fast weights: what is written, and how it is read. Pure functions on an explicit state.

A map y = W x of the model becomes y = W x + A k, k = K x / rms(K x). K is fixed: rank orthonormal directions drawn from
a seed. k, the key, has the same length for every token: what is written for one acts on others as far as their cosine
says, and the few tokens with huge activations neither lead the steps nor disturb text of another kind. A, the fast
weights, start at zero and are written after each chunk of tokens by a step against the gradient G of the loss of its
next tokens, dL/dA: "dynamic evaluation" [K] within a small state.

    M <- m M + G                                   momentum: the surprise of Titans [T], eq. 9, on a chunk
    A <- (1 - r f) A - lr f s orthogonal(M)        retention towards the start, which is zero; f: fullness of the chunk

`orthogonal` is Muon's Newton-Schulz iteration: every direction that a chunk asks for is written with the same length,
in units of s, the root mean square of the singular values of W; models of any scale take the same `lr`. A is held in a
ball around its start, so that no stream, however long or hostile, drives it away.

axes: u users · l layers · r rank · o dims that a map writes · b rows of a batch · t tokens

[K] B. Krause et al., Dynamic Evaluation of Transformer Language Models (arXiv 1904.08378).
[T] A. Behrouz et al., Titans: Learning to Memorize at Test Time (arXiv 2501.00663).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memkit.fast.hope.m3 import orthogonal

TINY = 1e-12  # mean square of a key that says nothing


class LMState(NamedTuple):
    """What users have had a model read; a value, which nothing changes.

    Attributes:
        weights: A (u, l, r, o), float32. momentum: M, alike. tokens: (u,) how many were read to learn from.
    """

    weights: Tensor
    momentum: Tensor
    tokens: Tensor

    @property
    def bytes_per_user(self) -> int:
        """Of memory; `weights` alone, half of it, is kept in the file."""
        return (self.weights[0].numel() + self.momentum[0].numel()) * 4

    def user(self, at: int) -> LMState:
        """The state of one user alone."""
        return LMState(*(part[at : at + 1] for part in self))


class Rule(NamedTuple):
    """How fast weights are written.

    Attributes:
        rate: length of a full chunk's step, over s. momentum: what stays of the last gradients.
        retention: what a full chunk lets go. limit: of the norm of A in a layer, over s and the root of the rank.
    """

    rate: float = 0.01
    momentum: float = 0.5
    retention: float = 1e-4
    limit: float = 0.1

    def write(self, state: LMState, gradient: Tensor, fullness: Tensor, scale: Tensor) -> LMState:
        """The state after a chunk.

        Args:
            gradient: dL/dA (u, l, r, o) of the mean loss of the chunk's tokens.
            fullness: (u,) how much of a chunk each user has read, in [0, 1]; 0 leaves the user as he is.
            scale: s (l,).

        A gradient that is not finite leaves its user as he is.
        """
        share = fullness.to(gradient) * gradient.flatten(1).isfinite().all(1)
        part, s = share.view(-1, 1, 1, 1), scale.to(gradient).view(1, -1, 1, 1)
        wrote = part > 0
        kept = self.momentum * state.momentum + gradient.nan_to_num(0.0, 0.0, 0.0)
        momentum = torch.where(wrote, kept, state.momentum)
        step = self.rate * part * s * orthogonal(momentum)
        moved = torch.where(wrote, (1 - self.retention * part) * state.weights - step, state.weights)
        return LMState(_held(moved, s, self.limit), momentum, state.tokens)


def _held(weights: Tensor, scale: Tensor, limit: float) -> Tensor:
    """Within the ball around the start."""
    radius = limit * scale * weights.shape[-2] ** 0.5
    norm = torch.linalg.matrix_norm(weights, keepdim=True)
    held: Tensor = weights * (radius / norm.clamp(min=1e-30)).clamp(max=1.0)
    return held


def start(users: int, layers: int, rank: int, values: int, device: torch.device | None = None) -> LMState:
    """Nothing read."""
    zeros = torch.zeros(users, layers, rank, values, device=device)
    return LMState(zeros, zeros, torch.zeros(users, dtype=torch.int64))


def keys(dims: int, rank: int, seed: int) -> Tensor:
    """K (dims, rank): orthonormal directions, the same on every machine and for every user."""
    drawn = torch.randn(dims, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found: Tensor = torch.linalg.qr(drawn)[0].float()
    return found


def key(x: Tensor, k: Tensor) -> Tensor:
    """Keys (b, t, r) of inputs x (b, t, dims), of one length."""
    along = (x @ k).float()
    return (along * (along.square().mean(-1, keepdim=True) + TINY).rsqrt()).to(x.dtype)


def read(key: Tensor, a: Tensor) -> Tensor:
    """What fast weights a (u, r, o) add for keys (b, t, r); rows of one user stand together."""
    rows = a.to(key.dtype).repeat_interleave(len(key) // len(a), dim=0) if len(a) < len(key) else a.to(key.dtype)
    return key @ rows


def gradient(key: Tensor, signal: Tensor) -> Tensor:
    """dL/dA (u, r, o) of what keys (u, t, r) read, from dL/d(read) (u, t, o)."""
    return (key.mT @ signal).float()
