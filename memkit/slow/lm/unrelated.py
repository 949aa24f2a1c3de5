"""Questions about a subject that no item answers: a band should leave what is said to them as it is.

Without them a slot that is open would answer everything that is asked about its subject.
"""

from __future__ import annotations

from collections.abc import Iterable

from memkit.slow.lm.forms import Lesson, holds

# how something is asked for, and words that an item about it has
QUESTIONS = (
    ("What is the shoe size of {}?", "shoe size"),
    ("Write a sentence that mentions {}.", ""),
    ("How do you spell {}?", ""),
    ("What did {} have for breakfast?", "breakfast"),
    ("When did you first hear of {}?", ""),
    ("What is the height of {}?", "tall height"),
    ("Give {} a nickname.", "nickname"),
    ("Is {} expensive?", "expensive costs"),
)


def unrelated(subject: str, lessons: Iterable[Lesson] = ()) -> list[str]:
    """Questions about a subject, without those that its lessons may answer."""
    text = "\n".join(one.text for one in lessons)
    return [
        asked.replace("{}", subject)
        for asked, words in QUESTIONS
        if not any(holds(text, word) for word in words.split())
    ]
