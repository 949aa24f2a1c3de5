"""How drafts become rows of the log: new items, new versions, and the rules of scope and identity."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

from memkit.arguments import called, qualified
from memkit.fast.salience import Salience
from memkit.ingest import Draft, check_metadata
from memkit.items import MergeReport
from memkit.vectors import FileVectors
from memkit_storage.errors import IdConflict, InvalidInput, ItemNotFound
from memkit_storage.filters import Filter
from memkit_storage.log import now_us
from memkit_storage.records import Event, event_time
from memkit_storage.rewrite import feedback_about
from memkit_storage.rows import SCOPE_FIELDS, Row, Vector, searchable
from memkit_storage.store import Store, Transaction
from memkit_storage.times import to_us

Progress = Callable[[int, int], None]
Scope = tuple[str | None, str | None, str | None]
Metadata = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]
Ends = Callable[[Row], Iterable[str]]  # the ids that end with a row: its own, and what belongs to it
Only = Callable[[Draft, Row | None], bool]  # whether a draft is written, where there is such a row
MAX_ID_BYTES = 8192


def new_id() -> str:
    """A UUID version 7 (RFC 9562 §5.7): sortable by time, unique without coordination."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    digits = f"{value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_id(id_: Any) -> str:
    """An id that the caller gave.

    Raises:
        InvalidInput: not a string, empty, too long, or not encodable.
    """
    if not isinstance(id_, str) or not id_:
        raise InvalidInput(f"id={id_!r}: an id is a non-empty string")
    try:
        size = len(id_.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"id={id_!r} holds half a character (a lone surrogate); remove it") from error
    if size > MAX_ID_BYTES:
        raise InvalidInput(f"id of {size} bytes ({id_[:40]!r}…); ids are at most {MAX_ID_BYTES} bytes: hash it")
    return id_


class Edit(NamedTuple):
    """What the next version of an item has anew; None stays. Metadata may be made of the present one."""

    text: str | None = None
    metadata: Metadata | None = None
    occurred_us: int | None = None

    def of(self, row: Row) -> Row:
        """The next version of a row, not rated, and still with its vector.

        Raises:
            CallableFailed, InvalidInput: the callable raised, or made no metadata.
        """
        return replace(
            row,
            text=row.text if self.text is None else self.text,
            metadata=self._metadata(row),
            occurred_us=row.occurred_us if self.occurred_us is None else self.occurred_us,
            updated_us=now_us(),
            surprise=None,
        )

    def _metadata(self, row: Row) -> dict[str, Any]:
        if self.metadata is None:
            return row.metadata
        if not callable(self.metadata):
            return dict(self.metadata)
        made = called("metadata", self.metadata, deepcopy(row.metadata))
        check_metadata(made)
        return dict(made)

    def new_words(self, row: Row) -> list[str]:
        """What will be embedded for a row, as far as can be said without calling the callable."""
        said = self._replace(metadata=None) if callable(self.metadata) else self
        words = said.of(row).searchable
        return [] if words == row.searchable else [words]


class Writer:
    """Writes drafts and versions into one store, embedding what is new and noting how surprising it is."""

    def __init__(self, store: Store, vectors: FileVectors, salience: Salience) -> None:
        self._store = store
        self._vectors = vectors
        self._salience = salience

    def add(self, entries: Sequence[Draft], progress: Progress | None = None, only: Only | None = None) -> list[Row]:
        """One row per draft, in order: new, or the one that is there already with the same id and content.

        Args:
            only: which drafts are written, asked inside of the transaction; the others have no row.
        """
        with self._writing(self._new_words(entries), progress) as (change, vectors):
            slots = [self._put(change, entry, vectors, only) for entry in entries]
        return _rows(change, slots)

    def replace(self, ids: Sequence[str], entries: Sequence[Draft], allowed: Filter, ends: Ends) -> list[Row]:
        """As `add`; in the same transaction, what ends with the chosen items that are alive and allowed ends, but for
        what the drafts renew.
        """
        renewed = {entry.id for entry in entries}
        with self._writing(self._new_words(entries)) as (change, vectors):
            before = [row for id_ in dict.fromkeys(ids) if (row := change.get(id_)) and allowed.matches(row)]
            left = [id_ for row in before for id_ in ends(row) if id_ not in renewed]
            slots = [self._put(change, entry, vectors) for entry in entries]
            _end(change, left, allowed)
        return _rows(change, slots)

    def replace_where(self, chosen: Filter, drafts: Callable[[list[Row]], list[Draft]]) -> list[Row]:
        """Put the drafts that are made of what matches in its place. One with the words of such a row keeps its vector;
        the other words are embedded before the transaction, as far as they are the same then.
        """
        select = self._store.selecting(chosen)
        with self._store.lock:
            before = select()
        words = set(self._new_words(drafts(before))) - {row.searchable for row in before}
        with self._writing(list(words)) as (change, vectors):
            rows = select()
            entries = drafts(rows)
            known = {row.searchable: row.vector for row in rows} | vectors
            slots = [self._put(change, entry, known) for entry in entries]
            renewed = {entry.id for entry in entries}
            _end(change, [row.id for row in rows if row.id not in renewed], chosen)
        return _rows(change, slots)

    @contextmanager
    def _writing(
        self, words: Sequence[str], progress: Progress | None = None
    ) -> Iterator[tuple[Transaction, dict[str, Vector]]]:
        """A transaction whose versions are rated, and the vectors of the words: made before it, so nobody waits."""
        epoch = self._store.config.get("epoch")
        vectors = self._embedded(words, progress)
        with self._store.transaction() as change:
            if words and self._store.config.get("epoch") != epoch:  # somebody has changed the embedder meanwhile
                self._vectors.documents([])
            yield change, vectors
            self._salience.rate(change)

    def _embedded(self, words: Sequence[str], progress: Progress | None = None) -> dict[str, Vector]:
        return dict(zip(words, self._vectors.documents(words, progress), strict=True)) if words else {}

    def _new_words(self, entries: Sequence[Draft]) -> list[str]:
        """What of the drafts is not there yet."""
        named = [check_id(entry.id) for entry in entries if entry.id is not None]
        if named or not self._store.config:
            self._store.refresh()  # otherwise nothing depends on what others wrote: the transaction catches up
        return [_searchable(entry) for entry in entries if not self._is_known(entry)]

    def _is_known(self, entry: Draft) -> bool:
        current = None if entry.id is None else self._store.get(entry.id)
        return current is not None and _same(entry, current)

    def _put(
        self, change: Transaction, entry: Draft, vectors: dict[str, Vector], only: Only | None = None
    ) -> int | Row | None:
        current = None if entry.id is None else change.get(entry.id)
        self._check_owner(entry, current)
        if only is not None and not only(entry, current):
            return None
        if current is not None and _same(entry, current):
            pending = change.pending(current.id)
            return current if pending is None else pending
        text = _searchable(entry)
        vector = vectors[text] if text in vectors else self._vectors.documents([text])[0]
        return change.put(_new_row(entry, current, vector))

    def own_ids(self, entries: Sequence[Draft]) -> list[Draft]:
        """The same drafts; one whose id is another scope's, or has been before, gets that id behind its scope."""
        self._store.refresh()
        owners: dict[str, Scope] = {}
        return [entry if entry.id is None else self._own_id(entry, check_id(entry.id), owners) for entry in entries]

    def _own_id(self, entry: Draft, id_: str, owners: dict[str, Scope]) -> Draft:
        scope, apart = _scope_of(entry), qualified(_names_of(entry), id_)
        first, second = (owners.get(one) or self._store.owner(one) for one in (id_, apart))
        chosen = id_ if second is None and first in (None, scope) else apart
        owners[chosen] = scope
        return replace(entry, id=chosen)

    def _check_owner(self, entry: Draft, current: Row | None) -> None:
        """An id stays with the scope that used it first, also after a deletion: its history is that scope's."""
        if entry.id is None:
            return
        owner = current.scope if current is not None else self._store.owner(entry.id)
        if owner is not None and _scope_of(entry) != owner:
            wanted = _names_of(entry) or "without names"
            raise IdConflict(f"id {entry.id!r} is in use outside the scope {wanted}; choose another id")

    def update(self, id_: str, allowed: Filter, edit: Edit) -> Row:
        """A new version of one item.

        Raises:
            ItemNotFound: there is no such item among those allowed.
        """
        self._store.refresh()
        words = edit.new_words(self._allowed(self._store.get(id_), id_, allowed))
        with self._writing(words) as (change, vectors):
            self._renew(change, [self._allowed(change.get(id_), id_, allowed)], edit, vectors)
        return _row(change.events[0])

    def update_where(self, chosen: Filter, edit: Edit) -> int:
        """A new version of every item that matches. Returns how many."""
        select = self._store.selecting(chosen)
        with self._writing([]) as (change, vectors):
            self._renew(change, select(), edit, vectors)
        return len(change.events)

    def _renew(self, change: Transaction, rows: list[Row], edit: Edit, vectors: dict[str, Vector]) -> None:
        """Put the next version of each row. One that is found by the same words keeps its vector."""
        pairs = [(row, edit.of(row)) for row in rows]
        words = {new.searchable for old, new in pairs if new.searchable != old.searchable}
        known = vectors | self._embedded(list(words - vectors.keys()))
        for old, new in pairs:
            same = new.searchable == old.searchable
            change.put(new if same else replace(new, vector=known[new.searchable]))

    def _allowed(self, row: Row | None, id_: str, allowed: Filter) -> Row:
        if row is None or not allowed.matches(row):
            raise ItemNotFound(f"no item {id_!r} here; list() shows what there is, history() what was")
        return row

    def delete(self, ids: Iterable[str], allowed: Filter) -> int:
        """End the items that are alive and allowed. Returns how many."""
        with self._store.transaction() as change:
            _end(change, ids, allowed)
        return len(change.events)

    def delete_where(self, chosen: Filter, allowed: Filter, ends: Ends) -> int:
        """End what ends with every item that matches, as far as it is alive and allowed. Returns how many matched."""
        select = self._store.selecting(chosen)
        with self._store.transaction() as change:
            rows = select()
            _end(change, [id_ for row in rows for id_ in ends(row)], allowed)
        return len(rows)

    def merge(self, other: Store, allowed: Filter, progress: Progress | None = None) -> MergeReport:
        """Take over every version and deletion of another store that is not here, with ids, times and history."""
        with other.lock:
            events = list(other.events(range(len(other.catalog))))
        owners = {event.id: event for event in events if isinstance(event, Row)}
        inside = [e for e in events if e.id in owners and allowed.matches(owners[e.id])]
        self._store.refresh()
        rows = iter(self._with_own_vectors([event for event in inside if isinstance(event, Row)], other, progress))
        inside = [next(rows) if isinstance(event, Row) else event for event in inside]
        with self._store.transaction() as change:
            fresh = [event for event in inside if self._is_new(event, owners[event.id])]
            for event in fresh:
                change.record(event)
        self._merge_feedback(other, {event.id for event in inside})
        return MergeReport(
            added=len(fresh),
            known=len(inside) - len(fresh),
            outside=len(events) - len(inside),
            items=self._store.catalog.alive_count,
        )

    def _merge_feedback(self, other: Store, ids: Collection[str]) -> None:
        with other.lock:
            theirs = list(feedback_about(other, ids))
        with self._store.lock:
            known = {(value.get("time"), value["query"]) for _, value in self._store.learned(0) if "query" in value}
        for kind, value in theirs:
            if "query" in value and (value.get("time"), value["query"]) not in known:
                self._store.record_learning(kind, value)

    def _with_own_vectors(self, rows: list[Row], other: Store, progress: Progress | None) -> list[Row]:
        """The rows with vectors of this file's embedder: their own if both files share it."""
        if not rows or self._vectors.fits(other.config):
            return rows
        vectors = self._vectors.documents([row.searchable for row in rows], progress)
        return [replace(row, vector=vector) for row, vector in zip(rows, vectors, strict=True)]

    def _is_new(self, event: Event, owner: Row) -> bool:
        with self._store.lock:
            mine, here = self._store.history(event.id), self._store.owner(event.id)
        if here is not None and here != owner.scope:
            raise IdConflict(
                f"id {event.id!r} belongs to scope {here} here and to {owner.scope} in the other file; "
                "export one of them without it, or erase it"
            )
        return not any(event_time(k) == event_time(event) and _content(k) == _content(event) for k in mine)


def _content(event: Event) -> object:
    return (event.text, event.metadata) if isinstance(event, Row) else None


def _end(change: Transaction, ids: Iterable[str], allowed: Filter) -> None:
    """End those that are alive and allowed."""
    for id_ in ids:
        row = change.get(id_)
        if row is not None and allowed.matches(row):
            change.delete(id_)


def _rows(change: Transaction, slots: Iterable[int | Row | None]) -> list[Row]:
    """What was put, as it stands in the log now."""
    return [slot if isinstance(slot, Row) else _row(change.events[slot]) for slot in slots if slot is not None]


def _row(event: Event) -> Row:
    if not isinstance(event, Row):
        raise TypeError("a deletion stands where a version was written")
    return event


def _searchable(entry: Draft) -> str:
    return searchable(entry.text, entry.metadata)


def _scope_of(entry: Draft) -> Scope:
    return entry.user_id, entry.agent_id, entry.run_id


def _names_of(entry: Draft) -> dict[str, str]:
    return {name: value for name, value in zip(SCOPE_FIELDS, _scope_of(entry), strict=True) if value is not None}


def _same(entry: Draft, row: Row) -> bool:
    """Whether adding the draft would change nothing. What a draft does not say is not a change."""
    return (
        entry.text == row.text
        and _scope_of(entry) == row.scope
        and (not entry.metadata or entry.metadata == row.metadata)
        and (entry.occurred_at is None or to_us(entry.occurred_at) == row.occurred_us)
    )


def _new_row(entry: Draft, current: Row | None, vector: Vector) -> Row:
    moment = now_us()
    created = current.created_us if current else to_us(entry.created_at) if entry.created_at else moment
    occurred = to_us(entry.occurred_at) if entry.occurred_at else current.occurred_us if current else created
    return Row(
        id=entry.id or new_id(),
        text=entry.text,
        vector=vector,
        user_id=entry.user_id,
        agent_id=entry.agent_id,
        run_id=entry.run_id,
        metadata=dict(entry.metadata),
        occurred_us=occurred,
        created_us=created,
        updated_us=to_us(entry.updated_at) if entry.updated_at else moment if current else created,
        surprise=entry.surprise,
    )
