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
from memkit_adapters._mem0_arguments import SCOPES, no_scope, scope_name

Where = dict[str, Any]
_FIELDS = {"data": "text", "memory": "text", "created_at": "created_at", "updated_at": "updated_at", "id": "id"}


def translate(filters: Any, scope: Mapping[str, Any], memory: Memory) -> Where:
    """A filter of Mem0, and scopes given beside it, as `where`.

    Args:
        memory: is asked which items pass `icontains`, for which there is no operator.

    Raises:
        InvalidFilter: an unknown operator, an empty OR or NOT, or a value of the wrong type; names it.
        ValidationError: neither names a scope.
    """
    if not isinstance(filters, Mapping | None):
        raise _no_dict(filters)
    wanted = {**(filters or {}), **{name: value for name, value in scope.items() if value is not None}}
    if not any(wanted.get(name) for name in SCOPES):
        raise no_scope("filters={'user_id': 'ana'}")
    named = {name: wanted[name] for name in SCOPES if isinstance(wanted.get(name), str | int) and wanted[name] != "*"}
    bound = {name: scope_name(value, name) for name, value in named.items()}
    return _all({**wanted, **bound}, memory.scope(**bound))


def _no_dict(filters: Any) -> InvalidFilter:
    return InvalidFilter(f"filters={filters!r:.80} is no dict; pass one such as {{'user_id': 'ana'}}")


def _all(filters: Any, memory: Memory) -> Where:
    if not isinstance(filters, Mapping):
        raise _no_dict(filters)
    return {"AND": [_part(key, value, memory) for key, value in filters.items()]}


def _part(key: str, value: Any, memory: Memory) -> Where:
    if key in ("AND", "OR", "NOT"):
        return _logic(key, value, memory)
    if key == "hash":
        raise InvalidFilter("hash is made from the text and is not stored; filter on data, which is the text")
    name = key if key in SCOPES else _FIELDS.get(key, f"metadata.{key}")
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
    inner = [_all(part, memory) for part in parts]
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
