"""Several processes and threads on one file: nothing is lost, the order is one, nobody waits to read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from storage_support import make_row, put, texts

from memkit_storage.filters import Filter
from memkit_storage.rewrite import compact, erase
from memkit_storage.store import Store
from memkit_storage.verify import verify

PATHS = os.pathsep.join(str(Path(__file__).parent.parent / part) for part in (".", "storage", "tests"))

APPENDER = """
import sys, time
from storage_support import make_row, put
from memkit_storage.store import Store
store = Store(sys.argv[1], durability="os")
end, i = time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    put(store, *(make_row(f"{sys.argv[2]}-{i + n:06}") for n in range(1 + i % 3 * 5)))
    i += 1 + i % 3 * 5
print(i)
store.close()
"""


def start(path: Path, name: str, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), name, str(seconds)],
        env={**os.environ, "PYTHONPATH": PATHS},
        stdout=subprocess.PIPE,
        text=True,
    )


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
    reader, last = Store(path), 0
    while any(writer.poll() is None for writer in writers.values()):
        seen = len(texts(reader))
        assert seen >= last
        last = seen
        time.sleep(0.05)
    reader.close()
    written = finish(writers)
    check(path, written)
    return len(written)


def test_two_processes_append_at_once(tmp_path):
    assert run(tmp_path / "a.mem", 2, 1.5) > 100


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_append_for_long(tmp_path, processes):
    assert run(tmp_path / "a.mem", processes, 20) > 1000


def test_compaction_and_erasure_while_others_append(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path)
    put(store, *(make_row(f"x{i}", user_id="eve") for i in range(10)))
    writers = {f"w{i}": start(path, f"w{i}", 2.0) for i in range(2)}
    generation = 1
    while any(writer.poll() is None for writer in writers.values()):
        report = compact(store)
        assert report.generation > generation
        generation = report.generation
        erase(store, Filter.parse({"user_id": "eve"}))
        put(store, make_row(f"x{generation}", user_id="eve"))
        time.sleep(0.05)
    written = finish(writers)
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_and_its_parent_both_append(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    put(store, make_row("w-000000"))
    child = os.fork()
    name = "c" if child == 0 else "p"
    for i in range(200):
        put(store, make_row(f"{name}-{i:06}"))
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert texts(store).keys() == {"w-000000"} | {f"{n}-{i:06}" for n in "cp" for i in range(200)}
    store.close()
    assert verify(path).ok
