"""A sample of what a memory holds: the background against which a match is judged.

It is a function of the log alone, taken anew each time the log has grown by a quarter, so that every process that has
the file open, and every rebuilt index, judges alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from memkit_storage.rows import Row, Vector
from memkit_storage.store import Store
from memkit_storage.tail import unit

BLOCK, BLOCKS = 16, 64  # rows that follow each other, so that neighbours can be compared; 0.3 MB of them at 384-d
GROWTH = 1.25
_SMALL = 16  # versions, up to which every new one counts

Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some versions of a memory, living or past.

    Attributes:
        key: what it depends on: versions, generation of the file, epoch of its vectors.
        vectors: (s, d) unit vectors.
        pairs: (p, 2) rows of `vectors` that were recorded one after the other in the same scope and run.
    """

    key: Key
    vectors: Vector
    pairs: npt.NDArray[np.int64]


def sample_key(store: Store, as_of: int | None = None) -> Key:
    """What a sample taken now would depend on."""
    versions = int(np.count_nonzero(_versions(store, as_of)))
    return milestone(versions), store.log.header.generation, int(store.config.get("epoch", 0))


def take_sample(store: Store, as_of: int | None = None) -> Sample:
    """Under the store's lock: up to BLOCK * BLOCKS versions, in blocks spread evenly over the log."""
    key = sample_key(store, as_of)
    chosen = _spread(key[0])
    rows = list(store.rows(np.flatnonzero(_versions(store, as_of))[chosen].tolist()))
    if not rows:
        return Sample(key, np.zeros((0, int(store.config.get("dim", 0))), np.float32), np.zeros((0, 2), np.int64))
    pairs = [(i, i + 1) for i, (one, other) in enumerate(pairwise(rows)) if _adjacent(one, other)]
    return Sample(key, unit(np.stack([row.vector for row in rows])), np.array(pairs, np.int64).reshape(-1, 2))


def _versions(store: Store, as_of: int | None) -> npt.NDArray[np.bool_]:
    versions: npt.NDArray[np.bool_] = store.catalog.column("kind") == 0
    if as_of is not None:
        versions &= store.catalog.column("time") <= as_of
    return versions


def milestone(versions: int) -> int:
    """The largest step of a geometric series up to a number: how much of what grows a derived value is made from."""
    if versions <= _SMALL:
        return versions
    step = int(math.log(versions / _SMALL) / math.log(GROWTH) + 1e-9)
    return min(versions, int(_SMALL * GROWTH**step))


def _spread(count: int) -> npt.NDArray[np.int64]:
    if count <= BLOCK * BLOCKS:
        return np.arange(count)
    starts = np.linspace(0, count - BLOCK, BLOCKS).astype(np.int64)
    return (starts[:, None] + np.arange(BLOCK)).ravel()


def _adjacent(one: Row, other: Row) -> bool:
    return one.scope == other.scope and one.id != other.id and other.position - one.position <= BLOCK
