"""What a view of a memory is bound to: a scope, and the time that it sees.

Every verb of a memory works through these few checks, so that none of them reaches outside a scope or changes the past.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Self

from memkit.arguments import Where, check_scope, in_scope
from memkit.fast.tier import FastTier
from memkit.finder import Finder
from memkit.ingest import Draft
from memkit.vectors import FileVectors
from memkit.writing import Writer
from memkit_storage.errors import InvalidInput, ReadOnly
from memkit_storage.filters import Filter
from memkit_storage.index import Index
from memkit_storage.rows import SCOPE_FIELDS
from memkit_storage.store import Store
from memkit_storage.times import parse_time, to_us

Progress = Callable[[int, int], None]  # done, total


class View:
    """What all parts of a memory share."""

    _store: Store
    _vectors: FileVectors
    _index: Index
    _fast: FastTier
    _writer: Writer
    _scope: dict[str, str]
    _as_of: int | None

    def scope(self, *, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None) -> Self:
        """The same memory, bound to a user, agent or run: it can neither see nor change anything else."""
        return self._view(scope=self._bound(user_id, agent_id, run_id))

    @property
    def bound(self) -> dict[str, str]:
        """The scope that this view is bound to, by name; empty for the memory itself."""
        return dict(self._scope)

    def own_ids(
        self,
        entries: Sequence[Draft],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> list[Draft]:
        """Drafts with ids that another store made, ready for `add_drafts`: in their scope, and each under its id.

        Where another scope of this file has that id, the draft's is the id behind its scope: `{"user_id": "ana"} id`.
        So one source may be taken over for several scopes, each as often as you like: an id stays what it was.
        """
        scope = self._bound(user_id, agent_id, run_id)
        return self._writer.own_ids([in_scope(entry, scope, self._scope) for entry in entries])

    def at(self, when: datetime | str) -> Self:
        """The memory as it was at a time: a read-only view of the versions that were recorded and current then.

        `when` is an aware datetime or ISO 8601. It is compared with the times of recording (`updated_at`, deletions),
        not with `occurred_at`. A search in the past is exact and reads what it needs from the log.
        """
        return self._view(as_of=to_us(parse_time(when)))

    def _view(self, *, scope: dict[str, str] | None = None, as_of: int | None = None) -> Self:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._scope = self._scope if scope is None else scope
        view._as_of = self._as_of if as_of is None else as_of
        return view

    def _bound(self, user_id: str | None, agent_id: str | None, run_id: str | None) -> dict[str, str]:
        bound = dict(self._scope)
        for name, value in zip(SCOPE_FIELDS, (user_id, agent_id, run_id), strict=True):
            if value is None:
                continue
            check_scope(name, value)
            if bound.get(name, value) != value:
                raise InvalidInput(f"{name}={value!r}, but this view is bound to {name}={bound[name]!r}")
            bound[name] = value
        return bound

    def _filter(
        self,
        where: Where | None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Filter:
        return Filter.parse(where) & Filter.parse(self._bound(user_id, agent_id, run_id))

    def _present(self, action: str) -> None:
        if self._as_of is not None:
            raise ReadOnly(f"a past view cannot {action}; do it on the memory itself")

    def _writable(self) -> None:
        self._present("be changed")

    @property
    def _finder(self) -> Finder:
        return Finder(self._store, self._vectors, self._index, self._fast, self._as_of)
