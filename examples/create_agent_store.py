"""LangChain's `create_agent` with a .mem file as its store. Run it twice: the second process reads the first one's note.

pip install "memkit-ai[langgraph,langchain]"
python examples/create_agent_store.py
"""

from typing import Any

from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall

from memkit import Memory
from memkit_adapters.langgraph import MemkitStore


class Scripted(GenericFakeChatModel):
    """A model that says what the script says; it takes any tools."""

    def bind_tools(self, tools: Any, **more: Any) -> Any:
        return self


@tool
def look_up(question: str, runtime: ToolRuntime) -> str:
    """What is known about the user."""
    assert runtime.store is not None
    found = runtime.store.search(("users", "ana"), query=question, limit=1)
    return str(found[0].value["text"]) if found else "nothing yet"


@tool
def note(text: str, runtime: ToolRuntime) -> str:
    """Keep something about the user."""
    assert runtime.store is not None
    runtime.store.put(("users", "ana"), text, {"text": text})
    return "noted"


calls = [
    ToolCall(name="look_up", args={"question": "which food must I avoid?"}, id="1"),
    ToolCall(name="note", args={"text": "Ana is allergic to peanuts."}, id="2"),
]
script = iter([*(AIMessage("", tool_calls=[call]) for call in calls), AIMessage("Done.")])

with Memory("create_agent.mem") as memory:
    agent = create_agent(Scripted(messages=script), tools=[look_up, note], store=MemkitStore(memory))
    result = agent.invoke({"messages": [HumanMessage("What can I eat?")]})
    print([message.content for message in result["messages"] if message.type == "tool"])
