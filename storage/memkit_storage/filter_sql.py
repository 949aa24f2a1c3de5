"""The `where` language for LanceDB: columns that a table needs, and filters compiled to conditions on them.

Metadata becomes three typed columns, because LanceDB's JSON functions convert between types and the language does not:
`facts` (a list of texts: one per scalar, list element and path), and `numbers` and `strings` (JSON documents of path to
value, for ranges and substrings). Paths are hashed, so that none needs escaping. Every literal is quoted here, and
nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

from memkit_storage.filters import TIME_FIELDS, All, Comparison, Node, Not, flatten, kind, paths
from memkit_storage.rows import SCOPE_FIELDS, Row

_COMPARE = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_INTEGERS = ("position", *TIME_FIELDS.values())


def pa_fields() -> list[Any]:
    """The Arrow fields that `compile_filter` refers to."""
    import pyarrow as pa

    return [
        pa.field("position", pa.int64()),
        *(pa.field(name, pa.string()) for name in ("id", "text", *SCOPE_FIELDS)),
        *(pa.field(name, pa.int64()) for name in TIME_FIELDS.values()),
        pa.field("facts", pa.list_(pa.string())),
        pa.field("numbers", pa.json_()),
        pa.field("strings", pa.json_()),
    ]


def filter_columns(row: Row) -> dict[str, Any]:
    """A row's values for these fields, by name."""
    flat = flatten(row.metadata)
    numbers = {_key(path): _sortable(float(value)) for path, value in flat.items() if kind(value) == "number"}
    strings = {_key(path): value for path, value in flat.items() if isinstance(value, str)}
    columns: dict[str, Any] = {name: getattr(row, name) for name in ("id", "text", *SCOPE_FIELDS, *_INTEGERS)}
    columns["facts"] = sorted({*_facts(flat), *(f"{_key(path)}?" for path in paths(row.metadata))})
    columns["numbers"], columns["strings"] = json.dumps(numbers), json.dumps(strings)
    return columns


def _facts(flat: Mapping[str, Any]) -> list[str]:
    found = []
    for path, value in flat.items():
        if isinstance(value, list):
            found += [f"{_key(path)}~{_typed(one)}" for one in value if kind(one) != "other"]
        elif kind(value) != "other":
            found.append(f"{_key(path)}={_typed(value)}")
    return found


def _key(path: str) -> str:
    return "k" + hashlib.blake2b(path.encode(), digest_size=10).hexdigest()


def _typed(value: Any) -> str:
    """A scalar with its class: equal texts mean equal values."""
    if kind(value) == "bool":
        return f"b{int(value)}"
    if kind(value) == "number":
        return f"n{_sortable(float(value))}"
    return f"s{hashlib.blake2b(value.encode(), digest_size=16).hexdigest()}"


def _sortable(value: float) -> str:
    """A float64 as 16 hex digits that sort like the numbers; -0.0 is 0.0."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", value + 0.0))
    return f"{bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63):016x}"


# conditions


def compile_filter(node: Node, *, exact: bool = False) -> str:
    """The condition of a filter: true for the rows that match.

    For others it is false or, where nothing negates it, NULL, which selects as little and keeps an index usable;
    `exact` rules NULL out.
    """
    if isinstance(node, Comparison):
        return f"coalesce({_test(node)}, false)" if exact else f"({_test(node)})"
    if isinstance(node, Not):
        return f"(NOT {compile_filter(node.part, exact=True)})"
    word, empty = (" AND ", "true") if isinstance(node, All) else (" OR ", "false")
    parts = [compile_filter(part, exact=exact) for part in node.parts]
    return f"({word.join(parts)})" if parts else empty


def _test(test: Comparison) -> str:
    return _field_test(test, test.field) if test.field else _metadata_test(test)


def _field_test(test: Comparison, field: str) -> str:
    if test.op in ("null", "exists"):
        return f"{field} IS {'NOT ' if test.op == 'exists' else ''}NULL"
    if test.op == "in":
        listed = ", ".join(_literal(field, one) for one in test.value)
        return f"{field} IN ({listed})" if listed else "false"
    if test.op == "contains":
        return f"contains({field}, {_literal(field, test.value)})"
    return f"{field} {_COMPARE[test.op]} {_literal(field, test.value)}"


def _literal(field: str, value: Any) -> str:
    if field in _INTEGERS:
        return _number(value)
    return _quoted(value)


def _number(value: float) -> str:
    """A position or time: whole numbers as they are, others as doubles."""
    if float(value).is_integer() and abs(value) < 1 << 63:
        return str(int(value))
    return f"CAST('{float(value)!r}' AS DOUBLE)"


def _metadata_test(test: Comparison) -> str:
    key = _key(test.path)
    if test.op in ("exists", "null"):
        return f"{'NOT ' if test.op == 'null' else ''}{_has(f'{key}?')}"
    if test.op in ("eq", "in"):
        values = test.value if test.op == "in" else (test.value,)
        return " OR ".join(_has(f"{key}={_typed(one)}") for one in values) or "false"
    if test.op == "contains":
        return _inside(key, test.value)
    if kind(test.value) == "number":
        return f"json_get_string(numbers, '{key}') {_COMPARE[test.op]} '{_sortable(float(test.value))}'"
    return f"{_string(key)} {_COMPARE[test.op]} {_quoted(test.value)}"


def _inside(key: str, value: Any) -> str:
    """An element of a list, or a part of a text."""
    element = _has(f"{key}~{_typed(value)}")
    if not isinstance(value, str):
        return element
    return f"{element} OR coalesce(contains({_string(key)}, {_quoted(value)}), false)"


def _string(key: str) -> str:
    return f"json_get_string(strings, '{key}')"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _has(fact: str) -> str:
    return f"array_has(facts, '{fact}')"
