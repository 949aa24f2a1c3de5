"""Every item that a filter selects, for frameworks whose listings have no pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memkit import Item, Memory

PAGE = 1000


def everything(memory: Memory, where: Mapping[str, Any] | None = None) -> Iterator[Item]:
    """All items of a view that match, in the order in which they were first recorded."""
    cursor, more = None, True
    while more:
        page = memory.list(where, limit=PAGE, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        more = cursor is not None
