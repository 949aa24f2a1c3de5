"""LangGraph's tests of its SqliteStore, with memkit's store in its place."""

import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import langgraph.store.sqlite as package
import langgraph.store.sqlite.aio as aio
import langgraph.store.sqlite.base as base
from langgraph.store.base import ensure_embeddings

from memkit import Memory
from memkit_adapters.langgraph import AsyncMemkitStore, MemkitStore


def opened(index):
    """A memory in a file of its own, and LangGraph's index settings for it."""
    path = Path(tempfile.mkdtemp()) / "a.mem"
    settings = None if index is None else {**index, "fields": index.get("text_fields") or index.get("fields")}
    embed = None if index is None else ensure_embeddings(index["embed"])
    return Memory(path, embedder=embed or (lambda texts: [[1.0, 0.0]] * len(texts)), durability="os"), settings


class Sync(MemkitStore):
    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string, *, index=None, ttl=None):
        memory, settings = opened(index)
        with memory:
            yield cls(memory, index=settings, ttl=ttl)

    def setup(self):
        pass


class Async(AsyncMemkitStore):
    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string, *, index=None, ttl=None):
        memory, settings = opened(index)
        with memory:
            yield cls(memory, index=settings, ttl=ttl)

    async def setup(self):
        pass


package.SqliteStore = base.SqliteStore = Sync
package.AsyncSqliteStore = aio.AsyncSqliteStore = Async
