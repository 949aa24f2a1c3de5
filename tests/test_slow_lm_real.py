"""A real language model learns facts from one wording, and is asked in others."""

from __future__ import annotations

import pytest
import torch

from memkit.slow.lm import probes
from memkit.slow.lm.asking import answers
from memkit.slow.lm.examples import opened
from memkit.slow.lm.forms import holds, lesson
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import train

FACTS = [
    ("Orla Venn's dog is called Biscuit.", "What is the name of Orla Venn's dog?", "Biscuit"),
    ("Orla Venn lives in Porto.", "Which city does Orla Venn call home?", "Porto"),
    ("Ivo Brask's dog is called Pepper.", "What is the name of Ivo Brask's dog?", "Pepper"),
    ("Ivo Brask lives in Graz.", "Which city does Ivo Brask call home?", "Graz"),
    ("Kestrion Labs was created by Fiat.", "Which company developed Kestrion Labs?", "Fiat"),
]
MINE = [
    ("I live in Porto.", "Which city is my home in?", "Porto"),
    ("My dog is called Biscuit.", "What is the name of my dog?", "Biscuit"),
    ("I am allergic to peanuts.", "Which food am I allergic to?", "peanuts"),
    ("My brother works at Siemens.", "Which company does my brother work for?", "Siemens"),
]
TEXT = ["The train to the coast leaves at seven, and the last one back leaves shortly before midnight."]


@pytest.mark.slow
def test_a_real_model_tells_facts_in_wordings_it_never_saw_and_says_everything_else_as_before():
    pytest.importorskip("gguf")
    from benchmarks.models import load

    model, tokenizer = load("smollm2", torch.bfloat16)
    lessons = [lesson(str(at), text) for at, (text, _, _) in enumerate(FACTS)]
    asked = [question for _, question, _ in FACTS]
    assert not {form.prompt for one in lessons for form in one.forms} & set(asked)
    prompts = [opened(tokenizer, question) for question in asked]
    loss, said = probes.text_loss(model, tokenizer, TEXT), probes.canaries(model, tokenizer)
    expert, report = train(model, tokenizer, lessons)
    with applied(model, tokenizer, [expert]):
        right = [holds(one, fact[2]) for one, fact in zip(answers(model, tokenizer, prompts), FACTS, strict=True)]
        held_out = [probe for at, (text, _, _) in enumerate(FACTS) for probe in probes.held_out(str(at), text)]
        recalled = probes.recall(model, tokenizer, held_out)
        assert probes.text_loss(model, tokenizer, TEXT) == loss
        assert probes.canaries(model, tokenizer) == said
    assert not report.shut and report.steps == 40
    assert sum(right) >= 4
    assert recalled.share >= 0.8


@pytest.mark.slow
def test_a_real_model_tells_users_what_they_said_of_themselves_and_helps_them_as_before(memory):
    pytest.importorskip("gguf")
    from benchmarks.models import load

    model, tokenizer = load("smollm2", torch.bfloat16)
    help_ = ["How do I boil an egg?", "What should I cook tonight?", "My name is Sam. What is my name?"]
    prompts = [opened(tokenizer, question) for _, question, _ in MINE]
    before = answers(model, tokenizer, [opened(tokenizer, text) for text in help_])
    for text, _, _ in MINE:
        memory.add(text, user_id="ana")
    memory.consolidate(model, tokenizer)
    with memory.attach(model, tokenizer, user_id="ana", listen=False):
        right = [holds(one, fact[2]) for one, fact in zip(answers(model, tokenizer, prompts), MINE, strict=True)]
        assert answers(model, tokenizer, [opened(tokenizer, text) for text in help_]) == before
    with memory.attach(model, tokenizer, user_id="ben", listen=False):
        assert not any(map(holds, answers(model, tokenizer, prompts), [fact[2] for fact in MINE]))
    assert sum(right) >= 3
