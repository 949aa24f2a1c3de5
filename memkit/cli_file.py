"""The verbs of the command line that are about the file: what moves, checks, packs and empties it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from memkit import cli_render as out
from memkit.cli_options import (
    Agent,
    CacheDir,
    Durability,
    Durable,
    File,
    Json,
    Run,
    User,
    Where,
    check_there,
    json_object,
    opened,
)
from memkit.errors import InvalidInput

if TYPE_CHECKING:
    from memkit.items import Page
    from memkit.memory import Memory

PAGE = 1000  # items read at once when everything is asked for


def export(
    file: File,
    target: Annotated[Path | None, typer.Argument(metavar="TARGET", help="A path that is free.")] = None,
    *,
    lines: Annotated[
        bool, typer.Option("--jsonl", help="Living items as JSON lines, into TARGET or to stdout.")
    ] = False,
    where: Where = None,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Write items, all or some, with ids, times and history into a new .mem file."""
    chosen = json_object("--where", where)
    if target is None and not lines:
        raise InvalidInput("export needs a TARGET, or --jsonl for stdout")
    with opened(file, user, agent, run) as memory:
        if not lines:
            with out.progress("exporting") as bar:
                count = memory.export(target or "", where=chosen, progress=bar)
        else:
            with _sink(target) as sink:
                count = sum(out.emit_lines(page.items, sink) for page in pages(memory, chosen))
    if target is None:
        return
    if as_json:
        out.emit({"items": count, "path": str(target)})
    else:
        out.say(f"{count} items in {target}")


@contextmanager
def _sink(target: Path | None) -> Iterator[TextIO]:
    if target is None:
        yield sys.stdout
        return
    try:
        handle = target.open("x", encoding="utf-8")
    except FileExistsError:
        raise InvalidInput(f"{target} exists already; pass a path that does not") from None
    with handle:
        yield handle


def pages(memory: Memory, where: dict[str, Any] | None, cursor: str | None = None) -> Iterator[Page]:
    """Every page of a listing."""
    page = memory.list(where, limit=PAGE, cursor=cursor)
    yield page
    while page.cursor:
        page = memory.list(where, limit=PAGE, cursor=page.cursor)
        yield page


def merge(
    file: File,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The .mem file to take over.", show_default=False)],
    *,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    durability: Durable = Durability.FSYNC,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Take over what another memory holds, with ids, times and history. Makes FILE when it does not exist."""
    check_there(other)
    from memkit_storage.log import Log

    Log(other, create=False).close()  # no FILE is made for the sake of a file that is no memory
    view = opened(file, user, agent, run, create=True, durability=durability, cache_dir=cache_dir)
    with view as memory, out.progress("merging") as bar:
        report = memory.merge(other, progress=bar)
    if as_json:
        out.emit(report)
        return
    outside = f", {report.outside} outside the scope" if report.outside else ""
    out.say(
        f"{report.added} versions and deletions added, {report.known} known already{outside}; now {report.items} items"
    )


def erase(
    file: File,
    *,
    where: Where = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the receipt.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Remove items for good, with every version, and prove it. Not undone by anything but a copy of the file."""
    chosen = json_object("--where", where)
    if not chosen and not any((user, agent, run)):
        raise InvalidInput("nothing chosen; pass --where or --user. To erase everything, delete the file")
    with opened(file, user, agent, run, cache_dir=cache_dir) as memory:
        if not yes:
            _ask(memory, file, chosen)
        with out.progress("erasing") as bar:
            receipt = memory.erase(chosen, reason=reason, progress=bar)
    if as_json:
        out.emit(receipt)
    else:
        out.show_receipt(receipt)


def _ask(memory: Memory, file: Path, where: dict[str, Any] | None) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput("erase asks before it removes anything, and there is no terminal to answer; pass --yes")
    page = memory.list(where, limit=PAGE)
    count = f"{len(page.items)}{' or more' if page.cursor else ''}"
    question = f"Remove {count} living items from {file} for good, and every former version that matches?"
    if not typer.confirm(question, err=True):
        out.note("nothing was erased")
        raise typer.Exit(out.NOT_THERE)


def verify(
    file: File,
    *,
    head: Annotated[
        str | None, typer.Option("--head", metavar="HEX", help="The head that an earlier run gave.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the whole file and prove that nothing was changed, cut or lost. Exit code 1 if something was."""
    from memkit_storage.verify import verify as read_all

    check_there(file)
    if head is not None and (len(head) % 2 or not set(head.lower()) <= set("0123456789abcdef")):
        raise InvalidInput(f"--head {head!r} is none that verify gave: it is a hexadecimal number")
    with out.progress("reading") as bar:
        report = read_all(file, head=head, progress=bar)
    if as_json:
        out.emit({"ok": report.ok, **out.plain(report)})
    else:
        out.show_verification(report)
    if not report.ok:
        raise typer.Exit(out.NOT_THERE)


def repair(
    file: File,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Cut an incomplete tail and note known damage; removes nothing readable."""
    from memkit_storage.verify import repair as mend

    check_there(file)
    actions = mend(file, dry_run=dry_run)
    if as_json:
        out.emit({"dry_run": dry_run, "actions": actions})
        return
    for action in actions:
        out.say(f"{'would ' if dry_run else ''}{action}")
    if not actions:
        out.say("nothing to repair")


def rebuild(file: File, *, cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Make everything derived anew from the log: the search index, and the vectors if the embedder changed."""
    with opened(file, cache_dir=cache_dir) as memory, out.progress("embedding") as bar:
        memory.rebuild(progress=bar)
        found = memory.stats()
    if as_json:
        out.emit(found)
    else:
        out.say(f"{found.items} items are indexed anew")


def compact(file: File, *, cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Pack the file. Every version, deletion and time stays."""
    with opened(file, cache_dir=cache_dir) as memory, out.progress("packing") as bar:
        report = memory.compact(progress=bar)
    if as_json:
        out.emit(report)
    else:
        out.say(f"{report.before:,} bytes before, {report.after:,} bytes now, {report.events} events kept")


def demo(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to make.")] = Path("demo.mem"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Make it anew if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """The whole job on a conversation that comes with memkit: add, search, recall, go back, export, verify."""
    from memkit.demo import run

    run(path, force=force, as_json=as_json)


VERBS: tuple[Callable[..., None], ...] = (export, merge, verify, repair, rebuild, compact, erase, demo)
