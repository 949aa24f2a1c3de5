"""What cannot be read is named and costs nothing else; and the demonstration that is shipped."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_support import DATA, SHARED, write

from memkit.errors import InvalidInput
from memkit.ingest import check_metadata, drafts, read

# what cannot be read


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
        ("a.json", "{\n}\n".join(["", "", ""]).encode(), "neither JSON"),
        ("a.json", json.dumps([{"text": "a"}, {"text": "b"}], indent=1)[:-3].encode(), "delimiter.*nor JSON lines"),
        ("a.json", b"{}", "keys none"),
        ("a.json", b"[" * 200_000, "nested too deeply"),
        ("a.json", b"[" * 50 + b"]" * 50, "no known"),
        ("a.json.gz", gzip.compress(b"[1]", mtime=0)[:-4], "cannot be read"),
        ("a.json.gz", b"\x1f\x8bnot gzip", "cannot be read"),
        ("a.json.gz", gzip.compress(b'{"text": "abc"}', mtime=0)[:10] + b"\xff" * 20, "cannot be read"),
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


MALFORMED = [
    {"mapping": {"a": 5}, "current_node": "a"},
    {"mapping": {"a": {"message": 5}}, "current_node": "a"},
    {"mapping": {"a": {"message": {"content": "x", "id": "m"}}}, "current_node": ["a"]},
    {"mapping": {"a": {"message": {"content": {"parts": ["x"]}, "id": "\ud800"}}}},
    {"chat_messages": [5]},
    {"chat_messages": [{"text": "x", "attachments": 7}]},
    {"chat_messages": [{"text": 5, "content": [7]}]},
    {"chat_messages": [{"text": "x", "attachments": [7]}]},
    {"uuid": "u", "name": "\ud800", "chat_messages": [{"text": "x"}]},
    {"messages": [5]},
    {"messages": [{"role": "user", "content": "x", "user_id": 5}]},
    {"messages": [{"role": "user", "content": "x"}], "user_id": ["ana"]},
    {"messages": [{"role": "user", "content": "x"}], "id": 1.5},
    {"messages": [{"role": "user", "content": "x", "timestamp": "soon"}]},
    {"turns": [5]},
    {"turns": [{"id": "1", "text": None}]},
    {"turns": [{"id": "1", "text": "x", "time": "soon"}]},
    {"turns": [{"id": {}, "text": "x"}]},
    {"conversation": {"session_1": [5]}},
    {"text": "x", "metadata": "abc"},
    {"text": "x", "user_id": 5},
    {"text": "x", "id": "\ud800"},
    {"text": "x", "occurred_at": "2026-05-01T10:00:00"},
]


@pytest.mark.parametrize("value", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_record_is_a_problem_of_its_own(tmp_path, value):
    path = write(tmp_path / "c.json", [{"text": "before"}, value, {"text": "after"}])
    with pytest.raises(InvalidInput, match="record 2"):
        list(read(path))
    problems = []
    assert [d.text for d in read(path, on_error="skip", on_problem=problems.append)] == ["before", "after"]
    assert [problem.place.split(",")[0] for problem in problems] == ["record 2"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["text", "role", "content", "id", "timestamp", "metadata", "user_id", "messages", "mapping"]
            )
            | st.sampled_from(
                ["current_node", "message", "parent", "children", "chat_messages", "uuid", "sender", "turns"]
            )
            | st.sampled_from(["conversation", "session_1", "session_1_date_time", "dia_id", "parts", "author", "n1"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(VALUES, max_size=4))
def test_whatever_json_holds_is_read_or_named(tmp_path, values):
    """Drafts can be written as they are, and every other record is reported; nothing else is raised."""
    problems = []
    for draft in read(write(tmp_path / "c.json", values), on_error="skip", on_problem=problems.append):
        drafts(draft.text)
        check_metadata(draft.metadata)
        assert isinstance(draft.id, str)
        assert draft.id
        assert draft.occurred_at is None or draft.occurred_at.utcoffset() is not None
        assert all(value is None or isinstance(value, str) for value in (draft.user_id, draft.agent_id, draft.run_id))
    assert all(problem.path == "c.json" and problem.place and problem.reason for problem in problems)


def test_one_of_many_bad_messages_does_not_hide_the_others(tmp_path):
    messages = [{"role": "user", "content": "a"}, None, {"role": "user"}, {"role": "user", "content": "b"}]
    problems = []
    found = list(read(write(tmp_path / "c.json", messages), on_error="skip", on_problem=problems.append))
    whole = list(read(write(tmp_path / "c.json", [messages[0], messages[3]])))
    assert [d.id for d in found] == [d.id for d in whole]
    assert [p.place for p in problems] == ["record 1, message 2", "record 1, message 3"]


def test_a_wish_that_is_no_choice_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="on_error='ignore'"):
        read(write(tmp_path / "a.txt", "x"), on_error="ignore")


@pytest.mark.skipif(not SHARED.exists(), reason="needs the LoCoMo files beside the repository")
def test_real_conversations_are_read_whole():
    """The flat files and the original hold the same turns; counts are those of the data's own description."""
    flat = {path.name.split(".")[0]: list(read(path)) for path in (SHARED / "locomo").glob("conv-*.json.gz")}
    raw = list(read(SHARED / "locomo" / "raw_1-5.json.gz"))
    assert len(flat) == 5
    assert sum(map(len, flat.values())) == len(raw) == len({d.id for d in raw}) == 2760
    for name, found in flat.items():
        same = [d for d in raw if d.run_id == name]
        assert [(d.id, d.occurred_at) for d in found] == [(d.id, d.occurred_at) for d in same]
        # the flat files have lost white space at the ends of some turns
        assert [d.text.split() for d in found] == [d.text.split() for d in same]
    assert len(flat["conv-26"]) == 419
    first = flat["conv-26"][0]
    assert (first.metadata["name"], first.id) == ("Caroline", "conv-26/D1:1")
    assert first.occurred_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert all(d.occurred_at for d in raw)


# the demonstration


def demo() -> list[dict]:
    return [json.loads(line) for line in (DATA / "demo.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_demo_is_a_conversation_over_months():
    found = drafts(demo())
    times = [draft.occurred_at for draft in found]
    assert len(found) > 100
    assert len({draft.id for draft in found}) == len({draft.text for draft in found}) == len(found)
    assert times == sorted(times)
    assert times[-1] - times[0] > timedelta(days=240)
    assert {(d.metadata["role"], d.metadata["name"]) for d in found} == {("user", "Nora"), ("assistant", "Juno")}
    assert [d.text for d in read(DATA / "demo.jsonl")] == [d.text for d in found]


def test_the_demo_answers_its_questions_newest_evidence_first():
    turns = [message["id"] for message in demo()]
    questions = json.loads((DATA / "demo_questions.json").read_text(encoding="utf-8"))
    assert len(questions) >= 8
    for question in questions:
        places = [turns.index(id_) for id_ in question["evidence"]]
        assert places
        assert places == sorted(places, reverse=True)
        assert question["question"].endswith("?")
        assert question["answer"]
