"""Several processes and threads on one file: nothing is lost, the order is one, nobody waits to read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from storage_support import CHILD, make_row, put, texts

from memkit_storage.filters import Filter
from memkit_storage.rewrite import compact, erase
from memkit_storage.store import Store
from memkit_storage.verify import verify

APPENDER = """
import sys, time
from storage_support import make_row, put
from memkit_storage.store import Store
store = Store(sys.argv[1], durability="os")
end, i = time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    put(store, *(make_row(f"{sys.argv[2]}-{i + n:06}") for n in range(1 + i % 3 * 5)))
    i += 1 + i % 3 * 5
    time.sleep(0.004 if float(sys.argv[3]) > 10 else 0)  # a minute at full speed is a million rows to look at
print(i)
store.close()
"""


READER = """
import sys, time
from storage_support import texts
from memkit_storage.store import Store
store = Store(sys.argv[1])
end, seen, looks = time.monotonic() + float(sys.argv[2]), {}, 0
while time.monotonic() < end:
    now = {id_: text for id_, text in texts(store).items() if id_.startswith("w")}
    assert seen.items() <= now.items(), "what was there is gone"
    seen, looks = now, looks + 1
    if looks % 5 == 0:
        store.close()
        store = Store(sys.argv[1])
print(looks)
"""


def start(path: Path, name: str, seconds: float) -> subprocess.Popen:
    code = [sys.executable, "-c", APPENDER, str(path), name, str(seconds)]
    return subprocess.Popen(code, env=CHILD, stdout=subprocess.PIPE, text=True)


def start_reader(path: Path, seconds: float) -> subprocess.Popen:
    """A process that reads as fast as it can, fails on any warning, and never sees less than before."""
    code = [sys.executable, "-W", "error", "-c", READER, str(path), str(seconds)]
    return subprocess.Popen(code, env=CHILD, stdout=subprocess.PIPE, text=True)


def check_reader(reader: subprocess.Popen) -> None:
    output, _ = reader.communicate()
    assert reader.returncode == 0
    assert int(output) > 3


def finish(writers: dict[str, subprocess.Popen]) -> set[str]:
    """Ids that the writers say they wrote."""
    written = set()
    for name, writer in writers.items():
        output, _ = writer.communicate()
        assert writer.returncode == 0
        written |= {f"{name}-{i:06}" for i in range(int(output))}
    return written


def check(path: Path, written: set[str]) -> None:
    store = Store(path)
    assert texts(store).keys() == written
    positions = store.catalog.column("position").tolist()
    assert positions == list(range(len(written)))
    for name in {id_.split("-")[0] for id_ in written}:
        own = [store.catalog.id(i) for i in range(len(store.catalog)) if store.catalog.id(i).startswith(f"{name}-")]
        assert own == sorted(own)
    store.close()
    assert verify(path).ok


def run(path: Path, processes: int, seconds: float) -> int:
    Store(path).close()
    writers = {f"w{i}": start(path, f"w{i}", seconds) for i in range(processes)}
    reader = start_reader(path, seconds)
    pause = 0.2
    while any(writer.poll() is None for writer in writers.values()):
        report = verify(path)  # also of a file that is being written
        assert report.ok, report.damage
        time.sleep(pause)
        pause *= 1.3  # the file grows
    check_reader(reader)
    written = finish(writers)
    check(path, written)
    return len(written)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_append_at_once(tmp_path, processes):
    assert run(tmp_path / "a.mem", processes, 2) > 100


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_append_for_a_minute(tmp_path, processes):
    assert run(tmp_path / "a.mem", processes, 60) > 1000


def test_compaction_and_erasure_while_others_append(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path)
    put(store, *(make_row(f"x{i}", user_id="eve") for i in range(10)))
    writers = {f"w{i}": start(path, f"w{i}", 2.5) for i in range(2)}
    reader, generation = start_reader(path, 2.5), 1
    while any(writer.poll() is None for writer in writers.values()):
        report = compact(store)
        assert report.generation > generation
        generation = report.generation
        erase(store, Filter.parse({"user_id": "eve"}))
        put(store, make_row(f"x{generation}", user_id="eve"))
        time.sleep(0.05)
    check_reader(reader)
    written = finish(writers)
    assert generation > 5
    store.refresh()
    assert {id_ for id_ in texts(store) if id_.startswith("w")} == written
    store.close()
    assert verify(path).ok


def test_threads_share_one_store_and_its_commits(tmp_path):
    store = Store(tmp_path / "a.mem")

    def work(name: str) -> None:
        for i in range(25):
            put(store, make_row(f"{name}-{i:06}"))

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    check(tmp_path / "a.mem", {f"t{n}-{i:06}" for n in range(8) for i in range(25)})


def test_threads_write_and_read_while_one_compacts(tmp_path):
    store, failures, done = Store(tmp_path / "a.mem"), [], threading.Event()

    def guarded(work) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread's error would be lost
            failures.append(error)

    def write(name: str) -> None:
        for i in range(40):
            put(store, make_row(f"{name}-{i:06}"))

    def look() -> None:
        last = 0
        while not done.is_set():
            seen = len(texts(store))
            assert seen >= last
            last = seen

    def rewrite() -> None:
        while not done.is_set():
            compact(store)
            time.sleep(0.01)

    writers = [threading.Thread(target=guarded, args=(lambda n=n: write(f"t{n}"),)) for n in range(4)]
    others = [threading.Thread(target=guarded, args=(work,)) for work in (look, rewrite)]
    for thread in writers + others:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert failures == []
    assert store.log.header.generation > 1
    store.close()
    check(tmp_path / "a.mem", {f"t{n}-{i:06}" for n in range(4) for i in range(40)})


def append_as(store: Store, name: str) -> None:
    for i in range(200):
        put(store, make_row(f"{name}-{i:06}"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_and_its_parent_both_append(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    put(store, make_row("w-000000"))
    child = os.fork()
    if child == 0:
        try:
            append_as(store, "c")
            os._exit(0)
        finally:
            os._exit(2)
    append_as(store, "p")
    assert os.waitpid(child, 0)[1] == 0
    assert texts(store).keys() == {"w-000000"} | {f"{n}-{i:06}" for n in "cp" for i in range(200)}
    store.close()
    assert verify(path).ok
