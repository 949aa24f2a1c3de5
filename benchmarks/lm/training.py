"""How long facts take to be learned into a language model, on each device and in each precision.

    python -m benchmarks.lm.training                        # SmolLM2-135M: 16 facts of 8 made-up people
    python -m benchmarks.lm.training --devices cpu cuda --dtypes bfloat16

`memkit.slow.lm.train` with its defaults, each twice: the second is timed, so that kernels are loaded. Loss: nats an answer
token of the first group's first and last step, and of all forms at the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.models import MODELS, load
from memkit.slow.lm.forms import Lesson, lesson
from memkit.slow.lm.train import Report, train

PEOPLE = ("Orla Venn", "Ivo Brask", "Tessa Quill", "Milo Darch", "Una Feld", "Rafe Stoll", "Nia Corr", "Otto Lind")
CITIES = ("Porto", "Graz", "Bergen", "Tralee", "Lyon", "Ghent", "Turin", "Cork")
DOGS = ("Biscuit", "Pepper", "Juno", "Moss", "Rufus", "Nell", "Tansy", "Bram")


def lessons() -> list[Lesson]:
    """Where everybody lives, and what everybody's dog is called."""
    texts = [f"{name} lives in {city}." for name, city in zip(PEOPLE, CITIES, strict=True)]
    texts += [f"{name}'s dog is called {dog}." for name, dog in zip(PEOPLE, DOGS, strict=True)]
    made = [lesson(str(at), text) for at, text in enumerate(texts)]
    return [one for one in made if one is not None]


def measure(model: Any, tokenizer: Any, device: str) -> tuple[float, Report]:
    """Seconds of the clock, and what training says."""
    for _ in range(2):
        began = time.perf_counter()
        report = train(model, tokenizer, lessons(), device=device).report
        seconds = time.perf_counter() - began
    return seconds, report


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--devices", nargs="+", default=["cpu", *["cuda"] * torch.cuda.is_available()])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args(arguments)
    print("| | s | first loss | last loss | all forms |\n| --- | --- | --- | --- | --- |")
    for device in options.devices:
        for dtype in options.dtypes:
            seconds, report = measure(*load(options.model, getattr(torch, dtype)), device)
            losses, forms = report.losses[0], list(report.learned.values())
            ends = f"{losses[0]:.2f} | {losses[-1]:.3f} | {sum(forms) / len(forms):.3f}"
            print(f"| {device}, {dtype} | {seconds:.1f} | {ends} |", flush=True)


if __name__ == "__main__":
    main()
