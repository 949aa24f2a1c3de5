"""How what a memory holds is changed: new versions of items, and their end.

Each verb is one transaction: it reads what it changes while nobody else writes, in this process or in another one. A
callable that is passed in runs inside of it, so it must not use the memory, and others wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from memkit.arguments import Where, called, check_drafts, in_scope, some_filter
from memkit.ingest import Draft, check_metadata, check_text
from memkit.items import Item
from memkit.scoping import View
from memkit.writing import Edit, Ends, Metadata, check_id
from memkit_storage.errors import InvalidInput
from memkit_storage.rows import Row
from memkit_storage.times import parse_time, to_us


def itself(item: Item) -> list[str]:
    """What ends with an item that has no parts."""
    return [item.id]


class Editing(View):
    """What a memory can do to the items that it has."""

    def update(
        self,
        id: str,
        text: str | None = None,
        metadata: Metadata | None = None,
        *,
        occurred_at: datetime | str | None = None,
    ) -> Item:
        """Record a new version of an item; what is not given stays, `metadata` replaces the former one whole.

        Args:
            metadata: or a callable that makes it of the present one. Nobody writes in between, so that
                `lambda there: {**there, "seen": there["seen"] + 1}` counts right, also among processes. It is called
                once, gets a copy, and must not use the memory.

        Raises:
            ItemNotFound: no such item in this view.
            InvalidInput: as `add`. CallableFailed: `metadata` raised. Nothing is written.
        """
        self._writable()
        moment = None if occurred_at is None else to_us(parse_time(occurred_at))
        edit = _checked(Edit(text, metadata, moment), f"update of {id!r}")
        renewed: Item = Item.from_row(self._writer.update(check_id(id), self._filter(None), edit))
        return renewed

    def update_where(
        self,
        where: Where,
        metadata: Metadata,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> int:
        """Record a new version of every item that matches, with other metadata, together. Returns how many.

        Args:
            where: as in `delete_where`: an empty one needs a scope.
            metadata: as in `update`; a callable makes it for each item.

        Raises:
            InvalidFilter, InvalidInput, CallableFailed: as `delete_where` and `update`; nothing is written.
        """
        self._writable()
        chosen = self._filter(some_filter(where, self._bound(user_id, agent_id, run_id)), user_id, agent_id, run_id)
        count = self._writer.update_where(chosen, _checked(Edit(metadata=metadata), "update_where"))
        self._index.settle()
        return count

    def replace(
        self,
        ids: Sequence[str],
        entries: Sequence[Draft],
        *,
        ends: Callable[[Item], Iterable[str]] = itself,
    ) -> list[Item]:
        """Remember drafts, as `add_drafts`, and end the items with these ids that the drafts do not renew, together.

        Args:
            ids: of items that are to end; those that are not in this view are passed over.
            ends: the ids that end with such an item, by what it is now: itself, and what belongs to it. It is called as
                the `metadata` of `update`. A draft's id never ends.

        Returns:
            The items of the drafts, in order.

        Raises:
            As `add`. CallableFailed: `ends` raised. Nothing is written, and nothing ends.
        """
        self._writable()
        check_drafts(entries)
        drafts = [in_scope(entry, self._scope, self._scope) for entry in entries]
        rows = self._writer.replace([check_id(id_) for id_ in ids], drafts, self._filter(None), _checking(ends))
        self._index.settle()
        return [Item.from_row(row) for row in rows]

    def replace_where(
        self,
        where: Where,
        entries: Callable[[list[Item]], Iterable[Draft]],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> list[Item]:
        """Put what `entries` makes of the items that match in their place, together.

        Args:
            where: as in `delete_where`.
            entries: the drafts, made of all items that match, in the order in which they were first recorded. Those
                that it does not renew end. It is called twice: before, so that what it makes is embedded while others
                may write, and as the `metadata` of `update`, which is what counts. An error that it raises refuses.

        Returns:
            The items of the drafts, in order.

        Raises:
            InvalidFilter: as `delete_where`. As `add`. CallableFailed: `entries` raised what is no error of memkit.
            Nothing is written, and nothing ends.
        """
        self._writable()
        scope = self._bound(user_id, agent_id, run_id)

        def drafts(rows: list[Row]) -> list[Draft]:
            made = called("entries", _made, entries, rows)
            return [in_scope(entry, scope, self._scope) for entry in made]

        rows = self._writer.replace_where(self._filter(some_filter(where, scope), **scope), drafts)
        self._index.settle()
        return [Item.from_row(row) for row in rows]

    def delete(self, ids: str | Sequence[str]) -> int:
        """End items; their history stays (see `erase`). Returns how many there were."""
        self._writable()
        chosen = [ids] if isinstance(ids, str) else list(ids)
        return self._writer.delete([check_id(id_) for id_ in chosen], self._filter(None))

    def delete_where(
        self,
        where: Where,
        *,
        ends: Callable[[Item], Iterable[str]] = itself,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> int:
        """End every item that matches. Returns how many. An empty filter needs a scope: nothing is wiped by mistake.

        Args:
            ends: the ids that end with an item that matches, as in `replace`.

        Raises:
            InvalidFilter: unknown operator or mismatched type. CallableFailed: `ends` raised; nothing ends.
        """
        self._writable()
        chosen = self._filter(some_filter(where, self._bound(user_id, agent_id, run_id)), user_id, agent_id, run_id)
        return self._writer.delete_where(chosen, self._filter(None, user_id, agent_id, run_id), _checking(ends))


def _checking(ends: Callable[[Item], Iterable[str]]) -> Ends:
    return lambda row: called("ends", lambda: [check_id(id_) for id_ in ends(Item.from_row(row))])


def _made(entries: Callable[[list[Item]], Iterable[Draft]], rows: list[Row]) -> list[Draft]:
    made = list(entries([Item.from_row(row) for row in rows]))
    check_drafts(made)
    return made


def _checked(edit: Edit, what: str) -> Edit:
    if edit == Edit():
        raise InvalidInput(f"{what} without a change; pass text=, metadata= or occurred_at=")
    if edit.text is not None:
        check_text(edit.text)
    if edit.metadata is not None and not callable(edit.metadata):
        check_metadata(edit.metadata)
    return edit
