"""Self-modifying Titans: memories that learn while they read, and make the values that they learn.

Six memories, k v q eta alpha mem. Each is a residual MLP of two layers, [NL] eq. 89:

    M(z) = z + W1 s(W2 z)                              s = SiLU; W2 (h, d) the inner, W1 (d, h) the outer layer

At token t they make what the token is written by, [NL] eq. 76 to 88, all from their state at the end of the last
chunk, the anchor ([NL] section 8.2), so that a chunk is one batched computation:

    k_t = M_k(x_t) / |M_k(x_t)|        eta_t       = eta_max sigmoid(r M_eta(x_t) + b)
    q_t = W_q x_t / |W_q x_t|          1 - alpha_t = decay_max sigmoid(r M_alpha(x_t) + b)
    v_t = M_v(x_t)                     target of memory M at k_t: its own M(v_t)

q can be made a memory too, but [NL] table 6 finds that it should not. Then each layer of each memory takes a step of a
delta rule on its own input x (k_t; at the outer layer s(W2 k_t), of the anchor). D is what a layer deviates by from the
meta-learned start W0, and E the error of the running state:

    D_t = alpha_t D_{t-1} + eta_t / |x|^2 E_t x'       E_t = T_t - (W0 + D_{t-1}) x       y_t = M_mem,t-1(q_t)

    kind "delta"   T_t = W x - G       W: at the anchor; G: the gradient of |M(k_t) - M(v_t)|^2 / 2 by W x,
    kind "dgd"     T_t = -G            which is e = M(k_t) - M(v_t) at the outer and W1'e s'(W2 k_t) at the inner layer

With a chunk of one token, "delta" is gradient descent with normalised steps. "dgd" is the letter of eq. 88 and 93; as G
contains W x already, it comes to rest where W x is half of what was to be stored. So "delta" is the default. [NL]
leaves open, and here it is decided: both layers are written, the inner one at `inner_rate` times the step; retention
pulls towards W0 and not to zero, so that neutral tokens erase nothing that was meta-learned; |e| is clipped; the norm
of D is capped when a chunk is complete.

`titans_naive` goes token by token, with gradients by autograd, and is the definition. `titans_chunked` solves a
triangular system a chunk and gives the same outputs, state and outer gradients, up to rounding. Both are pure, and
batch elements never meet. A stream may be cut anywhere: f(ab) = f(b, f(a).state).

axes: b batch (users) · n heads · m memories · t time · c tokens of a chunk · d dim of a head · h hidden

[NL] A. Behrouz et al., Nested Learning: The Illusion of Deep Learning Architectures (arXiv 2512.24695), section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

from memkit_storage.errors import InvalidInput

MEMORIES = ("mem", "k", "v", "eta", "alpha", "q")  # the last one only if queries are adaptive
_KEY, _VALUE, _ETA, _ALPHA = 1, 2, 3, 4


class TitansParams(NamedTuple):
    """What the outer loop learns.

    inner (n, m, h, d) and outer (n, m, d, h): where the memories start. query (n, d, d): W_q.
    readout (n, 2, d) and bias (n, 2): from what the memories eta and alpha give to the two gates. query is None where
    q is a memory, the sixth.
    """

    inner: Tensor
    outer: Tensor
    readout: Tensor
    bias: Tensor
    query: Tensor | None = None


class TitansState(NamedTuple):
    """What one batch of users has been told: deviations from the start, now and at the last chunk's end.

    inner, anchor_inner (b, n, m, h, d); outer, anchor_outer (b, n, m, d, h); seen: tokens of the open chunk.
    """

    inner: Tensor
    outer: Tensor
    anchor_inner: Tensor
    anchor_outer: Tensor
    seen: int

    @property
    def bytes(self) -> int:
        """Of one user: the deviations, once (an open chunk has them twice)."""
        return (self.inner[0].numel() + self.outer[0].numel()) * self.inner.element_size()


class Rule(NamedTuple):
    """How the memories are written.

    chunk: tokens from anchor to anchor. written: memories that change while reading; the others stay at their start.
    eta_max: largest step, below 2. inner_rate: of the inner layer, against it. decay_max: most that one token forgets.
    clip: largest |M(k) - M(v)|. cap: largest Frobenius norm of a layer's deviation, in those of a unit matrix.
    """

    chunk: int = 16
    kind: Literal["delta", "dgd"] = "delta"
    written: Collection[str] = MEMORIES
    eta_max: float = 1.0
    inner_rate: float = 0.5
    decay_max: float = 0.01
    clip: float = 8.0
    cap: float = 4.0


DEFAULT = Rule()


def start(params: TitansParams, batch: int) -> TitansState:
    """Nothing read yet."""
    inner, outer = (torch.zeros(batch, *weights.shape, device=weights.device, dtype=weights.dtype)
                    for weights in (params.inner, params.outer))  # fmt: skip
    return TitansState(inner, outer, inner, outer, 0)


# -- what an anchor makes of tokens ------------------------------------------------------------------------------------


class _Made(NamedTuple):
    """Of c tokens: q, k (b, n, c, d), the values v (b, n, c, d), eta (b, n, c), alpha (b, n, c)."""

    q: Tensor
    k: Tensor
    v: Tensor
    eta: Tensor
    alpha: Tensor


def _forward(inner: Tensor, outer: Tensor, z: Tensor) -> Tensor:
    """M(z) (..., c, d), of weights (..., h, d) and (..., d, h)."""
    return z + silu(z @ inner.mT) @ outer.mT


def _made(params: TitansParams, inner: Tensor, outer: Tensor, x: Tensor, rule: Rule) -> _Made:
    """From the weights (b, n, m, ...) at the anchor and the tokens x (b, n, c, d)."""
    raw = _forward(inner[:, :, _KEY : _VALUE + 1], outer[:, :, _KEY : _VALUE + 1], x[:, :, None])
    active, reading = silu(x[:, :, None] @ inner[:, :, _ETA : _ALPHA + 1].mT), params.readout[:, :, None]
    gates = x[:, :, None] @ reading.mT + active @ (reading @ outer[:, :, _ETA : _ALPHA + 1]).mT  # r M(x)
    eta, forget = torch.sigmoid(gates[..., 0] + params.bias[..., None]).unbind(2)
    query = _forward(inner[:, :, -1], outer[:, :, -1], x) if params.query is None else x @ params.query.mT
    return _Made(
        normalize(query, dim=-1),
        normalize(raw[:, :, 0], dim=-1),
        raw[:, :, 1],
        rule.eta_max * eta,
        1 - rule.decay_max * forget,
    )


def _clipped(error: Tensor, most: float) -> Tensor:
    """Errors (..., d), shortened to `most`."""
    length = torch.linalg.vector_norm(error, dim=-1, keepdim=True)
    clipped: Tensor = error * (most / length.clamp(min=most))
    return clipped


def _mask(params: TitansParams, rule: Rule) -> Tensor:
    """(m, 1) 1 for memories that are written."""
    names = MEMORIES[: params.inner.shape[1]]
    return torch.tensor([[float(name in rule.written)] for name in names], dtype=params.inner.dtype)


# -- the fast path -----------------------------------------------------------------------------------------------------


def titans_chunked(
    params: TitansParams, state: TitansState, x: Tensor, *, rule: Rule = DEFAULT
) -> tuple[Tensor, TitansState]:
    """Read tokens and learn from them, a chunk at a time.

    Args:
        x: (b, n, t, d) tokens, cut into heads.

    Returns:
        (b, n, t, d) outputs, each read before its token is written, and the state after the last token.

    Raises:
        InvalidInput: shapes that do not fit, tokens that are not finite, or memories that are not after reading them.
    """
    return _read(params, state, x, rule, _chunk)


def _chunk(params: TitansParams, state: TitansState, x: Tensor, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    inner, outer = params.inner + state.anchor_inner, params.outer + state.anchor_outer
    made = _made(params, inner, outer, x, rule)
    k = made.k[:, :, None]
    hidden = k @ inner.mT
    active = silu(hidden)
    error = _clipped(k + active @ outer.mT - _forward(inner, outer, made.v[:, :, None]), rule.clip)
    slope = torch.sigmoid(hidden)
    slope = slope * (1 + hidden * (1 - slope))
    step = made.eta[:, :, None] * _mask(params, rule).to(x)
    layers = (params.inner, state.inner, state.anchor_inner), (params.outer, state.outer, state.anchor_outer)
    low = _write(*layers[0], k, (error @ outer) * slope, (step * rule.inner_rate, made.alpha), rule)
    high = _write(*layers[1], active, error, (step, made.alpha), rule)
    hot = silu(made.q @ params.inner[:, 0].mT + low.read(made.q))
    y = made.q + hot @ params.outer[:, 0].mT + high.read(hot)
    return y, low.deviation(), high.deviation()


def _write(  # noqa: PLR0917 - a layer, then what is written
    start: Tensor,
    now: Tensor,
    anchor: Tensor,
    x: Tensor,
    gradient: Tensor,
    gates: tuple[Tensor, Tensor],
    rule: Rule,
) -> _Written:
    """The writes of a chunk to one layer of all memories: inputs x (b, n, m, c, .) and gradients at the anchor."""
    said = x @ now.mT
    kept = x @ -start.mT if rule.kind == "dgd" else said if now is anchor else x @ anchor.mT
    return _Written.of(now, x, kept - gradient, said, gates[0], gates[1][:, :, None])


class _Written(NamedTuple):
    """A chunk of writes D_t = alpha_t D_{t-1} + step_t E_t x_t', E_t = T_t - D_{t-1} x_t, for all t at once.

    D_0 (..., o, i), x (..., c, i), scaled (..., c, o) = step E; `before` (..., c + 1): how much of D_0 stands in D_t;
    share (..., c + 1, c): how much of write j stands in D_t.
    """

    first: Tensor
    x: Tensor
    scaled: Tensor
    before: Tensor
    share: Tensor

    @classmethod
    def of(  # noqa: PLR0917 - state, inputs, gates
        cls, first: Tensor, x: Tensor, target: Tensor, said: Tensor, step: Tensor, alpha: Tensor
    ) -> _Written:
        """Solves (I + L) E = T - kept D_0 x, with L the products of each input with those before; said = D_0 x."""
        kept = torch.nn.functional.pad(alpha.log().cumsum(-1), (1, 0))  # (..., c + 1) log of alpha_1 .. alpha_t
        ratio = (kept[..., :, None] - kept[..., None, 1:]).tril(-1).exp().tril(-1)  # (..., c + 1, c)
        step = step / (x * x).sum(-1).clamp(min=1e-6)
        system = ratio[..., :-1, :] * (x @ x.mT) * step[..., None, :]
        wanted = target - kept[..., :-1, None].exp() * said
        errors = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
        return cls(first, x, step[..., None] * errors, kept.exp(), ratio)

    def read(self, query: Tensor) -> Tensor:
        """(b, n, c, o) D_{t-1} query_t of the first memory; query (b, n, c, i)."""
        x = self.x[:, :, 0] if self.x.shape[2] > 1 else self.x.squeeze(2)
        old = self.before[:, :, 0, :-1, None] * (query @ self.first[:, :, 0].mT)
        return old + (self.share[:, :, 0, :-1] * (query @ x.mT)) @ self.scaled[:, :, 0]

    def deviation(self) -> Tensor:
        """D after the last write."""
        written = (self.scaled * self.share[..., -1, :, None]).mT @ self.x
        return self.before[..., -1, None, None] * self.first + written


# -- the definition ----------------------------------------------------------------------------------------------------


def titans_naive(
    params: TitansParams, state: TitansState, x: Tensor, *, rule: Rule = DEFAULT
) -> tuple[Tensor, TitansState]:
    """As `titans_chunked`, one token after the other, straight from the equations, with gradients by autograd."""
    return _read(params, state, x, rule, _tokens)


def _tokens(params: TitansParams, state: TitansState, x: Tensor, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    anchor = (params.inner + state.anchor_inner, params.outer + state.anchor_outer)
    inner, outer, outputs = state.inner, state.outer, []
    for t in range(x.shape[2]):
        q, k, v, eta, alpha = (part[:, :, 0] for part in _made(params, *anchor, x[:, :, t : t + 1], rule))
        now = (params.inner + inner, params.outer + outer)
        outputs.append(_forward(now[0][:, :, 0], now[1][:, :, 0], q[:, :, None]))
        active = silu(k[:, :, None, None] @ anchor[0].mT)
        active = active.expand(*now[1].shape[:3], 1, -1)
        gradients = _gradients(*anchor, k[:, :, None, None], v[:, :, None, None], rule)
        key = k[:, :, None, None].expand(*now[0].shape[:3], 1, -1)
        step = eta[:, :, None, None, None] * _mask(params, rule)[..., None].to(x)
        kept = alpha[:, :, None, None, None]
        inner = kept * inner + step * rule.inner_rate * _move(now[0], anchor[0], key, gradients[0], rule)
        outer = kept * outer + step * _move(now[1], anchor[1], active, gradients[1], rule)
    return torch.cat(outputs, dim=2), inner, outer


def _gradients(inner: Tensor, outer: Tensor, k: Tensor, v: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Of the clipped loss at one token with respect to both layers of all memories."""
    value = _forward(inner, outer, v)
    length = torch.linalg.vector_norm(_forward(inner, outer, k) - value, dim=-1, keepdim=True)

    def loss(inner_: Tensor, outer_: Tensor) -> Tensor:
        squares: Tensor = (_forward(inner_, outer_, k) - value) ** 2 * (rule.clip / length.clamp(min=rule.clip))
        return squares.sum() / 2

    found: tuple[Tensor, Tensor] = torch.func.grad(loss, argnums=(0, 1))(inner, outer)
    return found


def _move(now: Tensor, anchor: Tensor, x: Tensor, gradient: Tensor, rule: Rule) -> Tensor:
    """(T - W_{t-1} x) x' / |x|^2 of one token x (..., 1, i), from the gradient of the weights at the anchor."""
    square = (x * x).sum(-1, keepdim=True).clamp(min=1e-6)
    signal = x @ gradient.mT / square  # the gradient with respect to W x
    target = -signal if rule.kind == "dgd" else x @ anchor.mT - signal
    return (target - x @ now.mT).mT @ x / square


# -- what both share ---------------------------------------------------------------------------------------------------

_Chunk = Callable[[TitansParams, TitansState, Tensor, Rule], tuple[Tensor, Tensor, Tensor]]


def _read(params: TitansParams, state: TitansState, x: Tensor, rule: Rule, chunk: _Chunk) -> tuple[Tensor, TitansState]:
    _check(params, state, x, rule)
    tokens, outputs = x.to(params.inner.dtype), [x[:, :, :0].to(params.inner.dtype)]
    for at in _spans(state.seen, x.shape[2], rule.chunk):
        y, inner, outer = chunk(params, state, tokens[:, :, at], rule)
        outputs.append(y)
        state = _after(state, inner, outer, at.stop - at.start, rule)
    if not all(bool((part.detach() * 0).sum() == 0) for part in state[:2]):
        raise InvalidInput("the memories are not finite any more: eta_max or clip is too large; keep the former state")
    return torch.cat(outputs, dim=2).to(x.dtype), state


def _spans(seen: int, tokens: int, chunk: int) -> Iterator[slice]:
    """Slices of the tokens that end where chunks of the whole stream do."""
    begin = 0
    while begin < tokens:
        end = min(tokens, begin + chunk - (seen + begin) % chunk)
        yield slice(begin, end)
        begin = end


def _after(state: TitansState, inner: Tensor, outer: Tensor, count: int, rule: Rule) -> TitansState:
    """The state after some tokens of a chunk; a complete one is the next anchor."""
    seen = state.seen + count
    if seen < rule.chunk:
        return TitansState(inner, outer, state.anchor_inner, state.anchor_outer, seen)
    inner, outer = _capped(inner, rule.cap), _capped(outer, rule.cap)
    return TitansState(inner, outer, inner, outer, 0)


def _capped(deviation: Tensor, cap: float) -> Tensor:
    most = cap * min(deviation.shape[-2:]) ** 0.5
    capped: Tensor = deviation * (most / torch.linalg.matrix_norm(deviation, keepdim=True).clamp(min=most))
    return capped


def _check(params: TitansParams, state: TitansState, x: Tensor, rule: Rule) -> None:
    want = (state.inner.shape[0], params.inner.shape[0], params.inner.shape[3])
    if x.ndim != 4 or (x.shape[0], x.shape[1], x.shape[3]) != want:
        raise InvalidInput(f"tokens of shape {tuple(x.shape)}; this state reads (b, n, t, d) with b, n, d = {want}")
    if rule.chunk < 1 or rule.kind not in ("delta", "dgd") or not set(rule.written) <= set(MEMORIES):
        raise InvalidInput(f"{rule}: chunk is at least 1, kind delta or dgd, written some of {MEMORIES}")
    if not bool((x.detach() * 0).sum() == 0):
        raise InvalidInput(f"tokens of shape {tuple(x.shape)} are not all finite; nothing was read")


# -- the module --------------------------------------------------------------------------------------------------------


class SelfModifyingTitans(nn.Module):
    """The meta-learned parameters, and the reading of a stream with them.

    Args:
        dim: of a token; `heads` divides it. hidden: of a memory's MLP, per head; default: the dim of a head.
        adaptive_query: make q a sixth memory instead of a projection.
    """

    def __init__(
        self,
        dim: int,
        hidden: int | None = None,
        *,
        heads: int = 1,
        adaptive_query: bool = False,
        rule: Rule = DEFAULT,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise InvalidInput(f"dim={dim} is no multiple of heads={heads}")
        d, m = dim // heads, len(MEMORIES) if adaptive_query else len(MEMORIES) - 1
        h = hidden or d
        self.heads, self.rule = heads, rule
        self.inner = nn.Parameter(torch.randn(heads, m, h, d) * d**-0.5)
        self.outer = nn.Parameter(torch.randn(heads, m, d, h) * h**-0.5)
        self.query = None if adaptive_query else nn.Parameter(torch.randn(heads, d, d) * d**-0.5)
        self.readout = nn.Parameter(torch.randn(heads, 2, d) * d**-0.5)
        self.bias = nn.Parameter(torch.tensor([[0.0, -3.0]]).repeat(heads, 1))  # alpha starts at 0.9995

    @property
    def params(self) -> TitansParams:
        """As the pure functions take them."""
        return TitansParams(self.inner, self.outer, self.readout, self.bias, self.query)

    def start(self, batch: int) -> TitansState:
        """The state of users who have read nothing."""
        return start(self.params, batch)

    def forward(self, x: Tensor, state: TitansState | None = None) -> tuple[Tensor, TitansState]:
        """Read tokens (b, t, dim): outputs of the same shape, and the state after them."""
        b, t, dim = x.shape
        cut = x.reshape(b, t, self.heads, dim // self.heads).transpose(1, 2)
        y, state = titans_chunked(self.params, state or self.start(b), cut, rule=self.rule)
        return y.transpose(1, 2).reshape(b, t, dim), state
