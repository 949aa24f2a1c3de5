"""The front door for asyncio: every method of `Memory`, awaited, and no second copy of what they do."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from memkit.memory import Memory
from memkit_storage.log import Durability

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 8  # concurrent adds share one fsync, so a few threads more than cores pay


def _awaited(
    method: Callable[Concatenate[Memory, P], T],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, T]]:
    async def call(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # the caller's context goes along, so that an embedder sees the trace or request that it works for
        work = partial(contextvars.copy_context().run, method, self._memory, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    update_wrapper(call, method)
    return call


def _closing(method: Callable[[Memory], None]) -> Callable[[AsyncMemory], Coroutine[Any, Any, None]]:
    async def call(self: AsyncMemory, /) -> None:
        def finish() -> None:
            self._threads.shutdown()  # also waits for calls that nobody awaits any more
            method(self._memory)

        await asyncio.to_thread(finish)

    update_wrapper(call, method)
    return call


def _viewing(method: Callable[Concatenate[Memory, P], Memory]) -> Callable[Concatenate[AsyncMemory, P], AsyncMemory]:
    def call(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> AsyncMemory:
        return self._of(method(self._memory, *args, **kwargs), self._threads)

    update_wrapper(call, method)
    return call


class AsyncMemory:
    """`Memory` for asyncio: the same names, arguments, results and errors; methods that read or write are awaited.

    Calls run in a few threads of this memory's own, so that an event loop never waits for the disk or the embedder,
    and any number of loops may share one memory. A `progress` callable is called from such a thread.

    Cancelling a call that is under way stops the waiting, not the work: an `add` happens whole, or, if it had not
    begun, not at all.

    Constructing it opens the file, which takes milliseconds; where even that is too long for the loop, use
    `AsyncMemory.wrap(await asyncio.to_thread(Memory, path))`.

    Example:
        >>> async with AsyncMemory("assistant.mem") as memory:
        ...     await memory.add("I moved to Lisbon in May.", user_id="ana")
        ...     hits = await memory.search("where does she live?", user_id="ana")
    """

    _memory: Memory
    _threads: ThreadPoolExecutor

    def __init__(
        self,
        path: str | Path,
        *,
        embedder: Any | None = None,
        durability: Durability = "fsync",
        cache_dir: str | Path | None = None,
        share_learning: bool = False,
        consolidate: Literal["auto"] | None = None,
    ) -> None:
        self._memory = Memory(
            path,
            embedder=embedder,
            durability=durability,
            cache_dir=cache_dir,
            share_learning=share_learning,
            consolidate=consolidate,
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="memkit")

    @classmethod
    def wrap(cls, memory: Memory) -> Self:
        """The asyncio door of a memory that is open already; closing either closes the file for both."""
        return cls._of(memory, ThreadPoolExecutor(THREADS, thread_name_prefix="memkit"))

    @classmethod
    def _of(cls, memory: Memory, threads: ThreadPoolExecutor) -> Self:
        view = object.__new__(cls)
        view._memory, view._threads = memory, threads
        return view

    def __repr__(self) -> str:
        return f"Async{self._memory!r}"

    # views and what they are bound to need no I/O: they are not awaited
    bound = property(lambda self: self._memory.bound, doc=Memory.bound.__doc__)
    scope = _viewing(Memory.scope)
    at = _viewing(Memory.at)
    branch = _viewing(Memory.branch)

    # everything else is the method of Memory, in a thread
    add = _awaited(Memory.add)
    own_ids = _awaited(Memory.own_ids)
    add_drafts = _awaited(Memory.add_drafts)
    update = _awaited(Memory.update)
    update_where = _awaited(Memory.update_where)
    replace = _awaited(Memory.replace)
    replace_where = _awaited(Memory.replace_where)
    delete = _awaited(Memory.delete)
    delete_where = _awaited(Memory.delete_where)
    get = _awaited(Memory.get)
    get_many = _awaited(Memory.get_many)
    list = _awaited(Memory.list)
    history = _awaited(Memory.history)
    search = _awaited(Memory.search)
    recall = _awaited(Memory.recall)
    feedback = _awaited(Memory.feedback)
    attach = _awaited(Memory.attach)
    reset_fast = _awaited(Memory.reset_fast)
    snapshot = _awaited(Memory.snapshot)
    consolidate = _awaited(Memory.consolidate)
    bands = _awaited(Memory.bands)
    rollback = _awaited(Memory.rollback)
    levels = _awaited(Memory.levels)
    export = _awaited(Memory.export)
    merge = _awaited(Memory.merge)
    erase = _awaited(Memory.erase)
    verify = _awaited(Memory.verify)
    rebuild = _awaited(Memory.rebuild)
    compact = _awaited(Memory.compact)
    stats = _awaited(Memory.stats)
    to_arrow = _awaited(Memory.to_arrow)
    lance = _awaited(Memory.lance)
    close = _closing(Memory.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
