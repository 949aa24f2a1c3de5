"""What a file's band holds for a language model, as far as it still holds: the newest band of a family that was let in,
without the slots of items that have changed or ended since."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from memkit.fast.family import Family
from memkit.slow.lm.expert import Expert, from_arrays
from memkit_storage import lineage
from memkit_storage.lineage import Record
from memkit_storage.store import Store

KIND = "lm"


class Held(NamedTuple):
    """A band in force.

    Attributes:
        record: its lineage. whole: its slots, as they were let in.
        stale: ids of items that have changed or ended since.
    """

    record: Record
    whole: Expert
    stale: frozenset[str]

    @property
    def expert(self) -> Expert:
        """The slots that may act."""
        return self.whole.without(self.stale) if self.stale else self.whole

    def apart_from(self, ended: Collection[str]) -> Expert:
        """The slots that owe nothing to some items, nor to stale ones."""
        gone = self.stale | set(ended)
        return self.whole.without(self.whole.together(gone)) if gone else self.whole


def held(store: Store, family: Family, model: str, as_of: int | None = None) -> Held | None:
    """The band of a family that acts in a model, now or as it was at a time (µs); None if there is none.

    Raises:
        CorruptRecord: its bytes are damaged. InvalidInput: they are no band of this version's form.
    """
    from safetensors.torch import load

    known = [one for one in lineage.records(store) if as_of is None or one.value["time"] <= as_of]
    record = lineage.in_force(known).get((KIND, family, model))
    if record is None:
        return None
    return Held(record, from_arrays(load(lineage.arrays(store, record))), _stale(store, record, as_of))


def _stale(store: Store, record: Record, as_of: int | None) -> frozenset[str]:
    made_from: dict[str, int] = record.value["held"]
    now = {id_: store.get(id_, as_of) for id_ in made_from}
    return frozenset(id_ for id_, row in now.items() if row is None or row.position != made_from[id_])
