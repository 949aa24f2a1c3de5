"""Claude's memory tool on a .mem file says what Anthropic's own tool says, and its files are versioned documents."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("anthropic")

from anthropic.tools import BetaLocalFilesystemMemoryTool, ToolError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memkit.documents import Documents
from memkit_adapters._claude_files import human_size
from memkit_adapters.claude import AsyncMemkitMemoryTool, MemkitMemoryTool

SAME_FILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
A, B, D = "/memories/a.txt", "/memories/b.txt", "/memories/d/c.txt"
FILES = st.sampled_from([A, B, D])
LINES = st.text(st.sampled_from("ab\r\n"), max_size=8)
COMMANDS = st.one_of(
    st.fixed_dictionaries({"command": st.just("create"), "path": FILES, "file_text": LINES}),
    st.fixed_dictionaries(
        {"command": st.just("view"), "path": FILES},
        optional={"view_range": st.tuples(st.integers(-1, 4), st.integers(-1, 4)).map(list)},
    ),
    st.fixed_dictionaries({"command": st.just("str_replace"), "path": FILES, "old_str": LINES, "new_str": LINES}),
    st.fixed_dictionaries(
        {"command": st.just("insert"), "path": FILES, "insert_line": st.integers(-1, 4), "insert_text": LINES}
    ),
    st.fixed_dictionaries({"command": st.just("delete"), "path": FILES}),
    st.fixed_dictionaries({"command": st.just("rename"), "old_path": FILES, "new_path": FILES}),
)


@pytest.fixture
def tool(memory):
    return MemkitMemoryTool(memory)


def run(tool, command, **arguments):
    return tool.call({"command": command, **arguments})


def answer(tool, given):
    try:
        return tool.call(given)
    except ToolError as refusal:
        return ("refused", str(refusal))


@SAME_FILE
@given(commands=st.lists(COMMANDS, max_size=12))
def test_every_answer_is_that_of_the_tool_for_files(memory, tmp_path_factory, commands):
    ours, theirs = MemkitMemoryTool(memory), BetaLocalFilesystemMemoryTool(str(tmp_path_factory.mktemp("files")))
    ours.clear_all_memory()
    for one in commands:
        assert answer(ours, one) == answer(theirs, one)


def test_a_directory_is_listed_as_that_of_the_tool_for_files_but_for_directory_sizes(memory, tmp_path):
    ours, theirs = MemkitMemoryTool(memory), BetaLocalFilesystemMemoryTool(str(tmp_path))
    paths = ["z.txt", "d.txt", "d/b.txt", "d/a/deep/x.txt", "d/a/y", ".hidden", "e/.hidden/x", "日本.md", "ä b"]
    for path in paths:
        for tool in (ours, theirs):
            run(tool, "create", path=f"/memories/{path}", file_text="x" * 1500)
    listed = [tool.call({"command": "view", "path": "/memories"}).split("\n") for tool in (ours, theirs)]
    plain = [[line.split("\t")[-1] if line.endswith(("/", "memories")) else line for line in one] for one in listed]
    assert plain[0] == plain[1]
    assert "1.5K\t/memories/z.txt" in listed[0]
    assert "4.4K\t/memories/d/" in listed[0]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0B"),
        (1, "1B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (1 << 20, "1M"),
        (3 << 30, "3G"),
        (1 << 42, "4096G"),
    ],
)
def test_sizes_are_written_as_anthropic_does(size, shown):
    from anthropic.lib.tools._beta_builtin_memory_tool import _format_file_size

    assert human_size(size) == shown == _format_file_size(size)


@pytest.mark.parametrize(
    "path",
    [
        "/memories/../x",
        "/memories/../../etc/passwd",
        "/memories/a/../../x",
        "/memories/..",
        "/memories/./../memories_too/x",
    ],
)
@pytest.mark.parametrize("command", ["view", "create", "str_replace", "insert", "delete", "rename"])
def test_a_path_that_escapes_is_refused_by_every_command(tool, command, path):
    run(tool, "create", path=A, file_text="x")
    more = {
        "create": {"file_text": "x"},
        "str_replace": {"old_str": "x", "new_str": "y"},
        "insert": {"insert_line": 0, "insert_text": "x"},
    }
    given = (
        [{"old_path": path, "new_path": B}, {"old_path": A, "new_path": path}]
        if command == "rename"
        else [{"path": path, **more.get(command, {})}]
    )
    for arguments in given:
        with pytest.raises(ToolError, match="would escape /memories directory"):
            run(tool, command, **arguments)
    assert tool.documents.list() == [A]


@pytest.mark.parametrize("path", ["/etc/passwd", "memories/a", "/memoriesx/a", "", "/", "//memories/a", "/Memories"])
def test_a_path_outside_is_refused(tool, path):
    with pytest.raises(ToolError, match="Path must start with /memories"):
        run(tool, "create", path=path, file_text="x")


def test_a_path_that_is_no_text_is_refused(tool):
    with pytest.raises(ToolError, match="half a character"):
        run(tool, "create", path="/memories/\ud800", file_text="x")


def test_a_path_with_detours_is_the_direct_one(tool):
    run(tool, "create", path="/memories/d/../a.txt", file_text="x")
    assert tool.documents.list() == [A]
    assert "1\tx" in run(tool, "view", path="/memories//a.txt")


def test_the_root_can_neither_be_deleted_nor_renamed_nor_made(tool):
    for path in ("/memories", "/memories/", "/memories/d/.."):
        with pytest.raises(ToolError, match="Cannot delete the /memories directory itself"):
            run(tool, "delete", path=path)
        with pytest.raises(ToolError, match="Cannot rename the /memories directory itself"):
            run(tool, "rename", old_path=path, new_path=B)
        with pytest.raises(ToolError, match="already exists"):
            run(tool, "create", path=path, file_text="x")


def test_an_empty_memory_shows_an_empty_root(tool):
    assert run(tool, "view", path="/memories").endswith("excluding hidden items:\n0B\t/memories")


def test_what_is_no_file_is_not_edited(tool):
    run(tool, "create", path=D, file_text="x")
    for command, more in (
        ("str_replace", {"old_str": "x", "new_str": "y"}),
        ("insert", {"insert_line": 0, "insert_text": "x"}),
    ):
        with pytest.raises(ToolError, match="The path /memories/d is not a file"):
            run(tool, command, path="/memories/d", **more)
    with pytest.raises(ToolError, match="through the document"):
        run(tool, "create", path=f"{D}/below", file_text="x")


def test_a_directory_is_renamed_and_deleted_whole(tool):
    run(tool, "create", path=D, file_text="x")
    run(tool, "rename", old_path="/memories/d", new_path="/memories/e/f")
    assert tool.documents.list() == ["/memories/e/f/c.txt"]
    run(tool, "delete", path="/memories/e")
    assert tool.documents.list() == []


def test_a_file_larger_than_a_document_or_with_too_many_lines_is_refused(tool):
    with pytest.raises(ToolError, match="more than one item holds"):
        run(tool, "create", path=A, file_text="x" * (1 << 20) + "x")
    run(tool, "create", path=A, file_text="\n" * 1_000_000)
    with pytest.raises(ToolError, match="exceeds maximum line limit of 999,999 lines"):
        run(tool, "view", path=A)


def test_every_version_stays_and_files_are_searched_with_the_rest_of_the_memory(open_memory):
    tool = MemkitMemoryTool(open_memory())
    run(tool, "create", path="/memories/ana.md", file_text="Ana eats peanuts.")
    run(tool, "str_replace", path="/memories/ana.md", old_str="eats", new_str="is allergic to")
    again = open_memory()
    assert again.search("peanuts", limit=1)[0].text == "Ana is allergic to peanuts."
    assert [version.text for version in Documents(again).history("/memories/ana.md")] == [
        "Ana eats peanuts.",
        "Ana is allergic to peanuts.",
    ]


@pytest.mark.parametrize(
    "name", ["ana@example.org", "日本 語.md", "a.b.c", "x" * 1000, "%2e%2e", "back\\slash", "'; DROP"]
)
def test_names_of_any_characters_are_kept(tool, name):
    run(tool, "create", path=f"/memories/{name}", file_text="x")
    assert run(tool, "view", path="/memories").endswith(f"\t/memories/{name}")


def test_users_have_files_of_their_own(memory):
    ana, ben = (MemkitMemoryTool(memory.scope(user_id=user)) for user in ("ana", "ben"))
    run(ana, "create", path=A, file_text="ana's")
    run(ben, "create", path=A, file_text="ben's")
    ana.clear_all_memory()
    assert run(ben, "view", path=A).endswith("\tben's")
    assert ana.documents.list() == []


async def test_the_async_tool_and_threads_edit_one_file_and_lose_nothing(open_memory):
    tool, other = AsyncMemkitMemoryTool(open_memory()), MemkitMemoryTool(open_memory())
    await tool.call({"command": "create", "path": A, "file_text": ""})
    threads = [
        threading.Thread(
            target=run, args=(other, "insert"), kwargs={"path": A, "insert_line": 0, "insert_text": f"t{n}"}
        )
        for n in range(10)
    ]
    for thread in threads:
        thread.start()
    inserts = ({"command": "insert", "path": A, "insert_line": 0, "insert_text": f"l{n}"} for n in range(10))
    await asyncio.gather(*map(tool.call, inserts))
    for thread in threads:
        thread.join()
    lines = other.documents.read(A).split("\n")
    assert sorted(lines) == sorted(["", *(f"{who}{n}" for who in "tl" for n in range(10))])


async def test_the_async_tool_does_what_the_other_does(memory):
    tool = AsyncMemkitMemoryTool(memory, cache_control={"type": "ephemeral"})
    assert tool.to_dict() == {"type": "memory_20250818", "name": "memory", "cache_control": {"type": "ephemeral"}}
    for one in (
        {"command": "create", "path": A, "file_text": "one"},
        {"command": "str_replace", "path": A, "old_str": "one", "new_str": "two"},
        {"command": "rename", "old_path": A, "new_path": B},
    ):
        await tool.call(one)
    assert (await tool.call({"command": "view", "path": B})).endswith("     1\ttwo")
    assert await tool.call({"command": "delete", "path": B}) == f"Successfully deleted {B}"
    assert await tool.clear_all_memory() == "All memory cleared"
