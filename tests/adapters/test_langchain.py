"""memkit in LangChain: what its own suites do not ask, and the middleware in a real agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage

from memkit.errors import InvalidInput
from memkit_adapters.langchain import MemkitRetriever, MemkitVectorStore, memory_tools
from memkit_adapters.langchain_middleware import HEADER, MemkitMiddleware

ODD = ["a.b/c", "ana@example.org", "Ünïcødé ☕", "k" * 1000, '"quoted" \\ #1']


# the vector store


def test_odd_ids_and_metadata_come_back_typed(memory, open_memory):
    documents = [
        Document(
            page_content=f"text {i}", id=key, metadata={key: i, "n": 1, "f": 0.5, "none": None, "deep": {"x": [1]}}
        )
        for i, key in enumerate(ODD)
    ]
    assert MemkitVectorStore(memory).add_documents(documents) == ODD
    again = MemkitVectorStore(open_memory())
    assert again.get_by_ids(ODD) == documents


def test_the_filter_is_memkits_and_scores_are_cosines(memory):
    store = MemkitVectorStore(memory)
    store.add_texts(["red boat", "blue dog"], [{"price": 3}, {"price": 5}], ids=["a", None])
    ((found, score),) = store.similarity_search_with_score("red boat", filter={"price": {"lt": 4}})
    assert (found.id, score) == ("a", pytest.approx(1.0, abs=1e-3))
    assert store.similarity_search("") == []
    (relevant,) = store.similarity_search_with_relevance_scores("red boat", k=1)
    assert relevant[1] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InvalidInput):
        store.add_texts([" "])


def test_marginal_relevance_prefers_what_differs(memory):
    store = MemkitVectorStore(memory)
    store.add_texts(["red boat", "red boat", "red dog"])
    assert [d.page_content for d in store.max_marginal_relevance_search("red boat", k=2, lambda_mult=0.3)] == [
        "red boat",
        "red dog",
    ]
    assert MemkitVectorStore(memory.scope(user_id="x")).max_marginal_relevance_search("red") == []


def test_from_texts_makes_a_file_that_another_process_can_open(tmp_path):
    from langchain_core.embeddings import DeterministicFakeEmbedding

    embedding = DeterministicFakeEmbedding(size=6)
    path = str(tmp_path / "b.mem")
    first = MemkitVectorStore.from_texts(["one", "two"], embedding, ids=["a", "b"], path=path)
    first.memory.close()
    second = MemkitVectorStore.from_texts([], embedding, path=path)
    assert [d.page_content for d in second.get_by_ids(["b", "a"])] == ["two", "one"]
    second.memory.close()


def test_lists_of_unequal_length_are_refused_and_nothing_is_written(memory):
    store = MemkitVectorStore(memory)
    with pytest.raises(InvalidInput, match="2 texts, 2 metadatas, 1 ids"):
        store.add_texts(["one", "two"], ids=["a"])
    with pytest.raises(InvalidInput, match="1 texts, 2 metadatas, 1 ids"):
        store.add_texts(["one"], [{}, {}])
    assert memory.list().items == []


def test_delete_without_ids_empties_the_view_alone(memory):
    memory.add("kept", user_id="bo")
    store = MemkitVectorStore(memory.scope(user_id="ana"))
    store.add_texts(["a", "b"])
    assert store.delete() is True
    assert memory.stats().items == 1


async def test_the_retriever_filters_and_can_be_awaited(memory):
    memory.add(["red boat", "red dog"], metadata={"kind": "a"})
    memory.add("red cat", metadata={"kind": "b"})
    retriever = MemkitRetriever(memory=memory, k=5, where={"kind": "a"})
    assert {d.page_content for d in await retriever.ainvoke("red")} == {"red boat", "red dog"}
    assert len(await retriever.ainvoke("red", k=1)) == 1
    assert retriever.invoke(" ") == []  # as the vector store's retriever does


def test_tools_remember_search_and_forget(memory):
    search, remember, forget = memory_tools(memory)
    kept = remember.invoke({"text": "the kettle is blue"})
    assert search.invoke({"query": "kettle"})[0]["id"] == kept["id"]
    assert forget.invoke({"id": kept["id"]}) is True
    assert forget.invoke({"id": kept["id"]}) is False
    assert [tool.name for tool in memory_tools(memory, read_only=True)] == ["search_memory"]


def test_a_model_is_told_what_its_call_of_a_tool_lacks_and_goes_on(memory):
    calls = [
        {"name": name, "args": {field: " "}, "id": name}
        for name, field in (("search_memory", "query"), ("remember", "text"))
    ]
    model = Scripted(messages=iter([AIMessage("", tool_calls=calls), AIMessage("Sorry.")]), sent=[])
    said = create_agent(model, memory_tools(memory)).invoke({"messages": [HumanMessage("go")]})["messages"]
    assert said[-1].text == "Sorry."
    assert ["ask with some words" in said[2].text, "is empty" in said[3].text] == [True, True]


# the middleware


class Scripted(GenericFakeChatModel):
    """Says what the script says, and keeps what it was sent."""

    sent: list[Any]

    def bind_tools(self, tools, **more):
        return self

    def _generate(self, messages, *args, **more):
        self.sent.append(messages)
        return super()._generate(messages, *args, **more)


def agent(memory, *answers, **more):
    model = Scripted(messages=iter([AIMessage(text) for text in answers]), sent=[])
    return create_agent(model, middleware=[MemkitMiddleware(memory, **more)], system_prompt="Be brief."), model


def turn(runner, text, **more):
    return runner.invoke({"messages": [HumanMessage(text)]}, **more)


def test_a_later_process_recalls_what_an_earlier_one_was_told(memory, open_memory):
    first, _ = agent(memory, "Noted.")
    turn(first, "I am allergic to peanuts.")
    memory.close()
    second, model = agent(open_memory(), "You are allergic to peanuts.")
    result = turn(second, "what am I allergic to?")
    system = model.sent[0][0]
    assert system.text.startswith("Be brief.")
    assert HEADER in system.text
    assert "peanuts" in system.text
    assert [message.type for message in result["messages"]] == ["human", "ai"]  # the history stays as it is


def test_what_the_answer_used_is_learned(memory):
    memory.add("Ana is allergic to peanuts since 2019.")
    runner, _ = agent(memory, "You are allergic to peanuts since 2019.")
    turn(runner, "since when am I allergic to peanuts?")
    (feedback,) = next(iter(memory._fast.families().values()))
    assert memory.get(feedback["used"][0]).text.startswith("Ana is allergic")


@dataclass
class Who:
    user_id: str


def test_two_users_of_one_agent_never_mix(memory):
    scope = {"scope": lambda context: {"user_id": context.user_id}}
    runner, model = agent(memory, "Noted.", "I do not know.", "Peanuts.", **scope)
    turn(runner, "I am allergic to peanuts.", context=Who("ana"))
    turn(runner, "what am I allergic to?", context=Who("bo"))
    turn(runner, "what am I allergic to?", context=Who("ana"))
    assert ["peanuts" in messages[0].text for messages in model.sent] == [False, False, True]
    assert memory.stats().users == {"ana": 4, "bo": 2}


def test_a_run_for_nobody_is_not_one_for_everybody(memory):
    memory.add("I am allergic to peanuts.", user_id="ana")
    runner, model = agent(memory, "Peanuts.", scope=lambda context: {"user_id": context.user_id})
    with pytest.raises(InvalidInput, match="user_id=None"):
        turn(runner, "what am I allergic to?", context=Who(None))
    assert model.sent == []


def test_a_thread_that_is_sent_again_is_not_kept_twice(memory):
    runner, _ = agent(memory, "Noted.", "Sure.")
    before = turn(runner, "I am allergic to peanuts.")["messages"]
    runner.invoke({"messages": [*before, HumanMessage("remind me")]})
    assert memory.stats().items == 4


def test_a_model_that_fails_leaves_nothing_half_done(memory):
    runner, _ = agent(memory)
    with pytest.raises(RuntimeError):
        turn(runner, "I am allergic to peanuts.")
    assert memory.stats().items == 0
    assert memory.verify().ok


def test_read_only_keeps_nothing(memory):
    runner, _ = agent(memory, "Noted.", read_only=True)
    turn(runner, "I am allergic to peanuts.")
    assert memory.stats().items == 0


async def test_an_agent_that_is_awaited_remembers_too(memory):
    runner, _ = agent(memory, "Noted.")
    await runner.ainvoke({"messages": [HumanMessage("I am allergic to peanuts.")]})
    assert memory.stats().items == 2
