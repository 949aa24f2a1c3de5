"""Replay: which items of the log a sleep looks at again, and which it must not learn from.

The log is complete, so what is replayed is a question of time and not of what was kept. New items come first, then
older ones by how surprising they were when they were written and how often an answer used them, and some drawn evenly,
so that nothing is out of reach. Deterministic for a seed.

Trust. An item with `metadata={"trusted": False}` may be found and quoted, and is not trained on. Items with a `source`
in their metadata are limited: no named source makes up more than its share of a sleep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from memkit_storage.filters import Filter
from memkit_storage.rows import Row
from memkit_storage.store import Store

PRIORITISED = 0.7  # of the older items that are replayed; the rest is drawn evenly
SOURCE_SHARE = 0.2  # of a sleep that one named source may make up
UNKNOWN_SURPRISE = 0.5


class Replay(NamedTuple):
    """What a sleep is made from.

    Attributes:
        new: items since the last sleep. old: earlier ones that are replayed. left: trusted items that were not chosen.
        untrusted, limited: how many were left out for want of trust, and because their source had its share.
    """

    new: list[Row]
    old: list[Row]
    left: list[Row]
    untrusted: int
    limited: int

    @property
    def positions(self) -> list[int]:
        """Of everything that is trained on."""
        return [row.position for row in (*self.new, *self.old)]


def trusted(row: Row) -> bool:
    """Whether an item may be trained on."""
    return row.metadata.get("trusted", True) is not False


def replay(
    store: Store,
    scope: Mapping[str, str],
    feedbacks: Iterable[Mapping[str, Any]] = (),
    *,
    since: int = -1,
    limit: int = 512,
    seed: int = 0,
) -> Replay:
    """Choose living items of a scope.

    Args:
        feedbacks: of the scope, for how often an item was used.
        since: log position after which an item is new. limit: items in all.
    """
    everything = store.select(Filter.parse(dict(scope)))
    rows = [row for row in everything if trusted(row)]
    allowed, limited = _rationed(rows, limit)
    new = [row for row in allowed if row.position > since][-limit:]
    chosen = {row.position for row in new}
    used = Counter(id_ for value in feedbacks for id_ in value.get("used", []))
    past = [row for row in allowed if row.position <= since]
    old = _prioritised(past, used, limit - len(new), seed)
    chosen |= {row.position for row in old}
    left = [row for row in rows if row.position not in chosen]
    return Replay(new, old, left, len(everything) - len(rows), limited)


def _rationed(rows: Sequence[Row], limit: int) -> tuple[list[Row], int]:
    """At most its share of items for each named source, the first ones that it brought."""
    share, taken, kept = max(1, int(SOURCE_SHARE * limit)), Counter[str](), []
    for row in rows:
        source = row.metadata.get("source")
        if isinstance(source, str):
            taken[source] += 1
            if taken[source] > share:
                continue
        kept.append(row)
    return kept, len(rows) - len(kept)


def _prioritised(rows: Sequence[Row], used: Mapping[str, int], count: int, seed: int) -> list[Row]:
    """Some items, mostly those that were surprising or useful, in the order of the log."""
    if count <= 0 or not rows:
        return []
    rng = np.random.default_rng(seed)
    priority = np.array([_priority(row, used) for row in rows])
    first = np.argsort(-priority, kind="stable")[: int(PRIORITISED * count)]
    rest = np.setdiff1d(np.arange(len(rows)), first)
    drawn = rng.choice(rest, min(count - len(first), len(rest)), replace=False) if len(rest) else rest
    return [rows[i] for i in np.sort(np.concatenate([first, drawn])).tolist()]


def _priority(row: Row, used: Mapping[str, int]) -> float:
    surprise = UNKNOWN_SURPRISE if row.surprise is None else row.surprise
    return surprise + float(np.log1p(used.get(row.id, 0)))
