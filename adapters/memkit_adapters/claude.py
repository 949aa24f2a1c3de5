"""The memory tool of Claude, with its files as documents in a .mem file: versioned, searchable, erasable."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

from memkit import Memory
from memkit.documents import Documents
from memkit.errors import InvalidInput, ItemNotFound
from memkit_adapters._claude_files import ROOT, checked, inserted, layout, line_of_only, numbered, numbered_file
from memkit_adapters._guard import missing
from memkit_adapters._threads import awaited

try:
    from anthropic.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError
except ImportError as error:
    raise missing("anthropic", error) from error

T = TypeVar("T")
EDITED = "The memory file has been edited. Here is the snippet showing the change (with line numbers):"


class MemkitMemoryTool(BetaAbstractMemoryTool):
    """For `client.beta.messages.tool_runner(tools=[MemkitMemoryTool(memory)], ...)`. It answers what Anthropic's own
    `BetaLocalFilesystemMemoryTool` does, word for word; what it refuses is a `ToolError`. Thread-safe.

    Args:
        memory: a memory, or a view of it: `memory.scope(user_id="ana")` has files of its own. The files are
            `memkit.documents.Documents` below /memories.
        cache_control: passed on to the API.
    """

    def __init__(self, memory: Memory, *, cache_control: Any = None) -> None:
        super().__init__(cache_control=cache_control)
        self.documents = Documents(memory)

    def view(self, command: Any) -> str:
        """The lines of a file, numbered, or what a directory holds, two levels deep."""
        path = checked(command.path)
        try:
            return numbered_file(self.documents.read(path), command.path, command.view_range)
        except ItemNotFound:
            return self._directory(path, command.path)

    def create(self, command: Any) -> str:
        """A new file; there must be nothing at its path."""
        path = checked(command.path)
        if self._is_taken(path):
            raise ToolError(f"File {command.path} already exists")
        _made(self.documents.create, path, command.file_text)
        return f"File created successfully at: {command.path}"

    def str_replace(self, command: Any) -> str:
        """Replace a text that occurs once in a file, and show the lines around it."""
        at = 0

        def change(text: str) -> str:
            nonlocal at
            at = line_of_only(text, command.old_str, command.path)
            return text.replace(command.old_str, command.new_str or "")

        lines = self._edit(command.path, change).split("\n")
        first = max(0, at - 2)
        return f"{EDITED}\n{numbered(lines[first : at + 3], first + 1)}"

    def insert(self, command: Any) -> str:
        """Put a text after a line of a file; line 0 is its beginning."""
        self._edit(command.path, lambda text: inserted(text, command.insert_line, command.insert_text))
        return f"The file {command.path} has been edited."

    def delete(self, command: Any) -> str:
        """End a file, or a directory with all that it holds; its history stays in the memory (see `Memory.erase`)."""
        path = checked(command.path)
        if path == ROOT:
            raise ToolError("Cannot delete the /memories directory itself")
        if self.documents.delete(path) == 0:
            raise ToolError(f"The path {command.path} does not exist")
        return f"Successfully deleted {command.path}"

    def rename(self, command: Any) -> str:
        """Move a file or a directory to a path where there is nothing."""
        old, new = checked(command.old_path), checked(command.new_path)
        if old == ROOT:
            raise ToolError("Cannot rename the /memories directory itself")
        if self._is_taken(new):
            raise ToolError(f"The destination {command.new_path} already exists")
        try:
            _made(self.documents.rename, old, new)
        except ItemNotFound as error:
            raise ToolError(f"The path {command.old_path} does not exist") from error
        return f"Successfully renamed {command.old_path} to {command.new_path}"

    def clear_all_memory(self) -> str:
        """End every file."""
        self.documents.delete(ROOT)
        return "All memory cleared"

    def _edit(self, given: str, change: Callable[[str], str]) -> str:
        path = checked(given)
        try:
            return _made(self.documents.edit, path, change)
        except ItemNotFound as error:
            if self._is_taken(path):
                raise ToolError(f"The path {given} is not a file.") from error
            raise ToolError(f"The path {given} does not exist. Please provide a valid path.") from error

    def _directory(self, path: str, given: str) -> str:
        sizes = {name[len(path) + 1 :]: size for name, size in self.documents.sizes(path).items()}
        if not sizes and path != ROOT:
            raise ToolError(f"The path {given} does not exist. Please provide a valid path.")
        return layout(sizes, given)

    def _is_taken(self, path: str) -> bool:
        return path == ROOT or path in self.documents or bool(self.documents.list(path))


def _made(work: Callable[..., T], *args: Any) -> T:
    """A change whose refusal reaches the model in memkit's words."""
    try:
        return work(*args)
    except InvalidInput as refusal:
        raise ToolError(str(refusal)) from refusal


_TOOL = attrgetter("tool")


class AsyncMemkitMemoryTool(BetaAsyncAbstractMemoryTool):
    """`MemkitMemoryTool` for `AsyncAnthropic`; arguments as there."""

    def __init__(self, memory: Memory, *, cache_control: Any = None) -> None:
        super().__init__(cache_control=cache_control)
        self.tool = MemkitMemoryTool(memory)

    view = awaited(MemkitMemoryTool.view, _TOOL)
    create = awaited(MemkitMemoryTool.create, _TOOL)
    str_replace = awaited(MemkitMemoryTool.str_replace, _TOOL)
    insert = awaited(MemkitMemoryTool.insert, _TOOL)
    delete = awaited(MemkitMemoryTool.delete, _TOOL)
    rename = awaited(MemkitMemoryTool.rename, _TOOL)
    clear_all_memory = awaited(MemkitMemoryTool.clear_all_memory, _TOOL)
