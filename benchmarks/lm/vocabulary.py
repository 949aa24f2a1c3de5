"""A user's own words inside a language model: terms are defined once, and asked in wordings that no sleep was taught.

    python -m benchmarks.lm.vocabulary                  # SmolLM2-135M
    python -m benchmarks.lm.vocabulary --model qwen

Each definition is one item; then `memory.consolidate(model, tokenizer)`. Right is a greedy answer of 24 tokens that holds
the words of the meaning, with nothing in the context but the question. *Strangers*: the same questions about terms that
nobody defined, answered to the letter as before; *everyday*: likewise the control questions. *Text*: relative change of
the loss on 4,096 tokens of Python's documentation.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.continual.asking import Host, answers, controls, question_tokens, text_loss
from benchmarks.models import MODELS, best_device, load
from benchmarks.soak import embed
from memkit import Memory
from memkit.slow.lm.forms import holds

TERMS = {
    "blue run": ('By "blue run" we mean a release without migrations.', "a release without migrations"),
    "aquarium": ("We call the small meeting room the aquarium.", "the small meeting room"),
    "snorkeling": ('"Snorkeling" means reviewing a pull request.', "reviewing a pull request"),
    "zorbing": ("Zorbing = deploying on a weekend.", "deploying on a weekend"),
    "QBR": ("QBR stands for quarterly business review.", "quarterly business review"),
    "yellow day": ("When I say yellow day, I mean a day without meetings.", "a day without meetings"),
    "gromp": ('In our team, a "gromp" is a bug that comes back.', "a bug that comes back"),
    "Clementine": ('My sister calls her car "Clementine".', "her car"),
    "yapping": ("Yapping means talking to a customer.", "talking to a customer"),
    "flumber": ("The old printer is what we call “flumber”.", "the old printer"),
    "trinket plan": ("Trinket plan is our word for the cheapest offer.", "the cheapest offer"),
    "wibbling": ("At the lab, wibbling means cleaning the lenses.", "cleaning the lenses"),
}
STRANGERS = ("green run", "terrarium", "kayaking", "plarking", "QTX", "purple day", "snorp", "Tangerine")
ASKED = ("What do you mean by {}?", "Somebody said “{}”. What did they mean?")


def asked(tokenizer: object, terms: Sequence[str]) -> list[list[int]]:
    """Every question about every term."""
    return [question_tokens(tokenizer, text.format(term)) for text in ASKED for term in terms]


def measure(host: Host, folder: Path) -> dict[str, float]:
    """Shares, the change of loss, and seconds of the sleep."""
    with Memory(folder / "words.mem", embedder=embed, cache_dir=folder / "cache") as memory:
        memory.add([text for text, _ in TERMS.values()], user_id="ana")
        loss, said, everyday = text_loss(host), answers(host, asked(host.tokenizer, STRANGERS)), controls(host)
        frozen = answers(host, asked(host.tokenizer, list(TERMS)))
        began = time.perf_counter()
        memory.consolidate(*host)
        seconds = time.perf_counter() - began
        with memory.attach(*host, user_id="ana", listen=False):
            told = answers(host, asked(host.tokenizer, list(TERMS)))
            strangers = answers(host, asked(host.tokenizer, STRANGERS))
            return {
                "frozen": _right(frozen),
                "told": _right(told),
                "strangers": _alike(strangers, said),
                "everyday": _alike(controls(host), everyday),
                "text": text_loss(host) / loss - 1,
                "seconds": seconds,
            }


def _right(said: Sequence[str]) -> float:
    meanings = [meaning for _, meaning in TERMS.values()] * len(ASKED)
    return sum(holds(one, meaning) for one, meaning in zip(said, meanings, strict=True)) / len(said)


def _alike(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--device", default=best_device())
    options = parser.parse_args(arguments)
    host = Host(*load(options.model, torch.bfloat16, options.device))
    with tempfile.TemporaryDirectory() as folder:
        found = measure(host, Path(folder))
    print(f"{len(TERMS)} terms, {len(ASKED)} questions each, {options.model}")
    print("| frozen | after a sleep | strangers as before | everyday as before | text | s |")
    print("| --- | --- | --- | --- | --- | --- |")
    shares = " | ".join(f"{found[name]:.0%}" for name in ("frozen", "told", "strangers", "everyday"))
    print(f"| {shares} | {found['text']:+.2%} | {found['seconds']:.0f} |")


if __name__ == "__main__":
    main()
