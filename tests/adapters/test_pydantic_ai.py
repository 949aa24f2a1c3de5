"""The toolset and the capability, driven by Pydantic AI's own test models."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, models
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel

from memkit.errors import InvalidInput
from memkit_adapters.pydantic_ai import MemkitMemory, memory_toolset

models.ALLOW_MODEL_REQUESTS = False


class Listener:
    """A model that writes down what it is sent, and answers the same every time."""

    def __init__(self, answer="Noted."):
        self.seen = []
        self.answer = answer
        self.model = FunctionModel(self)

    def __call__(self, messages, info):
        self.seen.append([part.content for m in messages for part in m.parts if isinstance(part, UserPromptPart)])
        self.instructions = info.instructions
        self.tools = [tool.name for tool in info.function_tools]
        return ModelResponse(parts=[TextPart(self.answer)])


# tools


async def test_the_model_gets_three_tools_with_descriptions_and_may_call_them(memory):
    memory.add("green tea", user_id="ana")
    agent = Agent(TestModel(), toolsets=[memory_toolset(memory.scope(user_id="ana"))])
    result = await agent.run("go")
    assert "search_memory" in result.output
    tools = {tool.name: tool for tool in agent.model.last_model_request_parameters.function_tools}
    assert set(tools) == {"search_memory", "remember", "forget"}
    assert tools["search_memory"].description.startswith("Search long-term memory")
    assert tools["search_memory"].parameters_json_schema["properties"]["query"]["description"]
    assert "user_id" not in str(tools["remember"].parameters_json_schema)


async def test_what_the_model_remembers_lands_in_the_view_and_no_other(memory):
    def model(messages, info):
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("remember", {"text": "Ana is a vet"})])
        return ModelResponse(parts=[TextPart("done")])

    await Agent(FunctionModel(model), toolsets=[memory_toolset(memory.scope(user_id="ana"))]).run("go")
    assert [(item.text, item.user_id) for item in memory.list().items] == [("Ana is a vet", "ana")]


async def test_a_model_is_told_what_its_call_lacks_and_may_try_again(memory):
    heard = []

    def model(messages, info):
        heard.append(messages[-1].parts[-1].content)
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("search_memory", {"query": " "})])
        return ModelResponse(parts=[TextPart("Sorry.")])

    result = await Agent(FunctionModel(model), toolsets=[memory_toolset(memory)]).run("go")
    assert (result.output, "ask with some words" in heard[1]) == ("Sorry.", True)


async def test_a_read_only_toolset_can_only_search(memory):
    agent = Agent(TestModel(), toolsets=[memory_toolset(memory, read_only=True)])
    await agent.run("go")
    assert [tool.name for tool in agent.model.last_model_request_parameters.function_tools] == ["search_memory"]


# the capability


async def test_a_later_process_recalls_what_an_earlier_one_was_told(open_memory):
    listener = Listener()
    with open_memory() as memory:
        agent = Agent(listener.model, capabilities=[MemkitMemory(memory.scope(user_id="ana"))])
        await agent.run("I am allergic to peanuts")
    with open_memory() as memory:
        agent = Agent(listener.model, capabilities=[MemkitMemory(memory.scope(user_id="ana"))])
        result = await agent.run("am I allergic to something?")
    assert "allergic to peanuts" in listener.seen[1][0]
    assert listener.seen[1][1] == "am I allergic to something?"
    assert "search" in listener.instructions.lower()
    told = [part.content for m in result.all_messages() for part in m.parts if isinstance(part, UserPromptPart)]
    assert told == ["am I allergic to something?"]


async def test_the_prompt_and_the_answer_are_remembered_with_their_roles(memory):
    await Agent(Listener("Noted.").model, capabilities=[MemkitMemory(memory)]).run("I like tea")
    assert [(item.text, item.metadata["role"]) for item in memory.list().items] == [
        ("I like tea", "user"),
        ("Noted.", "assistant"),
    ]


async def test_a_streamed_run_is_remembered_too(memory):
    agent = Agent(TestModel(custom_output_text="Noted."), capabilities=[MemkitMemory(memory, tools=False)])
    async with agent.run_stream("I like tea") as stream:
        await stream.get_output()
    assert [item.text for item in memory.list().items] == ["I like tea", "Noted."]


async def test_a_typed_answer_is_remembered_as_json(memory):
    class City(BaseModel):
        name: str

    agent = Agent(
        TestModel(custom_output_args={"name": "Lisbon"}),
        output_type=City,
        capabilities=[MemkitMemory(memory, tools=False)],
    )
    assert (await agent.run("where do I live?")).output == City(name="Lisbon")
    assert [item.text for item in memory.list().items] == ["where do I live?", '{"name":"Lisbon"}']


async def test_an_answer_teaches_which_memories_it_used(memory):
    for number in range(8):
        memory.add(f"note {number} about something else entirely")
    memory.add("The shed key hangs behind the kitchen door")
    agent = Agent(
        Listener("The shed key hangs behind the kitchen door [1].").model,
        capabilities=[MemkitMemory(memory, tools=False, max_tokens=200)],
    )
    await agent.run("where is the shed key?")
    assert memory.snapshot() is not None


def test_one_agent_serves_many_users_and_mixes_none(memory):
    @dataclass
    class Deps:
        user: str

    listener = Listener()
    capability = MemkitMemory(memory, scope=lambda ctx: {"user_id": ctx.deps.user})
    agent = Agent(listener.model, deps_type=Deps, capabilities=[capability])

    async def both():
        await asyncio.gather(*(agent.run(f"my secret word is {user}", deps=Deps(user)) for user in ("ana", "bo")))
        return await agent.run("what is my secret word?", deps=Deps("bo"))

    asyncio.run(both())
    assert "ana" not in str(listener.seen[-1])
    assert "secret word is bo" in listener.seen[-1][0]
    assert {(item.user_id, item.text) for item in memory.list({"role": "user"}).items} >= {
        ("ana", "my secret word is ana"),
        ("bo", "my secret word is bo"),
    }


async def test_the_tools_of_the_capability_are_bound_to_the_run(memory):
    def model(messages, info):
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("remember", {"text": "a fact"})])
        return ModelResponse(parts=[TextPart("done")])

    capability = MemkitMemory(memory, scope=lambda ctx: {"user_id": ctx.deps})
    await Agent(FunctionModel(model), deps_type=str, capabilities=[capability]).run("go", deps="ana@example.org")
    assert {item.user_id for item in memory.list().items} == {"ana@example.org"}


async def test_a_run_for_nobody_is_not_one_for_everybody(memory):
    memory.add("a secret", user_id="ana")
    listener = Listener()
    capability = MemkitMemory(memory, scope=lambda ctx: {"user_id": ctx.deps})
    with pytest.raises(InvalidInput, match="user_id=None"):
        await Agent(listener.model, capabilities=[capability]).run("what is secret?")
    assert listener.seen == []


async def test_a_read_only_capability_writes_nothing(memory):
    memory.add("green tea")
    listener = Listener()
    await Agent(listener.model, capabilities=[MemkitMemory(memory, read_only=True)]).run("tea?")
    assert memory.stats().versions == 1
    assert listener.tools == ["search_memory"]


async def test_a_run_that_fails_is_not_remembered_and_leaves_the_file_whole(memory):
    def model(messages, info):
        raise RuntimeError("the model is gone")

    with pytest.raises(RuntimeError, match="the model is gone"):
        await Agent(FunctionModel(model), capabilities=[MemkitMemory(memory)]).run("hello")
    assert memory.stats().items == 0
    assert memory.verify().ok


@pytest.mark.parametrize("prompt", [None, "", ["one", "two"]])
async def test_prompts_without_words_and_in_parts_are_taken(memory, prompt):
    await Agent(Listener().model, capabilities=[MemkitMemory(memory)]).run(
        prompt, message_history=None if prompt else []
    )
    assert memory.list().items[-1].text == "Noted."
