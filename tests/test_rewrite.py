"""Compaction, erasure and export: what stays is the same to the byte, what goes is gone, and a failure changes nothing."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from storage_support import CHILD, CONFIG, delete, make_row, pieces, put, quiet, sample, state, texts

from memkit.errors import DamageWarning, InvalidInput, StorageFailed
from memkit_storage import files
from memkit_storage.filters import Filter
from memkit_storage.format import FrameType
from memkit_storage.rewrite import compact, erase, export
from memkit_storage.store import Store
from memkit_storage.verify import verify

WORDS = ["apple", "pear", "cherry", "quince", "東京"]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete"]), st.integers(0, 11), st.integers(1, 14), st.sampled_from(WORDS)
    ),
    min_size=1,
    max_size=15,
)


def fill(store: Store, actions: list) -> None:
    store.configure(CONFIG)
    for action, n, count, word in actions:
        if action == "put":
            rows = [make_row(f"x{(n + i) % 16}", f"{word} {i}", user_id="u" if i % 3 else None) for i in range(count)]
            put(store, *rows)
        elif store.get(f"x{n}"):
            delete(store, f"x{n}")


def unnoted(store: Store) -> dict:
    return {key: value for key, value in state(store).items() if key != "notes"}


@settings(max_examples=40, deadline=None)
@given(ACTIONS, ACTIONS)
def test_compaction_keeps_every_event_position_and_time(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("rewrite") / "a.mem"
    store = Store(path, durability="os")
    fill(store, first)
    before = state(store)
    report = compact(store)
    assert (report.events, report.generation) == (len(before["events"]), 2)
    assert state(store) == before
    assert verify(path).ok
    fill(store, second)
    before = state(store)
    compact(store)
    store.close()
    opened = Store(path)
    assert state(opened) == before
    opened.close()
    assert verify(path).ok


@settings(max_examples=40, deadline=None)
@given(ACTIONS, st.sampled_from(WORDS), ACTIONS)
def test_erasure_takes_every_version_and_leaves_all_others_as_they_were(tmp_path_factory, first, word, second):
    path = tmp_path_factory.mktemp("rewrite") / "a.mem"
    store = Store(path, durability="os")
    fill(store, first)
    before = unnoted(store)
    doomed = {dict(e)["id"] for e in before["events"] if len(e) > 3 and dict(e)["text"].startswith(word)}
    receipt = erase(store, matching(word), reason="asked")
    after = unnoted(store)
    assert set(receipt.ids) == doomed
    assert receipt.checked
    kept = [e for e in before["events"] if (dict(e)["id"] if len(e) > 3 else e[0]) not in doomed]
    assert after["events"] == kept
    assert after["position"] == before["position"]
    gone = {p for a, b in receipt.positions for p in range(a, b + 1)}
    assert len(gone) == receipt.versions == len(before["events"]) - len(kept)
    fill(store, second)  # positions are not used again
    assert all((e[-2][1] if len(e) > 3 else e[2]) >= before["position"] for e in state(store)["events"][len(kept) :])
    live = state(store)
    store.close()
    opened = Store(path)
    assert state(opened) == live
    assert [value["receipt"] for kind, value in opened.notes if kind == FrameType.ERASE] == [receipt.receipt]
    opened.close()
    assert verify(path).ok


def matching(word: str) -> Filter:
    return Filter.parse({"text": {"in": [f"{word} {i}" for i in range(20)]}})


def test_an_erased_text_is_nowhere_in_the_folder(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    put(store, make_row("x", "a secret that must go"), make_row("y", "stays"))
    put(store, make_row("x", "an innocent later version"))
    (tmp_path / ".a.mem.0123abcd.new").write_bytes(path.read_bytes())  # what a killed compaction leaves
    (tmp_path / ".b.mem.0123abcd.new").write_bytes(b"another memory's draft")
    receipt = erase(store, Filter.parse({"text": "a secret that must go"}), reason="asked by x")
    store.close()
    assert (receipt.ids, receipt.versions, receipt.checked) == (("x",), 2, True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".b.mem.0123abcd.new", "a.mem"]
    data = path.read_bytes()
    assert b"secret" not in data
    assert b"innocent" not in data
    assert b"stays" in data
    assert b"asked by x" in data


def test_receipts_survive_later_rewrites(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    put(store, *(make_row(f"x{i}") for i in range(5)))
    receipts = [erase(store, Filter.parse({"id": f"x{i}"})).receipt for i in range(3)]
    compact(store)
    store.close()
    store = Store(path)
    assert [value["receipt"] for kind, value in store.notes if kind == FrameType.ERASE] == receipts
    assert texts(store).keys() == {"x3", "x4"}
    assert store.log.cursor.position == 5
    store.close()


def test_generations_are_chained(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path)
    end, identity = store.log.cursor.chain, store.log.header.file_id
    compact(store)
    assert store.log.header.genesis == end
    assert (store.log.header.generation, store.log.header.file_id) == (2, identity)
    store.close()


def test_compaction_makes_single_frames_into_batches_and_one_checkpoint(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    for i in range(300):
        put(store, make_row(f"x{i}"))
    report = compact(store)
    store.close()
    assert report.after < report.before / 3
    kinds = [piece.header.type for piece in pieces(path)]
    assert kinds.count(FrameType.PUT) == 0
    assert kinds.count(FrameType.CHECKPOINT) == 1


def test_the_permissions_of_the_file_stay_and_its_draft_is_never_wider(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.mem", []
    sample(path)
    path.chmod(0o600)
    store, write = Store(path, durability="os"), files.write_all

    def watch(fd: int, data: bytes, at: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        write(fd, data, at)

    monkeypatch.setattr(files, "write_all", watch)
    compact(store)
    assert set(seen) == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()


def test_progress_reaches_the_end(tmp_path):
    path, told = tmp_path / "a.mem", []
    store = Store(path, durability="os")
    put(store, *(make_row(f"x{i}") for i in range(2500)))
    compact(store, progress=lambda done, total: told.append((done, total)))
    store.close()
    assert told == [(1024, 2500), (2048, 2500), (2500, 2500)]


# export


@settings(max_examples=30, deadline=None)
@given(ACTIONS)
def test_an_export_holds_the_chosen_items_with_their_whole_history(tmp_path_factory, actions):
    folder = tmp_path_factory.mktemp("export")
    store = Store(folder / "a.mem", durability="os")
    fill(store, actions)
    chosen = {f"x{i}" for i in range(8)}
    count = export(store, folder / "b.mem", chosen)
    assert export(store, folder / "c.mem") == store.catalog.alive_count
    part, whole = Store(folder / "b.mem"), Store(folder / "c.mem")
    assert texts(part) == {id_: text for id_, text in texts(store).items() if id_ in chosen}
    assert count == len(texts(part))
    for id_ in (f"x{i}" for i in range(16)):
        mine = [(type(e), getattr(e, "text", None), getattr(e, "updated_us", 0)) for e in store.history(id_)]
        copy = [(type(e), getattr(e, "text", None), getattr(e, "updated_us", 0)) for e in part.history(id_)]
        assert copy == (mine if id_ in chosen else [])
    assert whole.config == store.config
    assert whole.log.header.file_id != store.log.header.file_id
    for opened in (store, part, whole):
        opened.close()
    assert verify(folder / "b.mem").ok
    assert verify(folder / "c.mem").ok


def test_an_export_never_overwrites(tmp_path):
    sample(tmp_path / "a.mem")
    (tmp_path / "b.mem").write_bytes(b"mine")
    store = Store(tmp_path / "a.mem")
    with pytest.raises(InvalidInput, match="exists"):
        export(store, tmp_path / "b.mem")
    store.close()
    assert (tmp_path / "b.mem").read_bytes() == b"mine"


# failures

ACTING = {
    "compact": compact,
    "erase": lambda store: erase(store, Filter.parse({"id": "s1"})),
    "export": lambda store: export(store, store.log.path.with_name("b.mem")),
}


@pytest.mark.parametrize("action", ACTING)
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_disk_that_refuses_leaves_the_file_as_it_was_and_no_draft(tmp_path, monkeypatch, action, after):
    path, calls = tmp_path / "a.mem", []
    sample(path)
    store = Store(path, durability="os")
    before, data, write = state(store), path.read_bytes(), files.write_all

    def refuse(fd: int, data: bytes, at: int) -> None:
        calls.append(at)
        if len(calls) > after:
            write(fd, data[: len(data) // 2], at)
            raise OSError(28, "No space left on device")
        write(fd, data, at)

    monkeypatch.setattr(files, "write_all", refuse)
    with pytest.raises(StorageFailed, match="free some space"):
        ACTING[action](store)
    monkeypatch.undo()
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mem"]
    assert state(store) == before
    put(store, make_row("after"))
    store.close()
    assert verify(path).ok


def test_unreadable_events_are_told_of_when_a_rewrite_leaves_them_out(tmp_path):
    path = tmp_path / "a.mem"
    expected = sample(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"text of s3", b"TEXT of s3"))
    with pytest.warns(DamageWarning):
        store = Store(path)
    with quiet():
        compact(store)
    store.close()
    assert verify(path).ok
    store = Store(path)
    assert texts(store) == {id_: text for id_, text in expected.items() if id_ != "s3"}
    store.close()


COMPACTOR = """
import sys
from memkit_storage.rewrite import compact
from memkit_storage.store import Store
store = Store(sys.argv[1], durability="os")
print("go", flush=True)
while True:
    print(compact(store).generation, flush=True)
"""


@pytest.mark.parametrize("rounds", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_compaction_leaves_one_whole_file(tmp_path, rounds):
    path, rng, seen = tmp_path / "a.mem", random.Random(3), set()
    store = Store(path, durability="os")
    put(store, *(make_row(f"x{i}") for i in range(600)))
    expected = texts(store)
    store.close()
    for turn in range(50 + rounds):  # a busy machine may need more than `rounds` to finish a compaction
        process = subprocess.Popen([sys.executable, "-c", COMPACTOR, str(path)], env=CHILD, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"go\n"
        time.sleep(rng.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert verify(path).ok
        store = Store(path, durability="os")
        assert texts(store) == expected
        put(store, make_row(f"after {turn}"))
        expected[f"after {turn}"] = f"text of after {turn}"
        seen.add(store.log.header.generation)
        store.close()
        if turn + 1 >= rounds and len(seen) > 1:
            break
    assert len(seen) > 1
    store = Store(path)
    compact(store)
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mem"]
