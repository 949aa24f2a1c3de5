"""Tables in Markdown, printed a line at a time while a benchmark goes on."""

from __future__ import annotations

from collections.abc import Iterable


def ruled(head: str) -> str:
    """The first two lines of a table, from its head `| a | b |`."""
    return f"{head}\n|{' --- |' * (head.count('|') - 1)}"


def row(cells: Iterable[str]) -> str:
    """One line of it."""
    return f"| {' | '.join(cells)} |"
