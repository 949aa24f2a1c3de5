"""The model that the benchmarks of mixers share, and its training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from benchmarks.hope.mixers import DIM
from memkit.fast.hope.block import BlockState, HopeBlock


class Model(nn.Module):
    """Something that makes DIM numbers of a token, one block, norm and head."""

    def __init__(self, block: HopeBlock, enter: nn.Module, outputs: int) -> None:
        super().__init__()
        self.block, self.enter = block, enter
        self.norm, self.head = nn.RMSNorm(DIM), nn.Linear(DIM, outputs)

    def read(self, tokens: Tensor, state: BlockState | None = None) -> tuple[Tensor, BlockState]:
        """Outputs (b, t, outputs) of tokens (b, t) or (b, t, inputs), and the state after them."""
        found = self.block(self.enter(tokens.to(self.head.weight.device)), state)
        return self.head(self.norm(found.y)), found.state

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs from nothing read."""
        return self.read(tokens)[0]


def train(model: Model, loss: Callable[[Generator], Tensor], *, steps: int, rate: float, seed: int) -> list[float]:
    """AdamW with a tenth of warm-up, cosine decay and clipped gradients; `loss` draws its own batch. The losses."""
    rng, losses = Generator().manual_seed(seed), []
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        now = loss(rng)
        optimizer.zero_grad()
        now.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(now.detach()))
    return losses
