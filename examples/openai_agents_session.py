"""An OpenAI agent whose session and long-term memory are one .mem file. Run it twice: the second process remembers.

pip install "memkit-ai[openai-agents]"
python examples/openai_agents_session.py

The model is the SDK's own scripted one, so that nothing leaves this machine; pass `model="..."` to talk to a real one.
"""

import asyncio
from typing import Any

from agents import Agent, RunConfig, Runner
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message

from memkit import Memory
from memkit_adapters.openai_agents import MemkitSession, memory_tools, recall_instructions


def answer(call: ModelCall) -> list[Any]:
    """Stands for a model: it says what it can see."""
    known = [line for line in (call.system_instructions or "").splitlines() if "I am allergic" in line]
    return [
        assistant_message(f"{len(call.input)} items in my history. I remember: {'; '.join(known) or 'nothing yet'}")
    ]


async def ask(memory: Memory, session_id: str, text: str) -> str:
    session = MemkitSession(session_id, memory)
    agent = Agent(
        name="cook",
        model=ScriptedModel([ModelStep.respond(answer)]),
        instructions=recall_instructions(memory, "You help with cooking.", session=session),
        tools=[*memory_tools(memory)],
    )
    result = await Runner.run(agent, text, session=session, run_config=RunConfig(tracing_disabled=True))
    return str(result.final_output)


async def main() -> None:
    with Memory("openai_agents.mem") as memory:
        ana, bo = memory.scope(user_id="ana"), memory.scope(user_id="bo")
        print("ana asks:", await ask(ana, "today", "Which food am I allergic to?"))
        print("bo asks:", await ask(bo, "today", "Which food am I allergic to?"))
        print("ana tells:", await ask(ana, "monday", "I am allergic to peanuts."))


asyncio.run(main())
