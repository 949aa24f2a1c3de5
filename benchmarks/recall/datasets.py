"""Public conversations and passages to measure on, from files that this repository does not ship.

`load(path)` takes a file or a folder of: converted conversations (JSON, also gzipped: `turns` and `questions`, as
LoCoMo [1], BEAM [2], LongMemEval [3] and REALTALK [4] come in the data folder), REALTALK's own JSON (`session_1`, …,
`qa`), and Natural Questions [5] with the passage that answers each (JSON lines). Sets are told apart by their content.

[1] Maharana et al., Evaluating Very Long-Term Conversational Memory of LLM Agents, ACL 2024.
[2] Tavakoli et al., BEAM: Beyond a Million Tokens, 2025.
[3] Wu et al., LongMemEval: Benchmarking Chat Assistants on Long-Term Interactive Memory, ICLR 2025.
[4] Lee et al., REALTALK: A 21-Day Real-World Dataset for Long-Term Conversation, 2025.
[5] Kwiatkowski et al., Natural Questions, TACL 2019; passages of Liu et al., Lost in the Middle, TACL 2024.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DEFAULT_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = {
    "locomo": "locomo/conv-*",
    "beam": "beam/100K-*",
    "beam500": "beam/500K-*",
    "nq": "nq/*",
    "longmemeval": "longmemeval/*",
    "realtalk": "realtalk/*",
}

_TURN_ID = re.compile(r"D:?(\d+):(\d+)")
_TIMES = ("%I:%M %p on %d %B, %Y", "%B-%d-%Y", "%Y/%m/%d (%a) %H:%M", "%d.%m.%Y, %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
_ROLES = ("user", "assistant", "system")


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
    """A question and the ids of the turns that answer it; none if the memory does not hold the answer."""

    id: str
    text: str
    evidence: tuple[str, ...]
    category: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in their order, and the questions asked about them. `kind` is the set that it belongs to."""

    kind: str
    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]

    @property
    def answered(self) -> tuple[Question, ...]:
        """The questions of which the evidence is known."""
        return tuple(question for question in self.questions if question.evidence)

    @property
    def unanswered(self) -> tuple[Question, ...]:
        """The questions that the memory cannot answer."""
        return tuple(question for question in self.questions if not question.evidence)


def load(path: Path) -> list[Conversation]:
    """Every conversation in a file or folder.

    Raises:
        SystemExit: there is none, or a file is of another format; says which.
    """
    if path.is_dir():
        return [found for file in sorted(path.rglob("*.json*")) if "raw" not in file.name for found in load(file)]
    if not path.exists():
        raise SystemExit(f"{path} does not exist")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        text = file.read()
    name = path.name.partition(".")[0]
    if ".jsonl" in path.name:
        return [_passages(name, [json.loads(line) for line in text.splitlines() if line.strip()])]
    record = json.loads(text)
    if isinstance(record, dict) and "turns" in record:
        return [_converted(name, record)]
    if isinstance(record, dict) and "qa" in record and "session_1" in record:
        return [_realtalk(name, record)]
    raise SystemExit(f"{path}: neither a converted conversation, nor REALTALK, nor passages")


def load_set(data: Path, name: str) -> list[Conversation]:
    """One of SETS from the data folder; empty if it is not there."""
    return [found for path in sorted(data.glob(SETS[name])) for found in load(path)]


def load_locomo(data: Path) -> list[Conversation]:
    """The LoCoMo conversations of the data folder."""
    return load_set(data, "locomo")


def repair_evidence(cited: Iterable[str]) -> list[str]:
    """Turn ids out of LoCoMo's citation strings, in order, each once.

    The published file has several ids in one string ("D8:6; D9:17"), a stray colon ("D:11:26") and a bare
    "D", which names no turn.

    >>> repair_evidence(["D8:6; D9:17", "D:11:26", "D", "D8:6"])
    ['D8:6', 'D9:17', 'D11:26']
    """
    found = (f"D{session}:{turn}" for text in cited for session, turn in _TURN_ID.findall(text))
    return list(dict.fromkeys(found))


def _converted(name: str, record: dict[str, Any]) -> Conversation:
    turns = tuple(_turn(raw) for raw in record["turns"])
    known = {turn.id for turn in turns}
    kind = str(record.get("dataset", "conversation"))
    return Conversation(kind, name, turns, tuple(_questions(record["questions"], known, kind)))


def _questions(raws: Iterable[dict[str, Any]], known: set[str], kind: str) -> Iterator[Question]:
    for raw in raws:
        cited = [str(one) for one in raw.get("evidence") or []]
        evidence = tuple(id_ for id_ in dict.fromkeys([*cited, *repair_evidence(cited)]) if id_ in known)
        # LoCoMo's adversarial questions abstain from answering, yet cite the turn that they confuse: they stay in
        abstains = bool(raw.get("abstain")) and kind != "locomo"
        if evidence or abstains:
            yield Question(raw["id"], raw["text"], () if abstains else evidence, str(raw.get("category", "")))


def _turn(raw: dict[str, Any]) -> Turn:
    text = raw["text"] + (f" [image: {raw['caption']}]" if raw.get("caption") else "")
    speaker = raw.get("speaker")
    if speaker in _ROLES:
        return Turn(raw["id"], text, role=speaker, time=_iso(raw.get("time")))
    return Turn(raw["id"], text, speaker=speaker, time=_iso(raw.get("time")))


def _realtalk(name: str, record: dict[str, Any]) -> Conversation:
    sessions = sorted((key for key in record if re.fullmatch(r"session_\d+", key)), key=lambda key: int(key[8:]))
    turns = tuple(
        Turn(raw["dia_id"], raw["clean_text"], speaker=raw["speaker"], time=_iso(raw.get("date_time")))
        for key in sessions
        for raw in record[key]
        if str(raw.get("clean_text", "")).strip()
    )
    raws = [
        {"id": f"{name}/q{i}", "text": qa["question"], "evidence": qa.get("evidence"), "category": qa.get("category")}
        for i, qa in enumerate(record["qa"])
    ]
    return Conversation("realtalk", name, turns, tuple(_questions(raws, {turn.id for turn in turns}, "realtalk")))


def _passages(name: str, records: list[dict[str, Any]]) -> Conversation:
    """Every passage under its title, as a document is stored; every question answered by its own."""
    turns = tuple(Turn(r["id"], f"{r['title']}. {r['passage']}" if r.get("title") else r["passage"]) for r in records)
    questions = tuple(Question(r["id"], r["question"], (r["id"],), "nq") for r in records)
    return Conversation("nq", name, turns, questions)


def _iso(time: str | None) -> str | None:
    """The sets state times without a zone; UTC is assumed. Unreadable or missing times are left out."""
    for form in _TIMES if time else ():
        try:
            return (
                datetime.strptime(str(time).strip().title() if "%B" in form else str(time), form)
                .replace(tzinfo=UTC)
                .isoformat()
            )
        except ValueError:
            continue
    return None
