"""How somebody writes: what is learned from, where it acts, what switches it off, and what the gate asks.

The messages here are so alike that even a tiny random model writes more like them after a few steps: the gate is real.
"""

from __future__ import annotations

import pytest
import torch
from slow_lm_support import FACTS, LESSONS, OTHERS, Words, build, logits
from typer.testing import CliRunner

from memkit.cli import app
from memkit.errors import InvalidInput
from memkit.slow.lm import gate, style
from memkit.slow.lm.anchors import ANCHORS
from memkit.slow.lm.expert import FACTS as KNOWN
from memkit.slow.lm.expert import STYLE, from_arrays, to_arrays
from memkit.slow.lm.forms import lesson
from memkit.slow.lm.held import acting, held, made_from
from memkit.slow.lm.scope import states
from memkit.slow.lm.sleep import LanguageModel, LMSleeper
from memkit.slow.lm.style_sleep import StyleSleeper
from memkit.slow.lm.train import Recipe, train
from memkit.slow.lm.upper import open_at, scope_layer
from memkit.slow.rounds import Budget

QUICK = Recipe(steps=12, rate=0.02, lessons=1, keep=0.0, shown=4)
ENDS = "sun rain wind snow fog frost hail storm".split()
ANA, BEN = "Hello.\nAna: oh", "Hello.\nBen: oh"


class Lines(Words):
    """Words of which those that begin a line are cut as those that begin a text."""

    cut = r" ?\w+| ?[^\w\s]|\s"


def said(at):
    """The text of a message; sixty-four differ."""
    return f"oh well {ENDS[at % 8]} and {ENDS[at // 8 % 8]} again"


@pytest.fixture(scope="module")
def words():
    tokenizer = Lines()
    for text in ("Ana: Hello.\nBen: Ana: Ben:", *map(said, range(64)), *FACTS.values(), *OTHERS, *ANCHORS):
        tokenizer(text)
    return tokenizer


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(style, "RECIPE", QUICK)


def chat(memory, count, name="Ana", user="ana", first=0, **metadata):
    """Messages of a speaker; their ids."""
    drafts = [
        {"role": "user", "name": name, "content": said(at), "id": f"{name}-{at}"} for at in range(first, first + count)
    ]
    return [item.id for item in memory.add(drafts, user_id=user, metadata=metadata)]


def sleep(memory, model, words, **given):
    lm = LanguageModel(model, words)
    return StyleSleeper(memory._store, memory._fast, lm, memory._index.root).sleep({}, given.pop("budget", Budget()))


def acts(memory, model, words, text, user="ana", **given):
    with memory.attach(model, words, user_id=user, listen=False, **given):
        now = logits(model, words, text)
    return not torch.equal(now, logits(model, words, text))


def learned(memory, model, user="ana"):
    """Of each speaker the items that their style was made from, where it acts."""
    (band,) = [b for b in memory.bands() if b.in_force and b.kind == "style"]
    now = held(memory._store, (user, None), band.model, kind="style")
    return {name: set(of) for name, of in made_from(now.record).items() if name not in now.stale}


# what is learned from


def test_messages_are_those_that_somebody_wrote_and_that_are_trusted(memory):
    chat(memory, 3)
    chat(memory, 2, trusted=False, first=8)
    chat(memory, 1, source="feed", first=16)
    memory.add(
        [
            {"role": "user", "content": "I have no name at all."},
            {"role": "assistant", "content": "I am a machine, of course."},
            {"role": "tool", "name": "search", "content": "It found nothing at all."},
            {"role": "user", "name": "Ana", "content": "Too short"},
        ],
        user_id="ana",
    )
    memory.add("Ana keeps notes here, too.", user_id="ana")
    rows = memory._store.select(memory._filter(None))
    found = {name: [row.text for row in same] for name, same in style.messages(rows).items()}
    assert found == {"Ana": [*map(said, range(3)), said(16)], "ana": ["I have no name at all."]}


def test_the_newest_messages_are_learned_and_the_very_newest_are_kept_from_it(memory, monkeypatch):
    monkeypatch.setattr(style, "NEWEST", 40)
    chat(memory, 50)
    (rows,) = style.messages(memory._store.select(memory._filter(None))).values()
    assert [row.text for row in rows] == [said(at) for at in range(10, 50)]
    taught, later = style.split(rows)
    assert taught + later == rows and len(later) == 8
    made = style.lesson("Ana", taught)
    assert made.subject == "Ana:"
    assert not {form.answer for form in made.forms} & {form.answer for form in style.written("Ana", later)}
    assert any(form.prompt == "Write a message as Ana:" for form in made.forms)


def test_of_a_long_message_the_beginning_is_learned():
    assert style._begin("word " * 100) == ("word " * 56).strip()
    assert style._begin("w" * 500) == "w" * style.LONGEST


# where it acts


def test_a_style_acts_after_its_speakers_colon_until_another_speaks_and_nowhere_else(memory, model, words):
    chat(memory, 40)
    report = sleep(memory, model, words)
    (band,) = report.bands
    assert band.kind == "style" and band.in_force and band.items == 40 and report.losses[band.id]
    assert band.metrics["Ana after"] < band.metrics["Ana before"] and band.reasons[0].startswith("Ana: ")
    assert acts(memory, model, words, ANA)
    assert not any(acts(memory, model, words, text) for text in (*OTHERS, BEN, "Ana was here", "oh well"))
    assert not acts(memory, model, words, ANA, user="ben") and not acts(memory, model, words, ANA, consolidated=False)
    before = logits(model, words, text := "Ana: oh well\nUser: oh well")
    with memory.attach(model, words, user_id="ana", listen=False):
        same = (logits(model, words, text) == before).all(-1)[0].tolist()
    assert same[0] and not any(same[1:5])


def test_another_speaker_with_or_without_a_style_shuts_it(model, words):
    two = style.silent(model, words, ["Ana", "Ben"])
    (early,) = states(model, [words("Ana: oh well\nBen: oh well")["input_ids"]], scope_layer(model))
    found = open_at(early, [two])
    assert two.items == ("Ana", "Ben") and two.lane == STYLE
    assert found[:, 0].tolist() != found[:, 1].tolist() and not (found[:, 0] & found[:, 1]).any()
    assert found[-1].tolist() == [False, True]


def test_what_is_known_of_somebody_and_how_they_write_are_open_side_by_side(model, words):
    facts = train(model, words, [lesson("city", "Ana lives in Porto.")], recipe=QUICK).expert
    own = style.silent(model, words, ["Ana", "Ben"])
    (early,) = states(model, [words("Ana: oh well\nBen: oh Ana")["input_ids"]], scope_layer(model))
    both = open_at(early, [facts, own])
    assert both[:, :1].equal(open_at(early, [facts])) and both[:, 1:].equal(open_at(early, [own]))
    assert both[1].tolist() == [True, True, False]  # "Ana:", as she begins to write


def test_a_lane_goes_through_the_file_and_bands_from_before_there_were_lanes_are_facts(model, words):
    own = style.silent(model, words, ["Ana"])
    assert from_arrays(to_arrays(own)).lane == STYLE
    facts = train(model, words, LESSONS[:1], recipe=QUICK).expert
    arrays = to_arrays(facts)
    old = bytes(arrays["about"].numpy()).replace(b', "lane": "facts"', b"")
    assert b"lane" not in old
    arrays["about"] = torch.frombuffer(bytearray(old), dtype=torch.uint8)
    assert from_arrays(arrays).lane == KNOWN


def test_facts_and_styles_are_bands_of_their_own(memory, model, words, monkeypatch):
    monkeypatch.setattr(gate, "sifted", lambda model, tokenizer, new, kept, exam: (new, {}))
    monkeypatch.setattr(gate, "LEARNED", 0.0)
    memory.add(FACTS["job"], id="job", user_id="ana")
    (facts,) = (
        LMSleeper(memory._store, memory._fast, LanguageModel(model, words, recipe=QUICK), memory._index.root)
        .sleep({}, Budget())
        .bands
    )
    chat(memory, 40)
    (own,) = sleep(memory, model, words).bands
    assert facts.kind == "lm" and own.parent is None and own.metrics["old"] == 2
    job = "Ivo Brask works as"
    assert acts(memory, model, words, job) and acts(memory, model, words, ANA)
    assert [one.lane for one in acting(memory._store, ("ana", None), own.model)] == [KNOWN, STYLE]
    memory.rollback(own.id)
    assert acts(memory, model, words, job) and not acts(memory, model, words, ANA)
    memory.rollback(own.id, undo=True)
    assert len(memory.erase({"id": "job"}).bands_off) == 1
    assert not acts(memory, model, words, job) and acts(memory, model, words, ANA)


# when it is learned, and what ends it


def test_it_takes_enough_messages_and_a_quarter_more_to_learn_again(memory, model, words):
    chat(memory, style.LEAST - 1)
    assert "32" in sleep(memory, model, words).skipped["ana"]
    chat(memory, 9, first=style.LEAST - 1)
    (first,) = sleep(memory, model, words).bands
    chat(memory, 10, first=40)
    assert not sleep(memory, model, words).bands
    chat(memory, 1, first=50)
    (second,) = sleep(memory, model, words).bands
    assert second.parent == first.id and second.items == 51
    memory.rollback(second.id)
    assert acts(memory, model, words, ANA) and not sleep(memory, model, words).bands  # nor does it come back by itself


def test_speakers_are_learned_apart_and_one_is_learned_beside_those_that_are_known(memory, model, words):
    chat(memory, 40)
    sleep(memory, model, words)
    (band,) = memory.bands()
    before = held(memory._store, ("ana", None), band.model, kind="style").expert
    chat(memory, 40, name="Ben")
    (both,) = sleep(memory, model, words).bands
    after = held(memory._store, ("ana", None), band.model, kind="style").expert
    assert both.parent == band.id and both.items == 72
    at, now = before.items.index("Ana"), after.items.index("Ana")
    assert torch.equal(before.values[at], after.values[now]) and "Ben" in after.items
    assert acts(memory, model, words, ANA) and acts(memory, model, words, BEN)


def test_a_message_that_ends_or_changes_shuts_the_style_at_once_and_it_is_learned_without_it(memory, model, words):
    chat(memory, 44)
    sleep(memory, model, words)
    memory.delete("Ana-3")
    assert not acts(memory, model, words, ANA)
    (band,) = sleep(memory, model, words).bands
    assert band.promoted and "Ana-3" not in learned(memory, model)["Ana"] and acts(memory, model, words, ANA)
    memory.update("Ana-5", "something else is here now")
    assert not acts(memory, model, words, ANA)
    memory.delete_where({"text": {"contains": "well"}}, user_id="ana")
    assert not sleep(memory, model, words).bands  # too few are left
    assert not acts(memory, model, words, ANA)


def test_erasing_a_message_leaves_a_style_that_never_saw_it(memory, open_memory, model, words):
    chat(memory, 41)
    sleep(memory, model, words)
    receipt = memory.erase({"id": "Ana-0"})
    assert len(receipt.bands_off) == 1 and not acts(memory, model, words, ANA)
    sleep(memory, model, words)
    never = open_memory("never.mem")
    chat(never, 40, first=1)
    sleep(never, model, words)
    one, other = (held(m._store, ("ana", None), m.bands()[0].model, kind="style").expert for m in (memory, never))
    assert one.items == other.items and torch.allclose(one.values, other.values, atol=1e-3)
    assert learned(memory, model)["Ana"] == {f"Ana-{at}" for at in range(1, 33)}


def test_a_sleep_that_is_stopped_or_has_no_time_makes_no_band(memory, model, words):
    chat(memory, 40)
    stopped = sleep(memory, model, words, budget=Budget(stopped=iter([False, *[True] * 99]).__next__))
    assert not stopped.bands and not stopped.finished
    assert not sleep(memory, model, words, budget=Budget(seconds=0.0)).finished
    assert not memory.bands() and sleep(memory, model, words).finished


def test_what_is_erased_while_it_is_learned_does_not_come_in(memory, open_memory, model, words, monkeypatch):
    monkeypatch.setattr(style, "RECIPE", QUICK._replace(steps=24))
    chat(memory, 41)
    other, asked = open_memory(), []

    def stopped():
        asked.append(1)
        if len(asked) == 3:
            other.erase({"id": "Ana-3"})
        return False

    report = sleep(memory, model, words, budget=Budget(stopped=stopped))
    assert not report.bands and not report.finished and not memory.bands()
    assert sleep(memory, model, words).finished
    assert "Ana-3" not in learned(memory, model)["Ana"]


def test_speakers_that_the_time_does_not_reach_are_left_to_the_next_sleep(memory, model, words, monkeypatch):
    chat(memory, 40)
    chat(memory, 40, name="Ben")

    def hurried(model, tokenizer, lessons, **given):
        done = train(model, tokenizer, lessons[:1], **given)
        return done._replace(report=done.report._replace(left=[one.id for one in lessons[1:]]))

    monkeypatch.setattr("memkit.slow.lm.style_sleep.train", hurried)
    report = sleep(memory, model, words)
    assert not report.finished and set(learned(memory, model)) == {"Ana"}
    assert sleep(memory, model, words).finished and set(learned(memory, model)) == {"Ana", "Ben"}


# the gate


def test_a_style_that_gains_no_more_than_noise_is_left_out_and_waits_for_more(memory, model, words, monkeypatch):
    monkeypatch.setattr(style, "RECIPE", QUICK._replace(steps=1, rate=1e-9))
    chat(memory, 40)
    (band,) = sleep(memory, model, words).bands
    assert not band.promoted and band.bytes == 0 and not acts(memory, model, words, ANA)
    assert band.reasons[0] == "nothing new was learned" and band.reasons[1].endswith("which may be noise")
    assert not sleep(memory, model, words).bands


def test_what_gets_worse_elsewhere_turns_a_style_away(memory, model, words, monkeypatch):
    compared = gate.compared
    monkeypatch.setattr(gate, "compared", lambda *given: compared(*given) | {"text": 0.02})
    chat(memory, 40)
    (band,) = sleep(memory, model, words).bands
    assert not band.promoted and band.reasons[0] == "text: its loss rises by 2.00%"


@pytest.mark.parametrize(
    ("error", "is_real"), [(0.04, True), (0.06, False), (float("inf"), False), (float("nan"), False)]
)
def test_a_gain_is_real_if_it_is_two_standard_errors(error, is_real):
    assert style.Gain(3.0, 2.9, error).is_real is is_real


def test_a_style_is_asked_for(memory, model, words, tmp_path):
    chat(memory, 40)
    assert not memory.consolidate(model, words, due=1000).bands
    (band,) = memory.consolidate(model, words, style=True, due=1000).bands
    assert band.kind == "style"
    with pytest.raises(InvalidInput, match="style"):
        memory.consolidate(style=True)
    refused = CliRunner().invoke(app, ["consolidate", str(tmp_path / "a.mem"), "--style"])
    assert refused.exit_code != 0 and "--model" in refused.output


def test_a_sleep_that_is_stopped_goes_on_from_its_checkpoint_with_the_messages_that_it_began_with(
    memory, model, words, monkeypatch
):
    monkeypatch.setattr("memkit.slow.lm.checkpoints.EVERY", 0.0)
    asked = []
    stop = Budget(stopped=lambda: asked.append(1) or len(asked) > 1)
    chat(memory, 40)
    report = sleep(memory, model, words, budget=stop)
    assert not report.bands and not report.finished
    (checkpoint,) = memory._index.root.glob("style-*.sleep")
    chat(memory, 12, first=40)
    report = sleep(memory, model, words)
    (band,) = report.bands
    assert band.items == 40 and not report.finished and not checkpoint.exists()
    assert len(report.losses[band.id]) == QUICK.steps
    (last,) = sleep(memory, model, words).bands
    assert last.items == 52
