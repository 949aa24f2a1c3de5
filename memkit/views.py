"""What a feature that is built on a memory needs of a view: everything in it, and ids that are its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from memkit.items import Item
from memkit.memory import Memory

PAGE = 1000


def everything(memory: Memory, where: Mapping[str, Any] | None = None) -> Iterator[Item]:
    """All items of a view that match, in the order in which they were first recorded."""
    cursor, more = None, True
    while more:
        page = memory.list(where, limit=PAGE, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        more = cursor is not None


def own_id(memory: Memory, *parts: str) -> str:
    """The id of what `parts` name within a view: 32 hex digits of a SHA-256.

    An id belongs to the scope that used it first, so equal parts have different ids in different scopes.
    """
    named = json.dumps([sorted(memory.bound.items()), *parts])  # JSON, so that no two parts run together
    return hashlib.sha256(named.encode()).hexdigest()[:32]
