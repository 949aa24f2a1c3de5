"""What callers pass to a memory, checked and completed before anything is done."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

from memkit.ingest import Draft, check_encodable, check_metadata, check_text
from memkit_storage.errors import CallableFailed, InvalidFilter, InvalidInput, MemkitError
from memkit_storage.rows import SCOPE_FIELDS, Row

P = ParamSpec("P")
T = TypeVar("T")
Where = Mapping[str, Any]


def complete(draft: Draft, metadata: Mapping[str, Any] | None, occurred_at: datetime | None) -> Draft:
    """A draft with the metadata and time that came with the call; its own come first."""
    if metadata is not None:
        check_metadata(metadata)
    if not metadata and occurred_at is None:
        return draft
    own = {**(metadata or {}), **draft.metadata}
    return replace(draft, metadata=own, occurred_at=draft.occurred_at or occurred_at)


def check_drafts(entries: Sequence[Draft]) -> None:
    """Refuse what could not be read again.

    Raises:
        InvalidInput: names the draft, by its id or its place, or the scope, and the value.
    """
    for place, entry in enumerate(entries):
        what = f"drafts[{place}]" if entry.id is None else f"item {entry.id!r:.80}"
        check_text(entry.text, f"{what} text")
        check_metadata(entry.metadata, f"{what} metadata")
        for name in SCOPE_FIELDS:
            check_scope(name, getattr(entry, name))


def check_scope(name: str, value: Any) -> None:
    """A scope is a non-empty string, or None."""
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidInput(f"{name}={value!r}: a scope is a non-empty string")


def in_scope(entry: Draft, scope: dict[str, str], fixed: dict[str, str]) -> Draft:
    """Scopes given with the call fill what the draft lacks; a bound view allows no other."""
    for name, value in fixed.items():
        if getattr(entry, name) not in (None, value):
            raise InvalidInput(f"{name}={getattr(entry, name)!r}, but this view is bound to {name}={value!r}")
    missing: dict[str, Any] = {name: value for name, value in scope.items() if getattr(entry, name) is None}
    return replace(entry, **missing) if missing else entry


def qualified(scope: Mapping[str, str], name: str) -> str:
    """A name qualified by a scope, as an id: in one file, equal names of different scopes are different ids."""
    fields = {field: scope[field] for field in SCOPE_FIELDS if field in scope}
    return f"{json.dumps(fields, ensure_ascii=False)} {name}"


def some_filter(where: Where | None, scope: dict[str, str]) -> Where | None:
    """A filter that names something, alone or through the scope: nothing is wiped by mistake."""
    if not where and not scope:
        raise InvalidFilter("no filter and no scope would match everything; name what is meant, such as user_id=")
    return where


def queries_of(query: Any, mode: str) -> list[str]:
    """One or several queries, checked."""
    if mode not in ("hybrid", "vector", "text"):
        raise InvalidInput(f'mode={mode!r}; use "hybrid", "vector" or "text"')
    queries = [query] if isinstance(query, str) or not isinstance(query, Sequence) else list(query)
    for one in queries:
        if not isinstance(one, str) or not one.strip():
            raise InvalidInput(f"query={one!r}: ask with some words; list() enumerates everything")
        check_encodable(one, "query")
    if not queries or (len(queries) > 1 and mode != "hybrid"):
        raise InvalidInput(f'{len(queries)} queries with mode={mode!r}; pass one, or several with mode="hybrid"')
    return list(dict.fromkeys(queries))


def check_limit(limit: Any) -> None:
    """A limit is a whole number from 1 on."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise InvalidInput(f"limit={limit!r}: a limit is a whole number from 1 on")


def to_cursor(row: Row) -> str:
    """Where a listing goes on after a row."""
    return base64.urlsafe_b64encode(f"mk1:{row.first}".encode()).decode()


def from_cursor(cursor: str | None) -> int:
    """The position after which a listing goes on; -1 from the beginning."""
    if cursor is None:
        return -1
    try:
        kind, first = base64.urlsafe_b64decode(cursor).decode().split(":")
        if kind == "mk1":
            return int(first)
    except (ValueError, AttributeError, TypeError):
        pass
    raise InvalidInput(f"cursor={cursor!r} is none that list() gave; pass Page.cursor unchanged, or None to begin")


def check_budget(max_tokens: Any) -> None:
    """A token budget is a whole number from 1 on."""
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise InvalidInput(f"max_tokens={max_tokens!r}: a budget is a whole number from 1 on")


def called(name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a callable that was passed in returns, inside of a change.

    Raises:
        CallableFailed: it raised; errors of memkit pass as they are.
    """
    try:
        return function(*args, **kwargs)
    except MemkitError:
        raise
    except Exception as error:
        raise CallableFailed(f"{name} raised {type(error).__name__}: {error}; nothing was written") from error
