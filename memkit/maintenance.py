"""What is done with a memory's file as a whole, as verbs: moving, erasing, proving, packing, counting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from memkit.arguments import Where, some_filter
from memkit.items import MergeReport, Stats, to_table
from memkit.scoping import Progress, View
from memkit_storage import rewrite, verify
from memkit_storage.errors import ReadOnly
from memkit_storage.format import MAJOR, MINOR
from memkit_storage.store import Store


class Maintenance(View):
    """The file of a memory."""

    def export(
        self,
        path: str | Path,
        *,
        where: Where | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write items, all or those that match, with their history into a new .mem file. Returns how many items.

        Raises:
            InvalidInput: something exists at `path`.
        """
        self._present("export")
        self._store.refresh()
        chosen = self._filter(where, user_id, agent_id, run_id)
        with self._store.lock:
            whole = chosen.sql() is None
            ids = None if whole else [row.id for row in self._store.select(chosen)]
            return rewrite.export(self._store, path, ids, progress=progress)

    def merge(self, path: str | Path, *, progress: Progress | None = None) -> MergeReport:
        """Take over the items of another memory, with ids, times and history; what is here already is left alone.

        Where both know an id, the later event is the present. A view takes over only what lies in its scope.
        If the other file's vectors came from another embedder, its texts are embedded anew.

        Raises:
            IdConflict: an id belongs to different scopes in the two files; nothing is written.
        """
        self._writable()
        with Store.existing(path) as other:
            return self._writer.merge(other, self._filter(None), progress)

    def erase(
        self,
        where: Where | None = None,
        *,
        reason: str = "",
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        progress: Progress | None = None,
    ) -> rewrite.EraseReceipt:
        """Remove items physically, with every version and every copy in the search index, and prove it.

        An item is erased when any of its versions matches, so that deleted and updated text is reached too. The
        file is rewritten and swapped in atomically. Not reachable: copies of the file elsewhere.

        Raises:
            InvalidFilter: no filter and no scope: erasing everything is deleting the file.
        """
        self._writable()
        self._store.refresh()
        chosen = self._filter(some_filter(where, self._bound(user_id, agent_id, run_id)), user_id, agent_id, run_id)
        receipt = rewrite.erase(self._store, chosen, reason=reason, progress=progress)
        return replace(receipt, index_removed=self._index.destroy())

    def verify(self, *, head: str | None = None, progress: Progress | None = None) -> verify.VerifyReport:
        """Read the whole file and prove that nothing was changed, cut or lost, or say where it was.

        `head` is the value of an earlier report: with it, that the log still begins with what it held then.
        """
        return verify.verify(self._store.log.path, head=head, progress=progress)

    def rebuild(self, *, progress: Progress | None = None) -> None:
        """Make everything derived anew from the log: the vectors if the embedder has changed, and the index."""
        self._writable()
        self._store.refresh()
        if self._vectors.changed() is not None:
            self._vectors.embed_again(progress)
        self._index.rebuild()

    def compact(self, *, progress: Progress | None = None) -> rewrite.CompactReport:
        """Pack the file. Every version, deletion and time stays; the file is swapped in atomically."""
        self._writable()
        return rewrite.compact(self._store, progress=progress)

    def stats(self) -> Stats:
        """The memory in numbers."""
        self._store.refresh()
        store, catalog, config = self._store, self._store.catalog, self._store.config
        with store.lock:
            scoped = catalog.in_scope(dict(self._scope))
            alive, is_put = catalog.alive(self._as_of) & scoped, catalog.column("kind") == 0
            return Stats(
                path=str(store.log.path),
                format=f"{MAJOR}.{MINOR}",
                items=int(alive.sum()),
                versions=int((is_put & scoped).sum()),
                deletions=int((~is_put & scoped).sum()),
                users=catalog.scope_values("user_id", alive),
                file_bytes=store.log.size,
                generation=store.log.header.generation,
                position=store.log.cursor.position,
                head=(store.log.cursor.chain or b"").hex(),
                embedder=config.get("embedder"),
                dimension=config.get("dim"),
                tail=self._index.sizes[0],
                sealed=self._index.sizes[1],
                damage=[str(damage) for damage in store.log.damage],
            )

    def to_arrow(self, where: Where | None = None) -> Any:
        """The items as a pyarrow Table: id, text, scopes, metadata (JSON), times, position, vector (float32)."""
        self._store.refresh()
        rows = self._store.select(self._filter(where), as_of=self._as_of)
        return to_table(rows)

    def lance(self) -> Any:
        """The LanceDB table of the whole file, caught up; read it, do not write: it is derived and disposable.

        Raises:
            ReadOnly: this is a scoped or past view, which must not see the whole file.
        """
        if self._scope or self._as_of is not None:
            raise ReadOnly("lance() shows the whole file as it is now; call it on the memory, not on a view")
        return self._index.table()
