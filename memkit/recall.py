"""From a query to what is said about it: candidates, ranking, and a context within a token budget."""

from __future__ import annotations

import math

import numpy as np

from memkit.items import Hit, Recall
from memkit.ranking import Background, Mode, rank
from memkit_storage.filters import Filter
from memkit_storage.index import Found, Index
from memkit_storage.lexical import K1
from memkit_storage.rows import Vector

CANDIDATES = 30  # of each signal; 30 and 100 rank alike on every benchmark (docs/benchmarks.md)
# A best hit below all of these bears no relation to the query: no better than the best of so many unrelated items
# (memkit.ranking), or both far from its meaning and without a fair share of its rare words. Measured with questions put
# to the wrong conversation (benchmarks/evidence.py).
CHANCE = 0.5
NEAR = 0.2
SHARED = 0.25
NOTHING = "Memory holds nothing about this."


def find(
    index: Index,
    query: str,
    vector: Vector | None,
    *,
    limit: int,
    where: Filter,
    mode: Mode,
    explain: bool,
) -> list[Hit]:
    """The `limit` best items for a query, best first."""
    found = index.search(vector, query, max(CANDIDATES, 3 * limit), where)
    best = rank(found.matches, mode=mode, background=_background(found))[:limit]
    rows = index.rows([scored.position for scored in best])
    bound = _bound(found)
    return [
        Hit.from_row(
            rows[one.position],
            score=one.score,
            signals={**(one.explained() if explain else one.signals), "coverage": one.lexical / bound},
        )
        for one in best
        if one.position in rows
    ]


def _bound(found: Found) -> float:
    """BM25 of a text that says the whole query, with its words that no item holds."""
    n = found.items
    return (K1 + 1) * sum(math.log(1 + (n - df + 0.5) / (df + 0.5)) for df in found.frequencies) or 1.0


def _background(found: Found) -> Background:
    spread = found.cosines if len(found.cosines) else np.zeros(1, np.float32)
    return Background.of(found.items, found.frequencies, dense_mean=float(spread.mean()), dense_std=float(spread.std()))


def estimate_tokens(text: str) -> int:
    """A tokenizer-free estimate on the safe side: four bytes a token, and never fewer than one a word."""
    return max(len(text.encode()) // 4 + 1, len(text.split())) if text else 0


def bears_on(hit: Hit) -> bool:
    """Whether a hit stands out from what an unrelated item would score. `coverage` is the share of the query said."""
    near = hit.signals["dense"] >= NEAR or hit.signals["coverage"] >= SHARED
    return near and hit.score > CHANCE - 1e-9


def compose(query: str, hits: list[Hit], max_tokens: int) -> Recall:
    """Hits, best first, as far as the budget goes, written as numbered lines in order of time.

    When no hit bears on the query, there is no evidence, and nothing is cited.
    """
    chosen: list[Hit] = []
    spent = 0
    for hit in hits if any(map(bears_on, hits)) else []:
        cost = estimate_tokens(_line(999, hit)) + 1
        if spent + cost <= max_tokens:
            chosen.append(hit)
            spent += cost
    ordered = sorted(chosen, key=lambda hit: (hit.occurred_at, hit.position))
    lines = [_line(number, hit) for number, hit in enumerate(ordered, 1)]
    text = "\n".join(lines) if lines else NOTHING
    return Recall(
        query=query,
        text=text,
        hits=chosen,
        citations={number: hit.id for number, hit in enumerate(ordered, 1)},
        tokens=estimate_tokens(text),
        evidence=bool(chosen),
    )


def _line(number: int, hit: Hit) -> str:
    name = hit.metadata.get("name") or hit.metadata.get("role")
    speaker = f"{name}: " if isinstance(name, str) and name else ""
    return f"[{number}] {hit.occurred_at:%Y-%m-%d} {speaker}{hit.text}"
