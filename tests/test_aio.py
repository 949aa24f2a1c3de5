"""The asyncio door: the same names and results as `Memory`, and a loop that never waits."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support import embed

from memkit import AsyncMemory, Memory
from memkit.errors import InvalidInput


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def open_(tmp_path, **more) -> AsyncMemory:
    return AsyncMemory(tmp_path / "a.mem", embedder=embed, cache_dir=tmp_path, durability="os", **more)


def test_the_names_are_those_of_memory():
    assert public(AsyncMemory) - {"wrap"} == public(Memory)


@pytest.mark.parametrize("name", sorted(public(Memory)))
def test_the_documentation_is_that_of_memory(name):
    assert getattr(AsyncMemory, name).__doc__ == getattr(Memory, name).__doc__


def test_fifty_calls_at_once_lose_nothing(tmp_path):
    async def work() -> None:
        async with open_(tmp_path) as memory:
            adds = [memory.add(f"text number {i}", id=f"i{i}", user_id="ana") for i in range(50)]
            finds = [memory.search("number", limit=3) for _ in range(20)]
            await asyncio.gather(*adds, *finds)
            assert len((await memory.list(limit=100)).items) == 50
            ana = memory.scope(user_id="ana")
            assert isinstance(ana, AsyncMemory)
            assert not (await ana.recall("number 7")).abstained

    asyncio.run(work())
    with Memory(tmp_path / "a.mem", embedder=embed, cache_dir=tmp_path) as memory:
        assert memory.stats().items == 50
        assert memory.verify().ok


def test_views_see_the_past_and_errors_keep_their_type(tmp_path):
    async def work() -> None:
        async with open_(tmp_path) as memory:
            (item,) = await memory.add("old", id="k")
            await memory.update("k", "new")
            assert (await memory.at(item.updated_at).get("k")).text == "old"
            with pytest.raises(InvalidInput):
                await memory.add("")

    asyncio.run(work())


def test_a_cancelled_add_happens_whole_or_not_at_all(tmp_path):
    async def work() -> int:
        async with open_(tmp_path) as memory:
            tasks = [asyncio.create_task(memory.add([f"{i} a", f"{i} b"])) for i in range(30)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return len((await memory.list(limit=1000)).items)

    count = asyncio.run(work())
    assert count % 2 == 0
    assert count >= 30


def test_loops_in_two_threads_share_one_memory(tmp_path):
    memory = open_(tmp_path)
    failures = []

    def run(name: str) -> None:
        async def work() -> None:
            await asyncio.gather(*(memory.add(f"{name} {i}") for i in range(20)))

        try:
            asyncio.run(work())
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert asyncio.run(memory.stats()).items == 40
    asyncio.run(memory.close())


def test_an_open_memory_can_be_wrapped(open_memory):
    memory = open_memory()
    memory.add("shared")

    async def work() -> str:
        return (await AsyncMemory.wrap(memory).search("shared"))[0].text

    assert asyncio.run(work()) == "shared"
