"""Texts, messages and files become drafts: times, speakers and ids are kept."""

from __future__ import annotations

import gzip
import json
import types
from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_support import TEXTS, write

from memkit.errors import InvalidInput
from memkit.ingest import MAX_TEXT, check_metadata, drafts, message, read, sources

# messages


def test_parts_are_joined_and_pictures_noted():
    (draft,) = drafts(
        [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}]}]
    )
    assert draft.text == "look"
    assert draft.metadata == {"role": "user", "parts": ["image_url"]}


def test_a_string_is_kept_to_the_last_character():
    (draft,) = drafts("  I moved.\n")
    assert (draft.text, draft.id, draft.metadata, draft.occurred_at) == ("  I moved.\n", None, {}, None)


def test_texts_and_messages_may_be_mixed():
    found = drafts(["a", {"role": "tool", "tool_call_id": "t1", "content": "b", "id": 7, "metadata": {"k": [1, None]}}])
    assert [draft.text for draft in found] == ["a", "b"]
    assert found[1].id == "7"
    assert found[1].metadata == {"role": "tool", "tool_call_id": "t1", "k": [1, None]}


def test_nothing_to_add_is_no_error():
    assert drafts([]) == []


def test_a_bare_tool_call_holds_nothing_to_remember():
    assert (
        drafts([{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "user", "content": "x"}])[0].text
        == "x"
    )
    assert drafts([{"role": "assistant", "tool_calls": [{}]}]) == []
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
        ([{"role": "user", "content": "x", "timestamp": 1683554160000}], r"1683554160000 .* divide"),
        ([{"role": "user", "content": "x", "timestamp": "2026-05-01T10:00:00"}], r"no time zone.*astimezone"),
        ([{"role": "user", "content": "x", "timestamp": datetime(2026, 5, 1)}], "no time zone"),  # noqa: DTZ001
        ([{"role": "user", "content": "x", "timestamp": True}], "True is no time"),
        ([{"role": "user", "content": "x", "metadata": {"a": [object()]}}], r"metadata.a\[0\]"),
        ([{"role": "user", "content": [7]}], "parts"),
        ("a\ud800b", "surrogate"),
        (b"bytes", r"content is b'bytes' \(bytes\)"),
        (None, "NoneType"),
        ([["nested"]], r"content\[0\] is \['nested'\]"),
        (["a", " \n"], r"content\[1\] is empty"),
        ([{"role": "user"}], r"content\[0\] has no content \(role\)"),
        ([{"role": "user", "content": {"text": "x"}}], r"content\[0\].content is"),
        ([{"role": 5, "content": "x"}], r"content\[0\].role is 5"),
        ([{"name": "\ud800", "content": "x"}], r"content\[0\].name holds half"),
        ([{"id": [1], "content": "x"}], r"content\[0\].id is \[1\]"),
        ([{"id": "", "content": "x"}], r"content\[0\].id is ''"),
        ([{"metadata": "abc", "content": "x"}], r"content\[0\].metadata is 'abc'"),
    ],
)
def test_an_error_names_the_place(content, hint):
    with pytest.raises(InvalidInput, match=hint):
        drafts(content)


def test_a_text_may_have_a_mebibyte_and_no_more():
    assert len(drafts("é" * (MAX_TEXT // 2))) == 1
    with pytest.raises(InvalidInput, match=r"1048578 bytes .*memkit add FILE --from"):
        drafts("é" * (MAX_TEXT // 2 + 1))


NESTED: dict = {}
for _ in range(40):
    NESTED = {"a": NESTED}


@pytest.mark.parametrize(
    ("metadata", "hint"),
    [
        ([], r"metadata is \[\] \(list\)"),
        ({"a": {"b": [1, {2}]}}, r"metadata.a.b\[1\] is \{2\} \(set\); use a list"),
        ({"a": (1, 2)}, r"metadata.a is \(1, 2\) \(tuple\); use a list"),
        ({"a": {1: 2}}, "metadata.a has the key 1"),
        ({"": 1}, "metadata has the key ''"),
        ({"a": float("nan")}, "metadata.a is nan"),
        ({"a": 1 << 64}, "metadata.a is an integer of 65 bits"),
        ({"a": -(1 << 63) - 1}, "metadata.a is an integer of 64 bits"),
        ({"a": datetime(2026, 5, 1, tzinfo=UTC)}, "isoformat"),
        ({"a": date(2026, 5, 1)}, "JSON values"),
        ({"a": b"x"}, r"metadata.a is b'x'"),
        ({"a": "\udfff"}, "metadata.a holds half a character"),
        ({"\udfff": 1}, "a key of metadata holds half a character"),
        ({"a": types.MappingProxyType({})}, "metadata.a is mappingproxy"),
        (NESTED, "nested deeper than 32"),
    ],
)
def test_metadata_is_json_and_an_error_names_the_path(metadata, hint):
    with pytest.raises(InvalidInput, match=hint):
        check_metadata(metadata)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(TEXTS, JSON, max_size=3))
def test_json_passes_as_metadata(metadata):
    check_metadata(metadata)


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


def test_an_edit_of_a_document_leaves_the_ids_of_other_chunks(tmp_path):
    parts = [f"# Part {i}\n\nWords of part {i}.\n" for i in range(5)]
    before = {d.text: d.id for d in read(write(tmp_path / "a.md", "\n".join(parts)))}
    parts[1:2] = ["# New\n\nInserted.\n", "# Part 1\n\nOther words, and more of them.\n"]
    after = {d.text: d.id for d in read(write(tmp_path / "a.md", "\n".join(parts)))}
    assert len(before) == 5
    assert len(after) == 6
    assert sum(before[text] == after.get(text) for text in before) == 4


def test_a_chunk_says_where_it_stands(tmp_path):
    text = "# Häuser\n\n" + "Ein Satz über Häuser. " * 120
    path = tmp_path / "a.md"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = list(read(path))
    assert [(d.metadata["chunk"], d.metadata["chunks"]) for d in found] == [(1, 3), (2, 3), (3, 3)]
    for draft in found:
        assert draft.metadata["source"] == "a.md"
        assert draft.metadata["headings"] == ["Häuser"]
        assert text[draft.metadata["start"] :].startswith(draft.text)
        assert draft.occurred_at is None


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
                "message": {"id": "ms", "author": {"role": "system"}, "content": {"parts": ["You are a model."]}},
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


def test_a_message_may_have_a_scope_of_its_own(tmp_path):
    messages = [{"role": "user", "content": "x"}, {"role": "user", "content": "y", "user_id": "ben"}]
    found = list(read(write(tmp_path / "c.json", {"id": "c7", "user_id": "ana", "messages": messages})))
    assert [(d.user_id, d.run_id) for d in found] == [("ana", "c7"), ("ben", "c7")]


def test_the_time_of_a_conversation_is_that_of_messages_without_one(tmp_path):
    messages = [{"role": "user", "content": "x"}, {"role": "user", "content": "y", "timestamp": 0}]
    found = list(read(write(tmp_path / "c.json", {"timestamp": "2026-05-01T10:00:00Z", "messages": messages})))
    assert [d.occurred_at for d in found] == [datetime(2026, 5, 1, 10, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]


def test_chatgpt_keeps_title_and_pictures_and_a_reply_without_time_follows_what_it_answers(tmp_path):
    asked, answered = read(write(tmp_path / "c.json", CHATGPT))
    assert asked.metadata == {"role": "user", "title": "Trip", "source": "c.json"}
    assert answered.metadata["parts"] == ["unknown"]
    assert asked.run_id == answered.run_id == "c1"
    assert answered.occurred_at == asked.occurred_at


def test_chatgpt_messages_that_were_hidden_from_the_user_are_left_out(tmp_path):
    export = json.loads(json.dumps(CHATGPT))
    export[0]["mapping"]["n1"]["message"]["metadata"] = {"is_visually_hidden_from_conversation": True}
    assert [d.text for d in read(write(tmp_path / "c.json", export))] == ["To Pico."]


def test_chatgpt_without_a_current_node_ends_at_the_last_leaf(tmp_path):
    export = json.loads(json.dumps(CHATGPT))
    del export[0]["current_node"]
    assert [d.text for d in read(write(tmp_path / "c.json", export))] == ["Where to?", "To Pico."]


def test_claude_names_attachments(tmp_path):
    said = {"uuid": "a", "sender": "human", "text": "see", "attachments": [{"file_name": "a.pdf"}], "files": []}
    (draft,) = read(
        write(tmp_path / "c.json", [{"uuid": "u", "created_at": "2026-05-01T10:00:00Z", "chat_messages": [said]}])
    )
    assert draft.metadata == {"role": "user", "source": "c.json", "attachments": ["a.pdf"]}
    assert draft.occurred_at == datetime(2026, 5, 1, 10, tzinfo=UTC)


def test_a_picture_without_words_is_its_caption(tmp_path):
    turns = [{"id": "D1:1", "session": "1", "time": None, "speaker": "A", "text": "", "caption": "a dog"}]
    (draft,) = read(write(tmp_path / "c.json", {"sample": "s", "turns": turns}))
    assert draft.text == "[image: a dog]"
    assert draft.metadata == {"name": "A", "session": "1", "caption": "a dog", "source": "c.json"}


def test_turns_of_two_conversations_with_equal_ids_stay_apart(tmp_path):
    second = {**LOCOMO, "sample_id": "conv-2"}
    found = list(read(write(tmp_path / "c.json", [LOCOMO, second])))
    assert len({d.id for d in found}) == 4
    assert {d.run_id for d in found} == {"conv-1", "conv-2"}


def test_what_memkit_exports_comes_back(memory, tmp_path):
    moment = datetime(2026, 5, 1, 18, 20, tzinfo=UTC)
    items = memory.add(
        [{"role": "user", "name": "Ana", "content": "a\u2028b \x85 🐈"}], user_id="ana", occurred_at=moment
    )
    path = write(tmp_path / "out.jsonl", "".join(item.model_dump_json() + "\n" for item in items))
    (draft,) = read(path)
    assert (draft.text, draft.id, draft.metadata) == (items[0].text, items[0].id, items[0].metadata)
    assert (draft.user_id, draft.run_id, draft.occurred_at) == ("ana", None, moment)


def test_a_line_separator_inside_of_a_string_ends_no_line(tmp_path):
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in ("a\u2028b", "c\x85d"))
    assert [d.text for d in read(write(tmp_path / "a.jsonl", lines))] == ["a\u2028b", "c\x85d"]


def test_json_is_told_from_text_where_the_name_does_not_say(tmp_path):
    assert [d.text for d in read(write(tmp_path / "conversations", OPENAI))] == ["hi", "hello"]
    assert [d.text for d in read(write(tmp_path / "notes", "[1] is a footnote"))] == ["[1] is a footnote"]
    assert [d.text for d in read(write(tmp_path / "a.txt", OPENAI))] == [json.dumps(OPENAI)]


# ids


def in_each_format(texts: list[str]) -> list[object]:
    """The same conversation without ids, in formats that allow it; one value, or JSON lines."""
    messages = [{"role": "user", "content": text} for text in texts]
    return [
        messages,
        {"messages": messages},
        {"chat_messages": [{"sender": "human", "text": text} for text in texts]},
        {"turns": [{"speaker": "A", "text": text} for text in texts]},
        "".join(json.dumps(message) + "\n" for message in messages),
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts),
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1, max_size=6), TEXTS, st.integers(1, 6))
def test_no_text_is_lost_and_an_insertion_changes_no_other_id(tmp_path, texts, inserted, place):
    """Equal texts count as separate, so ids are compared as sets."""
    longer = [*texts[:place], inserted, *texts[place:]]
    for before, after in zip(in_each_format(texts), in_each_format(longer), strict=True):
        found = list(read(write(tmp_path / "c.json", before)))
        assert [d.text for d in found] == texts
        assert len({d.id for d in found}) == len(texts)
        assert {d.id for d in found} < {d.id for d in read(write(tmp_path / "c.json", after))}


def test_two_files_of_one_name_do_not_overwrite_each_other(memory, tmp_path):
    for folder, text in (("a", "the blue one"), ("b", "the red one")):
        messages = [{"role": "user", "content": text, "id": "1"}, {"role": "user", "content": "ok", "id": "2"}]
        memory.add_drafts(list(read(write(tmp_path / folder / "chat.json", messages))))
    assert sorted(item.text for item in memory.list().items) == ["ok", "ok", "the blue one", "the red one"]


@pytest.mark.parametrize("key", ["text", "content"])
def test_equal_texts_of_two_users_keep_their_ids_in_any_order(tmp_path, key):
    lines = [{"role": "user", key: "ok", "user_id": user} for user in ("ana", "ben")]
    first, again = (
        {draft.user_id: draft.id for draft in read(write(tmp_path / "c.jsonl", "\n".join(map(json.dumps, order))))}
        for order in (lines, lines[::-1])
    )
    assert first == again
    assert len(set(first.values())) == 2


def test_an_id_that_stands_for_two_texts_is_refused(tmp_path):
    messages = [{"role": "user", "content": text, "id": "1"} for text in ("x", "x", "y")]
    path = write(tmp_path / "c.json", {"id": "c", "messages": messages})
    with pytest.raises(InvalidInput, match=r"message 3: the id 'c/1' stands for another text"):
        list(read(path))


@pytest.mark.parametrize("content", [OPENAI, CHATGPT, CLAUDE, LOCOMO, TURNS, [{"text": "a"}, {"text": "b", "id": "x"}]])
def test_an_interrupted_import_is_taken_up_again(memory, tmp_path, content):
    path = write(tmp_path / "c.json", content)
    entries = list(read(path))
    memory.add_drafts(entries[:1])
    memory.add_drafts(list(read(path)))
    position = memory.stats().position
    assert [item.text for item in memory.list().items] == [entry.text for entry in entries]
    memory.add_drafts(list(read(path)))
    assert memory.stats().position == position


def test_lines_compression_bom_and_crlf(tmp_path):
    lines = "\r\n".join(json.dumps(m) for m in OPENAI)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.json").write_bytes(json.dumps(OPENAI).encode("utf-16"))
    assert [d.text for d in read(tmp_path)] == ["hi", "hello"] * 3


def test_equal_lines_are_separate_memories(tmp_path):
    path = write(tmp_path / "a.jsonl", "\n".join(['{"role": "user", "content": "ok"}'] * 3))
    assert len({d.id for d in read(path)}) == 3
