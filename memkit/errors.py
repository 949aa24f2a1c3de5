"""Everything that memkit raises on purpose; `memkit_storage.errors` draws the tree."""

from __future__ import annotations

from memkit_storage.errors import (
    CorruptRecord,
    DamageWarning,
    EmbedderMismatch,
    FormatTooNew,
    IdConflict,
    InvalidFilter,
    InvalidInput,
    InvalidVector,
    ItemNotFound,
    MemkitError,
    NotAMemory,
    ReadOnly,
    StorageFailed,
)

__all__ = [
    "CorruptRecord",
    "DamageWarning",
    "EmbedderMismatch",
    "FormatTooNew",
    "IdConflict",
    "InvalidFilter",
    "InvalidInput",
    "InvalidVector",
    "ItemNotFound",
    "MemkitError",
    "NotAMemory",
    "ReadOnly",
    "StorageFailed",
]
