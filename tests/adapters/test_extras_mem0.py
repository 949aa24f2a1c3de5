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


def test_the_mem0_drop_in_needs_no_mem0_and_no_framework():
    code = "import memkit_adapters.mem0, memkit.migrate, sys; print([m for m in ('mem0', 'qdrant_client', 'haystack', 'langgraph', 'memvid_sdk', 'torch') if m in sys.modules])"
    assert python(code).strip() == "[]"
