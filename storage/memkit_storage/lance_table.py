"""The LanceDB table of sealed rows: its columns, its indexes, and how it grows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from memkit_storage.cache import IndexKey, State, free_name, sweep
from memkit_storage.filter_sql import filter_columns, pa_fields
from memkit_storage.lexical import join
from memkit_storage.rows import SCOPE_FIELDS, Row

# measured with benchmarks/ann_recall.py
ANN_FROM = 5_000  # rows; below, comparing with every row is as fast
ONE_BIT_FROM = 256  # dimensions; below, one bit each is too coarse, and a byte each is little
RETRAIN = 1.25  # times as many rows as at the last training: every seal between adds 1.4 ms to a search
_GRACE = 60  # seconds for which readers in other processes may go on using a version that was replaced
_CHUNK = 8_192  # rows that are turned into Arrow at once
_IN = 1_000  # positions in one SQL list
_TABLE = "rows"


def lancedb() -> Any:
    """The library, imported where it is needed: that takes more than a second."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns on stderr about every query otherwise
    import lancedb as library

    return library


def open_table(root: Path, state: State, *, pinned: bool = True) -> Any:
    """The table at the version of a state, or (to write) at its newest one."""
    table = lancedb().connect(root / state.table).open_table(_TABLE)
    if pinned:
        table.checkout(state.version)
    return table


def build(root: Path, key: IndexKey, last: State | None, reader: Any) -> tuple[Any, str, int]:
    """Make a table beside the last one. Returns it, its directory and how many rows trained its ANN index."""
    sweep(root, last.entries if last else [])
    name = free_name(root, "table-")
    table = lancedb().connect(root / name).create_table(_TABLE, reader, schema=reader.schema)
    index = lancedb().index
    for column in ("position", *SCOPE_FIELDS):
        table.create_index(column, config=index.BTree())
    words = index.FTS(
        base_tokenizer="whitespace",
        max_token_length=None,
        lower_case=False,
        stem=False,
        remove_stop_words=False,
        ascii_folding=False,
    )
    table.create_index("lex", config=words)
    return table, name, _train(table, key.dim, 0)


def extend(root: Path, state: State, reader: Any, dead: Collection[int]) -> tuple[Any, str, int]:
    """Take dead positions out of the last table and add rows to it; results as in `build`."""
    sweep(root, state.entries)
    table = open_table(root, state, pinned=False)
    if table.version != state.version:  # a seal that did not finish
        table.restore(state.version)
    positions = list(dead)
    for start in range(0, len(positions), _IN):
        table.delete(f"position IN ({listed(positions[start : start + _IN])})")
    table.add(reader)
    trained = _train(table, state.key.dim, state.trained)
    # by age alone Lance would delete the version that is being searched meanwhile
    age = max(0.0, time.time() - state.begun) + _GRACE
    table.optimize(cleanup_older_than=timedelta(seconds=age), delete_unverified=True)
    return table, state.table, trained


def _train(table: Any, dim: int, trained: int) -> int:
    """Train the ANN index when it pays; returns the number of rows that it was trained on."""
    rows: int = table.count_rows()
    if rows < ANN_FROM or rows < RETRAIN * trained:
        return trained
    index = lancedb().index
    # RaBitQ packs eight dimensions into a byte
    fine = dim < ONE_BIT_FROM or dim % 8
    config = index.IvfSq(distance_type="cosine") if fine else index.IvfRq(distance_type="cosine")
    try:
        table.create_index("vector", config=config, replace=True)
    except RuntimeError as error:
        if "KMeans" not in str(error):
            raise
        return trained  # too few vectors that are not zero
    return rows


def reader_of(dim: int, rows: Iterable[Row], tokens: Iterable[Sequence[str]]) -> Any:
    """Rows and their tokens as a stream of Arrow batches."""
    import pyarrow as pa

    extra = [
        pa.field("metadata", pa.string()),  # JSON, for people who query the table themselves
        pa.field("lex", pa.string()),  # the tokens, joined
        pa.field("vector", pa.list_(pa.float16(), dim)),
    ]
    schema = pa.schema([*pa_fields(), *extra])
    pairs = zip(rows, tokens, strict=True)
    chunks = iter(lambda: list(islice(pairs, _CHUNK)), [])
    return pa.RecordBatchReader.from_batches(schema, (_batch(schema, chunk) for chunk in chunks))


def _batch(schema: Any, chunk: list[tuple[Row, Sequence[str]]]) -> Any:
    import pyarrow as pa

    records = [filter_columns(row) for row, _ in chunk]
    halves = np.stack([row.vector for row, _ in chunk]).astype(np.float16)
    lex = [join(tokens) for _, tokens in chunk]
    columns: dict[str, Any] = {field.name: [record[field.name] for record in records] for field in pa_fields()}
    columns["metadata"] = [json.dumps(row.metadata, ensure_ascii=False) for row, _ in chunk]
    columns["lex"] = lex
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(halves.ravel()), halves.shape[1])
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def listed(positions: Collection[int]) -> str:
    """Positions as the inside of an SQL list."""
    return ",".join(str(int(position)) for position in positions)
