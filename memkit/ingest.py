"""What people have becomes drafts of items: texts and chat messages in memory, documents and chat logs in files.

    drafts(content)   what `Memory.add` takes
    read(path)        what `memkit add FILE --from PATH` takes; the formats are in docs/ingest.md

A draft from a file has an id that is the same each time it is read, so that an import may be run again after an
interruption: what is there already is not written twice.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from memkit_storage.errors import InvalidInput
from memkit_storage.times import parse_time

MAX_TEXT = 1 << 20  # bytes of UTF-8; more is a document, to be chunked
MAX_DEPTH = 32
DOCUMENTS = (".txt", ".md", ".markdown")
RECORDS = (".json", ".jsonl", ".ndjson")
_LABELS = ("role", "name", "tool_call_id")
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


@dataclass(frozen=True, slots=True)
class Draft:
    """An item before it is written. Without an id it gets one; without a time it happened now; without a surprise it is
    rated by the items before it. `created_at` and `updated_at` say when another store recorded it; default: now.
    """

    text: str
    id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    surprise: float | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that could not be read: in which file, where in it, and why."""

    path: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}"


class Source:
    """A file while it is being read: its name, and what was found in it so far.

    An id that is made here depends on the file's name, on what it stands for, and on how often that came before. So
    equal texts are separate items, and what is inserted into a file or appended to it leaves other ids as they were.
    """

    def __init__(self, name: str) -> None:
        self.name = os.fsencode(name).decode("utf-8", "replace")
        self.conversation: str | None = None  # of messages that stand for themselves
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._texts: dict[str, str] = {}

    def new_id(self, *parts: str) -> str:
        """26 hex digits of a SHA-256."""
        self._seen[parts] += 1
        key = json.dumps([self.name, *parts, self._seen[parts]])  # a list in JSON, so that no two run together
        return hashlib.sha256(key.encode()).hexdigest()[:26]

    def claim(self, id_: str, text: str) -> str:
        """The id, unless another text of the same file has it already.

        Raises:
            InvalidInput: names the id.
        """
        if self._texts.setdefault(id_, text) != text:
            raise InvalidInput(f"the id {id_!r:.80} stands for another text earlier in the file; make ids unique")
        return id_


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
    size = len(check_encodable(text, what))
    if size > MAX_TEXT:
        raise InvalidInput(
            f"{what} of {size} bytes ({text[:40]!r}…) is more than one item holds ({MAX_TEXT}); put it into a file and "
            "run `memkit add FILE --from PATH`, which chunks it"
        )
    return text


def truncated(text: str) -> str:
    """As much of a text as one item holds, with a "?" for half a character: for words that a program passes on, and
    that must not stop it.
    """
    return text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore")


def check_metadata(metadata: Any, path: str = "metadata") -> None:
    """Refuse metadata that is not JSON: text keys; text, numbers of 64 bits, booleans, None, lists and dicts of them.

    Raises:
        InvalidInput: names the path of the offending value.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"{path} is {metadata!r:.60} ({type(metadata).__name__}); pass a dict")
    _check_value(dict(metadata), path, 0)


def _check_value(value: Any, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{path[:80]}… is nested deeper than {MAX_DEPTH} levels; flatten it")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str) or not key:
                raise InvalidInput(f"{path} has the key {key!r:.60}; keys are non-empty strings")
            check_encodable(key, f"a key of {path}")
            _check_value(inner, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_value(inner, f"{path}[{index}]", depth + 1)
    else:
        _check_scalar(value, path)


def _check_scalar(value: Any, path: str) -> None:
    if isinstance(value, str):
        check_encodable(value, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{path} is {value!r}; use a finite number or None")
    elif isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 64:
        raise InvalidInput(f"{path} is an integer of {value.bit_length()} bits; 64 fit: store it as text")
    elif value is not None and not isinstance(value, int | float):
        hints = {datetime: "use .isoformat()", tuple: "use a list", set: "use a list"}
        hint = hints.get(type(value), "use JSON values")
        raise InvalidInput(f"{path} is {value!r:.60} ({type(value).__name__}); {hint}")


def check_encodable(text: str, what: str) -> bytes:
    """The text in UTF-8.

    Raises:
        InvalidInput: it holds half a character.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} holds half a character (a lone surrogate) at {error.start} in {text[:40]!r}; remove it"
        ) from None


def check_name(value: Any, what: str) -> str:
    """A short string that names something: a role, a speaker, a scope, an id.

    Raises:
        InvalidInput: not a string, empty, or not encodable.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{what} is {value!r:.60} ({type(value).__name__}); pass a non-empty string")
    check_encodable(value, what)
    return value


def moment(value: Any, what: str) -> datetime:
    """A time in a message: as `parse_time`, or seconds since 1970.

    Raises:
        InvalidInput: names the place and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            return parse_time(value)
        except InvalidInput as error:
            raise InvalidInput(f"{what}: {error}") from None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise InvalidInput(
            f"{what}: {value!r:.40} is no time in seconds since 1970; divide milliseconds by 1000"
        ) from None


# content in memory


def drafts(content: Any) -> list[Draft]:
    """Drafts of a text, an OpenAI-style message, or a list of either.

    A message may carry `name` (the speaker), `timestamp` (aware datetime, ISO 8601, or seconds since 1970), `id` and
    `metadata`. Text parts are joined by line breaks, the types of other parts listed in `metadata["parts"]`. A message
    without any text (a bare tool call, a lone picture) is left out of a list.

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
    calls = bool(value.get("tool_calls") or value.get("function_call"))
    if "content" not in value and not calls:
        raise InvalidInput(f"{what} has no content ({', '.join(map(str, value)) or 'empty'}); pass role and content")
    text, others = parts(value.get("content"), f"{what}.content")
    if text is None or (text == "" and (others or calls)):
        return None
    given = value.get("metadata")
    check_metadata({} if given is None else given, f"{what}.metadata")
    labels = {name: check_name(value[name], f"{what}.{name}") for name in _LABELS if value.get(name) not in (None, "")}
    stamp, id_ = value.get("timestamp"), value.get("id")
    return Draft(
        check_text(text, f"{what}.content"),
        id=None if id_ is None else given_id(id_, f"{what}.id"),
        metadata={**(given or {}), **labels, **({"parts": others} if others else {})},
        occurred_at=None if stamp is None else moment(stamp, f"{what}.timestamp"),
    )


def given_id(value: Any, what: str) -> str:
    """An id that the input brings along: a string, or an integer, which becomes one.

    Raises:
        InvalidInput: anything else.
    """
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else check_name(value, what)


def parts(content: Any, what: str) -> tuple[Any, list[str]]:
    """The text of a content (None if it is None), and the types of its parts that are no text.

    Raises:
        InvalidInput: a part that is neither text nor a map.
    """
    if not isinstance(content, list):
        return content, []
    texts, others = [], []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if isinstance(text, str):
            texts.append(text)
        elif isinstance(part, Mapping):
            others.append(str(part.get("type") or part.get("content_type") or "unknown"))
        else:
            raise InvalidInput(f"{what} has the part {part!r:.60}; parts are maps with type and text")
    return "\n".join(text for text in texts if text), others


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
        raise InvalidInput(f"{root} is {'no file or directory' if root.exists() else 'not there'}; check the path")
    found = [
        file
        for file in sorted(root.rglob("*"))
        if _suffix(file) in DOCUMENTS + RECORDS
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and file.is_file()
    ]
    if not found:
        raise InvalidInput(f"{root} holds no {', '.join(DOCUMENTS + RECORDS)} file")
    return found


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read(
    path: str | Path,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Draft]:
    """Drafts of everything in a file or directory, with original times, speakers and ids. For several users of one
    memory, pass them through `Memory.own_ids`.

    Args:
        on_error: "skip" leaves broken records out, and tells `on_problem` of each.

    Raises:
        InvalidInput: no such path; while iterating: a broken record or file, with its name, the place and the reason.
    """
    if on_error not in ("raise", "skip"):
        raise InvalidInput(f'on_error={on_error!r}; use "raise" (the default) or "skip"')
    return _read(Path(path), sources(path), _refuse if on_error == "raise" else on_problem)


def _refuse(problem: Problem) -> None:
    raise InvalidInput(f"{problem}; mend it, or skip broken records (--skip-broken)")


def _read(root: Path, files: list[Path], report: Callable[[Problem], None] | None) -> Iterator[Draft]:
    for file in files:
        source = Source(file.relative_to(root).as_posix() if root.is_dir() else file.name)
        for found in _read_file(file, source):
            if isinstance(found, Draft):
                yield found
            elif report:
                report(found)


def _read_file(file: Path, source: Source) -> Iterator[Draft | Problem]:
    from memkit import chats

    try:
        text = decode(file)
    except InvalidInput as error:
        yield Problem(source.name, "whole file", str(error))
        return
    suffix = _suffix(file)
    if suffix in RECORDS or (suffix not in DOCUMENTS and chats.is_json(text)):
        yield from chats.records(text, source)
    else:
        yield from document(text, source)


def decode(file: Path) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark; gunzipped where need be.

    Raises:
        InvalidInput: binary content, another encoding, or an unreadable file.
    """
    try:
        data = file.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"it cannot be read: {error}") from error
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"byte {error.start} is not {error.encoding}; convert it, as with iconv -t UTF-8") from error
    if "\0" in text:
        raise InvalidInput("it holds zero bytes: it is a binary file")
    return text


def document(text: str, source: Source) -> Iterator[Draft | Problem]:
    """Chunks of a document, each with its source, headings, number and offset in the metadata."""
    from memkit.chunking import chunks

    pieces = chunks(text)
    if not pieces:
        yield Problem(source.name, "whole file", "it is empty")
    for number, piece in enumerate(pieces, 1):
        place = {"source": source.name, "chunk": number, "chunks": len(pieces), "start": piece.start}
        headings = {"headings": list(piece.headings)} if piece.headings else {}
        yield Draft(piece.text, id=source.new_id(piece.text), metadata={**place, **headings})
