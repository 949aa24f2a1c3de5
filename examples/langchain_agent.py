"""A LangChain agent with a memory. Run it twice: the second process recalls what the first one was told.

pip install "memkit-ai[langchain]"
python examples/langchain_agent.py
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import SimpleChatModel
from langchain_core.messages import BaseMessage, HumanMessage

from memkit import Memory
from memkit_adapters.langchain_middleware import MemkitMiddleware


class Echo(SimpleChatModel):
    """In a model's place: answers with what it was told to remember."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _call(self, messages: list[BaseMessage], *args: Any, **more: Any) -> str:
        system = messages[0].text if messages[0].type == "system" else ""
        return f"I remember: {system}" if "peanuts" in system else "I know nothing about that yet."


with Memory("langchain.mem") as memory:
    agent = create_agent(Echo(), middleware=[MemkitMiddleware(memory.scope(user_id="ana"))])
    result = agent.invoke({"messages": [HumanMessage("what am I allergic to?")]})
    print(result["messages"][-1].text)
    agent.invoke({"messages": [HumanMessage("I am allergic to peanuts.")]})
