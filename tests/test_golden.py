"""A file of format 1, written once by memkit 0.1.0 and never since, reads as it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import embed

from memkit import Memory

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def memory(tmp_path):
    shutil.copy(GOLDEN / "v1.mem", tmp_path / "v1.mem")
    with Memory(tmp_path / "v1.mem", embedder=embed, cache_dir=tmp_path) as opened:
        yield opened


EXPECTED = json.loads((GOLDEN / "v1.json").read_text(encoding="utf-8"))


def test_every_item_reads_as_it_was_written(memory):
    assert [item.model_dump(mode="json") for item in memory.list(limit=1000).items] == EXPECTED["items"]


@pytest.mark.parametrize("id_", EXPECTED["history"])
def test_every_history_reads_as_it_was_written(memory, id_):
    assert [change.model_dump(mode="json") for change in memory.history(id_)] == EXPECTED["history"][id_]


def test_every_vector_reads_as_it_was_written(memory):
    vectors = np.stack(memory.to_arrow()["vector"].to_pylist())
    assert np.allclose(vectors, EXPECTED["vectors"], atol=1e-3)


def test_the_file_verifies_and_can_be_searched_and_written(memory):
    assert memory.verify().ok
    assert memory.search("where Lisbon", limit=1)[0].id == "home"
    memory.add("written by a later version", id="new")
    assert memory.verify().ok
