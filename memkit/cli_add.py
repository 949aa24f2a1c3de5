"""What `memkit add` reads, and how it goes in: in batches, so that an import can be stopped and taken up again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from memkit.cli_options import gentle_interrupts, json_object
from memkit.errors import InvalidInput
from memkit.ingest import Draft, check_metadata, drafts, read
from memkit.memory import Memory
from memkit_storage.times import parse_time

BATCH = 256  # items made durable together: what an interruption loses at most
LONGEST_NAME = 255  # bytes of a file name on common file systems


def texts(given: Sequence[str], id_: str | None) -> list[Draft]:
    """Texts from the command line, `-` for one from stdin.

    Raises:
        InvalidInput: an empty text, a text that is the name of a file here, or one id for several.
    """
    for text in given:
        if _names_a_file(text):
            raise InvalidInput(f"{text!r} is a file here; add what it holds with --from, or the bare word through - ")
    found = drafts([sys.stdin.read() if text == "-" else text for text in given]) if given else []
    if id_ is None:
        return found
    if len(found) != 1:
        raise InvalidInput(f"--id {id_} for {len(found)} texts; an id names one")
    return [replace(found[0], id=id_)]


def _names_a_file(text: str) -> bool:
    if text == "-" or not text or len(text.encode()) > LONGEST_NAME or any(map(str.isspace, text)):
        return False
    return Path(text).exists()


def completed(entries: Sequence[Draft], metadata: str | None, occurred_at: str | None) -> list[Draft]:
    """What the options say fills in what the records do not say."""
    given = json_object("--metadata", metadata) or {}
    check_metadata(given)
    moment = None if occurred_at is None else parse_time(occurred_at)
    return [
        replace(entry, metadata={**given, **entry.metadata}, occurred_at=entry.occurred_at or moment)
        for entry in entries
    ]


def write(
    memory: Memory,
    entries: Sequence[Draft],
    *,
    user: str | None,
    agent: str | None,
    run: str | None,
    show: Callable[[int, int], None],
) -> tuple[list[str], int]:
    """Add in batches. Returns every id in order, and how many versions were not there before.

    Raises:
        KeyboardInterrupt: with a message that says how far it came.
    """
    begin, ids, new = memory.stats().position, [], set()
    with gentle_interrupts() as stop:
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            items = memory.add_drafts(batch, user_id=user, agent_id=agent, run_id=run)
            ids += [item.id for item in items]
            new |= {item.position for item in items if item.position >= begin}
            show(len(ids), len(entries))
            if stop.is_set() and len(ids) < len(entries):
                raise KeyboardInterrupt(
                    f"interrupted; {len(ids)} of {len(entries)} are in the file; the same command again adds the rest"
                )
    return ids, len(new)


def records(paths: Sequence[Path], broken: list[str] | None) -> list[Draft]:
    """What files and directories hold; with a list, broken records are named there and left out."""
    if broken is None:
        return [draft for path in paths for draft in read(path)]
    found: list[Draft] = []
    for path in paths:
        found += read(path, on_error="skip", on_problem=lambda problem: broken.append(str(problem)))
    return found
