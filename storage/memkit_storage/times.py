"""Times: aware datetimes outside, microseconds since 1970 UTC inside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from memkit_storage.errors import InvalidInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(us: int) -> datetime:
    """Microseconds since 1970 UTC as an aware datetime."""
    return _EPOCH + timedelta(microseconds=us)


def to_us(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970 UTC, exact."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_time(value: Any) -> datetime:
    """An aware datetime from one, or from ISO 8601 text; a date alone is its midnight in UTC.

    Raises:
        InvalidInput: no time, or one without a zone.
    """
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise InvalidInput(f"{value!r} is no ISO 8601 time; write it like 2026-05-01T12:00:00+00:00") from error
        if len(value) <= len("2026-05-01"):
            moment = moment.replace(tzinfo=UTC)
    if not isinstance(moment, datetime):
        raise InvalidInput(f"{value!r:.80} is no time; pass an aware datetime or ISO 8601 text with a zone")
    if moment.tzinfo is None:
        raise InvalidInput(f"{value!r} has no time zone; append one, such as +00:00, or use .astimezone()")
    return moment
