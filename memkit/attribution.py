"""Which of the recalled items did an answer use? Told from the answer alone, on the side of silence.

An answer that cites "[2]" has used item 2. Otherwise each item is asked how much of the answer it explains: the share
of the answer's content words, by how few of the recalled items hold them, that stand in it and not already in the
question. One item is named, if it explains most of the answer and clearly more than any other; between items that
explain alike the one is named that is clearly nearer in meaning, or none. Measured on LoCoMo's answers, alone and
within a sentence: `python -m benchmarks.recall.attribution`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from memkit.evidence import FUNCTION_WORDS
from memkit.items import Hit
from memkit_storage.analyzer import analyze
from memkit_storage.rows import Vector

CITED = 0.95
MOST = 0.7  # share of the answer that an item must explain
LEAD = 0.2  # of it, by which it must explain more than an item that is not named
STRANGE = 0.5  # what a word counts that no item has: an answer has words of its own
NEARER = 0.1  # cosine by which one of several that explain alike must be nearer to the answer than the others
_CITATION = re.compile(r"\[(\d{1,9})\]")
_NOTHING = re.compile(
    r"\b(?:i (?:do not|don't|cannot|can't) (?:know|find|recall|remember|tell)|"
    r"no (?:information|mention|evidence|record)|not (?:mentioned|known|specified|stated|sure)|"
    r"unknown|unclear|nothing about|memory holds nothing)\b",
    re.IGNORECASE,
)


def attribute(
    answer: str,
    query: str,
    hits: Sequence[Hit],
    *,
    citations: Mapping[int, str],
    near: Mapping[str, float],
) -> dict[str, float]:
    """Probability, by item id, of the items that an answer uses; items that it may or may not use are left out.

    Args:
        citations: number in the recall's text -> item id.
        near: item id -> cosine of the answer with the item; ids may be missing.
    """
    cited = [citations[int(number)] for number in _CITATION.findall(answer) if int(number) in citations]
    if cited:
        return dict.fromkeys(cited, CITED)
    if _NOTHING.search(answer):
        return {}
    explained = explains(answer, query, hits)
    best = max(explained.values(), default=0.0)
    alike = [id_ for id_, share in explained.items() if share > best - LEAD]
    if best < MOST:
        return {}
    if len(alike) > 1:
        alike.sort(key=lambda id_: -near.get(id_, 0.0))
        if near.get(alike[0], 0.0) - near.get(alike[1], 0.0) < NEARER or explained[alike[0]] < MOST:
            return {}
    return {alike[0]: explained[alike[0]]}


def explains(answer: str, query: str, hits: Sequence[Hit]) -> dict[str, float]:
    """Item id -> share of the answer that the item explains, in [0, 1]; empty if the answer says nothing of its own."""
    asked = set(analyze(query)) | FUNCTION_WORDS
    said = {hit.id: set(analyze(hit.text)) for hit in hits}
    own = set(analyze(_CITATION.sub(" ", answer))) - asked
    held = {word: sum(word in words for words in said.values()) for word in own}
    rarity = {word: math.log(1 + len(said) / (0.5 + n)) * (1 if n else STRANGE) for word, n in held.items()}
    total = sum(rarity.values())
    if not total:
        return {}
    return {id_: sum(rarity[word] for word in own & words) / total for id_, words in said.items()}


def nearness(answer: Vector, vectors: Mapping[int, Vector], hits: Sequence[Hit]) -> dict[str, float]:
    """Cosine of an answer (d,) with each item, by id."""
    length = float(np.linalg.norm(answer)) or 1.0
    known = {hit.id: vectors[hit.position] for hit in hits if hit.position in vectors}
    return {id_: float(vector @ answer) / length for id_, vector in known.items()}
