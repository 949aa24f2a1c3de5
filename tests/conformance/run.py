"""Outside suites that their authors ship in source distributions, run against memkit's adapters.

    python tests/conformance/run.py [NAME ...]

Each suite is fetched at a pinned version into a temporary directory, its tests are put beside a `conftest.py` of ours
that swaps their class for the adapter's, and pytest runs them. Nothing of theirs is kept. Without a package index the
script says so and ends with exit code 0; a test that fails ends it with 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OPTIONS = ["-q", "--import-mode=prepend", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"]
OPTIONS += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]


@dataclass(frozen=True)
class Suite:
    """A suite: what is fetched, which of its files are run, and which tests are left out, and why.

    Attributes:
        needed: how many tests have to pass.
    """

    package: str
    files: tuple[str, ...]
    needed: int
    left_out: dict[str, str] = field(default_factory=dict)


SUITES = {
    "langgraph_sqlite": Suite(
        "langgraph-checkpoint-sqlite==3.1.2",
        ("tests/test_store.py", "tests/test_async_store.py"),
        140,
        {
            "tests/test_store.py::test_vector_store_initialization": "asks for the tables of SQLite",
            "tests/test_store.py::test_nonnull_migrations": "asks for the migrations of SQLite's tables",
        },
    ),
    "langgraph_memory": Suite("langgraph-checkpoint==4.3.2", ("tests/test_store.py",), 117),
}


def main(names: list[str]) -> int:
    """Run suites by name, all without any. Returns the exit code."""
    failed = []
    for name in names or list(SUITES):
        with tempfile.TemporaryDirectory() as scratch:
            tests = fetched(SUITES[name].package, Path(scratch))
            if tests is None:
                print(f"{name}: SKIPPED, {SUITES[name].package} cannot be fetched from a package index")
                continue
            if not passes(name, tests):
                failed.append(name)
    return 1 if failed else 0


def fetched(package: str, scratch: Path) -> Path | None:
    """The unpacked `tests` directory of a source distribution; None when there is no package index."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run([*command, "--no-build-isolation", "-d", str(scratch), package], check=False)
    archives = list(scratch.glob("*.tar.gz"))
    if done.returncode or not archives:
        return None
    with tarfile.open(archives[0]) as archive:
        archive.extractall(scratch / "sdist", filter="data")
    return next((scratch / "sdist").glob("*/tests"))


def passes(name: str, tests: Path) -> bool:
    """Whether enough tests of a suite pass; prints how many."""
    suite, root = SUITES[name], tests.parent
    (tests / "__init__.py").touch()
    shutil.copy(HERE / name / "swapped.py", root / "conftest.py")
    left_out = [f"--deselect={test}" for test in suite.left_out]
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "pytest", *OPTIONS, "--rootdir", str(root), "-c", os.devnull, *left_out]
    done = subprocess.run(
        [*command, *suite.files], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    found = re.search(r"(\d+) passed", done.stdout)
    passed = int(found[1]) if found else 0
    if passed < suite.needed:
        print(done.stdout[-12_000:], done.stderr[-2_000:])
    print(f"{name}: {passed} passed, {suite.needed} needed ({suite.package})")
    for test, reason in suite.left_out.items():
        print(f"  left out: {test}: {reason}")
    return passed >= suite.needed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
