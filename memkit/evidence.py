"""Is there evidence at all? A probability, from what of the query the memory has never heard of.

    logit = -0.9 + 7.5 * coverage - 4.5 * unknown - 2.5 * strangers,   shrunk while the memory is small

coverage: the largest share of the query that one candidate says, with its neighbours; unknown: the share of it that
no item says; strangers: the share of its capitalised words that no item, speaker or scope is called. Fitted to
questions put to the right and to wrong LoCoMo conversations, and to trivia (`python -m benchmarks.recall` prints the
AUROC). It notices what is foreign to a memory; that a familiar subject lacks just this answer, it cannot see.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from memkit.items import Hit
from memkit.recall import Pool
from memkit.signals import NAMES
from memkit_storage.analyzer import analyze

NOTHING = "Memory holds nothing about this."
THRESHOLD = 0.1
FEW = 50  # items, at which half of what speaks against evidence is believed
WEIGHTS = (-0.9, 7.5, -4.5, -2.5)  # of 1 and the clues
FUNCTION_WORDS = frozenset(
    analyze(
        "a an the and or but if of to in on at by for from with about into over after before as is are was were be "
        "been being am do does did done have has had having i you he she it we they me him her us them my your his its "
        "our their mine this that these those there here what which who whom whose when where why how can could will "
        "would shall should may might must not no nor so than then too very just also any some all both each more most "
        "other tell know please there's it's that's i'm don't didn't"
    )
)
_COVERAGE = NAMES.index("coverage_near")


def confidence(pool: Pool, found: Sequence[Hit], scope: Iterable[str]) -> float:
    """Probability in [0, 1] that memory holds evidence for the query that a pool was made for.

    Args:
        found: the best hits. `scope`: names that the search is bound to; the query may well use them.
    """
    if not found or pool.query is None:
        return 0.0
    logit = float(np.dot(WEIGHTS, (1.0, *clues(pool, found, scope))))
    return 1 / (1 + math.exp(-logit * pool.items / (pool.items + FEW)))


def clues(pool: Pool, found: Sequence[Hit], scope: Iterable[str]) -> tuple[float, float, float]:
    """(coverage, unknown, strangers) of a pool with a query; function words do not count."""
    query, known = pool.query, pool.known
    assert query is not None
    rarity = dict(zip(query.terms, query.idf.tolist(), strict=True))
    content = sum(idf for term, idf in rarity.items() if term not in FUNCTION_WORDS)
    strangers = _strangers(query.text, known, found, scope)
    if not content:
        return 0.5, 0.0, strangers
    unknown = sum(idf for term, idf in rarity.items() if term not in FUNCTION_WORDS and term not in known)
    coverage = float(pool.signals[:, _COVERAGE].max()) * sum(rarity.values()) / content
    return min(coverage, 1.0), unknown / content, strangers


def abstains(sure: float) -> bool:
    """Whether a recall with this confidence says that there is nothing."""
    return sure < THRESHOLD


def _strangers(query: str, known: frozenset[str], found: Sequence[Hit], scope: Iterable[str]) -> float:
    """Share of the capitalised words, but the first, that the memory has never heard of."""
    names = {term for word in query.split()[1:] if word[:1].isupper() for term in analyze(word)}
    called = [*scope, *(str(hit.metadata.get("name") or "") for hit in found)]
    called += [name for hit in found for name in (hit.user_id, hit.agent_id, hit.run_id) if name]
    heard = known.union(*(analyze(name) for name in called))
    return len(names - heard) / len(names) if names else 0.0
