"""Chat logs: which format a JSON or JSONL text is in, and its messages as drafts. See docs/ingest.md.

Formats are told by their content. A parser yields, for each message, its place and a function that makes the draft;
what that function raises is the problem of this message alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from memkit.ingest import (
    Draft,
    Problem,
    Source,
    check_metadata,
    check_name,
    check_text,
    given_id,
    message,
    moment,
    parts,
)
from memkit_storage.errors import InvalidInput
from memkit_storage.rows import SCOPE_FIELDS

Object = Mapping[str, Any]
Make = Callable[[], Draft | None]
Made = Iterator[tuple[str, Make]]
Found = Iterator[Draft | Problem]
SAMPLE = 20  # lines by which JSON lines are told from a broken JSON document
MAX_LISTS = 3  # lists in lists, around objects
_OBJECT = re.compile(r"[\s\[]*\{")
_SESSION = re.compile(r"session_(\d+)")
_SESSION_TIMES = ("%I:%M %p on %d %B, %Y", "%B-%d-%Y", "%Y/%m/%d (%a) %H:%M")
_MALFORMED = (InvalidInput, AttributeError, KeyError, RecursionError, TypeError, ValueError)


# from text to values


def is_json(text: str) -> bool:
    """Whether a text is JSON with an object in it, as a whole or on its first line."""
    first = text.lstrip().partition("\n")[0]
    return bool(_OBJECT.match(text)) and not (_parsed(first)[1] and _parsed(text)[1])


def records(text: str, source: Source) -> Found:
    """Drafts of a JSON document or of JSON lines."""
    try:
        whole = json.loads(text)
    except RecursionError:
        yield Problem(source.name, "whole file", "its JSON is nested too deeply; flatten it")
    except ValueError as error:
        yield from _lines(text, source, error)
    else:
        yield from _value(whole, source, "record 1")


def _lines(text: str, source: Source, error: ValueError) -> Found:
    # JSON allows other line separators inside of strings, so only \n ends a line
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    good = sum(isinstance(_parsed(line)[0], dict | list) for _, line in lines[:SAMPLE])
    if not lines or 2 * good < min(SAMPLE, len(lines)):
        reason = f"it is neither JSON ({error}) nor JSON lines" if lines else "it is empty"
        yield Problem(source.name, "whole file", reason)
        return
    for number, line in lines:
        value, broken = _parsed(line)
        if broken:
            yield Problem(source.name, f"line {number}", f"not JSON: {broken}")
        else:
            yield from _value(value, source, f"line {number}")


def _parsed(text: str) -> tuple[Any, str | None]:
    """The value of a JSON text, or why it is none."""
    try:
        return json.loads(text), None
    except (ValueError, RecursionError) as error:
        return None, str(error)


def _value(value: Any, source: Source, place: str, depth: int = 0) -> Found:
    """A value of any of the formats, or a list of such values."""
    if isinstance(value, list) and depth < MAX_LISTS and not any(map(_is_message, value)):
        for index, one in enumerate(value, 1):
            inside = f"{place}, entry {index}" if depth or place != "record 1" else f"record {index}"
            yield from _value(one, source, inside, depth + 1)
        return
    made = _in_its_format(value, source)
    if made is None:
        kind = f"keys {', '.join(list(value)[:6]) or 'none'}" if isinstance(value, dict) else repr(value)
        yield Problem(source.name, place, f"no known chat format or row ({kind:.80}); see docs/ingest.md")
        return
    try:
        for at, make in made:
            yield from _draft(make, source, f"{place}, {at}" if at else place)
    except _MALFORMED as error:
        yield Problem(source.name, place, _reason(error))


def _in_its_format(value: Any, source: Source) -> Made | None:
    if isinstance(value, list) and any(map(_is_message, value)):
        return _messages(value, source, {})
    if not isinstance(value, dict):
        return None
    return next((parse(value, source) for fits, parse in _FORMATS if fits(value)), None)


def _draft(make: Make, source: Source, place: str) -> Found:
    try:
        draft = make()
        if draft is not None:
            check_text(draft.text)
            check_name(draft.id, "id")
            check_metadata(draft.metadata)
    except _MALFORMED as error:
        yield Problem(source.name, place, _reason(error))
    else:
        if draft is not None:
            yield draft


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InvalidInput) else f"it has an unexpected shape ({error!r:.120})"


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise InvalidInput(f"it is {value!r:.60}, not an object")
    return value


def _first(values: Sequence[Any], key: str) -> Any:
    return next((value.get(key) for value in values if isinstance(value, dict)), None)


def _without_empty(metadata: Object) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value not in (None, "", [])}


def _conversation_id(source: Source, first: Any, *given: Any) -> str:
    """The conversation's own id, or one from the file's name and the first message: files of one name stay apart."""
    own = next((value for value in given if value not in (None, "")), None)
    if own is not None:
        return given_id(own, "the id of the conversation")
    return f"{source.name}#{source.new_id('conversation', json.dumps(first))[:8]}"


def _scopes(value: Object) -> dict[str, Any]:
    return {name: check_name(value[name], name) for name in SCOPE_FIELDS if value.get(name) not in (None, "")}


# OpenAI-style messages


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and ("content" in value or "tool_calls" in value)


def _messages(values: Sequence[Any], source: Source, around: Object) -> Made:
    """Messages of one conversation; its id, scopes and time go to each that has none."""
    conversation = _conversation_id(source, _first(values, "content"), around.get("id"), around.get("run_id"))
    scopes = _scopes(around)
    if around.get("id") not in (None, ""):
        scopes = {"run_id": conversation, **scopes}
    for number, value in enumerate(values, 1):
        yield f"message {number}", partial(_message, value, source, conversation, scopes, around.get("timestamp"))


def _message(value: Any, source: Source, conversation: str, scopes: Mapping[str, str], stamp: Any) -> Draft | None:
    value = _object(value)
    scopes = {**scopes, **_scopes(value)}
    draft = message({**value, "timestamp": stamp if value.get("timestamp") is None else value["timestamp"]})
    if draft is None:
        return None
    return replace(
        draft,
        id=_message_id(source, conversation, draft.id, draft.text, scopes),
        metadata={**draft.metadata, "source": source.name},
        user_id=scopes.get("user_id"),
        agent_id=scopes.get("agent_id"),
        run_id=scopes.get("run_id"),
    )


def _message_id(
    source: Source, conversation: str, own: str | None, text: str, scopes: Mapping[str, str] | None = None
) -> str:
    if own is not None:
        return source.claim(f"{conversation}/{own}", text)
    return _made_id(source, scopes or {}, conversation, text)


def _made_id(source: Source, scopes: Mapping[str, str], *about: str) -> str:
    """With the scopes in it: an id stays in its scope, whatever equal text another scope gains or loses."""
    return source.new_id(*about, *(f"{name}={scopes[name]}" for name in SCOPE_FIELDS if name in scopes))


def _conversation(value: Object, source: Source) -> Made:
    return _messages(value["messages"], source, value)


def _message_line(value: Object, source: Source) -> Made:
    """A message for itself: all of a file are one conversation, which is known by the first."""
    source.conversation = source.conversation or _conversation_id(source, value.get("content"))
    yield "", partial(_message, value, source, source.conversation, {}, None)


# plain rows, as memkit exports them


def _row(value: Object, source: Source) -> Made:
    yield "", partial(_row_draft, value, source)


def _row_draft(value: Object, source: Source) -> Draft:
    text, when, id_ = check_text(value["text"]), value.get("occurred_at"), value.get("id")
    metadata, scopes = value.get("metadata"), _scopes(value)
    check_metadata({} if metadata is None else metadata)
    return Draft(
        text,
        id=_made_id(source, scopes, text) if id_ is None else given_id(id_, "id"),
        metadata=dict(metadata or {}),
        occurred_at=None if when is None else moment(when, "occurred_at"),
        **scopes,
    )


# ChatGPT export


def _chatgpt(value: Object, source: Source) -> Made:
    """One conversation: the branch of the tree that ends in the current node."""
    branch = _branch(value["mapping"], value.get("current_node"))
    first = _first([node["message"] for node in branch], "content")
    conversation = _conversation_id(source, first, value.get("conversation_id"), value.get("id"))
    about, stamp = {"title": value.get("title"), "source": source.name}, value.get("create_time")
    for number, node in enumerate(branch, 1):
        stamp = _first([node["message"]], "create_time") or stamp  # without a time: that of what it answers
        yield f"message {number}", partial(_chatgpt_message, node, source, conversation, about, stamp)


def _branch(mapping: Object, current: Any) -> list[Object]:
    """Nodes with a message from the root to the current one; to the last leaf where none is said to be current."""
    leaf = next((name for name in reversed(list(mapping)) if not mapping[name].get("children")), None)
    name = current if isinstance(current, str) and current in mapping else leaf
    found: dict[str, Object] = {}
    while name is not None and name in mapping and name not in found:
        found[name] = mapping[name]
        name = mapping[name].get("parent")
    return [node for node in reversed(found.values()) if node.get("message")]


def _chatgpt_message(
    node: Object, source: Source, conversation: str, about: Mapping[str, str | None], stamp: float | None
) -> Draft | None:
    said = _object(node["message"])
    content = said.get("content") or {}
    text, others = parts(content.get("parts") or content.get("text") or "", "content")
    role = (said.get("author") or {}).get("role")
    hidden = (said.get("metadata") or {}).get("is_visually_hidden_from_conversation")
    if not text.strip() or role == "system" or hidden:
        return None
    return Draft(
        text,
        id=_message_id(source, conversation, said.get("id") or node.get("id"), text),
        metadata=_without_empty({"role": role, **about, "parts": others}),
        occurred_at=None if stamp is None else moment(stamp, "create_time"),
        run_id=conversation,
    )


# Claude export


def _claude(value: Object, source: Source) -> Made:
    said = value["chat_messages"]
    conversation = _conversation_id(source, _first(said, "text"), value.get("uuid"))
    about, stamp = {"title": value.get("name"), "source": source.name}, value.get("created_at")
    for number, one in enumerate(said, 1):
        stamp = _first([one], "created_at") or stamp
        yield f"message {number}", partial(_claude_message, one, source, conversation, about, stamp)


def _claude_message(
    said: Any, source: Source, conversation: str, about: Mapping[str, str | None], stamp: str | None
) -> Draft | None:
    said = _object(said)
    text, others = parts(said.get("content") or [], "content")
    text = said.get("text") or text
    if not text:
        return None
    sender, files = said.get("sender"), [*(said.get("attachments") or []), *(said.get("files") or [])]
    role = "user" if sender == "human" else sender
    names = [file["file_name"] for file in files if file.get("file_name")]
    return Draft(
        text,
        id=_message_id(source, conversation, said.get("uuid"), text),
        metadata=_without_empty({"role": role, **about, "parts": others, "attachments": names}),
        occurred_at=None if stamp is None else moment(stamp, "created_at"),
        run_id=conversation,
    )


# LoCoMo-style sessions


def _turns(value: Object, source: Source) -> Made:
    turns = value["turns"]
    sample = _conversation_id(source, turns[0] if turns else None, value.get("sample"), value.get("id"))
    for number, turn in enumerate(turns, 1):
        yield f"turn {number}", partial(_turn, turn, source, sample)


def _locomo(value: Object, source: Source) -> Made:
    """The original file: sessions by number, each with its own date."""
    sessions = value["conversation"] if isinstance(value.get("conversation"), dict) else value
    names = sorted(filter(_SESSION.fullmatch, sessions), key=lambda name: int(name.partition("_")[2]))
    sample = _conversation_id(source, sessions[names[0]], value.get("sample_id"))
    for name in names:
        about = {"session": name.partition("_")[2], "time": sessions.get(f"{name}_date_time")}
        for number, turn in enumerate(sessions[name], 1):
            yield f"{name}, turn {number}", partial(_turn, turn, source, sample, about)


def _turn(turn: Any, source: Source, sample: str, about: Object | None = None) -> Draft:
    turn = {**(about or {}), **_object(turn)}
    caption, own, when = turn.get("caption") or turn.get("blip_caption"), turn.get("id"), turn.get("time")
    own = turn.get("dia_id") if own is None else own
    text = f"{turn.get('text') or ''} [image: {caption}]".lstrip() if caption else turn.get("text")
    return Draft(
        check_text(text),
        id=_message_id(source, sample, None if own is None else given_id(own, "id"), str(text)),
        metadata=_without_empty(
            {"name": turn.get("speaker"), "session": turn.get("session"), "caption": caption, "source": source.name}
        ),
        occurred_at=None if when is None else _session_time(when),
        run_id=sample,
    )


def _session_time(value: Any) -> datetime:
    """A session's time; those of LoCoMo have no zone and are taken as UTC."""
    for form in _SESSION_TIMES:
        try:
            return datetime.strptime(str(value), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return moment(value, "time")


def _has_sessions(value: Object) -> bool:
    inside = value["conversation"] if isinstance(value.get("conversation"), dict) else value
    return any(_SESSION.fullmatch(key) and isinstance(inside[key], list) for key in inside)


_FORMATS: tuple[tuple[Callable[[Object], bool], Callable[[Object, Source], Made]], ...] = (
    (lambda value: isinstance(value.get("mapping"), dict), _chatgpt),
    (lambda value: isinstance(value.get("chat_messages"), list), _claude),
    (lambda value: isinstance(value.get("messages"), list), _conversation),
    (lambda value: isinstance(value.get("turns"), list), _turns),
    (_has_sessions, _locomo),
    (_is_message, _message_line),
    (lambda value: "text" in value, _row),
)
