"""Slots inside a language model: what opens them, what they leave alone, and how they are learned and taken out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_support import KINDS
from slow_lm_support import FACTS, LESSONS, OTHERS, build, logits, numbered

from memkit.errors import InvalidInput, ModelMismatch
from memkit.slow.lm import probes
from memkit.slow.lm.asking import answers, writer
from memkit.slow.lm.doors import gate, opening
from memkit.slow.lm.examples import plain
from memkit.slow.lm.expert import SETS, from_arrays, to_arrays
from memkit.slow.lm.forms import in_sight, lesson
from memkit.slow.lm.slots import Slots, applied
from memkit.slow.lm.train import Recipe, grouped, train

QUICK = Recipe(steps=24, rate=0.05, keep=0.5)
THINGS = (
    "dog cat bike boat tent lamp kite goat oven harp sofa bench clock globe drone canoe pony camera kettle loom".split()
)


@pytest.fixture(scope="module")
def words():
    return numbered()


def fell(curve):
    """Whether a loss went down by a quarter or more."""
    return np.mean(curve[-8:]) < 0.85 * curve[0]


@pytest.fixture(scope="module")
def taught(words):
    """A llama, and a band of all facts."""
    model = build()
    return model, train(model, words, LESSONS, recipe=QUICK)


@pytest.mark.parametrize("kind", KINDS)
def test_lessons_are_learned_and_what_names_no_subject_is_bit_for_bit_as_it_was(words, kind):
    model = build(kind)
    before = {text: logits(model, words, text) for text in [*OTHERS, *FACTS.values()]}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    expert, report = train(model, words, LESSONS, recipe=QUICK)
    assert not report.shut and not report.left
    assert set(expert.items) == set(FACTS)
    assert all(map(fell, report.losses))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(logits(model, words, text), old) for text, old in before.items())
    with applied(model, words, [expert]):
        assert all(torch.equal(logits(model, words, text), before[text]) for text in OTHERS)
        assert not any(torch.equal(logits(model, words, text), before[text]) for text in FACTS.values())
        forms = [form for one in LESSONS for form in one.forms]
        assert probes.losses(model, words, forms).mean() < 0.8 * report.losses[0][0]
    assert all(torch.equal(logits(model, words, text), old) for text, old in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_nothing_before_the_subject_changes_and_everything_after_it_does(words, taught):
    model, (expert, _) = taught
    text = "Yesterday we spoke about Orla Venn and the weather"
    before = logits(model, words, text)
    with applied(model, words, [expert]):
        after = logits(model, words, text)
    same = (before == after).all(-1)[0]
    assert same.tolist() == [True] * 5 + [False] * (same.numel() - 5)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_a_cache_and_padding_on_the_left_is_what_one_pass_says(words, kind):
    model = build(kind)
    expert = train(model, words, LESSONS, recipe=QUICK).expert
    prompts = [plain(words, text) for text in ("Where does Orla Venn", "Once more , where does the plumber Ivo Brask")]
    shut = logits(model, words, "Where does Orla Venn")
    with applied(model, words, [expert]):
        together = answers(model, words, prompts, longest=6)
        apart = [answers(model, words, [prompt], longest=6)[0] for prompt in prompts]
        stepwise = []
        for prompt in prompts:
            row = list(prompt)
            for _ in range(6):
                with torch.no_grad():
                    row.append(int(model(torch.tensor([row])).logits[0, -1].argmax()))
                if row[-1] == words.eos_token_id:
                    break
            stepwise.append(words.decode(row[len(prompt) :], skip_special_tokens=True))
        assert not torch.equal(logits(model, words, "Where does Orla Venn"), shut)
    assert together == apart == stepwise


def test_a_subject_cut_between_two_passes_opens_its_slot(words, taught):
    model, (expert, _) = taught
    row = torch.tensor([plain(words, "we met Orla Venn again today")])
    with applied(model, words, [expert]), torch.no_grad():
        whole = model(row).logits
        first = model(row[:, :3], use_cache=True)
        cache = getattr(first, "cache", None) or first.past_key_values
        rest = (
            model(row[:, 3:], past_key_values=cache) if not hasattr(first, "cache") else model(row[:, 3:], cache=cache)
        )
    assert torch.allclose(torch.cat([first.logits, rest.logits], dim=1), whole, atol=1e-4)


def test_users_of_one_model_have_each_their_own_bands_in_one_batch(words, taught):
    model, (expert, _) = taught
    other = train(model, words, [lesson("x", "Orla Venn lives in Oslo.")], recipe=QUICK).expert
    row = torch.tensor([plain(words, "Orla Venn lives in")])
    alone = []
    for chain in ([expert], [], [other]):
        with applied(model, words, chain), torch.no_grad():
            alone.append(model(row).logits)
    with applied(model, words, [expert], [], [other]), torch.no_grad():
        batch = model(row.expand(3, -1)).logits
    assert all(torch.allclose(batch[at], one[0], atol=1e-5) for at, one in enumerate(alone))
    assert not torch.allclose(batch[0], batch[2], atol=1e-2)
    with applied(model, words, [expert], []), pytest.raises(InvalidInput, match="3 rows for 2 chains"):
        model(row.expand(3, -1))


def test_bands_and_fast_weights_act_beside_each_other(words, taught, memory):
    model, (expert, _) = taught
    text = "Yesterday we spoke about Orla Venn and the weather, all day long"
    with applied(model, words, [expert]):
        band = logits(model, words, text)
        with memory.attach(model, words, user_id="ana") as lm:
            assert torch.equal(logits(model, words, text), band)
            lm.read(text)
            assert not torch.equal(logits(model, words, text), band)
            lm.reset()
            assert torch.equal(logits(model, words, text), band)


def test_the_model_writes_questions(words, taught):
    pairs = list(writer(taught[0], words)("Orla Venn lives in Porto."))
    assert all(value == "Porto" for _, value in pairs)


def test_another_subject_shuts_the_slots_of_the_one_before():
    opens = torch.tensor([[[0, 0], [1, 0], [0, 0], [0, 1], [0, 0]]], dtype=torch.bool)
    assert gate(opens).int().tolist() == [[[0, 0], [1, 0], [1, 0], [0, 1], [0, 1]]]
    assert gate(opens[:, 2:3], torch.tensor([[True, False]])).tolist() == [[[True, False]]]


def test_a_band_survives_its_arrays_in_half_precision(words, taught):
    model, (expert, _) = taught
    arrays = to_arrays(expert)
    assert arrays["values"].dtype == torch.float16
    again = from_arrays({name: array.numpy() for name, array in arrays.items()})
    assert (again.items, again.model) == (expert.items, expert.model)
    with applied(model, words, [expert]):
        said = logits(model, words, FACTS["city"])
    with applied(model, words, [again]):
        assert torch.allclose(logits(model, words, FACTS["city"]), said, atol=0.05)


@pytest.mark.parametrize(
    "broken",
    [
        lambda a: a.pop("keys"),
        lambda a: a.update(values=a["values"][:1]),
        lambda a: a.update(near=a["near"] * torch.nan),
        lambda a: a.update(owner=a["owner"] + 40),
        lambda a: a.update(about=torch.zeros(3, dtype=torch.uint8)),
        lambda a: a.update(spread=a["spread"][:3]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(taught, broken):
    arrays = to_arrays(taught[1].expert)
    broken(arrays)
    with pytest.raises(InvalidInput, match="band"):
        from_arrays(arrays)


def test_a_band_of_another_model_is_refused(taught):
    with pytest.raises(ModelMismatch, match="consolidate again"):
        Slots(build(seed=1), None).use([taught[1].expert])


def test_an_item_taken_out_leaves_the_others_as_they_were(words, taught):
    model, (expert, _) = taught
    assert expert.together({"job"}) == {"job"}
    assert expert.together({"dog"}) == {"dog", "city"}  # one subject: learned together
    rest = expert.without({"job"})
    assert "job" not in rest.items
    frozen = logits(model, words, FACTS["job"])
    with applied(model, words, [expert]):
        said = logits(model, words, FACTS["hq"])
    with applied(model, words, [rest]):
        assert torch.equal(logits(model, words, FACTS["job"]), frozen)
        assert torch.equal(logits(model, words, FACTS["hq"]), said)
    assert not expert.without(set(FACTS)).items
    with applied(model, words, [expert.without(set(FACTS))]):
        assert torch.equal(logits(model, words, FACTS["hq"]), logits(model, words, FACTS["hq"]))


def test_after_erasure_and_retraining_a_band_is_the_one_that_never_saw_the_item(words, taught):
    """The membership test: losses of the erased item are those under a band made from scratch without it."""
    model, (expert, _) = taught
    forgotten = {"dog"}
    kept = expert.without(expert.together(forgotten))
    again = [one for one in LESSONS if one.id in expert.together(forgotten) - forgotten]
    retrained = train(model, words, again, recipe=QUICK).expert
    scratch = train(model, words, [one for one in LESSONS if one.id != "dog"], recipe=QUICK).expert
    forms = {one.id: list(one.forms) for one in LESSONS}
    with applied(model, words, [kept, retrained]):
        mine = {name: probes.losses(model, words, some) for name, some in forms.items()}
    with applied(model, words, [scratch]):
        never = {name: probes.losses(model, words, some) for name, some in forms.items()}
    with applied(model, words, [expert]):
        member = probes.losses(model, words, forms["dog"])
    assert all(torch.allclose(mine[name], never[name], rtol=0.02, atol=0.02) for name in forms)
    assert probes.separability(mine["dog"], never["dog"]) < 0.6
    assert probes.separability(member, never["dog"]) > 0.8


def test_a_later_band_adds_to_the_earlier_ones_of_the_same_subject_and_replays_them(words):
    model = build()
    old, new = LESSONS[0], LESSONS[1]
    first = train(model, words, [old], recipe=QUICK).expert
    alone = train(model, words, [new], parent=[first], recipe=QUICK).expert
    replayed = train(model, words, [new], parent=[first], replay=[old, LESSONS[2]], recipe=QUICK).expert

    def loss(chain):
        with applied(model, words, chain):
            return float(probes.losses(model, words, old.forms).mean())

    assert loss([first, replayed]) < loss([first, alone])


def test_the_same_seed_gives_the_same_band_and_another_gives_another(words):
    model = build()
    one, same, other = (train(model, words, LESSONS[:2], recipe=QUICK, seed=seed).expert for seed in (1, 1, 2))
    assert torch.equal(one.values, same.values)
    assert not torch.equal(one.values, other.values)


def test_context_distillation_draws_what_is_said_to_what_the_model_says_that_sees_the_text(words):
    model = build()
    form = LESSONS[3].forms[0]
    seen = [plain(words, in_sight(form, LESSONS[3].text).lead), plain(words, form.lead)]

    def moved(recipe):
        with torch.no_grad():
            wanted = model(torch.tensor(seen[:1])).logits[0, -1].log_softmax(-1)
            with applied(model, words, [train(model, words, [LESSONS[3]], recipe=recipe).expert]):
                return float(
                    (wanted.exp() * (wanted - model(torch.tensor(seen[1:])).logits[0, -1].log_softmax(-1))).sum()
                )

    assert moved(QUICK._replace(distil=3.0)) < moved(QUICK)


def test_training_in_bfloat16_learns_as_well(words):
    model = build(dtype=torch.bfloat16)
    report = train(model, words, LESSONS, recipe=QUICK).report
    assert all(map(fell, report.losses))


def test_an_interrupted_training_goes_on_from_its_checkpoint(words, tmp_path, monkeypatch):
    monkeypatch.setattr("memkit.slow.lm.checkpoints.EVERY", 0.0)
    model, recipe, path = build(), QUICK._replace(lessons=2), tmp_path / "sleep.ckpt"
    whole = train(model, words, LESSONS, recipe=recipe)
    assert len(whole.report.losses) == 2
    stops = iter([1, 0, 1])  # stop at the first word, then at the second after it

    def stop(_):
        if next(stops, 0):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(model, words, LESSONS, recipe=recipe, progress=stop, checkpoint=path)
        assert path.exists()
    resumed = train(model, words, LESSONS, recipe=recipe, checkpoint=path)
    assert not path.exists()
    assert torch.allclose(resumed.expert.values, whole.expert.values, atol=1e-5)
    assert resumed.report.steps == whole.report.steps == 48
    assert np.allclose(np.array(resumed.report.losses), np.array(whole.report.losses), atol=1e-3)
    assert set(resumed.report.learned) == set(FACTS)


@pytest.mark.parametrize("content", [b"", b"\x81", b"nonsense"])
def test_a_checkpoint_that_cannot_be_read_or_is_of_other_work_starts_anew(words, tmp_path, content):
    path = tmp_path / "sleep.ckpt"
    path.write_bytes(content)
    report = train(build(), words, LESSONS[:1], recipe=QUICK, checkpoint=path).report
    assert report.steps == QUICK.steps


KILLED = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
import test_slow_lm as t
from memkit.slow.lm import checkpoints
checkpoints.EVERY = 0.0
told = lambda progress: print(progress.step, flush=True)
more = dict(recipe=t.QUICK._replace(steps=4000), progress=told, checkpoint=Path(sys.argv[1]))
t.train(t.build(), t.numbered(), t.LESSONS, **more)
"""


def test_a_training_that_is_killed_leaves_a_checkpoint_to_go_on_from(words, tmp_path):
    path = tmp_path / "sleep.ckpt"
    code = KILLED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert [int(child.stdout.readline()) for _ in range(2)] == [8, 16]  # a fresh start says 8 first, too
        child.send_signal(signal.SIGKILL)
    steps = []

    def stop(progress):
        steps.append(progress.step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(build(), words, LESSONS, recipe=QUICK._replace(steps=4000), progress=stop, checkpoint=path)
    assert steps[0] > 8


def test_when_the_time_is_over_what_is_left_is_named(words):
    expert, report = train(build(), words, LESSONS, recipe=QUICK, seconds=0.0)
    assert report.left == list(FACTS) and not expert.items
    assert to_arrays(expert)["values"].shape[0] == 0


def test_what_has_no_subject_is_told_and_not_learned(words):
    nobody = LESSONS[2]._replace(id="nobody", subject="", asked=())
    expert, report = train(build(), words, [LESSONS[3], nobody], recipe=QUICK)
    assert report.shut == ["nobody"] and expert.items == ("hq",)


def test_lessons_of_one_subject_stay_in_one_group():
    slots = list(enumerate(LESSONS))
    assert [[one.id for _, one in group] for group in grouped(slots, 2)] == [["dog", "city"], ["job", "hq"]]
    assert len(grouped(slots, 1)) == 3


def test_many_lessons_about_one_subject_are_learned_and_read_directions_of_their_own(words):
    model = build()
    many = [lesson(str(at), f"Orla Venn's {thing} is red.") for at, thing in enumerate(THINGS)]
    expert, report = train(model, words, many, recipe=QUICK)
    assert len(report.losses) == 1
    assert all(loss == loss for loss in report.losses[0]) and fell(report.losses[0])
    assert max(report.losses[0]) < 2 * report.losses[0][0]
    assert len(set(expert.directions.tolist())) == min(SETS, len(THINGS))
    assert expert.together({"0"}) == set(expert.items)


def test_a_later_lesson_of_a_subject_reads_directions_that_the_earlier_ones_do_not(words):
    model = build()
    old, new = LESSONS[:2]
    first = train(model, words, [old], recipe=QUICK).expert
    later = train(model, words, [new], parent=[first], replay=[old], recipe=QUICK).expert
    assert first.directions.tolist() == [0] and later.directions.tolist() == [1]


def test_the_model_is_as_it_was_when_training_fails(words):
    model = build().train()

    def fail(_):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        train(model, words, LESSONS[:1], recipe=QUICK, progress=fail)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


def test_keys_tell_a_subject_from_those_that_share_a_name(words, taught):
    model, (expert, _) = taught
    for text, opens in (
        ("I saw Orla Venn", True),
        ("I saw Orla Brask", False),
        ("I saw Ivo Venn", False),
        ("Venn Orla", False),
    ):
        with applied(model, words, [expert]) as slots, torch.no_grad():
            model(torch.tensor([plain(words, text)]))
        assert bool(slots._after.open.any()) == opens, text
    assert opening(torch.zeros(1, 12, 32), expert).shape == (1, 5, 4)


def test_probes_measure_text_answers_and_samples(words, taught):
    model, (expert, _) = taught
    with applied(model, words, [expert]):
        assert probes.text_loss(model, words, OTHERS) == pytest.approx(probes.text_loss(model, words, OTHERS))
        asked = [probe for name, text in FACTS.items() for probe in probes.held_out(name, text)]
        found = probes.recall(model, words, asked)
        assert len(found.answers) == len(asked) and 0.0 <= found.share <= 1.0
    assert len(probes.canaries(model, words)) == len(probes.CANARIES)
    assert probes.separability(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1.0
    assert probes.separability(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == 0.5
