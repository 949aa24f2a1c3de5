"""The process that consolidates beside an application: it works, ends with it, and loses nothing when it is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from support import embed
from test_slow import fill, tell

from memkit import Memory
from memkit.errors import InvalidInput, NotAMemory
from memkit.slow import many
from memkit.slow.rounds import LEAST
from memkit.slow.worker import watch

SLEEPER = """
import sys
from memkit import Memory
with Memory(sys.argv[1], cache_dir=sys.argv[2]) as memory:
    print("begun", flush=True)
    memory.consolidate()
"""


def until(true, seconds=300):  # a modest process waits for everybody else
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_watching_sleeps_when_enough_is_new(open_memory, tmp_path):
    memory = open_memory()
    items = fill(memory, count=LEAST)
    reports, stop = [], threading.Event()
    more = {"cache_dir": tmp_path / "cache", "every": 0.05, "due": LEAST, "stop": stop, "slept": reports.append}
    thread = threading.Thread(target=watch, args=(tmp_path / "a.mem",), kwargs=more)
    thread.start()
    try:
        until(lambda: len(reports) == 1)
        tell(memory, items, count=LEAST, seed=1)
        until(lambda: len(reports) == 2)
    finally:
        stop.set()
        thread.join()
    assert [band.in_force for band in memory.bands()] == [False, True]


@pytest.mark.slow
def test_auto_starts_a_process_that_sleeps_comes_back_and_ends_with_the_memory(open_memory):
    memory = open_memory(consolidate="auto")
    until(lambda: memory._supervisor.pid)
    first = memory._supervisor.pid
    fill(memory, count=32)
    until(lambda: any(band.in_force for band in memory.bands()))
    os.kill(first, signal.SIGKILL)
    until(lambda: memory._supervisor.pid not in (None, first))
    second = memory._supervisor.pid
    memory.close()
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_a_worker_is_modest_once_and_before_numpy_has_its_threads():
    code = "import os, sys; from memkit.slow import many, worker; worker.modest(); worker.modest()"
    code += "; print(os.nice(0), os.environ['OMP_NUM_THREADS'], 'numpy' in sys.modules)"
    free = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=free, check=True)
    assert done.stdout.split() == [str(max(10, os.nice(0))), "1", "False"]


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle scheduling")
def test_a_worker_gives_way_at_once():
    code = (
        "import os; from memkit.slow.worker import modest; modest(); print(os.sched_getscheduler(0) == os.SCHED_IDLE)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split() == ["True"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_sleep_killed_at_any_moment_loses_nothing_and_the_next_one_goes_on(open_memory, tmp_path, seed):
    memory = open_memory()
    for user in ("u", "v", "w"):
        fill(memory, user, count=LEAST)
    expected = {item.id for item in memory.list(limit=1000).items}
    rng = random.Random(seed)
    for _ in range(3):
        command = [sys.executable, "-c", SLEEPER, str(tmp_path / "a.mem"), str(tmp_path / "cache")]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(rng.uniform(0, 3))
        worker.kill()
        worker.wait()
        worker.stdout.close()
        memory.add("written meanwhile", user_id="u")
    memory.consolidate()
    assert memory.verify().ok
    assert expected <= {item.id for item in memory.list(limit=1000).items}
    assert sorted(band.scope["user_id"] for band in memory.bands() if band.in_force) == ["u", "v", "w"]
    assert memory.consolidate().bands == []


def test_many_files_each_in_a_process(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a.mem", "b.mem"):
        with Memory(tmp_path / name, embedder=embed, durability="os") as memory:
            fill(memory, count=LEAST)
    (tmp_path / "c.mem").write_bytes(b"no memory")
    seen = []
    outcomes = many.here(many.files_in(tmp_path), jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert [(o.promoted + o.rejected, bool(o.error)) for o in outcomes] == [(1, False), (1, False), (0, True)]
    assert seen[-1] == (3, 3)
    assert many.here([tmp_path / "a.mem"], jobs=1)[0].idle == 1
    with pytest.raises(InvalidInput, match="jobs=0"):
        many.here([tmp_path / "a.mem"], jobs=0)
    with pytest.raises(NotAMemory, match=r"no \.mem file"):
        many.files_in(tmp_path / "cache")


def test_without_ray_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"memkit-ai\[ray\]"):
        many.on_ray([tmp_path / "a.mem"], address="local")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Ray's own
def test_many_files_on_a_local_ray_cluster_where_a_lost_worker_stops_no_other_file(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    for name in ("a.mem", "b.mem"):
        with Memory(tmp_path / name, embedder=embed, durability="os") as memory:
            fill(memory, count=LEAST)
    (tmp_path / "c.mem").write_bytes(b"no memory")
    outcomes = many.on_ray(many.files_in(tmp_path), address="local")
    assert [(o.promoted + o.rejected, bool(o.error)) for o in outcomes] == [(1, False), (1, False), (0, True)]
    assert not ray.is_initialized()
    ray.init(address="local", log_to_driver=False)
    try:
        (outcome,) = many.on_ray([tmp_path / "a.mem"], address="local")
        lost = many._outcome(ray, ray.remote(max_retries=0)(lambda: os._exit(1)).remote(), "a.mem")
        assert outcome.idle == 1
        assert "WorkerCrashedError" in lost.error
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def run(*arguments):
    code = "from memkit.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_the_command_line_consolidates_lists_and_takes_back(open_memory, tmp_path):
    memory = open_memory()
    fill(memory, count=LEAST)
    memory.close()
    file = tmp_path / "a.mem"
    report = json.loads(run("consolidate", file, "--budget", "5m", "--json").stdout)
    (band,) = report["bands"]
    assert "in force" in run("bands", file).stdout
    assert json.loads(run("rollback", file, band["id"], "--json").stdout) == {"switched": [band["id"]], "on": False}
    assert json.loads(run("bands", file, "--json").stdout)["in_force"] is False
    assert run("rollback", file, "x").returncode == 1
    wrong = run("consolidate", file, "--budget", "soon")
    assert (wrong.returncode, "10m" in wrong.stderr) == (2, True)


def test_watch_on_the_command_line_ends_with_an_interrupt(open_memory, tmp_path):
    memory = open_memory()
    fill(memory, count=32)
    command = [sys.executable, "-c", "from memkit.cli import main; main()", "consolidate", str(tmp_path / "a.mem")]
    command += ["--watch", "--cache-dir", str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as worker:
        until(lambda: any(band.in_force for band in memory.bands()))
        worker.send_signal(signal.SIGINT)
        _, said = worker.communicate(timeout=300)
    assert worker.returncode == 130, said
