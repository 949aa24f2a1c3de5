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
from storage_support import CHILD, make_row, pieces, put, quiet, sample, texts
from support import embed

from memkit import Memory
from memkit.errors import CorruptRecord, MemkitError, NotAMemory, StorageFailed
from memkit_storage import store as store_module
from memkit_storage.format import FrameType
from memkit_storage.log import Log
from memkit_storage.records import decode_events
from memkit_storage.rows import Row
from memkit_storage.scan import Frame
from memkit_storage.store import Store
from memkit_storage.verify import repair, verify


@pytest.fixture(params=["frames", "checkpoints"])
def made(request, tmp_path, monkeypatch):
    """A file with single rows, a batch, an update and a deletion; in the second case also with three checkpoints."""
    if request.param == "checkpoints":
        monkeypatch.setattr(store_module, "CHECKPOINT_EVENTS", 10)
        monkeypatch.setattr(store_module, "CHECKPOINT_ON_CLOSE", 1)
    sample(tmp_path / "a.mem")
    return Made(tmp_path / "a.mem")


class Made:
    """What a file holds, and what it holds up to each frame."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.frames = path, path.read_bytes(), pieces(path)
        self.ever: dict[str, set[str]] = {}  # every text that an item ever had
        self.ids: list[set[str]] = []  # of each frame
        self.until: list[tuple[int, dict[str, str]]] = [(4096, {})]  # living items after each frame
        for piece in self.frames:
            events = list(decode_events(Frame(piece.offset, piece.header, piece.payload)))
            self.ids.append({event.id for event in events})
            living = dict(self.until[-1][1])
            for event in events:
                if isinstance(event, Row):
                    living[event.id] = event.text
                    self.ever.setdefault(event.id, set()).add(event.text)
                else:
                    del living[event.id]
            self.until.append((piece.end, living))
        self.whole = self.until[-1][1]

    def before(self, cut: int) -> dict[str, str]:
        """Living items of the frames that end at or before a byte."""
        return [living for end, living in self.until if end <= cut][-1]

    def hurt(self, at: int) -> set[str]:
        """Ids in the frame that holds a byte."""
        return next(
            (ids for piece, ids in zip(self.frames, self.ids, strict=True) if piece.offset <= at < piece.end), set()
        )


def read(path: Path) -> tuple[dict[str, str], bool]:
    """(what a store gives, whether it reported damage)."""
    with quiet():
        store = Store(path, durability="os")
        got = texts(store)
        reported = bool(store.log.damage)
        store.close()
    return got, reported


def test_a_file_cut_at_any_byte_gives_a_prefix_and_says_so(made):
    step = 1 if len(made.data) < 10_000 else 3
    for cut in [*range(4096, len(made.data) - 600, step), *range(len(made.data) - 600, len(made.data))]:
        made.path.write_bytes(made.data[:cut])
        assert read(made.path) == (made.before(cut), True), cut
        assert "lost" in {damage.kind for damage in verify(made.path).damage}, cut
    assert len(made.before(len(made.data))) == 25


def test_a_file_without_heads_cut_at_any_byte_gives_a_prefix(made):
    """As a killed process leaves it. A cut between frames cannot be seen: nothing witnessed what came after."""
    borders = {end for end, _ in made.until}
    for cut in range(4096, len(made.data), 3 if len(made.data) < 10_000 else 11):
        made.path.write_bytes(made.data[:512] + bytes(584) + made.data[1096:cut])
        assert read(made.path) == (made.before(cut), cut not in borders), cut
        assert [d.kind for d in verify(made.path).damage] == ([] if cut in borders else ["torn"]), cut


def test_a_file_cut_in_its_header_is_refused_and_left_alone(made):
    for cut in [1, 7, 8, 10, 91, 92, 512, 583, 584, 1100, 2139, 2140, 4095]:
        made.path.write_bytes(made.data[:cut])
        with pytest.raises(NotAMemory):
            Store(made.path)
        assert made.path.read_bytes() == made.data[:cut]


def test_a_cut_file_is_written_on_and_remembers_the_cut(made):
    cuts = {*range(4096, len(made.data), 37), *(end + n for end, _ in made.until for n in (-1, 0, 1))}
    for cut in sorted(cut for cut in cuts if 4096 <= cut < len(made.data)):
        made.path.write_bytes(made.data[:cut])
        with quiet():
            store = Store(made.path, durability="os")
        assert any("acknowledged" in str(damage) for damage in store.log.damage)
        put(store, make_row("new"))
        (note,) = [value for kind, value in store.notes if kind == FrameType.REPAIR]
        start = max(end for end, _ in made.until if end <= cut)
        assert note["lost"] == [start, len(made.data) - start]
        assert note["cut"] == ([start, cut - start] if cut > start else [])
        if cut % 2:
            store.close()
        else:
            store.log.close()  # as if killed
        report = verify(made.path)
        assert report.ok, (cut, report.damage)
        assert [damage.kind for damage in report.noted] == ["lost"]
        assert read(made.path) == ({**made.before(cut), "new": "text of new"}, False), cut


def flip(made: Made, at: int, bit: int) -> None:
    """Flip one bit of the file: verify finds it, other items are as they were, and no text is wrong."""
    broken = bytearray(made.data)
    broken[at] ^= 1 << bit
    made.path.write_bytes(broken)
    with quiet():
        assert not verify(made.path).ok, (at, bit)
        store = Store(made.path)
    hurt = made.hurt(at)
    got = texts_of(store, made)
    store.log.close()
    assert {i: t for i, t in got.items() if i not in hurt} == {i: t for i, t in made.whole.items() if i not in hurt}
    assert all(got[id_] in made.ever[id_] for id_ in hurt & got.keys()), (at, bit)


def texts_of(store: Store, made: Made) -> dict[str, str]:
    """By listing, and the same by id where an item can be read."""
    with quiet():
        found = texts(store)
        for id_ in made.ever:
            try:
                row = store.get(id_)
            except CorruptRecord:
                assert id_ not in found
                continue
            assert (row.text if row else None) == found.get(id_)
    return found


def test_every_flipped_bit_is_found_and_costs_only_its_frame(made):
    rng = random.Random(7)
    places = {*range(0, 92, 3), *range(512, 584, 5), *range(2048, 2140, 7), 300, 1023, 1096, 4095}
    for piece in made.frames:  # its header, the first bytes of its payload, and its padding
        places |= {piece.offset + n for n in (0, 4, 5, 6, 8, 16, 20, 24, 40, 70, 96, 100, 104, 105)} | {piece.end - 1}
    places |= {rng.randrange(len(made.data)) for _ in range(300)}
    for at in sorted(places):
        flip(made, at, rng.randrange(8))


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_found_and_costs_only_its_frame(made):
    rng = random.Random(8)
    for at in range(rng.randrange(2), len(made.data), 2 if len(made.data) < 10_000 else 5):
        flip(made, at, rng.randrange(8))


def test_a_memory_with_a_flipped_bit_answers_nothing_wrong(tmp_path):
    """Through the front door: search, get and list, with an index that was made before the damage."""
    path = tmp_path / "a.mem"
    options = {"embedder": embed, "cache_dir": tmp_path / "cache", "durability": "os"}
    with Memory(path, **options) as memory:
        memory.add([f"note {i} on apples" for i in range(20)])
        right = {item.id: item for item in memory.add(["red apples", "green apples"]) + memory.list().items}
        memory.lance()
    data, rng = path.read_bytes(), random.Random(9)
    for _ in range(60):
        broken = bytearray(data)
        broken[rng.randrange(4096, len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        with quiet(), Memory(path, **options) as memory:
            seen = memory.list().items + memory.search("apples", limit=50) + memory.search("red", mode="text")
            assert not memory.verify().ok
        for item in seen:
            assert (item.text, item.created_at) == (right[item.id].text, right[item.id].created_at)


def test_damage_in_the_middle_costs_only_the_damaged_frame(made):
    path, data, whole = made.path, made.data, made.whole
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
    path, data, whole = made.path, made.data, made.whole
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
    path, data, whole = made.path, made.data, made.whole
    sample(tmp_path / "other.mem")
    path.write_bytes(data + (tmp_path / "other.mem").read_bytes()[4096:])
    assert read(path) == (whole, True)


def test_lost_heads_cost_nothing_but_time(made):
    path, data, whole = made.path, made.data, made.whole
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
        env=CHILD,
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
    assert kill_writers(tmp_path / "a.mem", 10, 1, "os") > 10


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
        env=CHILD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "free some space" in done.stdout
    assert verify(path).ok
    assert read(path) == ({"before": "text of before", "after": "text of after"}, False)


DISK = """
import sys
from storage_support import make_row, put, texts
from memkit.errors import StorageFailed
from memkit_storage.rewrite import compact
from memkit_storage.store import Store
folder = sys.argv[1]
store, written, refused = Store(f"{folder}/a.mem"), {}, 0
for i in range(150):
    rows = [make_row(f"{i}-{n}", f"{i} " * 40) for n in range(1 + i % 9)]
    try:
        put(store, *rows)
    except StorageFailed as error:
        assert "free some space" in str(error), error
        refused += 1
        assert refused % 10 != 1 or texts(store) == written
    else:
        written |= {row.id: row.text for row in rows}
assert 10 < refused < 140, refused
try:
    compact(store)
except StorageFailed:
    pass
assert texts(store) == written
store.close()
open(f"{folder}/ballast", "w").close()  # there is space again
store = Store(f"{folder}/a.mem")
assert texts(store) == written
put(store, make_row("after"))
store.close()
"""


def test_a_disk_that_is_really_full_is_reported_and_loses_nothing(tmp_path):
    """A file system in memory with room for some dozens of writes; it needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file system")
    try:
        (disk / "ballast").write_bytes(bytes(100_000))
        code = [sys.executable, "-c", DISK, str(disk)]
        done = subprocess.run(code, env=CHILD, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert verify(disk / "a.mem").ok
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


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
    path, whole = made.path, made.whole
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
    path = made.path
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
