"""The `where` language: one typed filter for the tail, for LanceDB and for listings.

    {"user_id": "ana", "price": {"gte": 3}, "OR": [{"kind": "a"}, {"tags": {"contains": "b"}}]}

Operators: eq ne gt gte lt lte in nin contains exists; AND, OR (lists of filters) and NOT (a filter) nest to any sane
depth; a bare value means eq; several keys mean AND. A key is a field of the item, or a dotted path into its metadata
(`metadata.` before it when the metadata has a key like a field's name).

`Filter.matches` is the definition; `memkit_storage.filter_sql` compiles the same thing for LanceDB.

Logic is two-valued: a value that is absent, or of another type than the argument, matches no operator but `ne`, `nin`
and `exists: False`. Types are strict: text, numbers (as float64) and booleans never equal each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from memkit_storage.errors import InvalidFilter, InvalidInput
from memkit_storage.rows import SCOPE_FIELDS, Row
from memkit_storage.times import parse_time, to_us

MAX_DEPTH = 64
TEXT_FIELDS = ("id", "text", *SCOPE_FIELDS)
TIME_FIELDS = {"occurred_at": "occurred_us", "created_at": "created_us", "updated_at": "updated_us"}
OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "exists")
_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}
Scalar = str | float | bool


# the tree


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison. `field` is a column of the row, or None and `path` leads into the metadata.

    `op` is one of eq, gt, gte, lt, lte, in, contains, exists, null; the negative operators are `Not` of these.
    """

    field: str | None
    path: str
    op: str
    value: Any

    def matches(self, row: Row) -> bool:
        """Whether the row's value passes."""
        if self.op in ("exists", "null"):
            there = getattr(row, self.field) is not None if self.field else self.path in paths(row.metadata)
            return there == (self.op == "exists")
        value = getattr(row, self.field) if self.field else flatten(row.metadata).get(self.path)
        return value is not None and _passes(value, self.op, self.value)


@dataclass(frozen=True, slots=True)
class All:
    """Every part matches; with no parts, everything does."""

    parts: tuple[Node, ...]

    def matches(self, row: Row) -> bool:
        """Whether every part does."""
        return all(part.matches(row) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Some:
    """Some part matches; with no parts, nothing does."""

    parts: tuple[Node, ...]

    def matches(self, row: Row) -> bool:
        """Whether some part does."""
        return any(part.matches(row) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: Node

    def matches(self, row: Row) -> bool:
        """Whether the part does not."""
        return not self.part.matches(row)


Node = Comparison | All | Some | Not


def _passes(value: Any, op: str, wanted: Any) -> bool:
    if op == "contains":
        if isinstance(value, str):
            return isinstance(wanted, str) and wanted in value
        return isinstance(value, list) and any(same(element, wanted) for element in value)
    if op == "eq":
        return same(value, wanted)
    if op == "in":
        return any(same(value, one) for one in wanted)
    return kind(value) == kind(wanted) != "bool" and kind(value) != "other" and _ORDERED[op](value, wanted)


def kind(value: Any) -> str:
    """The comparison class of a value: text, number, bool or other."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def same(a: Any, b: Any) -> bool:
    """Equality of scalars within one class; numbers as float64."""
    if kind(a) != kind(b) or kind(a) == "other":
        return False
    return float(a) == float(b) if kind(a) == "number" else bool(a == b)


# metadata


def flatten(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path -> scalar or list. Of a literal key `a.b` and a nested `a: {b: …}`, the first one counts."""
    flat: dict[str, Any] = {}
    for path, value in _walk(metadata, ""):
        if not isinstance(value, Mapping):
            flat.setdefault(path, value)
    return flat


def paths(metadata: Mapping[str, Any]) -> set[str]:
    """Every dotted path that exists, inner nodes included; null counts as absent."""
    return {path for path, value in _walk(metadata, "") if value is not None}


def _walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}.{key}" if prefix else key
        yield path, value
        if isinstance(value, Mapping):
            yield from _walk(value, path)


# parsing


@dataclass(frozen=True)
class Filter:
    """A parsed `where`. Combine with `&`."""

    root: All

    @classmethod
    def parse(cls, where: Mapping[str, Any] | None) -> Filter:
        """Check and understand a filter; None and {} match everything.

        Raises:
            InvalidFilter: an unknown operator, a mismatched type, a naive time; names the value and the next step.
        """
        return cls(_group(where or {}, 0))

    def matches(self, row: Row) -> bool:
        """Whether the row passes: the definition of the language."""
        return self.root.matches(row)

    @cached_property
    def _sql(self) -> str | None:
        from memkit_storage.filter_sql import compile_filter

        return compile_filter(self.root) if self.root.parts else None

    def sql(self) -> str | None:
        """The same condition for LanceDB, over the columns of `filter_sql`; None if there is none."""
        return self._sql

    def __and__(self, other: Filter) -> Filter:
        return Filter(All((*self.root.parts, *other.root.parts)))

    def scope(self) -> dict[str, str]:
        """Scope values that every match must have: the part that an index of scopes can answer."""
        found = {}
        for part in self.root.parts:
            if isinstance(part, Comparison) and part.field in SCOPE_FIELDS and part.op == "eq":
                found[part.field] = part.value
        return found


def _group(where: Any, depth: int) -> All:
    if not isinstance(where, Mapping):
        raise InvalidFilter(
            f"filter {where!r:.80} is a {type(where).__name__}; pass a dict such as {{'user_id': 'ana'}}"
        )
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"filter nested deeper than {MAX_DEPTH} levels; flatten it")
    parts: list[Node] = []
    for key, value in where.items():
        if not isinstance(key, str) or not key:
            raise InvalidFilter(f"filter key {key!r}: keys are field names, metadata paths, or AND, OR, NOT")
        if key in ("AND", "OR", "NOT"):
            parts.append(_logic(key, value, depth + 1))
        else:
            parts.extend(_condition(key, value))
    return All(tuple(parts))


def _logic(key: str, value: Any, depth: int) -> Node:
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if key == "NOT":
        return Not(All(tuple(_group(one, depth) for one in value)) if several else _group(value, depth))
    if not several:
        raise InvalidFilter(f"{key} takes a list of filters, got {value!r:.80}; write {key}: [{{…}}, {{…}}]")
    parts = tuple(_group(one, depth) for one in value)
    return All(parts) if key == "AND" else Some(parts)


def _condition(key: str, value: Any) -> Iterator[Node]:
    if key.startswith("$") or key.upper() in ("AND", "OR", "NOT"):
        better = key.lstrip("$").upper()
        raise InvalidFilter(f"unknown filter key {key!r}; the logical keys are AND, OR and NOT: write {better!r}")
    field, path = _target(key)
    if not isinstance(value, Mapping):
        value = {"eq": value}
    if not value:
        raise InvalidFilter(f"filter on {key!r} has no operator; use one of {', '.join(OPERATORS)}, or a plain value")
    for op, argument in value.items():
        if op not in OPERATORS:
            raise InvalidFilter(_unknown_operator(key, op))
        yield _test(key, field, path, op, argument)


def _unknown_operator(key: str, op: Any) -> str:
    plain = str(op).lstrip("$").lower()
    if plain in OPERATORS:
        return f"unknown operator {op!r} on {key!r}; write {plain!r}"
    return f"unknown operator {op!r} on {key!r}; use one of {', '.join(OPERATORS)}, or the dotted path '{key}.{op}'"


def _target(key: str) -> tuple[str | None, str]:
    """(column of the row, "") or (None, path into the metadata)."""
    if key in TIME_FIELDS:
        return TIME_FIELDS[key], ""
    if key in TEXT_FIELDS or key == "position":
        return key, ""
    return None, key.removeprefix("metadata.")


def _test(key: str, field: str | None, path: str, op: str, argument: Any) -> Node:
    if op in ("ne", "nin"):
        return Not(_test(key, field, path, {"ne": "eq", "nin": "in"}[op], argument))
    if op == "exists":
        if not isinstance(argument, bool):
            raise InvalidFilter(f"{key!r}: exists takes True or False, got {argument!r:.80}")
        test = Comparison(field, path, "exists", True)
        return test if argument else Not(test)
    if op == "in":
        return _one_of(key, field, path, argument)
    if argument is None and op == "eq":
        return Comparison(field, path, "null", None)
    return Comparison(field, path, op, _argument(key, field, op, argument))


def _one_of(key: str, field: str | None, path: str, argument: Any) -> Node:
    if not isinstance(argument, list | tuple | set | frozenset):
        raise InvalidFilter(f"{key!r}: in takes a list, got {argument!r:.80}; write {{'in': [{argument!r:.40}]}}")
    values = tuple(_argument(key, field, "in", one) for one in argument if one is not None)
    test = Comparison(field, path, "in", values)
    return Some((test, Comparison(field, path, "null", None))) if None in tuple(argument) else test


def _argument(key: str, field: str | None, op: str, value: Any) -> Scalar:
    """The argument in the class that the field has."""
    if field in TIME_FIELDS.values():
        return _moment(key, op, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidFilter(f"{key!r}: {op} {value!r} compares with nothing; use a finite number")
    if isinstance(value, datetime):
        raise InvalidFilter(
            f"{key!r}: metadata holds no times; compare with the text that you stored, {value.isoformat()!r}"
        )
    wanted = {"position": "number"}.get(field or "", "text" if field else kind(value))
    if kind(value) != wanted or wanted == "other" or (op == "contains" and field == "position"):
        hint = (
            "use 'in' for several values, 'contains' for lists"
            if isinstance(value, list | tuple | set)
            else f"compare it with a {wanted}"
        )
        raise InvalidFilter(f"{key!r}: {op} cannot take {value!r:.80} ({type(value).__name__}); {hint}")
    if op in _ORDERED and wanted == "bool":
        raise InvalidFilter(f"{key!r}: {op} on a boolean; use eq or ne")
    if isinstance(value, str) and not _is_encodable(value):
        raise InvalidFilter(f"{key!r}: {value!r:.80} holds half a character (a lone surrogate); remove it")
    argument: Scalar = value
    return argument


def _is_encodable(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _moment(key: str, op: str, value: Any) -> int:
    """A time argument in microseconds since 1970 UTC."""
    if op == "contains":
        raise InvalidFilter(f"{key!r}: a time contains nothing; use gte and lt")
    try:
        return to_us(parse_time(value))
    except InvalidInput as error:
        raise InvalidFilter(f"{key!r}: {error}") from error
