"""The front door: one object for everything that a .mem file remembers.

It checks what comes in, binds scopes and times, and hands over: to `ingest` for what content is, to
`memkit_storage` for writing and finding, to `ranking` and `recall` for what is best. It holds no algorithm. What a
memory learns is in `learning`, how its items change in `editing`, what is done with its file in `maintenance`, what a
view may see in `scoping`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from memkit.arguments import (
    Where,
    called,
    check_budget,
    check_drafts,
    check_limit,
    complete,
    from_cursor,
    in_scope,
    queries_of,
    to_cursor,
)
from memkit.editing import Editing
from memkit.fast.salience import Salience
from memkit.fast.tier import FastTier
from memkit.ingest import Draft, drafts
from memkit.items import Change, Hit, Item, Page, Recall, changes
from memkit.learning import Learning
from memkit.maintenance import Maintenance
from memkit.packing import Order, estimate_tokens
from memkit.scoping import Progress
from memkit.vectors import FileVectors
from memkit.writing import Writer, check_id
from memkit_storage.errors import InvalidInput
from memkit_storage.index import Index
from memkit_storage.log import Durability
from memkit_storage.rows import Row
from memkit_storage.store import Store
from memkit_storage.times import parse_time, to_us

if TYPE_CHECKING:
    from memkit.fast.lm.attached import AttachedLM
    from memkit.slow.worker import Supervisor

Mode = Literal["hybrid", "vector", "text"]
Items = list[Item]  # `list` is a method here
MaybeItems = list[Item | None]
Hits = list[Hit]
Changes = list[Change]


class Memory(Editing, Learning, Maintenance):
    """An agent's memory in one file.

    Args:
        path: the file; made when it does not exist.
        embedder: an object with `embed_documents`/`embed_query`, a sentence-transformers model, or a callable
            `list[str] -> (n, d)`. Default: all-MiniLM-L6-v2 from its wheel, no download.
        durability: "fsync" acknowledges what a power loss cannot take back; "os" what a crash of the process cannot.
        cache_dir: where the search index may live; it is derived and may be deleted at any time.
        share_learning: what feedback in one scope teaches acts in all; otherwise each user and agent learns alone.
        consolidate: "auto" lets a process of its own, at low priority, consolidate the file while this one has it open
            (see `consolidate()`); None leaves that to you.

    Raises:
        NotAMemory, FormatTooNew, StorageFailed: the path cannot be opened as a memory.

    Example:
        >>> memory = Memory("assistant.mem")
        >>> memory.add("I moved to Lisbon in May.", user_id="ana")
        >>> memory.search("where does she live?", user_id="ana")[0].text
        'I moved to Lisbon in May.'
    """

    def __init__(
        self,
        path: str | Path,
        *,
        embedder: Any | None = None,
        durability: Durability = "fsync",
        cache_dir: str | Path | None = None,
        share_learning: bool = False,
        consolidate: Literal["auto"] | None = None,
    ) -> None:
        if consolidate not in (None, "auto"):
            raise InvalidInput(f'consolidate={consolidate!r}; use "auto", or call consolidate() yourself')
        if durability not in ("fsync", "os"):
            raise InvalidInput(f'durability={durability!r}; use "fsync" (the default) or "os"')
        self._store = Store(path, durability=durability)
        self._vectors = FileVectors(self._store, embedder)
        self._index = Index(self._store, cache_dir)
        self._fast = FastTier(self._store, self._vectors, share=share_learning)
        self._writer = Writer(self._store, self._vectors, Salience(self._store, self._fast.family))
        self._scope: dict[str, str] = {}
        self._as_of: int | None = None
        self._supervisor: Supervisor | None = None
        if consolidate:
            from memkit.slow.worker import Supervisor

            self._supervisor = Supervisor(self._store.log.path, cache_dir, share=share_learning)

    def __repr__(self) -> str:
        bound = "".join(f", {name}={value!r}" for name, value in self._scope.items())
        return f"Memory({str(self._store.log.path)!r}{bound})"

    # writing

    def add(
        self,
        content: str | Mapping[str, Any] | Sequence[Any],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | None = None,
        id: str | None = None,
    ) -> Items:
        """Remember a text, a chat message, or a list of either, verbatim.

        Args:
            content: a string, an OpenAI-style message (which may carry `name`, `timestamp`, `id`, `metadata`), or a
                list of them. A list is written together.
            metadata: added to each item's own.
            occurred_at: when it happened (aware datetime or ISO 8601); default: the message's own time, or now.
            id: names the item, for one text only. An id that exists becomes a new version of that item; the same id
                with the same text, and no other change, writes nothing.

        Returns:
            The items in order, durable (see `durability`).

        Raises:
            InvalidInput: empty or oversized text, naive time, unusable metadata; nothing is written.
            IdConflict: the id belongs to an item of another scope.
        """
        self._writable()
        given = None if occurred_at is None else parse_time(occurred_at)
        entries = [complete(draft, metadata, given) for draft in drafts(content)]
        if id is not None:
            if len(entries) != 1:
                raise InvalidInput(f"id={id!r} for {len(entries)} items; give each message an `id` of its own")
            entries = [replace(entries[0], id=check_id(id))]
        return self.add_drafts(entries, user_id=user_id, agent_id=agent_id, run_id=run_id)

    def add_drafts(
        self,
        entries: Sequence[Draft],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        progress: Progress | None = None,
        only: Callable[[Draft, Item | None], bool] | None = None,
    ) -> Items:
        """Remember drafts, such as `memkit.ingest.read` finds in files, together: all of them or none.

        Scopes given here fill those that a draft lacks.

        Args:
            only: whether a draft is written, by the item that is there under its id, or None; nobody writes in between.
                It is called as the `metadata` of `update`.

        Returns:
            The items in order, without those of drafts that were not to be written.

        Raises:
            As `add`. CallableFailed: `only` raised; nothing is written.
        """
        self._writable()
        check_drafts(entries)
        scope = self._bound(user_id, agent_id, run_id)
        chosen = None if only is None else partial(_asked, only)
        rows = self._writer.add([in_scope(entry, scope, self._scope) for entry in entries], progress, chosen)
        self._index.settle()
        return [Item.from_row(row) for row in rows]

    # reading

    def get(self, id: str) -> Item | None:
        """The item, or None if there is none of this id in this view.

        Raises:
            CorruptRecord: its bytes in the file are damaged.
        """
        self._store.refresh()
        row = self._store.get(check_id(id), self._as_of)
        return _item(row) if row is not None and self._filter(None).matches(row) else None

    def get_many(self, ids: Sequence[str]) -> MaybeItems:
        """Items in the order of their ids; None for each id that names none in this view. Raises as `get`."""
        self._store.refresh()
        allowed = self._filter(None)
        rows = (self._store.get(check_id(id_), self._as_of) for id_ in ids)
        return [_item(row) if row is not None and allowed.matches(row) else None for row in rows]

    def list(
        self,
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Page:
        """Items in the order in which they were first recorded, a page at a time.

        Args:
            cursor: from the page before; items added meanwhile come at the end, none is shown twice.

        Raises:
            InvalidFilter, InvalidInput: unknown operator, or a cursor that no page gave.
        """
        check_limit(limit)
        self._store.refresh()
        chosen = self._filter(where, user_id, agent_id, run_id)
        rows = self._store.select(chosen, as_of=self._as_of, after=from_cursor(cursor), limit=limit + 1)
        more = len(rows) > limit
        return Page(items=[_item(row) for row in rows[:limit]], cursor=to_cursor(rows[limit - 1]) if more else None)

    def history(self, id: str) -> Changes:
        """Every version and deletion of an item, oldest first; of a past view, up to its time."""
        self._store.refresh()
        allowed, events = self._filter(None), self._store.history(check_id(id))
        if not any(isinstance(event, Row) and allowed.matches(event) for event in events):
            return []
        return [c for c in changes(events) if self._as_of is None or to_us(c.at) <= self._as_of]

    def search(
        self,
        query: str | Sequence[str],
        *,
        limit: int = 10,
        where: Where | None = None,
        mode: Mode = "hybrid",
        explain: bool = False,
        rerank: Any | None = None,
        distinct: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Hits:
        """The items that fit a query best, best first. There is no hidden threshold.

        Args:
            query: what to look for; of several wordings (hybrid only), each item counts as the one that it fits best.
            mode: "hybrid" weighs every signal (`memkit.signals`), "text" is BM25 alone, "vector" cosine alone.
            explain: put the weight of every signal into `Hit.signals` beside it.
            rerank: callable (query, texts) -> a number each, or a CrossEncoder, that orders the best hits anew.
            distinct: a metadata key: of the items with the same value of it, only the best is a hit. So a thing may
                have several vectors: an item for each field, chunk or wording, with that value in common.

        Raises:
            InvalidInput, InvalidFilter: an empty query, an unknown mode or operator.
            CallableFailed: `rerank` raised or returned something else.
            EmbedderMismatch: the file's vectors came from another embedder (not in mode "text").
        """
        check_limit(limit)
        return self._finder.search(
            queries_of(query, mode),
            self._filter(where, user_id, agent_id, run_id),
            self._bound(user_id, agent_id, run_id),
            limit=limit,
            mode=mode,
            explain=explain,
            rerank=rerank,
            distinct=distinct,
        )

    def recall(
        self,
        query: str | Sequence[str],
        *,
        max_tokens: int = 800,
        where: Where | None = None,
        order: Order = "time",
        count_tokens: Callable[[str], int] | None = None,
        rerank: Any | None = None,
        expand: Callable[[str], Sequence[str]] | None = None,
        into: AttachedLM | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Recall:
        """What memory holds on a query, as text for a prompt: dated, cited, within a token budget.

        Args:
            query: a question, or several that mean to find the same.
            max_tokens: hard limit of `recall.text`, by `count_tokens` or by an estimate on the safe side.
            order: "time" writes oldest first, "best" what fits best first.
            rerank: as in `search`. `expand`: makes further queries of one; raises CallableFailed when it fails.
            into: an attached model that reads the text, so that it need not stand in the prompt (see `attach`); nothing
                is read when recall abstained.

        `recall.abstained` is True when nothing in memory bears on the query; `recall.text` says so then. Raises as
        `search`, and InvalidInput when the model is attached to another file, or for a scope that this is not in.
        """
        check_budget(max_tokens)
        if into is not None:
            into.admit(self._store, self._bound(user_id, agent_id, run_id))
        recall = self._finder.recall(
            queries_of(query, "hybrid"),
            self._filter(where, user_id, agent_id, run_id),
            self._bound(user_id, agent_id, run_id),
            max_tokens=max_tokens,
            order=order,
            count=count_tokens or estimate_tokens,
            rerank=rerank,
            expand=expand,
        )
        if into is not None and not recall.abstained:
            into.read(recall.text)
        return recall

    # inside a language model

    def attach(
        self,
        model: Any,
        tokenizer: Any,
        *,
        fresh: bool = False,
        listen: bool = True,
        consolidated: bool = True,
        user_id: str | Sequence[str] | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> AttachedLM:
        """Give a Hugging Face causal LM a memory that changes while it reads; its own weights stay untouched.

        Use it as a context manager; afterwards the model is bit for bit as it was, and the state is kept in the file:
        one for each user and agent, as small as `lm.bytes_per_user` says. See docs/attach.md.

        Args:
            model, tokenizer: of `AutoModelForCausalLM` and `AutoTokenizer`, on any device and in any precision.
            fresh: start with nothing read, whatever the file holds.
            listen: learn from what `forward` and `generate` see, too, and not from `lm.read` alone.
            consolidated: let the bands act that `consolidate(model, tokenizer)` has made for these users.
            user_id: or a list of them: then row i of a batch belongs to the i-th.

        Raises:
            ModelMismatch: the file holds a state of this scope from another model.
            InvalidInput: the model is no dense decoder.
        """
        from memkit.fast.lm.attached import AttachedLM, User

        names = [user_id] if user_id is None or isinstance(user_id, str) else list(user_id)
        scopes = [self._bound(name, agent_id, run_id) for name in names]
        if not scopes or len({tuple(scope.items()) for scope in scopes}) < len(scopes):
            raise InvalidInput(f"user_id={user_id!r}: name each user once")
        users = [User(scope, self._fast.family(scope)) for scope in scopes]
        return AttachedLM(
            self,
            self._store,
            users,
            model,
            tokenizer,
            fresh=fresh,
            listen=listen,
            consolidated=consolidated,
            as_of=self._as_of,
        )

    def close(self) -> None:
        """Finish background work and give the file back. Views of this memory are closed with it."""
        if self._supervisor is not None:
            self._supervisor.stop()
        self._fast.save()
        self._index.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _asked(only: Callable[[Draft, Item | None], bool], entry: Draft, row: Row | None) -> bool:
    return called("only", only, entry, None if row is None else Item.from_row(row))


def _item(row: Row) -> Item:
    found: Item = Item.from_row(row)
    return found
