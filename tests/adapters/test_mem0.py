"""The drop-in against the real mem0ai (offline, with fakes for its embedder and model), and what Mem0 does not have."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from mem0_support import real_memory  # isort: skip: sets what mem0 reads when it is imported
from mem0.configs.base import MemoryConfig
from support import embed

import memkit
from memkit.errors import CallableFailed, InvalidFilter, InvalidInput
from memkit_adapters.mem0 import AsyncMemory, Memory, MemoryNotFound, ValidationError

ANA = {"user_id": "ana"}
SAID = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "I drink green tea", "name": "Ana"},
    {"role": "assistant", "content": "Noted: green tea"},
]


@pytest.fixture
def ours(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=embed) as memory:
        yield memory


@pytest.fixture
def theirs(tmp_path):
    memory = real_memory(tmp_path / "mem0")
    yield memory
    memory.vector_store.client.close()
    memory.close()


def shape(value):
    """The keys and types of a value, without what differs from run to run."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items() if key != "score_details"}
    if isinstance(value, list):
        return sorted((shape(inner) for inner in value), key=in_order)
    return type(value).__name__


OWN = ("id", "memory_id", "score", "score_details", "created_at", "updated_at")


def told(value):
    """A value without what each store makes up for itself, lists in one order."""
    if isinstance(value, dict):
        return {key: told(inner) for key, inner in value.items() if key not in OWN}
    return sorted((told(inner) for inner in value), key=in_order) if isinstance(value, list) else value


def in_order(value):
    return json.dumps(value, sort_keys=True)


# the same calls give the same dicts


def test_verbatim_add_get_and_listing_give_the_dicts_of_mem0(ours, theirs):
    answers = []
    for memory in (ours, theirs):
        added = memory.add(SAID, **ANA, metadata={"kind": "drink", "n": 1}, expiration_date="2999-01-01", infer=False)
        one = memory.get(added["results"][0]["id"])
        answers.append([added, one, memory.get_all(filters=ANA), memory.search("green tea", filters=ANA, explain=True)])
    assert [told(value) for value in answers[0]] == [told(value) for value in answers[1]]
    assert shape(answers[0]) == shape(answers[1])


def test_update_delete_and_history_give_the_dicts_of_mem0(ours, theirs):
    answers = []
    for memory in (ours, theirs):
        name = memory.add(SAID[1], **ANA, metadata={"kind": "drink"}, infer=False)["results"][0]["id"]
        done = [memory.update(name, "I drink coffee", metadata={"n": 2}), memory.get(name), memory.delete(name)]
        answers.append([*done, memory.get(name), memory.history(name)])
    assert [told(value) for value in answers[0]] == [told(value) for value in answers[1]]
    assert shape(answers[0]) == shape(answers[1])


def test_history_is_in_the_order_of_mem0(ours):
    name = ours.add("tea", **ANA)["results"][0]["id"]
    ours.update(name, data="coffee")
    ours.delete(name)
    assert [(one["event"], one["old_memory"], one["new_memory"]) for one in ours.history(name)] == [
        ("ADD", None, "tea"),
        ("UPDATE", "tea", "coffee"),
        ("DELETE", "coffee", None),
    ]


def test_inferred_facts_give_the_dicts_of_mem0(tmp_path, theirs):
    def llm(prompt):
        return 'Sure: {"facts": ["Ana drinks green tea"]}'

    with Memory(tmp_path / "a.mem", embedder=embed, llm=llm) as ours:
        answers = [[memory.add(SAID, **ANA), memory.add(SAID, **ANA)] for memory in (ours, theirs)]
    assert [told(value) for value in answers[0]] == [told(value) for value in answers[1]]


@pytest.mark.parametrize(
    "call",
    [
        lambda memory: memory.search("tea", filters={}),
        lambda memory: memory.search("  ", filters=ANA),
        lambda memory: memory.search("tea", filters=ANA, threshold=1.5),
        lambda memory: memory.search("tea", filters=ANA, top_k=-1),
        lambda memory: memory.search("tea", filters={**ANA, "n": {"near": 1}}),
        lambda memory: memory.search("tea", filters={**ANA, "OR": []}),
        lambda memory: memory.get_all(filters=None),
        lambda memory: memory.delete("none"),
        lambda memory: memory.update("none", "x"),
        lambda memory: memory.update("none"),
        lambda memory: memory.delete_all(),
        lambda memory: memory.add("x", user_id="a b"),
        lambda memory: memory.add("x", **ANA, expiration_date="soon"),
    ],
)
def test_what_mem0_refuses_with_a_value_error_is_refused_so(ours, theirs, call):
    ours.add("tea", **ANA)
    for memory in (theirs, ours):
        with pytest.raises(ValueError, match=r"."):
            call(memory)


def test_validation_errors_carry_mem0_codes(ours, theirs):
    calls = [({}, "tea"), ({**ANA, "memory_type": "x"}, "tea"), (ANA, 3)]
    for number, (options, messages) in enumerate(calls, 1):
        for memory in (ours, theirs):
            with pytest.raises(Exception, match=r".") as raised:
                memory.add(messages, **options)
            assert raised.value.error_code == f"VALIDATION_00{number}"
            assert raised.value.suggestion


FILTERS = [
    {"n": 1},
    {"n": {"eq": 2}},
    {"n": {"gt": 1}},
    {"n": {"gte": 1, "lt": 3}},
    {"n": {"in": [1, 3]}},
    {"n": [1, 3]},
    {"kind": {"nin": ["a"]}},
    {"kind": {"ne": "a"}},
    {"kind": {"contains": "cb"}},  # Qdrant's local store looks for whole words, memkit for any part
    {"AND": [{"n": {"gt": 1}}, {"kind": "b"}]},
    {"OR": [{"n": 1}, {"kind": "b"}]},
    {"NOT": [{"n": 1}, {"kind": "b"}]},
    {"n": {"gt": 1}, "NOT": [{"n": 3}]},
]


def filled(memory):
    for n, kind in ((1, "a"), (2, "b"), (3, "cb")):
        memory.add(f"tea {n}", **ANA, metadata={"n": n, "kind": kind}, infer=False)
    memory.add("tea 9", user_id="bo", metadata={"n": 1, "kind": "a"}, infer=False)
    return memory


@pytest.mark.parametrize("filters", FILTERS, ids=json.dumps)
def test_filters_choose_what_mem0_on_qdrant_chooses(ours, theirs, filters):
    found = [
        {one["memory"] for one in filled(memory).search("tea", filters={**ANA, **filters}, threshold=0.0)["results"]}
        for memory in (ours, theirs)
    ]
    assert found[0] == found[1]
    assert {one["memory"] for one in ours.get_all(filters={**ANA, **filters})["results"]} == found[0]


# what Mem0 lacks


def test_calls_of_mem0_1_are_taken(ours):
    filled(ours)
    assert len(ours.search("tea", user_id="ana", limit=2)["results"]) == 2
    assert len(ours.get_all(user_id="ana", limit=2)["results"]) == 2
    assert ours.get_all(user_id="bo")["results"][0]["memory"] == "tea 9"
    assert ours.search("tea", user_id="ana", filters={"n": 3})["results"][0]["memory"] == "tea 3"


def test_each_style_has_its_defaults(ours):
    ours.memory.add([f"tea {number}" for number in range(150)], user_id="ana")
    assert len(ours.get_all(user_id="ana")["results"]) == len(ours.search("tea", user_id="ana")["results"]) == 100
    assert len(ours.get_all(filters=ANA)["results"]) == len(ours.search("tea", filters=ANA)["results"]) == 20
    ours.memory.add("nothing of the kind", user_id="bo")
    assert len(ours.search("tea", user_id="bo")["results"]) == 1
    assert ours.search("tea", filters={"user_id": "bo"}, threshold=1)["results"] == []


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"AND": [{"OR": [{"n": 1}, {"NOT": [{"kind": {"icontains": "B"}}]}]}]}, {1}),
        ({"kind": {"icontains": "CB"}}, {3}),
        ({"NOT": {"kind": {"icontains": "B"}}}, {1}),
        ({"AND": [{"n": {"ne": 1}}, {"n": {"ne": 2}}]}, {3}),
        ({"kind": "*"}, {1, 2, 3}),
        ({"absent": "*"}, set()),
        ({"data": {"contains": "2"}}, {2}),
        ({"data": {"icontains": "TEA 2"}}, {2}),
        ({"deep.tags": {"icontains": "x"}}, set()),
        ({"OR": [{"user_id": "bo"}]}, set()),
        ({"created_at": {"gte": "2020-01-01"}}, {1, 2, 3}),
    ],
    ids=str,
)
def test_filters_nest_and_ignore_case(ours, filters, wanted):
    found = filled(ours).get_all(filters={**ANA, **filters})["results"]
    assert {one["metadata"]["n"] for one in found} == wanted


def test_icontains_looks_into_nested_values_and_lists(ours):
    ours.add("x", **ANA, metadata={"deep": {"a.b": "Green Tea"}, "tags": ["Paris", 3]})
    for filters in ({"deep.a.b": {"icontains": "green"}}, {"tags": {"icontains": "PARIS"}}):
        assert len(ours.get_all(filters={**ANA, **filters})["results"]) == 1


@pytest.mark.parametrize("filters", [{"hash": "x"}, {"n": {"icontains": 3}}, {"n": {}, "x": {"~": 1}}, ["n"]])
def test_a_filter_that_means_nothing_is_refused(ours, filters):
    with pytest.raises(InvalidFilter):
        ours.get_all(filters=filters, user_id="ana")


def test_a_wildcard_scope_means_every_user(ours):
    assert len(filled(ours).get_all(filters={"user_id": "*"})["results"]) == 4


def test_a_timestamp_is_kept(ours):
    when = datetime(2024, 5, 1, tzinfo=UTC)
    for stamp in (when, when.timestamp(), when.isoformat()):
        name = ours.add("moved", **ANA, timestamp=stamp)["results"][0]["id"]
        assert ours.get(name)["created_at"] == ours.get(name)["updated_at"] == when.isoformat()
        assert ours.memory.get(name).occurred_at == when


def test_what_has_expired_is_hidden_until_it_is_asked_for(ours):
    yesterday, today = ((datetime.now(UTC) - timedelta(days=days)).date() for days in (1, 0))
    ours.add("old tea", **ANA, expiration_date=yesterday)
    name = ours.add("new tea", **ANA, expiration_date=today.isoformat())["results"][0]["id"]
    assert [one["memory"] for one in ours.get_all(filters=ANA)["results"]] == ["new tea"]
    assert [one["memory"] for one in ours.search("tea", filters=ANA, threshold=0)["results"]] == ["new tea"]
    assert len(ours.get_all(filters=ANA, show_expired=True)["results"]) == 2
    ours.update(name, expiration_date=None)
    assert "expiration_date" not in ours.get(name)


def test_metadata_cannot_say_whose_a_memory_is(ours):
    name = ours.add("tea", **ANA, metadata={"user_id": "bo", "actor_id": "x", "k": 1})["results"][0]["id"]
    ours.update(name, metadata={"run_id": "r", "k": 2})
    assert (ours.get(name)["user_id"], ours.get(name)["metadata"]) == ("ana", {"k": 2})
    assert "run_id" not in ours.get(name)


def test_users_are_isolated(ours):
    filled(ours)
    ours.delete_all(user_id="ana")
    assert ours.get_all(filters=ANA)["results"] == ours.search("tea", filters=ANA)["results"] == []
    assert len(ours.get_all(filters={"user_id": "bo"})["results"]) == 1


def test_reset_leaves_nothing(ours):
    name = filled(ours).add("last", **ANA)["results"][0]["id"]
    ours.reset()
    assert ours.get_all(filters={"user_id": "*"})["results"] == ours.history(name) == []


def test_a_procedure_is_one_memory(ours):
    found = ours.add(SAID, agent_id="bot", memory_type="procedural_memory")["results"]
    assert [one["memory"] for one in found] == ["user: I drink green tea\nassistant: Noted: green tea"]
    assert ours.get(found[0]["id"])["metadata"] == {"memory_type": "procedural_memory"}


def test_a_procedure_is_summed_up_by_the_model(tmp_path):
    answers = iter(["Asked for tea; noted.", " "])
    with Memory(tmp_path / "a.mem", embedder=embed, llm=lambda prompt: next(answers)) as ours:
        found = ours.add(SAID, agent_id="bot", memory_type="procedural_memory")["results"]
        assert [one["memory"] for one in found] == ["Asked for tea; noted."]
        with pytest.raises(CallableFailed):
            ours.add(SAID, agent_id="bot", memory_type="procedural_memory")


def test_messages_without_words_are_skipped(ours):
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    parts = {"role": "user", "content": [{"type": "text", "text": "tea"}]}
    blank = {"role": "assistant", "content": " "}
    found = ours.add([{"role": "user"}, {"content": "x"}, blank, picture, parts], **ANA)["results"]
    assert [one["memory"] for one in found] == ["tea"]
    assert ours.add("", **ANA) == {"results": []}


# the language model


def test_facts_that_are_known_are_not_added_twice(tmp_path):
    seen = []

    def llm(prompt):
        seen.append(prompt)
        return json.dumps({"memory": [{"text": "Ana likes tea"}, {"text": "Ana likes tea"}, {"text": " "}]})

    with Memory(tmp_path / "a.mem", embedder=embed, llm=llm) as ours:
        assert len(ours.add(SAID, **ANA, prompt="Be brief.")["results"]) == 1
        assert ours.add(SAID, **ANA)["results"] == []
        assert len(ours.add(SAID, user_id="bo")["results"]) == 1
        assert len(ours.add(SAID, **ANA, infer=False)["results"]) == 2
    assert "Ana: I drink green tea" in seen[0]
    assert "Be brief." in seen[0]
    assert "be kind" not in seen[0]


def test_a_fact_that_was_changed_or_deleted_is_added_when_it_is_told_again(tmp_path):
    with Memory(tmp_path / "a.mem", embedder=embed, llm=lambda prompt: '{"facts": ["Ana likes tea"]}') as ours:
        first = ours.add(SAID, **ANA)["results"][0]["id"]
        ours.update(first, "Ana likes coffee")
        second = ours.add(SAID, **ANA)["results"][0]["id"]
        ours.delete(second)
        third = ours.add(SAID, **ANA)["results"][0]["id"]
        assert len({first, second, third}) == 3
        assert ours.get(first)["memory"] == "Ana likes coffee"
        assert ours.get(third)["memory"] == "Ana likes tea"
        assert [one["event"] for one in ours.history(second)] == ["ADD", "DELETE"]


@pytest.mark.parametrize("answer", ["no json", '{"facts": 3}', '{"facts": [3]}', '{"facts": [', 7])
def test_an_answer_that_cannot_be_used_adds_nothing(tmp_path, answer):
    with Memory(tmp_path / "a.mem", embedder=embed, llm=lambda prompt: answer) as ours:
        with pytest.raises(CallableFailed, match="llm answered"):
            ours.add(SAID, **ANA)
        assert ours.get_all(filters=ANA)["results"] == []


def test_a_model_that_fails_adds_nothing(tmp_path):
    def llm(prompt):
        raise TimeoutError("too late")

    with Memory(tmp_path / "a.mem", embedder=embed, llm=llm) as ours:
        with pytest.raises(CallableFailed, match="too late"):
            ours.add(SAID, **ANA)
        assert ours.memory.verify().ok


# files


def test_a_config_of_mem0_says_where_the_file_is(tmp_path):
    config = {
        "vector_store": {"provider": "qdrant", "config": {"path": str(tmp_path / "q"), "collection_name": "work"}},
        "llm": {"provider": "openai", "config": {}},
    }
    with Memory.from_config(config, embedder=embed) as ours:
        ours.add("tea", **ANA)
    assert (tmp_path / "q" / "work.mem").exists()
    with Memory(config, embedder=embed) as again:
        assert len(again.get_all(filters=ANA)["results"]) == 1


def test_a_config_object_and_the_path_of_a_file_are_taken_too(tmp_path):
    config = MemoryConfig(vector_store={"provider": "qdrant", "config": {"path": str(tmp_path / "q")}})
    for given, file in ((config, "q/mem0.mem"), ({"vector_store": {"config": {"path": tmp_path / "x.mem"}}}, "x.mem")):
        with Memory(given, embedder=embed) as ours:
            ours.add("tea", **ANA)
        assert (tmp_path / file).is_file()


def test_without_a_config_the_file_is_where_mem0_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MEM0_DIR", str(tmp_path / "home"))
    with Memory(embedder=embed) as ours:
        ours.add("tea", **ANA)
    assert (tmp_path / "home" / "memory.mem").exists()


def test_an_open_memory_is_shared(memory):
    ours = Memory(memory)
    name = memory.add("green tea", user_id="ana", metadata={"kind": "drink"})[0].id
    assert ours.get(name)["metadata"] == {"kind": "drink"}
    assert isinstance(ours.memory, memkit.Memory)


async def test_the_awaited_memory_gives_the_same_dicts_and_closes_the_file(tmp_path):
    async with AsyncMemory(tmp_path / "a.mem", embedder=embed) as awaited:
        await awaited.add("tea", **ANA)
        found = await awaited.search("tea", filters=ANA)
        assert found == awaited.sync.search("tea", filters=ANA)
        assert [one["memory"] for one in found["results"]] == ["tea"]


def test_updates_of_two_threads_are_merged(ours):
    name = ours.add("tea", **ANA)["results"][0]["id"]
    threads = [threading.Thread(target=ours.update, args=(name,), kwargs={"metadata": {key: 1}}) for key in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ours.get(name)["metadata"]) == set("abcdefgh")


def test_errors_are_memkit_errors_too(ours):
    with pytest.raises(MemoryNotFound):
        ours.delete("none")
    with pytest.raises(ValidationError):
        ours.add("x")
    with pytest.raises(InvalidInput):
        ours.search("", filters=ANA)


def test_top_k_of_none_asks_nothing(ours):
    assert filled(ours).search("tea", filters=ANA, top_k=0) == ours.get_all(filters=ANA, top_k=0) == {"results": []}


def test_rerank_uses_the_callable(tmp_path):
    with Memory(
        tmp_path / "a.mem", embedder=embed, reranker=lambda query, texts: [float("3" in text) for text in texts]
    ) as ours:
        found = filled(ours).search("tea", filters=ANA, rerank=True, threshold=0)["results"]
    assert found[0]["memory"] == "tea 3"
