"""What mixes tokens in the sequence benchmarks: one block, in which only the memory and its rule of writing differ.

A row is a `HopeBlock` with another mixer in Titans' place, so that convolution, norms, projections of the block and the
MLP behind it are the same for all. `FastWeights` is one matrix M, which maps keys to values:

    linear    M_t = M_{t-1} + v_t k_t'                                   linear attention, no denominator: the block norms
    delta     M_t = M_{t-1} + beta_t (v_t - M_{t-1} k_t) k_t'            beta in (0, 2), so that a state can change sign
    gated     M_t = alpha_t M_{t-1} (I - beta_t k_t k_t') + beta_t v_t k_t'

y_t = M_t q_t, where Titans read before they write, y_t = M_{t-1}(q_t). Keys and queries have unit length. State bytes
count what a mixer carries from token to token for one user in single precision: for Titans the memories that are
written, for attention its keys and values, which grow.

axes: b batch · t time · d dim · k key dim · v value dim
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from memkit.fast.hope.block import Attention, HopeBlock
from memkit.fast.hope.cms import Schedule
from memkit.fast.hope.titans import MEMORIES, Rule, SelfModifyingTitans
from memkit.fast.rules import DeltaState, gated_delta_chunked

DIM, HIDDEN, CHUNK = 32, 32, 16
KEYS, VALUES = 64, 80  # as many numbers as the outer layers of five memories, HIDDEN x DIM each
MLP, HOPE = Schedule(periods=(16,)), Schedule(periods=(16, 64, 256))
RULE = Rule(chunk=CHUNK, eta_max=1.99, inner_rate=0.0)  # only outer layers are written: see the ablations


class FastWeights(nn.Module):
    """A matrix written by one of the rules above."""

    def __init__(
        self, rule: Literal["linear", "delta", "gated"], dim: int = DIM, shape: tuple[int, int] = (KEYS, VALUES)
    ):
        super().__init__()
        self.rule, self.shape = rule, shape
        self.project = nn.Linear(dim, 2 * shape[0] + shape[1], bias=False)
        self.gates = nn.Linear(dim, 2)
        self.back = nn.Linear(shape[1], dim, bias=False)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor([0.0, -6.0]))  # beta starts at 1, alpha at 0.9975

    def start(self, batch: int) -> Tensor:
        """M (b, v, k), nothing written."""
        return self.back.weight.new_zeros(batch, *reversed(self.shape))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (b, t, d) of tokens (b, t, d), and M after them."""
        q, k, v = self.project(x).split([self.shape[0], *self.shape], dim=-1)
        q, k = normalize(q, dim=-1), normalize(k, dim=-1)
        if self.rule == "linear":
            y = q @ state.mT + (q @ k.mT).tril() @ v
            return self.back(y), state + v.mT @ k
        beta, alpha = self.gates(x).unbind(-1)
        beta, alpha = 2 * beta.sigmoid(), torch.exp(-softplus(alpha))
        y, state = torch.vmap(_gated)(state, q, k, v, beta, alpha if self.rule == "gated" else torch.ones_like(alpha))
        return self.back(y), state


def _gated(memory: Tensor, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    y, state = gated_delta_chunked(DeltaState(memory), q, k, v, beta=beta, alpha=alpha)
    return y, state.memory


def block(
    mixer: nn.Module | None = None, *, rule: Rule = RULE, schedule: Schedule = MLP, hidden: int = HIDDEN
) -> HopeBlock:
    """A block with Titans, or with another mixer in their place; three DIM hidden units of MLP in all levels together."""
    made = HopeBlock(DIM, hidden=hidden, rule=rule, schedule=schedule, widen=3 // len(schedule.periods))
    if mixer is not None:
        made.mixer = mixer
    return made


BASELINES: dict[str, Callable[[], HopeBlock]] = {
    "softmax attention": lambda: block(Attention(DIM)),
    "linear attention": lambda: block(FastWeights("linear")),
    "DeltaNet": lambda: block(FastWeights("delta")),
    "gated DeltaNet": lambda: block(FastWeights("gated")),
}
TITANS: dict[str, Callable[[], HopeBlock]] = {
    "self-modifying Titans": lambda: block(),
    "HOPE: Titans and 3 CMS levels": lambda: block(schedule=HOPE),
}
ABLATIONS: dict[str, Callable[[], HopeBlock]] = {
    "no self-modification (same width)": lambda: block(rule=RULE._replace(written=("mem",))),
    "no self-modification (same bytes)": lambda: block(rule=RULE._replace(written=("mem",)), hidden=5 * HIDDEN),
    "static v": lambda: block(rule=RULE._replace(written=("mem", "k", "eta", "alpha"))),
    "no decay": lambda: block(rule=RULE._replace(decay_max=0.0)),
    "delta gradient descent to the letter": lambda: block(rule=RULE._replace(kind="dgd")),
    "both layers written (same bytes)": lambda: block(rule=RULE._replace(inner_rate=0.5), hidden=HIDDEN // 2),
}


def state_bytes(made: HopeBlock, tokens: int) -> int:
    """Of one user who has read so many tokens. Levels of a CMS keep nothing as long as no task's loss is told to them."""
    mixer = made.mixer
    if isinstance(mixer, SelfModifyingTitans):
        written = sum(name in mixer.rule.written for name in MEMORIES[: mixer.inner.shape[1]])
        layers = 1 if mixer.rule.inner_rate == 0 else 2
        return 4 * layers * written * mixer.inner[0, 0].numel()
    if isinstance(mixer, Attention):
        return 4 * 2 * tokens * DIM
    return 4 * int(mixer.start(1).numel())
