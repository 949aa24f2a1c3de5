"""Calls that block, for adapters whose framework awaits them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Awaited = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]


async def finished(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread. When the caller is cancelled, that is passed on once the work is done, so that nobody takes
    what happened for undone, and does it again.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    if cancelled is None:
        return task.result()
    task.exception()  # seen: the cancellation is what the caller hears of
    raise cancelled


def awaited(method: Callable[Concatenate[S, P], T], on: Callable[[Any], S] = lambda itself: itself) -> Awaited[P, T]:
    """A method that runs another one, of its own object or of what `on` makes of it, as `finished` does."""

    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await finished(method, on(self), *args, **kwargs)

    return update_wrapper(call, method)
