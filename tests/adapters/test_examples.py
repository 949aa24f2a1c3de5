"""The examples run offline, and a later process knows what an earlier one was told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = {
    "langchain_agent.py": ("nothing about that yet", "I remember", "allergic to peanuts"),
    "langchain_rag.py": ("0 notes", "2 notes", "behind the kitchen door"),
    "mcp_client.py": ("found: []", "found", "allergic to peanuts"),
    "langgraph_store.py": ("nothing about that yet", "told before", "allergic to peanuts"),
    "create_agent_store.py": ("nothing yet", "noted", "allergic to peanuts"),
    "langmem_tools.py": ("nothing yet", "known", "allergic to peanuts"),
    "deepagents_store.py": ("nothing yet", "earlier", "allergic to peanuts"),
    "openai_agents_session.py": (
        "ana asks: 1 items in my history. I remember: nothing yet",
        "ana asks: 3 items in my history. I remember: [",
        "allergic to peanuts",
    ),
    "claude_memory_tool.py": ("The tool said: File created successfully", "1\tAna is", "allergic to peanuts"),
    "claude_agent_sessions.py": ("earlier sessions: []", "earlier sessions: [", "allergic to peanuts"),
    "haystack_pipeline.py": ("0 notes", "2 notes", "The spare key hangs behind the kitchen door."),
    "mem0_drop_in.py": ("0 memories", "2 memories", "allergic to peanuts"),
    "pydantic_ai_agent.py": ("told", "I remember", "allergic to peanuts"),
    "llama_index_chat.py": ("told", "long_term_memory", "allergic to peanuts"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_later_process_knows_what_an_earlier_one_was_told(name, tmp_path):
    first, second, fact = EXAMPLES[name]
    outputs = [run(name, tmp_path) for _ in range(2)]
    assert first in outputs[0]
    assert second in outputs[1]
    assert fact in outputs[1]


def test_another_user_is_not_told(tmp_path):
    outputs = [run("openai_agents_session.py", tmp_path) for _ in range(2)]
    (asked,) = [line for line in outputs[1].splitlines() if line.startswith("bo asks")]
    assert asked.endswith("I remember: nothing yet")


def run(name: str, where: Path) -> str:
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
    env = {
        **os.environ,
        "PYTHONPATH": paths,
        "XDG_CACHE_HOME": str(where / "cache"),
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)], cwd=where, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
