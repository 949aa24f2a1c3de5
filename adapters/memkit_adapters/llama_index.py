"""memkit in LlamaIndex: a memory block, for what must outlive the chat history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from memkit import Memory
from memkit.ingest import Draft, truncated
from memkit.packing import estimate_tokens
from memkit.views import own_id
from memkit_adapters._guard import missing

try:
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.memory import BaseMemoryBlock
except ImportError as error:
    raise missing("llama-index", error) from error

LEAST = 40  # tokens under which a recall says nothing


class MemkitMemoryBlock(BaseMemoryBlock[str]):
    """A block of LlamaIndex's `Memory`: `Memory.from_defaults(memory_blocks=[MemkitMemoryBlock(memory=...)])`.

    It is asked on every turn for what bears on the last thing that a user said, and given what no longer fits the chat
    history. LlamaIndex gives it nothing before that, so at the end of a session keep the rest with
    `await block.aput(await chat.aget_all())`; what the block has of the same session already is not kept twice.
    """

    name: str = Field(default="long_term_memory", description="The name of the block in the prompt.")
    memory: Any = Field(exclude=True, description="A memkit Memory, or a view of it such as memory.scope(user_id=...).")
    max_tokens: int = Field(default=800, description="Budget of what is recalled.")
    session_id: str | None = Field(default=None, description="The run of messages that come without a session.")
    _query: str = PrivateAttr(default="")

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        """What memory holds on the last thing that a user said; "" when nothing bears on it."""
        said = [words for message in messages or [] if message.role == "user" and (words := _words(message))]
        self._query = said[-1] if said else ""
        return await asyncio.to_thread(self._recalled, self._query, self.max_tokens)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Keep messages that have words, each once a session."""
        await asyncio.to_thread(self._keep, messages)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """A recall with a smaller budget; None when too little is left to say anything."""
        left = min(estimate_tokens(content), self.max_tokens) - tokens_to_truncate
        return await asyncio.to_thread(self._recalled, self._query, left) or None if left >= LEAST else None

    def _recalled(self, query: str, max_tokens: int) -> str:
        if not query:
            return ""
        recall = self._memory.recall(query, max_tokens=max_tokens)
        return "" if recall.abstained else recall.text

    def _keep(self, messages: Sequence[ChatMessage]) -> None:
        drafts = [self._draft(message) for message in messages if _words(message)]
        self._memory.add_drafts(drafts, only=lambda draft, there: there is None)

    def _draft(self, message: ChatMessage) -> Draft:
        """What makes two messages of a session one is in the id."""
        session = message.additional_kwargs.get("session_id", self.session_id)
        text, role = _words(message), message.role.value
        id_ = own_id(self._memory, "message", session or "", role, text)
        return Draft(text, id=id_, metadata={"role": role}, run_id=session)

    @property
    def _memory(self) -> Memory:
        bound: Memory = self.memory
        return bound


def _words(message: ChatMessage) -> str:
    return truncated((message.content or "").strip())
