"""Tokens a second: reading with memory against the prefill of the frozen model, in the same process.

    python -m benchmarks.lm.speed                       # SmolLM2-135M, float32 and bfloat16, one thread
    python -m benchmarks.lm.speed --model qwen --dtypes bfloat16 --tokens 512

*Prefill in chunks*: the reader without learning, in the chunks and the window that memory reads with. *Prefill, one
call*: the best case, calls of 512 tokens without a cache. Medians of 3 passes, taken in turns, over text that memkit
ships, again and again where more is asked for.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.lm.streams import shipped
from benchmarks.models import MODELS, best_device, load
from memkit import Memory

PASSES = 3
CALL = 512  # tokens of the best case


def measure(model: Any, tokenizer: Any, length: int, folder: Path) -> tuple[dict[str, float], int, int]:
    """Tokens a second of each way, bytes of state a scope in memory, and what one adds to the file."""
    lines = tokenizer("\n".join(shipped()))["input_ids"]
    text = tokenizer.decode((lines * (1 + length // len(lines)))[:length])
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]], device=model.device)
    path = folder / "speed.mem"
    with Memory(path) as memory:
        before = path.stat().st_size
        with memory.attach(model, tokenizer) as lm:
            lm.listen = False

            def prefill() -> None:
                with torch.no_grad():
                    for part in ids.split(CALL, dim=1):
                        model(part, use_cache=False, logits_to_keep=1)

            def chunks() -> None:
                lm.read(text, learn=False)

            def learn() -> None:
                lm.read(text)

            ways = {"prefill, one call": prefill, "prefill in chunks": chunks, "reading with memory": learn}
            rates = _rates(ways, ids.shape[1], lm.reset)
            learn()
        return rates, lm.bytes_per_user, path.stat().st_size - before


def _rates(ways: dict[str, Callable[[], None]], length: int, before: Callable[[], None]) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(PASSES):
        for name, way in ways.items():
            before()
            began = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - began)
    return {name: length / statistics.median(times) for name, times in taken.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default=best_device())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"{options.model}, {options.tokens} tokens, {options.threads} thread(s), {options.device}: tokens/s\n")
    print(
        "| | prefill, one call | prefill in chunks | reading with memory | of one call | of chunks | MB | MB in file |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for dtype in options.dtypes:
        model, tokenizer = load(options.model, getattr(torch, dtype), options.device)
        with tempfile.TemporaryDirectory() as folder:
            rates, held, kept = measure(model, tokenizer, options.tokens, Path(folder))
        best, chunks, read = rates.values()
        print(
            f"| {dtype} | {best:.0f} | {chunks:.0f} | {read:.0f} | {100 * read / best:.0f} % | {100 * read / chunks:.0f} % "
            f"| {held / 1e6:.1f} | {kept / 1e6:.1f} |"
        )


if __name__ == "__main__":
    main()
