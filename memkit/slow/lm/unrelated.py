"""Questions about a subject that no item answers: a band should leave what is said to them as it is.

Without them a slot that is open would answer everything that is asked about its subject.
"""

from __future__ import annotations

from collections.abc import Iterable

from memkit.slow.lm.forms import Lesson, holds

# what is asked for, by words that an item about it would have, and how; of people and of things alike, where it can be
UNKNOWN = (
    ("shoe size", "What is {}'s shoe size?"),
    ("tall height", "How tall is {}?"),
    ("weigh weighs kilos weight", "How much does {} weigh?"),
    ("breakfast", "What did {} have for breakfast?"),
    ("phone telephone number", "What is {}'s phone number?"),
    ("sign zodiac", "What is {}'s star sign?"),
    ("blood", "What is {}'s blood type?"),
    ("email mail address", "What is {}'s email address?"),
    ("middle", "What is {}'s middle name?"),
    ("friend", "Who is {}'s best friend?"),
    ("wearing wears", "What is {} wearing?"),
    ("earns earn salary", "How much does {} earn?"),
    ("parked park", "Where did {} park the car?"),
    ("dreams dream", "What does {} dream about?"),
    ("taught teach", "Who taught {} to read?"),
    ("grandfather", "What was {}'s grandfather called?"),
    ("gets up wakes", "When does {} get up?"),
    ("read reads", "Which book did {} read last?"),
)
ABOUT_ANYTHING = (
    ("", "Write a sentence that mentions {}."),
    ("", "How do you spell {}?"),
    ("heard", "When did you first hear of {}?"),
    ("nickname", "Give {} a nickname."),
    ("expensive costs", "Is {} expensive?"),
    ("", "What rhymes with {}?"),
    ("", "Tell me a joke about {}."),
    ("", "Do you like {}?"),
)


def unrelated(subject: str, lessons: Iterable[Lesson] = ()) -> list[str]:
    """Questions about a subject, without those that its lessons may answer."""
    return [text.replace("{}", subject) for text in _unanswered((*UNKNOWN, *ABOUT_ANYTHING), lessons)]


def _unanswered(questions: Iterable[tuple[str, str]], lessons: Iterable[Lesson]) -> list[str]:
    text = "\n".join(one.text for one in lessons)
    return [asked for words, asked in questions if not any(holds(text, word) for word in words.split())]
