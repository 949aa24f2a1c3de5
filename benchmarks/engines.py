"""What an engine must do for `benchmarks.speed`, memkit itself, and the bare file that it is measured against.

An operation that an engine does not have raises `Unsupported`, and stands as such in the table.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.workload import Entry, Floats, Question, Scope


class Unsupported(Exception):
    """The engine has no such operation."""


class Engine(ABC):
    """A store of texts with vectors in one folder; what is there already is opened.

    Attributes:
        modules: what must be importable.
        bulk: how many items one call of `add` takes best.
        syncs: how often a single add calls fsync or fdatasync, as counted with strace.
        finds: what `search` ranks by.
    """

    modules: ClassVar[Sequence[str]] = ()
    bulk: ClassVar[int] = 10_000
    syncs: ClassVar[str] = ""
    finds: ClassVar[str] = "words and meaning"

    @abstractmethod
    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        """Open; `fast` asks for acknowledgement without a sync."""

    @abstractmethod
    def add(self, entries: Sequence[Entry]) -> None:
        """Add items in one acknowledged call, or in as few as there can be."""

    def search(self, question: Question, k: int, scope: Scope) -> list[str]:
        """Texts of the best items by words and meaning."""
        raise Unsupported

    def nearest(self, question: Question, k: int) -> list[str]:
        """Texts of the best items by meaning alone."""
        raise Unsupported

    def listing(self, scope: Scope, k: int) -> list[str]:
        """Texts of the first items of a scope."""
        raise Unsupported

    def settle(self) -> None:
        """Wait for, or make, the indexes over what was added."""

    def rebuild(self) -> None:
        """Make every index anew."""
        raise Unsupported

    def close(self) -> None:
        """Give everything back."""


class Lookup:
    """An embedder whose vectors are known."""

    def __init__(self, vectors: Mapping[str, Floats]) -> None:
        self._vectors = vectors

    def embed_documents(self, texts: Sequence[str]) -> Floats:
        return np.stack([self._vectors[text] for text in texts])

    def embed_query(self, text: str) -> Floats:
        return self._vectors[text]


class Memkit(Engine):
    """memkit as it comes."""

    modules = ("memkit.memory",)
    syncs = "once"

    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        self._folder, self._embedder, self._fast = folder, Lookup(vectors), fast
        self._open()

    def _open(self) -> None:
        from memkit import Memory

        self._memory = Memory(
            self._folder / "items.mem",
            embedder=self._embedder,
            durability="os" if self._fast else "fsync",
            cache_dir=self._folder / "cache",
        )

    def add(self, entries: Sequence[Entry]) -> None:
        from memkit.ingest import Draft

        if len(entries) == 1:
            self._memory.add(entries[0].text, **entries[0].scope)
        else:
            self._memory.add_drafts([Draft(entry.text, **entry.scope) for entry in entries])

    def search(self, question: Question, k: int, scope: Scope) -> list[str]:
        return [hit.text for hit in self._memory.search(question.text, limit=k, **scope)]

    def nearest(self, question: Question, k: int) -> list[str]:
        return [hit.text for hit in self._memory.search(question.text, limit=k, mode="vector")]

    def listing(self, scope: Scope, k: int) -> list[str]:
        return [item.text for item in self._memory.list(limit=k, **scope).items]

    def settle(self) -> None:
        self.close()  # waits for the index
        self._open()

    def rebuild(self) -> None:
        self._memory.rebuild()

    def close(self) -> None:
        self._memory.close()


class Bare(Engine):
    """The bytes of a single add, appended to a plain file and synced: what the disk allows."""

    syncs = "once"
    finds = ""

    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        self._fd = os.open(folder / "bare", os.O_RDWR | os.O_CREAT)
        self._end = os.fstat(self._fd).st_size
        self._fast = fast

    def add(self, entries: Sequence[Entry]) -> None:
        data = b"".join(e.vector.astype(np.float16).tobytes() + e.text.encode() + bytes(240) for e in entries)
        self._end += os.pwrite(self._fd, data, self._end)
        if not self._fast:
            os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
