"""A dict, the live memory, a reopened one, a rebuilt one and an exported and merged one agree after anything."""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import embed

from memkit import Memory
from memkit.errors import IdConflict, ItemNotFound
from memkit.ingest import Draft
from memkit_storage import store as store_module

OWNERS = {"a": None, "b": "ana", "c": "bob", "d.e": None, "ü/@": "ana"}
IDS = st.sampled_from(sorted(OWNERS))
TEXTS = st.sampled_from(["red apple", "green pear", "blue sky over the sea", "red sky", "café 東京"])
USERS = st.sampled_from([None, "ana", "bob"])
METADATA = st.sampled_from([{}, {"n": 1}, {"n": 2, "k": {"x": "y"}}])


class Version(NamedTuple):
    """One event of an item; a deletion has no text."""

    at: datetime
    text: str | None
    user: str | None = None
    metadata: dict | None = None


Model = dict[str, list[Version]]  # id -> events by time, ids in the order of first recording


def living(model: Model) -> dict[str, Version]:
    """id -> present version."""
    return {id_: events[-1] for id_, events in model.items() if events and events[-1].text is not None}


def union(mine: Model, theirs: Model) -> Model:
    """What a merge must give: every event of both, once, by time."""
    merged = {id_: list(events) for id_, events in mine.items()}
    for id_, events in theirs.items():
        known = merged.setdefault(id_, [])
        known += [event for event in events if event not in known]
        known.sort(key=lambda event: event.at)
    return merged


class Agreement(RuleBasedStateMachine):
    """`model` says what the memory must hold; `order` lists living ids by first recording; `past` are moments."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.model: Model = {}
        self.order: list[str] = []
        self.past: list[tuple[datetime, dict]] = []
        self.copies: list[tuple[str, Model]] = []
        self.count = 0
        self.memory = self.open("a.mem")

    def open(self, name: str) -> Memory:
        return Memory(self.folder / name, embedder=embed, cache_dir=self.folder / "cache", durability="os")

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}.mem"

    def note(self, id_: str, version: Version) -> None:
        alive = id_ in living(self.model)
        self.model.setdefault(id_, []).append(version)
        if version.text is None:
            self.order.remove(id_)
        elif not alive:
            self.order.append(id_)

    def note_item(self, item) -> None:
        self.note(item.id, Version(item.updated_at, item.text, item.user_id, item.metadata))

    def note_deletion(self, id_: str) -> None:
        self.note(id_, Version(self.memory.history(id_)[-1].at, None))

    # changes

    @rule(id_=IDS, text=TEXTS, user=USERS, metadata=METADATA)
    def upsert(self, id_, text, user, metadata) -> None:
        known = living(self.model).get(id_)
        if known and known.user != user:
            with pytest.raises(IdConflict):
                self.memory.add(text, id=id_, user_id=user, metadata=metadata)
            return
        (item,) = self.memory.add(text, id=id_, user_id=OWNERS[id_], metadata=metadata)
        if known is None or known.text != text or (metadata and known.metadata != metadata):
            assert (item.text, item.user_id, item.metadata) == (text, OWNERS[id_], metadata)
            self.note_item(item)

    @rule(texts=st.lists(TEXTS, min_size=1, max_size=12), user=USERS)
    def add_many(self, texts, user) -> None:
        items = self.memory.add(texts, user_id=user)
        assert [(item.text, item.user_id, item.metadata) for item in items] == [(text, user, {}) for text in texts]
        for item in items:
            self.note_item(item)

    @precondition(lambda self: self.order)
    @rule(pick=st.integers(0, 99), text=TEXTS)
    def update(self, pick, text) -> None:
        id_ = self.order[pick % len(self.order)]
        item = self.memory.update(id_, text)
        assert (item.id, item.text, item.metadata) == (id_, text, living(self.model)[id_].metadata)
        self.note_item(item)

    @rule(id_=IDS)
    def delete(self, id_) -> None:
        assert self.memory.delete(id_) == (id_ in self.order)
        if id_ in self.order:
            self.note_deletion(id_)

    @rule(id_=IDS, user=st.sampled_from(["ana", "bob"]), text=TEXTS)
    def change_through_a_scope(self, id_, user, text) -> None:
        view, known = self.memory.scope(user_id=user), living(self.model).get(id_)
        if known is None or known.user != user:
            assert view.get(id_) is None
            assert view.delete(id_) == 0
            with pytest.raises(ItemNotFound):
                view.update(id_, text)
            return
        self.note_item(view.update(id_, text))
        assert view.delete([id_]) == 1
        self.note_deletion(id_)

    @rule(user=st.sampled_from(["ana", "bob"]), n=st.integers(1, 2))
    def delete_where(self, user, n) -> None:
        present = living(self.model)
        chosen = [i for i in self.order if present[i].user == user and present[i].metadata.get("n") == n]
        assert self.memory.scope(user_id=user).delete_where({"n": n}) == len(chosen)
        for id_ in chosen:
            self.note_deletion(id_)

    @rule(user=st.sampled_from(["ana", "bob"]), n=st.integers(1, 2))
    def update_where(self, user, n) -> None:
        present = living(self.model)
        chosen = [i for i in self.order if present[i].user == user and present[i].metadata.get("n") == n]
        changed = self.memory.update_where({"n": n}, lambda there: {**there, "n": 3 - there["n"]}, user_id=user)
        assert changed == len(chosen)
        for id_ in chosen:
            self.note_item(self.memory.get(id_))

    @rule(id_=IDS, text=TEXTS)
    def replace(self, id_, text) -> None:
        (item,) = self.memory.replace([id_], [Draft(text)])
        self.note_item(item)
        if id_ in self.order:
            self.note_deletion(id_)

    @rule(user=st.sampled_from(["ana", "bob"]), text=TEXTS)
    def replace_where(self, user, text) -> None:
        present = living(self.model)
        chosen = [i for i in self.order if present[i].user == user and present[i].text == text]
        items = self.memory.replace_where(
            {"text": text}, lambda there: [Draft("the last", id=item.id) for item in there[-1:]], user_id=user
        )
        assert [item.id for item in items] == chosen[-1:]
        for item in items:
            self.note_item(item)
        for id_ in chosen[:-1]:
            self.note_deletion(id_)

    @rule(text=TEXTS)
    def erase(self, text) -> None:
        doomed = {id_ for id_, events in self.model.items() if any(event.text == text for event in events)}
        receipt = self.memory.erase({"text": text})
        assert receipt.checked
        assert set(receipt.ids) == doomed
        assert receipt.versions == sum(len(self.model[id_]) for id_ in doomed)
        for id_ in doomed:
            del self.model[id_]
        self.order = [id_ for id_ in self.order if id_ not in doomed]
        self.past = [(at, {i: t for i, t in then.items() if i not in doomed}) for at, then in self.past]

    # the file

    @rule()
    def compact(self) -> None:
        self.memory.compact()

    @rule()
    def seal(self) -> None:
        if self.order:
            self.memory.lance()

    @rule()
    def reopen(self) -> None:
        self.memory.close()
        self.memory = self.open("a.mem")

    @rule(text=TEXTS)
    def merge_another(self, text) -> None:
        name = self.name("m")
        with self.open(name) as other:
            fresh = other.add([text, text], user_id="ana")
        report = self.memory.merge(self.folder / name)
        assert (report.added, report.known) == (2, 0)
        for item in fresh:
            self.note_item(item)
        self.past = []  # what was merged was true before

    @rule(ids=st.lists(IDS, min_size=1, max_size=4), text=TEXTS, remove=st.booleans())
    def let_a_copy_live_its_own_life(self, ids, text, remove) -> None:
        name = self.name("c")
        self.memory.export(self.folder / name)
        theirs = {id_: list(events) for id_, events in self.model.items()}
        with self.open(name) as copy:
            for id_ in ids:
                if remove and copy.delete(id_):
                    theirs[id_].append(Version(copy.history(id_)[-1].at, None))
                elif not remove and len(copy.history(id_)) == len(theirs.get(id_, [])):
                    before = len(copy.history(id_))
                    (item,) = copy.add(text, id=id_, user_id=OWNERS[id_])
                    if len(copy.history(id_)) > before:
                        version = Version(item.updated_at, item.text, item.user_id, item.metadata)
                        theirs.setdefault(id_, []).append(version)
        self.copies.append((name, theirs))

    @precondition(lambda self: self.copies)
    @rule()
    def merge_a_copy(self) -> None:
        name, theirs = self.copies.pop()
        before = sum(map(len, self.model.values()))
        report = self.memory.merge(self.folder / name)
        self.model = union(self.model, theirs)
        assert report.added == sum(map(len, self.model.values())) - before
        again = self.memory.merge(self.folder / name)
        assert again.added == 0
        self.order = [item.id for item in self.memory.list(limit=1000).items]  # the model knows no order of merges
        assert sorted(self.order) == sorted(living(self.model))
        self.past = []

    @rule()
    def remember_this_moment(self) -> None:
        times = [event.at for events in self.model.values() for event in events]
        if times:
            self.past.append((max(times), {i: v.text for i, v in living(self.model).items()}))

    # agreement

    def seen(self, memory: Memory) -> dict:
        items = memory.list(limit=1000).items
        return {
            "items": [i.model_dump(exclude={"position"}) for i in items],
            "history": {i: [(c.kind, c.at, c.item and c.item.text) for c in memory.history(i)] for i in self.model},
            "text": sorted((h.id, round(h.score, 6)) for h in memory.search("red sky", mode="text", limit=1000)),
            "vector": sorted((h.id, round(h.score, 6)) for h in memory.search("red sky", mode="vector", limit=1000)),
            "ana": [i.id for i in memory.scope(user_id="ana").list(limit=1000).items],
        }

    @invariant()
    def the_live_memory_is_the_model(self) -> None:
        items = self.memory.list(limit=1000).items
        assert [item.id for item in items] == self.order
        present = living(self.model)
        assert {i.id: Version(i.updated_at, i.text, i.user_id, i.metadata) for i in items} == present
        for id_, events in self.model.items():
            history = self.memory.history(id_)
            assert [(c.at, c.item.text if c.kind != "deleted" else None) for c in history] == [e[:2] for e in events]

    @invariant()
    def each_past_moment_is_as_it_was(self) -> None:
        for at, then in self.past:
            assert {i.id: i.text for i in self.memory.at(at).list(limit=1000).items} == then

    @rule()
    def reopened_rebuilt_and_merged_copies_agree(self) -> None:
        live = self.seen(self.memory)
        with self.open("a.mem") as again:
            assert self.seen(again) == live
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        with self.open("a.mem") as again:
            assert self.seen(again) == live
            again.rebuild()
            assert self.seen(again) == live
        name = self.name("x")
        self.memory.export(self.folder / name)
        with self.open(f"y{name}") as merged:
            merged.merge(self.folder / name)
            assert self.seen(merged) == live
        assert self.seen(self.memory) == live
        assert self.memory.merge(self.folder / name).added == 0
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
    settings = settings(max_examples=100, stateful_step_count=40, **COMMON)
