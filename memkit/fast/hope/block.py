"""The HOPE block, and HOPE-Attention. Nested Learning [NL], section 8.3.

    z = conv(norm(x))                        causal, depthwise, WINDOW tokens; norm: root mean square
    o = titans(z)       or attention(z)      [NL] eq. 94 to 96, or softmax attention in its place ("HOPE-Attention")
    u = x + out(norm(o))
    y = CMS(u)                               a chain of levels, eq. 97; each adds to what it reads

The block is a stream function: `forward(x, state)` reads tokens and gives outputs and the next state, and a stream may
be cut anywhere. Titans learn while they read. The levels of the CMS learn when they are told what the task wants
changed: `learn(read, signal)`, with what `forward` gave and dL/dy.

axes: b batch (users) · t time · n heads · d dim of a head

[NL] A. Behrouz et al., Nested Learning: The Illusion of Deep Learning Architectures (arXiv 2512.24695), section 8.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from memkit.fast.hope.cms import CMS, CMSState, Schedule
from memkit.fast.hope.titans import Rule, SelfModifyingTitans, TitansState
from memkit_storage.errors import InvalidInput

WINDOW = 4  # tokens that the convolution sees


class AttentionState(NamedTuple):
    """Keys and values (b, n, t, d) of all tokens read: it grows, where Titans' state does not."""

    keys: Tensor
    values: Tensor


class BlockState(NamedTuple):
    """What one batch of users has read.

    tail (b, WINDOW - 1, dim): the last tokens, for the convolution. mixer: of Titans or of attention. cms: the levels.
    """

    tail: Tensor
    mixer: TitansState | AttentionState
    cms: CMSState


class Read(NamedTuple):
    """What a block made of tokens: outputs y (b, t, dim), the state after them, and what the levels read, as y."""

    y: Tensor
    state: BlockState
    middle: Tensor


class Attention(nn.Module):
    """Causal softmax attention over everything read; the order of tokens comes from the convolution before it."""

    def __init__(self, dim: int, heads: int = 1) -> None:
        super().__init__()
        if dim % heads:
            raise InvalidInput(f"dim={dim} is no multiple of heads={heads}")
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)

    def start(self, batch: int) -> AttentionState:
        """Nothing read yet."""
        weight = self.project.weight
        none = weight.new_zeros(batch, self.heads, 0, weight.shape[1] // self.heads)
        return AttentionState(none, none)

    def forward(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """Outputs (b, t, dim) of tokens (b, t, dim), and the state with them."""
        b, t, dim = x.shape
        q, k, v = self.project(x).reshape(b, t, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        keys, values = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        seen = torch.ones(t, keys.shape[2], dtype=torch.bool, device=x.device).tril(keys.shape[2] - t)
        mixed = scaled_dot_product_attention(q, keys, values, attn_mask=seen)
        return mixed.transpose(1, 2).reshape(b, t, dim), AttentionState(keys, values)


class HopeBlock(nn.Module):
    """A block of HOPE.

    Args:
        dim: of a token. heads: of the mixer. hidden: of a memory's MLP, per head. rule: how the memories are written.
        schedule: periods of the CMS levels. widen: hidden units of a level, in dims.
        attention: softmax attention instead of self-modifying Titans.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 1,
        hidden: int | None = None,
        rule: Rule | None = None,
        schedule: Schedule | None = None,
        widen: int = 4,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Parameter(torch.randn(dim, WINDOW) * WINDOW**-0.5)
        self.mixer: Any = (
            Attention(dim, heads) if attention else SelfModifyingTitans(dim, hidden, heads=heads, rule=rule or Rule())
        )
        self.norm_in, self.norm_out = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))
        self.out = nn.Linear(dim, dim, bias=False)
        self.cms = CMS(dim, widen * dim, schedule=schedule or Schedule())

    def start(self, batch: int) -> BlockState:
        """The state of users who have read nothing."""
        tail = self.conv.new_zeros(batch, WINDOW - 1, len(self.conv))
        return BlockState(tail, self.mixer.start(batch), self.cms.start(batch))

    def forward(self, x: Tensor, state: BlockState | None = None) -> Read:
        """Read tokens (b, t, dim).

        Raises:
            InvalidInput: shapes that do not fit, or tokens that are not finite; nothing was read.
        """
        state = state or self.start(len(x))
        z, tail = self._convolved(rms_norm(x, x.shape[-1:], self.norm_in, 1e-6), state.tail)
        o, mixer = self.mixer(z, state.mixer)
        middle = x + self.out(rms_norm(o, o.shape[-1:], self.norm_out, 1e-6))
        return Read(self.cms(middle, state.cms), BlockState(tail, mixer, state.cms), middle)

    def _convolved(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Each channel over its last WINDOW tokens, and the tokens that the next ones need."""
        longer = torch.cat([tail, x], dim=1)
        mixed = sum(longer[:, back : back + x.shape[1]] * self.conv[:, back] for back in range(WINDOW))
        return torch.as_tensor(mixed), longer[:, x.shape[1] :]

    def learn(self, read: Read, signal: Tensor) -> BlockState:
        """The state with the levels taught: `signal` (b, t, dim) is the gradient of the task's loss by `read.y`."""
        return read.state._replace(cms=self.cms.learn(read.state.cms, read.middle, signal))
