"""Everything that memkit raises on purpose.

MemkitError
├── InvalidInput (ValueError)      a value that you passed cannot be stored or understood
│   ├── InvalidFilter              a `where` with an unknown operator or a mismatched type
│   └── InvalidVector              NaN, infinite, or of the wrong dimension
├── ItemNotFound (KeyError)        no such id, or not in this scope
├── IdConflict                     the id belongs to an item of another scope
├── NotAMemory                     the path is no .mem file: a directory, an image, another tool's file
├── FormatTooNew                   written by a newer memkit, or uses a feature that this one lacks
├── CorruptRecord                  bytes of the log are damaged; names path and offset
├── EmbedderMismatch               the file's vectors came from another embedder
├── ModelMismatch                  a saved state was made inside another language model
├── CallableFailed                 a callable or tokenizer that you passed raised, or returned nonsense
├── EmbedderUnavailable            the embedded default cannot run: weights are missing, or are not the pinned file
├── Busy                           another process or thread is consolidating this file
├── ReadOnly                       a past view, a read-only file or disk
└── StorageFailed (OSError)        the disk refused: full, short write, fsync error
"""

from __future__ import annotations


class MemkitError(Exception):
    """Root of memkit's errors. A message states the fact, the value, and the next step."""


class InvalidInput(MemkitError, ValueError):
    """A value that was passed in cannot be stored or understood; nothing was changed."""


class InvalidFilter(InvalidInput):
    """A `where` filter has an unknown operator, field or a mismatched type."""


class InvalidVector(InvalidInput):
    """A vector holds NaN or infinity, or has another dimension than the file."""


class ItemNotFound(MemkitError, KeyError):
    """No item has this id, or it lies outside the scope of the view."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class IdConflict(MemkitError):
    """The id already belongs to an item of another scope, which this call may not touch."""


class NotAMemory(MemkitError):
    """The path does not hold a .mem file."""


class FormatTooNew(MemkitError):
    """The file needs a newer memkit: both versions, or the unknown features, are named."""


class CorruptRecord(MemkitError):
    """Bytes of the log are damaged.

    Attributes:
        path: the file.
        offset: first damaged byte.
    """

    def __init__(self, message: str, *, path: str = "", offset: int = -1) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset


class EmbedderMismatch(MemkitError):
    """The vectors in the file were made by another embedder than the one in use."""


class EmbedderUnavailable(MemkitError):
    """The embedded default cannot run: its weights are missing, or are not the pinned file."""


class ModelMismatch(MemkitError):
    """A scope's saved state was made inside another language model than the one that is attached."""


class CallableFailed(MemkitError):
    """A callable that was passed in raised, or returned something unusable; nothing was changed."""


class Busy(MemkitError):
    """Another process or thread is consolidating this file; one at a time does."""


class ReadOnly(MemkitError):
    """A past view, a read-only file or a read-only disk cannot be changed."""


class StorageFailed(MemkitError, OSError):
    """The operating system refused a write: full disk, short write, failed fsync. Nothing was acknowledged."""


class DamageWarning(UserWarning):
    """Part of a log could not be read; the rest is served. `Memory.verify()` lists every damaged range."""
