"""Delta gradient descent and delta momentum: optimizer steps that first erase what they are about to write over.

    dgd             W_t = argmin_W |W x_t + u_t|^2 / 2 + |W - W_{t-1}|^2 / (2 eta_t)                  [NL] eq. 56
                        = W_{t-1} (I - eta' x_t x_t') - eta' u_t x_t',   eta' = eta / (1 + eta |x|^2)      eq. 57
    delta momentum  m_t = beta_t m_{t-1} - eta_t (m_{t-1} g_t - p_t) g_t'                                  eq. 48, 49

u is the gradient dL/dy of a linear layer y = W x: gradient descent with a decay along x. In delta momentum g is a
gradient, a vector, and p what it stands for (a preconditioned one, say); the printed shapes are loose, and this is a
reading of them.

A trap: where L is the loss of a memory, |W x - v|^2 / 2, its gradient u = W x - v holds W x once more, and dgd comes to
rest at W x = v / 2. Who wants v back uses the delta rule (`memkit.fast.rules`) or passes u = -v.

Both are delta rules, so `*_chunked` hands over to those: the same outputs, state and gradients, a triangular solve a
chunk. `*_naive` is the definition. Conventions as in `memkit.fast.rules`: pure, unbatched, y_t = W_t q_t.

axes: t time · k input dim · v output dim

[NL] A. Behrouz et al., Nested Learning: The Illusion of Deep Learning Architectures (arXiv 2512.24695), section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memkit.fast.rules import CHUNK, DeltaState, delta_chunked, gated_delta_chunked
from memkit_storage.errors import InvalidInput


def dgd_naive(state: DeltaState, q: Tensor, x: Tensor, u: Tensor, *, eta: Tensor) -> tuple[Tensor, DeltaState]:
    """Delta gradient descent, input by input, by solving for the minimum of eq. 56.

    Args:
        q, x: (t, k) queries and inputs of the layer. u: (t, v) gradients by its outputs.
        eta: (t,) step sizes, from 0 on; any size is stable.

    Returns:
        (t, v) outputs and the state after the last step.

    Raises:
        InvalidInput: an argument or the result is not finite.
    """
    memory, outputs, eye = state.memory, [u[:0]], torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    _check(q, x, u, eta, memory)
    for t in range(len(x)):
        normal = eye + eta[t] * torch.outer(x[t], x[t])
        memory = torch.linalg.solve(normal, memory - eta[t] * torch.outer(u[t], x[t]), left=False)
        outputs.append((memory @ q[t])[None])
    _check(memory)
    return torch.cat(outputs), DeltaState(memory)


def dgd_chunked(
    state: DeltaState, q: Tensor, x: Tensor, u: Tensor, *, eta: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, DeltaState]:
    """As `dgd_naive`: the delta rule with values -u and steps eta'."""
    return delta_chunked(state, q, x, -u, beta=eta / (1 + eta * (x * x).sum(1)), chunk=chunk)


def delta_momentum_naive(
    state: DeltaState, q: Tensor, g: Tensor, p: Tensor, *, beta: Tensor, eta: Tensor
) -> tuple[Tensor, DeltaState]:
    """Delta momentum, gradient by gradient.

    Args:
        q: (t, k) what the momentum is asked for, mostly g itself. g: (t, k) gradients. p: (t, v) their values.
        beta: (t,) in (0, 1], what is kept. eta: (t,) step sizes.

    Returns and raises as `dgd_naive`.
    """
    memory, outputs = state.memory, [p[:0]]
    _check(q, g, p, beta, eta, memory)
    for t in range(len(g)):
        memory = beta[t] * memory - eta[t] * torch.outer(memory @ g[t] - p[t], g[t])
        outputs.append((memory @ q[t])[None])
    _check(memory)
    return torch.cat(outputs), DeltaState(memory)


def delta_momentum_chunked(
    state: DeltaState, q: Tensor, g: Tensor, p: Tensor, *, beta: Tensor, eta: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, DeltaState]:
    """As `delta_momentum_naive`: the gated delta rule with values beta p and steps eta / beta."""
    return gated_delta_chunked(state, q, g, beta[:, None] * p, beta=eta / beta, alpha=beta, chunk=chunk)


def _check(*tensors: Tensor) -> None:
    for tensor in tensors:
        if not bool((tensor.detach() * 0).sum() == 0):
            raise InvalidInput(f"numbers of shape {tuple(tensor.shape)} are not finite; leave that step out")
