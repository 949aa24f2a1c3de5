"""The command line: `memkit VERB FILE …`, with the verbs of `Memory`. docs/cli.md describes it.

Everything heavy is imported by the verb that needs it, so that help and completion answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memkit import __version__
from memkit import cli_render as out
from memkit.errors import InvalidInput, NotAMemory

if TYPE_CHECKING:
    from memkit.ingest import Draft
    from memkit.memory import Memory

BATCH = 256  # items made durable together: what an interrupted import loses at most
EXIT_CODES = """Exit codes: 0 done; 1 damage was found, or what was asked for is not there; 2 unusable input;
3 the disk refused; 130 interrupted."""

app = typer.Typer(
    name="memkit",
    cls=None,
    help="One memory for an LLM agent, in one file, offline.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Mode(StrEnum):
    """Which signals a search uses."""

    hybrid = "hybrid"
    vector = "vector"
    text = "text"


class Durability(StrEnum):
    """What an acknowledged write survives."""

    fsync = "fsync"
    os = "os"


File = Annotated[Path, typer.Argument(metavar="FILE", help="The .mem file.", show_default=False)]
Id = Annotated[str, typer.Argument(metavar="ID", help="The item.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on stdout and nothing else.")]
User = Annotated[str | None, typer.Option("--user", help="Only this user's; on add: whose it is.")]
Agent = Annotated[str | None, typer.Option("--agent", help="Only this agent's; on add: whose it is.")]
Run = Annotated[str | None, typer.Option("--run", help="Only this run's; on add: which one it was.")]
Where = Annotated[str | None, typer.Option("--where", metavar="JSON", help="A filter, see docs/filters.md.")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="As the memory was then (ISO 8601).")]
Metadata = Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="An object kept with the text.")]
OccurredAt = Annotated[str | None, typer.Option("--occurred-at", metavar="TIME", help="When it happened (ISO 8601).")]
CacheDir = Annotated[Path | None, typer.Option("--cache-dir", help="Where the search index lives.")]
Durable = Annotated[Durability, typer.Option("--durability", help="fsync survives a power loss, os a crash.")]
Limit = Annotated[int, typer.Option("--limit", "-n", help="At most so many.")]


def main() -> None:
    """The entry point of the `memkit` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a character shows its code instead of failing
            stream.reconfigure(errors="backslashreplace")
    app()


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"memkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


@app.command(cls=out.Verb)
def add(
    file: File,
    text: Annotated[list[str] | None, typer.Argument(help="Texts, one item each; - reads one from stdin.")] = None,
    source: Annotated[
        list[Path] | None, typer.Option("--from", help="A text, Markdown or chat file, or a directory. Repeatable.")
    ] = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    metadata: Metadata = None,
    occurred_at: OccurredAt = None,
    id: Annotated[str | None, typer.Option("--id", help="Names the one item; an id that exists is updated.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Report unreadable records and go on.")] = False,
    durability: Durable = Durability.fsync,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Remember texts, or what files hold; makes FILE when it does not exist."""
    broken: list[str] = []
    drafts = _texts(text or [], id)
    for path in source or []:
        drafts += _read(path, broken if skip_broken else None)
    if not text and not source:
        raise InvalidInput("nothing to add; pass TEXT, - for stdin, or --from PATH")
    drafts = _completed(drafts, metadata, occurred_at)
    for record in broken:
        out.note(f"skipped {record}")
    scope = {"user_id": user, "agent_id": agent, "run_id": run}
    with _open(file, create=True, durability=durability, cache_dir=cache_dir) as memory:
        ids, added = _add(memory, drafts, scope)
    if as_json:
        out.emit({"added": added, "known": len(ids) - added, "broken": broken, "ids": ids})
    elif len(ids) == 1:
        out.say(f"{'added' if added else 'known already:'} {ids[0]}")
    else:
        out.say(f"{added} added, {len(ids) - added} known already")


def _texts(texts: list[str], id: str | None) -> list[Draft]:
    from dataclasses import replace

    from memkit.ingest import drafts

    for text in texts:
        if not any(map(str.isspace, text)) and text != "-" and len(text) < 256 and Path(text).exists():
            raise InvalidInput(f"{text!r} is a file here; --from {text} adds what it holds, and echo {text} | … - the word")
    found = drafts([sys.stdin.read() if text == "-" else text for text in texts])
    if id is None:
        return found
    if len(found) != 1:
        raise InvalidInput(f"--id {id} for {len(found)} texts; an id names one")
    return [replace(found[0], id=id)]


def _read(path: Path, broken: list[str] | None) -> list[Draft]:
    raise NotImplementedError


def _completed(drafts: list[Draft], metadata: str | None, occurred_at: str | None) -> list[Draft]:
    """What the options say fills what the records do not."""
    from dataclasses import replace

    from memkit.ingest import check_metadata, parse_time

    given = _object("--metadata", metadata) or {}
    check_metadata(given)
    moment = None if occurred_at is None else parse_time(occurred_at)
    return [
        replace(draft, metadata={**given, **draft.metadata}, occurred_at=draft.occurred_at or moment)
        for draft in drafts
    ]


def _add(memory: Memory, drafts: list[Draft], scope: dict[str, str | None]) -> tuple[list[str], int]:
    """Write in batches. Returns every id, and how many versions were not there before."""
    begin, ids, added = memory.stats().position, [], 0
    with out.progress("adding") as show:
        try:
            for start in range(0, len(drafts), BATCH):
                items = memory.add_drafts(drafts[start : start + BATCH], **scope)
                ids += [item.id for item in items]
                added += len({item.position for item in items if item.position >= begin})
                show(len(ids), len(drafts))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; {len(ids)} of {len(drafts)} are in the file, the same command again adds the rest"
            ) from None
    return ids, added


@app.command(cls=out.Verb)
def search(
    file: File,
    query: Annotated[str, typer.Argument(help="Some words.", show_default=False)],
    limit: Limit = 10,
    where: Where = None,
    mode: Annotated[Mode, typer.Option("--mode", help="Words and meaning, or one of them.")] = Mode.hybrid,
    explain: Annotated[bool, typer.Option("--explain", help="Show what every score is made from.")] = False,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """The items that fit a query best, best first."""
    chosen = _object("--where", where)
    with _open(file, user, agent, run, at=at, cache_dir=cache_dir) as memory:
        hits = memory.search(query, limit=limit, where=chosen, mode=mode.value, explain=explain)
    if as_json:
        out.emit(hits)
    else:
        out.show_hits(hits, explain=explain)


@app.command(cls=out.Verb)
def recall(
    file: File,
    query: Annotated[str, typer.Argument(help="What the prompt is about.", show_default=False)],
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Budget of the text.")] = 800,
    where: Where = None,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """What memory holds on a query, as dated, numbered lines for a prompt."""
    chosen = _object("--where", where)
    with _open(file, user, agent, run, at=at, cache_dir=cache_dir) as memory:
        found = memory.recall(query, max_tokens=max_tokens, where=chosen)
    if as_json:
        out.emit(found)
    else:
        out.say(found.text)


@app.command("list", cls=out.Verb)
def list_(
    file: File,
    limit: Limit = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="From the page before.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every page; with --json, one item a line.")] = False,
    where: Where = None,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Items in the order in which they were first recorded."""
    chosen = _object("--where", where)
    with _open(file, user, agent, run, at=at) as memory:
        if everything:
            for page in _pages(memory, chosen, cursor):
                _show_page(page, as_json)
            return
        page = memory.list(chosen, limit=limit, cursor=cursor)
    if as_json:
        out.emit(page)
        return
    out.show_items(page.items)
    if page.cursor:
        out.note(f"there is more: --cursor {page.cursor}, or --all")
