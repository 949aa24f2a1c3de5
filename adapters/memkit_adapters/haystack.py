"""memkit in Haystack: a document store, and a retriever that searches it with words and meaning.

A document is an item: `content` is its text, `meta` its metadata; what else it carries (an embedding, a blob, its
score) is kept beside them and given back, but not searched. The memory embeds texts itself, so that a pipeline needs no
embedder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memkit import Item, Memory
from memkit.errors import IdConflict, InvalidFilter
from memkit.ingest import Draft
from memkit.views import ANY_ITEM, everything, name_of, named
from memkit_adapters._guard import missing
from memkit_adapters._threads import awaited

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.core.errors import SerializationError
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy
    from haystack.errors import FilterError
    from haystack.utils import deserialize_callable, serialize_callable
    from haystack.utils.filters import document_matches_filter

    from memkit_adapters._haystack_filters import translate
except ImportError as error:
    raise missing("haystack", error) from error

Filters = dict[str, Any]
REST = "haystack"  # the metadata key of what a document carries beside content and meta


class MemkitDocumentStore:
    """A Haystack document store in a .mem file.

    Args:
        memory: the path of the file, or a memory that is open already.
        embedder: for a path: a function `list[str] -> (n, d)`; default: memkit's own. To be saved with a pipeline, it
            must be importable by name.
        user_id, agent_id, run_id: the store sees and changes this scope alone. Equal documents of two scopes are two.
    """

    def __init__(
        self,
        memory: Memory | str | Path,
        *,
        embedder: Callable[[list[str]], Any] | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> None:
        self._path = None if isinstance(memory, Memory) else str(memory)
        self._embedder = embedder
        self._scope = {"user_id": user_id, "agent_id": agent_id, "run_id": run_id}
        opened = memory if isinstance(memory, Memory) else Memory(memory, embedder=embedder)
        self.memory = opened.scope(**self._scope)

    def to_dict(self) -> dict[str, Any]:
        """The store as a dictionary, for saving a pipeline.

        Raises:
            SerializationError: it was made from an open memory, or its embedder has no importable name.
        """
        if self._path is None:
            raise SerializationError("this store was made from an open Memory; make it from the path to save it")
        embedder = None if self._embedder is None else serialize_callable(self._embedder)
        return default_to_dict(self, memory=self._path, embedder=embedder, **self._scope)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MemkitDocumentStore:
        """The store that `to_dict` described."""
        given = dict(data["init_parameters"])
        if given.get("embedder"):
            given["embedder"] = deserialize_callable(given["embedder"])
        store: MemkitDocumentStore = default_from_dict(cls, {**data, "init_parameters": given})
        return store

    def close(self) -> None:
        """Close the file, also when the store was made from an open memory."""
        self.memory.close()

    # documents

    def count_documents(self) -> int:
        """How many documents there are."""
        return self.memory.stats().items

    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """The documents that match, in the order in which they were first written; all without a filter.

        Raises:
            FilterError: a malformed filter, or a value that cannot be compared.
        """
        return [self._document(item) for item in everything(self.memory, self._where(filters))]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents together. Returns how many; NONE is FAIL.

        Raises:
            ValueError: not a list of documents, or metadata that is not JSON; nothing is written.
            DuplicateDocumentError: with FAIL, one is there already; nothing is written.
        """
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError(f"documents={documents!r:.80}; pass a list of haystack Documents")

        def only(draft: Draft, there: Item | None) -> bool:
            if there is not None and policy not in (DuplicatePolicy.SKIP, DuplicatePolicy.OVERWRITE):
                name = name_of(self.memory, there.id)
                raise IdConflict(f"document {name!r} is there already; write with DuplicatePolicy.SKIP or OVERWRITE")
            return there is None or policy is DuplicatePolicy.OVERWRITE

        try:
            return len(self.memory.add_drafts([self._draft(one) for one in documents], only=only))
        except IdConflict as error:
            raise DuplicateDocumentError(str(error)) from error

    def delete_documents(self, document_ids: list[str]) -> None:
        """End the documents with these ids; others than those that exist are ignored."""
        self.memory.delete_where({"id": {"in": [self._item_id(one) for one in document_ids]}})

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        """End every document of this store's scope; with `recreate_index`, erase them physically, with all history."""
        self.memory.delete_where(ANY_ITEM)
        if recreate_index:
            self.memory.erase(ANY_ITEM, reason="delete_all_documents")

    def delete_by_filter(self, filters: Filters) -> int:
        """End the documents that match. Returns how many."""
        return self.memory.delete_where(self._where(filters) or ANY_ITEM)

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Merge `meta` into that of the documents that match, in one write. Returns how many."""

        def merged(there: dict[str, Any]) -> dict[str, Any]:
            return {**there, **meta, REST: there.get(REST, {})}

        return self.memory.update_where(self._where(filters) or ANY_ITEM, merged)

    def search(self, query: str, filters: Filters | None = None, top_k: int = 10) -> list[Document]:
        """The documents that fit a query best, best first, with scores in [0, 1]."""
        where = self._where(filters)
        return [self._document(hit, hit.score) for hit in self.memory.search(query, limit=top_k, where=where)]

    # what is in the metadata: Haystack's own store counts it

    def count_documents_by_filter(self, filters: Filters) -> int:
        """How many documents match."""
        return len(self.filter_documents(filters))

    def count_unique_metadata_by_filter(self, filters: Filters, metadata_fields: list[str]) -> dict[str, int]:
        """How many values each field has among the documents that match."""
        return self._copy(filters).count_unique_metadata_by_filter({}, metadata_fields)

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The fields that occur, each with the type of its values: boolean, int, float or keyword."""
        return self._copy().get_metadata_fields_info()

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The least and greatest value of a field; None of both where it has no values, or some without an order."""
        return self._copy().get_metadata_field_min_max(metadata_field)

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters | None = None,
    ) -> tuple[list[Any], int]:
        """A page of a field's values, sorted as text, and how many there are; `search_term` is a part, in any case."""
        return self._copy(filters).get_metadata_field_unique_values(metadata_field, search_term, from_, size)

    def _copy(self, filters: Filters | None = None) -> InMemoryDocumentStore:
        copy = InMemoryDocumentStore(shared=False)
        copy.storage.update({document.id: document for document in self.filter_documents(filters)})
        return copy

    # the same, awaited

    count_documents_async = awaited(count_documents)
    filter_documents_async = awaited(filter_documents)
    write_documents_async = awaited(write_documents)
    delete_documents_async = awaited(delete_documents)
    delete_all_documents_async = awaited(delete_all_documents)
    delete_by_filter_async = awaited(delete_by_filter)
    update_by_filter_async = awaited(update_by_filter)
    search_async = awaited(search)
    count_documents_by_filter_async = awaited(count_documents_by_filter)
    count_unique_metadata_by_filter_async = awaited(count_unique_metadata_by_filter)
    get_metadata_fields_info_async = awaited(get_metadata_fields_info)
    get_metadata_field_min_max_async = awaited(get_metadata_field_min_max)
    get_metadata_field_unique_values_async = awaited(get_metadata_field_unique_values)

    # between documents and items

    def _where(self, filters: Filters | None) -> dict[str, Any]:
        where = translate(filters, self._item_id, self._matching)
        try:
            self.memory.list(where, limit=1)
        except InvalidFilter as error:
            raise FilterError(str(error)) from error
        return where

    def _matching(self, condition: Mapping[str, Any]) -> list[str]:
        return [item.id for item in everything(self.memory) if _matches(condition, self._document(item))]

    def _item_id(self, document_id: str) -> str:
        return named(self.memory, document_id)

    def _draft(self, document: Document) -> Draft:
        fields = document.to_dict(flatten=False)
        rest = {name: value for name, value in fields.items() if name not in ("id", "content", "meta") and value}
        text = document.content or ""
        if not text.strip():
            rest["content"] = document.content
            text = f"[{_kind(document)}]"
        return Draft(text, id=self._item_id(document.id), metadata={**document.meta, REST: rest})

    def _document(self, item: Item, score: float | None = None) -> Document:
        meta = dict(item.metadata)
        rest = {"content": item.text, **meta.pop(REST, {})}
        fields = {**rest, "id": name_of(self.memory, item.id), "meta": meta}
        return Document.from_dict(fields if score is None else {**fields, "score": score})


def _kind(document: Document) -> str:
    """What stands for the text of a document that has none."""
    return "document without text" if document.blob is None else document.blob.mime_type or "binary document"


def _matches(condition: Mapping[str, Any], document: Document) -> bool:
    try:
        return document_matches_filter(dict(condition), document)
    except TypeError as error:
        raise FilterError(f"document {document.id!r} holds a value that cannot be compared ({error})") from error


@component
class MemkitRetriever:
    """Finds the documents of a `MemkitDocumentStore` that fit a query, by words and meaning together.

    Args:
        filters: of Haystack; `filter_policy` says whether those given to `run` replace them or are merged with them.
        top_k: how many documents at most.

    To load a saved pipeline, Haystack wants `Pipeline.loads(text, allowed_modules=["memkit_adapters.haystack"])`.
    """

    def __init__(
        self,
        document_store: MemkitDocumentStore,
        *,
        filters: Filters | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self.document_store, self.filters, self.top_k = document_store, filters, top_k
        self.filter_policy = FilterPolicy(filter_policy).value  # as it stands in a saved pipeline

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: Filters | None = None, top_k: int | None = None) -> dict[str, list[Document]]:
        """Returns {"documents": the best, best first}."""
        return {"documents": self.document_store.search(query, self._merged(filters), top_k or self.top_k)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: Filters | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, without blocking the event loop."""
        found = await self.document_store.search_async(query, self._merged(filters), top_k or self.top_k)
        return {"documents": found}

    def _merged(self, filters: Filters | None) -> Filters | None:
        return apply_filter_policy(FilterPolicy(self.filter_policy), self.filters, filters)
