"""Mem0's `Memory` on a .mem file: change the import, keep the code.

    from memkit_adapters.mem0 import Memory          # instead of: from mem0 import Memory

It takes the calls of mem0ai 2.x (`filters={"user_id": ...}, top_k=`) and those of 1.x that 2.x refuses (`user_id=,
limit=` in `search` and `get_all`), and gives back the same dicts. Messages are kept verbatim; with `llm=` and `infer`
(the default), the facts that it finds in them are kept instead. mem0ai need not be installed.

It differs where Mem0 is limited: `timestamp=` works (Mem0 has it on its platform only), filters mean the same at any
depth (`_mem0_filters`), nothing goes over the network, and `score` is memkit's, in [0, 1].
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from operator import attrgetter
from typing import Any, Self

import memkit
from memkit import Change, Item
from memkit.errors import InvalidInput, ItemNotFound
from memkit.ingest import Draft, check_metadata
from memkit.views import ANY_ITEM, everything, own_id
from memkit_adapters._mem0_arguments import (
    PROCEDURAL,
    SCOPES,
    MemoryNotFound,
    ValidationError,
    as_messages,
    check_count,
    check_threshold,
    completed,
    file_of,
    procedure,
    some_scope,
    spoken,
    to_day,
    without_identity,
)
from memkit_adapters._mem0_facts import LLM, facts
from memkit_adapters._mem0_filters import translate
from memkit_adapters._threads import awaited

Found = dict[str, list[dict[str, Any]]]
PROMOTED = ("actor_id", "role", "attributed_to", "expiration_date")  # in metadata here, beside it in Mem0's dicts


class Memory:
    """The `Memory` of mem0ai 2.2.1, on one .mem file.

    Args:
        config: where the file is: its path, an open `memkit.Memory`, or a config of Mem0, of whose vector store the
            `path` (a directory) and the `collection_name` count. Default: `memory.mem` in `MEM0_DIR` or `~/.mem0`.
        embedder: as in `memkit.Memory`. Mem0's providers of embeddings, models and stores play no part.
        llm: a callable, prompt -> answer, that `add` asks for facts. Without it, messages are kept as they are.
        reranker: as `rerank` in `memkit.Memory.search`, for `search(..., rerank=True)`.
    """

    def __init__(
        self,
        config: Any = None,
        *,
        embedder: Any | None = None,
        llm: LLM | None = None,
        reranker: Any | None = None,
    ) -> None:
        self.memory = config if isinstance(config, memkit.Memory) else memkit.Memory(file_of(config), embedder=embedder)
        self._llm = llm
        self._reranker = reranker

    @classmethod
    def from_config(cls, config_dict: Mapping[str, Any], **more: Any) -> Self:
        """The memory that a config of Mem0 means; `more` as in the constructor."""
        return cls(config_dict, **more)

    # writing

    def add(
        self,
        messages: Any,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: Any | None = None,
        expiration_date: date | str | None = None,
        infer: bool = True,
        memory_type: str | None = None,
        prompt: str | None = None,
    ) -> Found:
        """Remember a text, a message or a list of messages.

        Args:
            timestamp: when it happened: aware datetime, ISO 8601, or seconds since 1970.
            expiration_date: a day (YYYY-MM-DD) after which `search` and `get_all` leave it out.
            infer: with an `llm`, keep the facts that it finds, those not known yet. Else every message that is not
                the system's is kept verbatim.
            memory_type: "procedural_memory" keeps the conversation as one memory (summed up, with an `llm`).
            prompt: what to tell the `llm` besides.

        Returns:
            {"results": [{"id", "memory", "event": "ADD"[, "actor_id", "role"]}]}

        Raises:
            ValidationError: no scope, or an unknown memory_type or type of messages. CallableFailed: the `llm` failed.
        """
        scope = some_scope(user_id, agent_id, run_id)
        given = without_identity(metadata or {})
        if expiration_date is not None:
            given["expiration_date"] = to_day(expiration_date)
        stamp = given.pop("created_at", None) if timestamp is None else timestamp
        check_metadata(given)
        if memory_type not in (None, PROCEDURAL):
            raise ValidationError(
                f"Invalid 'memory_type' {memory_type!r}.", "VALIDATION_002", f"Pass {PROCEDURAL!r} or leave it out."
            )
        said = spoken(as_messages(messages))
        if memory_type == PROCEDURAL:
            entries = [procedure(said, self._llm, prompt)] if said else []
        elif infer and self._llm is not None:
            entries = self._new_facts(said, scope, prompt)
        else:
            entries = said
        entries = [completed(entry, given, stamp, scope) for entry in entries]
        added = self.memory.add_drafts(entries, only=lambda draft, there: there is None)
        return {"results": [_added(item) for item in added]}

    def _new_facts(self, said: list[Draft], scope: dict[str, str], prompt: str | None) -> list[Draft]:
        """Facts that are not known. The id of one that was never told before is made of its words, so that of two
        processes that find it at once one adds it: either sees it among what is known, or finds its id taken."""
        found = facts(self._llm, said, prompt) if self._llm and said else []
        view = self.memory.scope(**scope)
        ids = {text: own_id(view, "fact", text) for text in found}
        told = {text for text, id_ in ids.items() if view.history(id_)}  # before what is known is read: see above
        known = {item.text for item in everything(view, {"text": {"in": found}})}
        return [Draft(text, id=None if text in told else id_) for text, id_ in ids.items() if text not in known]

    def update(
        self,
        memory_id: str,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expiration_date: Any = ...,
        data: str | None = None,
    ) -> dict[str, str]:
        """Change the text, merge `metadata` into what is there, or set (None: clear) the day of expiry.

        `data` is `text`, as Mem0 1.x called it. Raises MemoryNotFound, a ValueError; InvalidInput without a change.
        """
        text = data if text is None else text
        if text is None and metadata is None and expiration_date is ...:
            raise InvalidInput("At least one of text, metadata, or expiration_date must be provided.")
        given = without_identity(metadata or {})
        if expiration_date not in (..., None):
            given["expiration_date"] = to_day(expiration_date)
        cleared = {"expiration_date"} if expiration_date is None else set()

        def merged(there: dict[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in {**there, **given}.items() if key not in cleared}

        try:
            self.memory.update(memory_id, text, merged)
        except ItemNotFound as error:
            raise _missing(memory_id) from error
        return {"message": "Memory updated successfully!"}

    def delete(self, memory_id: str) -> dict[str, str]:
        """End a memory. Raises MemoryNotFound, a ValueError, when there is none of this id."""
        if not self.memory.delete(memory_id):
            raise _missing(memory_id)
        return {"message": "Memory deleted successfully!"}

    def delete_all(
        self, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> dict[str, str]:
        """End every memory of a scope. Raises ValidationError, a ValueError, without one."""
        self.memory.scope(**some_scope(user_id, agent_id, run_id)).delete_where({})
        return {"message": "Memories deleted successfully!"}

    def reset(self) -> None:
        """Remove every memory of the file physically, with all history."""
        self.memory.erase(ANY_ITEM, reason="reset")

    # reading

    def get(self, memory_id: str) -> dict[str, Any] | None:
        """One memory as a dict, or None."""
        item = self.memory.get(memory_id)
        return None if item is None else {**_shown(item), "score": None}

    def get_all(
        self,
        *,
        filters: Mapping[str, Any] | None = None,
        top_k: int | None = None,
        show_expired: bool = False,
        limit: int | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Found:
        """The memories of a scope that match, oldest first: {"results": [dict, ...]}.

        `filters` and `top_k` (20) are Mem0 2.x; `user_id`, `agent_id`, `run_id` and `limit` (100) are 1.x.

        Raises:
            ValidationError, InvalidFilter: no scope, or an operator that there is not; both are ValueErrors.
        """
        _, at_most, where = self._asked(filters, (user_id, agent_id, run_id), top_k, limit, show_expired)
        return {"results": [_shown(item) for item in islice(everything(self.memory, where), at_most)]}

    def search(
        self,
        query: str,
        *,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        rerank: bool = False,
        explain: bool = False,
        show_expired: bool = False,
        limit: int | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Found:
        """The memories of a scope that fit a query best, best first: {"results": [dict with "score", ...]}.

        Args:
            top_k: how many at most; default, as in Mem0: 20, and 100 for a call in the style of 1.x.
            threshold: the least score, in [0, 1]; default, as in Mem0: 0.1, and none for a call in the style of 1.x.
            explain: put what the score is made from into "score_details".
            limit, user_id, agent_id, run_id: Mem0 1.x; `filters` and `top_k` are 2.x.

        Raises:
            InvalidInput, ValidationError, InvalidFilter: an empty query, no scope, an operator that there is not, a
            threshold or top_k out of range; all are ValueErrors.
        """
        old, at_most, where = self._asked(filters, (user_id, agent_id, run_id), top_k, limit, show_expired)
        least = check_threshold((0 if old else 0.1) if threshold is None else threshold)
        if not isinstance(query, str) or not query.strip():
            raise InvalidInput(f"query={query!r:.60}: cannot be empty; ask with some words")
        if not at_most:
            return {"results": []}
        chosen = self._reranker if rerank else None
        hits = self.memory.search(query.strip(), limit=at_most, where=where, explain=explain, rerank=chosen)
        found = [
            {**_shown(hit), "score": hit.score, **({"score_details": hit.signals} if explain else {})}
            for hit in hits
            if hit.score >= least
        ]
        return {"results": found}

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """Every change of a memory, oldest first, also of one that is gone."""
        changes = self.memory.history(memory_id)
        before = [None, *(change.item for change in changes)]
        return [_changed(change, item, memory_id) for change, item in zip(changes, before, strict=False)]

    def close(self) -> None:
        """Close the file."""
        self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _asked(
        self, filters: Any, named: Sequence[Any], top_k: int | None, limit: int | None, show_expired: bool
    ) -> tuple[bool, int, dict[str, Any]]:
        """Whether a call is one of Mem0 1.x, which has other defaults; how many it wants at most; and of which."""
        old = any(argument is not None for argument in (limit, *named))
        at_most = check_count(next(count for count in (limit, top_k, 100 if old else 20) if count is not None))
        where = translate(filters, dict(zip(SCOPES, named, strict=True)), self.memory)
        today = datetime.now(UTC).date().isoformat()
        return old, at_most, where if show_expired else {**where, "NOT": {"metadata.expiration_date": {"lt": today}}}


_SYNC = attrgetter("sync")


class AsyncMemory:
    """Mem0's `AsyncMemory`: the methods of `Memory`, awaited; `close` is not. Arguments as there.

    A call that is cancelled ends when its work is done, so that nobody takes it for undone.
    """

    def __init__(self, config: Any = None, **more: Any) -> None:
        self.sync = Memory(config, **more)

    @classmethod
    def from_config(cls, config_dict: Mapping[str, Any], **more: Any) -> Self:
        """As `Memory.from_config`."""
        return cls(config_dict, **more)

    add = awaited(Memory.add, _SYNC)
    get = awaited(Memory.get, _SYNC)
    get_all = awaited(Memory.get_all, _SYNC)
    search = awaited(Memory.search, _SYNC)
    update = awaited(Memory.update, _SYNC)
    delete = awaited(Memory.delete, _SYNC)
    delete_all = awaited(Memory.delete_all, _SYNC)
    history = awaited(Memory.history, _SYNC)
    reset = awaited(Memory.reset, _SYNC)

    def close(self) -> None:
        """Close the file."""
        self.sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)


def _missing(memory_id: str) -> MemoryNotFound:
    return MemoryNotFound(f"Memory with id {memory_id!r} not found; get_all() lists what there is")


def _added(item: Item) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": item.id, "memory": item.text, "event": "ADD"}
    if "role" in item.metadata:
        shown |= {"actor_id": item.metadata.get("actor_id"), "role": item.metadata["role"]}
    return shown


def _changed(change: Change, before: Item | None, memory_id: str) -> dict[str, Any]:
    """A change as Mem0 shows it."""
    about = change.item or before
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{memory_id}@{change.position}")),
        "memory_id": memory_id,
        "old_memory": before and before.text,
        "new_memory": change.item and change.item.text,
        "event": {"added": "ADD", "updated": "UPDATE", "deleted": "DELETE"}[change.kind],
        "created_at": about and about.created_at.isoformat(),
        "updated_at": change.at.isoformat(),
        "is_deleted": change.kind == "deleted",
        "actor_id": about and about.metadata.get("actor_id"),
        "role": about and about.metadata.get("role"),
    }


def _shown(item: Item) -> dict[str, Any]:
    """A memory as Mem0 shows it, without a score."""
    own = {key: value for key, value in item.metadata.items() if key not in PROMOTED}
    scopes = {name: getattr(item, name) for name in SCOPES if getattr(item, name) is not None}
    promoted = {name: item.metadata[name] for name in PROMOTED if name in item.metadata}
    return {
        "id": item.id,
        "memory": item.text,
        "hash": hashlib.md5(item.text.encode(), usedforsecurity=False).hexdigest(),
        "metadata": own or None,
        "created_at": item.created_at.isoformat(),
        "updated_at": item.updated_at.isoformat(),
        **scopes,
        **promoted,
    }
