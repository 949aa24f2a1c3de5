"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: tests run in two processes
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # read when haystack is imported: tests call nobody
sys.path.insert(0, str(Path(__file__).parent))  # for `support`, under --import-mode=importlib


@pytest.fixture
def open_memory(tmp_path):
    """A function that opens (or opens again) a memory with the test embedder; all are closed at the end."""
    from support import embed

    from memkit import Memory

    opened = []

    def open_(name: str = "a.mem", **more) -> Memory:
        options = {"embedder": embed, "cache_dir": tmp_path / "cache", "durability": "os", **more}
        memory = Memory(tmp_path / name, **options)
        opened.append(memory)
        return memory

    yield open_
    for memory in opened:
        memory.close()


@pytest.fixture(scope="module")
def processes():
    """A function that runs two works at once, in two processes; see `two_processes`."""
    from support import two_processes

    with two_processes() as run:
        yield run


@pytest.fixture
def memory(open_memory):
    """An empty memory with the test embedder."""
    return open_memory()
