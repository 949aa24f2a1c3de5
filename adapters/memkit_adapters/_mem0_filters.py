"""Mem0's filter grammar as memkit's `where`.

    {"user_id": "ana", "price": {"gte": 3}, "tag": "*", "OR": [{"kind": {"icontains": "tea"}}, …], "NOT": [{…}]}

Mem0 leaves the meaning to each vector store. Here it is the same everywhere, at any depth: types are strict, an
absent value passes `ne` and `nin`, `"*"` means that there is a value, a list means `in`, and `NOT` of a list means none
of it. `created_at` and `updated_at` are compared as times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memkit import Memory
from memkit.errors import InvalidFilter
from memkit.views import everything

Where = dict[str, Any]
_FIELDS = {"data": "text", "memory": "text", "created_at": "created_at", "updated_at": "updated_at", "id": "id"}
_SCOPES = ("user_id", "agent_id", "run_id")


def translate(filters: Mapping[str, Any], memory: Memory) -> Where:
    """A filter of Mem0 as `where`; `memory` is asked which items pass `icontains`, for which there is no operator.

    Raises:
        InvalidFilter: an unknown operator, an empty OR or NOT, or a value of the wrong type; names it.
    """
    if not isinstance(filters, Mapping):
        raise InvalidFilter(f"filters={filters!r:.80} is no dict; pass one such as {{'user_id': 'ana'}}")
    return {"AND": [_part(key, value, memory) for key, value in filters.items()]}


def _part(key: str, value: Any, memory: Memory) -> Where:
    if key in ("AND", "OR", "NOT"):
        return _logic(key, value, memory)
    if key == "hash":
        raise InvalidFilter("hash is made from the text and is not stored; filter on data, which is the text")
    name = key if key in _SCOPES else _FIELDS.get(key, f"metadata.{key}")
    if value == "*":
        return {name: {"exists": True}}
    if isinstance(value, list):
        return {name: {"in": value}}
    if not isinstance(value, Mapping):
        return {name: value}
    return {"AND": [_test(name, operator, argument, memory) for operator, argument in value.items()]}


def _logic(key: str, value: Any, memory: Memory) -> Where:
    parts = [value] if key == "NOT" and isinstance(value, Mapping) else value
    if not isinstance(parts, list) or (not parts and key != "AND"):
        raise InvalidFilter(f"{key} takes a non-empty list of filters, got {value!r:.80}")
    inner = [translate(part, memory) for part in parts]
    return {"NOT": {"OR": inner}} if key == "NOT" else {key: inner}


def _test(name: str, operator: str, argument: Any, memory: Memory) -> Where:
    if operator != "icontains":
        return {name: {operator: argument}}
    if not isinstance(argument, str):
        raise InvalidFilter(f"{name}: icontains takes text, got {argument!r:.80}")
    has_text = everything(memory, {name: {"exists": True}})
    return {"id": {"in": [item.id for item in has_text if _mentions(item.model_dump(), name, argument.casefold())]}}


def _mentions(item: Mapping[str, Any], name: str, wanted: str) -> bool:
    """Whether a text, or an element of a list, contains the wanted text in any case."""
    value: Any = item.get(name)
    if name.startswith("metadata."):
        value = _at(item["metadata"], name.removeprefix("metadata."))
    return any(
        isinstance(one, str) and wanted in one.casefold() for one in (value if isinstance(value, list) else [value])
    )


def _at(metadata: Any, path: str) -> Any:
    """The value at a dotted path; of a key with dots and a nested one, the first that is there."""
    if not isinstance(metadata, Mapping):
        return None
    if path in metadata:
        return metadata[path]
    heads = (key for key in metadata if path.startswith(f"{key}."))
    return next((found for key in heads if (found := _at(metadata[key], path[len(key) + 1 :])) is not None), None)
