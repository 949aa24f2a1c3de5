"""A chat with a small local language model through LangGraph, which remembers across restarts and keeps users apart.

pip install "memkit-ai[langgraph]" langgraph transformers
python examples/local_chat.py MODEL ana "My dog is called Biscuit."
python examples/local_chat.py MODEL ana "What is my dog called?"

MODEL is a directory with an instruct model and its tokenizer, as `save_pretrained` writes them; SmolLM2-135M will do.
"""

import sys
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from transformers import AutoModelForCausalLM, AutoTokenizer

from memkit import Memory
from memkit_adapters.langgraph import MemkitStore


class Turn(TypedDict, total=False):
    said: str
    answer: str


def chat(model: Any, tokenizer: Any) -> Any:
    """A node that recalls, answers and remembers."""

    def reply(turn: Turn, config: RunnableConfig, *, store: BaseStore) -> dict[str, Any]:
        mine = ("users", config["configurable"]["user_id"])
        known = [item.value["text"] for item in store.search(mine, query=turn["said"], limit=3)]
        said = f"{' '.join(known)}\n{turn['said']}" if known else turn["said"]
        rows = tokenizer.apply_chat_template(
            [{"role": "user", "content": said}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**rows, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        if not turn["said"].endswith("?"):
            store.put(mine, turn["said"], {"text": turn["said"]})
        answer = tokenizer.decode(made[0, rows["input_ids"].shape[1] :], skip_special_tokens=True)
        return {"answer": answer.strip()}

    return reply


def main(folder: str, user: str, said: str) -> None:
    """One turn of one user."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    graph = StateGraph(Turn)
    graph.add_node("reply", chat(model, tokenizer))
    graph.add_edge(START, "reply")
    graph.add_edge("reply", END)
    with Memory("chat.mem") as memory:
        agent = graph.compile(store=MemkitStore(memory))
        print(agent.invoke({"said": said}, {"configurable": {"user_id": user}})["answer"])


if __name__ == "__main__":
    main(*sys.argv[1:4])
