"""Everything that memkit raises on purpose; `memkit_storage.errors` draws the tree."""

from __future__ import annotations

from memkit_storage.errors import (
    Busy,
    CallableFailed,
    CorruptRecord,
    DamageWarning,
    EmbedderMismatch,
    EmbedderUnavailable,
    FormatTooNew,
    IdConflict,
    InvalidFilter,
    InvalidInput,
    InvalidVector,
    ItemNotFound,
    MemkitError,
    ModelMismatch,
    NotAMemory,
    ReadOnly,
    StorageFailed,
)

__all__ = [
    "Busy",
    "CallableFailed",
    "CorruptRecord",
    "DamageWarning",
    "EmbedderMismatch",
    "EmbedderUnavailable",
    "FormatTooNew",
    "IdConflict",
    "InvalidFilter",
    "InvalidInput",
    "InvalidVector",
    "ItemNotFound",
    "MemkitError",
    "ModelMismatch",
    "NotAMemory",
    "ReadOnly",
    "StorageFailed",
]
