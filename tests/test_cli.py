"""The command line: every verb for people and for programs, exit codes, and output that is only output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import memkit
from memkit.cli import app

ROOT = Path(__file__).parent.parent
VERBS = "add import search recall list get history update delete erase feedback export merge consolidate bands rollback mcp verify repair rebuild compact stats demo".split()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call `memkit ARGS`; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")

    def call(*args: str, text: str | None = None) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, list(args), input=text)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return call


@pytest.fixture
def data(run):
    """As `run`, for what must succeed: the JSON document that --json prints."""

    def call(*args: str, text: str | None = None):
        code, stdout, stderr = run(*args, "--json", text=text)
        assert code == 0, stderr
        assert len(stdout.splitlines()) == 1
        return json.loads(stdout)

    return call


@pytest.fixture
def filled(data):
    """A file with three items of two users."""
    data("add", "a.mem", "I moved to Lisbon in May.", "--user", "ana", "--id", "home", "--metadata", '{"n": 1}')
    data("add", "a.mem", "My dog is called Biscuit.", "--user", "ana", "--occurred-at", "2026-05-01")
    data("add", "a.mem", "Bob likes chess.", "--user", "bob")
    return "a.mem"


def test_add_says_what_was_new(run, data):
    assert data("add", "a.mem", "one", "two")["added"] == 2
    assert data("add", "a.mem", "x", "--id", "k")["ids"] == ["k"]
    assert data("add", "a.mem", "x", "--id", "k")["known"] == 1
    assert data("add", "a.mem", "-", text="from stdin")["added"] == 1
    assert run("add", "a.mem", "three")[1].startswith("1 added")


def test_search_recall_list_get_and_history(run, data, filled):
    assert data("search", filled, "where does she live?", "--user", "ana")[0]["id"] == "home"
    assert {"words", "meaning_weight"} <= data("search", filled, "Lisbon", "--explain")[0]["signals"].keys()
    assert data("search", filled, "chess", "--where", '{"user_id": "ana"}', "--mode", "text") == []
    assert "Lisbon" in data("recall", filled, "where does Ana live?")["text"]
    assert [item["user_id"] for item in data("list", filled)["items"]] == ["ana", "ana", "bob"]
    assert data("get", filled, "home")["metadata"] == {"n": 1}
    assert [change["kind"] for change in data("history", filled, "home")] == ["added"]
    for args in (["search", filled, "Lisbon"], ["recall", filled, "Lisbon"], ["list", filled], ["get", filled, "home"]):
        code, stdout, stderr = run(*args)
        assert (code, stderr) == (0, "")
        assert "Lisbon" in stdout
    assert "added" in run("history", filled, "home")[1]


def test_pages_and_lines(run, data, filled):
    page = data("list", filled, "--limit", "2")
    rest = data("list", filled, "--limit", "2", "--cursor", page["cursor"])
    assert len(page["items"] + rest["items"]) == 3
    lines = run("list", filled, "--all", "--json")[1].splitlines()
    assert [json.loads(line)["id"] for line in lines] == [item["id"] for item in page["items"] + rest["items"]]


def test_update_delete_and_time_travel(run, data, filled):
    before = data("get", filled, "home")["updated_at"]
    data("update", filled, "home", "I moved to Porto.")
    assert data("get", filled, "home", "--at", before)["text"] == "I moved to Lisbon in May."
    assert data("delete", filled, "home")["deleted"] == 1
    assert run("delete", filled, "home")[0] == 1
    assert run("get", filled, "home")[0] == 1
    assert [change["kind"] for change in data("history", filled, "home")] == ["added", "updated", "deleted"]
    assert data("delete", filled, "--user", "bob")["deleted"] == 1
    assert run("delete", filled)[0] == 2


def test_update_by_filter_gives_all_that_match_the_metadata(run, data, filled):
    new = ["--metadata", '{"seen": true}']
    assert data("update", filled, "--where", "{}", "--user", "ana", *new)["updated"] == 2
    assert [item["metadata"] for item in data("list", filled)["items"]] == [{"seen": True}] * 2 + [{}]
    assert run("update", filled, "--where", '{"seen": true}', "--metadata", "{}")[1] == "2 updated\n"
    for unusable in (new, ["home", "--where", "{}", *new], ["--where", "{}"], ["--where", "{}", *new]):
        assert run("update", filled, *unusable)[0] == 2


def test_export_merge_and_lines_make_the_same_memory(run, data, filled):
    assert data("export", filled, "copy.mem")["items"] == 3
    assert data("merge", "merged.mem", "copy.mem")["added"] == 3
    same = ("id", "text", "user_id", "occurred_at", "created_at", "metadata")
    items = [{name: item[name] for name in same} for item in data("list", filled)["items"]]
    assert [{name: item[name] for name in same} for item in data("list", "merged.mem")["items"]] == items
    run("export", filled, "rows.jsonl", "--jsonl")
    data("add", "lines.mem", "--from", "rows.jsonl")
    assert [item["text"] for item in data("list", "lines.mem")["items"]] == [item["text"] for item in items]
    assert run("export", filled, "copy.mem")[0] == 2


def test_erase_asks_and_gives_a_receipt(run, data, filled):
    code, _, stderr = run("erase", filled, "--user", "ana")
    assert code == 2
    assert "--yes" in stderr
    assert run("erase", filled, "--yes")[0] == 2
    receipt = data("erase", filled, "--user", "ana", "--yes", "--reason", "asked")
    assert (receipt["items"], receipt["checked"], receipt["reason"]) == (2, True, "asked")
    assert data("stats", filled)["users"] == {"bob": 1}
    assert b"Lisbon" not in Path(filled).read_bytes()


def test_verify_repair_rebuild_compact_and_stats(run, data, filled):
    report = data("verify", filled)
    assert report["ok"]
    assert data("verify", filled, "--head", report["head"])["ok"]
    assert data("compact", filled)["events"] == 3
    assert data("rebuild", filled)["items"] == 3
    assert data("repair", filled)["actions"] == []
    whole = Path(filled).read_bytes()
    Path(filled).write_bytes(whole[:-10])
    assert run("verify", filled)[0] == 1
    assert "DAMAGED" in run("verify", filled)[1]
    assert data("repair", filled, "--dry-run")["actions"]
    assert Path(filled).read_bytes() == whole[:-10]
    data("repair", filled)
    assert data("verify", filled)["ok"]
    assert "items" in run("stats", filled)[1]


@pytest.mark.parametrize(
    ("args", "code", "hint"),
    [
        (["search", "none.mem", "x"], 2, "none.mem"),
        (["list", "none.mem"], 2, "none.mem"),
        (["verify", "none.mem"], 2, "none.mem"),
        (["merge", "new.mem", "none.mem"], 2, "none.mem"),
        (["add", "a.mem", ""], 2, "empty"),
        (["add", "a.mem"], 2, "nothing to add"),
        (["add", ".", "x"], 2, "directory"),
        (["add", "a.mem", "x", "--metadata", "{"], 2, "metadata"),
        (["add", "a.mem", "x", "--occurred-at", "soon"], 2, "soon"),
        (["add", "a.mem", "--from", "nowhere"], 2, "nowhere"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(run, args, code, hint):
    done = run(*args)
    assert (done[0], done[1]) == (code, "")
    assert done[2].startswith("memkit: ")
    assert hint in done[2]
    assert not Path("none.mem").exists()
    as_json = run(*args, "--json")
    assert json.loads(as_json[2])["error"]["message"]
    assert as_json[1] == ""


def test_a_broken_record_stops_an_import_or_is_skipped(run, data):
    Path("chat.jsonl").write_text('{"role": "user", "content": "hi"}\n{broken\n{"role": "user", "content": "ho"}\n')
    code, _, stderr = run("add", "a.mem", "--from", "chat.jsonl")
    assert code == 2
    assert "line 2" in stderr
    report = data("add", "a.mem", "--from", "chat.jsonl", "--skip-broken")
    assert (report["added"], len(report["broken"])) == (2, 1)
    assert data("add", "a.mem", "--from", "chat.jsonl", "--skip-broken")["known"] == 2


def test_a_directory_goes_in_once(data):
    Path("notes").mkdir()
    Path("notes/a.md").write_text("# Trip\n\nThe ferry leaves at 07:40.")
    Path("notes/b.txt").write_text("Buy oat milk.")
    assert data("add", "a.mem", "--from", "notes")["added"] == 2
    assert data("add", "a.mem", "--from", "notes")["added"] == 0
    assert data("search", "a.mem", "when does the ferry leave?")[0]["metadata"]["source"].endswith("a.md")


def test_an_interrupted_import_is_taken_up_again(data, tmp_path):
    lines = (json.dumps({"text": f"row number {i} with words of its own"}) for i in range(3000))
    Path("rows.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-c", "from memkit.cli import main; main()"]
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage"))
    child = subprocess.Popen(
        [*command, "add", "a.mem", "--from", "rows.jsonl"],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (Path("a.mem").exists() and Path("a.mem").stat().st_size > 150_000):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "same command again" in stderr
    there = data("stats", "a.mem")["items"]
    assert 0 < there < 3000
    again = data("add", "a.mem", "--from", "rows.jsonl")
    assert (again["known"], again["added"]) == (there, 3000 - there)


def test_one_file_can_be_imported_for_two_users(data):
    Path("notes.txt").write_text("the boat is blue")
    for user in ("ana", "bob", "ana"):
        data("add", "a.mem", "--from", "notes.txt", "--user", user)
    assert data("stats", "a.mem")["users"] == {"ana": 1, "bob": 1}


def test_one_chat_with_ids_of_its_own_can_be_imported_for_two_users(data):
    Path("chat.json").write_text(json.dumps({"id": "c", "messages": [{"role": "user", "content": "hi", "id": "m1"}]}))
    for user in ("ana", "bob", "ana", "bob"):
        data("add", "a.mem", "--from", "chat.json", "--user", user)
    assert data("stats", "a.mem")["users"] == {"ana": 1, "bob": 1}


def test_an_id_on_the_command_line_is_not_taken_from_another_user(run):
    run("add", "a.mem", "tea", "--id", "1", "--user", "ana")
    code, _, stderr = run("add", "a.mem", "tea", "--id", "1", "--user", "bob")
    assert (code, "in use outside the scope" in stderr) == (2, True)


def test_feedback_moves_what_helped_to_the_top(data, filled):
    others = [hit["id"] for hit in data("search", filled, "where does she live?", "--user", "ana")]
    data("feedback", filled, "where does she live?", "--used", others[-1], "--user", "ana")
    assert data("search", filled, "where does she live?", "--user", "ana")[0]["id"] == others[-1]


def test_the_demo_does_the_whole_job(run, data):
    code, stdout, _ = run("demo")
    assert code == 0
    assert "9 of 9" in stdout
    assert run("demo")[0] == 2
    report = data("demo", "--force")
    assert (report["added"], report["found"], report["verified"]) == (111, 9, True)
    assert data("verify", "demo-nora.mem")["ok"]


def test_help_names_every_verb_and_the_exit_codes(run):
    code, stdout, _ = run("--help")
    assert code == 0
    assert all(verb in stdout for verb in VERBS)
    assert "Exit codes" in stdout
    assert run("--version")[1].strip() == f"memkit {memkit.__version__}"


def test_the_verbs_are_all_there_and_documented():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names == set(VERBS)
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert all(re.search(rf"memkit {verb}\b", page) for verb in VERBS)


def test_starting_up_imports_nothing_heavy():
    code = "import memkit.cli, sys; print([m for m in ('numpy', 'pyarrow', 'pydantic', 'torch', 'lancedb') if m in sys.modules])"
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage"))
    env = {**os.environ, "PYTHONPATH": paths}
    assert (
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
