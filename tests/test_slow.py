"""Sleeps: what makes a band, what the gate lets in, what taking back and erasing leave, and who may sleep."""

from __future__ import annotations

import numpy as np
import pytest
from support import embed

from memkit import Memory
from memkit.errors import Busy, InvalidInput, ItemNotFound
from memkit.fast import ranker
from memkit.fast.family import packed, unpacked
from memkit.slow import gate, recall_band
from memkit.slow.gate import Arms
from memkit.slow.rounds import BYTES_A_FEEDBACK, LEAST, Budget
from memkit.slow.sleep import sole_sleeper

NAMES = ("ana", "bo", "cleo", "dan")
THINGS = ("boat", "dog", "piano", "garden", "cello", "bike")


def fill(memory, user="u", count=40, seed=0):
    """Items about four people, and so many questions with their answers. Returns the items."""
    texts = [f"{name} likes the {thing} number {i}" for i in range(5) for name in NAMES for thing in THINGS]
    items = memory.add(texts, user_id=user)
    tell(memory, items, user, count, seed)
    return items


def tell(memory, items, user="u", count=40, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        item = items[int(rng.integers(len(items)))]
        name, _, rest = item.text.partition(" likes ")
        memory.feedback(f"{rest} {name}", used=item.id, user_id=user)


def weights(memory, user="u"):
    return memory.scope(user_id=user).snapshot().weights.values


def same(one, other):
    """Whether two states hold the same numbers."""
    a, b = (packed(state, ("u", None), [{"time": 0}], 0)["arrays"] for state in (one, other))
    return a == b


# a sleep


def test_a_sleep_makes_a_band_that_acts_and_says_what_it_was_made_from(memory):
    items = fill(memory)
    before = weights(memory)
    report = memory.consolidate()
    (band,) = report.bands
    assert band == memory.bands()[0]
    assert (band.kind, band.scope, band.promoted, band.in_force) == ("recall", {"user_id": "u"}, True, True)
    assert (band.feedbacks, band.parent, band.model) == (40, None, "support.embed")
    assert 0 < band.items <= len(items)
    assert band.metrics["probes"] == 10
    assert band.metrics["canaries_band"] >= band.metrics["canaries_now"] - 0.02
    assert report.losses[band.id][-1] < report.losses[band.id][0]
    assert not np.allclose(weights(memory), before)


def test_there_is_nothing_to_do_twice_and_new_feedback_is_worth_a_new_band(memory):
    items = fill(memory)
    first = memory.consolidate().bands[0]
    again = memory.consolidate()
    assert (again.bands, list(again.skipped)) == ([], ["u"])
    tell(memory, items, count=8, seed=1)
    second = memory.consolidate().bands[0]
    assert (second.parent, second.feedbacks) == (first.id, 48)
    assert [band.in_force for band in memory.bands()] == [False, True]


def test_few_feedbacks_make_no_band(memory):
    fill(memory, count=LEAST - 1)
    report = memory.consolidate()
    assert report.bands == []
    assert f"made from {LEAST}" in report.skipped["u"]


def test_a_band_is_in_force_in_another_handle_at_once_and_after_reopening(open_memory):
    memory, other = open_memory(), open_memory()
    fill(memory)
    weights(other)
    memory.consolidate()
    assert np.array_equal(weights(other), weights(memory))
    expected = weights(memory)
    memory.close()
    other.close()
    assert np.array_equal(weights(open_memory()), expected)


def test_feedback_after_a_band_is_learned_on_top_of_it(open_memory):
    memory = open_memory()
    items = fill(memory)
    memory.consolidate()
    band = memory.scope(user_id="u").snapshot()
    tell(memory, items, count=3, seed=5)
    after = memory.scope(user_id="u").snapshot()
    assert after.feedbacks == band.feedbacks + 3
    assert not same(after, band)
    memory.close()
    assert same(open_memory().scope(user_id="u").snapshot(), after)


def test_one_user_s_band_changes_nothing_for_another(memory):
    fill(memory, "u")
    fill(memory, "v", seed=3)
    before = weights(memory, "v")
    report = memory.consolidate(user_id="u")
    assert [band.scope for band in report.bands] == [{"user_id": "u"}]
    assert np.array_equal(weights(memory, "v"), before)
    assert memory.scope(user_id="v").bands() == []
    with pytest.raises(ItemNotFound, match="bands"):
        memory.scope(user_id="v").rollback(report.bands[0].id)


def test_a_sleep_is_the_same_wherever_it_is_made(open_memory, tmp_path):
    memory = open_memory()
    fill(memory)
    (tmp_path / "b.mem").write_bytes((tmp_path / "a.mem").read_bytes())
    twin = open_memory("b.mem")
    memory.consolidate()
    twin.consolidate()
    assert same(memory.scope(user_id="u").snapshot(), twin.scope(user_id="u").snapshot())


def test_a_budget_that_is_over_leaves_the_rest_to_the_next_sleep(memory):
    for user in ("u", "v", "w"):
        fill(memory, user, count=LEAST)
    seen = []
    first = memory.consolidate(stop=lambda: len(seen) == 1, progress=lambda done, total: seen.append((done, total)))
    assert (len(first.bands), first.finished, seen) == (1, False, [(1, 3)])
    rest = memory.consolidate()
    assert (len(rest.bands), rest.finished) == (2, True)
    assert memory.consolidate(budget=0).finished is False


def test_memory_for_feedback_is_bounded():
    told = [{"time": i} for i in range(1000)]
    assert len(Budget(megabytes=None).fitting(told)) == 1000
    assert Budget(megabytes=5).fitting(told) == told[-(5_000_000 // BYTES_A_FEEDBACK) :]
    assert len(Budget(megabytes=0).fitting(told)) == LEAST


def test_one_sleep_at_a_time(memory, tmp_path):
    fill(memory, count=LEAST)
    with sole_sleeper(memory._index.root), pytest.raises(Busy, match="under way"):
        memory.consolidate()
    assert memory.consolidate().bands


def test_a_past_view_does_not_sleep_and_nothing_changes_for_it(memory):
    fill(memory)
    when = memory.list(user_id="u").items[-1].created_at
    with pytest.raises(Exception, match="past view"):
        memory.at(when).consolidate()
    past = memory.at("2999-01-01")
    before = past.scope(user_id="u").snapshot()
    memory.consolidate()
    assert same(past.scope(user_id="u").snapshot(), before)


def test_what_consolidate_may_be_is_checked(tmp_path):
    with pytest.raises(InvalidInput, match="auto"):
        Memory(tmp_path / "a.mem", embedder=embed, consolidate="always")  # type: ignore[arg-type]


# taking back


def test_rollback_is_instant_and_can_be_undone(open_memory):
    memory = open_memory()
    fill(memory)
    online = memory.scope(user_id="u").snapshot()
    band = memory.consolidate().bands[0]
    learned = memory.scope(user_id="u").snapshot()
    assert memory.rollback(band.id) == [band.id]
    assert same(memory.scope(user_id="u").snapshot(), online)
    assert not memory.bands()[0].in_force
    assert memory.rollback(band.id) == []
    memory.close()
    memory = open_memory()
    assert same(memory.scope(user_id="u").snapshot(), online)
    assert memory.rollback(band.id, undo=True) == [band.id]
    assert same(memory.scope(user_id="u").snapshot(), learned)


def test_rolling_a_band_back_takes_what_was_made_from_it_along(memory):
    items = fill(memory)
    first = memory.consolidate().bands[0]
    tell(memory, items, count=8, seed=1)
    second = memory.consolidate().bands[0]
    assert memory.rollback(second.id) == [second.id]
    assert [band.in_force for band in memory.bands()] == [True, False]
    memory.rollback(second.id, undo=True)
    assert memory.rollback(first.id) == [first.id, second.id]
    assert not any(band.in_force for band in memory.bands())
    with pytest.raises(ItemNotFound, match="no band 'x'"):
        memory.rollback("x")


def test_a_snapshot_that_stands_on_a_band_goes_with_it(open_memory):
    memory = open_memory()
    items = fill(memory)
    band = memory.consolidate().bands[0]
    tell(memory, items, count=130, seed=2)
    memory.close()  # writes a snapshot
    memory = open_memory()
    memory.rollback(band.id)
    without = memory.scope(user_id="u").snapshot()
    assert same(without, memory._fast.replayed(memory._fast.families()["u", None]))


def test_a_snapshot_comes_back_as_it_was(memory):
    fill(memory)
    state = memory.scope(user_id="u").snapshot()
    again = unpacked(packed(state, ("u", None), memory._fast.families()["u", None], 0))
    assert same(again, state)
    assert (again.ids, again.sources, again.feedbacks) == (state.ids, state.sources, state.feedbacks)


def test_reset_fast_gives_up_bands_too(memory):
    fill(memory)
    memory.consolidate()
    memory.scope(user_id="u").reset_fast()
    assert memory.scope(user_id="u").snapshot() is None
    assert memory.consolidate().bands == []


# the file


def test_compaction_keeps_what_is_in_force_and_lets_old_parameters_go(memory):
    items = fill(memory, count=LEAST)
    for seed in range(1, 6):
        tell(memory, items, count=4, seed=seed)
        memory.consolidate()
    learned = memory.scope(user_id="u").snapshot()
    before = memory.bands()
    memory.compact()
    after = memory.bands()
    assert [band.id for band in after] == [band.id for band in before]
    assert [bool(band.bytes) for band in after if band.promoted] == [False, False, True, True, True]
    assert same(memory.scope(user_id="u").snapshot(), learned)
    assert memory.verify().ok
    memory.rollback(after[0].id)
    with pytest.raises(ItemNotFound, match="parameters"):
        memory.rollback(after[0].id, undo=True)


def test_erasing_an_item_switches_the_bands_off_that_knew_it_and_the_next_sleep_does_without(open_memory, tmp_path):
    memory = open_memory()
    items = fill(memory)
    band = memory.consolidate().bands[0]
    used = memory._fast.families()["u", None][0]["used"][0]
    receipt = memory.erase({"id": used})
    assert receipt.checked
    assert receipt.bands_off == (band.id,)
    (left,) = memory.bands()
    assert (left.in_force, left.bytes, left.items, left.digest) == (False, 0, 0, "")
    again = memory.consolidate().bands[0]
    assert again.parent is None
    assert used not in memory.scope(user_id="u").snapshot().ids
    assert used.encode() not in (tmp_path / "a.mem").read_bytes()
    assert len(items) - 1 == memory.stats().items


def test_after_an_erasure_a_band_cannot_be_told_from_one_that_never_knew_the_item(open_memory):
    """The strongest test of membership: the parameters are the same numbers."""
    memory, other = open_memory("knew.mem"), open_memory("never.mem")
    for one, told in ((memory, True), (other, False)):
        items = one.add([f"{name} likes the {thing}" for name in NAMES for thing in THINGS], user_id="u")
        one.add("the secret is under the oak", id="secret", user_id="u")
        for place, item in enumerate(items):
            one.feedback(f"question {place} {item.text}", used=item.id, user_id="u")
            if told and place == 7:
                one.feedback("where is the secret?", used="secret", user_id="u")
    memory.consolidate()
    memory.erase({"id": "secret"})
    other.erase({"id": "secret"})
    one, two = memory.consolidate().bands[0], other.consolidate().bands[0]
    assert one.feedbacks == two.feedbacks
    a, b = (m.scope(user_id="u").snapshot() for m in (memory, other))
    assert np.array_equal(a.needs.keys, b.needs.keys)
    assert np.array_equal(a.ranker.mean.shape, b.ranker.mean.shape)
    assert "secret" not in a.ids
    assert not memory.search("secret", user_id="u")[0].text.startswith("the secret")


def test_a_band_of_another_user_survives_an_erasure(memory):
    fill(memory, "u")
    fill(memory, "v", seed=3)
    memory.consolidate()
    learned = memory.scope(user_id="v").snapshot()
    memory.erase(user_id="u")
    assert [band.in_force for band in memory.scope(user_id="v").bands()] == [True]
    assert same(memory.scope(user_id="v").snapshot(), learned)


def test_an_export_brings_no_band(memory, open_memory, tmp_path):
    fill(memory)
    memory.consolidate()
    memory.export(tmp_path / "b.mem")
    assert open_memory("b.mem").bands() == []


def test_another_embedder_makes_bands_void_until_the_next_sleep(open_memory):
    memory = open_memory()
    fill(memory)
    memory.consolidate()
    memory.close()

    def other(texts):
        return np.concatenate([embed(texts), embed(texts)[:, ::-1]], axis=1)

    memory = open_memory(embedder=other)
    memory.rebuild()
    state = memory.scope(user_id="u").snapshot()
    assert state.words.mean.shape == (64,)
    assert memory.consolidate().bands == []  # no new feedback
    items = memory.list(user_id="u", limit=200).items
    tell(memory, items, count=1)
    assert memory.consolidate().bands[0].promoted


# levels


def test_levels_tell_what_each_has_done(memory):
    fill(memory)
    memory.consolidate()
    turn, session, sleep = memory.scope(user_id="u").levels()
    assert (turn.name, turn.updates, turn.dead) == ("turn", 40, False)
    assert turn.change > 0
    assert (session.name, session.updates, session.pending) == ("session", 0, 40)
    assert (sleep.updates, sleep.pending, sleep.dead) == (1, 0, False)
    assert sleep.change > 0
    assert sleep.gain is not None


# the gate


def test_the_gate_turns_away_what_loses_and_says_why():
    good, bad = [1.0] * 20, [0.5, 0.4] * 10
    even = Arms(good, good, good)
    assert gate.judge(even, even, even, sound=True, least=4).promoted
    cases = [
        ("probes: 0.450, what acts now 1.000", {"probes": Arms(bad, good, bad)}),
        ("the prior 1.000", {"probes": Arms(good, bad, bad)}),
        ("old probes", {"old": Arms(good, good, bad)}),
        ("canaries", {"canaries": Arms(good, good, bad)}),
        ("not finite", {"sound": False}),
        ("0 probes; 4 are needed", {"probes": Arms([], [], [])}),
    ]
    for reason, change in cases:
        verdict = gate.judge(**{"probes": even, "old": even, "canaries": even, "sound": True, "least": 4, **change})
        assert not verdict.promoted
        assert reason in "; ".join(verdict.reasons)


def test_a_band_that_is_turned_away_is_kept_with_its_reasons_and_does_not_act(memory, monkeypatch):
    fill(memory)
    before = memory.scope(user_id="u").snapshot()
    monkeypatch.setattr("memkit.slow.sleep.OUTERMOST", 0.0)
    (band,) = memory.consolidate().bands
    assert not band.promoted
    assert not band.in_force
    assert band.reasons == ["its numbers are not finite, or out of bounds"]
    assert band.bytes == 0
    assert same(memory.scope(user_id="u").snapshot(), before)


# solving


def test_solving_finds_what_many_small_steps_find(memory):
    """Newton's method against plain gradient descent on the same likelihood."""
    import torch

    fill(memory)
    told = [(f, w) for f, w in recall_band.weighed(memory._fast.families()["u", None])]
    batch = recall_band._batch(told)
    fit = recall_band.fitted(batch, 8.0)
    start = torch.from_numpy(ranker.start())

    def pull(point):
        share, sense = recall_band._explained(batch, point)
        even = batch.used.double() / batch.used.sum(1, keepdim=True)
        target, centre = (torch.einsum("mn,mnf->mf", s, batch.features) for s in (even, share))
        return sense @ (target - centre) - 8.0 * (point - start)

    point = start.clone()
    for _ in range(4000):
        point = point + 0.02 * pull(point)
    assert torch.allclose(point, fit.mean, atol=1e-3)
    assert torch.linalg.eigvalsh(fit.precision).min() > 0
