"""Documents are texts under paths, with versions, in a memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import meet

from memkit import Item
from memkit.documents import Documents
from memkit.errors import InvalidInput, ItemNotFound
from memkit.ingest import MAX_TEXT

SAME_FILE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PATHS = ["/a", "/b", "/d/e", "/d/f", "/d/g/h", "no slash", "ana@example.org", "日本 語.md", "a.b.c", "x" * 1000]


@pytest.fixture
def documents(memory):
    return Documents(memory)


@SAME_FILE
@given(text=TEXTS)
def test_a_text_comes_back_exactly(memory, text):
    documents = Documents(memory)
    documents.write("/a", text)
    assert documents.read("/a") == text
    assert documents.sizes() == {"/a": len(text.encode())}


@SAME_FILE
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write", "delete", "rename"]), st.sampled_from(PATHS), st.sampled_from(PATHS), TEXTS
        ),
        max_size=12,
    )
)
def test_documents_are_a_dict_of_paths(memory, steps):
    documents, model = Documents(memory), {}
    for path in documents.list():
        documents.delete(path)
    for step, path, other, text in steps:
        if step == "write":
            documents.write(path, text)
            model[path] = text
        elif step == "delete":
            assert documents.delete(path) == (path in model)
            model.pop(path, None)
        elif path in model and other not in model:
            assert documents.rename(path, other) == 1
            model[other] = model.pop(path)
    assert {path: documents.read(path) for path in documents.list()} == model
    assert documents.list() == sorted(model)


def test_documents_survive_reopening(open_memory):
    Documents(open_memory()).write("/a", "one")
    second = Documents(open_memory())
    second.write("/b", "")
    assert Documents(open_memory()).list() == ["/a", "/b"]
    assert second.read("/b") == ""


@pytest.mark.parametrize("path", PATHS)
def test_any_characters_make_a_path(documents, path):
    documents.create(path, "text")
    assert documents.list() == [path]
    assert documents.read(path) == "text"


def test_every_version_is_in_the_history(documents):
    documents.write("/a", "one")
    documents.write("/a", "one")
    documents.write("/a", "")
    documents.delete("/a")
    documents.create("/a", "two")
    assert [version.text for version in documents.history("/a")] == ["one", "", None, "two"]
    assert documents.history("/never") == []


def test_documents_are_found_by_meaning_and_words(documents):
    documents.write("/people/ana.md", "Ana is allergic to peanuts.")
    documents.write("/places.md", "The office is in Lisbon.")
    documents.memory.add("Peanuts are legumes.")
    hits = documents.search("peanuts", limit=5)
    assert hits[0].metadata["document"] == "/people/ana.md"
    assert len(hits) == 2


def test_a_scope_has_documents_of_its_own(memory):
    ana, ben = (Documents(memory.scope(user_id=user)) for user in ("ana", "ben"))
    ana.create("/a", "ana's")
    ben.create("/a", "ben's")
    assert ana.delete("/a") == 1
    assert (ana.list(), ben.read("/a")) == ([], "ben's")


def test_what_is_there_is_not_created_again(documents):
    documents.create("/d/a", "one")
    for path in ("/d/a", "/d"):
        with pytest.raises(InvalidInput, match="there already"):
            documents.create(path, "two")
    assert documents.read("/d/a") == "one"


def test_a_path_is_a_folder_or_a_document(documents):
    documents.create("/d/a", "one")
    with pytest.raises(InvalidInput, match="is a folder"):
        documents.write("/d", "two")
    with pytest.raises(InvalidInput, match="through the document '/d/a'"):
        documents.write("/d/a/b", "two")
    with pytest.raises(InvalidInput, match="through the document '/d/a'"):
        documents.create("/d/a/b/c", "two")


def test_a_folder_is_listed_moved_and_deleted_whole(documents):
    for path in ("/d/a", "/d/e/b", "/dd/c", "/z"):
        documents.write(path, path)
    assert documents.list("/d") == documents.list("/d/") == ["/d/a", "/d/e/b"]
    assert documents.rename("/d", "/x/y") == 2
    assert documents.list() == ["/dd/c", "/x/y/a", "/x/y/e/b", "/z"]
    assert documents.read("/x/y/e/b") == "/d/e/b"
    assert documents.delete("/x") == 2
    assert documents.delete("/x") == 0


def test_a_slash_at_the_end_of_a_folder_means_nothing(documents):
    documents.write("/d/a", "one")
    documents.rename("/d/", "/x")
    assert documents.list("/x/") == ["/x/a"]
    documents.rename("/x", "/d/e/")
    assert documents.list() == ["/d/e/a"]
    assert documents.delete("/d/") == 1


def test_a_rename_needs_something_here_and_nothing_there(documents):
    documents.write("/a/b", "one")
    documents.write("/c", "two")
    with pytest.raises(ItemNotFound, match="no document or folder"):
        documents.rename("/nothing", "/d")
    for old, new in (("/a/b", "/c"), ("/c", "/a"), ("/c", "/c")):
        with pytest.raises(InvalidInput, match="there already"):
            documents.rename(old, new)
    with pytest.raises(InvalidInput, match="lies within"):
        documents.rename("/a", "/a/d")
    with pytest.raises(InvalidInput, match="goes through"):
        documents.rename("/a", "/c/d")
    assert documents.list() == ["/a/b", "/c"]


def test_a_rename_keeps_when_it_happened(documents):
    before = documents.write("/a", "one")
    documents.rename("/a", "/b")
    assert documents.memory.list().items[0].occurred_at == before.occurred_at


def test_missing_documents_are_named(documents):
    with pytest.raises(ItemNotFound, match="no document '/a'"):
        documents.read("/a")
    with pytest.raises(ItemNotFound, match="no document '/a'"):
        documents.edit("/a", str.upper)
    assert "/a" not in documents


def test_a_text_longer_than_one_item_holds_is_refused(documents):
    documents.write("/a", "é" * (MAX_TEXT // 2))
    for text in ("é" * (MAX_TEXT // 2 + 1), " " * (MAX_TEXT + 1)):
        with pytest.raises(InvalidInput, match=f"'/b'.*{MAX_TEXT}.*split it"):
            documents.write("/b", text)
    assert documents.list() == ["/a"]


def test_text_that_is_no_text_is_refused(documents):
    with pytest.raises(InvalidInput, match="half a character"):
        documents.write("/a", "x\ud83d")
    with pytest.raises(InvalidInput, match="path of a document"):
        documents.write("", "x")


def test_an_edit_that_fails_changes_nothing(documents):
    documents.write("/a", "one")
    with pytest.raises(ZeroDivisionError):
        documents.edit("/a", lambda text: str(1 / 0))
    assert documents.edit("/a", str.upper) == "ONE"
    assert documents.read("/a") == "ONE"


def test_threads_on_two_handles_edit_one_document_and_lose_nothing(open_memory):
    handles = [Documents(open_memory()) for _ in range(2)]
    handles[0].write("/a", "start")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: handles[n % 2].edit("/a", lambda text: f"{text}\n{n}"), range(20)))
    assert sorted(handles[0].read("/a").split("\n")[1:], key=int) == [str(n) for n in range(20)]


def test_threads_that_create_one_document_make_it_once(open_memory):
    handles = [Documents(open_memory()) for _ in range(2)]

    def make(n):
        try:
            handles[n % 2].create("/a", str(n))
        except InvalidInput:
            return 0
        return 1

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(make, range(12))) == 1


# two processes on one file

ROUNDS = 60


def outcome(work, *args):
    """What a change returned, or the name of its refusal."""
    try:
        return work(*args)
    except (InvalidInput, ItemNotFound) as refusal:
        return type(refusal).__name__


def edit_often(memory):
    documents = Documents(memory)
    for _ in range(ROUNDS):
        documents.edit("/a", lambda text: f"{text}x")


def test_processes_edit_one_document_and_lose_nothing(processes, open_memory, tmp_path):
    documents = Documents(open_memory())
    documents.write("/a", "")
    processes(tmp_path / "a.mem", edit_often, edit_often)
    assert documents.read("/a") == 2 * ROUNDS * "x"
    assert [len(version.text) for version in documents.history("/a")] == list(range(2 * ROUNDS + 1))


def in_rounds(step, memory):
    """What a step does, by its round; each round begins in both processes together."""
    documents, done = Documents(memory), []
    for number in range(ROUNDS):
        meet()
        done.append(step(documents, f"/{number}"))
    return done


def create_file(documents, path):
    return isinstance(outcome(documents.create, path, "text"), Item)


def create_folder(documents, path):
    return isinstance(outcome(documents.create, f"{path}/a", "text"), Item)


def write_folder(documents, path):
    return isinstance(outcome(documents.write, f"{path}/b/c", "text"), Item)


@pytest.mark.parametrize(
    ("one", "other"), [(create_file, create_file), (create_file, create_folder), (write_folder, create_file)]
)
def test_of_processes_that_make_a_path_one_does(processes, open_memory, tmp_path, one, other):
    documents = Documents(open_memory())
    done = processes(tmp_path / "a.mem", partial(in_rounds, one), partial(in_rounds, other))
    assert [sorted(both) for both in zip(*done, strict=True)] == [[False, True]] * ROUNDS
    assert len(documents.list()) == documents.memory.stats().items == ROUNDS
    assert all(len(documents.history(path)) == 1 for path in documents.list())


def rename_old(documents, path):
    return outcome(documents.rename, f"{path}/old", f"{path}/new")


def write_old(documents, path):
    return documents.write(f"{path}/old/a", "theirs").text


def edit_old(documents, path):
    return outcome(documents.edit, f"{path}/old/a", lambda text: f"{text}, theirs")


def delete_old(documents, path):
    return documents.delete(f"{path}/old")


def write_below_new(documents, path):
    return isinstance(outcome(documents.write, f"{path}/new/a/b", "theirs"), Item)


@pytest.mark.parametrize("other", [write_old, edit_old, delete_old, write_below_new])
def test_a_rename_is_before_or_after_what_another_process_does(processes, open_memory, tmp_path, other):
    documents = Documents(open_memory())
    for number in range(ROUNDS):
        documents.write(f"/{number}/old/a", "mine")
    done = processes(tmp_path / "a.mem", partial(in_rounds, rename_old), partial(in_rounds, other))
    for number, (renamed, theirs) in enumerate(zip(*done, strict=True)):
        texts = {path.removeprefix(f"/{number}"): documents.read(path) for path in documents.list(f"/{number}")}
        assert (renamed, theirs, texts) in EITHER_ORDER[other]


EITHER_ORDER = {  # what the rename gave, what the other one gave, and what is there then
    write_old: [
        (1, "theirs", {"/new/a": "theirs"}),
        (1, "theirs", {"/new/a": "mine", "/old/a": "theirs"}),
    ],
    edit_old: [
        (1, "mine, theirs", {"/new/a": "mine, theirs"}),
        (1, "ItemNotFound", {"/new/a": "mine"}),
    ],
    delete_old: [
        (1, 0, {"/new/a": "mine"}),
        ("ItemNotFound", 1, {}),
    ],
    write_below_new: [
        (1, False, {"/new/a": "mine"}),
        ("InvalidInput", True, {"/old/a": "mine", "/new/a/b": "theirs"}),
    ],
}
