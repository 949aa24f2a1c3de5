"""What runs on a GPU does there what it does on the CPU; skipped where there is none."""

from __future__ import annotations

import warnings
from functools import wraps

import numpy as np
import pytest
import torch
from lm_support import KINDS, Bytes, tiny
from slow_lm_support import FACTS, LESSONS, OTHERS, build, logits, numbered

from memkit.fast.hope.block import HopeBlock
from memkit.fast.hope.cms import Schedule
from memkit.fast.hope.m3 import M3
from memkit.fast.hope.titans import SelfModifyingTitans, titans_chunked, titans_naive
from memkit.slow.lm import probes
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import Recipe, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

GPU = "cuda"
QUICK = Recipe(steps=24, rate=0.05, keep=0.5)
STORY = "ana: the code of the blue door is 4711. bo: I will never forget the code of the blue door. " * 8


def test_titans_read_alike_on_both_and_their_fast_path_keeps_to_the_definition():
    torch.manual_seed(0)
    here = SelfModifyingTitans(32, heads=2)
    x = torch.randn(2, 45, 32)
    y, state = here(x)
    there = here.to(GPU)
    y_gpu, state_gpu = there(x.to(GPU))
    assert torch.allclose(y_gpu.cpu(), y, atol=1e-4)
    assert torch.allclose(state_gpu.outer.cpu(), state.outer, atol=1e-4)
    cut = x.to(GPU).reshape(2, 45, 2, 16).transpose(1, 2)
    fast = titans_chunked(there.params, there.start(2), cut, rule=there.rule)
    slow = titans_naive(there.params, there.start(2), cut, rule=there.rule)
    assert torch.allclose(fast[0], slow[0], atol=1e-4)
    assert torch.allclose(fast[1].inner, slow[1].inner, atol=1e-4)


def test_a_hope_block_learns_on_a_gpu_what_it_learns_on_the_cpu():
    x, losses = torch.randn(4, 40, 16), {}
    for device in ("cpu", GPU):
        torch.manual_seed(0)
        block = HopeBlock(16, schedule=Schedule(periods=(4, 16))).to(device)
        optimizer = M3(block.parameters(), lr=0.01)
        told = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = ((block(x.to(device)).y - x.to(device).roll(1, 1)) ** 2).mean()
            loss.backward()
            optimizer.step()
            told.append(float(loss.detach()))
        losses[device] = told
    assert losses[GPU] == pytest.approx(losses["cpu"], rel=0.02)
    assert losses[GPU][-1] < losses[GPU][0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_attached_memory_reads_on_a_gpu_as_on_the_cpu_and_its_state_goes_from_one_to_the_other(memory, kind):
    model = tiny(kind)
    with memory.attach(model, Bytes(), user_id="here") as lm:
        said = lm.read(STORY).surprise
        weights = lm.snapshot().weights
    model = model.to(GPU)
    ids = torch.tensor([list(b"the code of the blue door is 4711")], device=GPU)
    with torch.no_grad():
        before = model(ids).logits
    with memory.attach(model, Bytes(), user_id="there") as lm:
        read = lm.read(STORY)
        assert lm.snapshot().weights.device.type == GPU
        assert np.allclose(read.surprise, said, atol=2e-2)
        assert torch.allclose(lm.snapshot().weights.cpu(), weights, atol=2e-3)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    with memory.attach(model.cpu(), Bytes(), user_id="there") as lm:
        assert lm.snapshot().weights.device.type == "cpu"
        assert torch.allclose(lm.snapshot().weights, weights, atol=2e-3)


def counted(model):
    """What counts the passes of a model that Python makes, without a hook."""
    passes, forward = [], type(model).forward

    @wraps(forward)
    def noted(*given, **named):
        passes.append(1)
        return forward(model, *given, **named)

    model.forward = noted
    return passes


@pytest.mark.parametrize("kind", ["llama", "qwen", "gemma"])
def test_a_long_text_is_read_from_recordings_as_it_is_on_the_cpu(memory, kind):
    model, told = tiny(kind, positions=1 << 14), {}
    for device in ("cpu", GPU):
        passes = counted(model.to(device))
        with memory.attach(model, Bytes(), user_id=device) as lm:
            told[device] = lm.read(STORY * 6).surprise, lm.snapshot().weights.cpu(), len(passes)
    assert np.allclose(told[GPU][0], told["cpu"][0], atol=5e-2)
    assert torch.allclose(told[GPU][1], told["cpu"][1], atol=5e-3)
    assert told[GPU][2] < told["cpu"][2] / 2


def test_a_model_with_hooks_of_others_is_read_chunk_by_chunk(memory):
    model, told = tiny(positions=1 << 14).to(GPU), {}
    for hooked in (False, True):
        seen, passes = [], counted(model)
        hook = model.register_forward_hook(lambda _, given, y, seen=seen: seen.append(float(y.logits[0, -1, 0])))
        if not hooked:
            hook.remove()
        with memory.attach(model, Bytes(), user_id=f"{hooked}") as lm:
            told[hooked] = lm.read(STORY * 6).surprise, len(passes)
        hook.remove()
    assert np.allclose(told[True][0], told[False][0], atol=1e-2)
    assert told[True][1] == len(seen) > 2 * told[False][1]


def test_a_batch_of_users_reads_in_bfloat16_with_a_cache_on_a_gpu(memory):
    model = tiny(dtype=torch.bfloat16).to(GPU)
    with memory.attach(model, Bytes(), user_id=["ana", "bo"]) as both:
        both.read([STORY, STORY[:70]])
        prompt = torch.tensor([list(b"the code of"), list(b"I will neve")], device=GPU)
        made = model.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert made.shape == (2, 15)
        assert both.snapshot().tokens.tolist() == [len(STORY) + 14, 70 + 14]


@pytest.fixture(scope="module")
def words():
    return numbered()


def test_a_band_trained_on_a_gpu_says_what_one_from_the_cpu_says(words):
    bands = {device: train(build(), words, LESSONS, recipe=QUICK, device=device) for device in ("cpu", GPU)}
    model = build()
    before = [logits(model, words, text) for text in OTHERS]
    forms = [form for one in LESSONS for form in one.forms]
    told = {}
    for device, (expert, report) in bands.items():
        assert set(expert.items) == set(FACTS) and not report.shut
        with applied(model, words, [expert]):
            told[device] = probes.losses(model, words, forms)
            assert all(torch.equal(logits(model, words, text), b) for text, b in zip(OTHERS, before, strict=True))
    untaught = probes.losses(model, words, forms).mean()
    assert told["cpu"].mean() < 0.8 * untaught  # bfloat16 on the GPU, float32 on the CPU
    assert float(told[GPU].mean()) == pytest.approx(float(told["cpu"].mean()), abs=0.05 * float(untaught))
    assert np.allclose(bands[GPU].report.losses[0], bands["cpu"].report.losses[0], rtol=0.1, atol=0.1)


def test_training_goes_to_the_gpu_unless_told_and_the_model_comes_home(words):
    model, devices = build(), set()
    hook = model.register_forward_hook(lambda *_: devices.add(next(model.parameters()).device.type))
    train(model, words, LESSONS, recipe=Recipe(steps=2))
    hook.remove()
    assert devices == {GPU}
    assert next(model.parameters()).device.type == "cpu"


def test_a_stopped_training_on_a_gpu_goes_on_to_the_same_band(words, tmp_path, monkeypatch):
    monkeypatch.setattr("memkit.slow.lm.checkpoints.due", lambda: True)
    whole = train(build(), words, LESSONS, recipe=QUICK, device=GPU).expert

    def stop(progress):
        if progress.step == 16:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(build(), words, LESSONS, recipe=QUICK, device=GPU, progress=stop, checkpoint=tmp_path / "a.sleep")
    again = train(build(), words, LESSONS, recipe=QUICK, device=GPU, checkpoint=tmp_path / "a.sleep").expert
    assert again.items == whole.items
    assert torch.allclose(again.values, whole.values, atol=2e-3)


def test_no_step_of_training_waits_for_the_device(words):
    """Five times the steps synchronise no more often; transformers looks at its mask once a step, which is its own."""
    waits = {}
    for steps in (8, 8, 40):  # the first is to warm up
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                train(build(), words, LESSONS, recipe=QUICK._replace(steps=steps), device=GPU)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        places = [f"{one.filename}:{one.lineno}" for one in caught if "synchronizing" in str(one.message)]
        waits[steps] = [place for place in places if "masking_utils" not in place]
    more = set(waits[40]) & {place for place in waits[40] if waits[40].count(place) > waits[8].count(place) + 4}
    assert not more, sorted(more)
