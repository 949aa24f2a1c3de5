"""LangChain's own suites on memkit: all of them, nothing skipped."""

from __future__ import annotations

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    ToolsIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import ToolsUnitTests

from memkit import Memory
from memkit_adapters.langchain import MemkitRetriever, MemkitVectorStore, memory_tools


def remembering(folder):
    return Memory(folder / "a.mem", embedder=DeterministicFakeEmbedding(size=6), durability="os")


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        with remembering(tmp_path) as memory:
            yield MemkitVectorStore(memory)


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, tmp_path):
        with remembering(tmp_path) as memory:
            memory.add([f"tea number {i}" for i in range(5)])
            type(self).memory = memory
            yield

    @property
    def retriever_constructor(self):
        return MemkitRetriever

    @property
    def retriever_constructor_params(self):
        return {"memory": self.memory}

    @property
    def retriever_query_example(self):
        return "tea"


class _Tool:
    """One of the three tools; `place` is which."""

    place = 0
    example: dict[str, object]

    @pytest.fixture(autouse=True)
    def filled(self, tmp_path):
        with remembering(tmp_path) as memory:
            memory.add("the kettle is blue", id="kettle")
            type(self).memory = memory
            yield

    @property
    def tool_constructor(self):
        return memory_tools(self.memory)[self.place]

    @property
    def tool_invoke_params_example(self):
        return self.example


class _Search(_Tool):
    place, example = 0, {"query": "kettle", "limit": 2}


class _Remember(_Tool):
    place, example = 1, {"text": "the pot is red"}


class _Forget(_Tool):
    place, example = 2, {"id": "kettle"}


class TestSearchUnit(_Search, ToolsUnitTests):
    pass


class TestSearchIntegration(_Search, ToolsIntegrationTests):
    pass


class TestRememberUnit(_Remember, ToolsUnitTests):
    pass


class TestRememberIntegration(_Remember, ToolsIntegrationTests):
    pass


class TestForgetUnit(_Forget, ToolsUnitTests):
    pass


class TestForgetIntegration(_Forget, ToolsIntegrationTests):
    pass
