"""What is wanted of a subject: questions that its slots answer open them in a chat, and others leave the model as it is."""

from __future__ import annotations

import pytest
import torch
from slow_lm_support import Words, build

from memkit.slow.lm.ear import LONGEST, Ear, Heard
from memkit.slow.lm.examples import opened, plain
from memkit.slow.lm.expert import from_arrays, to_arrays
from memkit.slow.lm.forms import Lesson, lesson
from memkit.slow.lm.person import first
from memkit.slow.lm.questions import WHATEVER, keys, wish
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import Recipe, train

QUICK = Recipe(steps=24, rate=0.05, keep=0.5)
FACTS = {"city": "Orla Venn lives in Porto.", "job": "Ivo Brask works as a plumber."}
LIKE = (
    "Where does Orla Venn live?",
    "Which city does Orla Venn call home?",
    "Hi! I forgot something. Where does Orla Venn live?",
    "Where does Orla Venn live? Answer briefly.",
    "Tell me about Orla Venn.",
    "What do you know about Orla Venn?",
    "Complete: Orla Venn lives in ...",
)
UNLIKE = (
    "How old is Orla Venn?",
    "What is the capital of France? Orla Venn does not know.",
    "Write a poem about Orla Venn.",
    "Orla Venn says hi. How do I boil an egg?",
)


@pytest.fixture(scope="module")
def words():
    """A tokenizer that can spell what these tests say; other words share numbers."""
    found = Words()
    for text in (*FACTS.values(), *LIKE, *UNLIKE, "And where does she live?", "Is it far?", "Thank you."):
        opened(found, text)
    return found


@pytest.fixture(scope="module")
def taught(words):
    """A llama, and a band of two people."""
    model = build()
    return model, train(model, words, [lesson(name, text) for name, text in FACTS.items()], recipe=QUICK).expert


def after(model, words, text, *chain):
    """Logits at each token of a chat that ends with a question, or of a text."""
    with applied(model, words, chain), torch.no_grad():
        return model(torch.tensor([text])).logits[0]


def test_a_subject_speaks_when_it_is_asked_for_what_is_known_of_it(words, taught):
    model, expert = taught
    for question in LIKE:
        asked = opened(words, question)
        assert not torch.equal(after(model, words, asked, expert)[-1], after(model, words, asked)[-1]), question


def test_a_question_that_no_item_answers_leaves_the_model_as_it_is(words, taught):
    model, expert = taught
    for question in UNLIKE:
        answer = plain(words, " Orla Venn is fine")  # naming the subject again opens nothing
        asked = opened(words, question) + answer
        assert torch.equal(after(model, words, asked, expert), after(model, words, asked)), question


def test_slots_are_shut_until_the_turn_is_over(words, taught):
    model, expert = taught
    asked = opened(words, LIKE[0])
    same = (after(model, words, asked, expert) == after(model, words, asked)).all(-1).tolist()
    assert same == [True] * (len(asked) - 1) + [False]


def test_in_plain_text_a_name_opens_them_whatever_is_asked(words, taught):
    model, expert = taught
    text = plain(words, UNLIKE[0])
    assert not torch.equal(after(model, words, text, expert)[-1], after(model, words, text)[-1])
    asked = opened(words, UNLIKE[0])
    assert not torch.equal(after(model, None, asked, expert)[-1], after(model, None, asked)[-1])


def test_who_was_named_last_is_asked_about_without_a_name(words, taught):
    model, expert = taught
    begun = opened(words, "Do you know Orla Venn?") + plain(words, " Yes.\n")
    for question, speaks in (("And where does she live?", True), ("How do I boil an egg?", False)):
        asked = begun + opened(words, question)[1:]
        moved = (after(model, words, asked, expert) != after(model, words, asked)).any(-1)
        assert bool(moved[-1]) == speaks, question


def test_decoding_step_by_step_is_one_pass(words, taught):
    model, expert = taught
    ids = (
        opened(words, LIKE[0])
        + plain(words, " In Porto .\n")
        + opened(words, UNLIKE[0])[1:]
        + plain(words, " Orla Venn")
    )
    whole, parts = after(model, words, ids, expert), []
    with applied(model, words, [expert]), torch.no_grad():
        out = model(torch.tensor([ids[:2]]), use_cache=True)
        for token in ids[2:]:
            cache = {"cache": out.cache} if hasattr(out, "cache") else {"past_key_values": out.past_key_values}
            out = model(torch.tensor([[token]]), use_cache=True, **cache)
            parts.append(out.logits[0, -1])
    assert torch.allclose(torch.stack(parts), whole[2:], atol=1e-4)


def test_a_band_from_before_speaks_whenever_its_subject_is_named(words, taught):
    model, expert = taught
    old = from_arrays({name: array for name, array in to_arrays(expert).items() if name not in {"asked", "asks"}})
    asked = opened(words, UNLIKE[0])
    text = after(model, None, asked, old)
    assert torch.equal(after(model, words, asked, old), text) and not torch.equal(text, after(model, words, asked))


def test_two_people_of_whom_the_same_is_known_are_not_learned_together(words):
    lessons = [lesson(name, f"{name} lives in Porto.") for name in ("Orla Venn", "Ivo Brask")]
    assert lessons[0].asked == lessons[1].asked
    expert = train(build(), words, lessons, recipe=QUICK._replace(steps=1)).expert
    assert expert.together({"Orla Venn"}) == {"Orla Venn"}


def test_the_meaning_of_a_word_is_wanted_wherever_it_is_read():
    assert lesson("1", "A zibbet is a short coffee break.").asked == ()


def test_what_a_writer_asks_is_asked_too():
    made = lesson("1", "Orla Venn lives in Porto.", writer=lambda _: [("Which town is Orla Venn's home?", "Porto")])
    assert made.asked == (("Where do I live?", "Porto"), ("I lives in", "Porto"), ("Which town is my home?", "Porto"))


def test_a_question_comes_with_the_answers_that_its_own_subject_has():
    one, two, other = (
        Lesson(name, "", about, (), (("Where do I live?", place),))
        for name, about, place in (("1", "Ana", "Porto"), ("2", "Ana", "Graz"), ("3", "Ben", "Oslo"))
    )
    assert keys([one, other], [two]) == [
        ["Where do I live? Porto.", "Where do I live? Graz."],
        ["Where do I live? Oslo."],
    ]


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("Where does Ana live?", "Where do I live?"),
        ("Is Ana's dog old?", "Is my dog old?"),
        ("And where does she live?", "And where do I live?"),
        ("What is her dog called?", "What is my dog called?"),
        ("Do you know him?", "Do you know I?"),
        ("", ""),
    ],
)
def test_a_question_about_somebody_is_compared_in_the_first_person(question, told):
    assert first(question, "Ana") == told


@pytest.mark.parametrize(
    ("text", "whatever"),
    [
        ("Tell me about I", True),
        ("Could you tell me more about I?", True),
        ("What do you know about I?", True),
        ("Who am I?", True),
        ("And I?", True),
        ("What about I?", True),
        ("Describe I", True),
        ("Tell me a joke about I", False),
        ("Where do I live?", False),
        ("", False),
    ],
)
def test_requests_for_all_that_is_known(text, whatever):
    assert bool(WHATEVER.fullmatch(text)) == whatever


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ("Where is it? Answer briefly.", "Where is it?"),
        ("Hi! Tell me about it.", "Tell me about it"),
        ("I like it. Is it far?", "Is it far?"),
        ("", ""),
    ],
)
def test_what_is_wanted_with_a_turn(turn, wanted):
    assert wish(turn) == wanted


def test_of_a_long_turn_its_end_is_kept(words):
    ear = Ear(words)
    ids = opened(words, "is " * 300 + "far. Is it far?")
    turns, _ = ear.row(ids, [False] * len(ids), Heard())
    last = turns[-1]
    assert last.text.endswith("Is it far?") and not last.whole and len(words(last.text)["input_ids"]) <= LONGEST
