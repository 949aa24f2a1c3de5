"""Haystack's filter language as memkit's `where`.

`haystack.utils.filters.document_matches_filter` defines what a filter means. Nearly every comparison has an equal
`where`; for one that has none (dates compared as moments, booleans that equal 0 and 1, fields that memkit does not
index) the caller says which items match it. One difference is meant: a boolean has no order here, and in Haystack it is
0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from haystack.errors import FilterError

Condition = Mapping[str, Any]
Where = dict[str, Any]
_ORDERED = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_COMPARISONS = ("==", "!=", *_ORDERED, "in", "not in")
_META = "meta."
_DATE = len("2026-05-01")
_NOTHING: Where = {"OR": []}


def translate(
    filters: Condition | None, item_id: Callable[[str], str], matching: Callable[[Condition], list[str]]
) -> Where:
    """A filter of Haystack as `where`.

    Args:
        item_id: makes the id of an item from that of a document.
        matching: the ids of the items that pass a comparison, for those that have no `where`.

    Raises:
        FilterError: a key is missing, an operator unknown, or a value cannot be compared; names it.
    """
    if not filters:
        return {}
    if not isinstance(filters, Mapping):
        raise FilterError(f"filters {filters!r:.80} are no dictionary; see Haystack's metadata filtering")
    if "field" in filters:
        where = _comparison(filters, item_id)
        return {"id": {"in": matching(filters)}} if where is None else where
    operator, conditions = _need(filters, "operator"), _need(filters, "conditions")
    if operator not in ("AND", "OR", "NOT"):
        raise FilterError(f"unknown logical operator {operator!r}; use AND, OR or NOT")
    return {operator: [translate(one, item_id, matching) for one in conditions]}


def _need(condition: Condition, key: str) -> Any:
    if key not in condition:
        raise FilterError(f"{key!r} is missing in {dict(condition)!r:.200}")
    return condition[key]


def _comparison(condition: Condition, item_id: Callable[[str], str]) -> Where | None:
    """The `where` of one comparison; None if there is none that means the same."""
    field, operator, value = condition["field"], _need(condition, "operator"), _need(condition, "value")
    if operator not in _COMPARISONS:
        raise FilterError(f"unknown comparison operator {operator!r}; use one of {', '.join(_COMPARISONS)}")
    key = _key(field)
    if operator in _ORDERED:
        return _order(key, _ORDERED[operator], value)
    values = value if operator in ("in", "not in") else [value]
    if not isinstance(values, list):
        raise FilterError(f"{operator!r} takes a list, got {value!r:.80} ({type(value).__name__})")
    if key is None or not all(map(_is_plain, values)):
        return None
    if key == "id":
        values = [item_id(one) if isinstance(one, str) else one for one in values]
    return {key: {"in" if operator in ("==", "in") else "nin": values}}


def _key(field: str) -> str | None:
    """The key in a `where`; None for what has none there."""
    if field.startswith(_META):
        return f"metadata.{field.removeprefix(_META)}"
    if "." in field or field in ("content", "blob", "embedding", "sparse_embedding", "score", "meta"):
        return None
    return "id" if field == "id" else f"metadata.{field}"


def _order(key: str | None, operator: str, value: Any) -> Where | None:
    if value is None:
        return _NOTHING
    if isinstance(value, str | datetime):
        _check_date(value)
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"{operator} cannot order {value!r:.80} ({type(value).__name__}); pass a number or a date")
    return None if key in (None, "id") else {str(key): {operator: value}}


def _check_date(value: str | datetime) -> None:
    try:
        datetime.fromisoformat(str(value))
    except ValueError as error:
        raise FilterError(f"{value!r:.80} is no ISO 8601 date; text has no other order than that of dates") from error


def _is_plain(value: Any) -> bool:
    """Whether memkit's equality is Haystack's: not for dates (moments there), booleans, 0 and 1 (equal there)."""
    if value is None:
        return True
    if isinstance(value, str):
        return not (value[:4].isdigit() and value[4:5] == "-" and len(value) >= _DATE)
    return (
        isinstance(value, int | float) and math.isfinite(value) and not isinstance(value, bool) and value not in (0, 1)
    )
