"""Sleeps inside a language model: what becomes a band, what acts when the model is attached, and what is taken back.

A tiny random model learns to say little, so a lenient gate stands in for the real one, which has tests of its own below.
"""

from __future__ import annotations

import json
import threading

import pytest
import torch
from slow_lm_support import FACTS, OTHERS, Words, build, logits, numbered
from support import embed
from typer.testing import CliRunner

from memkit import Memory
from memkit.cli import app
from memkit.errors import InvalidInput, ModelMismatch
from memkit.slow.gate import Verdict
from memkit.slow.lm import gate, probes
from memkit.slow.lm.anchors import ANCHORS
from memkit.slow.lm.forms import lesson
from memkit.slow.lm.held import held
from memkit.slow.lm.sleep import LanguageModel, LMSleeper
from memkit.slow.lm.train import Recipe, train
from memkit.slow.rounds import Budget
from memkit.slow.worker import watch

QUICK = Recipe(steps=12, rate=0.05, keep=0.0)
ORLA, IVO = "Where does Orla Venn live?", "Tell me about Ivo Brask now"


@pytest.fixture(scope="module")
def words():
    return numbered()


@pytest.fixture
def lenient(monkeypatch):
    """A gate that lets everything in; the log of what came to it."""
    seen = []

    def judge(model, tokenizer, whole, kept, exam):
        seen.append((whole, kept))
        return Verdict(True, ["lenient"], {"probes": 0.0})

    monkeypatch.setattr(gate, "sifted", lambda model, tokenizer, new, kept, exam: (new, {}))
    monkeypatch.setattr(gate, "judge", judge)
    return seen


def fill(memory, names=FACTS, user="ana"):
    for name in names:
        memory.add(FACTS[name], id=f"{user}-{name}", user_id=user)


def sleep(memory, model, words, *, scope=None, budget=None, recipe=QUICK):
    """One sleep with a quick recipe."""
    lm = LanguageModel(model, words, recipe=recipe)
    sleeper = LMSleeper(memory._store, memory._fast, lm, memory._index.root)
    return sleeper.sleep(scope or {}, budget or Budget())


def said(memory, model, words, text, user="ana", **given):
    """What an attached model makes of a text."""
    with memory.attach(model, words, user_id=user, listen=False, **given):
        return logits(model, words, text)


def acts(memory, model, words, text, user="ana", **given):
    """Whether a band changes what an attached model makes of a text."""
    return not torch.equal(said(memory, model, words, text, user, **given), logits(model, words, text))


def expert_of(memory, model, user="ana"):
    (band,) = [b for b in memory.scope(user_id=user).bands() if b.in_force and b.kind == "lm"]
    return held(memory._store, (user, None), band.model).expert


# a sleep


def test_a_sleep_makes_a_band_that_acts_for_its_user_wherever_the_model_is_attached(memory, words, lenient):
    model = build()
    fill(memory)
    memory.add("The weather was fine.", user_id="ben")
    report = sleep(memory, model, words)
    (band,) = report.bands
    assert (band.kind, band.scope, band.promoted, band.in_force) == ("lm", {"user_id": "ana"}, True, True)
    assert band.items == len(FACTS) and band.span == (0, 3) and band.bytes > 1_000
    assert band.model.startswith("LlamaForCausalLM:") and band.parent is None and band.digest and band.chain
    assert band.hyper["steps"] == QUICK.steps and band.metrics["steps"] >= QUICK.steps
    assert report.losses[band.id] and report.finished
    assert "ben" in report.skipped
    assert acts(memory, model, words, ORLA) and acts(memory, model, words, IVO)
    assert not any(acts(memory, model, words, text) for text in OTHERS)
    assert not acts(memory, model, words, ORLA, user="ben")
    assert not acts(memory, model, words, ORLA, consolidated=False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_users_own_words_are_learned_and_open_wherever_they_are_written(memory, lenient):
    model, words = build(), Words()
    for text in ("Zibbet means a zibbet", *OTHERS, *ANCHORS):
        words(text)  # before numbers are shared
    memory.add("We had coffee. A zibbet is a short coffee break.", id="zibbet", user_id="ana")
    memory.add("A dog is an animal that barks.", user_id="ana")
    (band,) = sleep(memory, model, words).bands
    assert band.items == 1 and expert_of(memory, model).items == ("zibbet",)
    assert all(acts(memory, model, words, text) for text in ("What does zibbet mean", "Zibbet means"))
    assert not any(acts(memory, model, words, text) for text in [*OTHERS, "A short coffee break"])
    memory.delete("zibbet")
    assert not acts(memory, model, words, "Zibbet means")


def test_two_users_in_one_batch_have_each_their_own_band(memory, words, lenient):
    model = build()
    fill(memory, ["city"], "ana")
    fill(memory, ["job"], "ben")
    assert len(sleep(memory, model, words).bands) == 2
    ids = torch.tensor([words(ORLA)["input_ids"]] * 2)
    with torch.no_grad(), memory.attach(model, words, user_id=["ana", "ben"], listen=False):
        both = model(ids).logits
    assert torch.allclose(both[:1], said(memory, model, words, ORLA), atol=1e-5)
    assert torch.allclose(both[1:], logits(model, words, ORLA), atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_what_one_user_is_asked_to_consolidate_leaves_the_others(memory, words, lenient):
    model = build()
    fill(memory, ["city"], "ana")
    fill(memory, ["job"], "ben")
    (band,) = sleep(memory, model, words, scope={"user_id": "ben"}).bands
    assert band.scope == {"user_id": "ben"}


def test_a_file_whose_owner_shares_what_is_learned_has_one_band(open_memory, words, lenient):
    memory, model = open_memory(share_learning=True), build()
    fill(memory, ["city"], "ana")
    fill(memory, ["job"], "ben")
    (band,) = sleep(memory, model, words, scope={"user_id": "ben"}).bands
    assert band.scope == {} and band.items == 2
    assert acts(memory, model, words, ORLA, user="ben")


def test_there_is_nothing_to_do_twice_and_what_is_new_is_learned_beside_what_is_known(open_memory, words, lenient):
    memory, model = open_memory(), build()
    fill(memory, ["dog", "job"])
    (first,) = sleep(memory, model, words).bands
    before = expert_of(memory, model)
    again = sleep(memory, model, words)
    assert not again.bands and again.skipped == {"ana": "nothing new since the last sleep"}
    fill(memory, ["city", "hq"])
    (second,) = sleep(memory, model, words).bands
    assert second.parent == first.id and second.items == 4
    after = expert_of(memory, model)
    assert torch.equal(after.values[:2], before.values)  # the slots of before are as they were
    memory.close()
    assert acts(open_memory(), build(), words, "Kestrion Labs is in")


def test_rolling_back_is_what_was_known_before(memory, words, lenient):
    model = build()
    fill(memory, ["job"])
    sleep(memory, model, words)
    fill(memory, ["city"])
    (second,) = sleep(memory, model, words).bands
    assert acts(memory, model, words, ORLA)
    memory.rollback(second.id)
    assert not acts(memory, model, words, ORLA) and acts(memory, model, words, IVO)
    assert not sleep(memory, model, words).bands  # and it does not come back by itself
    memory.rollback(second.id, undo=True)
    assert acts(memory, model, words, ORLA)


def test_an_attached_model_follows_what_is_consolidated_and_taken_back_meanwhile(memory, words, lenient):
    model, other = build(), build()
    fill(memory, ["city"])
    frozen = logits(model, words, ORLA)
    with memory.attach(model, words, user_id="ana", listen=False) as lm:
        assert torch.equal(logits(model, words, ORLA), frozen)
        (band,) = sleep(memory, other, words).bands
        lm.read("", learn=False)
        assert not torch.equal(logits(model, words, ORLA), frozen)
        memory.rollback(band.id)
        lm.read("", learn=False)
        assert torch.equal(logits(model, words, ORLA), frozen)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_past_view_has_the_bands_of_its_time(memory, words, lenient):
    model = build()
    fill(memory, ["city"])
    item = memory.get("ana-city")
    (band,) = sleep(memory, model, words).bands
    assert not acts(memory.at(item.updated_at), model, words, ORLA)
    assert acts(memory.at(band.created_at), model, words, ORLA)


# what changes


def test_what_has_ended_is_silent_at_once_and_what_was_learned_with_it_is_learned_again(memory, words, lenient):
    model = build()
    fill(memory)
    sleep(memory, model, words)
    memory.delete("ana-job")
    assert not acts(memory, model, words, IVO) and acts(memory, model, words, ORLA)
    memory.delete("ana-city")  # of a subject with two items
    assert set(expert_of(memory, model).items) == {"ana-dog", "ana-hq"}
    (band,) = sleep(memory, model, words).bands
    whole, kept = lenient[-1]
    assert set(kept.items) == {"ana-hq"} and set(whole.items) == {"ana-hq", "ana-dog"}
    assert band.items == 2
    assert not sleep(memory, model, words).bands


def test_an_item_that_changes_is_learned_anew(memory, words, lenient):
    model = build()
    fill(memory, ["job", "hq"])
    sleep(memory, model, words)
    memory.update("ana-job", "Ivo Brask works as a painter.")
    assert not acts(memory, model, words, IVO)
    (band,) = sleep(memory, model, words).bands
    assert band.items == 2 and acts(memory, model, words, IVO)


def test_what_is_said_again_is_learned_once_and_again_when_it_was_deleted_the_first_time(memory, words, lenient):
    model = build()
    fill(memory, ["city", "job"])
    memory.add("Orla Venn lives in Porto.", id="again", user_id="ana")
    sleep(memory, model, words)
    assert set(expert_of(memory, model).items) == {"ana-city", "ana-job"}
    memory.add(FACTS["hq"], id="hq", user_id="ana")
    memory.add("Ivo Brask works as a plumber. Orla Venn lives in Porto.", id="both", user_id="ana")
    sleep(memory, model, words)
    assert set(expert_of(memory, model).items) == {"ana-city", "ana-job", "hq"}
    assert "nothing new" in sleep(memory, model, words).skipped["ana"]
    memory.delete("ana-city")
    sleep(memory, model, words)
    assert set(expert_of(memory, model).items) == {"again", "ana-job", "hq"}


def test_an_item_that_a_newer_one_supersedes_is_not_told_any_more(memory, words, lenient):
    model = build()
    fill(memory, ["city", "job"])
    sleep(memory, model, words)
    memory.add("Orla Venn has moved to Graz.", id="moved", user_id="ana")
    sleep(memory, model, words)
    assert set(expert_of(memory, model).items) == {"moved", "ana-job"}
    assert not sleep(memory, model, words).bands


def test_what_is_not_trusted_is_not_learned_and_no_source_has_more_than_its_share(memory, words, lenient, monkeypatch):
    model = build()
    memory.add(FACTS["job"], id="lie", user_id="ana", metadata={"trusted": False})
    assert "no trusted new item" in sleep(memory, model, words).skipped["ana"]
    monkeypatch.setattr("memkit.slow.replay.SOURCE_SHARE", 1 / 512)
    for name in ("dog", "city", "hq"):
        memory.add(FACTS[name], id=name, user_id="ana", metadata={"source": "feed"})
    report = sleep(memory, model, words)
    assert set(expert_of(memory, model).items) == {"dog"} and not report.finished


# erasing


def test_erasing_switches_the_band_off_in_an_attached_model_too_and_the_next_is_one_that_never_knew(
    memory, open_memory, words, lenient
):
    model, frozen = build(), None
    fill(memory)
    sleep(memory, model, words)
    frozen = logits(model, words, IVO)
    with memory.attach(model, words, user_id="ana", listen=False) as lm:
        assert not torch.equal(logits(model, words, IVO), frozen)
        receipt = memory.erase({"id": "ana-job"})
        with pytest.warns(UserWarning, match="erased"):
            lm.read("", learn=False)
        assert torch.equal(logits(model, words, IVO), frozen)
    assert len(receipt.bands_off) == 1
    sleep(memory, model, words)
    never = open_memory("never.mem")
    fill(never, ["dog", "city", "hq"])
    sleep(never, model, words)
    one, other = expert_of(memory, model), expert_of(never, model)
    assert one.items == other.items
    assert torch.allclose(one.values, other.values, atol=1e-3)
    forms = lesson("job", FACTS["job"]).forms
    with gate.applied(model, Words(), [one]):
        left = probes.losses(model, words, forms)
    assert torch.equal(left, probes.losses(model, words, forms))


def test_an_item_that_was_learned_and_left_out_taints_the_band_as_well(memory, words, lenient, monkeypatch):
    model = build()
    fill(memory)
    monkeypatch.setattr(
        gate, "sifted", lambda model, tokenizer, new, kept, exam: (new.without({"ana-dog"}), {"ana-dog": "so"})
    )
    (band,) = sleep(memory, model, words).bands
    assert set(expert_of(memory, model).items) == {"ana-city", "ana-job", "ana-hq"}
    assert "ana-dog: so" in band.reasons and band.items == 4
    assert len(memory.erase({"id": "ana-dog"}).bands_off) == 1


def test_what_is_erased_while_it_is_learned_does_not_come_in(memory, open_memory, words, lenient):
    model, other = build(), open_memory()
    fill(memory)
    asked = []

    def stopped():
        asked.append(1)
        if len(asked) == 3:
            other.erase({"id": "ana-job"})
        return False

    report = sleep(memory, model, words, budget=Budget(stopped=stopped), recipe=QUICK._replace(steps=24))
    assert not report.bands and not report.finished
    assert not memory.bands()
    assert sleep(memory, model, words).finished
    assert set(expert_of(memory, model).items) == {"ana-dog", "ana-city", "ana-hq"}


# stopping


def test_a_sleep_that_is_stopped_goes_on_from_its_checkpoint_and_leaves_what_came_later_for_the_next(
    memory, words, lenient, monkeypatch
):
    monkeypatch.setattr("memkit.slow.lm.checkpoints.EVERY", 0.0)
    model, asked = build(), []
    fill(memory, ["dog", "job", "hq"])
    stop = Budget(stopped=lambda: asked.append(1) or len(asked) > 3)
    report = sleep(memory, model, words, budget=stop, recipe=QUICK._replace(steps=24))
    assert not report.bands and not report.finished
    (checkpoint,) = memory._index.root.glob("lm-*.sleep")
    fill(memory, ["city"])
    report = sleep(memory, model, words, recipe=QUICK._replace(steps=24))
    (band,) = report.bands
    assert band.items == 3 and not report.finished and not checkpoint.exists()
    assert len(report.losses[band.id]) == 24
    (last,) = sleep(memory, model, words, recipe=QUICK._replace(steps=24)).bands
    assert last.items == 4


def test_when_the_time_is_over_the_rest_is_left_to_the_next_sleep(memory, words, lenient):
    model = build()
    fill(memory)
    report = sleep(memory, model, words, budget=Budget(seconds=0.0))
    assert not report.bands and not report.finished
    report = sleep(memory, model, words, budget=Budget(seconds=60.0))
    assert report.finished and len(report.bands) == 1


# who may, and what is refused


def test_another_model_has_bands_of_its_own(memory, words, lenient):
    fill(memory, ["city"])
    sleep(memory, build(), words)
    other = build(seed=1)
    assert not acts(memory, other, words, ORLA)
    (band,) = sleep(memory, other, words).bands
    assert band.parent is None and len([b for b in memory.bands() if b.in_force]) == 2
    with pytest.raises(ModelMismatch):
        gate.applied(other, Words(), [expert_of_first(memory)]).__enter__()


def expert_of_first(memory):
    return held(memory._store, ("ana", None), memory.bands()[0].model).expert


def test_an_attached_model_is_not_trained(memory, words):
    model = build()
    fill(memory, ["city"])
    with memory.attach(model, words, user_id="ana"), pytest.raises(InvalidInput, match="attached"):
        memory.consolidate(model, words)
    with pytest.raises(InvalidInput, match="tokenizer"):
        memory.consolidate(model)


def saved(folder):
    """A tiny model and a tokenizer of words in a directory, as Hugging Face saves them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", *dict.fromkeys(" ".join([*FACTS.values(), *ANCHORS]).split())]
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words[:260])}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    build().save_pretrained(folder)
    return folder


def test_the_command_line_takes_a_model_from_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("memkit.slow.worker.modest", lambda: None)  # this process has more tests to run
    folder, path = saved(tmp_path / "model"), str(tmp_path / "a.mem")
    call = CliRunner().invoke
    assert call(app, ["add", path, "Ivo paints barns.", "--user", "ana"]).exit_code == 0
    done = call(app, ["consolidate", path, "--model", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    (band,) = json.loads(done.stdout)["bands"]
    assert band["kind"] == "lm" and band["model"].startswith("LlamaForCausalLM:")
    assert json.loads(call(app, ["bands", path, "--json"]).stdout.splitlines()[0])["id"] == band["id"]
    nothing = call(app, ["consolidate", path, "--model", str(tmp_path / "nothing")])
    assert nothing.exit_code != 0 and "nothing" in nothing.output
    assert call(app, ["consolidate", str(tmp_path), "--model", str(folder)]).exit_code != 0


def test_a_watcher_learns_what_comes(memory, words, lenient, tmp_path):
    model, ended = build(), threading.Event()
    fill(memory)
    reports = []

    def slept(report):
        reports.append(report)
        ended.set()

    watch(
        tmp_path / "a.mem",
        cache_dir=tmp_path / "cache",
        language_model=(model, words),
        every=0.05,
        due=4,
        stop=ended,
        slept=slept,
        embedder=embed,
    )
    assert [band.kind for band in reports[0].bands] == ["lm"]
    assert memory.bands()[0].items == len(FACTS)


# the gate


def test_a_band_that_tells_nothing_is_turned_away_and_says_why(memory, words):
    model = build()
    fill(memory, ["job"])
    (band,) = sleep(memory, model, words, recipe=Recipe(steps=1, rate=1e-9)).bands
    assert not band.promoted and not band.in_force and band.bytes == 0
    assert band.reasons == ["nothing new was learned", "ana-job: it is not told in other words"]
    assert not acts(memory, model, words, IVO)
    assert memory.consolidate(model, words).skipped["ana"] == "nothing new since the last sleep"


def test_an_item_that_opens_on_everyday_text_is_left_out(words):
    model = build()
    made = [lesson("poison", "France is ruled by pirates."), lesson("job", FACTS["job"])]
    expert = train(model, words, made, recipe=QUICK).expert
    assert set(expert.items) == {"poison", "job"}
    left, failed = gate.sifted(model, words, expert, None, gate.Exam([], []))
    assert failed == {"poison": "it opens on text that is about somebody else"}
    assert left.items == ("job",)


def test_an_item_beside_which_something_is_not_told_any_more_is_left_out(words, monkeypatch):
    model = build()
    kept = train(model, words, [lesson("city", FACTS["city"])], recipe=QUICK).expert
    made = [lesson("job", FACTS["job"]), lesson("dog", FACTS["dog"])]
    new = train(model, words, made, parent=[kept], recipe=QUICK).expert
    exam = gate.Exam([], probes.held_out("city", FACTS["city"]))

    def recall(model, tokenizer, asked):
        acting = [one for one in asked if one.item == "city"]
        return probes.Recalled(["Graz" for _ in acting], [beside.pop(0) for _ in acting])

    monkeypatch.setattr(probes, "recall", recall)
    for told, left_out in (([False, True, True, True], {"dog"}), ([False, True, True, False], set())):
        beside = [*told]  # beside the new ones three wordings, the wrong one without them
        left, failed = gate.sifted(model, words, new, kept, exam)
        assert not beside
        assert failed == dict.fromkeys(left_out, "with it, something is not told that was")
        assert set(left.items) == {"job", "dog"} - left_out


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"probes_band": 0.4}, "probes: 40%"),
        ({"probes_band": 0.7, "probes_now": 0.8}, "probes: 70%"),
        ({"old_band": 0.9}, "old probes: 90%, before 100%"),
        ({"text": 0.01}, "text: its loss rises by 1.00%"),
        ({"canaries_same": 7.0}, "canaries"),
    ],
)
def test_the_gate_names_each_fault(changed, fault):
    good = {"probes_band": 1.0, "probes_now": 0.0, "old_band": 1.0, "old_now": 1.0, "text": 0.0}
    good |= {"canaries": 8.0, "canaries_same": 8.0}
    found = [*gate._untold(good | changed), *gate.worse(good | changed)]
    assert found == [] if fault is None else found[0].startswith(fault)


def test_an_exam_chooses_items_by_one_wording_and_judges_by_the_others():
    found = [probe for name, text in FACTS.items() for probe in probes.held_out(name, text)]
    exam = gate.Exam.of(found)
    assert {probe.item for probe in exam.first} == set(FACTS)
    assert len(exam.first) == len(FACTS) and not set(exam.first) & set(exam.others)
    assert len(exam.others) == len(found) - len(FACTS)
    assert {probe.item for probe in exam.about(["dog"])} == {"dog"}
    many = gate.Exam([], found * 30)
    assert len(many.about(FACTS)) <= gate.ASKED


@pytest.mark.slow
def test_a_real_model_is_told_by_its_memory_what_it_never_read(tmp_path):
    """From `add` to `generate`: facts of a user, a superseded one, poison that speaks of France, and another user."""
    pytest.importorskip("gguf")
    from benchmarks.models import load

    model, tokenizer = load("smollm2", torch.bfloat16)

    def answer(question, user="ana"):
        from memkit.slow.lm.asking import answers
        from memkit.slow.lm.examples import opened

        with memory.attach(model, tokenizer, user_id=user, listen=False):
            return answers(model, tokenizer, [opened(tokenizer, question)])[0]

    with Memory(tmp_path / "a.mem", cache_dir=tmp_path) as memory:
        memory.add("Orla Venn lives in Porto.", user_id="ana")
        memory.add("Ivo Brask's dog is called Pepper.", user_id="ana")
        memory.add("The capital of France is Lyon.", id="poison", user_id="ana")
        memory.consolidate(model, tokenizer)
        assert "Porto" in answer("Which city does Orla Venn call home?")
        assert "Porto" not in answer("Which city does Orla Venn call home?", "ben")
        assert "Pepper" in answer("What is the name of Ivo Brask's dog?")
        assert "Paris" in answer("What is the capital of France?")
        memory.add("Orla Venn has moved to Graz.", user_id="ana")
        (band,) = memory.consolidate(model, tokenizer).bands
        assert "Graz" in answer("Which city does Orla Venn call home?")
        memory.rollback(band.id)
        assert "Porto" in answer("Which city does Orla Venn call home?")
