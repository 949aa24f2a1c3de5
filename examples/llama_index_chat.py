"""A LlamaIndex chat with long-term memory. Run it twice: the second process knows what the first one was told.

    pip install "memkit-ai[llama-index]"
    python examples/llama_index_chat.py

The model is LlamaIndex's own mock, which repeats what it is sent; put a real one in its place.
"""

import asyncio

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms.mock import MockLLM
from llama_index.core.memory import Memory as ChatMemory

from memkit import Memory
from memkit_adapters.llama_index import MemkitMemoryBlock


async def main() -> None:
    with Memory("llama_index.mem") as memory:
        earlier = memory.list(user_id="ana").items
        block = MemkitMemoryBlock(memory=memory.scope(user_id="ana"), max_tokens=200)
        chat = ChatMemory.from_defaults(session_id=f"session {len(earlier)}", memory_blocks=[block])
        engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=chat)
        if earlier:
            print(await engine.achat("What am I allergic to?"))
        else:
            await engine.achat("I am allergic to peanuts.")
            await block.aput(await chat.aget_all())  # the end of the session: what has not gone into memory yet
            print("told; run me again")


asyncio.run(main())
