"""What memkit is compared with, each behind the same few methods. A library is imported when its engine is opened."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import Bare, Engine, Memkit, Unsupported
from benchmarks.workload import DIM, Entry, Floats, Question, Scope

CANDIDATES = 30  # of each signal, where an engine leaves the fusion to its user
OFFLINE = {
    "ANONYMIZED_TELEMETRY": "False",
    "MEM0_TELEMETRY": "False",
    "MEMVID_TELEMETRY": "0",
    "LANCEDB_LOG": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


class Sqlite(Engine):
    """SQLite in WAL mode, synchronous=FULL, with FTS5 and sqlite-vec (exact), fused by reciprocal ranks."""

    modules = ("sqlite_vec",)
    syncs = "once"

    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        path = folder / "items.db"
        fresh = not path.exists()
        self._db = _loadable().connect(str(path), isolation_level=None)
        self._db.enable_load_extension(True)
        importlib.import_module("sqlite_vec").load(self._db)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'NORMAL' if fast else 'FULL'}")
        if fresh:
            self._db.executescript(_SQLITE_TABLES)

    def add(self, entries: Sequence[Entry]) -> None:
        scopes = [tuple(entry.scope.values()) for entry in entries]
        self._db.execute("BEGIN IMMEDIATE")
        for entry, scope in zip(entries, scopes, strict=True):
            id_ = self._db.execute("INSERT INTO items VALUES (NULL, ?, ?, ?, ?)", (entry.text, *scope)).lastrowid
            self._db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (id_, entry.text))
            self._db.execute("INSERT INTO near VALUES (?, ?, ?, ?, ?)", (id_, entry.vector.tobytes(), *scope))
        self._db.execute("COMMIT")

    def search(self, question: Question, k: int, scope: Scope) -> list[str]:
        legs = [self._near(question, CANDIDATES, scope), self._said(question, CANDIDATES, scope)]
        return self._texts(_fused(legs)[:k])

    def nearest(self, question: Question, k: int) -> list[str]:
        return self._texts(self._near(question, k, {}))

    def _near(self, question: Question, k: int, scope: Scope) -> list[int]:
        narrowed = "".join(f" AND {name} = ?" for name in scope)
        sql = f"SELECT rowid FROM near WHERE embedding MATCH ? AND k = ?{narrowed} ORDER BY distance"
        return [id_ for (id_,) in self._db.execute(sql, (question.vector.tobytes(), k, *scope.values()))]

    def _said(self, question: Question, k: int, scope: Scope) -> list[int]:
        match = " OR ".join(f'"{word}"' for word in question.text.split())
        narrowed = "".join(f" AND items.{name} = ?" for name in scope)
        joined = " JOIN items ON items.id = words.rowid" if scope else ""
        sql = f"SELECT words.rowid FROM words{joined} WHERE words MATCH ?{narrowed} ORDER BY bm25(words) LIMIT ?"
        return [id_ for (id_,) in self._db.execute(sql, (match, *scope.values(), k))]

    def _texts(self, ids: Sequence[int]) -> list[str]:
        marks = ",".join("?" * len(ids))
        found = dict(self._db.execute(f"SELECT id, text FROM items WHERE id IN ({marks})", tuple(ids)).fetchall())
        return [found[id_] for id_ in ids]

    def listing(self, scope: Scope, k: int) -> list[str]:
        where = " AND ".join(f"{name} = ?" for name in scope)
        found = self._db.execute(f"SELECT text FROM items WHERE {where} ORDER BY id LIMIT ?", (*scope.values(), k))
        return [text for (text,) in found]

    def rebuild(self) -> None:
        self._db.execute("INSERT INTO words (words) VALUES ('rebuild')")

    def close(self) -> None:
        self._db.close()


_SQLITE_TABLES = f"""
CREATE TABLE items (id INTEGER PRIMARY KEY, text TEXT, user_id TEXT, agent_id TEXT, run_id TEXT);
CREATE INDEX items_user ON items (user_id);
CREATE INDEX items_agent ON items (agent_id);
CREATE INDEX items_run ON items (run_id);
CREATE VIRTUAL TABLE words USING fts5 (text, content=items, content_rowid=id);
CREATE VIRTUAL TABLE near USING vec0
    (embedding float[{DIM}] distance_metric=cosine, user_id text, agent_id text, run_id text);
"""


def _loadable() -> Any:
    """A sqlite3 module that can load extensions: many builds of Python have one that cannot."""
    import sqlite3

    return sqlite3 if hasattr(sqlite3.Connection, "enable_load_extension") else importlib.import_module("pysqlite3")


def _fused(legs: Sequence[Sequence[int]]) -> list[int]:
    scores: dict[int, float] = {}
    for leg in legs:
        for rank, id_ in enumerate(leg):
            scores[id_] = scores.get(id_, 0) + 1 / (60 + rank)
    return sorted(scores, key=scores.__getitem__, reverse=True)


class Lance(Engine):
    """LanceDB's own hybrid search, with the index and the settings that memkit uses, for equal recall."""

    modules = ("lancedb",)
    syncs = "never"

    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        import lancedb
        from lancedb.rerankers import RRFReranker

        if fast:
            raise Unsupported
        self._rerank = RRFReranker
        self._lancedb = lancedb
        self._db = lancedb.connect(folder / "lance")
        self._table: Any = self._db.open_table("items") if (folder / "lance" / "items.lance").exists() else None

    def add(self, entries: Sequence[Entry]) -> None:
        rows = _lance_rows(entries)
        if self._table is None:
            self._table = self._db.create_table("items", rows)
        else:
            self._table.add(rows)

    def settle(self) -> None:
        index = self._lancedb.index
        for column in ("user_id", "agent_id", "run_id"):
            self._table.create_index(column, config=index.BTree())
        self._table.create_index("text", config=index.FTS())
        if self._table.count_rows() >= 5_000:  # below, comparing with every row is as fast
            self._table.create_index("vector", config=index.IvfRq(distance_type="cosine"))
        self._table.optimize()

    def rebuild(self) -> None:
        self.settle()

    def search(self, question: Question, k: int, scope: Scope) -> list[str]:
        search = self._table.search(query_type="hybrid", vector_column_name="vector", fts_columns="text")
        search = self._tuned(search.vector(question.vector).text(question.text), scope)
        return [row["text"] for row in search.rerank(self._rerank()).limit(k).select(["text"]).to_list()]

    def nearest(self, question: Question, k: int) -> list[str]:
        search = self._tuned(self._table.search(question.vector, vector_column_name="vector"), {})
        return [row["text"] for row in search.limit(k).select(["text", "_distance"]).to_list()]

    def _tuned(self, search: Any, scope: Scope) -> Any:
        search = search.distance_type("cosine").nprobes(50).refine_factor(10)
        return search.where(_sql(scope), prefilter=True) if scope else search

    def listing(self, scope: Scope, k: int) -> list[str]:
        return [row["text"] for row in self._table.search().where(_sql(scope)).select(["text"]).limit(k).to_list()]


def _sql(scope: Scope) -> str:
    return " AND ".join(f"{name} = '{value}'" for name, value in scope.items())


def _lance_rows(entries: Sequence[Entry]) -> Any:
    import pyarrow as pa

    vectors = pa.array(np.concatenate([entry.vector for entry in entries]))
    scopes = {
        name: pa.array([entry.scope[name] for entry in entries], pa.string())
        for name in ("user_id", "agent_id", "run_id")
    }
    texts = pa.array([entry.text for entry in entries], pa.string())
    return pa.table({"text": texts, **scopes, "vector": pa.FixedSizeListArray.from_arrays(vectors, DIM)})


class Chroma(Engine):
    """A local Chroma collection: HNSW at its defaults. It has no BM25 of its own here, so it searches by meaning."""

    modules = ("chromadb",)
    bulk = 5_000
    syncs = "8 times"
    finds = "meaning"

    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        chromadb = importlib.import_module("chromadb")
        if fast:
            raise Unsupported
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(str(folder / "chroma"), settings)
        self._items = client.get_or_create_collection(
            "items", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def add(self, entries: Sequence[Entry]) -> None:
        for start in range(0, len(entries), self.bulk):
            part = entries[start : start + self.bulk]
            self._items.add(
                ids=[str(entry.number) for entry in part],
                embeddings=np.stack([entry.vector for entry in part]),
                documents=[entry.text for entry in part],
                metadatas=[entry.scope for entry in part],
            )

    def search(self, question: Question, k: int, scope: Scope) -> list[str]:
        found = self._items.query(
            query_embeddings=question.vector[None], n_results=k, where=scope or None, include=["documents"]
        )
        return list(found["documents"][0])

    def nearest(self, question: Question, k: int) -> list[str]:
        return self.search(question, k, {})

    def listing(self, scope: Scope, k: int) -> list[str]:
        return list(self._items.get(where=scope, limit=k, include=["documents"])["documents"])


class Mem0(Engine):
    """mem0 with infer=False on local Qdrant; a search needs a scope, so `all` is the agent that owns every item."""

    modules = ("mem0", "qdrant_client")
    bulk = 100
    syncs = "8 times"
    finds = "meaning"

    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        if fast:
            raise Unsupported
        stand_in = {"provider": "openai", "config": {"api_key": "never called"}}
        store = {"path": str(folder / "qdrant"), "embedding_model_dims": DIM, "on_disk": True}
        self._memory = importlib.import_module("mem0").Memory.from_config(
            {
                "llm": stand_in,
                "embedder": stand_in,
                "vector_store": {"provider": "qdrant", "config": store},
                "history_db_path": str(folder / "history.db"),
            }
        )
        self._memory.embedding_model = _Mem0Lookup(vectors)

    def add(self, entries: Sequence[Entry]) -> None:
        for entry in entries:  # there is no call for several texts of different scopes
            self._memory.add(entry.text, infer=False, **entry.scope)

    def search(self, question: Question, k: int, scope: Scope) -> list[str]:
        filters = scope or question.scope("agent")
        found = self._memory.search(question.text, top_k=k, filters=filters, threshold=0.0)
        return [hit["memory"] for hit in found["results"]]

    def nearest(self, question: Question, k: int) -> list[str]:
        return self.search(question, k, {})

    def listing(self, scope: Scope, k: int) -> list[str]:
        return [item["memory"] for item in self._memory.get_all(filters=scope, top_k=k)["results"]]


class _Mem0Lookup:
    def __init__(self, vectors: Mapping[str, Floats]) -> None:
        self._vectors = vectors

    def embed(self, text: str, action: str | None = None) -> list[float]:
        return list(map(float, self._vectors[text]))


class Memvid(Engine):
    """memvid-sdk's single file; 50 MiB at most without a key. Its words are joined by AND, so it searches by meaning."""

    modules = ("memvid_sdk",)
    bulk = 100
    syncs = "48 times"
    finds = "meaning"

    def __init__(self, folder: Path, vectors: Mapping[str, Floats], *, fast: bool = False) -> None:
        if fast:
            raise Unsupported
        path = folder / "items.mv2"
        mode = "open" if path.exists() else "create"
        self._file = importlib.import_module("memvid_sdk").use(
            "basic", str(path), mode=mode, enable_vec=True, enable_lex=True
        )

    def add(self, entries: Sequence[Entry]) -> None:
        requests = [
            {"title": str(entry.number), "label": "text", "text": entry.text, "metadata": entry.scope}
            for entry in entries
        ]
        self._file.put_many(requests, embeddings=[entry.vector.tolist() for entry in entries])

    def search(self, question: Question, k: int, scope: Scope) -> list[str]:
        if scope:
            raise Unsupported
        found = self._file.find(question.text, k=k, mode="sem", query_embedding=question.vector.tolist())
        return [hit["text"].partition(" title: ")[0] for hit in found["hits"]]  # it appends title and metadata

    def nearest(self, question: Question, k: int) -> list[str]:
        return self.search(question, k, {})

    def close(self) -> None:
        self._file.close()


ENGINES: dict[str, type[Engine]] = {
    "memkit": Memkit,
    "bare file": Bare,
    "sqlite": Sqlite,
    "lancedb": Lance,
    "chromadb": Chroma,
    "mem0": Mem0,
    "memvid": Memvid,
}


def missing(name: str) -> str | None:
    """The first module that an engine needs and that is not installed."""
    for module in ENGINES[name].modules:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            return module
    return None
