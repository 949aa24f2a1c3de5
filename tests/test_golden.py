"""A file of format 1, written once by memkit 0.1.0 and never since, reads as it did.

If one of these fails, the reader is wrong: v1.mem and v1.json are never made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from storage_support import pieces
from support import embed

from memkit import Memory
from memkit_storage.format import LEARNING, FrameType

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "v1.json").read_text(encoding="utf-8"))
SINCE = {"surprise"}  # fields of an item that format 1.0 did not have
SHA256 = "735ff32236d18906980d7b8de5887fb5e99e9a9f232a6d0c4818e78db7dcaaf2"


@pytest.fixture
def memory(tmp_path):
    shutil.copy(GOLDEN / "v1.mem", tmp_path / "v1.mem")
    with Memory(tmp_path / "v1.mem", embedder=embed, cache_dir=tmp_path / "cache") as opened:
        yield opened


def test_the_file_is_the_one_that_was_made_and_has_every_type_of_frame_of_format_1_0():
    assert hashlib.sha256((GOLDEN / "v1.mem").read_bytes()).hexdigest() == SHA256
    assert (GOLDEN / "v1.mem").stat().st_size < 40_000
    assert {piece.header.type for piece in pieces(GOLDEN / "v1.mem")} == set(FrameType) - LEARNING


def test_every_item_reads_as_it_was_written(memory):
    found = [item.model_dump(mode="json", exclude=SINCE) for item in memory.list(limit=1000).items]
    assert found == EXPECTED["items"]


@pytest.mark.parametrize("id_", EXPECTED["history"])
def test_every_history_reads_as_it_was_written(memory, id_):
    assert [change.model_dump(mode="json", exclude={"item": SINCE}) for change in memory.history(id_)] == EXPECTED[
        "history"
    ][id_]


def test_every_vector_reads_as_it_was_written(memory):
    vectors = np.stack(memory.to_arrow()["vector"].to_pylist())
    assert np.allclose(vectors, EXPECTED["vectors"], atol=1e-3)
    assert np.allclose(vectors, _unit(embed([_searchable(item) for item in EXPECTED["items"]])), atol=1e-3)


def _searchable(item: dict) -> str:
    name = item["metadata"].get("name")
    return f"{name}: {item['text']}" if name else item["text"]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_identity_settings_and_notes_read_as_they_were_written(memory):
    store = memory._store
    header = store.log.header
    assert (header.file_id.hex(), header.generation) == (EXPECTED["file_id"], EXPECTED["generation"])
    assert store.log.cursor.position == EXPECTED["position"]
    assert {key: value for key, value in store.config.items() if key != "probe"} == EXPECTED["config"]
    assert [[int(kind), value] for kind, value in store.notes] == EXPECTED["notes"]


def test_the_file_verifies_up_to_the_head_that_was_noted(memory):
    report = memory.verify(head=EXPECTED["head"])
    assert report.ok
    assert report.head == EXPECTED["head"]


def test_the_file_is_searched_and_written_on(memory):
    assert memory.search("where Lisbon", limit=1)[0].id == "home"
    memory.add("written by a later version", id="new")
    memory.compact()
    assert memory.verify().ok
    items = [item.model_dump(mode="json", exclude=SINCE) for item in memory.list(limit=1000).items]
    assert items[:-1] == EXPECTED["items"]


def test_the_reader_that_was_written_from_the_spec_reads_it():
    script = GOLDEN.parent.parent / "examples" / "read_log.py"
    done = subprocess.run([sys.executable, script, GOLDEN / "v1.mem"], capture_output=True, text=True, check=True)
    found = {row["id"]: row["text"] for row in map(json.loads, done.stdout.splitlines())}
    assert found == {item["id"]: item["text"] for item in EXPECTED["items"]}
    assert done.stderr == ""
