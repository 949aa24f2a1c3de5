"""What `tests/conformance/run.py` takes for a pass, on suites of our own that are fetched as theirs are."""

from __future__ import annotations

import importlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = "iniconfig"  # any that is installed: its source distribution is made here
PROJECT = f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{PACKAGE}"
version = "{version(PACKAGE)}"
[tool.hatch.build.targets.wheel]
only-include = ["tests"]
"""
TESTS = """
def test_good(): pass
def test_bad(): assert False
"""
GOOD, BAD = "tests/test_theirs.py::test_good", "tests/test_theirs.py::test_bad"
SUITES = {
    "as_stated": (1, {BAD: "asks for what we have not"}),
    "a_failure_that_is_not_listed": (1, {}),
    "a_listed_test_that_passes": (1, {GOOD: "none", BAD: "asks for what we have not"}),
    "a_listed_test_that_is_gone": (1, {"tests/test_theirs.py::test_gone": "none", BAD: "asks for what we have not"}),
    "another_number": (2, {BAD: "asks for what we have not"}),
}


@pytest.fixture
def run(tmp_path):
    """A function that runs the script on the suites above, with or without an index that has them."""
    place = tmp_path / "tests" / "conformance"
    for name in SUITES:
        (place / name).mkdir(parents=True)
        (place / name / "swapped.py").touch()
    for name in ("run.py", "listed.py", "suites.py", "scenarios.py"):
        shutil.copy(HERE / "conformance" / name, place)
    package = f"{PACKAGE}=={version(PACKAGE)}"
    with (place / "suites.py").open("a") as file:
        file.write(
            f"SUITES = {{n: Suite({package!r}, ('tests/test_theirs.py',), *s) for n, s in {SUITES!r}.items()}}\n"
        )
    distributed(tmp_path / "index")

    def run_(*names: str, index: str = "index") -> tuple[int, str]:
        env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / index)}
        command = [sys.executable, str(place / "run.py"), *names]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run_


def distributed(index: Path) -> None:
    index.mkdir()
    name = f"{PACKAGE}-{version(PACKAGE)}"
    info = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version(PACKAGE)}\n"
    files = {"pyproject.toml": PROJECT, "PKG-INFO": info, "tests/test_theirs.py": TESTS}
    with tarfile.open(index / f"{name}.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))


@pytest.mark.slow
def test_only_what_goes_as_stated_passes(run):
    assert run("as_stated") == (0, f"as_stated: 1 passed, 1 needed; 1 xfailed ({PACKAGE}=={version(PACKAGE)})\n")
    code, said = run()
    assert code == 1
    assert [name for name in SUITES if f"FAILED: {name}" in said] == list(SUITES)[1:]


@pytest.mark.slow
def test_without_an_index_the_suites_are_skipped_and_say_so(run):
    code, said = run("as_stated", "another_number", "mcp", index="nowhere")
    assert code == 0
    assert all(f"{name}: SKIPPED, no package index gives" in said for name in ("as_stated", "another_number", "mcp"))


SAID = {"ping": "Test Results:\nPassed: 1/1, 0 failed, 0 warnings\n"}
OTHERS = {
    "a failure": {"ping": "Test Results:\nPassed: 0/1, 1 failed, 0 warnings\n"},
    "a warning": {"ping": "Test Results:\nPassed: 1/1, 0 failed, 1 warnings\n"},
    "another number": {"ping": "Test Results:\nPassed: 2/2, 0 failed, 0 warnings\n"},
    "no result": {"ping": "Error: connect ECONNREFUSED"},
}


@pytest.fixture
def judged(monkeypatch):
    """What `scenarios.py` makes of one scenario with one check."""
    monkeypatch.syspath_prepend(str(HERE / "conformance"))
    scenarios = importlib.import_module("scenarios")
    monkeypatch.setattr(scenarios, "CHECKS", {"ping": 1})
    return lambda said: scenarios.judged("mcp", said)


@pytest.mark.parametrize("said", OTHERS.values(), ids=OTHERS)
def test_a_scenario_that_does_not_go_as_stated_fails_and_shows_what_was_said(judged, said):
    good, line = judged(said)
    assert (good, said["ping"] in line, "FAILED: mcp" in line) == (False, True, True)
    assert judged(SAID)[0]
