"""Whether a language model knows somebody's own words after a sleep.

    python -m benchmarks.lm.vocabulary                      # SmolLM2-135M: twelve words, explained once each
    python -m benchmarks.lm.vocabulary --model qwen --device cuda

`Memory.consolidate(model, tokenizer)` of twelve items. Then, with the memory attached and a context without any of them,
each word is asked for in three wordings that neither lessons nor the gate have; right is a greedy answer of 24 tokens that
holds the meaning. *Everyday*: of the gate's everyday questions, how many are answered as before, to the letter. *Text*: how
the loss on text that is about none of it differs, relatively.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import MODELS, load
from memkit import Memory
from memkit.slow.lm import probes
from memkit.slow.lm.anchors import TEXTS
from memkit.slow.lm.forms import Form
from memkit.slow.lm.probes import Probe

USER = "ana"
WORDS = (
    ("A zibbet is a short coffee break.", "zibbet", "short coffee break"),
    ('By "blue run" we mean a release without migrations.', "blue run", "release without migrations"),
    ("We call the small meeting room the aquarium.", "the aquarium", "small meeting room"),
    ('"Snorkeling" means reviewing a PR quickly.', "snorkeling", "reviewing a PR quickly"),
    ("zorbing = weekend deploy", "zorbing", "weekend deploy"),
    ("QBR stands for quarterly business review", "QBR", "quarterly business review"),
    ('When I say "the swamp" I mean the legacy billing code.', "the swamp", "legacy billing code"),
    ("A glimp is a bug that only one customer sees.", "glimp", "bug that only one customer sees"),
    ('We call the printer on the third floor "Big Bertha".', "Big Bertha", "printer on the third floor"),
    ("Frobbing is our word for cleaning test data.", "frobbing", "cleaning test data"),
    ("P2 is short for priority two incident.", "P2", "priority two incident"),
    ('"green day" means a day without meetings.', "green day", "day without meetings"),
)


def asked(term: str, meaning: str) -> list[Probe]:
    """A question, a request, and a text to complete."""
    glossary = f"In our glossary you can look up every word of ours. {term[0].upper() + term[1:]} is another way to say"
    return [
        Probe(term, Form(f"I am new here. People keep saying {term}. What does it mean?", "", meaning)),
        Probe(term, Form(f"Please give me the definition of {term} in a few words.", "", meaning)),
        Probe(term, Form("", glossary, meaning)),
    ]


def told(model: Any, tokenizer: Any) -> tuple[list[bool], list[str], float]:
    """Which wordings are told right, the answers to everyday questions, and the loss on text."""
    found = [probe for _, term, meaning in WORDS for probe in asked(term, meaning)]
    right = probes.recall(model, tokenizer, found).right
    return right, probes.canaries(model, tokenizer), probes.text_loss(model, tokenizer, TEXTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--device", help="where to train")
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.model, torch.bfloat16)
    before, everyday, text = told(model, tokenizer)
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "a.mem", cache_dir=folder) as memory:
        for explained, _, _ in WORDS:
            memory.add(explained, user_id=USER)
        began = time.perf_counter()
        (band,) = memory.consolidate(model, tokenizer, device=options.device).bands
        seconds = time.perf_counter() - began
        with memory.attach(model, tokenizer, user_id=USER, listen=False):
            after, said, loss = told(model, tokenizer)
    same = sum(a == b for a, b in zip(said, everyday, strict=True))
    print("| words | told before | told after | everyday | text | s |\n| --- | --- | --- | --- | --- | --- |")
    shares = f"{sum(before) / len(before):.0%} | {sum(after) / len(after):.0%}"
    print(f"| {len(WORDS)} | {shares} | {same} of {len(everyday)} | {loss / text - 1:+.2%} | {seconds:.0f} |")
    print(f"\n{'; '.join(band.reasons)}.")


if __name__ == "__main__":
    main()
