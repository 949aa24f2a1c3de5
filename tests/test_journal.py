"""A journal gives back what was put in, in order, each entry to one caller only."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import embed

from memkit import Memory
from memkit.errors import InvalidInput
from memkit.journal import MAX_DEPTH, WORDLESS, Journal, words

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
SAME_FILE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = ["a", "a/b", "a.b", "ana@example.org", "'; DROP TABLE x", "日本語 😀", "$where", "x" * 1000, '["a"]']


def same(left, right) -> bool:
    """Equal, and of the same types: 1 is neither 1.0 nor True."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@SAME_FILE
@given(values=st.lists(VALUES, max_size=5))
def test_values_come_back_as_they_were_in_order(memory, values):
    journal = Journal(memory, "any")
    journal.clear()
    journal.append(copy.deepcopy(values))
    assert same(journal.read(), values)
    assert len(journal) == len(values)


@SAME_FILE
@given(data=st.data())
def test_a_journal_is_a_list_that_is_appended_to_popped_and_cleared(memory, data):
    journal, model = Journal(memory, "model"), []
    journal.clear()
    for step in data.draw(st.lists(st.sampled_from(["append", "append", "pop", "clear", "read"]), max_size=12)):
        if step == "append":
            more = data.draw(st.lists(st.integers(), max_size=3))
            journal.append(more)
            model += more
        elif step == "pop" and model:
            assert journal.pop() == model.pop()
        elif step == "clear":
            assert journal.clear() == len(model)
            model = []
        limit = data.draw(st.none() | st.integers(0, 5))
        assert journal.read(limit) == (
            model if limit is None else model[len(model) - limit :] if limit < len(model) else model
        )


@pytest.mark.parametrize(
    "value",
    [2**200, {"": {"": None}}, "\ud83d half a character", {"\udc00": 1}, "\0", 1e308, -0.0, [[[]]], "", "   "],
    ids=ascii,
)
def test_what_metadata_cannot_hold_comes_back(memory, value):
    journal = Journal(memory, "odd")
    journal.append([value])
    assert same(journal.read(), [value])


def test_entries_survive_reopening(open_memory):
    Journal(open_memory(), "chat").append([{"n": 1}, {"n": 2}])
    assert Journal(open_memory(), "chat").read() == [{"n": 1}, {"n": 2}]


def test_journals_of_any_names_have_nothing_in_common(memory):
    for name in NAMES:
        Journal(memory, name).append([name])
    Journal(memory, NAMES[0]).clear()
    assert [Journal(memory, name).read() for name in NAMES[1:]] == [[name] for name in NAMES[1:]]


def test_the_same_name_and_key_in_two_scopes_are_two_entries(memory):
    ana, ben = (Journal(memory.scope(user_id=user), "chat") for user in ("ana", "ben"))
    ana.append(["ana's"], ["k"])
    ben.append(["ben's"], ["k"])
    assert ana.clear() == 1
    assert (ana.read(), ben.read()) == ([], ["ben's"])


def test_a_key_is_recorded_once_and_in_its_place(memory):
    journal = Journal(memory, "chat")
    journal.append([1, 2, 1], ["a", "b", "a"])
    journal.append([3, 1], [None, "a"])
    assert journal.read() == [1, 2, 3]
    journal.append([9], ["a"])
    assert journal.read() == [9, 2, 3]


def test_a_key_that_was_popped_is_recorded_anew_at_the_end(memory):
    journal = Journal(memory, "chat")
    journal.append([1, 2], ["a", "b"])
    journal.pop()
    journal.append([3], ["c"])
    journal.append([2], ["b"])
    assert journal.read() == [1, 3, 2]


def test_entries_are_ordinary_items_that_are_found_by_their_words(memory):
    journal = Journal(memory.scope(user_id="ana"), "chat", metadata={"project": "p"})
    journal.append(
        [{"role": "user", "content": [{"type": "input_text", "text": "The key is under the mat."}]}, {"n": 1}]
    )
    hit = memory.search("where is the key", user_id="ana", limit=1)[0]
    assert hit.text == "The key is under the mat."
    assert (hit.metadata["role"], hit.metadata["project"]) == ("user", "p")
    assert memory.list({"project": "p"}).items[1].text == WORDLESS


def test_words_are_what_is_said_and_else_every_string():
    call = {"type": "function_call", "name": "weather", "arguments": '{"city": "Lisbon"}', "call_id": "c1"}
    assert words(call) == '{"city": "Lisbon"}'
    assert words({"type": "tag", "value": "urgent"}) == "tag\nurgent"
    assert words([{"content": "a"}, {"content": ["b", "c"]}]) == "a\nb\nc"
    assert words({"type": "image", "content": "data:image/png;base64,AAAA"}) == "image"
    assert words({"n": [1, None, " "]}) == WORDLESS
    assert len(words({"text": "x" * 10**6})) == 100_000


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), float("nan"), float("inf"), b"bytes", {1: "a"}, 10**5000],
    ids=lambda v: type(v).__name__,
)
def test_what_is_not_json_is_refused_and_nothing_is_written(memory, value):
    journal = Journal(memory, "chat")
    with pytest.raises(InvalidInput, match="JSON"):
        journal.append(["fine", value])
    assert journal.read() == []


def test_a_value_too_deep_to_be_read_again_is_refused(memory):
    deep = None
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(InvalidInput, match="deeper than"):
        Journal(memory, "chat").append([deep])
    Journal(memory, "chat").append(deep)
    assert Journal(memory, "chat").read() == deep


def test_wrong_arguments_are_named(memory):
    with pytest.raises(InvalidInput, match="2 keys for 1 values"):
        Journal(memory, "chat").append([1], ["a", "b"])
    with pytest.raises(InvalidInput, match="limit=-1"):
        Journal(memory, "chat").read(-1)
    with pytest.raises(InvalidInput, match="name of a journal"):
        Journal(memory, "")
    with pytest.raises(IndexError, match="empty"):
        Journal(memory, "chat").pop()
    assert Journal(memory, "chat").append([]) == []


def test_two_handles_see_each_other_and_never_pop_the_same_entry(open_memory, tmp_path):
    first, second = (Journal(open_memory(), "queue") for _ in range(2))
    first.append(list(range(40)))
    popped = []

    def drain(journal):
        try:
            while True:
                popped.append(journal.pop())
        except IndexError:
            return

    threads = [threading.Thread(target=drain, args=(journal,)) for journal in (first, second, first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(popped) == list(range(40))


def pop_from_elsewhere(path, popped):
    with Memory(path, embedder=embed, durability="os") as memory:
        journal, mine = Journal(memory, "queue"), []
        while len(journal):
            with contextlib.suppress(IndexError):
                mine.append(journal.pop())
        popped.put(mine)


def test_processes_never_pop_the_same_entry(tmp_path):
    context = multiprocessing.get_context("spawn")
    popped = context.Queue()
    with Memory(tmp_path / "a.mem", embedder=embed, durability="os") as memory:
        Journal(memory, "queue").append(list(range(60)))
        others = [context.Process(target=pop_from_elsewhere, args=(tmp_path / "a.mem", popped)) for _ in range(2)]
        for process in others:
            process.start()
        taken = [one for _ in others for one in popped.get(timeout=60)]
        for process in others:
            process.join()
        assert sorted(taken) == list(range(60))
        assert len(Journal(memory, "queue")) == 0


def test_threads_that_append_at_once_lose_nothing_and_batches_stay_together(open_memory):
    handles = [Journal(open_memory(), "busy") for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: handles[n % 2].append([[n, 0], [n, 1], [n, 2]]), range(24)))
    values = handles[0].read()
    assert sorted(values) == [[n, part] for n in range(24) for part in range(3)]
    assert all([values[at + part][1] for part in range(3)] == [0, 1, 2] for at in range(0, len(values), 3))


def test_what_is_cleared_stays_in_the_history_until_it_is_erased(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=embed, durability="os") as memory:
        item = Journal(memory, "chat").append(["secret"])[0]
        Journal(memory, "chat").clear()
        assert [change.kind for change in memory.history(item.id)] == ["added", "deleted"]
        memory.erase({"journal": "chat"})
        assert memory.history(item.id) == []
