"""`memkit import`: what another memory holds goes into this one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from memkit import cli_render as out
from memkit.cli_options import Agent, CacheDir, Durability, Durable, File, Json, Run, User, opened


class Kind(StrEnum):
    """Where it comes from."""

    MEM0 = "mem0"
    MEMVID = "memvid"
    LANGGRAPH_SQLITE = "langgraph-sqlite"
    CHATGPT = "chatgpt"
    CLAUDE = "claude"


def import_(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="mem0, memvid, langgraph-sqlite, chatgpt or claude.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Its file or directory.", show_default=False)],
    file: File,
    *,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    durability: Durable = Durability.FSYNC,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Take over another memory, with ids, times and metadata. Run again, it adds what is new. Makes FILE."""
    from memkit import migrate

    found = list(migrate.read(kind.value, source))  # before a file is made
    with opened(file, create=True, durability=durability, cache_dir=cache_dir) as memory:
        report = migrate.into(memory, found, user_id=user, agent_id=agent, run_id=run)
    broken = [str(problem) for problem in report.broken]
    for problem in broken:
        out.note(f"skipped: {problem}")
    if as_json:
        out.emit({"added": report.added, "known": report.known, "broken": broken})
    else:
        out.say(f"{report.added} added, {report.known} known already, {len(broken)} unreadable")
    if broken:
        raise typer.Exit(out.NOT_THERE)
