"""Texts, messages and files become drafts: times, speakers and ids are kept, and a broken record is named."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memkit.errors import InvalidInput
from memkit.ingest import drafts, message, read, sources

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# messages


def test_parts_are_joined_and_pictures_noted():
    (draft,) = drafts(
        [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}]}]
    )
    assert draft.text == "look"
    assert draft.metadata == {"role": "user", "parts": ["image_url"]}


def test_a_bare_tool_call_holds_nothing_to_remember():
    assert (
        drafts([{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "user", "content": "x"}])[0].text
        == "x"
    )
    with pytest.raises(InvalidInput, match="no text"):
        drafts({"role": "assistant", "content": None})


@pytest.mark.parametrize(
    "stamp", ["2023-05-08T13:56:00Z", 1683554160, 1683554160.0, datetime(2023, 5, 8, 13, 56, tzinfo=UTC)]
)
def test_a_timestamp_may_be_iso_epoch_or_datetime(stamp):
    draft = message({"role": "user", "content": "x", "timestamp": stamp})
    assert draft.occurred_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (["a", 5], r"content\[1\]"),
        ([{"content": ""}], r"content\[0\].content is empty"),
        ([{"role": "user", "content": "x", "timestamp": "soon"}], r"content\[0\].timestamp"),
        ([{"role": "user", "content": "x", "timestamp": 1e300}], "timestamp"),
        ([{"role": "user", "content": "x", "metadata": {"a": [object()]}}], r"metadata.a\[0\]"),
        ([{"role": "user", "content": [7]}], "parts"),
        ("a\ud800b", "surrogate"),
    ],
)
def test_an_error_names_the_place(content, hint):
    with pytest.raises(InvalidInput, match=hint):
        drafts(content)


# files


def test_a_directory_is_read_in_order_without_hidden_files(tmp_path):
    write(tmp_path / "b.md", "# Title\n\nSome text.")
    write(tmp_path / "a" / "x.txt", "hello")
    write(tmp_path / ".hidden" / "y.txt", "no")
    write(tmp_path / "image.png", "no")
    assert [p.name for p in sources(tmp_path)] == ["x.txt", "b.md"]
    found = list(read(tmp_path))
    assert [(d.text, d.metadata["source"]) for d in found] == [("hello", "a/x.txt"), ("# Title\n\nSome text.", "b.md")]
    assert found[1].metadata["headings"] == ["Title"]


def test_ids_are_the_same_each_time_and_distinct(tmp_path):
    path = write(tmp_path / "long.txt", "\n\n".join(f"Paragraph {i % 3}. " * 30 for i in range(40)))
    first, again = list(read(path)), list(read(path))
    assert [d.id for d in first] == [d.id for d in again]
    assert len({d.id for d in first}) == len(first) > 5
    assert [d.metadata["chunk"] for d in first] == list(range(1, len(first) + 1))


OPENAI = [
    {"role": "user", "content": "hi", "name": "Ana", "timestamp": "2026-05-01T10:00:00Z"},
    {"role": "assistant", "content": "hello"},
]
CHATGPT = [
    {
        "title": "Trip",
        "conversation_id": "c1",
        "current_node": "n3",
        "mapping": {
            "n0": {"id": "n0", "message": None, "parent": None, "children": ["n1"]},
            "n1": {
                "id": "n1",
                "parent": "n0",
                "children": ["n2", "nx"],
                "message": {
                    "id": "m1",
                    "author": {"role": "user"},
                    "create_time": 1683554160.5,
                    "content": {"content_type": "text", "parts": ["Where to?"]},
                },
            },
            "nx": {
                "id": "nx",
                "parent": "n1",
                "children": [],
                "message": {"id": "mx", "author": {"role": "assistant"}, "content": {"parts": ["abandoned branch"]}},
            },
            "n2": {
                "id": "n2",
                "parent": "n1",
                "children": ["n3"],
                "message": {"id": "ms", "author": {"role": "system"}, "content": {"parts": [""]}},
            },
            "n3": {
                "id": "n3",
                "parent": "n2",
                "children": [],
                "message": {
                    "id": "m2",
                    "author": {"role": "assistant"},
                    "create_time": None,
                    "content": {"parts": ["To Pico.", {"image": 1}]},
                },
            },
        },
    }
]
CLAUDE = [
    {
        "uuid": "u1",
        "name": "Trip",
        "chat_messages": [
            {"uuid": "a", "sender": "human", "text": "Where to?", "created_at": "2023-05-08T13:56:00.000Z"},
            {"uuid": "b", "sender": "assistant", "text": "", "content": [{"type": "text", "text": "To Pico."}]},
        ],
    }
]
LOCOMO = {
    "sample_id": "conv-1",
    "conversation": {
        "speaker_a": "A",
        "session_10_date_time": "1:56 pm on 8 May, 2023",
        "session_10": [{"speaker": "A", "dia_id": "D10:1", "text": "later"}],
        "session_2_date_time": "9:00 am on 1 May, 2023",
        "session_2": [{"speaker": "B", "dia_id": "D2:1", "text": "look", "blip_caption": "a dog"}],
    },
}
TURNS = {
    "sample": "s",
    "turns": [{"id": "D1:1", "session": "1", "time": "March-15-2024", "speaker": "A", "text": "hi"}],
}


@pytest.mark.parametrize(
    ("content", "texts", "roles", "first_time", "ids"),
    [
        (OPENAI, ["hi", "hello"], ["user", "assistant"], datetime(2026, 5, 1, 10, tzinfo=UTC), None),
        ({"id": "x", "user_id": "ana", "messages": OPENAI}, ["hi", "hello"], ["user", "assistant"], datetime(2026, 5, 1, 10, tzinfo=UTC), None),
        (CHATGPT, ["Where to?", "To Pico."], ["user", "assistant"], datetime(2023, 5, 8, 13, 56, 0, 500_000, tzinfo=UTC), ["c1/m1", "c1/m2"]),
        (CLAUDE, ["Where to?", "To Pico."], ["user", "assistant"], datetime(2023, 5, 8, 13, 56, tzinfo=UTC), ["u1/a", "u1/b"]),
        (LOCOMO, ["look [image: a dog]", "later"], [None, None], datetime(2023, 5, 1, 9, tzinfo=UTC), ["conv-1/D2:1", "conv-1/D10:1"]),
        ([LOCOMO], ["look [image: a dog]", "later"], [None, None], datetime(2023, 5, 1, 9, tzinfo=UTC), None),
        (TURNS, ["hi"], [None], datetime(2024, 3, 15, tzinfo=UTC), ["s/D1:1"]),
        ([{"text": "a", "id": "1", "occurred_at": "2026-05-01"}, {"text": "b"}], ["a", "b"], [None, None], datetime(2026, 5, 1, tzinfo=UTC), None),
    ],
)  # fmt: skip
def test_each_format_keeps_texts_roles_times_and_ids(tmp_path, content, texts, roles, first_time, ids):
    found = list(read(write(tmp_path / "chat.json", content)))
    assert [d.text for d in found] == texts
    assert [d.metadata.get("role") for d in found] == roles
    assert found[0].occurred_at == first_time
    assert len({d.id for d in found}) == len(found)
    if ids:
        assert [d.id for d in found] == ids


def test_conversations_with_scopes_keep_them(tmp_path):
    found = list(read(write(tmp_path / "c.json", {"user_id": "ana", "run_id": "r", "messages": OPENAI})))
    assert {(d.user_id, d.run_id) for d in found} == {("ana", "r")}


def test_lines_compression_bom_and_crlf(tmp_path):
    lines = "\r\n".join(json.dumps(m) for m in OPENAI)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.json").write_bytes(json.dumps(OPENAI).encode("utf-16"))
    assert [d.text for d in read(tmp_path)] == ["hi", "hello"] * 3


def test_equal_lines_are_separate_memories(tmp_path):
    path = write(tmp_path / "a.jsonl", "\n".join(['{"role": "user", "content": "ok"}'] * 3))
    assert len({d.id for d in read(path)}) == 3


def test_a_broken_record_is_named_or_skipped(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{broken\n{"text": ""}\n{"odd": 1}\n{"text": "two"}\n')
    with pytest.raises(InvalidInput, match=r"a\.jsonl, line 2: not JSON"):
        list(read(path))
    problems = []
    found = [d.text for d in read(path, on_error="skip", on_problem=problems.append)]
    assert found == ["one", "two"]
    assert [p.place for p in problems] == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize(
    ("name", "data", "hint"),
    [
        ("a.txt", b"\xff\xd8\xff\xe0", "UTF-8"),
        ("a.txt", b"a\0b", "binary"),
        ("a.txt", b"", "empty"),
        ("a.json", b"", "empty"),
        ("a.json", b"{", "neither JSON"),
        ("a.json", b"3", "no known"),
        ("a.json.gz", b"not gzip", "cannot be read"),
        ("a.txt", "é".encode("latin-1"), "iconv"),
    ],
)
def test_a_file_that_is_no_text_says_why(tmp_path, name, data, hint):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInput, match=hint):
        list(read(tmp_path / name))


def test_a_path_without_files_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidInput):
            list(read(path))


@pytest.mark.skipif(not SHARED.exists(), reason="needs the LoCoMo files beside the repository")
def test_real_conversations_are_read_whole():
    flat = {name: list(read(SHARED / "locomo" / f"{name}.json.gz")) for name in ("conv-26", "conv-30")}
    raw = [d for d in read(SHARED / "locomo" / "raw_1-5.json.gz") if d.run_id in flat]
    for name, found in flat.items():
        assert {d.id: d.occurred_at for d in found} == {d.id: d.occurred_at for d in raw if d.run_id == name}
    assert flat["conv-26"][0].occurred_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert len(flat["conv-26"]) == 419
