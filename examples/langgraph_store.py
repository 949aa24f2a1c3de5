"""A LangGraph graph whose store is a .mem file. Run it twice: the second process knows what the first was told.

pip install "memkit-ai[langgraph]" langgraph
python examples/langgraph_store.py
"""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from memkit import Memory
from memkit_adapters.langgraph import MemkitStore


class Turn(TypedDict, total=False):
    said: str
    answer: str


def reply(turn: Turn, runtime: Runtime) -> Turn:
    """Look up what bears on the question, and keep what was said."""
    assert runtime.store is not None
    known = runtime.store.search(("users", "ana"), query=turn["said"], limit=1)
    if not turn["said"].endswith("?"):
        runtime.store.put(("users", "ana"), turn["said"], {"text": turn["said"]})
    return {"answer": known[0].value["text"] if known else "I know nothing about that yet."}


with Memory("langgraph.mem") as memory:
    graph = StateGraph(Turn)
    node: Any = reply  # the types of LangGraph ask for a plain function of the state
    graph.add_node("reply", node)
    graph.add_edge(START, "reply")
    graph.add_edge("reply", END)
    agent = graph.compile(store=MemkitStore(memory, index={"dims": 384, "fields": ["text"]}))
    print("told before:", agent.invoke({"said": "which food must I avoid?"})["answer"])
    agent.invoke({"said": "I am allergic to peanuts."})
