"""The paths and layouts of Claude's memory tool, as in `anthropic.lib.tools._beta_builtin_memory_tool` (2.14)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence

from memkit_adapters._guard import missing

try:
    from anthropic.tools import ToolError
except ImportError as error:
    raise missing("anthropic", error) from error

ROOT = "/memories"
MAX_LINES = 999_999
_LEVELS = 2  # of directories that a view shows


def checked(path: str) -> str:
    """A path without detours.

    Raises:
        ToolError: it is not in /memories, or leaves it, or is no text.
    """
    if any("\ud800" <= char <= "\udfff" for char in path):
        raise ToolError(f"Path {path!r} holds half a character (a lone surrogate)")
    if not _inside(path):
        raise ToolError(f"Path must start with /memories, got: {path}")
    direct = posixpath.normpath(path)
    if not _inside(direct):
        raise ToolError(f"Path {path} would escape /memories directory")
    return direct


def _inside(path: str) -> bool:
    return path == ROOT or path.startswith(f"{ROOT}/")


def numbered(lines: Iterable[str], first: int) -> str:
    """Lines with their numbers, six wide."""
    return "\n".join(f"{number:>6}\t{line}" for number, line in enumerate(lines, first))


def numbered_file(text: str, path: str, wanted: Sequence[int] | None) -> str:
    """The lines of a file, or those from the first to the last one wanted; -1 is its end.

    Raises:
        ToolError: it has more lines than six digits number.
    """
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise ToolError(f"File {path} exceeds maximum line limit of 999,999 lines.")
    first, last = wanted if wanted and len(wanted) == 2 else (1, -1)
    start = max(1, first) - 1
    shown = lines[start : len(lines) if last == -1 else last]
    return f"Here's the content of {path} with line numbers:\n{numbered(shown, start + 1)}"


def line_of_only(text: str, wanted: str, path: str) -> int:
    """The index of the line where a text occurs.

    Raises:
        ToolError: it does not occur, or more than once.
    """
    count = text.count(wanted)
    if count == 0:
        raise ToolError(f"No replacement was performed, old_str `{wanted}` did not appear verbatim in {path}.")
    lines = [text[:at].count("\n") for at in _places(text, wanted)]
    if count > 1:
        raise ToolError(
            f"No replacement was performed. Multiple occurrences of old_str `{wanted}` in lines: "
            f"{', '.join(str(line + 1) for line in lines)}. Please ensure it is unique"
        )
    return lines[0]


def _places(text: str, wanted: str) -> Iterable[int]:
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def inserted(text: str, after: int, more: str) -> str:
    """A text with another after one of its lines; 0 is its beginning.

    Raises:
        ToolError: it has no such line.
    """
    lines = text.removesuffix("\n").split("\n") if text else []
    if not 0 <= after <= len(lines):
        raise ToolError(f"Invalid `insert_line` parameter: {after}. It should be within the range [0, {len(lines)}].")
    lines.insert(after, more.rstrip("\n"))
    return "\n".join(lines).removesuffix("\n") + "\n"


def layout(sizes: Mapping[str, int], directory: str) -> str:
    """What a directory holds, two levels deep, without what is hidden.

    Args:
        sizes: path within the directory -> bytes. A directory is as large as what it holds.
        directory: its path, as it was asked for.
    """
    shown: dict[tuple[str, ...], int] = {}
    for path, size in sizes.items():
        steps = path.split("/")
        for depth in range(1, min(_LEVELS, len(steps)) + 1):
            if steps[depth - 1].startswith("."):
                break
            entry = (*steps[:depth], "") if depth < len(steps) else tuple(steps)  # "" ends a directory with a slash
            shown[entry] = shown.get(entry, 0) + size
    header = f"Here're the files and directories up to 2 levels deep in {directory}, excluding hidden items:"
    lines = [f"{human_size(size)}\t{directory}/{'/'.join(entry)}" for entry, size in sorted(shown.items())]
    return "\n".join([header, f"{human_size(sum(sizes.values()))}\t{directory}", *lines])


def human_size(size: int) -> str:
    """A size in bytes as 0B, 512B, 1.5K, 3M."""
    step = min(max(size.bit_length() - 1, 0) // 10, 3)
    value = size / 1024**step
    return f"{value:.0f}{'BKMG'[step]}" if value == int(value) else f"{value:.1f}{'BKMG'[step]}"
