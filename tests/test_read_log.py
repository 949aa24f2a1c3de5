"""The reader in examples/, written from the spec alone, agrees with the library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from storage_support import sample

from memkit_storage.filters import Filter
from memkit_storage.rewrite import compact, erase
from memkit_storage.store import Store

SCRIPT = Path(__file__).parent.parent / "examples" / "read_log.py"


def read(path: Path) -> tuple[list[dict], str]:
    done = subprocess.run([sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def rows(path: Path) -> list[dict]:
    store = Store(path)
    found = [
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
            "metadata": row.metadata or None,
        }
        for row in store.select(Filter.parse(None))
    ]
    store.close()
    return sorted(found, key=lambda row: row["position"])


def test_the_script_is_short_and_knows_no_memkit():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "import memkit" not in text
    assert "from memkit" not in text


def test_it_reads_what_the_library_reads(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    same = lambda found: [{**one, "metadata": one["metadata"] or None} for one in found]  # noqa: E731
    assert (same(read(path)[0]), read(path)[1]) == (rows(path), "")
    store = Store(path)
    compact(store)
    erase(store, Filter.parse({"id": "b3"}))
    store.close()
    assert (same(read(path)[0]), read(path)[1]) == (rows(path), "")


def test_it_names_damage_and_reads_the_rest(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    data = path.read_bytes()
    at = data.index(b"text of s3")
    path.write_bytes(data[: at - 150] + bytes(4) + data[at - 146 :])
    found, told = read(path)
    assert "damage at byte" in told or "damage in the frame" in told
    assert 0 < len(found) < 26
