"""What an application feels of a sleep that runs beside it: p95 of `add` and `search`, with and without.

    python -m benchmarks.beside                                  # 6 turns of each, 200 adds and 200 searches a turn
    python -m benchmarks.beside --rounds 10 --json out.json
    python -m benchmarks.beside --kills 50                       # also kill -9 at 50 random points, first the one, then the other

A file with ITEMS items of USERS users, each of whom has given FEEDBACKS feedbacks; default embedder. The application is a
process that adds and searches in turn, at durability "fsync" and as fast as it can. Every other turn
`memkit consolidate FILE` runs beside it, as its own process at low priority; the turn begins when its first band is in the
file, and ends with the sleep, if that is earlier. Printed with it: the cores, and the load of others before. On a busy
machine both columns rise.

Kills: at each point a process is killed with SIGKILL after a random time, the application while it adds, or the sleeper
while it sleeps, and the file is opened again: every acknowledged item is there, `verify` holds, and the next sleep goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from memkit import Memory

ITEMS, USERS, FEEDBACKS = 1_200, 12, 32
LEAST_EVENTS = 400  # for a 95th percentile that twenty events stand above
PEOPLE = ["ana", "bo", "cleo", "dan", "eva", "finn", "gus", "hana", "ivo", "jana", "kai", "lea"]
THINGS = [
    "boat",
    "dog",
    "piano",
    "garden",
    "cello",
    "bike",
    "house",
    "recipe",
    "book",
    "trip",
    "job",
    "knee",
    "sister",
    "debt",
    "plan",
    "song",
]
PLACES = ["lisbon", "porto", "rome", "oslo", "bern", "kyoto", "lima", "quito", "accra", "tunis", "hanoi", "turin"]
KILLED_AFTER = (0.2, 6.0)  # seconds, of a process that has begun

ADDER = """
import sys
from memkit import Memory
with Memory(sys.argv[1], cache_dir=sys.argv[2]) as memory:
    print("begun", flush=True)
    for i in range(10_000):
        print(memory.add(f"{sys.argv[3]}: line {i} of a long day", user_id="u0")[0].id, flush=True)
"""
SLEEPER = """
import sys
from memkit import Memory
with Memory(sys.argv[1], cache_dir=sys.argv[2]) as memory:
    print("begun", flush=True)
    memory.consolidate()
"""
COMMAND = ["-c", "from memkit.cli import main; main()", "consolidate"]


def text(number: int) -> str:
    """One of many sentences."""
    rng = random.Random(number)
    person, thing, place = rng.choice(PEOPLE), rng.choice(THINGS), rng.choice(PLACES)
    return f"{person} said that the {thing} in {place} would cost {number} a year"


def filled(path: Path, cache: Path, users: int, items: int, feedbacks: int) -> None:
    """A file that a sleep has much to do with."""
    with Memory(path, cache_dir=cache, durability="os") as memory:
        for user in range(users):
            mine = range(user, items, users)
            added = memory.add([text(number) for number in mine], user_id=f"u{user}")
            for turn in range(feedbacks):
                item = added[turn * 7 % len(added)]
                _, _, said = item.text.partition(" said that ")
                memory.feedback(f"what about {said}?", used=item.id, user_id=f"u{user}")
            print(f"\r\033[Kfilling: {user + 1} of {users} users", end="", file=sys.stderr, flush=True)


@contextmanager
def asleep(memory: Memory, path: Path, cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that consolidates for every user, from its first band on; it is killed in the end."""
    for user in range(USERS):
        item = memory.list(user_id=f"u{user}", limit=1).items[0]
        memory.feedback("what else is new?", used=item.id, user_id=f"u{user}")
    made = len(memory.bands())
    command = [sys.executable, *COMMAND, str(path), "--cache-dir", str(cache)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()) as process:
        try:
            while len(memory.bands()) <= made and process.poll() is None:
                time.sleep(0.1)
            yield process
        finally:
            process.kill()


def environment() -> dict[str, str]:
    """This process's, with the paths that it imports from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def turn(memory: Memory, events: int, seed: int, beside: subprocess.Popen[bytes] | None) -> dict[str, list[float]]:
    """Milliseconds of adds and searches in turn, while the sleep lasts if there is one."""
    found: dict[str, list[float]] = {"add": [], "search": []}
    rng = np.random.default_rng(seed)
    for event in range(events):
        if beside is not None and beside.poll() is not None:
            break
        user, number = f"u{rng.integers(USERS)}", int(rng.integers(1 << 30))
        found["add"].append(_milliseconds(memory.add, text(number), user_id=user))
        found["search"].append(_milliseconds(memory.search, f"what did {text(event)}?", user_id=user))
    return found


def _milliseconds(call: Any, *arguments: Any, **more: Any) -> float:
    start = time.perf_counter()
    call(*arguments, **more)
    return 1e3 * (time.perf_counter() - start)


def measured(folder: Path, rounds: int, events: int) -> dict[str, dict[str, list[float]]]:
    """Turns without and with a sleep, one after the other, in an order that changes."""
    path, cache = folder / "a.mem", folder / "cache"
    filled(path, cache, USERS, ITEMS, FEEDBACKS)
    spans: dict[str, dict[str, list[float]]] = {arm: {"add": [], "search": []} for arm in ("alone", "beside")}
    with Memory(path, cache_dir=cache) as memory:
        turn(memory, 20, 0, None)
        for number in range(rounds):
            for arm in ("alone", "beside") if number % 2 else ("beside", "alone"):
                print(f"\r\033[Kround {number + 1} of {rounds}: {arm}", end="", file=sys.stderr, flush=True)
                found = _turned(memory, path, cache, arm, events, number)
                for verb, spent in found.items():
                    spans[arm][verb] += spent
    return spans


def _turned(memory: Memory, path: Path, cache: Path, arm: str, events: int, number: int) -> dict[str, list[float]]:
    if arm == "alone":
        return turn(memory, events, number, None)
    with asleep(memory, path, cache) as process:
        return turn(memory, events, number, process)


def table(spans: dict[str, dict[str, list[float]]]) -> str:
    """p50 and p95, and how many times the one is the other."""
    lines = [
        "| ms | alone p50, p95 | beside a sleep p50, p95 | p95, times | events |",
        "| --- | --- | --- | --- | --- |",
    ]
    for verb in ("add", "search"):
        alone, beside = (spans[arm][verb] for arm in ("alone", "beside"))
        cells = [f"{np.percentile(some, 50):.1f}, {np.percentile(some, 95):.1f}" for some in (alone, beside)]
        times = np.percentile(beside, 95) / np.percentile(alone, 95)
        few = "" if min(len(alone), len(beside)) >= LEAST_EVENTS else " (few)"
        lines.append(f"| {verb} | {' | '.join(cells)} | {times:.2f} | {len(alone)}, {len(beside)}{few} |")
    return "\n".join(lines)


# kills


def killed(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill the application and the sleeper at random points.

    Raises:
        AssertionError: something that was acknowledged is gone, or the file does not verify.
    """
    rng, source = random.Random(seed), folder / "source.mem"
    filled(source, folder / "cache", 4, 80, 20)
    counts = {"application": 0, "sleeper": 0, "items acknowledged": 0, "bands at once": 0, "bands by the next sleep": 0}
    for number in range(kills):
        print(f"\r\033[Kkill {number + 1} of {kills}", end="", file=sys.stderr, flush=True)
        path = folder / f"k{number}.mem"
        shutil.copy(source, path)
        who = "sleeper" if number % 2 else "application"
        said = _interrupted(path, folder / "cache", who, rng.uniform(*KILLED_AFTER))
        counts[who] += 1
        for name, count in _checked(path, folder / "cache", said).items():
            counts[name] += count
        path.unlink()
    return counts


def _interrupted(path: Path, cache: Path, who: str, after: float) -> list[str]:
    """Both processes on one file; after a while one is killed, then the other ends. Returns acknowledged ids."""
    adder, sleeper = (_begun(code, path, cache, who) for code in (ADDER, SLEEPER))
    time.sleep(after)
    first, second = (adder, sleeper) if who == "application" else (sleeper, adder)
    first.kill()
    time.sleep(0.5)  # the survivor goes on
    second.kill()
    said, _ = adder.communicate()
    sleeper.communicate()
    return said.split("\n")[:-1]  # what follows the last line break was not said to the end


def _begun(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that has opened its file."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _checked(path: Path, cache: Path, said: Sequence[str]) -> dict[str, int]:
    with Memory(path, cache_dir=cache) as memory:
        made = len(memory.bands())
        assert all(memory.get_many(list(said))), f"{path}: acknowledged items are gone"
        fresh = len(memory.consolidate().bands)
        assert made + fresh == 4, f"{path}: {made} bands, then {fresh}"
        assert memory.consolidate().bands == [], f"{path}: something is slept twice"
        assert memory.verify().ok, f"{path} does not verify"
    return {"items acknowledged": len(said), "bands at once": made, "bands by the next sleep": fresh}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and what the kills left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="turns without and with a sleep; 0: none")
    parser.add_argument("--events", type=int, default=200, help="adds and searches of a turn")
    parser.add_argument("--kills", type=int, default=0, help="random points at which a process is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--json", type=Path, help="write every span there too")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        busy = os.getloadavg()[0]
        spans = measured(folder, asked.rounds, asked.events) if asked.rounds else {}
        if spans:
            print(f"\r\033[K\n{os.cpu_count()} cores, load of others {busy:.1f} before\n\n{table(spans)}")
        if asked.kills:
            counts = killed(folder, asked.kills, asked.seed)
            print("\r\033[K\nKilled, and nothing lost: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    if asked.json:
        asked.json.write_text(json.dumps(spans), encoding="utf-8")


if __name__ == "__main__":
    main()
