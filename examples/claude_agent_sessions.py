"""Sessions of the Claude Agent SDK in a .mem file. Run it twice: the second process reads and searches the first's.

pip install "memkit-ai[claude-agent]"
python examples/claude_agent_sessions.py

An agent does the first part by itself, with `ClaudeAgentOptions(session_store=store, mcp_servers={"memory":
memory_server(memory)})`, and resumes with `resume=SESSION`. Here the store is called as the SDK calls it, so that nothing
leaves this machine.
"""

import asyncio
import uuid
from pathlib import Path

from claude_agent_sdk import get_session_messages_from_store, list_sessions_from_store, project_key_for_directory

from memkit import Memory
from memkit_adapters.claude_agent import MemkitSessionStore, memory_tools

SESSION = "550e8400-e29b-41d4-a716-446655440000"


async def main() -> None:
    with Memory("claude_agent.mem") as memory:
        store, here = MemkitSessionStore(memory), str(Path.cwd())
        sessions = await list_sessions_from_store(store, directory=here)
        print("earlier sessions:", [session.first_prompt for session in sessions])
        messages = await get_session_messages_from_store(store, SESSION, directory=here)
        print("it said:", [message.message["content"] for message in messages])
        search = memory_tools(memory)[0]
        print("found:", (await search.handler({"query": "which food must I avoid?"}))["content"][0]["text"])
        await store.append(
            {"project_key": project_key_for_directory(here), "session_id": SESSION},
            [
                {
                    "type": "user",
                    "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, "peanuts")),
                    "timestamp": "2026-11-25T12:00:00.000Z",
                    "sessionId": SESSION,  # type: ignore[typeddict-unknown-key]  # entries have more than the type says
                    "parentUuid": None,
                    "message": {"role": "user", "content": "I am allergic to peanuts."},
                }
            ],
        )


asyncio.run(main())
