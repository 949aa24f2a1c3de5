"""What several adapters share: the tools that a model is given, and text for its prompt.

A scope is bound before a memory reaches an adapter (`memory.scope(user_id=...)`), or by the adapter from what the
framework knows; it is never an argument that a model fills in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from memkit import Item, Memory
from memkit.errors import InvalidInput, MemkitError

INSTRUCTIONS = (
    "You have a long-term memory. Search it before you answer what may depend on earlier conversations, and remember "
    "lasting facts, preferences and decisions that the user states."
)


def view_for(memory: Memory, scope: Mapping[str, str | None]) -> Memory:
    """The view of whom a run is for.

    Raises:
        InvalidInput: a name is None: as no name stands for everybody, it would open the memory of all.
    """
    unknown = [name for name, value in scope.items() if value is None]
    if unknown:
        raise InvalidInput(
            f"scope gave {unknown[0]}=None, which would open everybody's memory; name who the run is for"
        )
    return memory.scope(**scope)


def memory_functions(
    memory: Memory, *, read_only: bool = False, refusal: Callable[[str], Exception] | None = None
) -> list[Callable[..., Any]]:
    """The tools of a memory as plain functions, whose names, signatures and docstrings frameworks turn into schemas.

    Args:
        read_only: search_memory alone.
        refusal: makes the exception by which a model hears what was wrong, and may try again; None where it hears that
            of any.
    """

    def search_memory(query: str, limit: int = 5) -> list[dict[str, Any]]:
        """Search long-term memory for what was said, decided or noted earlier.

        Args:
            query: what to look for, in a few words or as a question.
            limit: how many memories to return at most.
        """
        return [shown(hit) for hit in memory.search(query, limit=limit)]

    def remember(text: str) -> dict[str, Any]:
        """Store one fact, preference or decision in long-term memory, in words that make sense on their own.

        Args:
            text: what to remember, as one or a few sentences.
        """
        return shown(memory.add(text)[0])

    def forget(id: str) -> bool:
        """Remove one memory that is wrong or no longer wanted. Returns whether there was one.

        Args:
            id: the id of the memory, as search_memory returned it.
        """
        return memory.delete(id) == 1

    tools: list[Callable[..., Any]] = [search_memory] if read_only else [search_memory, remember, forget]
    return tools if refusal is None else [refusing(tool, refusal) for tool in tools]


def refusing(tool: Callable[..., Any], refusal: Callable[[str], Exception]) -> Callable[..., Any]:
    """A tool that raises an exception of the framework, with the words of memkit, where memkit refuses something."""

    @wraps(tool)
    def call(*args: Any, **given: Any) -> Any:
        try:
            return tool(*args, **given)
        except MemkitError as error:
            raise refusal(str(error)) from error

    return call


def shown(item: Item) -> dict[str, Any]:
    """What a model sees of an item: its id, its words, and when it happened."""
    return {"id": item.id, "text": item.text, "occurred_at": item.occurred_at.isoformat()}
