"""Questions of people about themselves, told by their words: "Where do I live?" is one, "How do I boil an egg?" is not.

Such a question asks, in the first person, for what is so ("What is my dog called?", "Remind me where I live."), not for
help or advice ("What should I cook?"), and the turn says nothing of the speaker itself ("My name is Sam. What is my
name?").
"""

from __future__ import annotations

import re

from memkit.slow.lm.forms import sentences

ME = re.compile(r"\b(?:I|me|my|mine|myself)\b", re.IGNORECASE)
ASKS = re.compile(  # with its mark, or without one if its words are in the order of a question
    r"(?:(?:and|but|so|ok|okay|hi|hey|hello|please|sorry|again)\b[,:]? *)*"
    r"(?:(?:what|which|where|when|who|whom|whose|how|(?:in|on|at|for|to|with) (?:what|which|whom|whose))\b.*\?"
    r"|(?:do|did|am|was|have|had) (?:I|we)\b.*\?"
    r"|(?:what|where|when|who|which \w+|whose \w+)(?:[’']s| is| are| was| were| do| does| did| am| have) (?:I|my)\b)",
    re.IGNORECASE,
)
REMINDS = re.compile(r"\b(?:remind|tell|recall|remember|know|forgot|forgotten|forget|wonder)\b", re.IGNORECASE)
SEEKS_HELP = re.compile(
    r"\b(?:can|could|should|shall|would|will|may|might|must|if|help|need|want|why)\b|\bhow (?:do|to)\b", re.IGNORECASE
)
PREAMBLE = re.compile(
    r"(?:please,? )?(?:(?:can|could|would|will) you (?:please )?)?(?:remind|tell) me\b(?: again\b|,? please\b)*[,:]? *"
    r"|do you (?:still |happen to )?(?:remember|know) ",
    re.IGNORECASE,
)
TO_YOU = re.compile(r"\b(?:you|your|we|our|us)\b", re.IGNORECASE)


def asked(turn: str) -> str | None:
    """What users ask about themselves with the end of a turn, without "remind me"; None where they ask nothing."""
    said = sentences(turn)
    if not said or any(ME.search(one) and not (one.endswith("?") or REMINDS.search(one)) for one in said[:-1]):
        return None
    last = said[-1]
    reminds = REMINDS.search(last)
    asks = ASKS.match(last) or reminds
    bare = re.sub(r"\b(?:can|could|will|would) you\b", "", last, flags=re.IGNORECASE) if reminds else last
    mine = PREAMBLE.sub("", last, count=1)
    about_them = asks and ME.search(mine) and not SEEKS_HELP.search(bare) and (reminds or not TO_YOU.search(last))
    return mine if about_them else None
