"""memkit in Pydantic AI: tools for the model, and a capability that recalls before a run and remembers after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import to_json

from memkit import Memory, Recall
from memkit.ingest import truncated
from memkit_adapters._common import INSTRUCTIONS, memory_functions, view_for
from memkit_adapters._guard import missing

try:
    from pydantic_ai import FunctionToolset, ModelRetry, RunContext
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
    from pydantic_ai.models import ModelRequestContext
    from pydantic_ai.run import AgentRunResult
except ImportError as error:
    raise missing("pydantic-ai", error) from error

Scope = Callable[[RunContext[Any]], Mapping[str, str | None]]


def memory_toolset(memory: Memory, *, read_only: bool = False) -> FunctionToolset[Any]:
    """The tools search_memory, remember and forget on a memory or a view of it: `Agent(toolsets=[...])`.

    Args:
        read_only: search_memory alone.
    """
    functions = memory_functions(memory, read_only=read_only, refusal=ModelRetry)
    return FunctionToolset(functions, id="memkit", instructions=INSTRUCTIONS)


@dataclass
class MemkitMemory(AbstractCapability[Any]):
    """Long-term memory for an agent: `Agent(capabilities=[MemkitMemory(memory.scope(user_id="ana"))])`.

    Before a run it recalls what bears on the prompt and puts it before the prompt in each request: as a user's words,
    for it is what users said, and not into the message history. After the run it remembers the prompt and the answer,
    and learns from which memories the answer used. A run that fails is not remembered.

    Args:
        memory: a memory, or a view of it.
        scope: who a run is for, from its context, when one agent serves many:
            `lambda ctx: {"user_id": ctx.deps.user_id}`; None is refused.
        max_tokens: budget of what is recalled.
        tools: whether the model gets the memory's tools besides.
        read_only: recall alone; nothing is remembered or learned, and the one tool is search_memory.
    """

    memory: Memory
    scope: Scope | None = None
    max_tokens: int = 800
    tools: bool = True
    read_only: bool = False
    _recall: Recall | None = field(default=None, init=False, repr=False)

    async def for_run(self, ctx: RunContext[Any]) -> AbstractCapability[Any]:
        """One copy for each run, bound to whom it is for."""
        memory = self.memory if self.scope is None else view_for(self.memory, self.scope(ctx))
        return replace(self, memory=memory, scope=None)

    def get_toolset(self) -> FunctionToolset[Any] | None:
        """The tools, on the memory of the run."""
        return memory_toolset(self.memory, read_only=self.read_only) if self.tools else None

    async def before_run(self, ctx: RunContext[Any]) -> None:
        """Recall what bears on the prompt."""
        if prompt := _words(ctx.prompt):
            self._recall = await asyncio.to_thread(self.memory.recall, prompt, max_tokens=self.max_tokens)

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Put what was recalled before the prompt, in this request alone."""
        if self._recall is None or self._recall.abstained:
            return request_context
        return replace(request_context, messages=_with_recall(request_context.messages, self._recall.text))

    async def after_run(self, ctx: RunContext[Any], *, result: AgentRunResult[Any]) -> AgentRunResult[Any]:
        """Remember what was said, and learn from what the answer used."""
        if not self.read_only:
            answer = result.output if isinstance(result.output, str) else to_json(result.output, fallback=str).decode()
            await asyncio.to_thread(self._keep, _words(ctx.prompt), truncated(answer))
        return result

    def _keep(self, prompt: str, answer: str) -> None:
        said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        self.memory.add([message for message in said if message["content"].strip()])
        if self._recall is not None and answer.strip():
            self._recall.observe(answer)


def _words(prompt: Any) -> str:
    """The text of a prompt, which may be text, text with pictures, or nothing."""
    parts = [prompt] if isinstance(prompt, str) else list(prompt or [])
    return truncated("\n".join(part for part in parts if isinstance(part, str) and part.strip()))


def _with_recall(messages: list[ModelMessage], text: str) -> list[ModelMessage]:
    """The messages, with a text before the last prompt; messages are shared with the history, so none is changed."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts):
            told = replace(message, parts=[UserPromptPart(text), *message.parts])
            return [*messages[:index], told, *messages[index + 1 :]]
    return messages
