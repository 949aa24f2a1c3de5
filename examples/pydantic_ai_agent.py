"""A Pydantic AI agent that remembers. Run it twice: the second process knows what the first one was told.

    pip install "memkit-ai[pydantic-ai]"
    python examples/pydantic_ai_agent.py

The model is a script that repeats what it is sent; put a real one in its place.
"""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from memkit import Memory
from memkit_adapters.pydantic_ai import MemkitMemory


def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Says what it was told before the prompt, as a model would use it."""
    last = messages[-1]
    parts = last.parts if isinstance(last, ModelRequest) else []
    told = [str(part.content) for part in parts if isinstance(part, UserPromptPart)]
    return ModelResponse(
        parts=[TextPart(f"I remember:\n{told[0]}" if len(told) > 1 else "I know nothing about that yet.")]
    )


async def main() -> None:
    with Memory("pydantic_ai.mem") as memory:
        agent = Agent(
            FunctionModel(scripted),
            deps_type=str,
            capabilities=[MemkitMemory(memory, scope=lambda ctx: {"user_id": ctx.deps})],
        )
        if not memory.list(user_id="ana").items:
            await agent.run("I am allergic to peanuts.", deps="ana")
            print("told; run me again")
            return
        print((await agent.run("What am I allergic to?", deps="ana")).output)
        print("to bo:", (await agent.run("What am I allergic to?", deps="bo")).output)


asyncio.run(main())
