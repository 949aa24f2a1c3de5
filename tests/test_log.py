"""The append-only log: frames in order, refusals that change nothing, and a file that changes under an open log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from storage_support import CHILD, Forger, make_row, pieces, put, quiet, sample, texts

from memkit.errors import CorruptRecord, StorageFailed
from memkit_storage import files
from memkit_storage.commit import GroupCommit
from memkit_storage.format import MAX_PAYLOAD, FrameType
from memkit_storage.log import Log, create, new_header
from memkit_storage.rewrite import compact
from memkit_storage.scan import Cursor, Damage, Frame, scan
from memkit_storage.store import Store
from memkit_storage.verify import verify


def append(log: Log, *payloads: bytes) -> list[int]:
    with log.appending():
        list(log.catch_up(alone=True))
        return log.append([(FrameType.PUT, payload, 1) for payload in payloads])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=4), max_size=5))
def test_what_was_appended_is_read_by_another_log_in_order(tmp_path_factory, groups):
    path = tmp_path_factory.mktemp("log") / "a.mem"
    writer, reader = Log(path, durability="os"), Log(path)
    offsets, seen = [], []
    for group in groups:
        offsets += append(writer, *group)
        seen += list(reader.catch_up())
        assert reader.cursor == writer.cursor
    assert [frame.payload for frame in seen] == [payload for group in groups for payload in group]
    assert [frame.offset for frame in seen] == offsets
    assert [frame.header.position for frame in seen] == list(range(len(offsets)))
    assert [reader.read(offset) for offset in offsets] == seen
    assert writer.size == writer.cursor.offset
    assert reader.damage == []
    writer.close()
    reader.close()


def test_frames_are_aligned_and_chained(tmp_path):
    log = Log(tmp_path / "a.mem", durability="os")
    append(log, b"a", b"bb", b"x" * 17)
    log.close()
    found = pieces(tmp_path / "a.mem")
    assert all(piece.offset % 8 == 0 for piece in found)
    assert [piece.header.previous for piece in found] == [log.header.genesis, *(p.header.chain for p in found[:-1])]


def test_reading_damaged_bytes_names_path_and_place(tmp_path):
    log = Log(tmp_path / "a.mem", durability="os")
    first, second = append(log, b"first", b"second")
    for offset in (second, second + 8, 10**9, 0):
        if offset == second:
            os.pwrite(log.descriptor, b"X", second + 104)
        with pytest.raises(CorruptRecord) as caught:
            log.read(offset)
        assert (caught.value.offset, caught.value.path) == (offset, str(log.path))
    assert log.read(first).payload == b"first"
    log.close()


def test_reading_one_frame_reads_no_more_of_the_file(tmp_path, monkeypatch):
    log = Log(tmp_path / "a.mem", durability="os")
    first, *_ = append(log, b"a" * 100, b"b" * 5_000_000)
    read = []
    monkeypatch.setattr(files, "pread", lambda fd, size, at: read.append(size) or os.pread(fd, size, at))
    log.read(first)
    assert sum(read) < 1000
    log.close()


def test_a_frame_larger_than_the_format_allows_is_refused(tmp_path):
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_PAYLOAD + 1

    log = Log(tmp_path / "a.mem", durability="os")
    with pytest.raises(StorageFailed, match=str(MAX_PAYLOAD)):
        append(log, b"fits", Huge())
    assert log.size == 4096
    log.close()


def test_a_reader_changes_no_byte_and_no_time_of_the_file(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    path.write_bytes(path.read_bytes() + b"torn")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with quiet():
        store = Store(path)
        assert texts(store)
        store.close()
        verify(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mem"]


def test_the_head_witnesses_the_end_of_a_closed_file(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    log = Log(path)
    list(log.catch_up())
    assert (log.head.end, log.head.position, log.head.chain) == (log.size, log.cursor.position, log.cursor.chain)
    log.close()


# the recovery rule, on bytes


def frames_of(path, data: bytes) -> tuple[list[int], list[Damage]]:
    """(positions of the frames that are read, damage) of the bytes of a file."""
    path.write_bytes(data)
    log = Log(path)
    events = list(scan(log.read_at, len(data), Cursor(4096, 0, log.header.genesis), log.header.seed))
    log.close()
    return [e.header.position for e in events if isinstance(e, Frame)], [e for e in events if isinstance(e, Damage)]


@pytest.mark.parametrize("extra", [1, 3, 7, 8, 9, 104, 5000])
@pytest.mark.parametrize("junk", [b"\0", b"MKF1"])
def test_bytes_that_were_pasted_in_cost_no_frame(tmp_path, extra, junk):
    path = tmp_path / "a.mem"
    sample(path)
    data, found = path.read_bytes(), pieces(path)
    whole, _ = frames_of(path, data)
    at = found[4].offset
    read, damage = frames_of(path, data[:at] + (junk * extra)[:extra] + data[at:])
    assert read == whole
    assert [(d.kind, d.offset, d.length) for d in damage] == [("hole", at, extra)]


def test_bytes_that_were_cut_out_of_a_large_frame_do_not_hide_the_frames_after_it(tmp_path):
    """The header of the large frame is valid and promises more bytes than the file has left."""
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    put(store, make_row("long", os.urandom(4000).hex()))
    put(store, make_row("after"))
    store.close()
    data = path.read_bytes()
    path.write_bytes(data[:5000] + data[9000:])
    with quiet():
        store = Store(path, durability="os")
        assert texts(store) == {"after": "text of after"}
        put(store, make_row("new"))
        store.close()
        store = Store(path)
        assert texts(store) == {"after": "text of after", "new": "text of new"}
        store.close()


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_frame_of_the_same_file_that_was_pasted_in_is_not_applied_twice(tmp_path, step):
    path = tmp_path / "a.mem"
    sample(path)
    data, found = path.read_bytes(), pieces(path)
    whole, _ = frames_of(path, data)
    target = found[4 + step].offset
    read, damage = frames_of(path, data[:target] + found[4].data + data[target:])
    assert read == whole
    assert [d.kind for d in damage] == ["order"]


def test_two_files_in_a_row_are_the_first_and_damage(tmp_path):
    one, two = tmp_path / "1.mem", tmp_path / "2.mem"
    expected = sample(one)
    sample(two)
    one.write_bytes(one.read_bytes() + two.read_bytes())
    with quiet():
        store = Store(one)
        assert texts(store) == expected
        store.close()
    assert [d.kind for d in verify(one).damage] == ["torn"]


def test_a_frame_of_another_file_in_the_middle_is_a_hole(tmp_path):
    one, two = tmp_path / "1.mem", tmp_path / "2.mem"
    expected = sample(one)
    sample(two, singles=9)
    at, foreign = pieces(one)[5].offset, pieces(two)[7].data
    one.write_bytes(one.read_bytes()[:at] + foreign + one.read_bytes()[at:])
    with quiet():
        store = Store(one)
        assert texts(store) == expected
        store.close()
    assert ("hole", at, len(foreign)) in [(d.kind, d.offset, d.length) for d in verify(one).damage]


# a file that changes under an open log


def test_a_write_that_was_seen_and_taken_back_is_forgotten(tmp_path):
    """Another process's refused write: its first frame was whole for a moment, then the file was cut back."""
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path, durability="os")
    expected = texts(store)
    cut = path.stat().st_size
    other = Store(path, durability="os")
    put(other, make_row("refused"))
    assert "refused" in texts(store)
    os.truncate(path, cut)
    other.log.close()
    third = Store(path, durability="os")
    put(third, make_row("kept", "a text that is longer than what was refused, so that the frames overlap"))
    third.close()
    put(store, make_row("mine"))
    kept = "a text that is longer than what was refused, so that the frames overlap"
    assert texts(store) == {**expected, "kept": kept, "mine": "text of mine"}
    store.close()
    assert verify(path).ok


def test_a_reader_notices_that_the_file_became_shorter(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path)
    piece = pieces(path)[-1]
    os.truncate(path, piece.offset)
    with quiet():
        assert texts(store)["s2"] == "text of s2"  # its deletion is gone, and that is reported
    assert [damage.kind for damage in store.log.damage] == ["lost"]
    store.close()


def test_a_copy_put_over_an_open_file_is_read_anew(tmp_path):
    path = tmp_path / "a.mem"
    old = sample(path)
    shutil.copy(path, tmp_path / "backup.mem")
    store = Store(path, durability="os")
    put(store, *(make_row(f"x{i}") for i in range(50)))
    path.write_bytes((tmp_path / "backup.mem").read_bytes())  # the same inode
    assert texts(store) == old
    put(store, make_row("new"))
    store.close()
    assert verify(path).ok


def test_a_foreign_file_in_its_place_is_refused_and_never_written(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path, durability="os")
    (tmp_path / "b").write_bytes(b"something else entirely" * 1000)
    (tmp_path / "b").replace(path)
    for _ in range(3):
        with pytest.raises(Exception, match="is not a"):
            put(store, make_row("x"))
        with pytest.raises(Exception, match="is not a"):
            store.refresh()
    assert path.read_bytes() == b"something else entirely" * 1000
    store.log.close()


def test_a_closed_log_says_so(tmp_path):
    store = Store(tmp_path / "a.mem", durability="os")
    store.close()
    store.close()
    for call in (store.refresh, lambda: put(store, make_row("x"))):
        with pytest.raises(StorageFailed, match="closed"):
            call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rows", [0, 3])
def test_a_forked_child_notices_that_its_parent_compacted(tmp_path, rows):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    for i in range(rows):
        put(store, make_row(f"x{i}"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(reading, 1)
            put(store, make_row("child"))
            os._exit(0 if "child" in texts(store) else 1)
        finally:
            os._exit(2)
    compact(store)
    os.write(writing, b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert texts(store).keys() == {"child", *(f"x{i}" for i in range(rows))}
    store.close()
    os.close(reading)
    os.close(writing)
    assert verify(path).ok


# making a file


def test_of_many_that_make_a_file_at_once_one_does_and_all_use_it(tmp_path):
    code = "import sys\nfrom storage_support import make_row, put\nfrom memkit_storage.store import Store\n"
    code += "sys.stdin.read(1)\nstore = Store(sys.argv[1], durability='os')\nput(store, make_row(sys.argv[2]))\n"
    for name in ("new.mem", "empty.mem"):
        path = tmp_path / name
        if name == "empty.mem":
            path.touch()
        started = [
            subprocess.Popen([sys.executable, "-c", code, str(path), f"w{i}"], env=CHILD, stdin=subprocess.PIPE)
            for i in range(6)
        ]
        for process in started:
            process.stdin.write(b"!")
            process.stdin.flush()
        assert [process.wait() for process in started] == [0] * 6
        for process in started:
            process.stdin.close()
        store = Store(path)
        assert texts(store).keys() == {f"w{i}" for i in range(6)}
        store.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty.mem", "new.mem"]


def test_making_a_file_that_another_made_meanwhile_leaves_it_alone(tmp_path):
    path = tmp_path / "a.mem"
    expected = sample(path)
    create(path, new_header())
    store = Store(path)
    assert texts(store) == expected
    store.close()


def test_a_file_system_without_hard_links_still_makes_one_whole_file(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.mem"
    expected = sample(path)
    create(path, new_header())
    store = Store(path)
    assert texts(store) == expected
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mem"]


# commit


def test_one_sync_serves_all_that_wait(monkeypatch):
    started, release, synced = threading.Event(), threading.Event(), []

    def slow(fd: int) -> None:
        synced.append(fd)
        started.set()
        release.wait(10)

    monkeypatch.setattr(files, "sync", slow)
    commit = GroupCommit()
    threads = [threading.Thread(target=commit.wait, args=(7, 10, lambda: 100))]
    threads[0].start()
    started.wait(10)
    threads += [threading.Thread(target=commit.wait, args=(7, end, lambda: 100)) for end in (50, 100)]
    for thread in threads[1:]:
        thread.start()
    release.set()
    for thread in threads:
        thread.join(10)
    assert synced == [7]
    commit.wait(7, 101, lambda: 150)
    assert synced == [7, 7]


def test_all_that_waited_for_a_failed_sync_are_told(monkeypatch):
    """A second try would succeed and prove nothing: Linux marks pages that it could not write as clean."""
    started, release, outcome = threading.Event(), threading.Event(), {}

    def fail_once(_: int) -> None:
        if not started.is_set():
            started.set()
            release.wait(10)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync", fail_once)
    commit = GroupCommit()
    commit_log = {10: 10, 60: 60, 100: 100}

    def wait(end: int) -> None:
        try:
            commit.wait(7, end, lambda: 100)
            outcome[end] = "durable"
        except OSError:
            outcome[end] = "failed"

    threads = [threading.Thread(target=wait, args=(end,)) for end in commit_log]
    threads[0].start()
    started.wait(10)
    for thread in threads[1:]:
        thread.start()
    release.set()
    for thread in threads:
        thread.join(10)
    assert outcome == dict.fromkeys(commit_log, "failed")
    wait(101)
    assert outcome[101] == "durable"


def test_each_acknowledged_write_has_been_synced_also_after_a_compaction(tmp_path, monkeypatch):
    """Bytes are counted from the start of a file: a sync of the old file says nothing of the new one."""
    store, synced = Store(tmp_path / "a.mem"), []
    for i in range(30):
        put(store, make_row(f"x{i}", "word " * 200))
    end = store.log.cursor.offset
    assert compact(store).after < end - 10_000
    store.log.commit(end)  # a thread that wrote before the compaction and comes to its commit only now
    monkeypatch.setattr(files, "sync", synced.append)
    for i in range(3):
        put(store, make_row(f"y{i}"))
        assert len(synced) == i + 1
    store.close()


def test_a_head_is_written_after_the_frames_that_it_witnesses_are_durable(tmp_path, monkeypatch):
    events = []
    sync, write = files.sync, files.write_all
    monkeypatch.setattr(files, "sync", lambda fd: (events.append("sync"), sync(fd)))
    monkeypatch.setattr(files, "write_all", lambda fd, data, at: (events.append((at, data[:4])), write(fd, data, at)))
    store = Store(tmp_path / "a.mem")
    events.clear()
    with store.lock, store.exclusive():
        store.write([make_row("x")])
        store.checkpoint()
    assert [e if e == "sync" else e[1] for e in events] == [b"MKF1", b"MKF1", "sync", b"HEAD"]
    store.close()


@pytest.mark.parametrize("kind", ["head", "frame"])
def test_verify_waits_for_an_append_in_flight_instead_of_reporting_it(tmp_path, kind):
    path = tmp_path / "a.mem"
    sample(path)
    log, reports = Log(path, durability="os"), []
    with log.appending():
        list(log.catch_up(alone=True))
        end = log.cursor.offset
        log.append([(FrameType.DELETE, b"\x83\xa3seq\x90\xa3ids\x90\xa5times\x90", 0)])
        whole = path.read_bytes()
        os.truncate(path, end + 50)  # half of it is written
        reader = threading.Thread(target=lambda: reports.append(verify(path)))
        reader.start()
        reader.join(0.2)
        assert reader.is_alive()
        os.pwrite(log.descriptor, whole[end:], end)
        if kind == "head":
            log.mark()
    reader.join(10)
    assert reports[0].ok, reports[0].damage
    log.close()


def test_a_forged_unlinked_frame_is_applied_and_reported(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    forger = Forger(path)
    i = forger.find(b"text of s3")
    forger.frames[i] = forger.forged(forger.frames[i], forger.payload(i).replace(b"text of", b"TEXT of"))
    forger.write()
    with pytest.warns(UserWarning, match="does not follow"):
        store = Store(path)
    store.close()
