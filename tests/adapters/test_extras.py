"""Each adapter names the extra that it needs, and loads no other framework."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
ADAPTERS = {
    "haystack": ("haystack", "haystack"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
    "llama_index": ("llama_index", "llama-index"),
    "langchain": ("langchain_core", "langchain"),
    "langchain_middleware": ("langchain", "langchain"),
    "langgraph": ("langgraph", "langgraph"),
    "mcp_server": ("mcp", "mcp"),
    "openai_agents": ("agents", "openai-agents"),
    "claude": ("anthropic", "anthropic"),
    "claude_agent": ("claude_agent_sdk", "claude-agent"),
}


def python(code: str) -> str:
    env = {**os.environ, "PYTHONPATH": PATHS}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ADAPTERS)
def test_without_its_framework_an_adapter_names_the_extra(name):
    framework, extra = ADAPTERS[name]
    code = f"""
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {framework!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
try:
    import memkit_adapters.{name}
except ImportError as error:
    print(error)
"""
    assert f'pip install "memkit-ai[{extra}]"' in python(code)


FRAMEWORKS = ["agents", "anthropic", "claude_agent_sdk", "haystack", "langchain_core", "langgraph", "llama_index"]
FRAMEWORKS += ["mcp", "mem0", "memvid_sdk", "openai", "pydantic_ai", "qdrant_client", "torch"]


@pytest.mark.parametrize(
    "modules", ["memkit, memkit_adapters", "memkit.journal, memkit.documents", "memkit.migrate", "memkit_adapters.mem0"]
)
def test_what_needs_no_framework_loads_none(modules):
    assert python(f"import {modules}, sys; print([m for m in {FRAMEWORKS} if m in sys.modules])").strip() == "[]"
