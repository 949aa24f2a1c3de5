"""Anthropic's tests of its memory tool for files, with memkit's tool in its place.

Their tests put files into a directory, or look into it. So what is there becomes documents before each command, and the
documents are written there after it.
"""

import shutil
import tempfile
from pathlib import Path

import anthropic.lib.tools._beta_builtin_memory_tool as module
from anyio import Path as AsyncPath

from memkit import Memory
from memkit_adapters.claude import AsyncMemkitMemoryTool, MemkitMemoryTool

COMMANDS = ("view", "create", "str_replace", "insert", "delete", "rename", "clear_all_memory")


def new_memory() -> Memory:
    path = Path(tempfile.mkdtemp()) / "a.mem"
    return Memory(path, embedder=lambda texts: [[1.0, 0.0]] * len(texts), durability="os")


def taken_in(documents, root: Path) -> None:
    for file in root.rglob("*"):
        if file.is_file():
            documents.write(f"/memories/{file.relative_to(root).as_posix()}", file.read_bytes().decode())


def written_out(documents, root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()
    for path in documents.list("/memories"):
        file = root / path.removeprefix("/memories/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(documents.read(path).encode())


def mirrored(name):
    method = getattr(MemkitMemoryTool, name)

    def call(self, *command):
        taken_in(self.documents, self.memory_root)
        try:
            return method(self, *command)
        finally:
            written_out(self.documents, self.memory_root)

    return call


class Sync(MemkitMemoryTool):
    def __init__(self, base_path):
        super().__init__(new_memory())
        self.base_path, self.memory_root = Path(base_path), Path(base_path) / "memories"
        self.memory_root.mkdir(parents=True, exist_ok=True)


for name in COMMANDS:
    setattr(Sync, name, mirrored(name))


def awaited(name):
    async def call(self, *command):
        inner = self.tool.memory_root  # the commands of the adapter's own class run, between the two copies
        taken_in(self.tool.documents, inner)
        try:
            return await getattr(AsyncMemkitMemoryTool, name)(self, *command)
        finally:
            written_out(self.tool.documents, inner)

    return call


class Async(AsyncMemkitMemoryTool):
    def __init__(self, base_path):
        super().__init__(new_memory())
        self.base_path, self.memory_root = AsyncPath(base_path), AsyncPath(base_path) / "memories"
        self.tool.memory_root = Path(base_path) / "memories"
        self.tool.memory_root.mkdir(parents=True, exist_ok=True)


for name in COMMANDS:
    setattr(Async, name, awaited(name))

module.BetaLocalFilesystemMemoryTool, module.BetaAsyncLocalFilesystemMemoryTool = Sync, Async
