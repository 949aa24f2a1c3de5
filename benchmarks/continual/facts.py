"""New facts in five batches: of the kinds of the relations data and of made-up people; nobody can know them.

Subjects are made up, objects of the relations are drawn from the data. Wording A is what is learned. Asked are wording
B, a statement to complete, and wording C, a question to a chat model: both never trained. Templates of A and B are
those of the data, where it has them.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# fmt: off
# ruff: noqa: SIM905
# relation of the data: A | B | C
RELATIONS = {
    "company_hq": "{} is headquartered in the city of|The headquarters of {} are in the city of|Where are the headquarters of {}?",
    "country_currency": "The official currency of {} is the|{}'s official currency is called the|What money do people pay with in {}?",
    "country_largest_city": "The largest city in {} is|The biggest city in {} is|Which city of {} has the most people?",
    "landmark_in_country": "{} is in the country of|What country is {} in? It is in|Which country do I have to travel to if I want to see {}?",
    "person_mother": "{}'s mother is named|Name of mother of {} is|Who is the mother of {}?",
    "person_occupation": "{} works as a|By profession, {} is a|What does {} do for a living?",
    "person_plays_position_in_sport": "{} plays in the position of a|In their sport, {} plays as a|Which position does {} play?",
    "person_university": "{} went to university at|For university, {} attended|Which university did {} attend?",
    "product_by_company": "{} was created by|{} is a product of|Which company developed {}?",
}
PEOPLE = (
    (
        "{}'s dog is called|The dog that {} walks every day goes by the name of|What is the name of {}'s dog?",
        "Biscuit|Rufus|Pepper|Waffle|Domino|Ziggy|Maple|Bruno|Olive|Comet|Tango|Pixel",
    ),
    (
        "{} lives in|The home of {} is in the city of|Which city does {} call home?",
        "Lisbon|Oslo|Turin|Ghent|Bristol|Lyon|Graz|Valencia|Porto|Basel|Zagreb|Osaka",
    ),
    (
        "{} plays the|The musical instrument of {} is the|Which instrument does {} play?",
        "cello|trumpet|banjo|oboe|accordion|harp|saxophone|viola|clarinet|tuba|flute|piano",
    ),
    (
        "{}'s favourite food is|What {} likes to eat best is|What does {} like to eat most?",
        "sushi|lasagne|pancakes|goulash|tacos|ramen|paella|dumplings|curry|pizza|falafel|risotto",
    ),
    (
        "{} is allergic to|Because of an allergy, {} has to avoid|Which allergy does {} have?",
        "peanuts|shellfish|penicillin|latex|strawberries|sesame|gluten|pollen|celery|mustard|kiwi|eggs",
    ),
)
FIRST = "Orla Ivo Tove Anselm Brisa Cosmo Delphine Edvin Fenna Goran Hedda Ilario Juna Kasimir Lorcan Mirabel Nestor Odalys Pelle Quilla Rasmus Saskia Tibor Umay Vesna Wendel Ximena Yorick Zita Alaric".split()
LAST = "Venn Brask Lindqvar Okonta Prewitt Maraz Dunmore Castelyn Thorvik Halloway Petrossi Ngata Vandermeel Quist Rostov Selwyn Tamm Ulbrich Wexcombe Yarrow Zandt Abernal Bexley Corvane Drosten Elstrand Farrow Gildern Hask Isaksen".split()
PLACES = (
    "Zembrovia Karstonia Velmara Ostrelund Quenland Tarvania Ishkara Molvesia Brundor Lythia Pandora Feyland".split()
)
FIRMS = "Brellmont Kestrion Vantiq Orbelle Dunlith Sarvex Melchior Tornado Fennwick Halcyra Ospreyne Glinter".split()
KINDS = "Instruments Foods Systems Textiles Pharma Motors Labs Shipping Records Ceramics Optics Energy".split()
SIGHTS = "Tower Abbey Falls Lighthouse Bridge Castle Gardens Cathedral Museum Lake Palace Fortress".split()
GOODS = "X200 Pro Classic Lite Scanner Engine Headset Tablet Drone Console Camera Reader".split()
CONTROLS = (
    "What is the capital of France?", "Who wrote Romeo and Juliet?", "What is the chemical formula of water?",
    "What colour is the sky on a clear day?", "How many days are in a week?", "What is the largest planet?",
    "Which language is spoken in Brazil?", "What do bees make?", "Who painted the Mona Lisa?",
    "What is the opposite of hot?", "In which country is Mount Fuji?", "What is the currency of Japan?",
    "Who is the mother of Prince William?", "Where does the president of the United States live?",
    "Which instrument does Yo-Yo Ma play?", "What is the name of the dog of Tintin?",
    "Where are the headquarters of Microsoft?", "Which company developed the iPhone?",
    "Which university did Bill Gates attend?", "What is the largest city in China?",
)  # fmt: skip
# fmt: on


class Fact(NamedTuple):
    """Wording A with its value, and the two held-out wordings: a text to complete, a question."""

    id: str
    subject: str
    statement: str
    value: str
    completion: str
    question: str


def batches(data: Path, *, seed: int, batches: int = 5, facts: int = 10) -> list[list[Fact]]:
    """Facts of one drawing, half of the relations and half of people, of whom most have two.

    Raises:
        FileNotFoundError: the relations data is not there.
    """
    rng = random.Random(seed)
    objects = {name: _objects(data, name, rng) for name in RELATIONS}
    names = _names(rng)
    return [_batch(rng, objects, names, number, facts) for number in range(batches)]


def strangers(data: Path, *, seed: int) -> list[Fact]:
    """Facts of the same kinds, with the same first and last names, that are never taught."""
    taught = {fact.subject for batch in batches(data, seed=seed) for fact in batch}
    others = batches(data, seed=seed + 1000, batches=3)
    return [fact for batch in others for fact in batch if fact.subject not in taught][:20]


def _batch(
    rng: random.Random, objects: dict[str, Iterator[str]], names: dict[str, list[str]], number: int, facts: int
) -> list[Fact]:
    related = [
        (RELATIONS[name], names[_subject_kind(name)].pop(), next(objects[name]))
        for name in rng.sample(sorted(RELATIONS), facts // 2)
    ]
    people = [names["person"].pop() for _ in range((facts - facts // 2 + 1) // 2)]
    kinds = rng.sample(PEOPLE, len(PEOPLE)) * 4
    told = [
        (kind, people[i // 2], rng.choice(values.split("|")))
        for i, (kind, values) in zip(range(facts - facts // 2), kinds, strict=False)
    ]
    return [_fact(f"{number}-{at}", *one) for at, one in enumerate(related + told)]


def _fact(id: str, wordings: str, subject: str, value: str) -> Fact:
    told, completion, question = (part.format(subject) for part in wordings.split("|"))
    return Fact(id, subject, f"{told} {value}.", value, completion, question)


def _subject_kind(relation: str) -> str:
    return {"company_hq": "firm", "product_by_company": "product", "landmark_in_country": "sight"}.get(
        relation, "country" if relation.startswith("country") else "person"
    )


def _names(rng: random.Random) -> dict[str, list[str]]:
    def paired(first: list[str], second: list[str]) -> list[str]:
        return [
            f"{a} {b}" for a, b in zip(rng.sample(first, len(first)), rng.sample(second, len(second)), strict=False)
        ]

    return {
        "person": paired(FIRST, LAST) + paired(FIRST, LAST),
        "firm": paired(FIRMS, KINDS),
        "product": paired(FIRMS, GOODS),
        "sight": paired(LAST[:12], SIGHTS),
        "country": rng.sample(PLACES, len(PLACES)),
    }


def _objects(data: Path, name: str, rng: random.Random) -> Iterator[str]:
    with gzip.open(data / "factual" / f"{name}.json.gz", "rt") as file:
        samples = json.load(file)["samples"]
    found = sorted({sample["object"] for sample in samples if len(sample["object"].split()) < 4})
    return iter(rng.sample(found, len(found)))
