"""The benchmarks of attached models on a small scale: their figures mean what they say they mean."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import slow_lm_support
import torch
from lm_support import Bytes, tiny

from benchmarks.lm import facts, oneself, reading, speed, style, training, vocabulary
from benchmarks.lm.streams import Stream, retrieved, streams, thirds, unrelated
from benchmarks.lm.systems import RMS, Exact, Fewer, Plain, Raw, Slots, Whole, in_prompt, read
from memkit.fast.lm.attached import CHUNK
from memkit.fast.lm.reader import FastWeights
from memkit.fast.lm.weights import Rule
from memkit.slow.lm.forms import lesson
from memkit.slow.lm.own import asked
from memkit.slow.lm.probes import held_out

TEXT = list(b"the code of the blue door is 4711. " * 20)
FIRST = Bytes.bos_token_id


class Letters(Bytes):
    """Bytes that can be read back, and come as a tokenizer gives them."""

    def decode(self, ids, **_):
        return bytes(min(int(token), 255) for token in ids).decode(errors="replace")


def test_a_conversation_becomes_the_first_tokens_of_its_lines(tmp_path):
    turns = [{"id": "1", "speaker": "Ana", "text": "hello"}, {"id": "2", "speaker": "user", "text": "hi"}]
    path = tmp_path / "chat.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"dataset": "x", "turns": turns, "questions": []}).encode()))
    assert streams([path], Bytes(), 14) == [Stream("x chat", list(b"Ana: hello\nuse"))]


def test_thirds_are_means_of_equal_parts():
    assert thirds(np.array([1, 1, 2, 2, 3, 3, 9.0])) == [1, 2, 3]


def test_retrieval_finds_the_block_that_shares_tokens_and_never_looks_ahead():
    stream = [1] * 64 + [2] * 64 + [3] * 64 + [4] * 64
    assert retrieved(stream, 192, [2, 2], 64) == [2] * 64
    assert retrieved(stream, 192, [2, 3], 128) == [2] * 64 + [3] * 64
    assert 4 not in retrieved(stream, 192, [4], 192)
    assert retrieved(stream, 63, [1], 64) == []


@pytest.mark.parametrize("rule", [Rule(), Plain(), RMS(rate=1e-3)])
def test_each_rule_learns_from_a_stream_that_repeats_and_scores_before_it_learns(rule):
    model = tiny()
    frozen = read(model, FIRST, [TEXT], TEXT[:90], None, rank=16)
    learned = read(model, FIRST, [TEXT], TEXT[:90], rule, rank=16)
    assert learned.surprise[0][:CHUNK] == pytest.approx(frozen.surprise[0][:CHUNK], abs=1e-4)
    assert learned.surprise[0][-200:].mean() < frozen.surprise[0][-200:].mean()
    assert not model.model.layers[-1].mlp.down_proj._forward_hooks


def test_in_place_is_the_whole_map():
    model = tiny()
    whole = read(model, FIRST, [TEXT, TEXT[:100]], [], RMS(), fast=Whole)
    place = model.model.layers[-1].mlp.down_proj.weight.numel()
    assert whole.size == 2 * 4 * 2 * place  # weights and mean squares of two layers in float32
    assert [len(one) for one in whole.surprise] == [len(TEXT), 100]


@pytest.mark.parametrize("fast", [Raw, Fewer, Exact])
def test_ablations_learn_in_their_own_way(fast):
    model = tiny(layers=12)
    usual, other = (read(model, FIRST, [TEXT], [], Rule(), fast=one) for one in (FastWeights, fast))
    assert other.surprise[0][:CHUNK] == pytest.approx(usual.surprise[0][:CHUNK], abs=1e-4)
    assert abs(other.surprise[0] - usual.surprise[0])[-200:].max() > 1e-3


def test_in_the_prompt_a_chunk_sees_the_window_and_what_was_retrieved():
    model = tiny()
    whole = in_prompt(model, FIRST, TEXT[:128], 0, 0)
    ids = torch.tensor([[FIRST, *TEXT[:128]]])
    with torch.no_grad():
        scores = -model(ids).logits[0, :-1].log_softmax(-1)[range(128), TEXT[:128]]
    assert whole == pytest.approx(scores.numpy(), abs=1e-4)
    assert len(in_prompt(model, FIRST, TEXT, 512, 192)) == len(TEXT) - 512


def test_slots_say_what_followed_a_state_before_and_nothing_of_states_never_met():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(CHUNK, 32, generator=generator)
    tokens, hard = list(range(CHUNK)) * 2, np.full(2 * CHUNK, 5.0, np.float32)
    again = Slots(nearest=1, most=0.5).read(torch.cat([states, states]), tokens, hard)
    assert again[:CHUNK] == pytest.approx(5.0)
    assert again[CHUNK:].max() < 1.0
    other = Slots(nearest=1).read(torch.cat([states, torch.randn(CHUNK, 32, generator=generator)]), tokens, hard)
    assert other[CHUNK:].max() < 5.2


def test_the_reading_table_has_a_row_a_system_and_compares_with_frozen():
    rows = [Stream("a", TEXT[:300]), Stream("b", TEXT[35:260])]
    wanted = ["frozen", "2x", "anew", "retrieval", "attached", "slots"]
    table = reading.measure(tiny(), FIRST, rows, TEXT[:70], wanted)
    assert list(table) == [
        "frozen", "frozen + slots", "attached", "attached + slots", "frozen, window x 2", "frozen, window anew",
        "frozen, window anew + retrieval of 192",
    ]  # fmt: skip
    assert table["attached"]["thirds"][0][2] < table["frozen"]["thirds"][0][2]
    assert table["frozen"]["bytes"] == 0 < table["attached"]["bytes"]
    shown = reading.show(table, ["a", "b"])
    assert shown.count("| frozen |") == 2
    assert "+0.0 %" in shown


def test_the_facts_stand_in_the_chat_once_and_are_asked_in_other_words(memory):
    chat = facts.planted([f"Ana: line {n}" for n in range(60)])
    assert len(chat) == 60 + len(facts.FACTS)
    for statement, question, answer in facts.FACTS:
        assert sum(statement in line for line in chat) == 1
        assert answer.lower() in statement.lower()
        assert answer.lower() not in question.lower()
        assert statement.lower() not in question.lower()


def test_every_condition_of_the_facts_is_scored(memory, monkeypatch):
    monkeypatch.setattr(facts, "FACTS", facts.FACTS[:2])
    monkeypatch.setattr(facts, "ANSWER", 2)
    chat = facts.planted([f"Ana: line {n}" for n in range(6)])
    memory.add([{"role": "user", "content": line} for line in chat])
    scores = facts.measure(tiny(), Letters(), memory, chat, 60)
    frozen, prompted = scores["frozen"], scores["frozen, recall in the prompt"]
    assert prompted.prompt > frozen.prompt
    assert scores["recall read into the state, 8 x"].prompt == frozen.prompt
    assert scores["recall read into the state, 8 x"].loss != frozen.loss
    assert facts.show(scores).count("\n") == 1 + len(scores)


def test_speeds_are_told_of_each_way_and_the_state_is_bounded(tmp_path):
    rates, held, kept = speed.measure(tiny(), Letters(), 130, tmp_path)
    assert set(rates) == {"prefill, one call", "prefill in chunks", "reading with memory"}
    assert min(rates.values()) > 0
    assert 0 < kept < held


def test_unrelated_text_is_passages(tmp_path):
    path = tmp_path / "nq.jsonl"
    path.write_text(json.dumps({"id": "1", "title": "T", "passage": "body", "question": "q"}), encoding="utf-8")
    assert unrelated(path, Bytes(), 100) == list(b"T. body")


def test_training_is_timed_on_each_device_and_says_what_was_learned(monkeypatch, capsys):
    monkeypatch.setattr(training, "load", lambda *_: (slow_lm_support.build(), slow_lm_support.numbered()))
    monkeypatch.setattr(training, "lessons", lambda: slow_lm_support.LESSONS)
    training.main(["--devices", "cpu", "--dtypes", "float32"])
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| | s | first loss | last loss | all forms |"
    name, seconds, first, last, forms = row.strip("| ").split(" | ")
    assert name == "cpu, float32"
    assert float(seconds) > 0
    assert float(last) < float(first)
    assert float(forms) > 0


def test_the_facts_that_training_is_timed_with_are_all_lessons():
    found = training.lessons()
    assert len(found) == 16
    assert {one.subject for one in found} == set(training.PEOPLE)


def test_every_word_is_explained_to_the_rules_and_asked_for_in_wordings_of_its_own():
    for text, term, meaning in vocabulary.WORDS:
        made = lesson("1", text)
        assert made.subject == term.removeprefix("the ")
        trained = {(form.prompt, form.lead) for form in made.forms} | {
            (probe.form.prompt, probe.form.lead) for probe in held_out("1", text)
        }
        found = vocabulary.asked(term, meaning)
        assert len(found) == 3
        assert not {(probe.form.prompt, probe.form.lead) for probe in found} & trained
        assert all(meaning in form.answer for form in made.forms)


def test_words_are_told_before_and_after_a_sleep(monkeypatch, capsys):
    monkeypatch.setattr(vocabulary, "load", lambda *_: (slow_lm_support.build(), slow_lm_support.numbered()))
    monkeypatch.setattr(vocabulary, "WORDS", vocabulary.WORDS[:1])
    vocabulary.main([])
    head, _, row, _, reasons = capsys.readouterr().out.splitlines()
    assert head == "| words | told before | told after | everyday | text | s |"
    assert row.startswith("| 1 | 0% | 0% | 8 of 8 | +0.00% | ")
    assert reasons.startswith("nothing new was learned")


def test_of_a_conversation_the_first_messages_are_taught_and_the_next_are_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(style, "load", lambda *_: (slow_lm_support.build(), slow_lm_support.numbered()))
    monkeypatch.setattr(style, "TAUGHT", 40)
    turns = [
        {"id": f"D1:{at}", "session": "1", "speaker": ("Ana", "Ben")[at % 2], "text": f"oh well it is number {at}"}
        for at in range(120)
    ]
    path = tmp_path / "chat.json.gz"
    path.write_bytes(
        gzip.compress(json.dumps({"dataset": "x", "sample": "chat", "turns": turns, "questions": []}).encode())
    )
    cut = style.parts(style.conversations(path)[0])
    assert (cut.name, cut.other) == ("Ana", "Ben")
    assert [one["content"] for one in cut.before] == [turn["text"] for turn in turns[:79]]
    assert cut.later[0] == turns[80]["text"] and cut.others[0] == turns[79]["text"]
    style.main(["--data", str(path)])
    head, _, row, _, note = capsys.readouterr().out.splitlines()
    assert head == style.HEAD
    assert row.startswith("| Ana | ")
    assert " | 8 of 8 | +0.00% | " in row
    assert note.startswith("Ana: ")
    monkeypatch.setattr(style, "TAUGHT", 55)
    with pytest.raises(SystemExit, match="fewer than eight"):
        style.parts(style.conversations(path)[0])


def test_what_ana_says_of_herself_is_a_lesson_each_and_asked_for_in_wordings_of_its_own():
    everything = oneself.said(72)
    assert len(everything) == 72 and oneself.said(8) == everything[:8]
    for text, *questions, value in everything:
        made = lesson("1", text, speaker=oneself.USER, own=True)
        trained = {form.prompt for form in (*made.forms, *made.own.forms)}
        trained |= {probe.form.prompt for probe in held_out("1", text, speaker=oneself.USER, own=True)}
        assert not {*questions, *map(oneself.about, questions)} & trained
        assert all(asked(question) for question in questions) and value in text
    assert all(asked(question) for question in oneself.UNKNOWN)
    assert not any(asked(request) for request in oneself.EVERYDAY)
    assert oneself.about("Which food am I allergic to?") == "Which food is Ana allergic to?"
    assert oneself.about("What is my uncle called?") == "What is Ana's uncle called?"


def test_what_ana_said_is_asked_for_after_a_sleep(monkeypatch, capsys):
    monkeypatch.setattr(oneself, "load", lambda *_: (slow_lm_support.build(), slow_lm_support.numbered()))
    oneself.main(["--facts", "1"])
    reasons, _, head, _, row = capsys.readouterr().out.splitlines()
    assert reasons.startswith("1: ")
    assert head.count("|") == row.count("|") == 9
    assert row.startswith("| 1 | ")
