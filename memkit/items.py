"""The values that a memory gives back. All are frozen pydantic models; times are aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from memkit_storage.errors import InvalidInput
from memkit_storage.records import Delete, Event
from memkit_storage.rows import Row
from memkit_storage.times import to_datetime


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Item(_Value):
    """One remembered text, in its present version (or the one of a past view).

    Attributes:
        occurred_at: when it happened in the world. `created_at`: when this memory first recorded it.
        updated_at: when this version was recorded.
        position: log position of this version; grows with every write to the file.
        surprise: how unlike the items before it of the same user and agent it was when it was written: 0 another
            mention, 1 nothing like it (`memkit.fast.surprise`). None: not known.
    """

    id: str
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    occurred_at: datetime
    created_at: datetime
    updated_at: datetime
    position: int
    surprise: float | None = None

    @classmethod
    def from_row(cls, row: Row, **more: Any) -> Any:
        """The item (or, on Hit, the hit) that a stored row is."""
        return cls(
            id=row.id,
            text=row.text,
            metadata=row.metadata,
            user_id=row.user_id,
            agent_id=row.agent_id,
            run_id=row.run_id,
            occurred_at=to_datetime(row.occurred_us),
            created_at=to_datetime(row.created_us),
            updated_at=to_datetime(row.updated_us),
            position=row.position,
            surprise=row.surprise,
            **more,
        )


def is_trusted(metadata: Mapping[str, Any]) -> bool:
    """Whether an item may be learned from, and comes before one that is not where they contradict each other.

    One whose writer said `trusted: False` is found and quoted all the same.
    """
    return metadata.get("trusted", True) is not False


class Hit(Item):
    """An item that a search found.

    Attributes:
        score: in [0, 1], higher is better; comparable within one search.
        signals: what the score was made from, by name.
    """

    score: float
    signals: dict[str, float] = Field(default_factory=dict)


class Recall(_Value):
    """Context for a prompt.

    Attributes:
        text: the memories as dated, numbered lines, or a sentence that there are none.
        hits: the items in `text`, best first. `citations`: number in the text -> item id.
        tokens: size of `text`. `confidence`: of there being evidence, in [0, 1], calibrated on questions with and
            without (docs/benchmarks.md). `abstained`: nothing in memory bears on the query.
    """

    query: str
    text: str
    hits: list[Hit]
    citations: dict[int, str]
    tokens: int
    confidence: float
    abstained: bool
    _pool: Any = PrivateAttr(default=None)
    _scope: dict[str, str] = PrivateAttr(default_factory=dict)
    _finder: Any = PrivateAttr(default=None)

    def bound(self, pool: Any, scope: dict[str, str], finder: Any) -> Recall:
        """This recall with what feedback on it needs: its candidates, its scope, and who found it."""
        self._pool, self._scope, self._finder = pool, scope, finder
        return self

    @property
    def pool(self) -> Any:
        """The candidates it was chosen from; None after a copy through JSON."""
        return self._pool

    @property
    def scope(self) -> dict[str, str]:
        """The scope it was asked in."""
        return self._scope

    def observe(self, answer: str) -> dict[str, float]:
        """Learn from an answer that was written with this recall: which of its items does it use?

        Returns:
            Item id -> probability, of the items that the answer surely uses (citations, shared words and meaning);
            they are logged as feedback with little weight. Often empty: this errs on the side of silence.

        Raises:
            InvalidInput: an empty answer, or a recall that was copied through JSON and knows its memory no more.
        """
        if self._finder is None:
            raise InvalidInput("this recall does not know its memory any more; use memory.feedback(query, used=...)")
        found: dict[str, float] = self._finder.observe(self, answer)
        return found


class Page(_Value):
    """Some items of a listing; pass `cursor` to `list` for the next ones. None: there are no more."""

    items: list[Item]
    cursor: str | None = None


class Change(_Value):
    """One event in the life of an item. `item` is the version that it made, None for a deletion."""

    kind: Literal["added", "updated", "deleted"]
    id: str
    at: datetime
    position: int
    item: Item | None = None


def changes(events: list[Event]) -> list[Change]:
    """Events of one item, oldest first, as changes."""
    found: list[Change] = []
    for event in events:
        if isinstance(event, Delete):
            change = Change(kind="deleted", id=event.id, at=to_datetime(event.time_us), position=event.position)
        else:
            living = bool(found) and found[-1].kind != "deleted"
            change = Change(
                kind="updated" if living else "added",
                id=event.id,
                at=to_datetime(event.updated_us),
                position=event.position,
                item=Item.from_row(event),
            )
        found.append(change)
    return found


class MergeReport(_Value):
    """What `merge` took over: versions and deletions that were new here, and those that were here already."""

    added: int
    known: int
    outside: int = 0
    items: int


class Stats(_Value):
    """A memory in numbers.

    Attributes:
        items, versions, deletions: living items, versions ever recorded, and deletions, within the view's scope.
        users: living items of each user.
        file_bytes, generation, position, head: of the whole file; `head` is the hex chain value of its last frame.
        embedder: name of the embedder whose vectors are in the file.
        tail, sealed: rows searched exactly in memory, and rows in the LanceDB index; -1 before the first search.
        damage: what could not be read, as met so far.
    """

    path: str
    format: str
    items: int
    versions: int
    deletions: int
    users: dict[str, int]
    file_bytes: int
    generation: int
    position: int
    head: str
    embedder: str | None
    dimension: int | None
    tail: int
    sealed: int
    damage: list[str]


def to_table(rows: list[Row]) -> Any:
    """Rows as a pyarrow Table with a column of (d,) float32 vectors."""
    import json

    import numpy as np
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")
    columns: dict[str, Any] = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in _TEXT}
    columns["metadata"] = pa.array([json.dumps(row.metadata, ensure_ascii=False) for row in rows], pa.string())
    for name in ("occurred", "created", "updated"):
        columns[f"{name}_at"] = pa.array([getattr(row, f"{name}_us") for row in rows], pa.int64()).cast(stamp)
    columns["position"] = pa.array([row.position for row in rows], pa.int64())
    dim = len(rows[0].vector) if rows else 0
    flat = np.concatenate([row.vector for row in rows]) if rows else np.zeros(0, np.float32)
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), max(dim, 1))
    return pa.table(columns)


_TEXT = ("id", "text", "user_id", "agent_id", "run_id")
