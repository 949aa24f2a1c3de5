"""Chat logs: which format a JSON or JSONL text is in, and its messages as drafts. See docs/ingest.md.

Formats are told by their content. Each parser yields a draft, or the problem of a record that it cannot use.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memkit.ingest import Draft, Problem, check_metadata, check_text, message, moment, stable_id
from memkit_storage.errors import InvalidInput
from memkit_storage.rows import SCOPE_FIELDS

Found = Iterator[Draft | Problem]
_LOCOMO_TIMES = ("%I:%M %p on %d %B, %Y", "%B-%d-%Y", "%Y/%m/%d (%a) %H:%M")
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def decode(file: Path) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark; gunzipped when the name ends in .gz.

    Raises:
        InvalidInput: binary content, another encoding, or an unreadable file.
    """
    try:
        data = gzip.decompress(file.read_bytes()) if file.name.endswith(".gz") else file.read_bytes()
    except (OSError, EOFError) as error:
        raise InvalidInput(f"it cannot be read: {error}") from error
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"it is not UTF-8 text (byte {error.start}); convert it, as with iconv -t UTF-8") from error
    if "\0" in text:
        raise InvalidInput("it holds zero bytes: it is a binary file")
    return text


def records(text: str, source: str) -> Found:
    """Drafts of a JSON document or of JSON lines."""
    try:
        whole = json.loads(text)
    except ValueError as error:
        yield from _lines(text, source, error)
    else:
        yield from _value(whole, source, "record 1")


def _lines(text: str, source: str, error: ValueError) -> Found:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) < 2 or not lines[0][1].lstrip().startswith(("{", "[")):
        yield Problem(source, "whole file", f"it is neither JSON nor JSON lines: {error}" if lines else "it is empty")
        return
    for number, line in lines:
        try:
            value = json.loads(line)
        except ValueError as broken:
            yield Problem(source, f"line {number}", f"not JSON: {broken}")
        else:
            yield from _value(value, source, f"line {number}")


def _value(value: Any, source: str, place: str) -> Found:
    """A value of any of the formats."""
    if isinstance(value, list):
        if value and all(isinstance(one, Mapping) and "role" in one for one in value):
            yield from _messages(value, source, place, {})
            return
        for index, one in enumerate(value, 1):
            yield from _value(one, source, f"{place}, entry {index}" if place != "record 1" else f"record {index}")
        return
    for fits, parse in _FORMATS:
        if isinstance(value, Mapping) and fits(value):
            yield from parse(value, source, place)
            return
    kind = f"keys {', '.join(list(value)[:6])}" if isinstance(value, Mapping) else f"{value!r:.60}"
    yield Problem(source, place, f"no known chat format or row ({kind}); see docs/ingest.md")


def _try(make: Callable[[], Draft | None], source: str, place: str) -> Found:
    try:
        draft = make()
    except (InvalidInput, KeyError, TypeError, ValueError, AttributeError) as error:
        yield Problem(source, place, f"{error!r}" if isinstance(error, KeyError) else str(error))
    else:
        if draft is not None:
            yield draft


# OpenAI-style


def _messages(values: list[Any], source: str, place: str, around: Mapping[str, Any]) -> Found:
    """Messages of one conversation; its id and scopes go to each."""
    conversation = str(around.get("id") or around.get("run_id") or f"{source}:{place}")
    scopes = {name: around[name] for name in SCOPE_FIELDS if isinstance(around.get(name), str)}

    def make(value: Any, index: int) -> Draft | None:
        if not isinstance(value, Mapping):
            raise InvalidInput(f"message is {value!r:.60}; it needs role and content")
        stamp = value.get("timestamp", around.get("timestamp"))
        draft = message({**value, "timestamp": stamp}, f"message {index}")
        if draft is None:
            return None
        name = draft.id and f"{conversation}/{draft.id}"
        return replace(
            draft,
            id=name or stable_id(conversation, place, str(index), draft.text),
            metadata={**draft.metadata, "source": source},
            **{n: value[n] for n in SCOPE_FIELDS if isinstance(value.get(n), str)} or scopes,
        )

    for index, value in enumerate(values, 1):
        yield from _try(lambda value=value, index=index: make(value, index), source, f"{place}, message {index}")  # type: ignore[misc]


def _conversation(value: Mapping[str, Any], source: str, place: str) -> Found:
    yield from _messages(value["messages"], source, place, value)


def _message_line(value: Mapping[str, Any], source: str, place: str) -> Found:
    yield from _messages([value], source, place, {"id": source, **{n: value.get(n) for n in SCOPE_FIELDS}})


# plain rows, as memkit exports them


def _row(value: Mapping[str, Any], source: str, place: str) -> Found:
    def make() -> Draft:
        metadata = value.get("metadata") or {}
        check_metadata(metadata)
        text, when = check_text(value["text"]), value.get("occurred_at")
        return Draft(
            text,
            id=str(value["id"]) if value.get("id") is not None else stable_id(source, place, text),
            metadata=dict(metadata),
            occurred_at=None if when is None else moment(when, "occurred_at"),
            **{name: value[name] for name in SCOPE_FIELDS if value.get(name)},
        )

    yield from _try(make, source, place)


# ChatGPT export


def _chatgpt(value: Mapping[str, Any], source: str, place: str) -> Found:
    """One conversation: the branch of the tree that ends in the current node."""
    mapping = value["mapping"]
    node = mapping.get(value.get("current_node")) or next(
        (one for one in reversed(list(mapping.values())) if not one.get("children")), None
    )
    branch, seen = [], set()
    while node and id(node) not in seen:
        seen.add(id(node))
        branch.append(node)
        node = mapping.get(node.get("parent"))
    conversation = str(value.get("conversation_id") or value.get("id") or stable_id(source, place))
    about = {"source": source, "title": value.get("title")}
    for number, one in enumerate(reversed(branch), 1):
        if one.get("message"):
            yield from _try(
                lambda one=one: _chatgpt_message(one, conversation, about),  # type: ignore[misc]
                source,
                f"{place}, message {number}",
            )


def _chatgpt_message(node: Mapping[str, Any], conversation: str, about: Mapping[str, Any]) -> Draft | None:
    said = node["message"]
    parts = (said.get("content") or {}).get("parts") or [(said.get("content") or {}).get("text") or ""]
    text = "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in parts).strip()
    role = (said.get("author") or {}).get("role")
    hidden = (said.get("metadata") or {}).get("is_visually_hidden_from_conversation")
    if not text or role == "system" or hidden:
        return None
    stamp = said.get("create_time")
    return Draft(
        check_text(text),
        id=f"{conversation}/{said.get('id') or node.get('id')}",
        metadata={key: value for key, value in {"role": role, **about}.items() if value},
        occurred_at=None if stamp is None else moment(stamp, "create_time"),
        run_id=conversation,
    )


# Claude export


def _claude(value: Mapping[str, Any], source: str, place: str) -> Found:
    conversation = str(value.get("uuid") or stable_id(source, place))
    for number, said in enumerate(value["chat_messages"], 1):

        def make(said: Any = said, number: int = number) -> Draft | None:
            texts = [part.get("text") for part in said.get("content") or [] if isinstance(part, Mapping)]
            text = said.get("text") or "\n".join(one for one in texts if one)
            if not text.strip():
                return None
            about = {"role": {"human": "user"}.get(said.get("sender"), said.get("sender")), "title": value.get("name")}
            return Draft(
                check_text(text),
                id=f"{conversation}/{said.get('uuid') or number}",
                metadata={key: one for key, one in {**about, "source": source}.items() if one},
                occurred_at=moment(said["created_at"], "created_at") if said.get("created_at") else None,
                run_id=conversation,
            )

        yield from _try(make, source, f"{place}, message {number}")


# LoCoMo-style sessions


def _turns(value: Mapping[str, Any], source: str, place: str) -> Found:
    sample = str(value.get("sample") or value.get("id") or stable_id(source, place))
    for number, turn in enumerate(value["turns"], 1):
        yield from _try(
            lambda turn=turn: _turn(turn, sample, turn.get("session"), turn.get("time"), source),  # type: ignore[misc]
            source,
            f"{place}, turn {number}",
        )


def _locomo(value: Mapping[str, Any], source: str, place: str) -> Found:
    """The original file: sessions by number, each with its own date."""
    sample = str(value.get("sample_id") or stable_id(source, place))
    sessions = value.get("conversation") or value
    names = [name for name in sessions if re.fullmatch(r"session_\d+", name)]
    for name in sorted(names, key=lambda one: int(one.split("_")[1])):
        when = sessions.get(f"{name}_date_time")
        for number, turn in enumerate(sessions[name], 1):
            yield from _try(
                lambda turn=turn, name=name, when=when: _turn(turn, sample, name.split("_")[1], when, source),  # type: ignore[misc]
                source,
                f"{place}, {name}, turn {number}",
            )


def _turn(turn: Mapping[str, Any], sample: str, session: Any, when: Any, source: str) -> Draft:
    caption = turn.get("caption") or turn.get("blip_caption")
    text = f"{turn.get('text') or ''} [image: {caption}]".strip() if caption else turn.get("text")
    metadata = {
        "name": turn.get("speaker"),
        "session": None if session is None else str(session),
        "caption": caption,
        "source": source,
    }
    return Draft(
        check_text(text),
        id=f"{sample}/{turn.get('id') or turn['dia_id']}",
        metadata={key: value for key, value in metadata.items() if value},
        occurred_at=None if when is None else _session_time(when),
        run_id=sample,
    )


def _session_time(value: Any) -> datetime:
    """A session's time; those of LoCoMo have no zone and are taken as UTC."""
    for form in _LOCOMO_TIMES:
        try:
            return datetime.strptime(str(value), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return moment(value, "time")


def _has_sessions(value: Mapping[str, Any]) -> bool:
    inside = value.get("conversation")
    return any(re.fullmatch(r"session_\d+", str(key)) for key in (inside if isinstance(inside, Mapping) else value))


_FORMATS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any], str, str], Found]], ...] = (
    (lambda v: isinstance(v.get("mapping"), Mapping), _chatgpt),
    (lambda v: isinstance(v.get("chat_messages"), list), _claude),
    (lambda v: isinstance(v.get("messages"), list), _conversation),
    (lambda v: isinstance(v.get("turns"), list), _turns),
    (_has_sessions, _locomo),
    (lambda v: "role" in v and "content" in v, _message_line),
    (lambda v: "text" in v, _row),
)
