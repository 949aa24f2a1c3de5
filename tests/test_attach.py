"""A memory attached to a causal language model: what it changes, what it leaves alone, and what it keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from lm_support import KINDS, Bytes, tiny
from support import embed

from memkit import Memory
from memkit.errors import InvalidInput, ModelMismatch
from memkit.fast.lm import places

STORY = "ana: the code of the blue door is 4711. bo: I will never forget the code of the blue door. " * 8
IDS = torch.tensor([list(b"the code of the blue door is 4711")])


def logits(model, ids=IDS, **given):
    with torch.no_grad():
        return model(ids, **given).logits


@pytest.mark.parametrize("kind", KINDS)
def test_reading_lowers_the_surprise_of_what_comes_again_and_leaves_the_model_as_it_was(memory, kind):
    model = tiny(kind)
    before, weights = logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    grads = [parameter.requires_grad for parameter in model.parameters()]
    with memory.attach(model, Bytes(), user_id="ana") as lm:
        assert torch.equal(logits(model), before)  # nothing read yet
        frozen = lm.read(STORY * 3, learn=False)
        reading = lm.read(STORY * 3)
        assert reading.surprise.shape == (len(STORY * 3),)
        assert reading.surprise[-400:].mean() < frozen.surprise[-400:].mean() - 0.05
        assert not torch.equal(logits(model), before)
        lm.reset()
        assert torch.equal(logits(model), before)
        lm.read(STORY[:100])
    assert torch.equal(logits(model), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_model_is_restored_when_the_block_fails(memory):
    model = tiny().train()
    lm = memory.attach(model, Bytes())

    def fail():
        with lm:
            lm.read(STORY[:200])
            assert all(module.training for module in model.modules())
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with memory.attach(model, Bytes()) as again:
        assert int(again.snapshot().tokens) == 200


def test_a_state_is_kept_in_the_file_for_its_scope_alone(memory):
    model = tiny()
    before = logits(model)
    with memory.attach(model, Bytes(), user_id="ana") as lm:
        lm.listen = False
        lm.read(STORY)
        taught = logits(model)
    with memory.attach(model, Bytes(), user_id="bo"):
        assert torch.equal(logits(model), before)
    with memory.scope(user_id="ana").attach(model, Bytes()) as again:
        assert int(again.snapshot().tokens) == len(STORY)
        assert torch.allclose(logits(model), taught, atol=1e-2)  # kept in half precision


def test_two_users_in_a_batch_never_mix(memory):
    model = tiny()
    with memory.attach(model, Bytes(), user_id=["ana", "bo"]) as both:
        both.listen = False
        both.read([STORY, ""])
        pair = logits(model, IDS.repeat(2, 1))
        several = logits(model, IDS.repeat(4, 1))
    plain = logits(model)
    assert torch.allclose(pair[1], plain[0], atol=1e-5)
    assert not torch.allclose(pair[0], plain[0], atol=1e-2)
    assert torch.allclose(several[:2], pair[[0, 0]], atol=1e-5)
    with memory.attach(model, Bytes(), user_id="bo"):
        assert torch.equal(logits(model), plain)


def test_a_batch_of_users_reads_as_each_would_alone(memory):
    model = tiny()
    texts = [STORY[:330], STORY[40:170]]
    with memory.attach(model, Bytes(), user_id=["ana", "bo"]) as both:
        together = [*both.read(texts), *both.read([texts[1], texts[0]])]
        states = both.snapshot()
    for row, name in enumerate(["cleo", "dan"]):
        with memory.attach(model, Bytes(), user_id=name) as lm:
            alone = [lm.read(texts[row]), lm.read(texts[1 - row])]
            assert torch.allclose(lm.snapshot().weights[0], states.weights[row], atol=2e-3)
        for mine, ours in zip(alone, together[row::2], strict=True):
            assert torch.allclose(torch.tensor(mine.surprise), torch.tensor(ours.surprise), atol=2e-2)


def test_generate_and_forward_teach_unless_told_not_to(memory):
    model = tiny()
    with memory.attach(model, Bytes(), user_id="ana") as lm:
        logits(model)
        assert int(lm.snapshot().tokens) == IDS.shape[1]
        made = model.generate(IDS, max_new_tokens=6, do_sample=False, pad_token_id=0)
        # the prompt is known; all that was generated came back in, but the last token
        assert int(lm.snapshot().tokens) == made.shape[1] - 1
        lm.listen = False
        logits(model, IDS + 1)
        assert int(lm.snapshot().tokens) == made.shape[1] - 1
        with pytest.raises(InvalidInput, match="rows"), memory.attach(tiny(), Bytes(), user_id=["a", "b"]) as two:
            two.model(IDS)


def test_padding_teaches_nothing(memory):
    model = tiny()
    left = torch.cat([torch.zeros(1, 5, dtype=torch.int64), IDS], dim=1)
    mask = torch.cat([torch.zeros(1, 5), torch.ones(IDS.shape)], dim=1).long()
    states = []
    for name, ids, given in [("ana", left, mask), ("bo", IDS, None)]:
        with memory.attach(model, Bytes(), user_id=name) as lm:
            logits(model, ids, attention_mask=given)
            states.append(lm.snapshot())
    assert torch.equal(states[0].weights, states[1].weights)
    assert int(states[0].tokens) == IDS.shape[1]


def test_inference_mode_and_bfloat16(memory):
    model = tiny(dtype=torch.bfloat16)
    before = logits(model)
    with torch.inference_mode(), memory.attach(model, Bytes()) as lm:
        reading = lm.read(STORY)
        assert reading.surprise[-200:].mean() < reading.surprise[:200].mean()
        assert lm.snapshot().weights.dtype == torch.float32
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(
    "wrap", [lambda m: torch.compile(m, backend="eager"), lambda m: m.compile(backend="eager") or m]
)
def test_a_compiled_model_sees_what_was_read(memory, wrap):
    plain = tiny()
    before = logits(plain)
    model = wrap(plain)
    assert torch.allclose(logits(model), before, atol=1e-5)
    with memory.attach(model, Bytes()) as lm:
        lm.listen = False
        lm.read(STORY)
        once = logits(model)
        lm.read(STORY)
        twice = logits(model)
        assert not torch.allclose(once, before, atol=1e-2)
        assert not torch.allclose(twice, once, atol=1e-3)
    assert torch.allclose(logits(model), before, atol=1e-5)


def test_snapshot_restore_and_branch(memory):
    model = tiny()
    with memory.attach(model, Bytes()) as lm:
        lm.read(STORY[:200])
        kept, told = lm.snapshot(), logits(model)
        lm.reset()
        lm.restore(kept)
        lm.listen = False
        assert torch.equal(logits(model), told)
        with lm.branch() as trial:
            trial.read(STORY)
            assert not torch.equal(logits(model), told)
            trial.save()
        assert torch.equal(logits(model), told)
        assert lm.snapshot() is kept
        with pytest.raises(InvalidInput, match="shape"):
            lm.restore(kept._replace(weights=kept.weights[:, :1]))
    with memory.attach(model, Bytes()) as again:
        assert int(again.snapshot().tokens) == 200


def test_only_scoring_changes_nothing(memory):
    with memory.attach(tiny(), Bytes()) as lm:
        lm.read(STORY[:100])
        kept = lm.snapshot()
        once = lm.read(STORY[100:300], learn=False)
        again = lm.read(STORY[100:300], learn=False)
        assert (once.surprise == again.surprise).all()
        assert lm.snapshot() is kept
        assert 0 < once.salience < 1


def test_a_state_of_another_model_is_refused(memory):
    with memory.attach(tiny(), Bytes(), user_id="ana") as lm:
        lm.read(STORY[:100])
    other = tiny(seed=1)
    with pytest.raises(ModelMismatch, match="fresh=True"):
        memory.attach(other, Bytes(), user_id="ana")
    with memory.attach(other, Bytes(), user_id="ana", fresh=True) as lm:
        assert int(lm.snapshot().tokens) == 0
        lm.read("x" * 10)
    with memory.attach(other, Bytes(), user_id="ana") as lm:
        assert int(lm.snapshot().tokens) == 10
    assert places.identity(tiny()) == places.identity(tiny(dtype=torch.bfloat16).float())


def test_states_survive_compaction_and_neither_erasure_nor_a_reset(memory):
    model = tiny()
    item = memory.add("the code is 4711", user_id="ana")[0]
    memory.add("other", user_id="bo")
    for name in ("ana", "bo"):
        with memory.attach(model, Bytes(), user_id=name) as lm:
            lm.read(STORY[:100])
    memory.compact()
    memory.scope(user_id="bo").reset_fast()
    with memory.attach(model, Bytes(), user_id="bo") as lm:
        assert int(lm.snapshot().tokens) == 0
    memory.compact()
    with memory.attach(model, Bytes(), user_id="ana") as lm:
        assert int(lm.snapshot().tokens) == 100
        memory.erase({"user_id": "ana"}, reason="asked")
        with pytest.warns(UserWarning, match="erased"):
            lm.save()
        assert int(lm.snapshot().tokens) == 0
    with memory.attach(model, Bytes(), user_id="ana") as lm:
        assert int(lm.snapshot().tokens) == 0
    assert memory.get(item.id) is None


def test_what_is_added_through_the_model_carries_its_surprise(memory):
    with memory.attach(tiny(), Bytes(), user_id="ana") as lm:
        items = lm.add([{"role": "user", "content": STORY * 3}, {"role": "user", "content": STORY[:90]}])
        assert items[0].surprise > items[1].surprise
        assert memory.get(items[0].id).surprise == items[0].surprise
        kept = lm.snapshot()
        with pytest.raises(InvalidInput):
            lm.add("")
        assert lm.snapshot() is kept


def test_recall_is_read_into_the_state_instead_of_the_prompt(memory):
    memory.add("The blue door opens with 4711.", user_id="ana")
    with memory.attach(tiny(), Bytes(), user_id="ana") as lm, lm.branch():
        recall = memory.recall("blue door", user_id="ana", into=lm)
        assert "4711" in recall.text
        assert int(lm.snapshot().tokens) == len(recall.text.encode())
        narrower = memory.recall("blue door", user_id="ana", run_id="monday", into=lm)
        assert narrower.abstained


def test_a_recall_that_abstains_is_not_read(memory):
    with memory.attach(tiny(), Bytes(), user_id="ana") as lm:
        kept = lm.snapshot()
        assert memory.recall("blue door", user_id="ana", into=lm).abstained
        assert lm.snapshot() is kept


def test_a_recall_of_what_is_not_the_users_own_is_refused(memory, open_memory):
    memory.add("The blue door opens with 4711.", user_id="bo")
    other = open_memory("b.mem")
    other.add("The blue door opens with 4711.", user_id="ana")
    with memory.attach(tiny(), Bytes(), user_id="ana") as lm:
        kept = lm.snapshot()
        for scope in ({"user_id": "bo"}, {}, {"run_id": "ana"}):
            with pytest.raises(InvalidInput, match="attached for"):
                memory.recall("blue door", into=lm, **scope)
        with pytest.raises(InvalidInput, match="another memory"):
            other.recall("blue door", user_id="ana", into=lm)
        assert lm.snapshot() is kept
    with (
        memory.attach(tiny(), Bytes(), user_id=["ana", "bo"]) as both,
        pytest.raises(InvalidInput, match="2 users"),
    ):
        memory.recall("blue door", user_id="ana", into=both)


def test_a_model_attached_for_the_whole_file_reads_a_recall_of_any_scope(memory):
    memory.add("The blue door opens with 4711.", user_id="ana")
    with memory.attach(tiny(), Bytes()) as lm:
        memory.recall("blue door", user_id="ana", into=lm)
        assert int(lm.snapshot().tokens) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_read_for_one_user_never_reaches_another(memory, kind):
    secret = "the code of the blue door is 4711. " * 12
    model = tiny(kind)
    before = logits(model)
    asked = "the code of the blue door is 4711"
    with memory.attach(model, Bytes(), user_id="ana") as lm:
        untaught = lm.read(asked, learn=False).surprise
        lm.read(secret)
        taught = lm.read(asked, learn=False).surprise
        assert abs(taught - untaught).max() > 0.1
    with memory.attach(model, Bytes(), user_id="bo") as lm:
        lm.listen = False
        assert (lm.read(asked, learn=False).surprise == untaught).all()
        assert torch.equal(logits(model), before)
    with memory.attach(model, Bytes(), user_id=["ana", "bo"]) as both:
        ana, bo = both.read([asked] * 2, learn=False)
        assert abs(ana.surprise - untaught).max() > 0.1
        assert bo.surprise == pytest.approx(untaught, abs=1e-3)
        assert not both.snapshot().weights[1].any()


@pytest.mark.slow
def test_a_real_model_reads_the_shipped_conversation_better_with_memory_than_frozen(memory):
    from benchmarks.lm.streams import shipped
    from benchmarks.models import load

    model, tokenizer = load("smollm2")
    text = tokenizer.decode(tokenizer("\n".join(shipped()))["input_ids"][:1200])
    with memory.attach(model, tokenizer, user_id="nora") as lm:
        frozen = lm.read(text, learn=False).surprise
        learning = lm.read(text).surprise
        later = len(frozen) // 2
        assert learning[later:].mean() < 0.99 * frozen[later:].mean()
        assert abs(learning[:64] - frozen[:64]).max() < 1e-3  # scored before learned


def test_wrong_use_is_named(memory):
    model = tiny()
    lm = memory.attach(model, Bytes())
    with pytest.raises(InvalidInput, match="with memory"):
        lm.read("x")
    with lm, pytest.raises(InvalidInput, match="already"), memory.attach(model, Bytes()):
        pass
    with memory.attach(model, Bytes(), user_id=["a", "b"]) as two, pytest.raises(InvalidInput, match="texts"):
        two.read("x")
    with pytest.raises(InvalidInput, match="once"):
        memory.attach(model, Bytes(), user_id=["a", "a"])
    with pytest.raises(InvalidInput, match="dense decoder"):
        memory.attach(torch.nn.Linear(2, 2), Bytes())


def test_a_long_stream_stays_bounded_and_passes_the_last_position(memory):
    with memory.attach(tiny(), Bytes()) as lm:
        reading = lm.read("abcdefgh" * 400)  # 3,200 tokens, where the model knows 1,024 positions
        assert reading.surprise[-500:].mean() < reading.surprise[:100].mean()
        state = lm.snapshot()
        assert bool(state.weights.isfinite().all())
        assert lm.bytes_per_user == 2 * state.weights.numel() * 4


CHILD = """
import sys
sys.path[:0] = sys.argv[2:]
from lm_support import Bytes, tiny
from memkit import Memory
from support import embed
with Memory(sys.argv[1], embedder=embed) as memory, memory.attach(tiny(), Bytes(), user_id="ana") as lm:
    for number in range(10_000):
        lm.add(f"item {number} of a long day")
        lm.save()
        print(number, flush=True)
"""


def test_a_kill_while_reading_costs_the_unsaved_state_and_never_the_file(tmp_path):
    paths = [p for p in sys.path if p]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "a.mem"), *paths], stdout=subprocess.PIPE, text=True
    )
    acknowledged = -1
    with child, child.stdout as said:
        for line in said:
            acknowledged = int(line)
            if acknowledged == 12:
                time.sleep(0.05)
                os.kill(child.pid, signal.SIGKILL)
    assert acknowledged >= 12
    with Memory(tmp_path / "a.mem", embedder=embed) as memory:
        assert memory.verify().ok
        assert memory.stats().items >= acknowledged + 1
        with memory.attach(tiny(), Bytes(), user_id="ana") as lm:
            assert int(lm.snapshot().tokens) >= sum(len(f"item {n} of a long day") for n in range(acknowledged + 1))
