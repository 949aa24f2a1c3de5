"""What the frames of a log say: rows, deletions and notes, to bytes and back. Implements docs/format.md §4.

Every payload is a msgpack map. A batch carries its rows as an Arrow IPC stream under "arrow". Vectors are float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgpack
import numpy as np

from memkit_storage.errors import CorruptRecord
from memkit_storage.format import FrameType
from memkit_storage.log import Append
from memkit_storage.rows import Row, Vector
from memkit_storage.scan import Frame

BATCH_ROWS = 128  # a reader of one row decodes its whole batch: small enough for a point read, 2 % schema overhead
BATCH_FROM = 8  # fewer rows than this are written as single frames


@dataclass(frozen=True, slots=True)
class Delete:
    """One item ceased to be at `time_us`."""

    id: str
    time_us: int
    position: int = -1


Event = Row | Delete


def event_time(event: Event) -> int:
    """When an event took effect, µs."""
    return event.updated_us if isinstance(event, Row) else event.time_us


def to_disk_precision(vector: Vector) -> Vector:
    """The float32 values that a reader of the log will get: rounded to float16."""
    return vector.astype(np.float16).astype(np.float32)


def pack(value: dict[str, Any]) -> bytes:
    """A msgpack map as bytes."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(frame: Frame) -> dict[str, Any]:
    """The msgpack map that a frame carries.

    Raises:
        CorruptRecord: the checksum holds but the content is no map: a faulty writer.
    """
    try:
        value = msgpack.unpackb(frame.payload, raw=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptRecord(f"frame at byte {frame.offset} is not msgpack: {error}", offset=frame.offset) from error
    if not isinstance(value, dict):
        raise CorruptRecord(f"frame at byte {frame.offset} holds no map", offset=frame.offset)
    return value


# single rows


def _put(row: Row) -> Append:
    value: dict[str, Any] = {
        "id": row.id,
        "text": row.text,
        "vector": row.vector.astype("<f2").tobytes(),
        "occurred": row.occurred_us,
        "created": row.created_us,
        "updated": row.updated_us,
    }
    for name in ("user_id", "agent_id", "run_id"):
        if getattr(row, name) is not None:
            value[name] = getattr(row, name)
    if row.metadata:
        value["metadata"] = row.metadata
    if row.surprise is not None:
        value["surprise"] = round(row.surprise, 4)
    return FrameType.PUT, pack(value), 1


def _row(value: dict[str, Any], position: int) -> Row:
    return Row(
        id=value["id"],
        text=value["text"],
        vector=np.frombuffer(value["vector"], "<f2").astype(np.float32),
        user_id=value.get("user_id"),
        agent_id=value.get("agent_id"),
        run_id=value.get("run_id"),
        metadata=value.get("metadata") or {},
        occurred_us=value["occurred"],
        created_us=value["created"],
        updated_us=value["updated"],
        position=position,
        surprise=value.get("surprise"),
    )


# batches


def _batch(rows: Sequence[Row], first: int) -> Append:
    """Rows of one frame; `seq` is the position of each relative to the frame (erased rows leave gaps)."""
    import pyarrow as pa

    size = len(rows[0].vector)
    vectors = pa.array(np.concatenate([row.vector for row in rows]).astype(np.float16))
    table = pa.table(
        {
            "seq": pa.array([row.position - first for row in rows], pa.uint32()),
            "id": pa.array([row.id for row in rows], pa.string()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(vectors, size),
            "user_id": pa.array([row.user_id for row in rows], pa.string()),
            "agent_id": pa.array([row.agent_id for row in rows], pa.string()),
            "run_id": pa.array([row.run_id for row in rows], pa.string()),
            "metadata": pa.array([pack(row.metadata) if row.metadata else None for row in rows], pa.binary()),
            "occurred": pa.array([row.occurred_us for row in rows], pa.int64()),
            "created": pa.array([row.created_us for row in rows], pa.int64()),
            "updated": pa.array([row.updated_us for row in rows], pa.int64()),
        }
    )
    if any(row.surprise is not None for row in rows):
        table = table.append_column("surprise", pa.array([row.surprise for row in rows], pa.float32()))
    span = rows[-1].position - first + 1
    return FrameType.BATCH, pack({"rows": len(rows), "arrow": to_ipc(table)}), span


def to_ipc(table: Any) -> bytes:
    """An Arrow table as a zstd-compressed IPC stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    codec = pa.Codec("zstd", compression_level=1)
    options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)  # handing over costs more than the work
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_ipc(data: bytes) -> Any:
    """The Arrow table of an IPC stream."""
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False)
    return pa.ipc.open_stream(data, options=options).read_all().combine_chunks()


def matrix(column: Any) -> Vector:
    """A fixed-size-list column of float16 as (n, d) float32."""
    chunk = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    chunk = chunk.chunk(0) if hasattr(chunk, "num_chunks") else chunk
    if chunk.null_count:
        raise ValueError("a row has no vector")
    size = chunk.type.list_size  # not `flatten`, which imports pyarrow.compute: 40 ms
    flat = chunk.values.to_numpy(zero_copy_only=False)[chunk.offset * size : (chunk.offset + len(chunk)) * size]
    return np.asarray(flat, np.float32).reshape(len(column), -1)


_BATCH_COLUMNS = (
    "seq", "id", "text", "user_id", "agent_id", "run_id", "metadata", "occurred", "created", "updated",
)  # fmt: skip


class Batch(Sequence[Event]):
    """The rows of a batch frame, decoded when they are asked for: one by one at first, then all at once."""

    def __init__(self, value: dict[str, Any], first: int) -> None:
        self._table = from_ipc(value["arrow"])
        self._first = first
        self._singles = 4
        self._all: list[Row] | None = None

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.rows())

    def __getitem__(self, slot: Any) -> Any:
        if self._all is None and isinstance(slot, int) and self._singles and 0 <= slot < len(self):
            self._singles -= 1
            return self._rows(slot, 1)[0]
        return self.rows()[slot]

    def rows(self) -> list[Row]:
        """All of them."""
        if self._all is None:
            self._all = self._rows(0, len(self))
        return self._all

    def _rows(self, start: int, count: int) -> list[Row]:
        part = self._table.slice(start, count)
        vectors = matrix(part["vector"])
        columns = zip(*(part[name].to_pylist() for name in _BATCH_COLUMNS), strict=True)
        surprises = _surprises(part)
        return [
            Row(
                id=id_,
                text=text,
                vector=vectors[i],
                user_id=user,
                agent_id=agent,
                run_id=run,
                metadata=msgpack.unpackb(meta, raw=False, strict_map_key=False) if meta else {},
                occurred_us=occurred,
                created_us=created,
                updated_us=updated,
                position=self._first + seq,
                surprise=surprises[i],
            )
            for i, (seq, id_, text, user, agent, run, meta, occurred, created, updated) in enumerate(columns)
        ]


def _surprises(table: Any) -> list[float | None]:
    """Of each row; None where a writer did not know, or could not say (format 1.0)."""
    if "surprise" not in table.column_names:
        return [None] * int(table.num_rows)
    return [None if value is None else round(value, 4) for value in table["surprise"].to_pylist()]


# frames


class Encoded(NamedTuple):
    """A frame ready to append, and the events in it as placed."""

    append: Append
    events: Sequence[Event]


def encode_events(
    events: Sequence[Event], start: int, *, keep_positions: bool = False
) -> tuple[list[Encoded], list[Event]]:
    """Frames for events in order, beginning at log position `start`. Returns them, and all events as placed.

    New events get consecutive positions. With `keep_positions` (a rewrite) they keep theirs, and what was erased
    leaves gaps, which the frames' spans cover.
    """
    placed = list(events) if keep_positions else [_placed(event, start + i) for i, event in enumerate(events)]
    frames: list[Encoded] = []
    for group in _groups(placed):
        frames.extend(_frames(group, start))
        start = group[-1].position + 1
    return frames, placed


def _placed(event: Event, position: int) -> Event:
    return event if event.position == position else replace(event, position=position)


def _groups(events: Iterable[Event]) -> Iterable[list[Event]]:
    """Runs of one kind (and one dimension), at most BATCH_ROWS long."""
    group: list[Event] = []
    for event in events:
        if group and (len(group) >= BATCH_ROWS or _shape(event) != _shape(group[0])):
            yield group
            group = []
        group.append(event)
    if group:
        yield group


def _shape(event: Event) -> int:
    return len(event.vector) if isinstance(event, Row) else -1


def _frames(group: list[Event], first: int) -> list[Encoded]:
    rows = [event for event in group if isinstance(event, Row)]
    if not rows:
        return [Encoded(_delete([event for event in group if isinstance(event, Delete)], first), group)]
    consecutive = rows[-1].position - first + 1 == len(rows)
    if len(rows) < BATCH_FROM and consecutive:
        return [Encoded(_put(row), [row]) for row in rows]
    return [Encoded(_batch(rows, first), rows)]


def _delete(deletes: Sequence[Delete], first: int) -> Append:
    value = {
        "seq": [event.position - first for event in deletes],
        "ids": [event.id for event in deletes],
        "times": [event.time_us for event in deletes],
    }
    return FrameType.DELETE, pack(value), deletes[-1].position - first + 1


def decode_events(frame: Frame) -> Sequence[Event]:
    """The rows or deletions that a frame records; none for a note.

    Raises:
        CorruptRecord: the checksum holds but the content cannot be decoded: a faulty writer.
    """
    kind, first = frame.header.type, frame.header.position
    if kind not in (FrameType.PUT, FrameType.BATCH, FrameType.DELETE):
        return []
    value = unpack(frame)
    try:
        if kind == FrameType.PUT:
            return [_row(value, first)]
        if kind == FrameType.BATCH:
            return Batch(value, first)
        columns = zip(value["ids"], value["times"], value["seq"], strict=True)
        return [Delete(id_, time_us, first + seq) for id_, time_us, seq in columns]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise CorruptRecord(
            f"frame at byte {frame.offset} cannot be decoded: {error!r}", offset=frame.offset
        ) from error
