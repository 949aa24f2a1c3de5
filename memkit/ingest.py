"""What people have becomes drafts of items: texts and chat messages in memory, documents and chat logs in files.

    drafts(content)   what `Memory.add` takes
    read(path)        what `memkit add FILE --from PATH` takes; the formats are in docs/ingest.md

A draft from a file has an id that is the same each time it is read, so that an import may be run again after an
interruption: what is there already is not written twice.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from memkit_storage.errors import InvalidInput
from memkit_storage.times import parse_time

MAX_TEXT = 1 << 20  # bytes of UTF-8; more is a document, to be chunked
MAX_DEPTH = 32
DOCUMENTS = (".txt", ".md", ".markdown")
RECORDS = (".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Draft:
    """An item before it is written. Without an id it gets one; without a time it happened now."""

    text: str
    id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that could not be read: in which file, where in it, and why."""

    path: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}"


# checks


def check_text(text: Any, what: str = "text") -> str:
    """A text that may become an item.

    Raises:
        InvalidInput: not a string, empty, too long, or not encodable.
    """
    if not isinstance(text, str):
        raise InvalidInput(
            f"{what} is {text!r:.60} ({type(text).__name__}); pass a string, a message or a list of them"
        )
    if not text.strip():
        raise InvalidInput(f"{what} is empty ({text[:20]!r}); pass some words, or leave it out")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{what} holds half a character (a lone surrogate) at {error.start}; remove it") from error
    if size > MAX_TEXT:
        raise InvalidInput(
            f"{what} of {size} bytes ({text[:40]!r}…) is more than one item holds ({MAX_TEXT}); put it into a file and "
            "run `memkit add FILE --from PATH`, which chunks it"
        )
    return text


def check_metadata(metadata: Any, path: str = "metadata", depth: int = 0) -> None:
    """Refuse metadata that is not JSON: text keys; text, numbers, booleans, null, lists and maps of them.

    Raises:
        InvalidInput: names the path of the offending value.
    """
    if depth == 0 and not isinstance(metadata, Mapping):
        raise InvalidInput(f"metadata is {metadata!r:.60} ({type(metadata).__name__}); pass a dict")
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{path} is nested deeper than {MAX_DEPTH} levels; flatten it")
    if isinstance(metadata, Mapping):
        for key, value in metadata.items():
            if not isinstance(key, str) or not key:
                raise InvalidInput(f"{path} has the key {key!r}; keys are non-empty strings")
            _check_encodable(key, path)
            check_metadata(value, f"{path}.{key}", depth + 1)
    elif isinstance(metadata, list | tuple):
        for index, value in enumerate(metadata):
            check_metadata(value, f"{path}[{index}]", depth + 1)
    else:
        _check_scalar(metadata, path)


def _check_scalar(value: Any, path: str) -> None:
    if isinstance(value, str):
        _check_encodable(value, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{path} is {value!r}; use a finite number or None")
    elif isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 64:
        raise InvalidInput(f"{path} is {value!r:.40}, which does not fit 64 bits; store it as text")
    elif value is not None and not isinstance(value, str | int | float | bool):
        hint = "use .isoformat()" if isinstance(value, datetime) else "use JSON values"
        raise InvalidInput(f"{path} is {value!r:.60} ({type(value).__name__}); {hint}")


def _check_encodable(value: str, path: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidInput(f"{path} holds half a character (a lone surrogate) in {value!r:.60}; remove it")


# content in memory


def drafts(content: Any) -> list[Draft]:
    """Drafts of a text, an OpenAI-style message, or a list of either.

    A message may carry `name` (the speaker), `timestamp` (aware datetime, ISO 8601, or seconds since 1970), `id` and
    `metadata`. Parts that are no text are counted in `metadata.parts`; a message without any text (a bare tool call)
    is left out of a list.

    Raises:
        InvalidInput: names the place in the list, the value and the next step.
    """
    if isinstance(content, str):
        return [Draft(check_text(content))]
    if isinstance(content, Mapping):
        found = message(content)
        if found is None:
            raise InvalidInput(f"message {dict(content)!r:.80} has no text; pass a message with content")
        return [found]
    if not isinstance(content, list | tuple):
        check_text(content, "content")
    entries = [_entry(entry, index) for index, entry in enumerate(content)]
    return [entry for entry in entries if entry is not None]


def _entry(entry: Any, index: int) -> Draft | None:
    what = f"content[{index}]"
    return message(entry, what) if isinstance(entry, Mapping) else Draft(check_text(entry, what))


def message(value: Mapping[str, Any], what: str = "message") -> Draft | None:
    """One chat message as a draft; None when it has no text to remember, as a bare tool call.

    Raises:
        InvalidInput: no content, or a value that cannot be used.
    """
    if "content" not in value:
        raise InvalidInput(f"{what} has no content ({', '.join(map(str, value)) or 'empty'}); pass role and content")
    metadata = dict(value.get("metadata") or {})
    text, others = _parts(value["content"], what)
    for name in ("role", "name"):
        if value.get(name) is not None:
            metadata[name] = check_text(value[name], f"{what}.{name}")
    if others:
        metadata["parts"] = others
    check_metadata(metadata, f"{what}.metadata")
    if text is None or (not text and (others or value.get("tool_calls"))):
        return None
    stamp = value.get("timestamp")
    return Draft(
        check_text(text, f"{what}.content"),
        id=None if value.get("id") is None else str(value["id"]),
        metadata=metadata,
        occurred_at=None if stamp is None else moment(stamp, f"{what}.timestamp"),
    )


def _parts(content: Any, what: str) -> tuple[str | None, list[str]]:
    """The text of a content, and the types of its parts that are no text."""
    if content is None:
        return None, []
    if not isinstance(content, list):
        return content, []
    texts, others = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, Mapping):
            others.append(str(part.get("type", "unknown")))
        else:
            raise InvalidInput(f"{what}.content has the part {part!r:.60}; parts are maps with type and text")
    return "\n".join(texts), others


def moment(value: Any, what: str) -> datetime:
    """A time in a message: as `parse_time`, or seconds since 1970.

    Raises:
        InvalidInput: names the value.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        return parse_time(value)
    except (InvalidInput, OverflowError, ValueError, OSError) as error:
        raise InvalidInput(f"{what}: {error}") from error


# files


def sources(path: str | Path) -> list[Path]:
    """The files that `read` will read: the one at `path`, or those below it, sorted, hidden ones left out.

    Raises:
        InvalidInput: there is nothing at the path, or nothing in it that can be read.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InvalidInput(f"{root} does not exist; check the path")
    found = [
        file
        for file in sorted(root.rglob("*"))
        if file.is_file()
        and _suffix(file) in DOCUMENTS + RECORDS
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    ]
    if not found:
        raise InvalidInput(f"{root} holds no {', '.join(DOCUMENTS + RECORDS)} file")
    return found


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read(
    path: str | Path,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Draft]:
    """Drafts of everything in a file or directory, with original times, speakers and ids.

    Args:
        on_error: "skip" leaves broken records out, and tells `on_problem` of each.

    Raises:
        InvalidInput: a broken record or file; names the file, the place and the reason.
    """
    root = Path(path)
    for file in sources(root):
        name = file.relative_to(root).as_posix() if root.is_dir() else file.name
        for found in _read_file(file, name):
            if isinstance(found, Draft):
                yield found
            elif on_error == "raise":
                raise InvalidInput(f"{found}; mend it, or skip broken records (--skip-broken)")
            elif on_problem:
                on_problem(found)


def _read_file(file: Path, name: str) -> Iterator[Draft | Problem]:
    from memkit.chats import decode, records

    try:
        text = decode(file)
    except InvalidInput as error:
        yield Problem(name, "whole file", str(error))
        return
    yield from records(text, name) if _suffix(file) in RECORDS else document(text, name)


def document(text: str, source: str) -> Iterator[Draft | Problem]:
    """Chunks of a document, each with its source, headings, number and offset in the metadata."""
    from memkit.chunking import chunks

    pieces = chunks(text)
    if not pieces:
        yield Problem(source, "whole file", "it is empty")
    for index, piece in enumerate(pieces):
        metadata: dict[str, Any] = {"source": source, "chunk": index + 1, "chunks": len(pieces), "start": piece.start}
        if piece.headings:
            metadata["headings"] = list(piece.headings)
        draft = Draft(piece.text, metadata=metadata)
        yield replace(draft, id=stable_id(source, str(piece.start), piece.text))


def stable_id(*parts: str) -> str:
    """An id that the same parts give each time: 26 hex digits of their SHA-256."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:26]
