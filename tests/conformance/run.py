"""Outside suites that are no ordinary dependencies, run against memkit's adapters.

    python tests/conformance/run.py [NAME ...]

Those of `suites.py` are shipped in source distributions. Each is fetched at a pinned version into a temporary directory,
its tests are put beside our `NAME/swapped.py`, as `conftest.py`, which puts the adapter in their class's place, and
pytest runs them all, as many suites at once as there are processors. Nothing of theirs is kept.

The tests that an adapter cannot pass are listed in `suites.py`, each with the reason. The exit code is 1 when a test
that is not listed fails or is skipped, a listed one passes or is gone, or the number of those that pass is not the one
stated there. `mcp` stands for the scenarios of `scenarios.py`, whose checks are counted alike. A suite that no package
index gives is skipped, and a line says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import scenarios
from suites import SUITES, Suite

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MCP = "mcp"
PATHS = os.pathsep.join(str(path) for path in (ROOT, ROOT / "storage", ROOT / "adapters"))
OPTIONS = ["-q", "--import-mode=prepend", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"]
OPTIONS += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function", "-o", "timeout=120"]
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)\b")


def main(names: Sequence[str]) -> int:
    """Run suites by name, all without any. Returns the exit code."""
    chosen = names or [*SUITES, MCP]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = list(threads.map(outcome, chosen, [Path(scratch) / name for name in chosen]))
    print("\n".join(said for _, said in outcomes))
    return 0 if all(good for good, _ in outcomes) else 1


def fetched(suite: Suite, place: Path) -> Path | None:
    """The unpacked `tests` directory of a source distribution; None when no index gives it.

    pip asks the distribution's build system for its metadata, and has to fetch that too where it is not installed.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(place)]
    for options in (["--no-build-isolation"], []):
        subprocess.run([*command, *options, suite.package], check=False, capture_output=True)
        for archive in place.glob("*.tar.gz"):
            with tarfile.open(archive) as opened:
                # Python 3.11 has the filter from 3.11.4 on
                opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                opened.extractall(place / "sdist")
            return next((place / "sdist").glob("*/tests"))
    return None


def outcome(name: str, place: Path) -> tuple[bool, str]:
    """Whether a suite went as it is stated here, and what there is to print of it."""
    if name == MCP:
        return scenarios.outcome(name, place)
    suite = SUITES[name]
    package, wanted = suite.package.split("==")
    tests = fetched(suite, place)
    if tests is None:
        return True, f"{name}: SKIPPED, no package index gives {suite.package}"
    if version(package) != wanted:
        return False, f"{name}: FAILED, {package} {version(package)} is installed; run: pip install {suite.package}"
    done = tested(name, suite, tests)
    counts = {word: int(number) for number, word in COUNT.findall(done.stdout)}
    passed, others = counts.pop("passed", 0), ", ".join(f"{number} {word}" for word, number in counts.items())
    good = done.returncode == 0 and passed == suite.needed and set(counts) <= {"xfailed"}
    said = f"{name}: {passed} passed, {suite.needed} needed; {others or 'no others'} ({suite.package})"
    return good, said if good else f"{done.stdout[-12_000:]}\n{done.stderr[-2_000:]}\nFAILED: {said}"


def tested(name: str, suite: Suite, tests: Path) -> subprocess.CompletedProcess[str]:
    """pytest on the files of a suite, with the adapter in the place of their class."""
    root = tests.parent
    for package in (tests, *(path for path in tests.rglob("*") if path.is_dir())):
        (package / "__init__.py").touch()
    if suite.unused:
        (root / suite.unused).unlink()
    shutil.copy(HERE / name / "swapped.py", root / "conftest.py")
    shutil.copy(HERE / "listed.py", root)
    (root / "listed.json").write_text(json.dumps(suite.listed))
    command = [sys.executable, "-m", "pytest", *OPTIONS, "-p", "listed", "--rootdir", str(root), "-c", os.devnull]
    environment = {**os.environ, "PYTHONPATH": PATHS, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [*command, *suite.files], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
