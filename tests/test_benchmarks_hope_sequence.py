"""The sequence benchmarks on a small scale: answers are right, the accounting is fair, a model learns."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from torch import Generator

from benchmarks.hope import drift, fewshot, sequence
from benchmarks.hope.mixers import ABLATIONS, BASELINES, TITANS, FastWeights, state_bytes
from benchmarks.hope.sequence import FULL, ROWS, TASKS, accuracies, fitted, main
from benchmarks.hope.tasks import NEEDLES, NONE, S3, SWAPS, haystack, mqar, parity, word_problem


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that share a core with other tests wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_each_key_of_mqar_is_told_once_asked_once_and_answered_with_its_value():
    for tokens, answers in zip(*mqar(rng(), 5, 6), strict=True):
        told = dict(tokens[:12].reshape(6, 2).tolist())
        assert len(told) == 6
        assert (answers[:12] == NONE).all()
        assert sorted(tokens[12:].tolist()) == sorted(told)
        assert [told[key] for key in tokens[12:].tolist()] == answers[12:].tolist()


def test_parity_is_that_of_all_bits_so_far():
    for bits, answers in zip(*parity(rng(), 4, 20), strict=True):
        assert answers.tolist() == [sum(bits[: t + 1].tolist()) % 2 for t in range(20)]


def test_the_word_problem_follows_three_things_through_their_swaps():
    for words, answers in zip(*word_problem(rng(), 4, 30), strict=True):
        things = [0, 1, 2]
        for word, answer in zip(words.tolist(), answers.tolist(), strict=True):
            things = [things[i] for i in SWAPS[word]]
            assert S3[answer] == tuple(things)
    assert len(set(answers.tolist())) > 3


@pytest.mark.parametrize(("depth", "place"), [(0.0, 0), (0.5, 32), (1.0, 62)])
def test_the_needle_is_where_it_is_said_to_be_and_only_it_is_asked(depth, place):
    tokens, answers = haystack(rng(), 8, 64, depth=depth)
    assert tokens.shape == (8, 64 + NEEDLES)
    assert ((answers != NONE).sum(1) == 1).all()
    for one, due in zip(tokens, answers, strict=True):
        at = int((due != NONE).nonzero())
        assert one[place] == one[at]
        assert one[place + 1] == due[at]


def test_a_haystack_without_a_depth_has_all_its_pairs_asked():
    tokens, answers = haystack(rng(1), 8, 8)
    assert ((answers != NONE).sum(1) == NEEDLES).all()
    for one, due in zip(tokens, answers, strict=True):
        pairs = dict(one[:8].reshape(4, 2).tolist())
        assert [pairs[key] for key in one[8:].tolist()] == due[8:].tolist()


@pytest.mark.parametrize("name", [*BASELINES, *TITANS])
def test_all_mixers_but_attention_carry_as_many_bytes(name):
    made = ROWS[name]()
    state = made(torch.randn(1, 40, 32)).state.mixer
    tensors = [state] if isinstance(state, torch.Tensor) else [part for part in state if isinstance(part, torch.Tensor)]
    changed = sum(part[0].nelement() * 4 for part in tensors[:2] if part.any())  # the anchors are the same, once more
    assert state_bytes(made, 40) == changed
    assert changed == (20_480 if name != "softmax attention" else 2 * 4 * 32 * 40)


def test_ablations_say_what_they_carry():
    sizes = {name: state_bytes(make(), 48) for name, make in ABLATIONS.items()}
    assert sizes.pop("no self-modification (same width)") == 20_480 // 5
    assert sizes.pop("static v") == 20_480 // 5 * 4
    assert set(sizes.values()) == {20_480}


@pytest.mark.parametrize("rule", ["linear", "delta", "gated"])
def test_fast_weights_read_a_stream_that_is_cut_anywhere(rule):
    torch.manual_seed(0)
    mixer, x = FastWeights(rule), torch.randn(2, 45, 32)
    whole, end = mixer(x, mixer.start(2))
    first, middle = mixer(x[:, :17], mixer.start(2))
    second, last = mixer(x[:, 17:], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last, end, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gated DeltaNet", FULL])
def test_thirty_steps_lower_the_loss(name):
    _, losses = fitted(name, TASKS["s3"], rate=8e-3, seed=0, steps=30)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_training_is_the_same_for_the_same_seed():
    first, second = (fitted("linear attention", TASKS["parity"], rate=4e-3, seed=3, steps=3)[1] for _ in range(2))
    assert first == second


def test_a_column_of_state_tracking_asks_only_its_stretch():
    for columns, draws in zip(pairwise([0, 32, 64, 128, 256]), TASKS["parity"].tests.values(), strict=True):
        _, answers = draws[0](rng(), 2)
        asked = (answers[0] != NONE).nonzero()[:, 0].tolist()
        assert asked == list(range(*columns))


def test_a_needle_is_tested_at_each_length_and_depth():
    model, _ = fitted("linear attention", TASKS["needle"], rate=1e-3, seed=0, steps=1)
    assert [len(scores) for scores in accuracies(model, TASKS["needle"], 0).values()] == [5, 5, 5, 5]


def test_the_command_prints_a_table_a_figure_and_the_figures(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sequence.TASKS, "parity", TASKS["parity"]._replace(steps=2))
    folder, file = tmp_path / "plots", tmp_path / "o.json"
    main(["parity", "--rows", "linear attention", "--seeds", "2", "--json", str(file)])
    assert "| linear attention | " in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert [len(column) for column in found["linear attention"]["scores"].values()] == [2, 2, 2, 2]
    monkeypatch.setattr(sequence, "fitted", lambda *_, **__: pytest.fail("a row that there is was trained again"))
    main(["parity", "--rows", "linear attention", "--json", str(file)])
    assert "| linear attention | " in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    sequence.plot("parity", found, folder)
    assert "linear attention" in (folder / "parity.svg").read_text()


# drifting values


def test_values_drift_a_little_at_a_time_and_are_all_replaced_half_way():
    keys, values = drift.stream(rng(), 400)
    moved = [[], []]
    for key in keys.unique(dim=0):
        times = (keys == key).all(1).nonzero()[:, 0].tolist()
        for a, b in pairwise(times):
            moved[a < 200 <= b].append(float((values[b] - values[a]).square().mean()) / (b - a))
    assert max(moved[0]) < 0.01
    assert min(moved[1]) > 0.01
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(400))


def test_what_is_said_of_a_pair_was_said_before_it_was_told():
    keys, values = drift.stream(rng(), 60)
    other = torch.cat([values[:30], torch.randn(30, drift.SIZE)])
    for rule, grid in drift.RULES.values():
        setting = {name: some[0] for name, some in grid.items()}
        first, second = rule(keys, values, **setting), rule(keys, other, **setting)
        torch.testing.assert_close(first[:31], second[:31])
        assert not first[0].any()


def test_the_hebbian_rule_is_its_equation():
    keys, values = drift.stream(rng(), 20)
    memory, said = torch.zeros(drift.SIZE, drift.SIZE), []
    for k, v in zip(keys, values, strict=True):
        said.append(memory @ k)
        memory = 0.9 * memory + 0.3 * torch.outer(v, k)
    torch.testing.assert_close(
        drift.hebbian(keys, values, step=0.3, alpha=0.9), torch.stack(said), atol=1e-5, rtol=1e-4
    )


def test_drift_prints_a_row_a_learner(capsys):
    drift.main(["--rows", "delta rule,forgetting least squares", "--seeds", "2"])
    assert capsys.readouterr().out.count("±") == 2 * len(drift.STRETCHES)


@pytest.mark.parametrize("name", drift.TRAINED)
def test_a_reader_of_drifting_values_is_trained(name):
    model, loss = drift.trained(name, 4e-3, 0, steps=2)
    assert loss > 0
    assert drift._says(model)(*drift.stream(rng(), 20)).shape == (20, drift.SIZE)


# few examples


def sentences(classes: int = 24, each: int = 40) -> fewshot.Sentences:
    generator = rng(5)
    centres = torch.randn(classes, 16, generator=generator)
    y = torch.arange(classes).repeat(each)
    x, test_x = (
        torch.nn.functional.normalize(centres[y] + 0.5 * torch.randn(len(y), 16, generator=generator), dim=1)
        for _ in "ab"
    )
    return fewshot.Sentences(x, y, test_x, y)


def test_ten_intents_are_drawn_and_the_trained_memories_never_see_them():
    data = sentences()
    ten, others = fewshot.drawn(data, 3)
    assert len(ten.y) == 256
    assert set(ten.y.tolist()) == set(range(10)) == set(ten.test_y.tolist())
    assert len(others.y.unique()) == 14
    assert not {row.numpy().tobytes() for row in ten.x} & {row.numpy().tobytes() for row in others.x}


@pytest.mark.parametrize("name", fewshot.LEARNERS)
def test_a_learner_knows_more_after_256_examples_than_after_one(name):
    one, ten = fewshot.learner(name, sentences(), 0, 0.3)
    found = fewshot.curve(one, ten)
    assert found[0] < 0.25
    assert found[-1] > 0.9


@pytest.mark.parametrize("name", fewshot.MIXERS)
def test_asking_a_trained_memory_does_not_change_what_it_says(name):
    ten, others = fewshot.drawn(sentences(), 0)
    made = fewshot.Trained(fewshot.trained(name, others, 4e-3, 0, steps=2)[0])
    made.learn(ten.x[:5], ten.y[:5])
    first = made.predict(ten.test_x[:7])
    torch.testing.assert_close(made.predict(ten.test_x[:7]), first)
    torch.testing.assert_close(made.predict(ten.test_x[3:4]), first[3:4])
