"""memkit: one memory with three tiers for an LLM agent, in one file.

A memory is an append-only log; everything else is derived from it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from memkit.aio import AsyncMemory
    from memkit.embed import Embedder
    from memkit.errors import MemkitError
    from memkit.items import Change, Hit, Item, Page, Recall
    from memkit.memory import Memory

_HOMES = {
    "AsyncMemory": "memkit.aio",
    "Change": "memkit.items",
    "Embedder": "memkit.embed",
    "Hit": "memkit.items",
    "Item": "memkit.items",
    "Memory": "memkit.memory",
    "MemkitError": "memkit.errors",
    "Page": "memkit.items",
    "Recall": "memkit.items",
}

__all__ = [
    "AsyncMemory",
    "Change",
    "Embedder",
    "Hit",
    "Item",
    "MemkitError",
    "Memory",
    "Page",
    "Recall",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import memkit` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'memkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__", "errors"]
