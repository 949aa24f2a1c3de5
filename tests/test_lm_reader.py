"""The reader of a stream: a long text in stretches of alike chunks is read as it is chunk by chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lm_support import KINDS, Bytes, tiny

from memkit.fast.lm import reader
from memkit.fast.lm.reader import FastWeights, Reader
from memkit.fast.lm.stretch import WORTH, Stretch, hooked, recordable
from memkit.fast.lm.weights import Rule
from memkit.slow.lm.slots import Slots

CHUNK, WINDOW, PIECE, RULE = 16, 48, 48, Rule()
LONG = (WORTH + 12) * CHUNK + 5  # tokens


@pytest.fixture
def stretches(monkeypatch):
    """How many chunks each stretch had."""
    read: list[list[int]] = []

    class Noted(Stretch):
        def begin(self, *given):
            super().begin(*given)
            read.append([])

        def read(self, *given):
            read[-1].append(1)
            return super().read(*given)

    monkeypatch.setattr(reader, "Stretch", Noted)
    return lambda: [len(one) for one in read]


def rows(*lengths):
    drawn = torch.Generator().manual_seed(7)
    return [torch.randint(0, 256, (length,), generator=drawn).tolist() for length in lengths]


def read(model, texts, pieces=10**6, rule=RULE):
    """What is read in pieces of so many tokens: surprise of each row, the state, and what is in view."""
    fast = FastWeights(model, 8)
    fast.install()
    one = Reader(model, fast, users=len(texts), window=WINDOW, chunk=CHUNK, first=256)
    state, found = fast.start(len(texts)), [[] for _ in texts]
    for at in range(0, max(map(len, texts)), pieces):
        state, surprise = one.read(state, [text[at : at + pieces] for text in texts], rule)
        for row, told in zip(found, surprise, strict=True):
            row.append(told)
    fast.remove()
    return [np.concatenate(row) for row in found], state, one.view()


@pytest.mark.parametrize("rule", [Rule(), None])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stretch_is_read_as_its_chunks_are(kind, rule, stretches):
    model, texts = tiny(kind), rows(LONG, LONG)
    whole, state, (window, ahead) = read(model, texts, rule=rule)
    assert stretches() == [WORTH + 12 - 3]  # three chunks until the window is full
    parts, wanted, (seen, next_) = read(model, texts, PIECE, rule)
    assert len(stretches()) == 1
    for one, other in zip(whole, parts, strict=True):
        assert np.allclose(one, other, atol=1e-4)
    assert torch.allclose(state.weights, wanted.weights, atol=1e-5)
    assert torch.allclose(state.momentum, wanted.momentum, atol=1e-5)
    assert state.tokens.tolist() == wanted.tokens.tolist()
    assert torch.equal(window.position, seen.position) and ahead == next_
    assert torch.allclose(window.cache.layers[-1].keys, seen.cache.layers[-1].keys, atol=1e-4)


def test_a_stretch_ends_with_its_shortest_row(stretches):
    read(tiny(), rows(LONG, LONG - 5 * CHUNK))
    assert stretches() == [WORTH + 12 - 3 - 5]


def test_a_stretch_ends_where_positions_do(stretches):
    whole, *_ = read(tiny(positions=512), rows(3 * LONG))
    assert stretches() and max(stretches()) * CHUNK < 512
    parts, *_ = read(tiny(positions=512), rows(3 * LONG), PIECE)
    assert np.allclose(whole[0], parts[0], atol=1e-3)


def test_what_was_in_view_stays_as_it_was(stretches):
    model = tiny()
    fast = FastWeights(model, 8)
    fast.install()
    one = Reader(model, fast, users=1, window=WINDOW, chunk=CHUNK, first=256)
    state, _ = one.read(fast.start(1), rows(5 * CHUNK), Rule())
    view, weights = one.view(), state.weights.clone()
    told = []
    for _ in range(2):
        one.look(view)
        view = one.view()
        told.append(one.read(state, rows(LONG), Rule())[1][0])
    assert len(stretches()) == 2 and np.array_equal(*told)
    assert torch.equal(state.weights, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_exact_above_and_in_the_highest_of_the_lower_places(kind):
    model = tiny(kind, layers=12).requires_grad_(False)
    fast = FastWeights(model, 8)
    fast.install()
    ids = torch.tensor(rows(20, 20))
    values = [0.1 * torch.randn_like(one) for one in fast.start(2).weights.unbind(1)]
    seen = {}
    for lower in (fast.lower, 0):
        fast.lower = lower
        with fast.acting(values, learns=True) as acting:
            hidden = model(ids, output_hidden_states=True).hidden_states[-1]
        signal = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
        seen[lower] = fast.gradient(acting, hidden, signal)
    fast.remove()
    assert torch.allclose(seen[2][:, 1:], seen[0][:, 1:], atol=1e-5)
    below = torch.nn.functional.cosine_similarity(seen[2][:, 0].flatten(), seen[0][:, 0].flatten(), dim=0)
    assert 0.1 < below < 0.999


def test_hooks_of_others_are_noticed_and_those_of_reading_are_none(memory):
    model = tiny()
    with memory.attach(model, Bytes()) as lm:
        assert not hooked(model) and not recordable(model)  # there is no GPU under it
        hook = model.model.layers[0].register_forward_pre_hook(lambda *_: None)
        assert hooked(model)
        lm.read("Hooked, and read all the same.")
        hook.remove()
        assert not hooked(model)
    with Slots(model, None):
        assert hooked(model)
    assert not hooked(model)
