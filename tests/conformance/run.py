"""Outside suites that their authors ship in source distributions, run against memkit's adapters.

    python tests/conformance/run.py [NAME ...]

Each suite of `suites.py` is fetched at a pinned version into a temporary directory, its tests are put beside our
`NAME/swapped.py`, as `conftest.py`, which puts the adapter in their class's place, and pytest runs them. Nothing of
theirs is kept. Without a package index the script says so and ends with exit code 0; a test that fails, or fewer tests
than there should be, ends it with 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from suites import SUITES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OPTIONS = ["-q", "--import-mode=prepend", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"]
OPTIONS += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]


def main(names: Sequence[str]) -> int:
    """Run suites by name, all without any. Returns the exit code."""
    failed = []
    for name in names or list(SUITES):
        suite = SUITES[name]
        package, wanted = suite.package.split("==")
        if version(package) != wanted:
            print(
                f"{name}: {package} {version(package)} is installed, and {wanted} is tested; run: pip install {suite.package}"
            )
            failed.append(name)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            tests = fetched(suite.package, Path(scratch))
            if tests is None:
                print(f"{name}: SKIPPED, {suite.package} cannot be fetched from a package index")
            elif not passes(name, tests):
                failed.append(name)
    return 1 if failed else 0


def fetched(package: str, scratch: Path) -> Path | None:
    """The unpacked `tests` directory of a source distribution; None when there is no package index.

    pip asks the distribution's build system for its metadata, and has to fetch that too where it is not installed.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(scratch)]
    for options in (["--no-build-isolation"], []):
        subprocess.run([*command, *options, package], check=False, stderr=subprocess.DEVNULL)
        for archive in scratch.glob("*.tar.gz"):
            with tarfile.open(archive) as opened:
                opened.extractall(scratch / "sdist", filter="data")
            return next((scratch / "sdist").glob("*/tests"))
    return None


def passes(name: str, tests: Path) -> bool:
    """Whether every test that is not left out passes, and none is missing; prints how many."""
    suite, root = SUITES[name], tests.parent
    for package in (tests, *(path for path in tests.rglob("*") if path.is_dir())):
        (package / "__init__.py").touch()
    if suite.unused:
        (root / suite.unused).unlink()
    shutil.copy(HERE / name / "swapped.py", root / "conftest.py")
    left_out = [f"--deselect={test}" for test in suite.left_out]
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "pytest", *OPTIONS, "--rootdir", str(root), "-c", os.devnull, *left_out]
    done = subprocess.run(
        [*command, *suite.files], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    counts = {
        word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|deselected|error|skipped)", done.stdout)
    }
    good = done.returncode == 0 and counts.get("passed", 0) == suite.needed and "skipped" not in counts
    if not good:
        print(done.stdout[-12_000:], done.stderr[-2_000:])
    total = sum(counts.values())
    print(
        f"{name}: {counts.get('passed', 0)} of {total} passed, {counts.get('deselected', 0)} left out, {suite.needed} needed ({suite.package})"
    )
    for test, reason in suite.left_out.items():
        print(f"  left out: {test}: {reason}")
    return good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
