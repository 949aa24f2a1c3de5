"""A dict, the live memory, a reopened one, a rebuilt one and an exported and merged one agree after anything."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import embed

from memkit import Memory
from memkit.errors import IdConflict
from memkit_storage import store as store_module

IDS = st.sampled_from(["a", "b", "c", "d.e", "ü/@"])
TEXTS = st.sampled_from(["red apple", "green pear", "blue sky over the sea", "red sky", "café 東京"])
USERS = st.sampled_from([None, "ana", "bob"])
METADATA = st.sampled_from([{}, {"n": 1}, {"n": 2, "k": {"x": "y"}}])


class Agreement(RuleBasedStateMachine):
    """The model is `items`: id -> (text, user, metadata), in the order of first recording; `versions` counts history."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.items: dict[str, tuple] = {}
        self.events: dict[str, int] = {}
        self.memory = self.open("a.mem")
        self.count = 0

    def open(self, name: str, cache: str = "cache") -> Memory:
        return Memory(self.folder / name, embedder=embed, cache_dir=self.folder / cache, durability="os")

    def note(self, id_: str, value: tuple | None) -> None:
        self.events[id_] = self.events.get(id_, 0) + 1
        if value is None:
            del self.items[id_]
        else:
            self.items[id_] = value

    @rule(id_=IDS, text=TEXTS, user=USERS, metadata=METADATA)
    def upsert(self, id_, text, user, metadata) -> None:
        known = self.items.get(id_)
        if known and known[1] != user:
            with pytest.raises(IdConflict):
                self.memory.add(text, id=id_, user_id=user, metadata=metadata)
            return
        self.memory.add(text, id=id_, user_id=user, metadata=metadata)
        if known is None or known[0] != text or (metadata and known[2] != metadata):
            self.note(id_, (text, user, metadata))

    @rule(texts=st.lists(TEXTS, min_size=1, max_size=12), user=USERS)
    def add_many(self, texts, user) -> None:
        for item in self.memory.add(texts, user_id=user):
            self.note(item.id, (item.text, user, {}))

    @precondition(lambda self: self.items)
    @rule(pick=st.integers(0, 99), text=TEXTS)
    def update(self, pick, text) -> None:
        id_ = list(self.items)[pick % len(self.items)]
        self.memory.update(id_, text)
        self.note(id_, (text, *self.items[id_][1:]))

    @rule(id_=IDS)
    def delete(self, id_) -> None:
        assert self.memory.delete(id_) == (id_ in self.items)
        if id_ in self.items:
            self.note(id_, None)

    @rule(user=st.sampled_from(["ana", "bob"]), n=st.integers(1, 2))
    def delete_where(self, user, n) -> None:
        chosen = [i for i, (_, u, meta) in self.items.items() if u == user and meta.get("n") == n]
        assert self.memory.scope(user_id=user).delete_where({"n": n}) == len(chosen)
        for id_ in chosen:
            self.note(id_, None)

    @rule(text=TEXTS)
    def erase(self, text) -> None:
        receipt = self.memory.erase({"text": text})
        assert receipt.checked
        for id_ in receipt.ids:
            self.items.pop(id_, None)
            self.events.pop(id_, None)
        assert all(value[0] != text for value in self.items.values())

    @rule()
    def compact(self) -> None:
        self.memory.compact()

    @rule()
    def seal(self) -> None:
        if self.items:
            self.memory._index.seal()

    @rule()
    def reopen(self) -> None:
        self.memory.close()
        self.memory = self.open("a.mem")

    @rule(ids=st.lists(IDS, max_size=2), text=TEXTS)
    def merge_another(self, ids, text) -> None:
        name = f"m{self.count}.mem"
        self.count += 1
        with self.open(name) as other:
            fresh = other.add([text, text], user_id="ana")
        self.memory.merge(self.folder / name)
        for item in fresh:
            self.note(item.id, (text, "ana", {}))

    def seen(self, memory: Memory) -> dict:
        items = memory.list(limit=1000).items
        return {
            "items": [i.model_dump(exclude={"position"}) for i in items],
            "history": {i: [(c.kind, c.at) for c in memory.history(i)] for i in self.events},
            "text": sorted((h.id, round(h.score, 6)) for h in memory.search("red sky", mode="text", limit=100)),
            "vector": sorted((h.id, round(h.score, 6)) for h in memory.search("red sky", mode="vector", limit=100)),
            "ana": [i.id for i in memory.scope(user_id="ana").list(limit=1000).items],
        }

    @invariant()
    def the_live_memory_is_the_model(self) -> None:
        items = self.memory.list(limit=1000).items
        assert {i.id: (i.text, i.user_id, i.metadata) for i in items} == self.items
        assert {i: len(self.memory.history(i)) for i in self.events} == self.events

    @rule()
    def reopened_rebuilt_and_merged_copies_agree(self) -> None:
        live = self.seen(self.memory)
        with self.open("a.mem") as again:
            assert self.seen(again) == live
            again.rebuild()
            assert self.seen(again) == live
        name = f"x{self.count}.mem"
        self.count += 1
        self.memory.export(self.folder / name)
        with self.open(f"y{name}") as merged:
            merged.merge(self.folder / name)
            copy = self.seen(merged)
        gone = {i for i in self.events if i not in self.items}
        assert copy["items"] == live["items"]
        assert {i: h for i, h in copy["history"].items() if i not in gone} == {
            i: h for i, h in live["history"].items() if i not in gone
        }
        assert (copy["text"], copy["vector"], copy["ana"]) == (live["text"], live["vector"], live["ana"])
        assert self.memory.verify().ok

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            self.memory.close()
            shutil.rmtree(self.folder)


@pytest.fixture(autouse=True)
def many_checkpoints(monkeypatch):
    """So that checkpoints are written and read again within a few dozen events."""
    monkeypatch.setattr(store_module, "CHECKPOINT_EVENTS", 10)
    monkeypatch.setattr(store_module, "CHECKPOINT_ON_CLOSE", 3)


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}


class TestQuick(Agreement.TestCase):
    settings = settings(max_examples=12, stateful_step_count=20, **COMMON)


@pytest.mark.slow
class TestLong(Agreement.TestCase):
    settings = settings(max_examples=80, stateful_step_count=40, **COMMON)
