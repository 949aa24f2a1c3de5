"""Stores for tests: small rows, and what a file is expected to hold."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from memkit.errors import DamageWarning
from memkit_storage.rows import Row
from memkit_storage.store import Store

DIM = 8


def make_row(id_: str, text: str | None = None, **more: object) -> Row:
    """A row whose vector and text follow from its id."""
    seed = sum(map(ord, id_)) + len(id_)
    now = time.time_ns() // 1000
    values: dict = {"occurred_us": 1, "created_us": now, "updated_us": now, **more}
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return Row(id=id_, text=text or f"text of {id_}", vector=vector / np.linalg.norm(vector), **values)


def put(store: Store, *rows: Row) -> None:
    """Write rows in one transaction."""
    with store.transaction() as change:
        for row in rows:
            change.put(row)


@contextmanager
def quiet() -> Iterator[None]:
    """Damage is expected here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        yield


def texts(store: Store) -> dict[str, str]:
    """id -> text of every living item that can be read."""
    store.refresh()
    with store.lock:
        return {row.id: row.text for row in store.rows(np.flatnonzero(store.catalog.alive()).tolist())}


def sample(path: Path, singles: int = 6, batch: int = 20) -> dict[str, str]:
    """A closed file with single rows, a batch, an update and a deletion; returns its living items."""
    store = Store(path, durability="os")
    store.configure({"embedder": "test", "digest": None, "dim": DIM, "probe": None})
    for i in range(singles):
        put(store, make_row(f"s{i}"))
    put(store, *(make_row(f"b{i}", user_id="ana") for i in range(batch)))
    put(store, make_row("s1", "changed"))
    with store.transaction() as change:
        change.delete("s2")
    expected = texts(store)
    store.close()
    return expected
