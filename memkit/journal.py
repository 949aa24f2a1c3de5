"""An ordered log of JSON values inside a memory: a chat session, a transcript, a queue of events.

An entry is an ordinary item: its text is what a reader would read of the value, so that search and recall find it; the
value itself stands in the metadata as JSON, so that it comes back as it was, whatever metadata could not hold of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from memkit.ingest import Draft, check_metadata, check_name
from memkit.items import Item
from memkit.memory import Memory
from memkit.views import everything, own_id
from memkit_storage.errors import InvalidInput

MAX_DEPTH = 200  # of a value: what any Python can read again
MAX_WORDS = 100_000  # characters of a value that are searched
WORDLESS = "(an entry without words)"
# what carries words in the messages of chat APIs; where nothing does, every string counts
_SPOKEN = frozenset(
    ("arguments", "content", "message", "output", "query", "refusal", "result", "summary", "text", "thinking", "title")
)


class Journal:
    """The values of one name in a view of a memory, in the order in which they were recorded.

    Several journals, threads and processes may write to one file. Reading costs time in proportion to the items of the
    view, so give a long-lived journal a view of its own: `Journal(memory.scope(run_id=...), name)`.

    Args:
        memory: a memory, or a view of it: journals of one name in different scopes have nothing in common.
        name: any characters.
        metadata: put on each entry beside its own, to list and filter by.

    Raises:
        InvalidInput: a name or metadata that cannot be stored.

    Example:
        >>> journal = Journal(memory, "chat of Monday")
        >>> journal.append([{"role": "user", "content": "Hello", "n": 1}])
        >>> journal.read()
        [{'role': 'user', 'content': 'Hello', 'n': 1}]
    """

    def __init__(self, memory: Memory, name: str, *, metadata: Mapping[str, Any] | None = None) -> None:
        self.memory, self.name = memory, check_name(name, "the name of a journal")
        self._labels = {**(metadata or {}), "journal": name}
        check_metadata(self._labels)

    def append(self, values: Iterable[Any], keys: Sequence[str | None] | None = None) -> list[Item]:
        """Record values in order, all together. Returns their items.

        Args:
            keys: a name for each value, or None. A value whose key is there already is not recorded twice; another
                value under the same key becomes a new version of that entry, in its place.

        Raises:
            InvalidInput: a value that is not JSON, or more or fewer keys than values; nothing is written.
        """
        chosen = list(values)
        names = [None] * len(chosen) if keys is None else list(keys)
        if len(names) != len(chosen):
            raise InvalidInput(f"{len(names)} keys for {len(chosen)} values; pass one for each, or None")
        drafts = [self._draft(value, key) for value, key in zip(chosen, names, strict=True)]
        return self.memory.add_drafts(drafts) if drafts else []

    def read(self, limit: int | None = None) -> list[Any]:
        """The values, oldest first; with a limit, the latest so many.

        Raises:
            InvalidInput: a limit below 0.
        """
        if limit is not None and limit < 0:
            raise InvalidInput(f"limit={limit!r}: pass how many values at most, or None for all")
        items = list(self._items())
        return [value_of(item) for item in (items if limit is None else items[max(0, len(items) - limit) :])]

    def pop(self) -> Any:
        """Remove and return the latest value; each is given to one caller only, also among processes.

        Raises:
            IndexError: there is none.
        """
        while items := list(self._items()):
            if self.memory.delete(items[-1].id):  # 1 for the one caller that ended it
                return value_of(items[-1])
        raise IndexError(f"pop from the journal {self.name!r:.80}, which is empty")

    def clear(self) -> int:
        """End every entry, together; their history stays (see `Memory.erase`). Returns how many there were."""
        return self.memory.delete_where({"journal": self.name})

    def __len__(self) -> int:
        return sum(1 for _ in self._items())

    def _items(self) -> Iterator[Item]:
        return everything(self.memory, {"journal": self.name})

    def _draft(self, value: Any, key: str | None) -> Draft:
        text, written = words(value), _json(value)
        role = value.get("role") if isinstance(value, dict) else None
        said = {"role": role} if isinstance(role, str) and role and role.isascii() else {}
        id_ = None if key is None else own_id(self.memory, "journal", self.name, key)
        return Draft(text, id=id_, metadata={**said, **self._labels, "json": written})


def value_of(item: Item) -> Any:
    """The value that an entry of a journal stands for."""
    return json.loads(item.metadata["json"])


def words(value: Any) -> str:
    """What is searched of a JSON value: the strings that a chat message says with it, or else all of its strings."""
    strings = list(_strings(value))
    found = [text for text, spoken in strings if spoken] or [text for text, _ in strings]
    text = "\n".join(found)[:MAX_WORDS]
    return text.encode("utf-8", "replace").decode() if text.strip() else WORDLESS


def _strings(value: Any) -> Iterator[tuple[str, bool]]:
    """The strings of a value in order, and whether each is spoken; without recursion, as values may be deep."""
    waiting: list[tuple[Any, bool, int]] = [(value, True, 0)]
    while waiting:
        inner, spoken, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidInput(f"a value is nested deeper than {MAX_DEPTH} levels; flatten it, or store it as text")
        if isinstance(inner, str) and inner.strip() and not inner.startswith("data:"):
            yield inner, spoken
        elif isinstance(inner, list | tuple):
            waiting += [(one, spoken, depth + 1) for one in reversed(inner)]
        elif isinstance(inner, dict):
            _check_keys(inner)
            waiting += [(one, key in _SPOKEN, depth + 1) for key, one in reversed(inner.items())]


def _check_keys(value: dict[Any, Any]) -> None:
    """JSON would make strings of other keys, and the value would not come back as it was."""
    for key in value:
        if not isinstance(key, str):
            raise InvalidInput(f"a value has the key {key!r:.60}; the keys of JSON are strings")


def _json(value: Any) -> str:
    """ASCII, so that half characters (lone surrogates) survive too."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"a value ({type(value).__name__}) cannot be written as JSON: {error}") from error
