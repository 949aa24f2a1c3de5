"""Replay: which items of the log a sleep learns from, and which it must not.

The log is complete, so what is replayed is a question of time and not of what was kept. Where there are more items than
a sleep has time for, most of them are those that were surprising when they were written or that answers used, and some
are drawn evenly, so that nothing is out of reach. Deterministic for a seed.

Trust. An item with `metadata={"trusted": False}` may be found and quoted, and is not trained on. Items with a `source`
in their metadata are limited: no named source makes up more than its share of a sleep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from memkit.items import is_trusted
from memkit_storage.rows import Row

PRIORITISED = 0.7  # of what is chosen, by surprise and use; the rest is drawn evenly
SOURCE_SHARE = 0.2  # of a sleep that one named source may make up
UNKNOWN_SURPRISE = 0.5


class Replay(NamedTuple):
    """What a sleep is made from.

    Attributes:
        rows: items, in the order of the log. untrusted: left out for want of trust.
    """

    rows: list[Row]
    untrusted: list[Row]


def replay(
    rows: Sequence[Row], feedbacks: Iterable[Mapping[str, Any]] = (), *, limit: int = 512, seed: int = 0
) -> Replay:
    """Choose among living items, given in the order of the log.

    Args:
        feedbacks: about them, for how often an item was used. limit: items in all.
    """
    allowed = _rationed([row for row in rows if is_trusted(row.metadata)], limit)
    used = Counter(id_ for value in feedbacks for id_ in value.get("used", []))
    return Replay(_prioritised(allowed, used, limit, seed), [row for row in rows if not is_trusted(row.metadata)])


def _rationed(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most its share of items for each named source, the first ones that it brought."""
    share, taken, kept = max(1, int(SOURCE_SHARE * limit)), Counter[str](), []
    for row in rows:
        source = row.metadata.get("source")
        if isinstance(source, str):
            taken[source] += 1
            if taken[source] > share:
                continue
        kept.append(row)
    return kept


def _prioritised(rows: Sequence[Row], used: Mapping[str, int], count: int, seed: int) -> list[Row]:
    """Some items, mostly those that were surprising or useful, in the order of the log; all, if they are few."""
    if len(rows) <= count:
        return list(rows)
    rng = np.random.default_rng(seed)
    priority = np.array([_priority(row, used) for row in rows])
    first = np.argsort(-priority, kind="stable")[: int(PRIORITISED * count)]
    rest = np.setdiff1d(np.arange(len(rows)), first)
    drawn = rng.choice(rest, count - len(first), replace=False)
    return [rows[i] for i in np.sort(np.concatenate([first, drawn])).tolist()]


def _priority(row: Row, used: Mapping[str, int]) -> float:
    surprise = UNKNOWN_SURPRISE if row.surprise is None else row.surprise
    return surprise + float(np.log1p(used.get(row.id, 0)))
