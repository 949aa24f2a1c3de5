"""The wheel holds exactly the three packages, with what they need at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_installs_exactly_three_packages(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "memkit",
        "memkit_storage",
        "memkit_adapters",
    }


@pytest.mark.parametrize("name", ["memkit", "memkit_storage", "memkit_adapters"])
def test_every_package_is_typed(wheel, name):
    assert f"{name}/py.typed" in wheel.namelist()


@pytest.mark.parametrize("name", ["minilm_vocab.txt", "demo.jsonl", "demo_questions.json", "NOTICE"])
def test_data_files_are_shipped(wheel, name):
    assert f"memkit/data/{name}" in wheel.namelist()


def test_imports_flow_one_way():
    """memkit_storage knows neither memkit nor torch; memkit does not know the adapters."""
    for path in (ROOT / "storage").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "from memkit." not in text, path
        assert "import torch" not in text, path
    for path in (ROOT / "memkit").rglob("*.py"):
        assert "memkit_adapters" not in path.read_text(encoding="utf-8"), path
