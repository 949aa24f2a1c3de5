"""A tokenizer of words with what generation needs, for tiny random models."""

from __future__ import annotations

import re
from zlib import crc32


class Words:
    """A token is a word with the space before it, numbered as it comes; like BPE, a name is cut alike everywhere.

    When half of the numbers are taken, further words share the others.
    """

    bos_token_id, eos_token_id, chat_template = 0, 1, None

    def __init__(self, size: int = 260) -> None:
        self.size, self.words = size, ["<s>", "</s>"]

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [self._number(word) for word in re.findall(r"\s?[\w]+|\s?[^\w\s]|\s", text)]}

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
