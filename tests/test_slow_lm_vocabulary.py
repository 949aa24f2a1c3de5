"""A user's own words: which sentences explain one, which do not, and what is learned of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.slow.lm.anchors import ANCHORS, TEXTS
from memkit.slow.lm.forms import lesson, sentences
from memkit.slow.lm.probes import held_out
from memkit.slow.lm.vocabulary import definition, is_usual


@pytest.mark.parametrize(
    ("text", "term", "meaning"),
    [
        ("A zibbet is a short coffee break.", "zibbet", "a short coffee break"),
        ("In our team, a flonk is when two people talk at once.", "flonk", "when two people talk at once"),
        ("A glimp here is a bug that only one customer sees.", "glimp", "a bug that only one customer sees"),
        ('By "blue run" we mean a release without migrations.', "blue run", "a release without migrations"),
        ("With blue run they always mean a quiet release", "blue run", "a quiet release"),
        ('When I say "the swamp" I mean the legacy code.', "swamp", "the legacy code"),
        ("We call the small meeting room the aquarium.", "aquarium", "the small meeting room"),
        ('They call the printer upstairs "Big Bertha".', "Big Bertha", "the printer upstairs"),
        ("Frobbing is our word for cleaning test data.", "frobbing", "cleaning test data"),
        ("brb is short for be right back", "brb", "be right back"),
        ('"Snorkeling" means reviewing a PR quickly.', "snorkeling", "reviewing a PR quickly"),
        ("zorbing for us means deploying on a weekend", "zorbing", "deploying on a weekend"),
        ("zorbing = weekend deploy", "zorbing", "weekend deploy"),
        ("QBR stands for quarterly business review", "QBR", "quarterly business review"),
        ("P2 is an abbreviation for priority two.", "P2", "priority two"),
    ],
)
def test_a_sentence_that_explains_a_word_makes_a_lesson_about_the_word(text, term, meaning):
    made = lesson("1", f"Good morning! {text}", speaker="ana")
    assert made.subject == term
    assert len(made.forms) == len(set(made.forms)) >= 8
    assert all(term.lower() in f"{form.prompt} {form.lead}".lower() for form in made.forms)
    assert {form.answer for form in made.forms} == {f"{meaning}."}
    assert any(form.prompt == f"What does {term} mean?" for form in made.forms)


@pytest.mark.parametrize(
    "text",
    [
        "A dog is an animal that barks.",
        "A trip is a great idea.",
        "The meeting is on Friday.",
        "Kickboxing is a great way to relax.",
        '"Yellow Submarine" is a song by the Beatles.',
        "This means war.",
        "Success means hard work.",
        "That means a lot to me.",
        "It stands for hope.",
        "The flag stands for freedom.",
        "I call my mother every day.",
        "We call the office a lot.",
        "We call the dentist the next day.",
        "We call our dog Biscuit.",
        "x = 5",
        "retval = foo(bar)",
        "total = price plus tax",
        "latency = end_time - start_time",
        "zibbet means zibbet",
        "zibbet means " + "very " * 16 + "long",
        "zibbet means " + "a" * 400,
        *ANCHORS,
        *TEXTS,
    ],
)
def test_other_sentences_explain_nothing(text):
    assert not any(definition(sentence) for sentence in sentences(text))


def test_usual_words_are_known_with_their_endings():
    assert all(map(is_usual, ("dog", "dogs", "boxes", "meeting", "making", "5")))
    assert not any(map(is_usual, ("zibbet", "zorbing", "brb", "qbr")))


PATTERNS = ("A {} is {}", "{} means {}", "{} stands for {}", "{} = {}", "By {} we mean {}", "{} is our word for {}")


@given(
    st.text("bcdfghjklmnpqrstvwxz", min_size=4, max_size=9).filter(lambda word: not is_usual(word)),
    st.lists(st.sampled_from("short coffee break with friends on monday".split()), min_size=2, max_size=6),
    st.sampled_from(PATTERNS),
)
def test_what_is_asked_of_a_word_is_never_among_what_is_taught(term, meaning, pattern):
    text = pattern.format(term, " ".join(["the", *meaning]))
    made, probes = lesson("1", text), held_out("1", text)
    assert made.subject == term and len(probes) == 3
    assert all(probe.form.answer == " ".join(meaning) for probe in probes)
    assert not {(p.form.prompt, p.form.lead) for p in probes} & {(form.prompt, form.lead) for form in made.forms}
