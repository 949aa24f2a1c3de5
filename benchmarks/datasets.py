"""Public conversations and passages that the benchmark scripts measure on.

Reads the converted files described in the data folder's own README: LoCoMo [1] and BEAM [2] chats, one
gzipped JSON a conversation, and Natural Questions [3] with the passage that answers each, as gzipped JSON
lines. The data is not part of this repository (several licences forbid it); every loader takes the folder
that holds it.

[1] Maharana et al., Evaluating Very Long-Term Conversational Memory of LLM Agents, ACL 2024.
[2] Tavakoli et al., BEAM: Beyond a Million Tokens, 2025.
[3] Kwiatkowski et al., Natural Questions, TACL 2019; passages of Liu et al., Lost in the Middle, TACL 2024.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

_TURN_ID = re.compile(r"D:?(\d+):(\d+)")
_TIME_FORMATS = ("%I:%M %p on %d %B, %Y", "%B-%d-%Y")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, or one passage: `text` is what is stored, `time` an aware ISO 8601 string or None."""

    id: str
    text: str
    speaker: str | None = None
    role: str = "user"
    time: str | None = None

    def message(self) -> dict[str, str]:
        """The turn as a chat message for `Memory.add`."""
        fields = {"role": self.role, "content": self.text, "id": self.id}
        if self.speaker:
            fields["name"] = self.speaker
        if self.time:
            fields["timestamp"] = self.time
        return fields


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the ids of the turns that answer it (never empty)."""

    id: str
    text: str
    evidence: tuple[str, ...]
    category: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in their order, and the questions asked about them."""

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def repair_evidence(cited: Iterable[str]) -> list[str]:
    """Turn ids out of LoCoMo's citation strings, in order, each once.

    The published file has several ids in one string ("D8:6; D9:17"), a stray colon ("D:11:26") and a bare
    "D", which names no turn.

    >>> repair_evidence(["D8:6; D9:17", "D:11:26", "D", "D8:6"])
    ['D8:6', 'D9:17', 'D11:26']
    """
    found = (f"D{session}:{turn}" for text in cited for session, turn in _TURN_ID.findall(text))
    return list(dict.fromkeys(found))


def load_locomo(data: Path) -> list[Conversation]:
    """LoCoMo conversations; a turn's text carries the caption of its image."""
    return [_conversation(path, locomo=True) for path in _files(data / "locomo", "conv-*.json.gz")]


def load_beam(data: Path, *, size: str = "100K") -> list[Conversation]:
    """BEAM chats of one size ("100K" or "500K"), without the questions that no message answers."""
    return [_conversation(path, locomo=False) for path in _files(data / "beam", f"{size}-*.json.gz")]


def load_nq(data: Path) -> list[Conversation]:
    """Natural Questions as one store: every passage a turn, every question answered by its own passage."""
    path = _files(data / "nq", "oracle.jsonl.gz")[0]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    turns = tuple(Turn(r["id"], r["passage"]) for r in records)
    questions = tuple(Question(r["id"], r["question"], (r["id"],), "nq") for r in records)
    return [Conversation("nq", turns, questions)]


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise SystemExit(f"no {pattern} in {folder}; pass the data folder with --data")
    return found


def _conversation(path: Path, *, locomo: bool) -> Conversation:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        record = json.load(file)
    turns = tuple(_turn(raw, locomo=locomo) for raw in record["turns"])
    known = {turn.id for turn in turns}
    questions = (_question(raw, known, locomo=locomo) for raw in record["questions"])
    return Conversation(path.name.removesuffix(".json.gz"), turns, tuple(q for q in questions if q is not None))


def _turn(raw: dict[str, Any], *, locomo: bool) -> Turn:
    text = raw["text"] + (f" [image: {raw['caption']}]" if raw.get("caption") else "")
    if locomo:
        return Turn(raw["id"], text, speaker=raw["speaker"], time=_iso(raw.get("time")))
    return Turn(raw["id"], text, role=raw["speaker"], time=_iso(raw.get("time")))


def _question(raw: dict[str, Any], known: set[str], *, locomo: bool) -> Question | None:
    # LoCoMo's adversarial questions abstain from answering yet cite the turn that they confuse: they stay in.
    if raw.get("abstain") and not locomo:
        return None
    cited = repair_evidence(raw["evidence"]) if locomo else list(dict.fromkeys(raw["evidence"]))
    evidence = tuple(turn for turn in cited if turn in known)
    return Question(raw["id"], raw["text"], evidence, raw["category"]) if evidence else None


def _iso(time: str | None) -> str | None:
    """Both data sets state times without a zone; UTC is assumed. Unreadable or missing times are left out."""
    for form in _TIME_FORMATS if time else ():
        try:
            return datetime.strptime(str(time).strip().title(), form).replace(tzinfo=UTC).isoformat()
        except ValueError:
            continue
    return None
