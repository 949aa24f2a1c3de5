"""What a file's bands hold for a language model, as far as they still hold: the newest band of a kind and family that
was let in, without the slots of items that have changed or ended since."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from memkit.fast.family import Family
from memkit.slow.lm.expert import Expert, from_arrays
from memkit_storage import lineage
from memkit_storage.lineage import Record
from memkit_storage.store import Store

KIND, STYLE = "lm", "style"  # kinds of bands: what items say, and how somebody writes


class Held(NamedTuple):
    """A band in force.

    Attributes:
        record: its lineage. whole: its slots, as they were let in.
        stale: slots that were made from an item that has changed or ended since.
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


def held(store: Store, family: Family, model: str, as_of: int | None = None, kind: str = KIND) -> Held | None:
    """The band of a kind and family that acts in a model, now or as it was at a time (µs); None if there is none.

    Raises:
        CorruptRecord: its bytes are damaged. InvalidInput: they are no band of this version's form.
    """
    from safetensors.torch import load

    known = [one for one in lineage.records(store) if as_of is None or one.value["time"] <= as_of]
    record = lineage.in_force(known).get((kind, family, model))
    if record is None:
        return None
    return Held(record, from_arrays(load(lineage.arrays(store, record))), _stale(store, record, as_of))


def acting(store: Store, family: Family, model: str, as_of: int | None = None) -> list[Expert]:
    """The slots of a family that act in a model, those of items and those of styles."""
    found = [held(store, family, model, as_of, kind) for kind in (KIND, STYLE)]
    return [one.expert for one in found if one is not None and one.expert.items]


def _stale(store: Store, record: Record, as_of: int | None) -> frozenset[str]:
    changed = {
        (id_, position)
        for of in made_from(record).values()
        for id_, position in of.items()
        if (row := store.get(id_, as_of)) is None or row.position != position
    }
    return frozenset(slot for slot, of in made_from(record).items() if not changed.isdisjoint(of.items()))


def made_from(record: Record) -> dict[str, dict[str, int]]:
    """Of each slot of a band: the ids and log positions of the items that it was made from."""
    slots: dict[str, Any] = record.value["held"]
    return {slot: of if isinstance(of, dict) else {slot: of} for slot, of in slots.items()}
