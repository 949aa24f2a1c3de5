"""Other memories become this one: with their ids, times, scopes and metadata, as often as you like.

    read(kind, path)             what `memkit import KIND SOURCE FILE` reads
    from_mem0(mem0_memory)       a Mem0 that is open, whatever its vector store
    into(memory, found)          writes what either found, and reports

Run again, it writes only what is new or newer: an item that was changed or deleted here after the other store last
recorded it stays as it is here. A record that cannot be read is named in the report, and the others go in.
"""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from memkit import chats
from memkit.ingest import MAX_TEXT, Draft, Problem, Source, check_metadata, check_text, given_id, moment
from memkit.journal import MAX_WORDS
from memkit.memory import Memory
from memkit.writing import check_id
from memkit_storage.errors import InvalidInput
from memkit_storage.rows import SCOPE_FIELDS

Found = Iterator[Draft | Problem]
Record = Mapping[str, Any]
Progress = Callable[[int], None]
BATCH = 256  # items made durable together: what an interruption loses at most
PAGE = 1000
_MALFORMED = (InvalidInput, AttributeError, KeyError, RuntimeError, TypeError, ValueError)


class Report(NamedTuple):
    """What an import did: versions written, items that were here already (as new, or newer), what was unreadable."""

    added: int
    known: int
    broken: list[Problem]


def into(
    memory: Memory,
    found: Iterable[Draft | Problem],
    *,
    user_id: str | None = None,
    agent_id: str | None = None,
    run_id: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write what a reader found; scopes given here fill those that an item lacks. An id that another scope has here
    already stands behind the item's scope (see `Memory.own_ids`). `progress` is told how many are done.
    """
    added = known = 0
    broken: list[Problem] = []
    drafts = _drafts(found, broken)
    while batch := list(islice(drafts, BATCH)):
        begin = memory.stats().position
        named = memory.own_ids(batch, user_id=user_id, agent_id=agent_id, run_id=run_id)
        items = memory.add_drafts([draft for draft in named if not _is_newer_here(memory, draft)])
        new = len({item.position for item in items if item.position >= begin})
        added, known = added + new, known + len(batch) - new
        if progress is not None:
            progress(added + known)
    return Report(added, known, broken)


def _drafts(found: Iterable[Draft | Problem], broken: list[Problem]) -> Iterator[Draft]:
    for one in found:
        if isinstance(one, Problem):
            broken.append(one)
        else:
            yield one


def _is_newer_here(memory: Memory, draft: Draft) -> bool:
    """Whether this memory changed or deleted the item after the other store last recorded it."""
    last = draft.updated_at or draft.created_at
    if draft.id is None or last is None:
        return False
    changes = memory.history(draft.id)
    return bool(changes) and changes[-1].at > last


def _read_one(make: Callable[[], Draft], name: str, place: str) -> Draft | Problem:
    """The draft, or why there is none."""
    try:
        draft = make()
        check_text(draft.text)
        check_metadata(draft.metadata)
        if draft.id is not None:
            check_id(draft.id)
    except _MALFORMED as error:
        reason = str(error) if isinstance(error, InvalidInput) else f"it has an unexpected shape ({error!r:.120})"
        return Problem(name, place, reason)
    return draft


def _time(value: Any, what: str) -> datetime | None:
    """A time of another store; one without a zone is in UTC."""
    if isinstance(value, str) and (stamp := datetime.fromisoformat(value)).tzinfo is None:
        return stamp.replace(tzinfo=UTC)
    return None if value is None else moment(value, what)


# Mem0

_MEM0_DERIVED = ("hash", "score", "text_lemmatized", "score_details")  # made from the text, or by a search
_MEM0_OWN = (*_MEM0_DERIVED, *SCOPE_FIELDS, "id", "memory", "data", "metadata", "created_at", "updated_at")


def from_mem0(mem0: Any) -> Found:
    """Every memory of an open `mem0.Memory`, of all users, whatever its vector store is.

    The present version of each; Mem0's table of earlier versions does not say whose they were and is left out.
    """
    size = 0
    rows: list[Any] = []
    while len(rows) >= size:  # a store gives as many as it is asked for, and none has pages
        size = max(PAGE, 10 * size)
        listed = mem0.vector_store.list(filters=None, top_k=size)
        rows = listed[0] if isinstance(listed, list | tuple) and listed and isinstance(listed[0], list) else listed
    for number, row in enumerate(rows, 1):
        yield _mem0_record({**(row.payload or {}), "id": row.id}, "mem0", f"memory {number}")


def _mem0(path: Path) -> Found:
    """A JSON dump of `get_all()`, or the directory of Mem0's local Qdrant store."""
    if path.is_dir():
        yield from _qdrant(path)
        return
    value = _json(path)
    records = value.get("results", value.get("memories")) if isinstance(value, dict) else value
    if not isinstance(records, list):
        raise InvalidInput(f"{path} holds no list of memories; write it with json.dump(mem0.get_all(...), file)")
    for number, record in enumerate(records, 1):
        yield _mem0_record(record, path.name, f"memory {number}")


def _mem0_record(record: Any, name: str, place: str) -> Draft | Problem:
    """One memory: a dict as `get_all` gives it, or a payload as the vector store has it."""

    def make() -> Draft:
        rest = {key: value for key, value in record.items() if key not in _MEM0_OWN and value is not None}
        scopes: dict[str, Any] = {key: str(record[key]) for key in SCOPE_FIELDS if record.get(key) not in (None, "")}
        created = _time(record.get("created_at"), "created_at")
        return Draft(
            record["memory"] if "memory" in record else record["data"],
            id=given_id(record["id"], "id"),
            metadata={**(record.get("metadata") or {}), **rest},
            occurred_at=created,
            created_at=created,
            updated_at=_time(record.get("updated_at"), "updated_at") or created,
            **scopes,
        )

    return _read_one(make, name, place)


def _qdrant(path: Path) -> Found:
    """Points of a local Qdrant store, through its own client, which knows its format."""
    inside = next((one for one in (path, *sorted(path.iterdir())) if (one / "collection").is_dir()), None)
    if inside is None:  # the client would make a store there
        raise InvalidInput(f"{path} holds no local Qdrant store; pass its directory, or a JSON dump of get_all()")
    client = _library("qdrant_client", path, "or pass a JSON dump of get_all()").QdrantClient(path=str(inside))
    try:
        names = [one.name for one in client.get_collections().collections]
        for name in sorted(one for one in names if not one.endswith("_entities") and one != "mem0migrations"):
            offset = None
            while True:
                points, offset = client.scroll(name, limit=PAGE, offset=offset, with_payload=True, with_vectors=False)
                for point in points:
                    yield _mem0_record({**(point.payload or {}), "id": point.id}, name, f"point {point.id}")
                if offset is None:
                    break
    finally:
        client.close()


def _library(name: str, path: Path, otherwise: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise InvalidInput(f"{path} is read by {package}: pip install {package}, {otherwise}") from error


# LangGraph


def _langgraph(path: Path) -> Found:
    """The table of LangGraph's SqliteStore. Its namespace, key and value become metadata; its strings, the text."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        for row in database.execute("SELECT * FROM store ORDER BY created_at, prefix, key"):
            yield _langgraph_row(dict(row), path.name)


def _langgraph_row(row: dict[str, Any], name: str) -> Draft | Problem:
    namespace = row["prefix"].split(".")

    def make() -> Draft:
        value = json.loads(row["value"])
        created = _time(row["created_at"], "created_at")
        return Draft(
            ("\n".join(_strings(value)) or json.dumps(value))[:MAX_WORDS],
            id=json.dumps([*namespace, row["key"]], ensure_ascii=False),
            metadata={"namespace": namespace, "key": row["key"], "value": value},
            occurred_at=created,
            created_at=created,
            updated_at=_time(row["updated_at"], "updated_at"),
        )

    return _read_one(make, name, f"{row['prefix']}, {row['key']}")


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [text for one in inner for text in _strings(one)]
    return [value] if isinstance(value, str) and value.strip() else []


# MemVid


def _memvid(path: Path) -> Found:
    """The frames of an .mv2 file, through its SDK: of a long document, its parts.

    The SDK has the bytes of parts only. Of a short text it gives a preview, and of one in between what its index of
    words holds, in which every line break is a space.
    """
    os.environ.setdefault("MEMVID_TELEMETRY", "0")  # it reports home otherwise
    sdk = _library("memvid_sdk", path, "or pass its texts as JSON lines to `memkit add --from`")
    try:
        with closing(sdk.use("basic", str(path), read_only=True)) as source:
            count = source.stats()["frame_count"]
            for entry in source.timeline(limit=max(1, count)):
                for number in entry.get("child_frames") or [entry["frame_id"]]:
                    yield _memvid_frame(source, entry, number, path.name)
    except sdk.MemvidError as error:
        raise InvalidInput(f"{path} cannot be read as memvid: {error}") from error


def _memvid_frame(source: Any, entry: Record, number: int, name: str) -> Draft | Problem:
    auto = f"mv2://frames/{number}"
    uri = entry["uri"] if number == entry["frame_id"] else auto

    def make() -> Draft:
        about = source.frame(uri)
        when = moment(about["timestamp"], "timestamp")
        extra = {key: _value(value) for key, value in (about.get("extra_metadata") or {}).items()}
        own = {key: about[key] for key in ("title", "tags", "labels", "track", "kind") if about.get(key)}
        return Draft(
            source.blob(uri).decode() or _memvid_text(source, entry["preview"], uri, about.get("title") or "Untitled"),
            id=f"{name}#{number}" if uri == auto else uri,  # every file has a frame of this number
            metadata={**own, **{key: value for key, value in extra.items() if key != "extractous_metadata"}},
            occurred_at=when,
            created_at=when,
        )

    return _read_one(make, name, f"frame {number}")


def _memvid_text(source: Any, preview: str, uri: str, title: str) -> str:
    """A text that stands before what MemVid appends to it, which begins with the title."""
    text, end, _ = preview.rpartition(f"\ntitle: {title}")
    if end:
        return text
    words = preview.split()[:-1]  # the last one may be cut
    hits = source.find(" ".join(words), k=1, scope=uri, snippet_chars=MAX_TEXT)["hits"]
    text, end, _ = str(hits[0]["text"]).rpartition(f" title: {title} ") if hits else ("", "", "")
    if not end:
        raise InvalidInput("the SDK does not give its text: it is not in the file's index of words")
    return text


def _value(text: Any) -> Any:
    """Metadata that MemVid keeps as JSON text."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


# chats


def _chats(path: Path) -> Found:
    """The export of ChatGPT or Claude: its zip, the directory in it, or `conversations.json`."""
    for name, text in _exported(path):
        yield from chats.records(text, Source(name))


def _exported(path: Path) -> Iterator[tuple[str, str]]:
    pattern = "conversations*.json"
    if path.is_dir():
        texts = [(file.name, file.read_text(encoding="utf-8")) for file in sorted(path.glob(pattern))]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in sorted(archive.namelist()) if Path(name).match(pattern)]
            texts = [(Path(name).name, archive.read(name).decode()) for name in names]
    else:
        texts = [(path.name, path.read_text(encoding="utf-8"))]
    if not texts:
        raise InvalidInput(f"{path} holds no {pattern}; pass the zip of the export as it came")
    yield from texts


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON ({error})") from error


_READERS: dict[str, Callable[[Path], Found]] = {
    "mem0": _mem0,
    "memvid": _memvid,
    "langgraph-sqlite": _langgraph,
    "chatgpt": _chats,
    "claude": _chats,
}
KINDS = tuple(_READERS)


def read(kind: str, path: str | Path) -> Found:
    """What another memory holds: a draft of each record, or the problem that it is.

    Args:
        kind: "mem0" (a JSON dump of `get_all()`, or the directory of its Qdrant store), "memvid" (an .mv2 file),
            "langgraph-sqlite" (the database of a SqliteStore), "chatgpt" or "claude" (the export as it came).

    Raises:
        InvalidInput: an unknown kind, nothing at the path, something else there, or the library that reads it is
            missing.
    """
    if kind not in _READERS:
        raise InvalidInput(f"kind={kind!r}: use one of {', '.join(KINDS)}")
    if not Path(path).exists():
        raise InvalidInput(f"{path} is not there; check the path")
    try:
        yield from _READERS[kind](Path(path))
    except (OSError, RuntimeError, UnicodeDecodeError, sqlite3.Error) as error:
        raise InvalidInput(f"{path} cannot be read as {kind}: {error}") from error
