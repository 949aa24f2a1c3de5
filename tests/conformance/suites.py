"""Which outside suites are run, at which versions, and which of their tests cannot pass, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """A suite that its authors ship in a source distribution.

    Attributes:
        package: that is fetched, and has to be installed, at this version. files: of its tests that are run.
        needed: how many tests have to pass; no more and no fewer are run. listed: tests that cannot pass, and why.
        unused: a file of theirs that these tests do not need, and that asks for packages that we have not.
    """

    package: str
    files: tuple[str, ...]
    needed: int
    listed: dict[str, str] = field(default_factory=dict)
    unused: str = ""


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
    "openai_sessions": Suite(
        "openai-agents==0.24.0",
        ("tests/memory/test_session.py", "tests/memory/test_session_limit.py"),
        53,
        {f"tests/memory/test_session.py::test_sqlite_session_{name}": SQLITE for name in OPENAI},
    ),
    "claude_memory": Suite("anthropic==2.14.0", (CLAUDE_FILE,), 72, CLAUDE, unused="tests/conftest.py"),
}
