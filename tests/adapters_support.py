"""One way to keep a text under a name, and to get it back, through each adapter: what tests of all of them drive.

A name stands wherever a framework lets its users put one: namespace, key, id, path, session, user, metadata.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

from agents import set_tracing_disabled
from haystack import Document
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage
from mcp.client import Client
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from memkit.views import everything
from memkit_adapters.claude import AsyncMemkitMemoryTool
from memkit_adapters.claude_agent import MemkitSessionStore
from memkit_adapters.haystack import MemkitDocumentStore
from memkit_adapters.langchain import MemkitVectorStore
from memkit_adapters.langchain_middleware import MemkitMiddleware
from memkit_adapters.langgraph import AsyncMemkitStore, MemkitStore
from memkit_adapters.llama_index import MemkitMemoryBlock
from memkit_adapters.mcp_server import memory_server
from memkit_adapters.mem0 import AsyncMemory
from memkit_adapters.openai_agents import MemkitSession
from memkit_adapters.pydantic_ai import MemkitMemory

set_tracing_disabled(True)


@dataclass
class Door(ABC):
    """An adapter on a memory, for one name."""

    memory: object
    name: str

    @abstractmethod
    async def keep(self, text):
        """Remember a text under the name."""

    @abstractmethod
    async def kept(self):
        """The texts that are remembered under the name; raises when one of them came back otherwise."""

    def put(self, text):
        """As `keep`, by the adapter's own blocking calls where it has them."""
        asyncio.run(self.keep(text))

    def said(self, **scope):
        """The texts that a user said, as any reader of the memory finds them."""
        return [item.text for item in everything(self.memory.scope(**scope), {"role": "user"})]


class LangGraph(Door):
    @property
    def space(self):
        return "users", self.name.replace(".", "·")  # LangGraph allows no dots in a namespace

    async def keep(self, text):
        await AsyncMemkitStore(self.memory).aput(self.space, f"{self.name} {text}", {self.name: text})

    def put(self, text):
        MemkitStore(self.memory).put(self.space, f"{self.name} {text}", {self.name: text})

    async def kept(self):
        found = MemkitStore(self.memory).search(self.space, limit=100)
        assert all(item.key == f"{self.name} {item.value[self.name]}" for item in found)
        return [item.value[self.name] for item in found]


class LangChain(Door):
    def document(self, text):
        return [text], [{"name": self.name, self.name: text}]

    async def keep(self, text):
        await MemkitVectorStore(self.memory).aadd_texts(*self.document(text), ids=[f"{self.name} {text}"])

    def put(self, text):
        MemkitVectorStore(self.memory).add_texts(*self.document(text), ids=[f"{self.name} {text}"])

    async def kept(self):
        found = await MemkitVectorStore(self.memory).asimilarity_search("text", k=100, filter={"name": self.name})
        assert all(one.id == f"{self.name} {one.metadata[self.name]}" for one in found)
        return [one.page_content for one in found]


@dataclass
class Who:
    user_id: str


class LangChainMiddleware(Door):
    async def keep(self, text):
        model = GenericFakeChatModel(messages=(AIMessage("Noted.") for _ in itertools.count()))
        memory = MemkitMiddleware(self.memory, scope=lambda context: {"user_id": context.user_id})
        said = {"messages": [HumanMessage(text, id=f"{self.name} {hash(text)}")]}
        await create_agent(model, middleware=[memory]).ainvoke(said, context=Who(self.name))

    async def kept(self):
        return self.said(user_id=self.name)


class MCP(Door):
    async def call(self, tool, **arguments):
        async with Client(memory_server(self.memory.scope(user_id=self.name))) as client:
            answer = await client.call_tool(tool, arguments)
        if answer.is_error:
            raise RuntimeError(answer.content[0].text)
        return answer.structured_content

    async def keep(self, text):
        await self.call("add_memory", text=text, metadata={self.name: text})

    async def kept(self):
        listed = (await self.call("list_memories", limit=100))["memories"]
        found = [await self.call("get_memory", id=one["id"]) for one in listed]
        return [one["metadata"][self.name] for one in found]


class OpenAIAgents(Door):
    async def keep(self, text):
        await MemkitSession(self.name, self.memory).add_items([{"role": "user", "content": text}])

    async def kept(self):
        return [item["content"] for item in await MemkitSession(self.name, self.memory).get_items()]


class Claude(Door):
    @property
    def tool(self):
        return AsyncMemkitMemoryTool(self.memory)

    def command(self, text):
        return {"command": "create", "path": f"/memories/{self.name}/{text}.md", "file_text": text}

    async def keep(self, text):
        await self.tool.call(self.command(text))

    def put(self, text):
        self.tool.tool.call(self.command(text))

    async def kept(self):
        paths = self.tool.tool.documents.list(f"/memories/{self.name}")
        files = [await self.tool.call({"command": "view", "path": path}) for path in paths]
        return [file.rpartition("\t")[2] for file in files]


class ClaudeAgent(Door):
    @property
    def key(self):
        return {"project_key": self.name, "session_id": self.name}

    async def keep(self, text):
        entry = {"type": "user", "uuid": f"{self.name} {text}", self.name: text}
        await MemkitSessionStore(self.memory).append(self.key, [entry])

    async def kept(self):
        return [entry[self.name] for entry in await MemkitSessionStore(self.memory).load(self.key) or []]


class PydanticAI(Door):
    async def keep(self, text):
        model = FunctionModel(lambda messages, info: ModelResponse(parts=[TextPart("Noted.")]))
        memory = MemkitMemory(self.memory, scope=lambda context: {"user_id": context.deps})
        await Agent(model, deps_type=str, capabilities=[memory]).run(text, deps=self.name)

    async def kept(self):
        return self.said(user_id=self.name)


class LlamaIndex(Door):
    async def keep(self, text):
        block = MemkitMemoryBlock(memory=self.memory.scope(user_id=self.name))
        await block.aput([ChatMessage(role="user", content=text)], session_id=self.name)

    async def kept(self):
        return self.said(user_id=self.name, run_id=self.name)


class Haystack(Door):
    @property
    def store(self):
        return MemkitDocumentStore(self.memory, user_id=self.name)

    def documents(self, text):
        return [Document(id=f"{self.name} {text}", content=text, meta={self.name: text})]

    async def keep(self, text):
        await self.store.write_documents_async(self.documents(text))

    def put(self, text):
        self.store.write_documents(self.documents(text))

    async def kept(self):
        found = await self.store.filter_documents_async()
        assert all(one == self.documents(one.content)[0] for one in found)
        return [one.content for one in found]


class Mem0(Door):
    def call(self, text):
        return {"messages": text, "user_id": self.name, "metadata": {self.name: text}}

    async def keep(self, text):
        await AsyncMemory(self.memory).add(**self.call(text))

    def put(self, text):
        AsyncMemory(self.memory).sync.add(**self.call(text))

    async def kept(self):
        found = (await AsyncMemory(self.memory).get_all(filters={"user_id": self.name}, top_k=100))["results"]
        assert all(one["metadata"] == {self.name: one["memory"]} for one in found)
        return [one["memory"] for one in found]


DOORS = (
    LangGraph,
    LangChain,
    LangChainMiddleware,
    MCP,
    OpenAIAgents,
    Claude,
    ClaudeAgent,
    PydanticAI,
    LlamaIndex,
    Haystack,
    Mem0,
)
