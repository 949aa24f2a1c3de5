"""The reader in examples/, written from the spec alone, agrees with the library."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from storage_support import Forger, make_row, pieces, put, quiet, sample

from memkit_storage.filters import Filter
from memkit_storage.format import FrameType
from memkit_storage.rewrite import compact, erase
from memkit_storage.store import Store

SCRIPT = Path(__file__).parent.parent / "examples" / "read_log.py"
WORDS = ["apple", "東京", "café 😀", "line\nbreak", '"quoted" \\']


def run(path: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True)


def read(path: Path) -> tuple[list[dict], str]:
    """(the items that the script prints, what it says about damage)."""
    done = run(path)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [{**one, "metadata": one["metadata"] or {}} for one in found], done.stderr


def items(path: Path) -> list[dict]:
    """The same by the library."""
    with quiet():
        store = Store(path)
        rows = sorted(store.select(Filter.parse(None)), key=lambda row: row.position)
        store.close()
    return [
        {
            "id": row.id,
            "position": row.position,
            "updated": row.updated_us,
            "text": row.text,
            "user_id": row.user_id,
            "agent_id": row.agent_id,
            "run_id": row.run_id,
            "occurred": row.occurred_us,
            "created": row.created_us,
            "metadata": row.metadata,
        }
        for row in rows
    ]


def test_the_script_is_short_and_knows_no_memkit():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "import memkit" not in text
    assert "from memkit" not in text


@pytest.mark.parametrize("seed", range(6))
def test_it_reads_what_the_library_reads(tmp_path, seed):
    path, rng = tmp_path / "a.mem", random.Random(seed)
    sample(path)
    store = Store(path, durability="os")
    for _ in range(12):
        rows = []
        for _ in range(rng.choice([1, 3, 9, 140])):
            metadata = {"n": [rng.random(), None, {"x": True}], "ü": rng.choice(WORDS)} if rng.random() < 0.5 else {}
            late = {"updated_us": rng.randrange(2**50), "occurred_us": -rng.randrange(2**50)}
            scopes = {name: rng.choice([None, "u", "é"]) for name in ("user_id", "agent_id", "run_id")}
            rows.append(make_row(f"x{rng.randrange(60)}", rng.choice(WORDS), metadata=metadata, **late, **scopes))
        with store.transaction() as change:
            for row in rows:
                change.record(row)  # with its own time, as a merge does: the order of time is not that of the file
            if store.get("x1"):
                change.delete("x1")
    assert read(path) == (items(path), "")
    erase(store, Filter.parse({"id": {"in": ["b3", "x5"]}}))
    compact(store)
    store.close()
    assert read(path) == (items(path), "")


def test_it_names_damage_and_reads_the_rest(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    data, found = path.read_bytes(), pieces(path)
    places = [0, 9, 40, 91]
    places += [piece.offset + n for piece in found[::2] for n in (0, 20, 98, 110)]
    for at in places:
        broken = bytearray(data)
        broken[at] ^= 1
        path.write_bytes(broken)
        got, told = read(path)
        assert "damage" in told, at
        assert got == items(path), at
    for cut in [5000, len(data) - 1, len(data) - 90, found[-1].offset + 3]:
        path.write_bytes(data[:cut])
        got, told = read(path)
        assert "damage at byte" in told
        assert got == items(path)


def test_it_stops_at_what_is_too_new_and_skips_what_may_be_skipped(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    expected = items(path)
    forger = Forger(path)
    last = forger.frames[-1]
    for flags, code in ((2, 0), (0, 1)):
        forger.frames.append(forger.forged(last, b"\x80", type=77, flags=flags, position=28, span=0))
        forger.relink(len(forger.frames) - 1)
        forger.write()
        done = run(path)
        assert done.returncode == code
        assert len(done.stdout.splitlines()) == (len(expected) if code == 0 else 0)
    (tmp_path / "x").write_bytes(b"dear diary")
    assert "not a .mem file" in run(tmp_path / "x").stderr


def test_it_reads_notes_of_every_type_past(tmp_path):
    path = tmp_path / "a.mem"
    store = Store(path, durability="os")
    put(store, *(make_row(f"x{i}") for i in range(30)))
    erase(store, Filter.parse({"id": "x3"}))
    with store.lock, store.exclusive():
        store.append_note(FrameType.REPAIR, {"time": 1, "cut": [], "lost": [], "noted": []})
    store.close()
    assert {piece.header.type for piece in pieces(path)} >= {FrameType.CHECKPOINT, FrameType.ERASE, FrameType.REPAIR}
    assert read(path) == (items(path), "")
