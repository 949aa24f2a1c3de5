"""The command line: `memkit VERB FILE …`, with the verbs of `Memory`. docs/cli.md describes it.

Everything heavy is imported by the verb that needs it, so that help and completion answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from memkit import __version__, cli_file, cli_import, cli_serve, cli_slow
from memkit import cli_render as out
from memkit.cli_options import (
    Agent,
    At,
    CacheDir,
    Durability,
    Durable,
    File,
    Id,
    Json,
    Limit,
    Metadata,
    Mode,
    OccurredAt,
    Order,
    Query,
    Run,
    User,
    Where,
    json_object,
    opened,
)
from memkit.errors import InvalidInput

app = typer.Typer(
    name="memkit",
    help="One memory for an LLM agent, in one file, offline.",
    epilog="Exit codes: 0 done; 1 damage was found, or what was asked for is not there; 2 unusable input; "
    "3 the disk refused; 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of the `memkit` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a character shows its code instead of failing
            stream.reconfigure(errors="backslashreplace")
    app()


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"memkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


# writing


@app.command(cls=out.Verb)
def add(
    file: File,
    text: Annotated[list[str] | None, typer.Argument(help="One item each; - reads one from stdin.")] = None,
    *,
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="PATH", help="Texts, Markdown or chats: a file or a directory. Repeatable."),
    ] = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    metadata: Metadata = None,
    occurred_at: OccurredAt = None,
    id: Annotated[str | None, typer.Option("--id", help="Names the one text; one that exists is updated.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Report unreadable records and go on.")] = False,
    durability: Durable = Durability.FSYNC,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Remember texts, or what files hold. Makes FILE when it does not exist."""
    if not text and not source:
        raise InvalidInput("nothing to add; pass TEXT, - for stdin, or --from PATH")
    from memkit import cli_add

    broken: list[str] = []
    said = cli_add.completed(cli_add.texts(text or [], id), metadata, occurred_at)
    found = cli_add.records(source or [], broken if skip_broken else None)
    found = cli_add.completed(found, metadata, occurred_at)
    for record in broken:
        out.note(f"skipped: {record}")
    with opened(file, create=True, durability=durability, cache_dir=cache_dir) as memory, out.progress("adding") as bar:
        entries = said + memory.own_ids(found, user_id=user, agent_id=agent, run_id=run)
        ids, new = cli_add.write(memory, entries, user=user, agent=agent, run=run, show=bar)
    if as_json:
        out.emit({"added": new, "known": len(ids) - new, "broken": broken, "ids": ids})
    else:
        out.say(f"{new} added, {len(ids) - new} known already" + (f": {ids[0]}" if len(ids) == 1 else ""))


@app.command(cls=out.Verb)
def update(
    file: File,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The item.")] = None,
    text: Annotated[str | None, typer.Argument(help="The new text; - reads it from stdin.")] = None,
    *,
    where: Where = None,
    metadata: Metadata = None,
    occurred_at: OccurredAt = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    durability: Durable = Durability.FSYNC,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Record a new version of an item. What is not given stays; the former version stays in its history.

    With --where instead of an ID: of every item that matches, with --metadata in place of its own.
    """
    given, chosen = json_object("--metadata", metadata), json_object("--where", where)
    text = sys.stdin.read() if text == "-" else text
    if (id is None) == (chosen is None) or (chosen is not None and (given is None or occurred_at)):
        raise InvalidInput("pass an ID and what is new, or --where and --metadata")
    with opened(file, user, agent, run, durability=durability, cache_dir=cache_dir) as memory:
        if id is not None:
            item = memory.update(id, text, given, occurred_at=occurred_at)
        else:
            count = memory.update_where(chosen or {}, given or {})
    if as_json:
        out.emit({"updated": count} if id is None else item)
    else:
        out.say(f"{count} updated" if id is None else f"updated {item.id}")


@app.command(cls=out.Verb)
def delete(
    file: File,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The items.")] = None,
    *,
    where: Where = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    durability: Durable = Durability.FSYNC,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """End items, by id or by filter. Their history stays in the file; `erase` removes it too."""
    chosen = json_object("--where", where)
    if ids and chosen is not None:
        raise InvalidInput("ids and --where together; pass one of them")
    with opened(file, user, agent, run, durability=durability, cache_dir=cache_dir) as memory:
        gone = memory.delete(ids) if ids else memory.delete_where(chosen or {})
    if as_json:
        out.emit({"deleted": gone})
    else:
        out.say(f"{gone} deleted")
    missing = len(set(ids or [])) - gone if ids else 0
    if missing:
        out.note(f"{missing} of the ids named no living item")
        raise typer.Exit(out.NOT_THERE)


# reading


@app.command(cls=out.Verb)
def search(
    file: File,
    query: Query,
    *,
    limit: Limit = 10,
    where: Where = None,
    mode: Annotated[Mode, typer.Option("--mode", help="Words and meaning, or one of them.")] = Mode.HYBRID,
    explain: Annotated[bool, typer.Option("--explain", help="Show what every score is made from.")] = False,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """The items that fit a query best, best first."""
    chosen = json_object("--where", where)
    with opened(file, user, agent, run, at=at, cache_dir=cache_dir) as memory:
        hits = memory.search(query, limit=limit, where=chosen, mode=mode.value, explain=explain)
    if as_json:
        out.emit(hits)
    else:
        out.show_hits(hits, explain=explain)


@app.command(cls=out.Verb)
def recall(
    file: File,
    query: Query,
    *,
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", help="Budget of the text.")] = 800,
    order: Annotated[Order, typer.Option("--order", help="Oldest first, or what fits best first.")] = Order.TIME,
    where: Where = None,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """What memory holds on a query, as dated, numbered lines for a prompt."""
    chosen = json_object("--where", where)
    with opened(file, user, agent, run, at=at, cache_dir=cache_dir) as memory:
        found = memory.recall(query, max_tokens=max_tokens, where=chosen, order=order.value)
    if as_json:
        out.emit(found)
    else:
        out.say(found.text)


@app.command(cls=out.Verb)
def feedback(
    file: File,
    query: Query,
    *,
    used: Annotated[list[str] | None, typer.Option("--used", metavar="ID", help="An item that helped.")] = None,
    wrong: Annotated[list[str] | None, typer.Option("--wrong", metavar="ID", help="An item that misled.")] = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Say which items helped with a query and which misled: later searches of this user and agent learn from it."""
    with opened(file, user, agent, run, cache_dir=cache_dir) as memory:
        memory.feedback(query, used=used or [], wrong=wrong or [])
    if as_json:
        out.emit({"query": query, "used": used or [], "wrong": wrong or []})
    else:
        out.note("noted")


@app.command("list", cls=out.Verb)
def list_(
    file: File,
    *,
    limit: Limit = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="From the page before.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every item; with --json, one a line.")] = False,
    where: Where = None,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Items in the order in which they were first recorded."""
    chosen = json_object("--where", where)
    with opened(file, user, agent, run, at=at) as memory:
        if everything:
            for page in cli_file.pages(memory, chosen, cursor):
                out.emit_lines(page.items) if as_json else out.show_items(page.items)
            return
        page = memory.list(chosen, limit=limit, cursor=cursor)
    if as_json:
        out.emit(page)
        return
    out.show_items(page.items)
    if page.cursor:
        out.note(f"there is more: --cursor {page.cursor}, or --all")


@app.command(cls=out.Verb)
def get(
    file: File,
    id: Id,
    *,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """One item, whole."""
    with opened(file, user, agent, run, at=at) as memory:
        item = memory.get(id)
    if item is None:
        out.not_there(f"no item {id!r} here; `memkit list` shows what there is", as_json)
    elif as_json:
        out.emit(item)
    else:
        out.show_item(item)


@app.command(cls=out.Verb)
def history(
    file: File,
    id: Id,
    *,
    at: At = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Every version and deletion of an item, oldest first."""
    with opened(file, user, agent, run, at=at) as memory:
        changes = memory.history(id)
    if not changes:
        out.not_there(f"no item {id!r} was ever here", as_json)
    elif as_json:
        out.emit(changes)
    else:
        out.show_changes(changes)


@app.command(cls=out.Verb)
def stats(file: File, *, user: User = None, agent: Agent = None, run: Run = None, as_json: Json = False) -> None:
    """The memory in numbers."""
    with opened(file, user, agent, run) as memory:
        found = memory.stats()
    if as_json:
        out.emit(found)
    else:
        out.show_stats(found)


app.command("import", cls=out.Verb)(cli_import.import_)
app.command(cls=out.Verb)(cli_serve.mcp)
for verb in (*cli_slow.VERBS, *cli_file.VERBS):
    app.command(cls=out.Verb)(verb)
