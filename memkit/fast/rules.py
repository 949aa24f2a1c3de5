"""Update rules of linear associative memories: what a matrix M that maps keys to values learns from a pair (k, v).

Each rule stands twice. `*_naive` reads the pairs one by one, straight from the equation, and is the definition;
`*_chunked` reads many at once, and gives the same outputs, final state and gradients.

    delta     M_t = M_{t-1} + beta_t (v_t - M_{t-1} k_t) k_t'                                    [1] eq. 23-24, [2] eq. 3
    gated     M_t = alpha_t M_{t-1} (I - beta_t k_t k_t') + beta_t v_t k_t'                      [3] eq. 10
    rls       g = P k / (lam + k' P k);  M += (v - M k) g';  P = (P - g k' P) / lam              [4] table 10.1
    momentum  S_t = eta_t S_{t-1} - theta_t grad |M_{t-1} k_t - v_t|^2;  M_t = (1 - alpha_t) M_{t-1} + S_t   [5] eq. 9-14

The gradient of momentum is taken at the state before the chunk, as in [5] eq. 16: `momentum_naive` has an argument for
the chunk, and a chunk of one is the rule itself.

[1] I. Schlag, K. Irie, J. Schmidhuber, Linear Transformers Are Secretly Fast Weight Programmers (arXiv 2102.11174).
[2] S. Yang et al., Parallelizing Linear Transformers with the Delta Rule over Sequence Length (arXiv 2406.06484).
[3] S. Yang, J. Kautz, A. Hatamizadeh, Gated Delta Networks (arXiv 2412.06464).
[4] S. Haykin, Adaptive Filter Theory.
[5] A. Behrouz, P. Zhong, V. Mirrokni, Titans: Learning to Memorize at Test Time (arXiv 2501.00663).

axes: t time (pairs, in order) · k key dim · v value dim · c pairs of one chunk
"""
