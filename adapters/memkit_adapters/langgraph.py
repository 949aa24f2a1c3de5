"""memkit in LangGraph: a `BaseStore`, for `compile(store=...)`, `create_agent(store=...)`, deepagents and langmem.

An item of the store is an item of the memory: its namespace, key and value stand in the metadata, so that every other
verb finds it, too. Of several indexed fields each has a vector of its own (`memkit.multivector`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from memkit import Item as Remembered
from memkit import Memory
from memkit.errors import InvalidInput
from memkit.ingest import Draft, check_metadata
from memkit.journal import MAX_WORDS
from memkit.multivector import WHOLE, ids, in_parts, nearest, replace
from memkit.views import everything, named, own_id
from memkit_adapters._guard import missing
from memkit_adapters._langgraph_filters import matches, selected
from memkit_adapters._threads import finished

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        IndexConfig,
        Item,
        ListNamespacesOp,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        ensure_embeddings,
        get_text_at_path,
        validate_op_namespace,
    )
    from langgraph.store.base.batch import AsyncBatchedBaseStore
except ImportError as error:
    raise missing("langgraph", error) from error

Address = tuple[tuple[str, ...], str]
EVERYTHING: IndexConfig = {"fields": ["$"]}
LONGEST = 8000  # bytes of an id, which leaves room for the numbers of its parts
KEPT = {"namespace": {"exists": True}, "key": {"exists": True}}  # other items of the memory are none of the store's


class MemkitStore(BaseStore):
    """Long-term memory of LangGraph agents in a .mem file. Thread-safe.

    Args:
        memory: a memory, or a view of it.
        index: LangGraph's; its `embed` belongs to the memory: see `open`. Default: the whole value is indexed with the
            memory's embedder. None: searches filter, and do not rank.
        ttl: LangGraph's: minutes that items live, and whether reading them lengthens that.

    Example:
        >>> store = MemkitStore(Memory("agent.mem"))
        >>> graph = builder.compile(store=store)
    """

    supports_ttl = True

    def __init__(self, memory: Memory, *, index: IndexConfig | None = EVERYTHING, ttl: TTLConfig | None = None) -> None:
        self.memory, self.index_config, self.ttl_config = memory, index, ttl

    @classmethod
    def open(cls, path: Any, *, index: IndexConfig | None = EVERYTHING, ttl: TTLConfig | None = None) -> MemkitStore:
        """The store in a file, which is made if there is none; `index["embed"]` makes its vectors if it is given."""
        embed = (index or {}).get("embed")
        memory = Memory(path, embedder=None if embed is None else ensure_embeddings(embed))
        return cls(memory, index=index, ttl=ttl)

    def close(self) -> None:
        """Close the memory."""
        self.memory.close()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Answer what is asked, then write what is put: of several puts of one key, the last.

        What is put and what is deleted is one transaction, also among the stores of several processes.
        """
        asked = list(ops)
        for op in asked:
            validate_op_namespace(op)
        puts = {(op.namespace, op.key): op for op in asked if isinstance(op, PutOp)}
        results = [self._answer(op) for op in asked]
        if puts:
            self._write(list(puts.values()))
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, in a thread; when the caller is cancelled, the work is done before that is passed on."""
        return await finished(self.batch, list(ops))

    def _answer(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            return self._get(op)
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return selected(op, {_address(item)[0] for item in self._items({})})
        return None

    # reading

    def _get(self, op: GetOp) -> Item | None:
        found = self.memory.get(self._id(op))
        if found is None or _expired(found):
            return None
        self._refresh([found], op.refresh_ttl)
        return Item(**_shown(found))

    def _search(self, op: SearchOp) -> list[SearchItem]:
        wanted = op.offset + op.limit
        ranked = bool(op.query and op.query.strip()) and self.index_config is not None
        where = {**KEPT, **_within(op), "indexed": {"ne": False}}
        passes = partial(self._passes, op)
        best = nearest(self.memory, op.query or "", limit=wanted, where=where, passes=passes) if ranked else []
        chosen = [item for item, _ in best]
        if len(chosen) < wanted:
            rest = (item for item in self._items(_within(op)) if not (ranked and _indexed(item)))
            chosen += sorted(filter(passes, rest), key=lambda item: item.updated_at, reverse=True)
        chosen = chosen[op.offset : wanted]
        self._refresh(chosen, op.refresh_ttl)
        scores = {item.id: cosine for item, cosine in best}
        return [SearchItem(**_shown(item), score=scores.get(item.id)) for item in chosen]

    def _passes(self, op: SearchOp, item: Remembered) -> bool:
        namespace, _ = _address(item)
        inside = namespace[: len(op.namespace_prefix)] == tuple(op.namespace_prefix)
        return inside and not _expired(item) and matches(_value(item), op.filter or {})

    def _items(self, where: dict[str, Any]) -> Iterator[Remembered]:
        """The items of the store that match."""
        found = everything(self.memory, {**KEPT, **WHOLE, **where})
        return (item for item in found if not _expired(item))

    # writing

    def _write(self, puts: list[PutOp]) -> None:
        values = [(op, dict(op.value)) for op in puts if op.value is not None]
        drafts = [draft for op, value in values for draft in self._drafts(op, value)]
        replace(self.memory, [self._id(op) for op in puts], drafts)

    def _drafts(self, op: PutOp, value: dict[str, Any]) -> list[Draft]:
        indexed = list(self._texts(op, value))
        first, *more = [text[:MAX_WORDS] for text in indexed or [json.dumps(value, ensure_ascii=False)]]
        about = {"namespace": list(op.namespace), "key": op.key, **({} if indexed else {"indexed": False})}
        return in_parts(Draft(first, id=self._id(op), metadata={**about, **_kept(value), **_lifetime(op.ttl)}), more)

    def _id(self, op: GetOp | PutOp) -> str:
        """One string for a namespace and a key, whatever characters they have; a hash where that would be too long."""
        id_ = named(self.memory, json.dumps([*op.namespace, op.key], ensure_ascii=False))
        is_long = len(id_.encode("utf-8", "surrogatepass")) > LONGEST
        return own_id(self.memory, *op.namespace, op.key) if is_long else id_

    def _texts(self, op: PutOp, value: dict[str, Any]) -> Iterator[str]:
        """What is indexed of a value, each to be found by itself."""
        if op.index is False or self.index_config is None:
            return
        for path in op.index or self.index_config.get("fields") or ["$"]:
            yield from (text for text in get_text_at_path(value, path) if text.strip())

    # time to live

    def _refresh(self, items: Iterable[Remembered], asked: bool) -> None:
        if not asked or not (self.ttl_config or {}).get("refresh_on_read", True):
            return
        for item in items:
            if "ttl" in item.metadata:
                with suppress(KeyError):  # ended meanwhile
                    self.memory.update(item.id, metadata=_lengthened)

    def sweep_ttl(self) -> int:
        """Delete what has expired; it is not found any more in any case. Returns how many items."""
        return self.memory.delete_where({**KEPT, **WHOLE, "expires": {"lte": time.time()}}, ends=ids)


class AsyncMemkitStore(AsyncBatchedBaseStore):
    """`MemkitStore` for asyncio: operations of one turn of the loop are written together. Arguments as there."""

    supports_ttl = True

    def __init__(self, memory: Memory, *, index: IndexConfig | None = EVERYTHING, ttl: TTLConfig | None = None) -> None:
        super().__init__()
        self.store = MemkitStore(memory, index=index, ttl=ttl)
        self.index_config, self.ttl_config = index, ttl

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `MemkitStore.batch`, in a thread."""
        return await self.store.abatch(ops)

    async def sweep_ttl(self) -> int:
        """As `MemkitStore.sweep_ttl`."""
        return await asyncio.to_thread(self.store.sweep_ttl)


def _address(item: Remembered) -> Address:
    return tuple(item.metadata["namespace"]), str(item.metadata["key"])


def _indexed(item: Remembered) -> bool:
    return item.metadata.get("indexed") is not False


def _within(op: SearchOp) -> dict[str, Any]:
    """What must hold of an item in a namespace: `where` has no prefixes of lists, so the rest is checked."""
    return {"AND": [{"namespace": {"contains": label}} for label in op.namespace_prefix]} if op.namespace_prefix else {}


def _kept(value: dict[str, Any]) -> dict[str, Any]:
    """A value as metadata; one that metadata cannot hold (empty keys, huge numbers) as JSON."""
    try:
        check_metadata({"value": value})
    except InvalidInput:
        return {"json": json.dumps(value, ensure_ascii=False)}
    return {"value": value}


def _value(item: Remembered) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(item.metadata["json"]) if "json" in item.metadata else item.metadata["value"]
    return value


def _shown(item: Remembered) -> dict[str, Any]:
    namespace, key = _address(item)
    times = {"created_at": item.created_at, "updated_at": item.updated_at}
    return {"namespace": namespace, "key": key, "value": _value(item), **times}


def _lifetime(minutes: float | None) -> dict[str, float]:
    return {} if minutes is None else {"ttl": float(minutes), "expires": time.time() + 60 * minutes}


def _lengthened(there: dict[str, Any]) -> dict[str, Any]:
    return {**there, **_lifetime(there.get("ttl"))}


def _expired(item: Remembered) -> bool:
    return bool(item.metadata.get("expires", float("inf")) <= time.time())
