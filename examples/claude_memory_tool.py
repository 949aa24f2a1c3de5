"""Claude's memory tool on a .mem file. Run it twice: the second process reads the notes of the first.

pip install "memkit-ai[anthropic]"
python examples/claude_memory_tool.py

A few lines stand for Anthropic's servers, so that nothing leaves this machine; without `http_client=` it is the real one.
"""

import json
from typing import Any

import httpx2
from anthropic import Anthropic, DefaultHttpxClient

from memkit import Memory
from memkit_adapters.claude import MemkitMemoryTool

NOTES = "/memories/ana.md"


def claude(request: httpx2.Request) -> httpx2.Response:
    """Looks into its notes, makes one if there is none, and says what the tool answered last."""
    last = json.loads(request.content)["messages"][-1]["content"]
    if isinstance(last, str):
        return says({"command": "view", "path": NOTES})
    if last[0].get("is_error"):
        return says({"command": "create", "path": NOTES, "file_text": "Ana is allergic to peanuts."})
    return says(f"The tool said: {last[0]['content']}")


def says(what: str | dict[str, Any]) -> httpx2.Response:
    """A message of the API: a text, or a command to the memory tool."""
    block = {"type": "text", "text": what}
    if isinstance(what, dict):
        block = {"type": "tool_use", "id": f"call_{what['command']}", "name": "memory", "input": what}
    stop = "tool_use" if isinstance(what, dict) else "end_turn"
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [block]}
    usage = {"input_tokens": 1, "output_tokens": 1}
    return httpx2.Response(200, json={**message, "stop_reason": stop, "stop_sequence": None, "usage": usage})


with Memory("claude_memory.mem") as memory:
    client = Anthropic(api_key="offline", http_client=DefaultHttpxClient(transport=httpx2.MockTransport(claude)))
    runner = client.beta.messages.tool_runner(
        model="claude-sonnet-4-5",
        max_tokens=1024,
        betas=["context-management-2025-06-27"],
        tools=[MemkitMemoryTool(memory.scope(user_id="ana"))],
        messages=[{"role": "user", "content": "Which food must Ana avoid?"}],
    )
    print(runner.until_done().content[0].text)  # type: ignore[union-attr]  # the last message is a text
    print("found:", [hit.text for hit in memory.search("food allergy", user_id="ana")])
