"""LangGraph's tests of its InMemoryStore, with memkit's store in its place."""

import tempfile
from pathlib import Path

import langgraph.store.memory as package
from langgraph.store.base import ensure_embeddings

from memkit import Memory
from memkit_adapters.langgraph import MemkitStore


class Store(MemkitStore):
    def __init__(self, *, index=None):
        path = Path(tempfile.mkdtemp()) / "a.mem"
        embed = None if index is None else ensure_embeddings(index["embed"])
        plain = lambda texts: [[1.0, 0.0]] * len(texts)  # noqa: E731
        super().__init__(Memory(path, embedder=embed or plain, durability="os"), index=index)


package.InMemoryStore = Store
