"""The one exception to append-only: a new file takes the old one's place, atomically. See docs/format.md §8.

`compact` keeps every event and packs them; `erase` leaves items out, with a receipt; `export` writes a part into
another file. Positions survive compaction and erasure, so that cursors and pins stay valid.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memkit_storage import files, lineage
from memkit_storage.errors import InvalidInput
from memkit_storage.filters import Filter
from memkit_storage.format import FrameType, Header
from memkit_storage.log import create, new_header, now_us
from memkit_storage.rows import SCOPE_FIELDS
from memkit_storage.store import Store

Progress = Callable[[int, int], None]
_CHUNK = 1024


@dataclass(frozen=True)
class CompactReport:
    """Bytes before and after, and how many events the file holds."""

    before: int
    after: int
    events: int
    generation: int


@dataclass(frozen=True)
class EraseReceipt:
    """Proof of a physical deletion, also kept in the new file (without ids and content).

    Attributes:
        receipt: its own id.
        ids: the items that are gone; the log keeps only their number and positions.
        items, versions: how many items, and how many versions and deletions of them, were removed.
        previous_head, head: hex chain values of the log before and after.
        checked: the new file was read in full and verified; none of the ids is in it, in an item or in feedback, and
            nothing that was learned from one is in force.
        index_removed: the search index, which held copies, was deleted.
        bands_off: bands that were made from an erased item: their parameters are gone, the next sleep makes new ones.
        states_dropped: learned states, of the ranking and inside language models, that were left out; they are
            learned again from the feedback that stays.
    """

    receipt: str
    time_us: int
    reason: str
    ids: tuple[str, ...]
    items: int
    versions: int
    positions: tuple[tuple[int, int], ...]
    generation: int
    previous_head: str
    head: str
    checked: bool
    index_removed: bool = False
    bands_off: tuple[str, ...] = ()
    states_dropped: int = 0


def compact(store: Store, *, progress: Progress | None = None) -> CompactReport:
    """Pack a store's log: single frames into compressed batches, old checkpoints and vectors left out.

    No version, deletion or time is dropped. Needs free space for the new file.

    Raises:
        ReadOnly, StorageFailed: the file is as before.
    """
    with store.lock, store.exclusive():
        before = store.log.size
        everything = range(len(store.catalog))
        learnt = [*_model_states(store), *lineage.rewritten(store)]
        _replace(store, everything, learnt, progress)
        return CompactReport(before, store.log.size, len(store.catalog), store.log.header.generation)


def _model_states(store: Store) -> Iterator[tuple[FrameType, dict[str, Any]]]:
    """The newest state of each family that was made inside a language model: the log alone cannot make it again."""
    newest: dict[Any, dict[str, Any]] = {}
    for kind, value in store.learned(0):
        if kind == FrameType.STATE and value.get("model"):
            newest[tuple(value.get("family", ()))] = value
        elif value.get("reset"):
            newest = {family: state for family, state in newest.items() if not _resets(value, state)}
    yield from ((FrameType.STATE, value) for value in newest.values())


def _resets(reset: dict[str, Any], state: dict[str, Any]) -> bool:
    """Whether a reset, of all or of some scopes, gives up a state."""
    return all(state.get(name) == reset[name] for name in SCOPE_FIELDS if reset.get(name))


def matching_ids(store: Store, where: Filter) -> list[str]:
    """Ids of items of which any version, living or past, matches: what an erasure must reach. Call under the lock."""
    catalog = store.catalog
    puts = (catalog.column("kind") == 0) & catalog.in_scope(where.scope())
    found = {row.id: None for row in store.rows(np.flatnonzero(puts).tolist()) if where.matches(row)}
    return list(found)


def erase(store: Store, where: Filter, *, reason: str = "", progress: Progress | None = None) -> EraseReceipt:
    """Remove matching items physically: every version of them, living or past, and their deletions.

    What it cannot reach: copies of the file elsewhere, file system snapshots, and blocks that an SSD has remapped.

    Raises:
        ReadOnly, StorageFailed: the file is as before.
    """
    with store.lock, store.exclusive():
        ids = matching_ids(store, where)
        catalog, gone = store.catalog, set(ids)
        kept = [i for i in range(len(catalog)) if catalog.id(i) not in gone]
        removed = np.setdiff1d(np.arange(len(catalog)), np.asarray(kept, np.int64))
        gone_positions = catalog.column("position")[removed].tolist()
        positions = tuple((first, last) for first, last in lineage.ranges(gone_positions))
        previous = (store.log.cursor.chain or b"").hex()
        bands = list(lineage.rewritten(store, gone_positions))
        states = sum(kind == FrameType.STATE for kind, _ in store.learned(0))
        known = lineage.records(store)
        tainted = lineage.tainted(known, gone_positions)
        receipt = {
            "receipt": uuid.uuid4().hex,
            "time_us": now_us(),
            "reason": reason,
            "items": len(ids),
            "versions": len(removed),
            "positions": positions,
            "previous_head": previous,
        }
        _replace(store, kept, [*bands, (FrameType.ERASE, receipt)], progress)
        return EraseReceipt(
            **receipt,  # type: ignore[arg-type]
            ids=tuple(ids),
            generation=store.log.header.generation,
            head=(store.log.cursor.chain or b"").hex(),
            checked=_is_clean(store, gone, gone_positions),
            bands_off=tuple(record.id for record in known if record.usable and record.id in tainted),
            states_dropped=states,
        )


def _is_clean(store: Store, gone: Collection[str], positions: Sequence[int]) -> bool:
    """Read the whole file again: it verifies, no erased id is in its catalog or in feedback, no state is left that may
    have been learned from one, and no band in force was."""
    from memkit_storage.verify import verify

    report = verify(store.log.path)
    names = {store.catalog.id(i) for i in range(len(store.catalog))}
    learnt = list(store.learned(0))
    named = {id_ for kind, value in learnt if kind == FrameType.FEEDBACK for id_ in _named(value)}
    states = any(kind == FrameType.STATE for kind, _ in learnt)
    known = lineage.records(store)
    tainted = lineage.tainted(known, positions)
    bands = any(record.usable and record.id in tainted for record in known)
    return report.ok and (names | named).isdisjoint(gone) and not states and not bands


def _named(value: dict[str, Any]) -> list[str]:
    """Ids that a feedback is about."""
    return [id_ for name in ("used", "wrong", "shown") for id_ in value.get(name, [])]


def export(
    store: Store, path: str | Path, ids: Collection[str] | None = None, *, progress: Progress | None = None
) -> int:
    """Write items (all, or these ids) with their history, ids and times into a new file. Returns how many items.

    Raises:
        InvalidInput: there is a file at `path` already.
    """
    target = Path(path)
    if target.exists():
        raise InvalidInput(f"{target} exists already; pass a path that does not, or merge into that memory")
    with store.lock:
        wanted = None if ids is None else set(ids)
        catalog = store.catalog
        kept = [i for i in range(len(catalog)) if wanted is None or catalog.id(i) in wanted]
        draft = _draft(target)
        try:
            notes = list(feedback_about(store, {catalog.id(i) for i in kept}))
            written = _write(store, draft, new_header(), kept, notes=notes, progress=progress, keep_positions=False)
            _put_in_place(draft, target)
        finally:
            files.discard(draft)
        return written


def feedback_about(store: Store, ids: Collection[str]) -> Iterator[tuple[FrameType, dict[str, Any]]]:
    """Under the lock: feedback as far as it is about these items, to be written elsewhere; what was learned from it
    is learned from it again."""
    for kind, value in store.learned(0):
        if kind != FrameType.FEEDBACK or not all(
            isinstance(value.get(n, []), list) for n in ("used", "wrong", "shown")
        ):
            continue
        about = {name: [id_ for id_ in value.get(name, []) if id_ in ids] for name in ("used", "wrong")}
        shown = [id_ for id_ in value.get("shown", []) if id_ in ids]
        if value.get("reset") or any(about.values()):
            yield kind, value if value.get("reset") else {**value, **about, "shown": shown}


def _replace(
    store: Store,
    kept: Sequence[int],
    notes: list[tuple[FrameType, dict[str, Any]]],
    progress: Progress | None,
) -> None:
    log = store.log
    chain = log.cursor.chain or log.header.genesis
    header = new_header(file_id=log.header.file_id, generation=log.header.generation + 1, genesis=chain)
    _sweep(log.path)
    draft = _draft(log.path)
    try:
        earlier = [note for note in store.notes if note[0] == FrameType.ERASE]
        learnt = list(feedback_about(store, {store.catalog.id(i) for i in kept}))
        _write(store, draft, header, kept, notes=[*earlier, *learnt, *notes], progress=progress, keep_positions=True)
        _put_in_place(draft, log.path)
    finally:
        files.discard(draft)
    store.reload()


def _write(
    store: Store,
    draft: Path,
    header: Header,
    kept: Sequence[int],
    *,
    notes: list[tuple[FrameType, dict[str, Any]]],
    progress: Progress | None,
    keep_positions: bool,
) -> int:
    """Write chosen events of a store into a new file at `draft`. Returns how many items live in it."""
    create(draft, header)
    if keep_positions:
        _copy_mode(store.log.path, draft)  # before there is anything in it
    copy = Store(draft, durability="os")
    try:
        with copy.lock, copy.exclusive():
            if store.config:
                copy.append_note(FrameType.CONFIG, store.config)
            for start in range(0, len(kept), _CHUNK):
                events = list(store.events(kept[start : start + _CHUNK]))
                copy.write(events, keep_positions=keep_positions)
                if progress:
                    progress(min(start + _CHUNK, len(kept)), len(kept))
            for kind, value in notes:
                copy.append_note(kind, value)
            if keep_positions:
                copy.skip_to(store.log.cursor.position)
            copy.checkpoint()
        return copy.catalog.alive_count
    finally:
        copy.close()


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")


def _sweep(path: Path) -> None:
    """Delete drafts of rewrites that were killed: they hold copies. Whoever has the lock is the only one to rewrite."""
    draft = re.compile(rf"\.+{re.escape(path.name)}(\.[0-9a-f]{{8}}\.new)+")
    for entry in path.parent.iterdir():
        if draft.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _copy_mode(old: Path, new: Path) -> None:
    try:
        new.chmod(old.stat().st_mode & 0o7777)
    except OSError as error:
        raise files.failure(error, "set the permissions of", new) from error


def _put_in_place(draft: Path, path: Path) -> None:
    try:
        with draft.open("rb+") as written:
            files.sync(written.fileno())
        draft.replace(path)
        files.sync_directory(path.parent)
    except OSError as error:
        raise files.failure(error, "replace", path) from error
