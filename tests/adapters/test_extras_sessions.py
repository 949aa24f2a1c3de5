"""The OpenAI and Claude adapters name the extra that they need, and memkit loads none of the frameworks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
ADAPTERS = {
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


def test_journals_and_documents_load_no_framework():
    code = "import memkit.journal, memkit.documents, sys; print([m for m in ('agents', 'openai', 'anthropic', 'claude_agent_sdk', 'torch') if m in sys.modules])"
    assert python(code).strip() == "[]"
