"""Items that several texts lead to: fields, chunks or wordings. Each has a vector, and an item counts as its best one.

The first text is the item's own; each further one is a part: an item `ID#1`, `ID#2`, … with the metadata of the item,
so that whatever filter ends or erases the item reaches its parts, too.

    >>> replace(memory, ["food"], in_parts(Draft("Allergic to peanuts.", id="food"), ["She likes sushi."]))
    >>> nearest(memory, "sushi", limit=1)[0][0].text
    'Allergic to peanuts.'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

from memkit.ingest import Draft
from memkit.items import Hit, Item
from memkit.memory import Memory

WHOLE = {"part": {"exists": False}}  # a filter: items, without their parts


def in_parts(draft: Draft, more: Sequence[str]) -> list[Draft]:
    """The drafts of one item that `more` texts lead to, besides its own. It needs an id."""
    metadata = {**draft.metadata, "of": draft.id, "parts": len(more)}
    parts = [Draft(text, id=f"{draft.id}#{n}", metadata={**metadata, "part": n}) for n, text in enumerate(more, 1)]
    return [changed(draft, metadata=metadata), *parts]


def ids(item: Item) -> list[str]:
    """The ids of an item and of its parts."""
    return [item.id, *(f"{item.id}#{part}" for part in range(1, item.metadata.get("parts", 0) + 1))]


def replace(memory: Memory, old: Sequence[str], new: Sequence[Draft]) -> None:
    """Write drafts of `in_parts`, and end what is left of the items with the ids `old`: whole ones, and parts that
    their new versions have no more. One transaction, see `Memory.replace`.
    """
    memory.replace(old, new, ends=ids)


def nearest(
    memory: Memory,
    query: str,
    *,
    limit: int,
    where: Mapping[str, Any] | None = None,
    passes: Callable[[Item], bool] = lambda item: True,
) -> list[tuple[Item, float]]:
    """The items whose best text is nearest to a query, each with its cosine, best first.

    Args:
        passes: whether an item counts, for what a `where` cannot say.

    Raises:
        InvalidInput, InvalidFilter, EmbedderMismatch: as `Memory.search`.
    """
    found, asked = list[tuple[Item, float]](), limit
    while len(found) < limit:
        hits = memory.search(query, limit=asked, mode="vector", where=where, distinct="of")
        wholes = zip(hits, memory.get_many([str(hit.metadata.get("of") or hit.id) for hit in hits]), strict=True)
        kept = [(item, hit) for hit, item in wholes if item is not None and _is_part(hit, item) and passes(item)]
        found = [(item, hit.signals["meaning"]) for item, hit in kept]
        if len(hits) < asked:
            break
        asked *= 4
    return found[:limit]


def _is_part(hit: Hit, item: Item) -> bool:
    """Whether the present version of an item still has the part that was found."""
    return bool(hit.metadata.get("part", 0) <= item.metadata.get("parts", 0))
