"""What people have becomes drafts of items: texts and chat messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from memkit_storage.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Draft:
    """An item before it is written."""

    text: str
    id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None


def drafts(content: Any) -> list[Draft]:
    """Drafts of a text, a message, or a list of them."""
    if isinstance(content, str):
        return [Draft(_checked(content))]
    if isinstance(content, Mapping):
        return [_message(content)]
    if isinstance(content, Sequence):
        return [d for one in content for d in drafts(one)]
    raise InvalidInput(f"content {content!r:.80}: pass a string, a message or a list")


def _checked(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"text {text!r:.40} is empty; pass some words")
    if len(text) > 1 << 20:
        raise InvalidInput(f"text of {len(text)} characters; put it in a file and `memkit add FILE --from PATH`")
    return text


def _message(m: Mapping[str, Any]) -> Draft:
    meta = {**m.get("metadata", {}), **{k: m[k] for k in ("role", "name") if m.get(k)}}
    check_metadata(meta)
    when = None if m.get("timestamp") is None else parse_time(m["timestamp"])
    return Draft(_checked(m.get("content")), m.get("id"), meta, when)


def check_metadata(metadata: Any) -> None:
    """Refuse metadata that is no JSON."""
    import json

    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"metadata {metadata!r:.80}: {error}") from error


def parse_time(value: Any) -> datetime:
    """An aware datetime."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        value = moment.replace(tzinfo=UTC) if len(value) <= 10 else moment
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidInput(f"time {value!r} has no time zone; use .astimezone()")
    return value
