"""How the command line speaks: tables for people, JSON for programs, one line on stderr for what went wrong.

Exit codes: 0 done · 1 damage was found, or what was asked for is not there · 2 unusable input · 3 the disk refused ·
130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand

from memkit.errors import CorruptRecord, ItemNotFound, MemkitError, ReadOnly, StorageFailed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from memkit.items import Change, Hit, Item, Stats
    from memkit.slow.bands import Band
    from memkit.slow.many import Outcome
    from memkit.slow.rounds import SleepReport
    from memkit_storage.rewrite import EraseReceipt
    from memkit_storage.verify import VerifyReport

NOT_THERE, BAD_INPUT, DISK, INTERRUPTED = 1, 2, 3, 130
SHOWN_SIGNALS = 8  # of a hit, in a table; --json has all
CLIPPED = 400  # characters of a text in a table; `memkit get` shows the whole
_SYMBOLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_SYMBOLS |= dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)


class Verb(TyperCommand):
    """A command whose errors are one line on stderr (with --json: one JSON object) and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; anything that memkit did not raise on purpose keeps its traceback."""
        as_json = bool(ctx.params.get("as_json"))
        with _warnings_as_lines():
            try:
                return super().invoke(ctx)
            except MemkitError as error:
                fail(type(error).__name__, str(error), as_json=as_json, code=_exit_code(error))
            except KeyboardInterrupt as stop:
                fail("Interrupted", str(stop) or "interrupted", as_json=as_json, code=INTERRUPTED)


def _exit_code(error: MemkitError) -> int:
    if isinstance(error, ItemNotFound | CorruptRecord):
        return NOT_THERE
    return DISK if isinstance(error, StorageFailed | ReadOnly) else BAD_INPUT


def fail(kind: str, message: str, *, as_json: bool, code: int) -> NoReturn:
    """Say on stderr what went wrong, and end with `code`."""
    if as_json:
        typer.echo(_dumps({"error": {"type": kind, "message": message}}), err=True)
    else:
        note(message)
    raise typer.Exit(code)


def not_there(message: str, as_json: bool) -> NoReturn:
    """What was asked for does not exist."""
    fail("ItemNotFound", message, as_json=as_json, code=NOT_THERE)


def note(message: str) -> None:
    """A line for people on stderr, where it does not mix with the output."""
    typer.echo(f"memkit: {clean(message)}", err=True)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        python = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):  # damage, a lost index: facts about the file, not about the code
                note(f"warning: {message}")
            else:
                python(message, category, *where, **more)

        warnings.showwarning = show
        yield


# for programs


def emit(value: Any) -> None:
    """One JSON document on one line of stdout."""
    typer.echo(_dumps(value))


def emit_lines(values: Sequence[Any], sink: TextIO | None = None) -> int:
    """A JSON document a line, on stdout or into a file. Returns how many."""
    for value in values:
        typer.echo(_dumps(value), file=sink)
    return len(values)


def _dumps(value: Any) -> str:
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, default=plain, ensure_ascii=not utf8)


def plain(value: Any) -> Any:
    """A model or dataclass of memkit as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.model_dump(mode="json")


# for people


def clean(text: str) -> str:
    """Text that cannot steer a terminal: control characters other than newline and tab as symbols."""
    return text.translate(_SYMBOLS)


def console(*, err: bool = False) -> Console:
    """Colours on a terminal only, and not with NO_COLOR; nothing in a text is taken for markup."""
    from rich.console import Console

    return Console(stderr=err, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Text on stdout, as wide as it is."""
    typer.echo(clean(text))


def facts(rows: Mapping[str, object]) -> None:
    """Names and values, one pair a line."""
    table = _table(None, None)
    for name, value in rows.items():
        table.add_row(_dim(name), _text(str(value)))
    console().print(table)


def _parts(signals: Mapping[str, float]) -> str:
    """What most of a score is made from: signal, value and weight, the largest share first."""
    named = {name: value for name, value in signals.items() if not name.endswith("_weight")}
    parts = {name: value * signals.get(f"{name}_weight", 1.0) for name, value in named.items()}
    largest = sorted(parts, key=lambda name: -abs(parts[name]))[:SHOWN_SIGNALS]
    shown = [f"{name} {named[name]:.3g} x {signals.get(f'{name}_weight', 1.0):.3g}" for name in largest if parts[name]]
    return "  ".join(shown)


def show_hits(hits: Sequence[Hit], *, explain: bool) -> None:
    """Hits with their scores, best first."""
    if not hits:
        say("nothing found")
        return
    table = _table("score", "when", "memory")
    for hit in hits:
        signals = _parts(hit.signals) if explain else ""
        table.add_row(f"{hit.score:.3f}", when(hit.occurred_at), _memory(hit, signals))
    console().print(table)


def show_items(items: Iterable[Item]) -> None:
    """Items with when they happened."""
    table = _table("when", "memory")
    for item in items:
        table.add_row(when(item.occurred_at), _memory(item))
    console().print(table if table.row_count else "no items")


def show_item(item: Item) -> None:
    """Everything about one item, its text whole."""
    known = item.model_dump(exclude={"text", "metadata"}, exclude_none=True)
    moments = {name: value.isoformat() for name, value in known.items() if isinstance(value, datetime)}
    facts({**known, **moments, **item.metadata})
    say("\n" + item.text)


def show_changes(changes: Sequence[Change]) -> None:
    """The life of one item, oldest first."""
    table = _table("recorded", "change", "memory")
    for change in changes:
        text = _memory(change.item) if change.item else _dim("-")
        table.add_row(f"{change.at:%Y-%m-%d %H:%M:%S}", change.kind, text)
    console().print(table)


def show_stats(stats: Stats) -> None:
    """The memory in numbers."""
    counts = stats.model_dump(exclude={"users", "damage", "tail", "sealed"}, exclude_none=True)
    most = sorted(stats.users.items(), key=lambda user: -user[1])[:10]
    counts["users"] = ", ".join(f"{name} ({items})" for name, items in most) + (", …" if len(stats.users) > 10 else "")
    facts({**counts, "damage": "; ".join(stats.damage) or "none met"})


def show_verification(report: VerifyReport) -> None:
    """What a full read found."""
    counts = {name: getattr(report, name) for name in ("path", "frames", "items", "versions", "size", "head")}
    whole = "no damage but what was noted" if report.noted else "every byte is as it was written"
    facts({"verdict": whole if report.ok else "DAMAGED", **counts})
    for damage in report.damage:
        say(f"damage: {damage}")
    for damage in report.noted:
        say(f"noted by an earlier repair: {damage}")


def show_bands(bands: Sequence[Band]) -> None:
    """Bands with their verdicts, oldest first."""
    if not bands:
        say("no bands; `memkit consolidate` makes them from feedback")
        return
    table = _table("made", "state", "band")
    for band in bands:
        state = "in force" if band.in_force else "let in" if band.promoted else "turned away"
        scope = " ".join(f"{name.removesuffix('_id')}={value}" for name, value in band.scope.items())
        size = f"{band.feedbacks} feedbacks, {band.items} items, {band.bytes:,} bytes"
        text = _text("; ".join(band.reasons) + "\n")
        table.add_row(when(band.created_at), state, text.append_text(_dim("  ".join([band.id, scope, size]))))
    console().print(table)


def show_sleep(report: SleepReport) -> None:
    """What a sleep did."""
    for band in report.bands:
        say(f"{'let in' if band.promoted else 'turned away'}: {band.id}: {'; '.join(band.reasons)}")
    for name, reason in report.skipped.items():
        say(f"nothing new for {name}: {reason}")
    left = "" if report.finished else "; not finished, the next sleep goes on"
    say(f"{len(report.bands)} bands in {report.seconds:.1f} s{left}")


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """What sleeps did to many files."""
    table = _table("let in", "turned away", "nothing new", "seconds", "file")
    for one in outcomes:
        counts = (one.promoted, one.rejected, one.idle)
        table.add_row(
            *map(str, counts), f"{one.seconds:.1f}", _text(one.path + (f"\n{one.error}" if one.error else ""))
        )
    console().print(table)


def show_receipt(receipt: EraseReceipt) -> None:
    """Proof of an erasure."""
    named = (
        "receipt",
        "items",
        "versions",
        "reason",
        "previous_head",
        "head",
        "checked",
        "index_removed",
        "states_dropped",
    )
    facts({name: getattr(receipt, name) for name in named})
    if receipt.states_dropped:
        say(f"learned states dropped: {receipt.states_dropped}")
    for band in receipt.bands_off:
        say(f"switched off: band {band}")
    for id_ in receipt.ids:
        say(f"erased: {id_}")


def when(moment: datetime) -> str:
    """To the minute, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M}"


def _table(*columns: str | None) -> Any:
    from rich.table import Table

    named = any(columns)
    table = Table(box=None, show_header=named, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns[:-1]:
        table.add_column(column or "", no_wrap=True)
    table.add_column(columns[-1] or "", overflow="fold", min_width=20)
    return table


def _memory(item: Item, more: str = "") -> Text:
    """The text, clipped, and below it what names the item."""
    speaker = item.metadata.get("name") or item.metadata.get("role")
    said = f"{speaker}: {item.text}" if isinstance(speaker, str) and speaker else item.text
    clipped = said if len(said) <= CLIPPED else said[:CLIPPED] + "…"
    scopes = zip(("user", "agent", "run"), (item.user_id, item.agent_id, item.run_id), strict=True)
    named = [item.id, *(f"{kind}={value}" for kind, value in scopes if value is not None), more]
    return _text(clipped + "\n").append_text(_dim("  ".join(filter(None, named))))


def _text(text: str) -> Text:
    from rich.text import Text

    return Text(clean(text))


def _dim(text: str) -> Text:
    from rich.text import Text

    return Text(clean(text), style="dim")


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for (done, total), shown only on a terminal and gone at the end."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=console(err=True), transient=True) as bars:
        bar = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
