"""Tokens a second of self-modifying Titans: the chunked form beside the token-by-token definition.

    python -m benchmarks.hope.speed                    # one user, 2,048 tokens of 256 dims, one thread, reading only; on a GPU where there is one

The two take turns; the medians are printed. The definition is timed on fewer tokens: its cost a token is constant.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from benchmarks.models import best_device
from memkit.fast.hope.titans import Rule, SelfModifyingTitans, titans_chunked, titans_naive

NAIVE_TOKENS = 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of chunk sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2_048)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--chunks", default="16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=best_device())
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(
        "| chunk | chunked, tokens/s | token by token, tokens/s | ratio | MB of state |\n| --- | --- | --- | --- | --- |"
    )
    for chunk in map(int, asked.chunks.split(",")):
        print(_row(asked.tokens, asked.dim, chunk, asked.rounds, asked.device), flush=True)


def _row(tokens: int, dim: int, chunk: int, rounds: int, device: str) -> str:
    torch.manual_seed(0)
    module = SelfModifyingTitans(dim, rule=Rule(chunk=chunk)).to(device)
    x, params, state = torch.randn(1, 1, tokens, dim).to(device), module.params, module.start(1)
    few = x[:, :, : min(NAIVE_TOKENS, tokens)]
    fast, slow = [], []
    for _ in range(rounds):
        fast.append(tokens / _seconds(lambda: titans_chunked(params, state, x, rule=module.rule)))
        slow.append(few.shape[2] / _seconds(lambda: titans_naive(params, state, few, rule=module.rule)))
    rates = median(fast), median(slow)
    return f"| {chunk} | {rates[0]:,.0f} | {rates[1]:,.0f} | {rates[0] / rates[1]:.1f} | {state.bytes / 1e6:.2f} |"


def _seconds(work: Callable[[], object]) -> float:
    with torch.no_grad():
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
