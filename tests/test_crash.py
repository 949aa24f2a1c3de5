"""Crashes and damage: what was acknowledged and is undamaged is readable, what is damaged is named, nothing is wrong."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from storage_support import make_row, put, quiet, sample, texts

from memkit.errors import DamageWarning, MemkitError, StorageFailed
from memkit_storage.log import Log
from memkit_storage.store import Store
from memkit_storage.verify import repair, verify

HERE = Path(__file__).parent
PATHS = os.pathsep.join(str(HERE.parent / part) for part in (".", "storage", "tests"))


@pytest.fixture
def made(tmp_path):
    """(path, bytes, every text that any version of an item ever had)."""
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path)
    ever: dict[str, set[str]] = {}
    for i in range(len(store.catalog)):
        if not store.catalog.is_delete(i):
            ever.setdefault(store.catalog.id(i), set()).add(store.row(i).text)
    store.close()
    return path, path.read_bytes(), ever


def read(path: Path) -> tuple[dict[str, str], bool]:
    """(what a store gives, whether it reported damage)."""
    with quiet():
        store = Store(path, durability="os")
        got = texts(store)
        reported = bool(store.log.damage)
        store.close()
    return got, reported


def test_a_file_cut_at_any_byte_gives_a_prefix_and_says_so(made):
    path, data, ever = made
    seen = []
    for cut in range(4096, len(data)):
        path.write_bytes(data[:cut])
        got, reported = read(path)
        assert reported, cut
        assert all(text in ever[id_] for id_, text in got.items())
        assert not verify(path).ok
        seen.append(len(got))
    assert seen[0] == 0
    assert max(seen) == 26


def test_a_cut_file_is_written_on_and_remembers_the_cut(made):
    path, data, _ = made
    for cut in range(4096, len(data), 29):
        path.write_bytes(data[:cut])
        with pytest.warns(DamageWarning, match="acknowledged"):
            store = Store(path, durability="os")
        before = texts(store)
        put(store, make_row("new"))
        store.close()
        report = verify(path)
        assert report.ok, report.damage
        assert read(path) == ({**before, "new": "text of new"}, False)


def test_every_flipped_bit_is_found_and_no_answer_is_wrong(made):
    path, data, ever = made
    rng = random.Random(7)
    for at in [*range(92), *(rng.randrange(len(data)) for _ in range(600))]:
        broken = bytearray(data)
        broken[at] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            with quiet():
                assert not verify(path).ok, at
            got, _ = read(path)
        except MemkitError:
            assert at < 92, at  # an unreadable file header; everything else opens
            continue
        assert all(text in ever[id_] for id_, text in got.items()), at


def test_damage_in_the_middle_costs_only_the_damaged_frame(made):
    path, data, _ = made
    whole, _ = read(path)
    offset = data.index(b"text of s3")
    path.write_bytes(data[:offset] + b"TEXT" + data[offset + 4 :])
    got, reported = read(path)
    assert reported
    assert got == {id_: text for id_, text in whole.items() if id_ != "s3"}
    report = verify(path)
    assert [damage.kind for damage in report.damage] == ["payload"]
    assert repair(path, dry_run=True)
    assert not verify(path).ok
    with quiet():
        assert repair(path)
    after = verify(path)
    assert after.ok
    assert [damage.kind for damage in after.noted] == ["payload"]
    assert repair(path) == []


@pytest.mark.parametrize("tail", [bytes(4096), b"garbage " * 100, b"MKF1" * 50])
def test_a_foreign_tail_is_reported_and_cut_by_the_next_writer(made, tail):
    path, data, _ = made
    whole, _ = read(path)
    path.write_bytes(data + tail)
    assert read(path) == (whole, True)
    assert path.read_bytes() == data + tail  # a reader never writes
    with quiet():
        store = Store(path, durability="os")
        put(store, make_row("new"))
        store.close()
    assert verify(path).ok
    assert read(path)[0] == {**whole, "new": "text of new"}


def test_frames_of_another_file_are_not_valid_here(made, tmp_path):
    path, data, _ = made
    whole, _ = read(path)
    sample(tmp_path / "other.mem")
    path.write_bytes(data + (tmp_path / "other.mem").read_bytes()[4096:])
    assert read(path) == (whole, True)


def test_lost_heads_cost_nothing_but_time(made):
    path, data, _ = made
    whole, _ = read(path)
    path.write_bytes(data[:512] + bytes(1024) + data[1536:])
    assert read(path) == (whole, False)


# a writer that is killed

WRITER = """
import sys
from storage_support import make_row, put
from memkit_storage.store import Store
store = Store(sys.argv[1], durability=sys.argv[3])
i = 0
while True:
    rows = [make_row(f"{sys.argv[2]}-{i}-{n}", "words " * (i % 50) + str(i)) for n in range(1 + (i % 11))]
    put(store, *rows)
    print(len(rows), i, flush=True)
    i += 1
"""


def start(path: Path, name: str, durability: str = "os") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, durability],
        env={**os.environ, "PYTHONPATH": PATHS},
        stdout=subprocess.PIPE,
        text=True,
    )


def acknowledged(name: str, output: str) -> dict[str, str]:
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return {f"{name}-{i}-{n}": "words " * (int(i) % 50) + i for count, i in lines for n in range(int(count))}


def kill_writers(path: Path, rounds: int, seed: int, durability: str) -> int:
    rng, expected = random.Random(seed), {}
    for turn in range(rounds):
        writer = start(path, f"w{turn}", durability)
        assert writer.stdout.readline()  # it has begun
        time.sleep(rng.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        expected |= acknowledged(f"w{turn}", f"1 0\n{rest}")
        if turn % 10 == 5 or turn == rounds - 1:
            got, _ = read(path)
            assert expected.items() <= got.items()
            assert {damage.kind for damage in verify(path).damage} <= {"torn"}
    with quiet():
        store = Store(path)
        put(store, make_row("after"))
        store.close()
    assert verify(path).ok
    return len(expected)


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    assert kill_writers(tmp_path / "a.mem", 6, 1, "os") > 6


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_a_hundred_killed_writers_lose_nothing(tmp_path, durability):
    assert kill_writers(tmp_path / "a.mem", 50, 2, durability) > 50


# a disk that refuses

FULL = """
import os, resource, sys
from storage_support import make_row, put
from memkit.errors import StorageFailed
from memkit_storage.store import Store
store = Store(sys.argv[1], durability="os")
put(store, make_row("before"))
size = store.log.size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    put(store, *(make_row(f"big{i}", os.urandom(500).hex()) for i in range(30)))
except StorageFailed as error:
    print(error)
else:
    print("no error")
assert store.log.size == size, "the failed write was not taken back"
assert store.get("big0") is None
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(store, make_row("after"))
store.close()
"""


@pytest.mark.parametrize("room", [0, 1, 103, 200, 4000])
def test_a_full_disk_is_reported_and_changes_nothing(tmp_path, room):
    """A limit on the file's size gives what a full disk gives: a short write, then a refusal."""
    path = tmp_path / "a.mem"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)],
        env={**os.environ, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "free some space" in done.stdout
    assert verify(path).ok
    assert read(path) == ({"before": "text of before", "after": "text of after"}, False)


def test_a_failed_sync_is_not_an_acknowledgement(tmp_path, monkeypatch):
    store = Store(tmp_path / "a.mem")

    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("memkit_storage.files.sync", refuse)
    with pytest.raises(StorageFailed, match="sync"):
        put(store, make_row("x"))
    monkeypatch.undo()
    put(store, make_row("y"))
    assert texts(store)["y"]
    store.close()


def test_a_read_only_file_is_read_and_not_written(made, monkeypatch):
    path, _, _ = made
    whole, _ = read(path)
    opened = os.open

    def only_reading(name, flags, *more, **options):
        if str(name) == str(path) and flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied")
        return opened(name, flags, *more, **options)

    monkeypatch.setattr(os, "open", only_reading)
    store = Store(path)
    assert texts(store) == whole
    with pytest.raises(MemkitError, match="read only"):
        put(store, make_row("x"))
    store.close()


def test_a_removed_file_is_not_written_into_the_void(made):
    path, _, _ = made
    store = Store(path)
    shutil.move(path, path.with_suffix(".away"))
    with pytest.raises(StorageFailed, match="removed"):
        put(store, make_row("x"))
    store.log.close()


def test_the_limit_of_open_files_is_not_eaten_by_reopening(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        Log(path).close()
    after = len(list(Path("/proc/self/fd").iterdir())) if before else 0
    assert after <= before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
