"""memkit in LangChain: a retriever, a vector store, and tools. The middleware for agents is `langchain_middleware`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from memkit import Hit, Item, Memory
from memkit.errors import InvalidInput
from memkit.ingest import Draft
from memkit.views import ANY_ITEM, name_of, named
from memkit_adapters._common import memory_functions
from memkit_adapters._guard import missing

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables.config import run_in_executor
    from langchain_core.tools import BaseTool, StructuredTool, ToolException
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise missing("langchain", error) from error

Where = Mapping[str, Any]


def memory_tools(memory: Memory, *, read_only: bool = False) -> list[BaseTool]:
    """The tools search_memory, remember and forget on a memory or a view of it; `read_only`: search_memory alone.

    What memkit refuses, a model is told, and the agent goes on.
    """
    functions = memory_functions(memory, read_only=read_only, refusal=ToolException)
    return [StructuredTool.from_function(one, parse_docstring=True, handle_tool_error=True) for one in functions]


class MemkitRetriever(BaseRetriever):
    """The items that fit a query best, by every signal of memkit, as documents with the ids of the items.

    Args:
        memory: a memory, or a view of it. k: how many documents. where: a filter.
    """

    memory: Any
    k: int = 4
    where: dict[str, Any] | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        if not query.strip():
            return []
        hits = self.memory.search(query, limit=self.k if k is None else k, where=self.where)
        return [_document(hit) for hit in hits]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        found: list[Document] = await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), k=k
        )
        return found


class MemkitVectorStore(VectorStore):
    """LangChain's vector store on a memory or a view of it: nearest by cosine, no threshold. Thread-safe.

    Args:
        memory: opened with the embeddings, `Memory(path, embedder=embeddings)`, or with memkit's default.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    @property
    def embeddings(self) -> Embeddings | None:
        """None: the memory embeds."""
        return None

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str = "langchain.mem",
        **kwargs: Any,
    ) -> MemkitVectorStore:
        """A store in the file at `path`, which is made if there is none, with these texts."""
        store = cls(Memory(path, embedder=embedding))
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts in one write; one whose id is there already becomes its new version. Returns their ids.

        Raises:
            InvalidInput: more or fewer metadatas or ids than texts; nothing is written.
        """
        rows = list(texts)
        labels, names = metadatas or [{}] * len(rows), ids or [None] * len(rows)
        if {len(labels), len(names)} != {len(rows)}:
            raise InvalidInput(f"{len(rows)} texts, {len(labels)} metadatas, {len(names)} ids; pass one for each text")
        own = [None if name is None else named(self.memory, name) for name in names]
        drafts = [Draft(text, id=id_, metadata=label) for text, label, id_ in zip(rows, labels, own, strict=True)]
        return [name_of(self.memory, item.id) for item in self.memory.add_drafts(drafts)]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete documents; ids that name none are passed over. Without ids, everything in the memory or view."""
        if ids is None:
            self.memory.delete_where(ANY_ITEM)
        else:
            self.memory.delete(self._own(ids))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents in the order of their ids, without those that are not there."""
        return [self._document(item) for item in self.memory.get_many(self._own(ids)) if item is not None]

    def similarity_search(self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any) -> list[Document]:
        """The k nearest documents. `filter` is memkit's `where`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k nearest documents, each with its cosine."""
        return [(self._document(hit), hit.signals["meaning"]) for hit in self._nearest(query, k, filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """k of the `fetch_k` nearest documents that differ from each other; `lambda_mult` of 1 is likeness alone."""
        hits = self._nearest(query, fetch_k, filter)
        table = self.memory.to_arrow({"id": {"in": [hit.id for hit in hits]}}) if hits else None
        vectors = dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True)) if table else {}
        near = np.array([hit.signals["meaning"] for hit in hits])
        chosen = _diverse(near, [vectors[hit.id] for hit in hits], lambda_mult, k)
        return [self._document(hits[i]) for i in chosen]

    def _document(self, item: Item) -> Document:
        """Under the id that it was added with."""
        return _document(item).model_copy(update={"id": name_of(self.memory, item.id)})

    def _own(self, ids: Iterable[str]) -> list[str]:
        """Another view's documents may have the same ids."""
        return [named(self.memory, id_) for id_ in ids]

    def _nearest(self, query: str, k: int, where: Where | None) -> list[Hit]:
        return self.memory.search(query, limit=k, where=where, mode="vector") if query.strip() else []

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: float(np.clip((1 + cosine) / 2, 0, 1))


def _diverse(near: np.ndarray, vectors: list[list[float]], weight: float, k: int) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998): near the query, and unlike what is chosen already."""
    chosen: list[int] = []
    alike = np.array(vectors) @ np.array(vectors).T if vectors else np.zeros((0, 0))
    while len(chosen) < min(k, len(near)):
        gain = weight * near - (1 - weight) * (alike[:, chosen].max(axis=1) if chosen else 0)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
    return chosen


def _document(item: Item) -> Document:
    return Document(page_content=item.text, metadata=dict(item.metadata), id=item.id)
