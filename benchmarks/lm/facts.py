"""Facts read once in a stream, asked later in other words: what a state answers from an empty context, and what recall does.

    python -m benchmarks.lm.facts                                    # filler: the conversation that memkit ships
    python -m benchmarks.lm.facts --data ../shared/data/locomo/conv-26.json.gz --model qwen

Twenty facts with made-up names stand between the lines of a chat, one each; every line is also an item of the memory. Then
each is asked by `Question: … Answer:`, greedily, 12 tokens; right is an answer that contains the expected word. Beside it
the loss of the expected word, in nats a token, which moves before answers do. *Prompt*: tokens of prompt a question.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.lm.streams import shipped, tokens
from benchmarks.models import MODELS, load
from benchmarks.recall import datasets
from memkit import Memory

FACTS = (
    ("My sister Ilvane has opened a bakery in Tromso.", "In which city does Ilvane sell bread?", "Tromso"),
    ("We named the new puppy Zephyr.", "What is the young dog called?", "Zephyr"),
    ("Doctor Okonjo moved my appointment to Thursday.", "On which weekday do I see Doctor Okonjo?", "Thursday"),
    ("The code of the garage door is 7315 now.", "Which number opens the garage?", "7315"),
    ("Uncle Bertrand collects old typewriters.", "What does Bertrand gather as a hobby?", "typewriter"),
    ("I swapped my car for a Škoda last week.", "What make of car do I drive?", "koda"),
    ("Marisol plays the oboe in the city orchestra.", "Which instrument does Marisol play?", "oboe"),
    ("Our flight lands at Porto, not at Lisbon.", "At which airport will we arrive?", "Porto"),
    ("Pepijn cannot eat walnuts, he gets a rash.", "Which food must Pepijn avoid?", "walnut"),
    ("The plumber's name is Hargreave.", "Who repairs the pipes?", "Hargreave"),
    ("Grandma's favourite flower is the peony.", "Which flower does Grandma love most?", "peon"),
    ("I finished reading Middlemarch yesterday.", "Which novel did I just complete?", "Middlemarch"),
    ("Quentin has started to work as a glazier.", "What is the profession of Quentin?", "glaz"),
    ("The wifi password at the cabin is bluefinch.", "How do I get into the cabin's network?", "bluefinch"),
    ("Sunniva was born in Reykjavik.", "Where does Sunniva come from?", "Reykjav"),
    ("Our landlord raised the rent to 1240 euros.", "How much do I pay for the flat each month?", "1240"),
    ("The choir meets in room 58 from now on.", "In which room is the choir?", "58"),
    ("Anatol married Fenella in spring.", "Who is the wife of Anatol?", "Fenella"),
    ("My new bicycle is turquoise.", "What colour is my bike?", "turquoise"),
    ("Leopold supports the football club of Getafe.", "Which team is Leopold a fan of?", "Getafe"),
)
ANSWER = 12  # tokens generated


class Score(NamedTuple):
    """Share of right answers, loss of the expected word, tokens of prompt a question."""

    right: float
    loss: float
    prompt: float


def lines(paths: Sequence[Path]) -> list[str]:
    """The chat that facts stand in."""
    if not paths:
        return shipped()
    found = [one for path in paths for one in datasets.load(path)]
    return [f"{turn.speaker or turn.role}: {turn.text}" for one in found for turn in one.turns]


def planted(chat: Sequence[str]) -> list[str]:
    """The chat with a fact after every few lines."""
    every = max(1, len(chat) // len(FACTS))
    said = chat[0].partition(":")[0]
    out: list[str] = []
    for at, (statement, _, _) in enumerate(FACTS):
        out += [*chat[at * every : (at + 1) * every], f"{said}: {statement}"]
    return out + list(chat[len(FACTS) * every :])


def asked(model: Any, tokenizer: Any, before: Callable[[str], str], settle: Callable[[], None] = lambda: None) -> Score:
    """Put every question after what `before` makes of it; `settle` runs after each."""
    right, loss, length = 0, 0.0, 0
    for _, question, answer in FACTS:
        prompt = f"{before(question)}Question: {question}\nAnswer:"
        given = torch.tensor([tokens(prompt, tokenizer, 4096)])
        made = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=ANSWER,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        right += answer.lower() in tokenizer.decode(made[0, given.shape[1] :]).lower()
        loss += _loss(model, given, tokens(f" {answer}", tokenizer, 16))
        length += given.shape[1]
        settle()
    return Score(right / len(FACTS), loss / len(FACTS), length / len(FACTS))


@torch.no_grad()
def _loss(model: Any, given: torch.Tensor, answer: list[int]) -> float:
    target = torch.tensor(answer)
    scores = model(torch.cat([given, target[None]], dim=1)).logits[0, -len(answer) - 1 : -1].float()
    return float(torch.nn.functional.cross_entropy(scores, target))


def measure(model: Any, tokenizer: Any, memory: Memory, chat: Sequence[str], budget: int) -> dict[str, Score]:
    """Every condition, on a memory that holds the chat as items."""

    def recalled(question: str) -> str:
        return memory.recall(question, max_tokens=budget).text + "\n"

    scores = {"frozen": asked(model, tokenizer, lambda _: "")}
    scores["frozen, recall in the prompt"] = asked(model, tokenizer, recalled)
    with memory.attach(model, tokenizer) as lm:
        lm.listen = False
        scores |= {f"recall read into the state, {n} x": _into(lm, memory, budget, n) for n in (1, 8)}
        lm.read("\n".join(chat))
        scores["the stream read into the state"] = asked(model, tokenizer, lambda _: "")
        scores["the stream read, recall in the prompt"] = asked(model, tokenizer, recalled)
    return scores


def _into(lm: Any, memory: Memory, budget: int, times: int) -> Score:
    """Each question from the start, with what recall finds read first, the first time by recall itself."""
    start = lm.snapshot()

    def reads(question: str) -> str:
        text = memory.recall(question, max_tokens=budget, into=lm).text
        for _ in range(times - 1):
            lm.read(text)
        return ""

    return asked(lm.model, lm.tokenizer, reads, lambda: lm.restore(start))


def show(scores: dict[str, Score]) -> str:
    """A Markdown table."""
    head = ["| | right | loss of the answer | prompt |", "| --- | --- | --- | --- |"]
    rows = [f"| {name} | {100 * s.right:.0f} % | {s.loss:.2f} | {s.prompt:.0f} |" for name, s in scores.items()]
    return "\n".join(head + rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="FILE", help="chats to plant the facts in")
    parser.add_argument("--lines", type=int, default=120, help="of the chat")
    parser.add_argument("--budget", type=int, default=120, help="tokens that recall may take")
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    model, tokenizer = load(options.model)
    chat = planted(lines(options.data)[: options.lines])
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "facts.mem") as memory:
        memory.add([{"role": "user", "content": line} for line in chat])
        scores = measure(model, tokenizer, memory, chat, options.budget)
    print(f"{options.model}, {len(chat)} lines, {len(FACTS)} facts\n\n{show(scores)}")


if __name__ == "__main__":
    main()
