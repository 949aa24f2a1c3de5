"""Streams of tokens to read, text that has nothing to do with them, and the past that a retriever finds in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rank_bm25 import BM25Okapi

from benchmarks.recall.datasets import DEFAULT_DATA, Conversation, load

UNRELATED = DEFAULT_DATA / "nq" / "oracle.jsonl.gz"
BLOCK = 64  # tokens of one retrievable block


class Stream(NamedTuple):
    """A conversation as tokens."""

    name: str
    tokens: list[int]


def streams(paths: Sequence[Path], tokenizer: Any, length: int) -> list[Stream]:
    """The first tokens of each conversation, written as `Speaker: text` lines.

    Raises:
        SystemExit: a file holds none, or is of another format.
    """
    found = [conversation for path in paths for conversation in load(path)]
    return [Stream(f"{one.kind} {one.name}", tokens(plain(one), tokenizer, length)) for one in found]


def plain(conversation: Conversation) -> str:
    """One line a turn."""
    return "\n".join(f"{turn.speaker or turn.role}: {turn.text}" for turn in conversation.turns)


def shipped() -> list[str]:
    """The lines of the conversation that memkit ships."""
    text = files("memkit").joinpath("data", "demo.jsonl").read_text(encoding="utf-8")
    return [f"{one['name']}: {one['content']}" for one in map(json.loads, text.splitlines())]


def unrelated(path: Path, tokenizer: Any, length: int) -> list[int]:
    """The first tokens of the passages in a file of another kind, of Natural Questions for one."""
    text = "\n".join(turn.text for conversation in load(path) for turn in conversation.turns[:200])
    return tokens(text, tokenizer, length)


def tokens(text: str, tokenizer: Any, length: int) -> list[int]:
    """The first tokens of a text; no tokenizer needs more than 12 characters for one, on average."""
    return list(tokenizer(text[: 12 * length], add_special_tokens=False)["input_ids"][:length])


def retrieved(stream: Sequence[int], before: int, query: Sequence[int], budget: int) -> list[int]:
    """The blocks of the stream's past that BM25 finds nearest to a query, in their order, within a budget of tokens."""
    blocks = [list(stream[at : at + BLOCK]) for at in range(0, before - BLOCK + 1, BLOCK)]
    if not blocks:
        return []
    best = np.argsort(-BM25Okapi(blocks).get_scores(list(query)), kind="stable")[: budget // BLOCK]
    return [token for at in sorted(best) for token in blocks[at]]


def thirds(surprise: np.ndarray) -> list[float]:
    """The mean of each third of a stream, in nats a token."""
    size = len(surprise) // 3
    return [float(surprise[at * size : (at + 1) * size].mean()) for at in range(3)]
