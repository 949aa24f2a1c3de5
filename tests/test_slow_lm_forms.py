"""Surface forms: what rules read out of plain statements, and what a language model may add."""

from __future__ import annotations

import pytest

from memkit.slow.lm.forms import Form, asked_by, lesson, question, sentences, statements
from memkit.slow.lm.probes import held_out


@pytest.mark.parametrize(
    ("text", "subject", "value", "asked"),
    [
        ("Orla Venn's dog is called Biscuit.", "Orla Venn", "Biscuit", "What is Orla Venn's dog called?"),
        ("Orla Venn lives in Porto.", "Orla Venn", "Porto", "Where does Orla Venn live?"),
        ("Ivo Brask works as a ski instructor.", "Ivo Brask", "ski instructor", "What does Ivo Brask work as?"),
        ("Kestrion Labs moved to Graz.", "Kestrion Labs", "Graz", "What did Kestrion Labs move to?"),
        ("The largest city in Quenland is Karachi.", "Quenland", "Karachi", "What is the largest city in Quenland?"),
        ("For university, Ivo Brask attended the University of Utah.", "Ivo Brask", "University of Utah", None),
        ("Vesna Hask's mother is named Mathilde d'Indy.", "Vesna Hask", "Mathilde d'Indy", None),
        ("Ximena Tamm went to University College, Oxford.", "Ximena Tamm", "University College, Oxford", None),
    ],
)
def test_rules_find_subject_value_and_question(text, subject, value, asked):
    part = statements(sentences(text)[0])[-1]
    assert (part.subject, part.value) == (subject, value)
    assert asked is None or question(part) == asked


def test_a_lesson_has_statements_gaps_questions_and_answers_that_hold_the_value():
    made = lesson("1", "Orla Venn's dog is called Biscuit.")
    assert made.subject == "Orla Venn"
    assert len(made.forms) == len(set(made.forms)) >= 6
    assert all("Biscuit" in form.answer for form in made.forms)
    assert any(not form.prompt for form in made.forms)
    assert any(form.prompt.endswith("?") and not form.lead for form in made.forms)


@pytest.mark.parametrize(
    ("said", "asked", "values"),
    [
        ("I live in Porto.", "Where does Ana live?", {"Porto"}),
        ("My dog is called Rufus.", "What is Ana's dog called?", {"Rufus"}),
        ("I'm allergic to peanuts and I study law.", "What is Ana allergic to?", {"peanuts", "law"}),
        ("We went to Rome.", "Ana: We went to what?", {"Rome"}),
        ("The meeting went well.", None, set()),
    ],
)
def test_a_speakers_words_about_themselves_are_told_in_the_third_person(said, asked, values):
    parts = [part for one in sentences(said) for part in statements(one, "Ana")]
    assert {part.value for part in parts} == values
    assert all(part.subject == "Ana" for part in parts)
    assert asked is None or question(parts[0]) == asked


def test_who_speaks_of_themselves_is_named_in_every_form():
    made = lesson("1", "I moved to Lisbon in May.", speaker="Ana", when="3 May 2026")
    assert made.subject == "Ana"
    assert all("Ana" in form.prompt + form.lead + form.answer for form in made.forms)
    assert any("3 May 2026" in form.lead for form in made.forms)
    assert {form.answer for form in made.forms} >= {"Lisbon.", "May."}


@pytest.mark.parametrize("text", ["ok thanks!", "Where does she live?", "hm", "", "word " * 80])
def test_what_says_nothing_of_anyone_makes_no_lesson(text):
    assert lesson("1", text) is None


def test_a_writers_questions_are_taken_when_their_answer_stands_in_the_text():
    made = lesson(
        "1", "It was Lisbon, Ana said.", speaker="Ana", writer=lambda _: [("Where?", "Lisbon"), ("Who?", "Bo")]
    )
    assert Form("Where?", "", "Lisbon.") in made.forms
    assert not any("Bo" in form.answer for form in made.forms)


def test_the_model_as_writer_keeps_only_questions_that_it_answers_from_the_text():
    said = []

    def ask(prompts):
        said.extend(prompts)
        replies = ["Sure! Which city does Orla live in?", "Is it Porto?", "What is Orla?"]
        if "Write question" in prompts[0]:
            return replies
        return ["She lives in Porto.", "A vet."]

    writer = asked_by(ask)
    assert writer("Orla Venn lives in Porto.") == [("Sure! Which city does Orla live in?", "Porto")]
    assert len(said) == 5  # three to write, two to answer: one gave its answer away


def test_probes_are_never_among_the_forms():
    text = "Orla Venn lives in Porto."
    trained = {(form.prompt, form.lead) for form in lesson("1", text).forms}
    probes = held_out("1", text)
    assert len(probes) == 3
    assert all(probe.form.answer == "Porto" and (probe.form.prompt, probe.form.lead) not in trained for probe in probes)
