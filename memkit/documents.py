"""Texts under paths inside a memory: the notes that an agent keeps as files, without a directory.

A document is an ordinary item, so it has versions and a history, is found by search and recall, and goes with `erase`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from memkit.ingest import MAX_TEXT, Draft, check_name, check_text
from memkit.items import Hit, Item
from memkit.memory import Memory
from memkit.views import everything, own_id
from memkit_storage.errors import InvalidInput, ItemNotFound

Paths = list[str]  # `list` is a method here
Versions = list["Version"]
Hits = list[Hit]
Items = list[Item]
Drafts = list[Draft]


class Version(NamedTuple):
    """What a path held from a time on; None: nothing, it was deleted."""

    at: datetime
    text: str | None


class Documents:
    """The documents of a memory, or of a view of it. Thread-safe.

    A path is any non-empty string; what stands before a `/` in it is a folder, which exists as long as something is in
    it. What a change is made of is what it replaces, also when threads, handles and processes make changes at once.

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
        renewed = path in self and self.memory.add_drafts([draft], only=lambda _, there: there is not None)
        return renewed[0] if renewed else self._make(path, draft)

    def create(self, path: str, text: str) -> Item:
        """Make a document that is not there yet; of several that try at once, one does.

        Raises:
            InvalidInput: it is there, or as `write`.
        """
        return self._make(path, self._draft(path, text), _check_absent)

    def edit(self, path: str, change: Callable[[str], str]) -> str:
        """Write what `change` makes of the present text, and return it; nobody writes in between.

        When somebody did, `change` is called again, with the text that is there by then.

        Raises:
            ItemNotFound: no document has this path. What `change` raises; nothing is written then.
            InvalidInput: as `write`.
        """
        while True:
            seen = self._item(path)
            text = change(_text(seen))
            if self._renew(seen, self._draft(path, text)):
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
        return self.memory.delete(self._id(path)) or self.memory.delete_where({"document": _below(path)})

    def rename(self, old: str, new: str) -> int:
        """Move a document, or everything in a folder. Returns how many documents that were.

        The new documents are written and the old ones end together.

        Raises:
            ItemNotFound: there is nothing at `old`.
            InvalidInput: there is something at `new`, or it lies within `old`.
        """

        def moved(there: Items) -> Drafts:
            chosen = [item for item in there if _is_at(item, old)]
            if not chosen:
                raise ItemNotFound(f"no document or folder {old!r:.80}; list() shows what there is")
            _check_absent(new, there)
            if _is_below(new, old):
                raise InvalidInput(f"{new!r:.80} lies within {old!r:.80}; choose a path outside it")
            _check_free(new, there)
            return [self._moved(item, old, new) for item in chosen]

        return len(self.memory.replace_where({"OR": [self._at(old), self._at(new, *_above(new))]}, moved))

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

    def _at(self, path: str, *more: str) -> dict[str, Any]:
        """A filter: the document at a path, what is below it, and the documents at `more` paths."""
        return {"OR": [{"id": {"in": [self._id(one) for one in (path, *more)]}}, {"document": _below(path)}]}

    def _within(self, folder: str) -> Iterator[Item]:
        return everything(self.memory, {"document": _below(folder) if folder else {"exists": True}})

    def _make(self, path: str, draft: Draft, *checks: Callable[[str, Items], None]) -> Item:
        """Write a document where none was."""

        def made(there: Items) -> Drafts:
            for check in (*checks, _check_free):
                check(path, there)
            return [draft]

        return self.memory.replace_where(self._at(path, *_above(path)), made)[0]

    def _renew(self, seen: Item, draft: Draft) -> bool:
        """Write a new version of an item, unless it is another one by now."""
        return bool(
            self.memory.add_drafts([draft], only=lambda _, there: there is not None and there.position == seen.position)
        )

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
        name = item.metadata["document"]
        path = new if name == old else new.rstrip("/") + name[len(old.rstrip("/")) :]
        draft = self._draft(path, _text(item))
        return Draft(draft.text, id=draft.id, metadata=draft.metadata, occurred_at=item.occurred_at)


# paths


def _text(item: Item) -> str:
    text: str = item.metadata.get("blank", item.text)
    return text


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/") and path != folder


def _is_at(item: Item, path: str) -> bool:
    return item.metadata["document"] == path or _is_below(item.metadata["document"], path)


def _below(folder: str) -> dict[str, str]:
    """What `_is_below` says, as the conditions of a filter; "0" comes after "/"."""
    start = folder.rstrip("/")
    return {"gte": f"{start}/", "lt": f"{start}0", "ne": folder}


def _above(path: str) -> Paths:
    """The folders that a path goes through."""
    steps = path.split("/")
    return [folder for end in range(1, len(steps)) if (folder := "/".join(steps[:end]))]


def _check_absent(path: str, there: Items) -> None:
    if any(_is_at(item, path) for item in there):
        raise InvalidInput(f"{path!r:.80} is there already; write() replaces a document, delete() ends it")


def _check_free(path: str, there: Items) -> None:
    """A path cannot be a folder and a document at once."""
    names = [item.metadata["document"] for item in there]
    taken = [folder for folder in _above(path) if folder in names]
    if taken:
        raise InvalidInput(f"{path!r:.80} goes through the document {taken[0]!r:.80}; choose another path")
    if any(_is_below(name, path) for name in names):
        raise InvalidInput(f"{path!r:.80} is a folder; choose another path")
