"""What LangGraph's filters and namespace conditions mean, as its own stores understand them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from memkit_adapters._guard import missing

try:
    from langgraph.store.base import ListNamespacesOp, MatchCondition
except ImportError as error:
    raise missing("langgraph", error) from error

_KEY = re.compile(r"[A-Za-z0-9_.\-]+")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda value, other: bool(value == other),
    "$ne": lambda value, other: bool(value != other),
    "$gt": lambda value, other: _number(value) > _number(other),
    "$gte": lambda value, other: _number(value) >= _number(other),
    "$lt": lambda value, other: _number(value) < _number(other),
    "$lte": lambda value, other: _number(value) <= _number(other),
}


def matches(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a value passes a filter: {key: what it must be, or {"$gt": 3}}; dots lead into nested objects.

    Raises:
        ValueError: an unknown operator, or a key with characters that a filter cannot have.
    """
    for key in wanted:
        if not _KEY.fullmatch(key):
            raise ValueError(f"Invalid filter key: {key!r}. Use letters, digits, underscores, dots and hyphens.")
    return all(_fits(_at(value, key), condition) for key, condition in wanted.items())


def _at(value: Any, path: str) -> Any:
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(str(name).startswith("$") for name in wanted):
            return all(_compared(value, name, other) for name, other in wanted.items())
        return isinstance(value, Mapping) and all(_fits(value.get(name), other) for name, other in wanted.items())
    if isinstance(wanted, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same and all(_fits(one, other) for one, other in zip(value, wanted, strict=True))
    return bool(value == wanted)


def _compared(value: Any, name: str, other: Any) -> bool:
    if name not in _OPERATORS:
        raise ValueError(f"Unsupported operator: {name}; use one of {', '.join(_OPERATORS)}")
    return _OPERATORS[name](value, other)


def _number(value: Any) -> float:
    """For comparing; what is no number is neither above nor below anything."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def selected(op: ListNamespacesOp, namespaces: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The namespaces that a listing asks for, sorted, cut to its depth."""
    conditions = op.match_conditions or ()
    kept = (space for space in namespaces if all(_meets(space, condition) for condition in conditions))
    cut = {space[: op.max_depth] if op.max_depth is not None else space for space in kept}
    return sorted(cut)[op.offset : op.offset + op.limit]


def _meets(namespace: Sequence[str], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
