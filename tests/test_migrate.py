"""Migrations from stores that their own libraries make here, and from exports in their documented format."""

from __future__ import annotations

import json
import sqlite3
import sys
import zipfile
from datetime import UTC, datetime

import pytest
from langgraph.store.sqlite import SqliteStore
from mem0_support import real_memory
from typer.testing import CliRunner

from memkit.cli import app
from memkit.errors import InvalidInput
from memkit.ingest import Draft, Problem
from memkit.migrate import from_mem0, into, read
from memkit_adapters.langgraph import MemkitStore

CHATGPT = [
    {
        "title": "Trip",
        "conversation_id": "c1",
        "current_node": "n2",
        "mapping": {
            "n0": {"id": "n0", "message": None, "parent": None, "children": ["n1"]},
            "n1": {
                "id": "n1",
                "parent": "n0",
                "children": ["n2"],
                "message": {
                    "id": "m1",
                    "author": {"role": "user"},
                    "create_time": 1683554160.5,
                    "content": {"content_type": "text", "parts": ["Where to?"]},
                },
            },
            "n2": {
                "id": "n2",
                "parent": "n1",
                "children": [],
                "message": {
                    "id": "m2",
                    "author": {"role": "assistant"},
                    "create_time": 1683554170.25,
                    "content": {"content_type": "text", "parts": ["To Pico."]},
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
            {"uuid": "b", "sender": "assistant", "text": "To Pico.", "created_at": "2023-05-08T13:57:00.000Z"},
        ],
    }
]


@pytest.fixture
def mem0(tmp_path):
    """A Mem0 store of two users: verbatim messages, inferred facts, an updated and a deleted memory."""
    memory = real_memory(tmp_path / "mem0")
    said = [{"role": "user", "content": f"note {n}", "name": "Ana"} for n in range(30)]
    added = memory.add(said, user_id="ana@example.org", metadata={"deep": {"a.b": 1}, "tags": ["x"]}, infer=False)
    memory.add("I like tea", user_id="bo", run_id="r/1", expiration_date="2999-01-01")
    memory.update(added["results"][0]["id"], "note zero", metadata={"ünï": "✓"})
    memory.delete(added["results"][1]["id"])
    yield memory
    memory.vector_store.client.close()
    memory.close()


def of_mem0(memory):
    found = [
        one
        for scope in ({"user_id": "ana@example.org"}, {"user_id": "bo"})
        for one in memory.get_all(filters=scope, top_k=100)["results"]
    ]
    return {
        one["id"]: (
            one["memory"],
            one["created_at"],
            one["updated_at"],
            one["user_id"],
            one.get("run_id"),
            {
                **(one["metadata"] or {}),
                **{name: one[name] for name in ("actor_id", "role", "attributed_to", "expiration_date") if name in one},
            },
        )
        for one in found
    }


def of_memkit(memory):
    return {
        item.id: (
            item.text,
            item.created_at.isoformat(),
            item.updated_at.isoformat(),
            item.user_id,
            item.run_id,
            item.metadata,
        )
        for item in memory.list(limit=100).items
    }


def test_a_mem0_store_is_complete_with_ids_times_scopes_and_metadata(mem0, memory):
    report = into(memory, from_mem0(mem0))
    assert (report.added, report.known, report.broken) == (30, 0, [])
    assert of_memkit(memory) == of_mem0(mem0)
    assert all(item.occurred_at == item.created_at for item in memory.list().items)


def test_the_directory_of_mem0s_store_gives_the_same(mem0, memory, tmp_path):
    wanted = of_mem0(mem0)
    mem0.vector_store.client.close()
    assert into(memory, read("mem0", tmp_path / "mem0" / "qdrant")).added == 30
    assert of_memkit(memory) == wanted


def test_the_directory_around_mem0s_store_does_too_and_no_other_is_touched(mem0, tmp_path):
    mem0.vector_store.client.close()
    assert len(list(read("mem0", tmp_path / "mem0"))) == 30
    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidInput, match="holds no local Qdrant store"):
        list(read("mem0", tmp_path / "other"))
    assert list((tmp_path / "other").iterdir()) == []


def test_a_dump_of_get_all_gives_the_same(mem0, memory, tmp_path):
    for name in ("ana@example.org", "bo"):
        dump = tmp_path / f"{name}.json"
        dump.write_text(json.dumps(mem0.get_all(filters={"user_id": name}, top_k=100)), encoding="utf-8")
        into(memory, read("mem0", dump))
    assert of_memkit(memory) == of_mem0(mem0)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # qdrant_client leaves its lock file open
def test_a_store_that_is_open_elsewhere_is_refused(mem0, tmp_path):
    with pytest.raises(InvalidInput, match="already accessed"):
        list(read("mem0", tmp_path / "mem0" / "qdrant"))


def test_more_memories_than_a_page_are_all_read(memory):
    class Row:
        def __init__(self, number):
            self.id, self.payload = str(number), {"data": f"note {number}", "user_id": "ana"}

    class Store:
        class vector_store:
            @staticmethod
            def list(filters, top_k):
                return [[Row(number) for number in range(2500)][:top_k]]

    assert len(list(from_mem0(Store))) == 2500


def test_what_mem0_cannot_say_is_named_and_the_rest_goes_in(memory, tmp_path):
    rows = [{"id": "1", "memory": "tea"}, {"id": "2", "memory": " "}, {"memory": "x"}, {"id": "4"}, 5]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    report = into(memory, read("mem0", tmp_path / "d.json"), user_id="ana")
    assert (report.added, [problem.place for problem in report.broken]) == (
        1,
        ["memory 2", "memory 3", "memory 4", "memory 5"],
    )
    assert memory.get("1").user_id == "ana"


# LangGraph


@pytest.fixture
def graph(tmp_path):
    """The database of a SqliteStore with odd namespaces, keys and values."""
    path = tmp_path / "store.db"
    with SqliteStore.from_conn_string(str(path)) as store:
        store.setup()
        for number in range(300):
            store.put(("users", "ana", "notes"), f"k{number}", {"text": f"note {number}", "n": number})
        store.put(("ünï", "a/b"), "ana@example.org", {"deep": {"a.b": [1, "x"]}, "none": None})
        store.put(("long",), "k" * 1000, {"n": 1.5})
    return path


def test_a_langgraph_store_is_complete_with_namespaces_keys_values_and_times(graph, memory):
    report = into(memory, read("langgraph-sqlite", graph))
    assert (report.added, report.broken) == (302, [])
    with SqliteStore.from_conn_string(str(graph)) as store:
        wanted = {
            (one.namespace, one.key): (one.value, one.created_at, one.updated_at)
            for one in store.search((), limit=1000)
        }
    found = {
        (tuple(item.metadata["namespace"]), item.metadata["key"]): (
            item.metadata["value"],
            item.created_at,
            item.updated_at,
        )
        for item in memory.list(limit=1000).items
    }
    assert {key: (value, *map(in_utc, times)) for key, (value, *times) in wanted.items()} == found


def in_utc(moment):
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def test_a_broken_value_is_named_and_the_rest_goes_in(graph, memory):
    with sqlite3.connect(graph) as database:
        database.execute("UPDATE store SET value = '{' WHERE key = 'k7'")
    database.close()
    report = into(memory, read("langgraph-sqlite", graph))
    assert (report.added, [problem.place for problem in report.broken]) == (301, ["users.ana.notes, k7"])


def test_a_value_of_megabytes_goes_in_and_a_key_that_no_id_holds_is_named(graph, memory):
    with SqliteStore.from_conn_string(str(graph)) as store:
        store.put(("big",), "k", {"text": "red boat " * 200_000})
        store.put(("big",), "k" * 9000, {"text": "tea"})
    report = into(memory, read("langgraph-sqlite", graph))
    assert (report.added, [problem.reason[:2] for problem in report.broken]) == (303, ["id"])
    assert len(memory.get('["big", "k"]').metadata["value"]["text"]) == 1_800_000


def test_another_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"no database, but long enough to be read as one" * 40)
    with pytest.raises(InvalidInput, match="cannot be read as langgraph-sqlite"):
        list(read("langgraph-sqlite", tmp_path / "x.db"))


# exports of chats


def of_chats(memory):
    return [(item.id, item.text, item.metadata["role"], item.occurred_at) for item in memory.list().items]


CHATGPT_SAID = [
    ("c1/m1", "Where to?", "user", datetime.fromtimestamp(1683554160.5, UTC)),
    ("c1/m2", "To Pico.", "assistant", datetime.fromtimestamp(1683554170.25, UTC)),
]


@pytest.mark.parametrize("form", ["file", "directory", "zip"])
def test_a_chatgpt_export_is_complete_in_every_form(memory, tmp_path, form):
    path = tmp_path / "export"
    path.mkdir()
    (path / "conversations.json").write_text(json.dumps(CHATGPT))
    (path / "user.json").write_text("{}")
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
            for file in path.iterdir():
                archive.write(file, file.name)
    source = {"file": path / "conversations.json", "directory": path, "zip": tmp_path / "e.zip"}[form]
    assert into(memory, read("chatgpt", source), user_id="ana").added == 2
    assert of_chats(memory) == CHATGPT_SAID
    assert {item.user_id for item in memory.list().items} == {"ana"}


def test_a_claude_export_is_complete(memory, tmp_path):
    (tmp_path / "conversations.json").write_text(json.dumps(CLAUDE))
    into(memory, read("claude", tmp_path))
    assert of_chats(memory) == [
        ("u1/a", "Where to?", "user", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("u1/b", "To Pico.", "assistant", datetime(2023, 5, 8, 13, 57, tzinfo=UTC)),
    ]


# MemVid


def test_a_memvid_file_keeps_uris_times_titles_and_texts(memory, tmp_path):
    memvid = pytest.importorskip("memvid_sdk", reason="its wheel is in the bench extra, for some Linux systems alone")
    source = memvid.create(str(tmp_path / "a.mv2"))
    source.put(text="I drink green tea.", title="Tea", uri="mv2://notes/1", metadata={"n": 1}, timestamp=1714521600)
    source.put(text="My sister is a vet.", title="Sister", timestamp=1714521700)
    source.put(text=" ".join(f"word{n}" for n in range(60)), title="Long", timestamp=1714521800)
    source.put(text="first part " * 100 + "\n\n" + "second part " * 300, title="Book", timestamp=1714521900)
    source.commit()
    source.close()
    report = into(memory, read("memvid", tmp_path / "a.mv2"))
    assert (report.known, report.broken) == (0, [])
    tea, sister, long, *parts = memory.list().items
    assert long.text == " ".join(f"word{n}" for n in range(60))
    assert len(parts) > 1
    assert parts[0].text.startswith("first part")
    assert {part.occurred_at for part in parts} == {datetime.fromtimestamp(1714521900, UTC)}
    assert (tea.id, tea.text, tea.metadata["title"], tea.metadata["n"]) == (
        "mv2://notes/1",
        "I drink green tea.",
        "Tea",
        1,
    )
    assert tea.occurred_at == datetime.fromtimestamp(1714521600, UTC)
    assert (sister.id, sister.text) == ("a.mv2#1", "My sister is a vet.")


def test_without_its_sdk_a_memvid_file_is_refused_with_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "memvid_sdk", None)
    (tmp_path / "a.mv2").write_bytes(b"MV2\0")
    with pytest.raises(InvalidInput, match="pip install memvid-sdk"):
        list(read("memvid", tmp_path / "a.mv2"))


# again and again

EARLY, LATE = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)


def draft(text, when, **more):
    return Draft(text, id="1", created_at=EARLY, updated_at=when, occurred_at=EARLY, **more)


def test_an_import_that_is_run_again_writes_nothing(graph, memory):
    into(memory, read("langgraph-sqlite", graph))
    before = memory.stats().position
    assert before
    assert into(memory, read("langgraph-sqlite", graph)) == (0, 302, [])
    assert memory.stats().position == before


def test_what_the_other_store_changed_later_becomes_a_new_version(memory):
    into(memory, [draft("old", EARLY)])
    assert into(memory, [draft("new", LATE)]).added == 1
    item = memory.get("1")
    assert (item.text, item.created_at, item.updated_at) == ("new", EARLY, LATE)
    assert memory.at("2024-06-01").get("1").text == "old"


def test_what_was_changed_or_deleted_here_stays_so(memory):
    into(memory, [draft("old", EARLY)])
    memory.update("1", "mine")
    assert into(memory, [draft("old", EARLY)]) == (0, 1, [])
    assert memory.get("1").text == "mine"
    memory.delete("1")
    assert into(memory, [draft("old", EARLY)]) == (0, 1, [])
    assert memory.get("1") is None


def test_equal_ids_of_two_scopes_in_one_source_stay_apart(memory):
    notes = [draft(f"of {user}", EARLY, user_id=user) for user in ("ana", "bo", None)]
    assert into(memory, notes).added == 3
    assert into(memory, reversed(notes)) == (0, 3, [])
    assert {(item.user_id, item.text) for item in memory.list().items} == {
        ("ana", "of ana"),
        ("bo", "of bo"),
        (None, "of None"),
    }


def test_what_another_scope_erased_or_deleted_moves_nobodys_ids(memory):
    for user in ("ana", "bo"):
        into(memory, [draft("old", EARLY)], user_id=user)
    before = [item.id for item in memory.list(user_id="bo").items]
    memory.erase({"user_id": "ana"}, reason="she left")
    assert into(memory, [draft("new", LATE)], user_id="bo").added == 1
    assert [item.id for item in memory.list(user_id="bo").items] == before
    memory.delete(before)
    assert into(memory, [draft("new", LATE)], user_id="bo") == (0, 1, [])


@pytest.fixture
def memvid(tmp_path):
    """An .mv2 file with a URI of its own and with one that every file has."""
    sdk = pytest.importorskip("memvid_sdk", reason="its wheel is in the bench extra, for some Linux systems alone")
    source = sdk.create(str(tmp_path / "a.mv2"))
    source.put(text="I drink green tea.", title="Tea", uri="mv2://notes/1", timestamp=1714521600)
    source.put(text="My sister is a vet.", title="Sister", timestamp=1714521700)
    source.commit()
    source.close()
    return tmp_path / "a.mv2"


@pytest.fixture
def chatgpt(tmp_path):
    (tmp_path / "chatgpt.json").write_text(json.dumps(CHATGPT))
    return tmp_path / "chatgpt.json"


@pytest.fixture
def claude(tmp_path):
    (tmp_path / "claude.json").write_text(json.dumps(CLAUDE))
    return tmp_path / "claude.json"


@pytest.fixture
def dump(mem0, tmp_path):
    """What Mem0 says of one user, for two agents."""
    (tmp_path / "dump.json").write_text(json.dumps(mem0.get_all(filters={"user_id": "bo"}, top_k=100)))
    return tmp_path / "dump.json"


SOURCES = [
    ("langgraph-sqlite", "graph", "user_id"),
    ("memvid", "memvid", "user_id"),
    ("chatgpt", "chatgpt", "user_id"),
    ("claude", "claude", "user_id"),
    ("mem0", "dump", "agent_id"),
]


@pytest.mark.parametrize(("kind", "source", "scope"), SOURCES)
def test_one_source_goes_in_for_two_scopes_as_often_as_you_like(memory, request, kind, source, scope):
    path = request.getfixturevalue(source)
    reports = [into(memory, read(kind, path), **{scope: name}) for name in ("one", "two", "one", "two")]
    count = reports[0].added
    assert [report[:2] for report in reports] == [(count, 0), (count, 0), (0, count), (0, count)]
    there = list(read(kind, path))
    one, two = (memory.list(limit=1000, **{scope: name}).items for name in ("one", "two"))
    assert [item.id for item in one] == [draft.id for draft in there]
    assert [item.id.rpartition("} ")[2] for item in two] == [draft.id for draft in there]
    for here in (one, two):
        assert [(item.text, item.metadata) for item in here] == [(draft.text, draft.metadata) for draft in there]
        assert [times(item, draft) for item, draft in zip(here, there, strict=True)] == [
            times(one, one) for one in there
        ]


def times(one, wanted):
    """Of a draft or an item, as far as another draft says them: chats do not say when they were recorded."""
    names = ("occurred_at", "created_at", "updated_at")
    return {name: getattr(one, name) for name in names if getattr(wanted, name) is not None}


def test_langgraphs_store_finds_what_was_imported_for_each_of_two_users(memory, graph):
    for user in ("ana", "bo"):
        into(memory, read("langgraph-sqlite", graph), user_id=user)
    for user in ("ana", "bo"):
        store = MemkitStore(memory.scope(user_id=user))
        assert store.get(("users", "ana", "notes"), "k7").value == {"text": "note 7", "n": 7}
        store.put(("users", "ana", "notes"), "k7", {"text": user})
        assert [one.value["text"] for one in store.search(("users",), filter={"text": user})] == [user]
    assert memory.stats().items == 604


def test_progress_counts_what_is_done(memory):
    seen = []
    into(memory, (Draft(f"note {n}", id=str(n)) for n in range(300)), progress=seen.append)
    assert seen == [256, 300]


def test_problems_are_passed_on(memory):
    problem = Problem("a", "b", "c")
    assert into(memory, [problem, Draft("x")]) == (1, 0, [problem])


@pytest.mark.parametrize(("kind", "name"), [("chroma", "a.json"), ("mem0", "absent"), ("mem0", "list.json"), ("mem0", "no.json"), ("chatgpt", "empty")])  # fmt: skip
def test_a_source_that_cannot_be_read_is_refused(tmp_path, kind, name):
    (tmp_path / "list.json").write_text('{"a": 1}')
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput):
        list(read(kind, tmp_path / name))


# the command line


def call(*args):
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_command_imports_and_reports(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(CHATGPT))
    target = tmp_path / "a.mem"
    assert call("import", "chatgpt", tmp_path / "c.json", target, "--user", "ana")[1].startswith("2 added, 0 known")
    code, stdout, _ = call("import", "chatgpt", tmp_path / "c.json", target, "--user", "ana", "--json")
    assert (code, json.loads(stdout)) == (0, {"added": 0, "known": 2, "broken": []})


def test_the_command_names_what_is_unreadable_and_exits_with_1(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps([{"id": "1", "memory": "tea"}, {"id": "2"}]))
    code, stdout, stderr = call("import", "mem0", tmp_path / "d.json", tmp_path / "a.mem")
    assert (code, stdout.startswith("1 added")) == (1, True)
    assert "d.json, memory 2" in stderr


def test_the_command_makes_no_file_when_there_is_nothing_to_read(tmp_path):
    code, _, stderr = call("import", "mem0", tmp_path / "absent.json", tmp_path / "a.mem")
    assert code == 2
    assert "is not there" in stderr
    assert not (tmp_path / "a.mem").exists()
