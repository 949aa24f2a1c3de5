"""Questions that users ask about themselves: how they are told, what they open, and for whom."""

from __future__ import annotations

import pytest
import torch
from slow_lm_support import OTHERS, Words, build
from test_slow_lm_sleep import expert_of, sleep

from memkit.slow.gate import Verdict
from memkit.slow.lm import gate, own
from memkit.slow.lm.ear import Ear, Heard, Turn
from memkit.slow.lm.examples import opened
from memkit.slow.lm.expert import from_arrays, to_arrays
from memkit.slow.lm.forms import lesson
from memkit.slow.lm.questions import MOST, OWN, Wanted, near
from memkit.slow.lm.slots import applied
from memkit.slow.lm.train import Recipe, apart, train
from memkit.slow.lm.unrelated import unrelated

QUICK = Recipe(steps=24, rate=0.05, keep=0.5)
HOME, DOG = "Where do I live?", "What is my dog called?"
EGG = "How do I boil an egg?"
SAID = {"home": "I live in Porto.", "dog": "My dog is called Biscuit."}


@pytest.fixture(scope="module")
def words():
    """A tokenizer that can spell what these tests say; other words share numbers."""
    found = Words()
    asked = HOME, DOG, EGG, "Which city do I live in?", "Where does Ana live?", "Remind me where I live.", "Is it far?"
    for text in (
        *asked,
        *SAID.values(),
        "Thank you.",
        *(f"Question: {one}\nAnswer:" for one in (*asked, "How are you?")),
    ):
        found(text)
    return found


@pytest.fixture(scope="module")
def taught(words):
    """A llama, and a band of what Ana has said of herself."""
    model = build()
    lessons = [lesson(name, text, speaker="Ana", own=True) for name, text in SAID.items()]
    return model, train(model, words, lessons, recipe=QUICK).expert


def heard(model, words, question, bands=(), *, tokenizer=True):
    """Logits at the beginning of an answer."""
    with applied(model, words if tokenizer else None, list(bands)), torch.no_grad():
        return model(torch.tensor([opened(words, question)])).logits[0, -1]


@pytest.mark.parametrize(
    ("turn", "question"),
    [
        ("Where do I live?", "Where do I live?"),
        ("Hi! I forgot something. What is my dog called?", "What is my dog called?"),
        ("what is my sister called", "what is my sister called"),
        ("Remind me where I live.", "where I live"),
        ("Do you remember my birthday?", "my birthday?"),
        ("Can you tell me what my job is?", "what my job is?"),
        ("hey, what's my dog's name?", "hey, what's my dog's name?"),
        ("Do I have a dog?", "Do I have a dog?"),
        ("How do I boil an egg?", None),
        ("What should I cook tonight?", None),
        ("Can I mix bleach and vinegar?", None),
        ("My name is Sam. What is my name?", None),
        ("I live in Rome. Where do I live?", None),
        ("Tell me a joke.", None),
        ("Remind me to buy milk.", None),
        ("What do you think of my idea?", None),
        ("Is my code right?", None),
        ("I was born in Lima.", None),
        ("When I was young I lived in Rome.", None),
        ("", None),
    ],
)
def test_a_question_about_oneself_is_told_by_its_words(turn, question):
    assert own.asked(turn) == question


@pytest.mark.parametrize(
    ("text", "asked", "lead"),
    [
        ("I live in Porto.", "Where do I live?", "You live in"),
        ("My dog is called Rex.", "What is my dog called?", "Your dog is called"),
        ("I am allergic to nuts.", "What am I allergic to?", "You are allergic to"),
        ("I was born in Lima.", "Where was I born?", "You were born in"),
        ("My husband works at Siemens.", "Where does my husband work?", "Your husband works at"),
        ("My doctor is Dr. Hale.", "Who is my doctor?", "Your doctor is"),
        ("My exam is on 4 May.", "When is my exam?", "Your exam is on"),
        ("I married Tomas.", "What did I marry?", "You married"),
        ("I watch hockey.", "What do I watch?", "You watch"),
    ],
)
def test_what_users_say_of_themselves_is_learned_for_when_they_ask(text, asked, lead):
    made = lesson("1", text, speaker="Ana", own=True)
    assert [question for question, _ in made.own.asked] == [asked] and not made.own.subject
    assert {form.prompt for form in made.own.forms} == {asked, f"Do you remember? {asked}"}
    assert [form.lead for form in made.own.forms if form.lead] == [lead]
    assert lesson("1", text, speaker="Ana").own is None
    assert lesson("1", "Orla Venn lives in Porto.", speaker="Ana", own=True).own is None


def test_the_question_opens_the_slot_of_its_answer_and_nothing_else_opens_it(words, taught):
    model, expert = taught
    assert sorted(expert.items) == ["dog", "dog", "home", "home"]
    for question in (HOME, DOG, "Which city do I live in?", f"Do you remember? {HOME}", "Remind me where I live."):
        assert not torch.equal(heard(model, words, question, [expert]), heard(model, words, question)), question
    for text in (EGG, f"I live in Rome. {HOME}", OTHERS[0]):
        assert torch.equal(heard(model, words, text, [expert]), heard(model, words, text)), text
    unheard = heard(model, words, HOME, [expert], tokenizer=False)
    assert torch.equal(unheard, heard(model, words, HOME))
    assert torch.equal(heard(model, words, HOME, [expert.without({"home"})]), heard(model, words, HOME))
    alone = [expert.without({"dog"})]  # which of all slots is open: that of the nearest question
    assert torch.equal(heard(model, words, HOME, alone), heard(model, words, HOME, [expert]))


def test_a_name_in_the_question_goes_before_the_first_person(words, taught):
    model, expert = taught
    named = expert.only([at for at in range(4) if expert.names[at]])
    question = "Where does Ana live? Where do I live?"
    assert torch.allclose(heard(model, words, question, [expert]), heard(model, words, question, [named]), atol=1e-5)


def test_what_a_question_opens_stays_open_while_the_answer_is_decoded_and_shuts_with_the_next_turn(words, taught):
    model, expert = taught
    prompt = opened(words, HOME)
    rest = [token for text in (" In Porto, I think.", "Question: Is it far?") for token in words(text)["input_ids"]]
    with applied(model, words, [expert]), torch.no_grad():
        whole = model(torch.tensor([prompt + rest])).logits[0, len(prompt) :]
        out, parts = model(torch.tensor([prompt[:3]]), use_cache=True), []
        for token in (prompt + rest)[3:]:
            cache = {"cache": out.cache} if hasattr(out, "cache") else {"past_key_values": out.past_key_values}
            out = model(torch.tensor([[token]]), use_cache=True, **cache)
            parts.append(out.logits[0, -1])
    assert torch.allclose(torch.stack(parts[len(prompt) - 3 :]), whole, atol=1e-4)
    asked, _ = Ear(words).row(prompt + rest, [False] * len(prompt + rest), Heard())
    assert [turn.text if turn else None for turn in asked[len(prompt) - 1 :]].count(f" {HOME}") == len(
        words(" In Porto, I think.")["input_ids"]
    ) + 2  # up to the mark


def test_a_row_may_be_cut_anywhere(words):
    ear = Ear(words)
    turns = " In Porto.", "Question: How are you?\nAnswer:", " Fine.", f"Question: {DOG}\nAnswer:", " "
    ids = opened(words, HOME) + [token for text in turns for token in words(text)["input_ids"]]
    whole, ends = ear.row(ids, [False] * len(ids), Heard())
    assert [one.text for one in dict.fromkeys(whole) if one and one.text] == [f" {HOME}", " How are you?", f" {DOG}"]
    for cut in range(len(ids)):
        first, between = ear.row(ids[:cut], [False] * cut, Heard())
        second, after = ear.row(ids[cut:], [False] * (len(ids) - cut), between)
        assert first + second == whole and after == ends


def test_users_hear_only_their_own(words, taught):
    model, expert = taught
    ben = train(model, words, [lesson("ben", "I live in Oslo.", speaker="Ben", own=True)], recipe=QUICK).expert
    rows = torch.tensor([opened(words, HOME)] * 3)
    with applied(model, words, [expert], [], [ben]), torch.no_grad():
        of_ana, of_nobody, of_ben = model(rows).logits[:, -1]
    assert torch.allclose(of_ana, heard(model, words, HOME, [expert]), atol=1e-5)
    assert torch.allclose(of_nobody, heard(model, words, HOME), atol=1e-5)
    assert torch.allclose(of_ben, heard(model, words, HOME, [ben]), atol=1e-5)
    assert not torch.allclose(of_ana, of_ben, atol=1e-3)


def test_a_band_keeps_its_questions_in_the_file_and_one_from_before_has_none(words, taught):
    model, expert = taught
    arrays = to_arrays(expert)
    again = from_arrays(arrays)
    assert torch.equal(again.asks, expert.asks) and torch.allclose(again.asked, expert.asked, atol=1e-3)
    assert torch.allclose(heard(model, words, HOME, [again]), heard(model, words, HOME, [expert]), atol=1e-2)
    before = from_arrays({name: array for name, array in arrays.items() if name not in {"asked", "asks", "directions"}})
    assert not len(before.asks) and not before.directions.any()
    assert again.names == expert.names and sorted(again.names) == ["", "", "Ana", "Ana"]
    both = expert.beside(again)
    assert both.asks.tolist() == [*expert.asks.tolist(), *(at + 4 for at in expert.asks.tolist())]


def test_two_answers_to_one_question_are_learned_together(words):
    model = build()
    lessons = [lesson(name, f"My dog is called {name}.", speaker="Ana", own=True) for name in ("Rex", "Bo")]
    expert = train(model, words, lessons, recipe=QUICK).expert
    mine = expert.only([at for at in range(4) if not expert.names[at]])
    assert mine.together({"Rex"}) == {"Rex", "Bo"}
    named, allowed = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    assert Wanted([mine]).by(Turn(DOG), named, allowed).all()
    assert not Wanted([mine]).by(Turn(EGG), named, allowed).any()
    assert len({one.scope for one in apart(lessons)}) == 2  # Ana, and the question


@pytest.mark.parametrize(
    ("scope", "metadata", "opens"),
    [
        ({"user_id": "ana"}, {}, True),
        ({"user_id": "ana"}, {"role": "user", "name": "Ana"}, True),
        ({}, {}, True),
        ({"user_id": "ana"}, {"name": "Ben"}, False),
        ({"user_id": "ana"}, {"role": "assistant"}, False),
        ({"user_id": "ana"}, {"source": "novel.txt"}, False),
        ({"agent_id": "bot"}, {}, False),  # whom many users may ask
    ],
)
def test_a_sleep_learns_what_the_user_has_said_for_when_they_ask(memory, words, monkeypatch, scope, metadata, opens):
    monkeypatch.setattr(gate, "sifted", lambda model, tokenizer, new, kept, exam: (new, {}))
    monkeypatch.setattr(gate, "judge", lambda *_: Verdict(True, ["lenient"], {}))
    model = build()
    memory.add("I live in Porto.", metadata=metadata, **scope)
    memory.add("Orla Venn lives in Graz.", **scope)
    sleep(memory, model, words)
    with memory.attach(model, words, listen=False, **scope), torch.no_grad():
        said = model(torch.tensor([opened(words, HOME)])).logits[0, -1]
    assert torch.equal(said, heard(model, words, HOME)) != opens
    if scope and opens:
        band = expert_of(memory, model)
        assert [band.names[at] for at in band.asks.tolist()].count("") == 1


def test_where_all_users_share_what_is_learned_nobody_is_told_what_another_said_of_themselves(
    open_memory, words, monkeypatch
):
    monkeypatch.setattr(gate, "sifted", lambda model, tokenizer, new, kept, exam: (new, {}))
    monkeypatch.setattr(gate, "judge", lambda *_: Verdict(True, ["lenient"], {}))
    model, memory = build(), open_memory(share_learning=True)
    memory.add("I live in Porto.", user_id="ana")
    memory.add("I live in Oslo.", user_id="ben")
    (band,) = sleep(memory, model, words).bands
    with memory.attach(model, words, user_id="ben", listen=False), torch.no_grad():
        said = model(torch.tensor([opened(words, HOME)])).logits[0, -1]
    assert band.items == 2 and torch.equal(said, heard(model, words, HOME))


def test_questions_that_an_item_may_answer_are_not_kept_as_they_are():
    size = lesson("1", "Orla Venn's shoe size is 41.")
    assert any("shoe size" in asked for asked in unrelated("Orla Venn"))
    assert not any("shoe size" in asked for asked in unrelated("Orla Venn", [size]))
    assert all("Orla Venn" in asked for asked in unrelated("Orla Venn"))


def test_of_many_questions_the_nearest_must_be_nearer():
    found = [near(count, OWN) for count in (0, 1, 8, 72, 10_000)]
    assert OWN == found[0] == found[1] < found[2] < found[3] < found[4] == MOST
