"""What callers pass to the Mem0 drop-in, checked and understood, with Mem0's errors."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from memkit.errors import InvalidInput, ItemNotFound
from memkit.ingest import Draft, check_text, message, moment
from memkit_adapters._mem0_facts import LLM, ask

PROCEDURAL = "procedural_memory"
SCOPES = ("user_id", "agent_id", "run_id")
logger = logging.getLogger("memkit_adapters.mem0")


class ValidationError(InvalidInput):
    """Mem0's error of the same name, with its fields.

    Attributes:
        error_code: "VALIDATION_001" no scope, "VALIDATION_002" memory_type, "VALIDATION_003" messages.
    """

    def __init__(
        self, message: str, error_code: str, suggestion: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{message} {suggestion}")
        self.message, self.error_code, self.suggestion, self.details = (
            message,
            error_code,
            suggestion,
            dict(details or {}),
        )


class MemoryNotFound(ItemNotFound, ValueError):
    """There is no memory of this id; a ValueError, as in Mem0."""


def file_of(config: Any) -> Path:
    """The file that a path or a config of Mem0 means; the directory that a config names is made.

    A path in a config that ends in `.mem` is the file itself.
    """
    if isinstance(config, str | Path):
        return Path(config)
    store = _at(_at(config, "vector_store"), "config")
    path = Path(_at(store, "path") or os.environ.get("MEM0_DIR") or Path.home() / ".mem0")
    if path.suffix != ".mem":
        path = path / f"{_at(store, 'collection_name') or 'memory'}.mem"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _at(config: Any, name: str) -> Any:
    """A value in a config of Mem0, which may be a dict, a pydantic model, or missing."""
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def scope_name(value: Any, name: str) -> str:
    """A scope as Mem0 takes it: a word, or a number that becomes one.

    Raises:
        InvalidInput: empty, or with whitespace in it.
    """
    text = str(value).strip()
    if not text or any(map(str.isspace, text)):
        raise InvalidInput(f"Invalid {name} {value!r}: it must be a word, not empty and without whitespace")
    return text


def no_scope(example: str) -> ValidationError:
    """The error of a call that does not say whose memories are meant."""
    names = "At least one of 'user_id', 'agent_id', or 'run_id' must be provided."
    return ValidationError(names, "VALIDATION_001", f"Pass one, such as {example}.")


def some_scope(user_id: Any, agent_id: Any, run_id: Any) -> dict[str, str]:
    """The scopes that are given.

    Raises:
        ValidationError: none is.
    """
    given = zip(SCOPES, (user_id, agent_id, run_id), strict=True)
    scope = {name: scope_name(value, name) for name, value in given if value is not None}
    if not scope:
        raise no_scope("user_id='ana'")
    return scope


def without_identity(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata cannot say whose a memory is: only the scope arguments do."""
    taken = [name for name in (*SCOPES, "actor_id") if name in metadata]
    if taken:
        logger.warning("ignoring metadata %s: identity fields cannot be set through metadata", ", ".join(taken))
    return {key: value for key, value in metadata.items() if key not in taken}


def to_day(value: Any) -> str:
    """A day as YYYY-MM-DD.

    Raises:
        InvalidInput: it is none.
    """
    if isinstance(value, datetime):
        return value.date().isoformat()
    try:
        return (value if isinstance(value, date) else date.fromisoformat(value)).isoformat()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expiration_date={value!r:.60} must be a valid date in YYYY-MM-DD format") from error


def check_count(value: Any) -> int:
    """How many results are wanted.

    Raises:
        InvalidInput: no whole number from 0 on.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"top_k={value!r}: must be a non-negative integer")
    return value


def check_threshold(value: Any) -> float:
    """A least score.

    Raises:
        InvalidInput: no number in [0, 1].
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInput(f"threshold={value!r}: must be a number between 0 and 1")
    return value


def as_messages(messages: Any) -> list[Any]:
    """A text, a message or a list of messages as a list.

    Raises:
        ValidationError: something else.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping):
        return [messages]
    if not isinstance(messages, list):
        kind = type(messages).__name__
        raise ValidationError(
            f"messages must be str, dict, or list[dict], got {kind}.",
            "VALIDATION_003",
            "Convert the input to one of these.",
            {"provided_type": kind},
        )
    return messages


def spoken(messages: list[Any]) -> list[Draft]:
    """Messages with a role and words, those of the system left out. Who speaks becomes `actor_id`."""
    found = []
    for one in messages:
        if not isinstance(one, Mapping) or one.get("role") is None or not _has_words(one.get("content")):
            logger.warning("skipping a message without role or content: %.80r", one)
        elif one["role"] != "system" and (draft := message(one)) is not None:
            labels = {"actor_id" if key == "name" else key: value for key, value in draft.metadata.items()}
            found.append(replace(draft, id=None, metadata=labels))
    return found


def _has_words(content: Any) -> bool:
    return content is not None and not (isinstance(content, str) and not content.strip())


def procedure(said: list[Draft], llm: LLM | None, prompt: str | None) -> Draft:
    """A conversation as one memory."""
    text = "\n".join(f"{one.metadata['role']}: {one.text}" for one in said)
    if llm is not None:
        task = prompt or "Sum up what was done, step by step, with every result, so that the work can be continued."
        text = ask(llm, f"{task}\n\n{text}")
    return Draft(check_text(text), metadata={"memory_type": PROCEDURAL})


def completed(entry: Draft, metadata: dict[str, Any], stamp: Any, scope: dict[str, str]) -> Draft:
    """A draft with what came with the call: metadata, a time, whose it is."""
    when = entry.occurred_at if stamp is None else moment(stamp, "timestamp")
    owner: dict[str, Any] = scope
    return replace(entry, metadata={**metadata, **entry.metadata}, occurred_at=when, created_at=when, **owner)
