"""What a feature that is built on a memory needs of a view: everything in it, and ids that are its own.

An id belongs to the scope that used it first, so equal names must become different ids in different scopes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from memkit.arguments import qualified
from memkit.items import Item
from memkit.memory import Memory
from memkit_storage.errors import InvalidInput

PAGE = 1000
ANY_ITEM = {"position": {"gte": 0}}  # for verbs that want a `where`, so that nobody wipes a file by mistake


def everything(memory: Memory, where: Mapping[str, Any] | None = None) -> Iterator[Item]:
    """All items of a view that match, in the order in which they were first recorded."""
    cursor, more = None, True
    while more:
        page = memory.list(where, limit=PAGE, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        more = cursor is not None


def own_id(memory: Memory, *parts: str) -> str:
    """The id of what `parts` name within a view: 32 hex digits of a SHA-256."""
    named = json.dumps([sorted(memory.bound.items()), *parts])  # JSON, so that no two parts run together
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def named(memory: Memory, name: str) -> str:
    """The id of what callers know by a name of their own: the name, in a view behind its scope.

    What a view holds under the bare name already (imported, or added by its id) keeps that.
    """
    id_ = qualified(memory.bound, name) if memory.bound else name
    return name if id_ != name and _holds(memory, name) else id_


def name_of(memory: Memory, id_: str) -> str:
    """The name that `named` made an id from."""
    return id_.removeprefix(qualified(memory.bound, "")) if memory.bound else id_


def _holds(memory: Memory, name: str) -> bool:
    try:
        return memory.get(name) is not None
    except InvalidInput:  # it is no id
        return False
