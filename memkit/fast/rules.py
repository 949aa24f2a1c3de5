"""Update rules of linear associative memories: what a matrix M, which maps keys to values, learns from a pair (k, v).

Each rule stands twice. `*_naive` takes the pairs one by one, straight from the equation, and is the definition;
`*_chunked` takes many at once and gives the same outputs, final state and gradients, up to rounding.

    delta     M_t = M_{t-1} + beta_t (v_t - M_{t-1} k_t) k_t'                               [1] section 4.2, [2] eq. 65
    gated     M_t = alpha_t M_{t-1} (I - beta_t k_t k_t') + beta_t v_t k_t'                                [3] eq. 10
    momentum  S_t = eta_t S_{t-1} - theta_t grad |M_{t-1} k_t - v_t|^2;  M_t = (1 - alpha_t) M_{t-1} + S_t [4] eq. 12-14
    rls       g = P k / (lam / w + k' P k);  M <- M + (v - M k) g';  P <- (P - g k' P) / lam              [5] table 10.1

Note the signs of the gates: alpha of `gated` is what is kept, alpha of `momentum` is what is forgotten. For |k| = 1 and
0 < beta < 2 the delta rule contracts the error at k by |1 - beta|; at beta = 1 one write is read back exactly.

All functions are pure: state in, outputs and state out; gradients flow through both. Outputs are read after the write
of the same time, y_t = M_t q_t. Nothing is batched: use `torch.vmap`. What is not finite raises InvalidInput.

[1] I. Schlag, K. Irie, J. Schmidhuber, Linear Transformers Are Secretly Fast Weight Programmers (arXiv 2102.11174).
[2] A. Behrouz et al., Nested Learning (arXiv 2512.24695); in chunks: S. Yang et al. (arXiv 2406.06484), section 3.
[3] S. Yang, J. Kautz, A. Hatamizadeh, Gated Delta Networks (arXiv 2412.06464).
[4] A. Behrouz, P. Zhong, V. Mirrokni, Titans: Learning to Memorize at Test Time (arXiv 2501.00663).
[5] S. Haykin, Adaptive Filter Theory; w weighs a pair as if it had come w times.

axes: t time (pairs, in order) · k key dim · v value dim · c pairs of a chunk
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from memkit_storage.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 32


class DeltaState(NamedTuple):
    """M, (v, k), of the delta rule and the gated delta rule."""

    memory: Tensor


class MomentumState(NamedTuple):
    """M and S, (v, k) both."""

    memory: Tensor
    momentum: Tensor


class RLSState(NamedTuple):
    """M, (v, k), and P, (k, k): symmetric, I / ridge before anything was learned."""

    memory: Tensor
    covariance: Tensor


_State = TypeVar("_State", DeltaState, MomentumState, RLSState)


# delta


def delta_naive(state: DeltaState, q: Tensor, k: Tensor, v: Tensor, *, beta: Tensor) -> tuple[Tensor, DeltaState]:
    """The delta rule, pair by pair.

    Args:
        q, k: (t, k) queries and keys. `v`: (t, v) values.
        beta: (t,) write strengths.

    Returns:
        (t, v) outputs and the state after the last pair.
    """
    import torch

    _check(q, k, v, beta, *state)
    memory, outputs = state.memory, [v[:0]]
    for t in range(len(k)):
        memory = memory + torch.outer(beta[t] * (v[t] - memory @ k[t]), k[t])
        outputs.append((memory @ q[t])[None])
    return _checked(torch.cat(outputs), DeltaState(memory))


def delta_chunked(
    state: DeltaState, q: Tensor, k: Tensor, v: Tensor, *, beta: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, DeltaState]:
    """As `delta_naive`: within a chunk all errors at once, by one triangular solve (the UT transform, [2])."""
    import torch

    return gated_delta_chunked(state, q, k, v, beta=beta, alpha=torch.ones_like(beta), chunk=chunk)


# gated delta


def gated_delta_naive(
    state: DeltaState, q: Tensor, k: Tensor, v: Tensor, *, beta: Tensor, alpha: Tensor
) -> tuple[Tensor, DeltaState]:
    """The gated delta rule, pair by pair; `alpha`: (t,) share of the memory that is kept. Else as `delta_naive`."""
    import torch

    _check(q, k, v, beta, alpha, *state)
    memory, outputs = state.memory, [v[:0]]
    for t in range(len(k)):
        kept = alpha[t] * memory
        memory = kept - torch.outer(beta[t] * (kept @ k[t]), k[t]) + torch.outer(beta[t] * v[t], k[t])
        outputs.append((memory @ q[t])[None])
    return _checked(torch.cat(outputs), DeltaState(memory))


def gated_delta_chunked(
    state: DeltaState, q: Tensor, k: Tensor, v: Tensor, *, beta: Tensor, alpha: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, DeltaState]:
    """As `gated_delta_naive`, one triangular solve a chunk."""
    import torch

    _check(q, k, v, beta, alpha, *state)
    memory, outputs = state.memory, [v[:0]]
    for at in _chunks(len(k), chunk):
        kept = _products(alpha[at])
        before = torch.cumprod(alpha[at], 0)[:, None]
        read = _Written.of(memory[None], before, kept, _Pairs(k[at], v[at], beta[at], alpha[at]))
        outputs.append(read.outputs(q[at]))
        memory = read.memory()
    return _checked(torch.cat(outputs), DeltaState(memory))


# momentum


def momentum_naive(
    state: MomentumState, q: Tensor, k: Tensor, v: Tensor, *, theta: Tensor, eta: Tensor, alpha: Tensor
) -> tuple[Tensor, MomentumState]:
    """Gradient descent with momentum and forgetting, pair by pair.

    Args:
        theta, eta, alpha: (t,) step size, share of the momentum that is kept, share of the memory that is forgotten.
            One write at theta = 1/2, eta = alpha = 0 is a delta write at beta = 1: the gradient of a square is twice
            the error. Else as `delta_naive`.
    """
    import torch

    _check(q, k, v, theta, eta, alpha, *state)
    (memory, momentum), outputs = state, [v[:0]]
    for t in range(len(k)):
        gradient = 2 * torch.outer(memory @ k[t] - v[t], k[t])
        momentum = eta[t] * momentum - theta[t] * gradient
        memory = (1 - alpha[t]) * memory + momentum
        outputs.append((memory @ q[t])[None])
    return _checked(torch.cat(outputs), MomentumState(memory, momentum))


def momentum_chunked(
    state: MomentumState,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    theta: Tensor,
    eta: Tensor,
    alpha: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, MomentumState]:
    """As `momentum_naive`, exactly: no gradient is frozen within a chunk, as [4] eq. 16 does.

    Each error adds a multiple of e k' to S and, by S, to M ever after; the multiples depend on the gates alone. So the
    errors of a chunk solve a triangular system here too.
    """
    import torch

    _check(q, k, v, theta, eta, alpha, *state)
    (memory, momentum), outputs = state, [v[:0]]
    for at in _chunks(len(k), chunk):
        flows, keeps = _products(eta[at]), _products(1 - alpha[at])
        flow = torch.cumprod(eta[at], 0)
        before = torch.stack([torch.cumprod(1 - alpha[at], 0), keeps @ flow], 1)
        starts = torch.stack([memory, momentum])
        read = _Written.of(starts, before, keeps @ flows, _Pairs(k[at], v[at], 2 * theta[at], torch.ones_like(eta[at])))
        outputs.append(read.outputs(q[at]))
        memory = read.memory()
        momentum = flow[-1] * momentum + (read.scaled * flows[-1][:, None]).T @ k[at]
    return _checked(torch.cat(outputs), MomentumState(memory, momentum))


class _Pairs(NamedTuple):
    """The pairs of a chunk: k (c, k), v (c, v), step sizes (c,), and shares (c,) of M_{t-1} that the error sees."""

    k: Tensor
    v: Tensor
    step: Tensor
    seen: Tensor


class _Written(NamedTuple):
    """A chunk after all its writes: M_t = sum_n before[t, n] starts[n] + sum_{i <= t} share[t, i] scaled_i k_i'.

    starts (n, v, k), before (c, n), share (c, c) lower triangular, scaled (c, v) errors times their step sizes.
    """

    starts: Tensor
    before: Tensor
    share: Tensor
    k: Tensor
    scaled: Tensor

    @classmethod
    def of(cls, starts: Tensor, before: Tensor, share: Tensor, pairs: _Pairs) -> _Written:
        """Solves for the errors e_t = v_t - seen_t M_{t-1} k_t, where M_{t-1} holds the earlier ones."""
        import torch

        k, v, step, seen = pairs
        old, earlier = _shifted(before, first=1.0), _shifted(share, first=0.0)  # row t: what M_{t-1} is made of
        target = v - seen[:, None] * torch.einsum("cn,nvc->cv", old, starts @ k.T)
        system = torch.eye(len(k), dtype=k.dtype, device=k.device) + seen[:, None] * earlier * (k @ k.T) * step
        errors = torch.linalg.solve_triangular(system, target, upper=False, unitriangular=True)
        return cls(starts, before, share, k, step[:, None] * errors)

    def outputs(self, q: Tensor) -> Tensor:
        """(c, v) M_t q_t."""
        import torch

        old = torch.einsum("cn,nvc->cv", self.before, self.starts @ q.T)
        return old + (self.share * (q @ self.k.T)) @ self.scaled

    def memory(self) -> Tensor:
        """(v, k) M after the last write."""
        import torch

        old = torch.einsum("n,nvk->vk", self.before[-1], self.starts)
        return old + (self.scaled * self.share[-1][:, None]).T @ self.k


def _shifted(rows: Tensor, *, first: float) -> Tensor:
    """Rows one later; before the first write M_0 counts `first`, a momentum and the errors count nothing."""
    import torch

    top = torch.zeros_like(rows[:1])
    top[0, 0] = first
    return torch.cat([top, rows[:-1]])


def _products(gates: Tensor) -> Tensor:
    """(c, c) lower triangular: entry (t, i) is the product of the gates after i up to t; also right where one is 0."""
    import torch

    after = torch.ones(len(gates), len(gates), dtype=torch.bool, device=gates.device).tril(-1)
    return torch.cumprod(torch.where(after, gates[:, None], torch.ones_like(gates[:, None])), 0).tril()


# recursive least squares


def rls_naive(
    state: RLSState, q: Tensor, k: Tensor, v: Tensor, *, weight: Tensor, lam: float = 1.0
) -> tuple[Tensor, RLSState]:
    """Recursive least squares, pair by pair: M is the ridge regression on all pairs so far.

    Args:
        weight: (t,) > 0, how much each pair counts.
        lam: in (0, 1], by which older pairs fade at each new one. Below 1, P grows without bound along keys that
            do not come again. Else as `delta_naive`.
    """
    import torch

    _check(q, k, v, weight, *state)
    (memory, covariance), outputs = state, [v[:0]]
    for t in range(len(k)):
        known = covariance @ k[t]
        gain = known / (lam / weight[t] + k[t] @ known)
        memory = memory + torch.outer(v[t] - memory @ k[t], gain)
        covariance = _symmetric(covariance - torch.outer(gain, known)) / lam
        outputs.append((memory @ q[t])[None])
    return _checked(torch.cat(outputs), RLSState(memory, covariance))


def rls_chunked(
    state: RLSState,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weight: Tensor,
    lam: float = 1.0,
    chunk: int = CHUNK,
) -> tuple[Tensor, RLSState]:
    """As `rls_naive`, by blocks: one Cholesky factor of the chunk's innovations, L L' = diag(lam^t / w) + K P K'.

    The rows of L^-1 (V - K M') and L^-1 K P are the errors and gains of the single steps, scaled, so that the final
    state (Woodbury's identity) and every output on the way come from the same two products.
    """
    import torch

    _check(q, k, v, weight, *state)
    (memory, covariance), outputs = state, [v[:0]]
    for at in _chunks(len(k), chunk):
        keys, queries, fade = k[at], q[at], _fading(lam, weight[at])
        known = keys @ covariance
        factor = torch.linalg.cholesky(torch.diag(fade / weight[at]) + known @ keys.T)
        errors = torch.linalg.solve_triangular(factor, v[at] - keys @ memory.T, upper=False)
        gains = torch.linalg.solve_triangular(factor, known, upper=False)
        outputs.append(queries @ memory.T + (queries @ gains.T).tril() @ errors)
        memory = memory + errors.T @ gains
        covariance = _symmetric(covariance - gains.T @ gains) / fade[-1]
    return _checked(torch.cat(outputs), RLSState(memory, covariance))


def _symmetric(matrix: Tensor) -> Tensor:
    """What of it is symmetric: below lam = 1 the rest, which is rounding, would grow by 1 / lam at each pair."""
    return (matrix + matrix.T) / 2


def _fading(lam: float, like: Tensor) -> Tensor:
    """(c,) lam, lam^2, ..."""
    import torch

    return lam ** torch.arange(1, len(like) + 1, dtype=like.dtype, device=like.device)


# what all share


def _chunks(pairs: int, chunk: int) -> Iterator[slice]:
    return (slice(start, start + chunk) for start in range(0, pairs, chunk))


def _check(*tensors: Tensor) -> None:
    for number, tensor in enumerate(tensors):
        if not _finite(tensor):
            raise InvalidInput(f"argument {number} of shape {tuple(tensor.shape)} is not finite; leave that pair out")


def _checked(outputs: Tensor, state: _State) -> tuple[Tensor, _State]:
    """The result, unless it overflowed: then the caller keeps the state that it has."""
    if not all(_finite(tensor) for tensor in state):
        raise InvalidInput("the updated memory is not finite: keys or step sizes are too large; keep the former state")
    return outputs, state


def _finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite; a fifth of the time of `isfinite`. Within `vmap` nobody can look: taken as so."""
    import torch

    return bool(torch._C._functorch.is_batchedtensor(tensor) or (tensor.detach() * 0).sum() == 0)
