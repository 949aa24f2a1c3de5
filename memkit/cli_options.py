"""The options that the verbs of the command line share, and the memory that they lead to."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memkit.errors import InvalidInput, NotAMemory

if TYPE_CHECKING:
    from memkit.memory import Memory


class Mode(StrEnum):
    """Which signals a search uses."""

    HYBRID = "hybrid"
    VECTOR = "vector"
    TEXT = "text"


class Order(StrEnum):
    """In which order a recall writes."""

    TIME = "time"
    BEST = "best"


class Durability(StrEnum):
    """What an acknowledged write survives."""

    FSYNC = "fsync"
    OS = "os"


File = Annotated[Path, typer.Argument(metavar="FILE", help="The .mem file.", show_default=False)]
Id = Annotated[str, typer.Argument(metavar="ID", help="The item.", show_default=False)]
Query = Annotated[str, typer.Argument(metavar="QUERY", help="Some words.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on stdout, and nothing else there.")]
User = Annotated[str | None, typer.Option("--user", metavar="NAME", help="This user's only; on add: whose it is.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="This agent's only; on add: whose it is.")]
Run = Annotated[str | None, typer.Option("--run", metavar="NAME", help="This run's only; on add: which run it is.")]
Where = Annotated[str | None, typer.Option("--where", metavar="JSON", help="A filter; docs/filters.md has them all.")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="As the memory was then (ISO 8601).")]
Metadata = Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="An object, kept beside the text.")]
OccurredAt = Annotated[str | None, typer.Option("--occurred-at", metavar="TIME", help="When it happened (ISO 8601).")]
Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", help="At most so many.")]
CacheDir = Annotated[Path | None, typer.Option("--cache-dir", metavar="DIR", help="Where the search index lives.")]
Durable = Annotated[Durability, typer.Option("--durability", help="fsync survives a power loss, os a crash.")]


@contextmanager
def opened(
    file: Path,
    user: str | None = None,
    agent: str | None = None,
    run: str | None = None,
    *,
    at: str | None = None,
    cache_dir: Path | None = None,
    durability: Durability = Durability.FSYNC,
    create: bool = False,
) -> Iterator[Memory]:
    """The memory, or the view of it, that the options mean.

    Raises:
        NotAMemory: there is no file, and only `create` makes one.
    """
    if not create:
        check_there(file)
    from memkit.memory import Memory

    with Memory(file, durability=durability.value, cache_dir=cache_dir) as memory:
        view = memory.scope(user_id=user, agent_id=agent, run_id=run)
        yield view if at is None else view.at(at)


def check_there(file: Path) -> None:
    """Reading must not make a file: opening a missing or empty one would.

    Raises:
        NotAMemory: missing or empty.
    """
    if not file.exists():
        raise NotAMemory(f"{file} does not exist; check the path, or make it with `memkit add {file} TEXT`")
    if file.is_file() and not file.stat().st_size:
        raise NotAMemory(f"{file} is empty; `memkit add {file} TEXT` makes it a memory")


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """The object that an option holds as JSON.

    Raises:
        InvalidInput: it is not JSON, or no object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(
            f"""{option} {text!r} is not JSON ({error}); write it as in '{{"kind": "note"}}'"""
        ) from None
    if not isinstance(value, dict):
        raise InvalidInput(f"""{option} {text!r} is no object; write it as in '{{"kind": "note"}}'""")
    return value


@contextmanager
def gentle_interrupts() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that no write is cut in the middle; a second one interrupts at once."""
    stop = threading.Event()

    def ask(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
