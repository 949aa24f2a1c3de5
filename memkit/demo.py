"""`memkit demo`: the main job on the conversation that comes with memkit, in one command and offline."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from memkit import cli_render as out
from memkit.errors import InvalidInput
from memkit.memory import Memory

USER = "nora"
SHOWN = 5


def _data(name: str) -> str:
    return files("memkit").joinpath("data", name).read_text(encoding="utf-8")


def run(path: Path, *, force: bool, as_json: bool) -> None:
    """Make a memory at `path`, ask it the questions that come with it, and show what else it can do.

    Raises:
        InvalidInput: something exists at `path`, or at the path of the export, and `force` is not set.
    """
    copy = path.with_name(f"{path.stem}-{USER}.mem")
    for there in (path, copy):
        if there.exists() and not force:
            raise InvalidInput(f"{there} exists; pass another path, or --force to make it anew")
        there.unlink(missing_ok=True)
    messages = [json.loads(line) for line in _data("demo.jsonl").splitlines() if line.strip()]
    with Memory(path) as memory:
        memory.add(messages, user_id=USER)
        report = {"file": str(path), "added": len(messages), **_report(memory, copy)}
    if as_json:
        out.emit(report)
    else:
        _say(report)


def _report(memory: Memory, copy: Path) -> dict[str, Any]:
    nora = memory.scope(user_id=USER)
    answers = [_ask(nora, one) for one in json.loads(_data("demo_questions.json"))]
    return {
        "answers": answers,
        "found": sum(answer["rank"] > 0 for answer in answers),
        "recall": nora.recall(answers[0]["question"], max_tokens=200).text,
        "exported": nora.export(copy),
        "export": str(copy),
        "verified": memory.verify().ok,
    }


def _ask(nora: Memory, one: dict[str, Any]) -> dict[str, Any]:
    ids = [hit.id for hit in nora.search(one["question"], limit=SHOWN)]
    newest = one["evidence"][0]
    rank = ids.index(newest) + 1 if newest in ids else 0
    item = nora.get(newest)
    return {"question": one["question"], "evidence": newest, "rank": rank, "text": item.text if item else ""}


def _say(report: dict[str, Any]) -> None:
    out.say(f"{report['added']} messages of eight months went into {report['file']}.\n")
    for answer in report["answers"]:
        place = f"found at {answer['rank']}" if answer["rank"] else f"not among the first {SHOWN}"
        out.say(f"? {answer['question']}\n  {answer['evidence']}, {place}: {answer['text'][:100]}")
    out.say(f"\nRecall for a prompt, within 200 tokens:\n{report['recall']}")
    out.say(f"\n{report['found']} of {len(report['answers'])} questions found their newest evidence.")
    out.say(f"{report['exported']} items exported to {report['export']}; verified: {report['verified']}.")
    out.say(f'Next: memkit search {report["file"]} "where does she live?"   memkit stats {report["file"]}')
