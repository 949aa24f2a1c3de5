"""What the log says of how surprising each item was, and that it is the same however the file was opened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DIM, embed

from memkit import Memory
from memkit.fast import salience, surprise
from memkit.fast.salience import Salience
from memkit_storage.store import Store

TEXTS = [
    "Ana moved to Lisbon in May.", "The ferry to Tallinn leaves at noon.", "Ana moved to Lisbon in May!",
    "Biscuit is the name of the dog.", "Ben plays the cello on Mondays.", "The dog is called Biscuit.",
]  # fmt: skip


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=embed, cache_dir=tmp_path / "cache") as opened:
        yield opened


def expected(vectors) -> list[float]:
    return surprise.observe_many(surprise.empty(vectors.shape[1]), vectors)[1].tolist()


def test_an_item_says_how_surprising_it_was_and_still_does_after_a_search_and_a_new_start(memory, tmp_path):
    added = memory.add(TEXTS)
    assert added[0].surprise == 1
    assert added[2].surprise < 0.3 < added[3].surprise
    said = {item.id: item.surprise for item in added}
    memory.close()
    with Memory(tmp_path / "a.mem", embedder=embed, cache_dir=tmp_path / "cache") as again:
        assert {item.id: item.surprise for item in again.list().items} == said
        assert {hit.id: hit.surprise for hit in again.search("dog")}.items() <= said.items()


def test_a_sealed_item_says_the_same(memory):
    said = {item.id: item.surprise for item in memory.add(TEXTS)}
    assert memory.lance().count_rows() == len(TEXTS)
    hits = memory.search("dog Lisbon ferry", limit=6)
    assert {hit.id: hit.surprise for hit in hits}.items() <= said.items()
    assert hits


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.data())
@settings(max_examples=20, deadline=None)
def test_surprise_does_not_depend_on_how_the_items_came(tmp_path_factory, sizes, data):
    """One by one, in batches, through several handles, with the file opened anew in between."""
    folder = tmp_path_factory.mktemp("salience")
    texts = [f"{data.draw(st.sampled_from(TEXTS))} {n}" for n in range(sum(sizes))]
    handles = [Memory(folder / "a.mem", embedder=embed, cache_dir=folder / "cache") for _ in range(2)]
    found, at = [], 0
    for size in sizes:
        which = data.draw(st.integers(0, 2))
        if which == 2:
            handles[0].close()
            handles[0] = Memory(folder / "a.mem", embedder=embed, cache_dir=folder / "cache")
        found += [item.surprise for item in handles[which % 2].add(texts[at : at + size])]
        at += size
    with Store.existing(folder / "a.mem") as store:
        vectors = np.stack([row.vector for row in store.rows(range(len(store.catalog)))])
    for handle in handles:
        handle.close()
    rated = [at for at, value in enumerate(found) if value is not None]
    assert [found[at] for at in rated] == pytest.approx([expected(vectors)[at] for at in rated], abs=2e-4)
    assert found[0] is not None


def test_families_do_not_surprise_each_other_and_runs_of_one_do(memory):
    text = "the very same words"
    first = memory.add(text, user_id="ana", run_id="1")[0]
    other = memory.add(text, user_id="ben", run_id="1")[0]
    again = memory.add(text, user_id="ana", run_id="2")[0]
    assert (first.surprise, other.surprise) == (1, 1)
    assert again.surprise == pytest.approx(0, abs=1e-3)


def test_a_file_that_learns_as_one_is_one_family(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=embed, share_learning=True) as memory:
        memory.add("the very same words", user_id="ana")
        assert memory.add("the very same words", user_id="ben")[0].surprise == pytest.approx(0, abs=1e-3)


def test_the_first_item_that_a_process_writes_for_a_user_with_a_past_is_not_rated(tmp_path):
    """Reading the past costs more than writing the item; who goes on writing has it read."""
    with Memory(tmp_path / "a.mem", embedder=embed) as memory:
        memory.add(TEXTS, user_id="ana")
    with Memory(tmp_path / "a.mem", embedder=embed) as memory:
        found = [memory.add(TEXTS[0], user_id=user)[0].surprise for user in ("ana", "ben", "ana", "ana")]
    assert found[:2] == [None, 1.0]
    assert found[2:] == pytest.approx([0, 0], abs=1e-3)


def test_a_past_that_is_scattered_over_many_batches_is_read_in_part(memory, monkeypatch):
    monkeypatch.setattr(salience, "BATCHES", 2)
    for text in TEXTS[:4]:
        memory.add([text] * 8, user_id="ana")
    rated = Salience(memory._store, memory._fast.family)
    versions = memory._store.catalog.versions({"user_id": "ana"}, 0)
    assert rated._near(versions) == list(range(16, 32))
    assert rated._near(versions[:0]) == []


def test_a_new_version_is_rated_anew_and_history_keeps_both(memory):
    item = memory.add(TEXTS[:2])[0]
    changed = memory.update(item.id, "A wholly different sentence about volcanoes.")
    assert changed.surprise > 0.3
    versions = [change.item.surprise for change in memory.history(item.id)]
    assert versions == [item.surprise, changed.surprise]


def test_what_failed_to_be_written_was_not_observed(memory, monkeypatch):
    memory.add(TEXTS[:2])
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", _full_disk)
        with pytest.raises(OSError, match="full"):
            memory.add("something quite new")
    assert memory.add("something quite new")[0].surprise > 0.3
    assert memory.add("something quite new")[0].surprise == pytest.approx(0, abs=1e-3)


def _full_disk(self, events, **_):
    raise OSError("disk full")


def test_states_take_a_bounded_amount_of_memory(memory, monkeypatch):
    monkeypatch.setattr(salience, "KEPT_BYTES", 3 * 4 * DIM)
    for n in range(8):
        assert memory.add(TEXTS[0], user_id=f"user {n}")[0].surprise == 1
    kept = memory._writer._salience
    assert isinstance(kept, Salience)
    assert len(kept._kept) <= 3
    assert memory.add(TEXTS[0], user_id="user 0")[0].surprise == pytest.approx(0, abs=1e-3)


def test_a_text_without_a_vector_is_written_and_has_no_surprise(tmp_path):
    def blank(texts):
        return np.array([[0.0, 0.0] if text == "blank" else [1.0, 0.0] for text in texts], np.float32)

    with Memory(tmp_path / "a.mem", embedder=blank) as memory:
        assert [item.surprise for item in memory.add(["one", "blank", "one"])] == [1, None, 0]


def test_surprise_survives_an_export_a_merge_and_a_compaction(memory, tmp_path):
    said = {item.id: item.surprise for item in memory.add(TEXTS)}
    memory.compact()
    assert {item.id: item.surprise for item in memory.list().items} == said
    memory.export(tmp_path / "b.mem")
    with Memory(tmp_path / "c.mem", embedder=embed) as other:
        other.merge(tmp_path / "b.mem")
        assert {item.id: item.surprise for item in other.list().items} == said
