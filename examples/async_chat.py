"""A chat loop with AsyncMemory: recall before the reply, add after it. The model is a script, so that it runs offline.

`python examples/async_chat.py`
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from memkit import AsyncMemory

SCRIPT = [
    "Hi! I'm Mira, and my sister Lea gets married on the 12th of September.",
    "I don't eat meat, by the way.",
    "Could you find a restaurant for Lea's hen night?",
    "What was the date of the wedding again?",
]


async def reply(prompt: str) -> str:
    """Stands for a call to a language model; it shows what the model would have been told."""
    await asyncio.sleep(0)
    return f"(a model answers from {prompt.count(chr(10)) - 1} lines of memory)"


async def turn(memory: AsyncMemory, said: str) -> str:
    recall = await memory.recall(said, max_tokens=300)
    answer = await reply(f"What you remember:\n{recall.text}\n\nUser: {said}")
    await memory.add([{"role": "user", "content": said}, {"role": "assistant", "content": answer}])
    return f"{recall.text}\n-> {answer}" if not recall.abstained else answer


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncMemory(Path(folder) / "chat.mem", cache_dir=folder) as memory:
            mira = memory.scope(user_id="mira", run_id="today")  # a view does no I/O: nothing to await
            for said in SCRIPT:
                print(f"mira: {said}\n{await turn(mira, said)}\n")
            found = await asyncio.gather(*(mira.search(query, limit=1) for query in ("wedding", "food", "sister")))
            print([hits[0].text for hits in found])


if __name__ == "__main__":
    asyncio.run(main())
