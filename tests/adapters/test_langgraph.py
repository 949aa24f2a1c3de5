"""memkit as LangGraph's store: what outside suites do not ask (`tests/conformance/run.py` runs those)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from langgraph.store.base import InvalidNamespaceError

from memkit_adapters.langgraph import MemkitStore

ROOT = Path(__file__).parent.parent.parent
ODD = ["a.b/c", "ana@example.org", "Ünïcødé ☕ \n", '"quoted" \\ #1', "k" * 1000, "*%_[]?"]


@pytest.fixture
def store(memory):
    return MemkitStore(memory)


def test_odd_keys_namespaces_and_values_come_back(store, open_memory):
    value = {"n": 1, "f": 1.5, "none": None, "list": [1, {"x": []}], "e-mail": "ana@example.org", "": 1, "big": 1 << 70}
    for key in ODD:
        store.put(("users", key.replace(".", "·")), key, {**value, "key": key})
    again = MemkitStore(open_memory())
    for key in ODD:
        found = again.get(("users", key.replace(".", "·")), key)
        assert found.value == {**value, "key": key}
        assert type(found.value["n"]) is int
    assert len(again.search(("users",), limit=100)) == len(ODD)
    with pytest.raises(InvalidNamespaceError, match="periods"):
        store.put(("ana@example.org",), "x", {"a": 1})


def test_each_field_is_found_by_itself_and_counts_once(memory):
    store = MemkitStore(memory, index={"dims": 32, "fields": ["title", "notes[*]"]})
    store.put(("n",), "one", {"title": "red boat", "notes": ["green garden", "old piano"]})
    store.put(("n",), "two", {"title": "blue dog", "notes": []})
    store.put(("n",), "hidden", {"title": "old piano"}, index=False)
    found = store.search(("n",), query="old piano", limit=10)
    assert [item.key for item in found] == ["one", "two", "hidden"]
    assert found[0].score == pytest.approx(1.0, abs=1e-3)
    assert found[2].score is None
    store.put(("n",), "one", {"title": "red boat", "notes": []})
    assert store.search(("n",), query="old piano", limit=1)[0].score < 0.9
    store.delete(("n",), "one")
    assert [item.key for item in store.search(("n",), query="boat")] == ["two", "hidden"]
    assert memory.stats().items == 2


@pytest.mark.parametrize(
    "where",
    [{"key": "k"}, {"namespace": {"contains": "ana"}}, {"value.kind": "secret"}, {"value.b": {"contains": "oak"}}],
)
def test_whatever_erases_an_item_erases_each_of_its_fields(memory, tmp_path, where):
    store = MemkitStore(memory, index={"dims": 32, "fields": ["a", "b"]})
    store.put(("ana",), "k", {"a": "first words", "b": "under the oak", "kind": "secret"})
    store.put(("bo",), "other", {"a": "kept words", "b": "kept too"})
    assert memory.erase(where).checked
    assert b"under the oak" not in (tmp_path / "a.mem").read_bytes()
    assert not any("oak" in hit.text for hit in memory.search("oak", limit=10))
    assert store.get(("bo",), "other").value["b"] == "kept too"


def test_two_users_hold_the_same_key_and_see_their_own(memory, open_memory):
    for user in ("ana", "bo"):
        store = MemkitStore(memory.scope(user_id=user), index={"dims": 32, "fields": ["text", "more"]})
        store.put(("notes",), "k", {"text": f"words of {user}", "more": "tea"})
    memory.close()
    for user, other in (("ana", "bo"), ("bo", "ana")):
        store = MemkitStore(open_memory().scope(user_id=user))
        assert store.get(("notes",), "k").value["text"] == f"words of {user}"
        assert [item.value["text"] for item in store.search(("notes",), query=f"words of {other}")] == [
            f"words of {user}"
        ]
        assert store.list_namespaces() == [("notes",)]
    MemkitStore(open_memory().scope(user_id="ana")).delete(("notes",), "k")
    assert MemkitStore(open_memory().scope(user_id="ana")).search(("notes",)) == []
    assert MemkitStore(open_memory().scope(user_id="bo")).get(("notes",), "k").value["more"] == "tea"


@pytest.mark.parametrize("scope", [{}, {"user_id": "ana"}])  # a file of the first version, or an import into a scope
def test_items_under_the_ids_of_old_files_are_found_and_replaced(memory, scope):
    address = {"namespace": ["users", "ana"], "key": "food"}
    memory.add("tea", id='["users", "ana", "food"]', metadata={**address, "value": {"text": "tea"}}, **scope)
    store = MemkitStore(memory.scope(**scope))
    assert store.get(("users", "ana"), "food").value == {"text": "tea"}
    store.put(("users", "ana"), "food", {"text": "coffee"})
    assert [item.value for item in store.search(("users",))] == [{"text": "coffee"}]
    assert memory.get('["users", "ana", "food"]').metadata["value"] == {"text": "coffee"}


def test_a_blank_query_ranks_nothing(store):
    store.put(("n",), "k", {"a": 1})
    assert [item.key for item in store.search(("n",), query=" ")] == ["k"]


def test_the_longest_names_of_a_user_a_namespace_and_a_key_stay_apart(memory):
    long = "🐸" * 1000
    store = MemkitStore(memory.scope(user_id=long), index={"dims": 32, "fields": ["a", "b"]})
    for last in "xy":
        store.put((long, long), f"{long}{last}", {"a": last, "b": "more"})
    for last in "xy":
        assert store.get((long, long), f"{long}{last}").value["a"] == last
    store.delete((long, long), f"{long}x")
    assert [item.value["a"] for item in store.search((long,), query="more")] == ["y"]
    assert memory.stats().items == 2


def test_a_value_of_megabytes_comes_back_and_is_found_by_its_beginning(store):
    store.put(("n",), "k", {"text": "red boat " * 300_000})
    found = store.search(("n",), query="red boat")[0]
    assert (len(found.value["text"]), found.score > 0.5) == (2_700_000, True)


def test_what_the_memory_holds_besides_is_none_of_the_stores(store, memory):
    memory.add("red boat of nobody")
    memory.add("red boat in a key", metadata={"key": "k"})
    store.put(("n",), "k", {"text": "red boat"})
    for found in (store.search((), query="red boat"), store.search(())):
        assert [item.value for item in found] == [{"text": "red boat"}]
    assert store.list_namespaces() == [("n",)]
    memory.add("tickets", metadata={"expires": 1})
    assert store.sweep_ttl() == 0
    assert memory.stats().items == 4


def test_times_are_kept(store):
    store.put(("n",), "k", {"a": 1})
    first = store.get(("n",), "k")
    store.put(("n",), "k", {"a": 2})
    second = store.get(("n",), "k")
    assert (second.created_at, second.value) == (first.created_at, {"a": 2})
    assert second.updated_at > first.updated_at


def test_what_has_expired_is_not_found_and_is_swept(memory):
    store = MemkitStore(memory, ttl={"refresh_on_read": True, "default_ttl": None})
    store.put(("n",), "gone", {"a": 1}, ttl=0.005)
    store.put(("n",), "read", {"a": 2}, ttl=0.03)
    store.put(("n",), "stays", {"a": 3})
    time.sleep(1.0)
    assert store.get(("n",), "read").value == {"a": 2}  # lives longer now
    time.sleep(1.2)
    assert {item.key for item in store.search(("n",))} == {"read", "stays"}
    assert store.get(("n",), "gone") is None
    assert store.sweep_ttl() == 1
    assert memory.stats().items == 2


def test_a_sweep_counts_items_and_ends_their_parts(memory):
    store = MemkitStore(memory, index={"dims": 32, "fields": ["notes[*]"]})
    for key in "ab":
        store.put(("n",), key, {"notes": ["red boat", "old piano", "green garden"]}, ttl=0.0001)
    store.put(("n",), "c", {"notes": ["blue dog", "grey cat"]}, ttl=9)
    time.sleep(0.02)
    assert store.sweep_ttl() == 2
    assert memory.search("old piano", mode="text") == []
    assert memory.stats().items == 2


def test_a_batch_with_an_invalid_operation_writes_nothing(store, memory):
    from langgraph.store.base import PutOp

    with pytest.raises(InvalidNamespaceError):
        store.batch([PutOp(("n",), "good", {"a": 1}), PutOp(("bad.label",), "x", {"a": 1})])
    assert store.get(("n",), "good") is None
    with pytest.raises(ValueError, match="Unsupported operator"):
        store.put(("n",), "k", {"a": 1}) or store.search(("n",), filter={"a": {"$near": 1}})
    assert memory.verify().ok


def test_what_the_store_holds_is_found_by_every_other_verb(store, memory):
    store.put(("users", "ana"), "food", {"text": "allergic to peanuts", "price": 3})
    (hit,) = memory.search("peanuts", where={"value.price": {"gte": 3}})
    assert (hit.metadata["namespace"], hit.metadata["key"]) == (["users", "ana"], "food")


def test_a_migrated_langgraph_database_is_read_by_the_store(memory, tmp_path):
    from langgraph.store.sqlite import SqliteStore

    from memkit import migrate

    with SqliteStore.from_conn_string(str(tmp_path / "old.sqlite")) as old:
        old.setup()
        old.put(("users", "ana"), "food", {"text": "allergic to peanuts"})
        created = old.get(("users", "ana"), "food").created_at
    migrate.into(memory, migrate.read("langgraph-sqlite", tmp_path / "old.sqlite"))
    found = MemkitStore(memory).search(("users",), query="peanuts")[0]
    assert (found.key, found.value) == ("food", {"text": "allergic to peanuts"})
    assert found.created_at.replace(microsecond=0) == created.replace(tzinfo=found.created_at.tzinfo, microsecond=0)


@pytest.mark.slow
def test_a_real_model_remembers_across_restarts_and_keeps_users_apart(tmp_path):
    from benchmarks.models import load

    model, tokenizer = load("smollm2")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
    env = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}

    def say(user, text):
        command = [sys.executable, str(ROOT / "examples" / "local_chat.py"), str(tmp_path / "model"), user, text]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    say("ana", "My dog is called Biscuit.")
    assert "Biscuit" in say("ana", "What is my dog called?")
    assert "Biscuit" not in say("bo", "What is my dog called?")
