"""The directory of a disposable index: which files belong to it, and whether they are still what was written.

    <root>/STATE   what was sealed and the size and checksum of every file; replaced last, so a seal counts or does not
    <root>/LOCK    held by the one process that writes
    <root>/...     files that STATE names; anything else is left over from a writer that did not finish

Every file is synced before STATE names it, because a database that only derives need not do so itself.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from memkit_storage import files

SCHEMA = 2  # raised with every change of the table's columns or indexes
_STATE, _LOCK = "STATE", "LOCK"
_BULK = "data"  # directories of this name hold rows that are only searched
SEGMENT = "segment-"  # files of this name hold rows that are returned, each of which carries its own checksum
_HINT = "latest_version_hint.json"  # the one file that Lance changes, and does without
_EAGER = 256 << 20  # bytes of rows that opening reads to compare them: 0.1 s where they are cached
_BLOCK = 1 << 20

Listing = dict[str, list[int]]  # path below the root, with slashes -> [size, crc32]


class IndexDamaged(Exception):
    """The index cannot be trusted: scan the log instead, and build it again."""


class IndexBusy(Exception):
    """Another process is sealing, or has sealed: open the index again, later."""


@dataclass(frozen=True, slots=True)
class IndexKey:
    """What an index is made from; it serves nothing else.

    Attributes:
        file_id: uuid of the log, in hex.
        generation: of the log; a rewrite makes a new one.
        embedder: digest of the embedder's identity.
        dim: length of a vector.
        analyzer: version of the analyzer.
        schema: version of the index's own layout.
    """

    file_id: str
    generation: int
    embedder: str
    dim: int
    analyzer: str
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class State:
    """What was sealed.

    Attributes:
        key: what the rows were made from.
        watermark: log position up to which the table holds exactly the living rows.
        chain: hash of the log at the watermark.
        table: directory of the database.
        segments: files of what rows say.
        version: of the table.
        rows: in the table.
        trained: rows at the last training of the ANN index; 0: there is none.
        terms: file of the term statistics.
        begun: when its sealing began, seconds since 1970; versions that it made are younger.
        lancedb: version of the library that wrote it.
        files: every file that belongs to it.
    """

    key: IndexKey
    watermark: int
    chain: str
    table: str
    segments: list[str]
    version: int
    rows: int
    trained: int
    terms: str
    begun: float
    lancedb: str
    files: Listing

    @property
    def entries(self) -> list[str]:
        """What of the directory belongs to it."""
        return [self.table, self.terms, *self.segments]


def read_state(root: Path) -> State | None:
    """What was sealed last; None when nothing was, or when STATE is damaged."""
    try:
        body, _, crc = (root / _STATE).read_bytes().rpartition(b"\n")
        if zlib.crc32(body) != int(crc, 16):
            return None
        value = json.loads(body)
        return State(**{**value, "key": IndexKey(**value["key"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_state(root: Path, state: State) -> None:
    """Replace STATE at once: a reader sees the old one or the new one."""
    body = json.dumps(asdict(state), indent=1).encode()
    fresh = root / f"{_STATE}.new"
    with fresh.open("wb") as out:
        out.write(body + f"\n{zlib.crc32(body):08x}".encode())
        out.flush()
        files.sync(out.fileno())
    fresh.replace(root / _STATE)
    files.sync_directory(root)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Be the one writer of a directory, which is made if need be, for this user alone.

    Raises:
        IndexBusy: another process or thread is.
        OSError: it cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not files.try_lock(fd):
            raise IndexBusy(f"the index in {root} is being sealed by another process or thread")
        try:
            yield
        finally:
            files.unlock(fd)
    finally:
        os.close(fd)


def free_name(root: Path, prefix: str) -> str:
    """A name that no entry of the directory has."""
    taken = [entry.name.removeprefix(prefix) for entry in root.glob(f"{prefix}*")]
    return f"{prefix}{1 + max((int(name) for name in taken if name.isdecimal()), default=0)}"


def sweep(root: Path, keep: Iterable[str]) -> None:
    """Delete what is neither kept nor STATE nor LOCK, as far as the system lets us."""
    kept = {_STATE, _LOCK, *keep}
    for entry in root.iterdir():
        if entry.name in kept:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):  # Windows deletes no file that somebody reads
                entry.unlink()


def listing(root: Path, names: Iterable[str], known: Listing) -> Listing:
    """Sizes and checksums of all files under these entries, synced to disk.

    Args:
        root: the directory.
        names: entries of it, files or directories.
        known: an earlier listing; Lance never changes a file, so these are not read again.
    """
    found: Listing = {}
    directories = {root}
    for path in (path for name in names for path in _files(root / name)):
        size = path.stat().st_size
        key = path.relative_to(root).as_posix()
        if known.get(key, [-1])[0] == size:
            found[key] = known[key]
            continue
        with path.open("r+b") as file:
            files.sync(file.fileno())
            found[key] = [size, _crc(path)]
        directories.add(path.parent)
    for directory in directories:
        files.sync_directory(directory)
    return found


def intact(root: Path, listed: Listing, *, deep: bool) -> bool:
    """Whether files are there as listed: every size and checksum.

    Of a large table the checksums of the rows' data are compared only if `deep`.
    """
    bulk = sum(size for key, (size, _) in listed.items() if _is_bulk(root / key))
    deep = deep or bulk <= _EAGER
    try:
        return all(_matches(root / key, *entry, deep=deep) for key, entry in listed.items())
    except OSError:
        return False


def _matches(path: Path, size: int, crc: int, *, deep: bool) -> bool:
    return path.stat().st_size == size and ((_is_bulk(path) and not deep) or _crc(path) == crc)


def _is_bulk(path: Path) -> bool:
    return path.parent.name == _BULK or path.name.startswith(SEGMENT)


def _files(entry: Path) -> Iterator[Path]:
    if entry.is_file():
        yield entry
    else:
        yield from (path for path in sorted(entry.rglob("*")) if path.is_file() and path.name != _HINT)


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
