"""The tests that the OpenAI Agents SDK has of its SQLiteSession, with memkit's session in its place."""

import tempfile
from pathlib import Path

import agents
import agents.memory
import agents.memory.sqlite_session as module

from memkit import Memory
from memkit_adapters.openai_agents import MemkitSession

MEMORIES: dict[Path, Memory] = {}


def opened(db_path) -> Memory:
    """The memory that stands for a database: sessions of one path share it, and each in memory has its own."""
    path = Path(tempfile.mkdtemp()) / "own" if db_path == ":memory:" else Path(db_path)
    if path not in MEMORIES:
        MEMORIES[path] = Memory(f"{path}.mem", embedder=lambda texts: [[1.0, 0.0]] * len(texts), durability="os")
    return MEMORIES[path]


class Session(MemkitSession):
    def __init__(self, session_id, db_path=":memory:", *, session_settings=None):
        super().__init__(session_id, opened(db_path), session_settings=session_settings)

    def close(self):
        pass


agents.SQLiteSession = agents.memory.SQLiteSession = module.SQLiteSession = Session
