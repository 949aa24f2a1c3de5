"""The examples of the OpenAI and Claude adapters run offline, and a later process knows what an earlier one was told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = {
    "openai_agents_session.py": (
        "ana asks: 1 items in my history. I remember: nothing yet",
        "ana asks: 3 items in my history. I remember: [",
    ),
    "claude_memory_tool.py": ("The tool said: File created successfully", "1\tAna is allergic to peanuts."),
    "claude_agent_sessions.py": ("earlier sessions: []", "earlier sessions: ['I am allergic to peanuts.']"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_later_process_knows_what_an_earlier_one_was_told(name, tmp_path):
    first, second = [run(name, tmp_path) for _ in range(2)]
    assert EXAMPLES[name][0] in first
    assert EXAMPLES[name][1] in second
    assert "allergic to peanuts" in second


def test_another_user_is_not_told(tmp_path):
    outputs = [run("openai_agents_session.py", tmp_path) for _ in range(2)]
    (asked,) = [line for line in outputs[1].splitlines() if line.startswith("bo asks")]
    assert asked.endswith("I remember: nothing yet")


def run(name: str, where: Path) -> str:
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
    env = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(where / "cache"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        cwd=where,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
