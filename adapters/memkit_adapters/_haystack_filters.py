"""Haystack's filter language as memkit's `where`.

`haystack.utils.filters.document_matches_filter` defines what a filter means. Nearly all of it has an equal `where`;
what has none (dates compared as moments, booleans that equal 0 and 1, fields that memkit does not index) is widened to
a `where` that lets more pass, and `translate` says so: the caller then asks Haystack's own function about the rest.
One difference is meant: a boolean has no order here, and in Haystack it is 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from haystack.errors import FilterError

_ORDERED = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_COMPARISONS = ("==", "!=", *_ORDERED, "in", "not in")
_META = "meta."
_DATE = len("2026-05-01")


class Translated(NamedTuple):
    """A `where` that every match passes; `exact`: and nothing else does."""

    where: dict[str, Any]
    exact: bool


ALL = Translated({}, exact=True)
NOTHING = Translated({"OR": []}, exact=True)
UNKNOWN = Translated({}, exact=False)


def translate(filters: Mapping[str, Any] | None, item_id: Callable[[str], str]) -> Translated:
    """A filter of Haystack as `where`; `item_id` makes the id of an item from that of a document.

    Raises:
        FilterError: a key is missing, an operator unknown, or a value cannot be compared; names it.
    """
    if not filters:
        return ALL
    if not isinstance(filters, Mapping):
        raise FilterError(f"filters {filters!r:.80} are no dictionary; see Haystack's metadata filtering")
    return _comparison(filters, item_id) if "field" in filters else _logic(filters, item_id)


def _need(condition: Mapping[str, Any], key: str) -> Any:
    if key not in condition:
        raise FilterError(f"{key!r} is missing in {dict(condition)!r:.200}")
    return condition[key]


def _logic(condition: Mapping[str, Any], item_id: Callable[[str], str]) -> Translated:
    operator, conditions = _need(condition, "operator"), _need(condition, "conditions")
    if operator not in ("AND", "OR", "NOT"):
        raise FilterError(f"unknown logical operator {operator!r}; use AND, OR or NOT")
    parts = [translate(one, item_id) for one in conditions]
    wheres, exact = [part.where for part in parts], all(part.exact for part in parts)
    if operator == "NOT":
        return Translated({"NOT": {"AND": wheres}}, exact=True) if exact else UNKNOWN
    return Translated({operator: wheres}, exact)


def _comparison(condition: Mapping[str, Any], item_id: Callable[[str], str]) -> Translated:
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
        return UNKNOWN
    if key == "id":
        values = [item_id(one) if isinstance(one, str) else one for one in values]
    return Translated({key: {"in" if operator in ("==", "in") else "nin": values}}, exact=key != "text")


def _key(field: str) -> str | None:
    """The key in a `where`; None for what has none there."""
    if field.startswith(_META):
        return f"metadata.{field.removeprefix(_META)}"
    if "." in field or field in ("blob", "embedding", "sparse_embedding", "score", "meta"):
        return None
    return {"id": "id", "content": "text"}.get(field, f"metadata.{field}")


def _order(key: str | None, operator: str, value: Any) -> Translated:
    if value is None:
        return NOTHING
    if isinstance(value, str | datetime):
        _check_date(value)
        return UNKNOWN
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"{operator} cannot order {value!r:.80} ({type(value).__name__}); pass a number or a date")
    return UNKNOWN if key in (None, "id", "text") else Translated({str(key): {operator: value}}, exact=True)


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
