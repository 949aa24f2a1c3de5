"""Facts out of messages, by a language model that the caller passed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from memkit.errors import CallableFailed
from memkit.ingest import Draft

LLM = Callable[[str], str]
TASK = (
    "Read the conversation and write down what is worth remembering of it for later: facts, preferences, plans and "
    "decisions, each as one sentence that makes sense on its own, with names instead of pronouns. Write only what is "
    'said. Answer with JSON alone: {"facts": ["…"]}; with an empty list if there is nothing.'
)
_JSON = re.compile(r"[\[{].*[\]}]", re.DOTALL)


def facts(llm: LLM, said: Sequence[Draft], more: str | None) -> list[str]:
    """The facts that `llm` finds in messages.

    Raises:
        CallableFailed: it raised, or answered with something else than JSON of facts.
    """
    lines = "\n".join(f"{one.metadata.get('actor_id') or one.metadata.get('role')}: {one.text}" for one in said)
    answer = ask(llm, "\n\n".join(part for part in (TASK, more, lines) if part))
    return [text.strip() for text in _read(answer) if text.strip()]


def ask(llm: LLM, prompt: str) -> str:
    """What `llm` answers.

    Raises:
        CallableFailed: it raised, or answered with something else than text.
    """
    try:
        answer: Any = llm(prompt)
    except Exception as error:
        raise CallableFailed(f"llm raised {error!r:.200}; nothing was added") from error
    if not isinstance(answer, str) or not answer.strip():
        raise CallableFailed(f"llm answered {answer!r:.200}; it must answer with some text")
    return answer


def _read(answer: str) -> list[str]:
    """The texts of {"facts": [...]} (Mem0 1.x), {"memory": [{"text": …}]} (2.x), or of a bare list."""
    found = _JSON.search(answer)
    try:
        value = json.loads(found.group()) if found else None
    except ValueError as error:
        raise _unusable(answer) from error
    if isinstance(value, dict):
        value = value.get("facts", value.get("memory"))
    if not isinstance(value, list):
        raise _unusable(answer)
    texts = [one.get("text") if isinstance(one, dict) else one for one in value]
    if not all(isinstance(text, str) for text in texts):
        raise _unusable(answer)
    return [str(text) for text in texts]


def _unusable(answer: Any) -> CallableFailed:
    return CallableFailed(f'llm answered {answer!r:.200}; it must answer with JSON such as {{"facts": ["…"]}}')
