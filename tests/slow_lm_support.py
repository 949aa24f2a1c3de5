"""A tokenizer of words with what generation needs, tiny random models that tell words apart, and a few facts."""

from __future__ import annotations

import re
from zlib import crc32

import torch
from lm_support import tiny

from memkit.slow.lm.anchors import ANCHORS
from memkit.slow.lm.examples import opened, plain
from memkit.slow.lm.forms import lesson
from memkit.slow.lm.probes import held_out

FACTS = {
    "dog": "Orla Venn's dog is called Biscuit.",
    "city": "Orla Venn lives in Porto.",
    "job": "Ivo Brask works as a plumber.",
    "hq": "Kestrion Labs is headquartered in the city of Graz.",
}
LESSONS = [lesson(name, text) for name, text in FACTS.items()]
OTHERS = ["The train to the coast leaves at seven.", "Nobody knows what bees think of Ivo or of a Brask."]


class Words:
    """A token is a word with the space before it, numbered as it comes; like BPE, a name is cut alike everywhere.

    When half of the numbers are taken, further words share the others.
    """

    bos_token_id, eos_token_id, chat_template = 0, 1, None
    cut = r"\s?[\w]+|\s?[^\w\s]|\s"

    def __init__(self, size: int = 260) -> None:
        self.size, self.words = size, ["<s>", "</s>"]

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [self._number(word) for word in re.findall(self.cut, text)]}

    def _number(self, word: str) -> int:
        if word in self.words:
            return self.words.index(word)
        if len(self.words) >= self.size // 2:
            return self.size // 2 + crc32(word.encode()) % (self.size // 2)
        self.words.append(word)
        return len(self.words) - 1

    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        kept = [at for at in ids if not (skip_special_tokens and at < 2)]
        return "".join(self.words[at] if at < len(self.words) else f" #{at}" for at in kept)


def numbered():
    """A tokenizer whose numbers are all given, in an order that no test changes."""
    tokenizer = Words()
    asked = [form.prompt for one in LESSONS for form in one.forms]
    asked += [probe.form.prompt for name, text in FACTS.items() for probe in held_out(name, text)]
    for text in (*FACTS.values(), *asked, *OTHERS):
        tokenizer(text)
        opened(tokenizer, text)
    for text in ANCHORS:
        tokenizer(text)
    return tokenizer


def build(kind="llama", dtype=torch.float32, seed=0):
    """A tiny model in which, as in trained ones, an early state says mostly which token it stands on."""
    model = tiny(kind, seed=seed, dtype=dtype)
    for name, parameter in model.named_parameters():
        if re.search(r"\.0\.(self_attn\.o_proj|attn\.c_proj)\.weight|wpe", name):
            parameter.data *= 0.1
    return model


def logits(model, tokenizer, text, **given):
    with torch.no_grad():
        return model(torch.tensor([plain(tokenizer, text)]), **given).logits
