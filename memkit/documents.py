"""Texts under paths inside a memory: the notes that an agent keeps as files, without a directory.

A document is an ordinary item, so it has versions and a history, is found by search and recall, and goes with `erase`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from memkit.ingest import MAX_TEXT, Draft, check_name, check_text
from memkit.items import Hit, Item
from memkit.memory import Memory
from memkit.views import everything, own_id
from memkit_storage.errors import InvalidInput, ItemNotFound

Paths = list[str]  # `list` is a method here
Versions = list["Version"]
Hits = list[Hit]
_EDITING = threading.RLock()  # of every handle in this process: what is read is what is changed


class Version(NamedTuple):
    """What a path held from a time on; None: nothing, it was deleted."""

    at: datetime
    text: str | None


class Documents:
    """The documents of a memory, or of a view of it. Thread-safe.

    A path is any non-empty string; what stands before a `/` in it is a folder, which exists as long as something is in
    it. Between processes the last writer wins, and the history keeps what both wrote.

    Example:
        >>> documents = Documents(memory)
        >>> documents.write("/notes/diet.md", "Allergic to peanuts.")
        >>> documents.search("what must she not eat?")[0].metadata["document"]
        '/notes/diet.md'
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    # one document

    def read(self, path: str) -> str:
        """The text at a path, exactly as it was written.

        Raises:
            ItemNotFound: no document has this path.
        """
        return _text(self._item(path))

    def __contains__(self, path: str) -> bool:
        return self.memory.get(self._id(path)) is not None

    def write(self, path: str, text: str) -> Item:
        """Make a document, or a new version of it.

        Raises:
            InvalidInput: more than one item holds (1 MiB of UTF-8), text that is no text, or a path through another
                document or to a folder.
        """
        draft = self._draft(path, text)
        with _EDITING:
            if path not in self:
                self._check_free(path)
            return self.memory.add_drafts([draft])[0]

    def create(self, path: str, text: str) -> Item:
        """Make a document that is not there yet.

        Raises:
            InvalidInput: it is there, or as `write`.
        """
        with _EDITING:
            self._check_absent(path)
            return self.write(path, text)

    def edit(self, path: str, change: Callable[[str], str]) -> str:
        """Write what `change` makes of the present text, and return it; no other thread writes in between.

        Raises:
            ItemNotFound: no document has this path. What `change` raises; nothing is written then.
            InvalidInput: as `write`.
        """
        with _EDITING:
            text = change(self.read(path))
            self.write(path, text)
        return text

    def history(self, path: str) -> Versions:
        """What the path held, oldest first; empty when it never held anything. A new name begins a new history."""
        events = self.memory.history(self._id(path))
        return [Version(event.at, None if event.item is None else _text(event.item)) for event in events]

    # documents and folders

    def list(self, folder: str = "") -> Paths:
        """The paths in a folder and in those within it, sorted; without one, all."""
        return sorted(item.metadata["document"] for item in self._within(folder))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Path -> bytes of UTF-8, of what `list` shows, in its order."""
        sizes = {item.metadata["document"]: len(_text(item).encode()) for item in self._within(folder)}
        return dict(sorted(sizes.items()))

    def delete(self, path: str) -> int:
        """End a document, or everything in a folder, together. Returns how many documents that were."""
        with _EDITING:
            return self.memory.delete([item.id for item in self._at(path)])

    def rename(self, old: str, new: str) -> int:
        """Move a document, or everything in a folder. Returns how many documents that were.

        The new documents are written and the old ones end together.

        Raises:
            ItemNotFound: there is nothing at `old`.
            InvalidInput: there is something at `new`, or it lies within `old`.
        """
        with _EDITING:
            items = self._at(old)
            if not items:
                raise ItemNotFound(f"no document or folder {old!r:.80}; list() shows what there is")
            self._check_absent(new)
            if _is_below(new, old):
                raise InvalidInput(f"{new!r:.80} lies within {old!r:.80}; choose a path outside it")
            self._check_free(new)
            self.memory.replace([item.id for item in items], [self._moved(item, old, new) for item in items])
        return len(items)

    def search(self, query: str, *, limit: int = 10) -> Hits:
        """The documents that fit a query best; `hit.metadata["document"]` is the path. Arguments as `Memory.search`."""
        return self.memory.search(query, limit=limit, where={"document": {"exists": True}})

    # how a document is an item

    def _id(self, path: str) -> str:
        return own_id(self.memory, "document", check_name(path, "the path of a document"))

    def _item(self, path: str) -> Item:
        item = self.memory.get(self._id(path))
        if item is None:
            raise ItemNotFound(f"no document {path!r:.80}; list() shows what there is, history() what was")
        return item

    def _at(self, path: str) -> tuple[Item, ...]:
        item = self.memory.get(self._id(path))
        return (item,) if item else tuple(self._within(path))

    def _within(self, folder: str) -> Iterator[Item]:
        items = everything(self.memory, {"document": {"exists": True}})
        return (item for item in items if not folder or _is_below(item.metadata["document"], folder))

    def _draft(self, path: str, text: str) -> Draft:
        """An item needs words: of a blank text they are its path, and the text itself stands beside it."""
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_TEXT:
            raise InvalidInput(
                f"the document {path!r:.80} of {size} bytes is more than one item holds ({MAX_TEXT}); split it"
            )
        if text.strip():
            return Draft(check_text(text, "the document"), id=self._id(path), metadata={"document": path})
        return Draft(path, id=self._id(path), metadata={"document": path, "blank": text})

    def _moved(self, item: Item, old: str, new: str) -> Draft:
        path = new + item.metadata["document"][len(old) :]
        draft = self._draft(path, _text(item))
        return Draft(draft.text, id=draft.id, metadata=draft.metadata, occurred_at=item.occurred_at)

    # checks

    def _check_absent(self, path: str) -> None:
        if self._at(path):
            raise InvalidInput(f"{path!r:.80} is there already; write() replaces a document, delete() ends it")

    def _check_free(self, path: str) -> None:
        """A path cannot be a folder and a document at once."""
        steps = path.split("/")
        above = ["/".join(steps[:end]) for end in range(1, len(steps))]
        taken = [folder for folder in above if folder and folder in self]
        if taken:
            raise InvalidInput(f"{path!r:.80} goes through the document {taken[0]!r:.80}; choose another path")
        if any(self._within(path)):
            raise InvalidInput(f"{path!r:.80} is a folder; choose another path")


def _text(item: Item) -> str:
    text: str = item.metadata.get("blank", item.text)
    return text


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/") and path != folder
