"""Whether a language model knows after a sleep what its user has said of themselves, however much that is.

    python -m benchmarks.lm.oneself                         # SmolLM2-135M: 2, 8, 24 and 72 things that Ana has said
    python -m benchmarks.lm.oneself --facts 24 --model qwen --device cuda

`Memory.consolidate(model, tokenizer)` of so many items in the first person. Then, with the memory attached and a context
without any of them, each is asked for twice, in wordings that neither lessons nor the gate have; right is a greedy answer of
24 tokens that holds the value.

- *asked by Ana*: "Where is my home?". *about Ana*: "Where is Ana's home?".
- *everyday*: of requests in the first person that ask for help ("What should I cook tonight?"), how many are answered as the
  frozen model answers them, to the letter. *unknown, by Ana*: of questions about her that no item answers, how many answers
  hold a value of another item. *unknown, about Ana*: the same questions about her.
- *text*: how the loss on text that is about none of it differs, relatively. *s*: of the sleep.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import tables
from benchmarks.models import MODELS, load
from memkit import Memory
from memkit.slow.lm import probes
from memkit.slow.lm.anchors import TEXTS
from memkit.slow.lm.asking import answers
from memkit.slow.lm.examples import opened
from memkit.slow.lm.forms import holds

USER = "Ana"
SAID = (  # what is said, two ways to ask for it, and its value
    ("I live in Bergen.", "Where is my home?", "Which city do I call home?", "Bergen"),
    ("I work as a plumber.", "What is my profession?", "What do I do for work?", "plumber"),
    ("My parrot is called Kiwi.", "What is my parrot's name?", "What do I call my parrot?", "Kiwi"),
    ("My favourite drink is mate.", "Which drink do I like most?", "What do I like to drink best?", "mate"),
    ("My brother is named Henrik.", "What is my brother's name?", "What is my brother called?", "Henrik"),
    ("I was born in Quito.", "What is my place of birth?", "Which city was I born in?", "Quito"),
    ("I play the oboe.", "What is the instrument that I play?", "Which instrument do I play?", "oboe"),
    ("I am allergic to shellfish.", "What is my allergy?", "Which food am I allergic to?", "shellfish"),
    ("I drive a Skoda.", "What make is my car?", "Which car is mine?", "Skoda"),
    ("My landlord is Otto Brandt.", "What is the name of my landlord?", "Whom do I rent from?", "Otto Brandt"),
    ("I teach geometry.", "Which subject do I teach?", "What is it that I teach?", "geometry"),
    ("My wedding is on 9 June.", "On which day do I get married?", "What is the date of my wedding?", "9 June"),
    ("I am learning Welsh.", "Which language am I learning?", "What language do I take lessons in?", "Welsh"),
    ("My wife works at Nokia.", "Which company does my wife work for?", "Who is my wife's employer?", "Nokia"),
    ("I collect fossils.", "What is in my collection?", "What do I like to collect?", "fossils"),
    ("My hamster is called Pim.", "What is my hamster's name?", "What did I name my hamster?", "Pim"),
    (
        "My favourite author is Ursula Le Guin.",
        "Which author do I like best?",
        "Who is my favourite writer?",
        "Le Guin",
    ),
    ("I support Celta Vigo.", "Which football club do I support?", "What is my football team?", "Celta Vigo"),
    ("My locker code is 5518.", "What is the code of my locker?", "Which code opens my locker?", "5518"),
    ("I grew up in Galway.", "In which town did I grow up?", "Where did I spend my childhood?", "Galway"),
    (
        "My daughter studies medicine.",
        "Which subject does my daughter study?",
        "What is my daughter studying?",
        "medicine",
    ),
    ("I married Tomas.", "Who is my spouse?", "What is the name of the man I married?", "Tomas"),
    ("I love origami.", "What is my hobby?", "Which hobby do I love?", "origami"),
    ("My blood type is B negative.", "What blood type do I have?", "Which blood group am I?", "B negative"),
)
THINGS = {  # more of what is alike: each has a name, and a place where it was bought
    "canoe": ("Dash", "Turku"), "violin": ("Elva", "Graz"), "pony": ("Cloud", "Bari"), "laptop": ("Gizmo", "Osaka"),
    "tent": ("Igloo", "Nantes"), "kettle": ("Steamy", "Derby"), "drone": ("Buzz", "Zagreb"), "scooter": ("Zip", "Gdansk"),
    "sofa": ("Plush", "Malaga"), "telescope": ("Argus", "Haifa"), "camera": ("Iris", "Lagos"), "cactus": ("Spike", "Tampa"),
    "kite": ("Swift", "Cork"), "loom": ("Weft", "Lima"), "anvil": ("Clang", "Minsk"), "harp": ("Lyra", "Sofia"),
    "goat": ("Billy", "Davos"), "oven": ("Ember", "Pisa"), "globe": ("Terra", "Doha"), "clock": ("Chime", "Essen"),
    "bench": ("Oakley", "Brno"), "mower": ("Snip", "Kobe"), "sledge": ("Rush", "Tromso"), "lamp": ("Glow", "Patras"),
}  # fmt: skip
EVERYDAY = (
    "How do I poach an egg?", "Can I mix paint and oil?", "Help me write a letter to my bank.", "I feel bored today.",
    "What should I cook on Sunday?", "My phone is slow. What can I do?", "How can I learn to dance?", "Tell me a riddle.",
    "Is it safe for me to swim in a lake?", "Why do I sneeze in the sun?", "Where can I buy good cheese?", "Fix my text: i go.",
)  # fmt: skip
UNKNOWN = (
    "Who is my lawyer?", "Which films do I like?", "Where did I go on holiday?", "What is my uncle called?",
    "How old am I?", "What is my horse's name?", "When is my next exam?", "Where is my passport?",
    "Which train do I take to work?", "What is my favourite song?", "What did I have for lunch?", "Who is my neighbour?",
    "Which wine do I like?", "Do I have a sister?", "What is my grandmother's name?", "Which school did I go to?",
)  # fmt: skip


def said(count: int) -> list[tuple[str, str, str, str]]:
    """So many things that Ana has said, at most 72."""
    named = [
        (f"My {n} is called {a}.", f"What is my {n}'s name?", f"How did I name my {n}?", a)
        for n, (a, _) in THINGS.items()
    ]
    bought = [
        (f"I bought my {n} in {p}.", f"Where does my {n} come from?", f"In which city did I buy my {n}?", p)
        for n, (_, p) in THINGS.items()
    ]
    return [*SAID, *named, *bought][:count]


def about(question: str) -> str:
    """A question about Ana as somebody else asks it."""
    turns = (
        (r"\bdo I\b", f"does {USER}"),
        (r"\bam I\b", f"is {USER}"),
        (r"\b[Mm]y\b", f"{USER}'s"),
        (r"\bmine\b", f"{USER}'s"),
    )
    for pattern, turned in (*turns, (r"\bI\b(?= \w+ing\b)", f"is {USER}"), (r"\bI\b", USER)):
        question = re.sub(pattern, turned, question)
    return question.replace(f"that {USER} play", f"that {USER} plays").replace(
        f"that {USER} teach", f"that {USER} teaches"
    )


def answered(model: Any, tokenizer: Any, questions: Sequence[str]) -> list[str]:
    """Greedy answers."""
    return answers(model, tokenizer, [opened(tokenizer, text) for text in questions], longest=probes.LONGEST)


def measured(model: Any, tokenizer: Any, count: int, device: str | None) -> list[str]:
    """One line of the table."""
    facts = said(count)
    before, text = answered(model, tokenizer, EVERYDAY), probes.text_loss(model, tokenizer, TEXTS)
    questions, values = [one for fact in facts for one in fact[1:3]], [fact[3] for fact in facts for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "a.mem", cache_dir=folder) as memory:
        for fact in facts:
            memory.add(fact[0], user_id=USER)
        began = time.perf_counter()
        (band,) = memory.consolidate(model, tokenizer, device=device).bands
        seconds = time.perf_counter() - began
        with memory.attach(model, tokenizer, user_id=USER, listen=False):
            right = [
                sum(map(holds, answered(model, tokenizer, asked), values)) / len(values)
                for asked in (questions, list(map(about, questions)))
            ]
            leaks = [
                sum(any(holds(one, value) for value in values) for one in answered(model, tokenizer, asked))
                for asked in (UNKNOWN, list(map(about, UNKNOWN)))
            ]
            same = sum(a == b for a, b in zip(before, answered(model, tokenizer, EVERYDAY), strict=True))
            loss = probes.text_loss(model, tokenizer, TEXTS)
    print(f"{count}: {'; '.join(band.reasons)}.")
    return [
        *(str(count), f"{right[0]:.0%}", f"{right[1]:.0%}", f"{same} of {len(EVERYDAY)}"),
        *(f"{leak} of {len(UNKNOWN)}" for leak in leaks),
        *(f"{loss / text - 1:+.2%}", f"{seconds:.0f}"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, nargs="+", default=[2, 8, 24, 72])
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--device", help="where to train")
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.model, torch.bfloat16)
    rows = [measured(model, tokenizer, count, options.device) for count in options.facts]
    names = ("facts", "asked by Ana", "about Ana", "everyday", "unknown, by Ana", "unknown, about Ana", "text", "s")
    print(f"\n{tables.ruled(tables.row(names))}", *(tables.row(one) for one in rows), sep="\n")


if __name__ == "__main__":
    main()
