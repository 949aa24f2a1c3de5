"""Haystack's own suites for document stores, all of them, and what they do not ask for."""

from __future__ import annotations

import json

import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.core.errors import SerializationError
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suite
from haystack.testing import document_store_async as async_suite
from haystack.utils.filters import document_matches_filter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import embed

from memkit_adapters.haystack import MemkitDocumentStore, MemkitRetriever

ODD_IDS = ["a.b/c", "ünï/ço.de ✓", "ana@example.org", "k" * 1000]


@pytest.fixture
def document_store(memory):
    return MemkitDocumentStore(memory)


class TestSuite(
    suite.DocumentStoreBaseExtendedTests,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, memory):
        return MemkitDocumentStore(memory)

    def test_write_documents(self, document_store):
        """Without a policy, a document that is there already is refused."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])


class TestScopedSuite(TestSuite):
    """The same in a scope, where ids of documents and of items differ."""

    @pytest.fixture
    def document_store(self, memory):
        return MemkitDocumentStore(memory, user_id="ana@example.org", run_id="r/1.0")


class TestAsyncSuite(
    async_suite.DeleteAllAsyncTest,
    async_suite.CountDocumentsAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
):
    @pytest.fixture
    def document_store(self, memory):
        return MemkitDocumentStore(memory)

    async def test_write_documents_async(self, document_store):
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])


# what a document carries


def test_everything_that_a_document_carries_comes_back(document_store):
    document = Document(
        content="a picture",
        blob=ByteStream(b"\x00\xff", mime_type="image/png", meta={"width": 2}),
        meta={
            "n": 3,
            "x": 0.5,
            "yes": True,
            "none": None,
            "tags": ["a", 1],
            "deep": {"a.b": {"c/d": "é"}},
            "id": "own",
        },
        embedding=[0.1, 0.2],
        sparse_embedding=SparseEmbedding([3], [0.5]),
        score=0.25,
    )
    document_store.write_documents([document])
    assert document_store.filter_documents() == [document]
    assert document_store.filter_documents({"field": "meta.id", "operator": "==", "value": "own"}) == [document]


@pytest.mark.parametrize("content", [None, "", "  "])
def test_a_document_without_text_comes_back_as_it_was(document_store, content):
    document = Document(id="x", content=content, blob=ByteStream(b"1", mime_type="image/png"))
    document_store.write_documents([document])
    assert document_store.filter_documents() == [document]


@pytest.mark.parametrize("name", ODD_IDS)
def test_odd_ids_and_metadata_keys_survive_a_restart(tmp_path, name):
    document = Document(id=name, content="tea", meta={name: name})
    for _ in range(2):
        store = MemkitDocumentStore(tmp_path / "a.mem", embedder=embed, user_id=name)
        store.write_documents([document], DuplicatePolicy.SKIP)
        assert store.filter_documents({"field": "id", "operator": "==", "value": name}) == [document]
        assert store.count_documents() == 1
        store.close()


def test_an_overwrite_without_metadata_removes_the_old(document_store):
    document_store.write_documents([Document(id="1", content="a", meta={"x": 1})])
    document_store.write_documents([Document(id="1", content="a")], DuplicatePolicy.OVERWRITE)
    assert document_store.filter_documents()[0].meta == {}


def test_metadata_that_is_not_json_is_refused_and_nothing_is_written(document_store):
    with pytest.raises(ValueError, match=r"item .* metadata\.x is"):
        document_store.write_documents([Document(content="a"), Document(content="b", meta={"x": object()})])
    assert document_store.count_documents() == 0


def test_a_failing_batch_writes_nothing(document_store):
    document_store.write_documents([Document(id="1", content="a")])
    with pytest.raises(DuplicateDocumentError):
        document_store.write_documents([Document(id="2", content="b"), Document(id="1", content="c")])
    assert [document.id for document in document_store.filter_documents()] == ["1"]


@pytest.mark.parametrize("bound", [False, True])
def test_users_with_equal_documents_are_isolated(memory, bound):
    if bound:
        ana, bo = (MemkitDocumentStore(memory.scope(user_id=name)) for name in ("ana", "bo"))
    else:
        ana, bo = (MemkitDocumentStore(memory, user_id=name) for name in ("ana", "bo"))
    document = Document(content="green tea")
    assert ana.write_documents([document]) == bo.write_documents([document]) == 1
    ana.delete_documents([document.id])
    assert (ana.filter_documents(), bo.filter_documents()) == ([], [document])
    bo.delete_all_documents()
    memory.add("of nobody")
    assert bo.search("nobody") == []


def test_items_of_the_memory_are_documents_too(memory):
    item = memory.add("green tea", metadata={"kind": "drink"}, user_id="ana")[0]
    found = MemkitDocumentStore(memory, user_id="ana").search("tea")
    assert [(one.id, one.content, one.meta) for one in found] == [(item.id, "green tea", {"kind": "drink"})]


def test_physical_deletion_leaves_no_history(memory):
    store = MemkitDocumentStore(memory)
    store.write_documents([Document(id="1", content="secret")])
    store.delete_all_documents(recreate_index=True)
    assert memory.history("1") == []


# filters

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(-2, 2),
    st.sampled_from(["", "a", "b", "2026-05-01", "2026-05-01T02:00:00+02:00", "2026-05-01T00:00:00+00:00"]),
)
FIELDS = st.sampled_from(["meta.a", "b", "meta.deep.c", "id", "content", "meta.absent", "score"])
COMPARISON = st.one_of(
    st.fixed_dictionaries({"field": FIELDS, "operator": st.sampled_from(["==", "!="]), "value": VALUES}),
    st.fixed_dictionaries(
        {"field": FIELDS, "operator": st.sampled_from(["in", "not in"]), "value": st.lists(VALUES, max_size=3)}
    ),
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(["meta.a", "meta.deep.c", "meta.absent", "score"]),
            "operator": st.sampled_from([">", ">=", "<", "<="]),
            "value": st.floats(-2, 2),
        }
    ),
)
FILTER = st.recursive(
    COMPARISON,
    lambda inner: st.fixed_dictionaries(
        {"operator": st.sampled_from(["AND", "OR", "NOT"]), "conditions": st.lists(inner, min_size=1, max_size=3)}
    ),
    max_leaves=5,
)
DOCUMENTS = [
    Document(id=str(number), content=content, meta={"a": a, "b": b, "deep": {"c": a}})
    for number, (content, a, b) in enumerate(
        [
            ("a", 1, "a"),
            (" ", 2, "b"),
            ("b", -1.5, None),
            ("2026-05-01", 0, "2026-05-01"),
            ("x", None, False),
            ("y", -2, 1),
            ("z", 0.0, True),
        ]
    )
]


@pytest.fixture(params=[{}, {"user_id": "ana"}], ids=["whole", "scope"])
def filled(request, memory):
    store = MemkitDocumentStore(memory, **request.param)
    store.write_documents(DOCUMENTS)
    return store


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=FILTER)
def test_filters_mean_what_haystack_says(filled, filters):
    try:
        wanted = [document.id for document in DOCUMENTS if document_matches_filter(filters, document)]
    except (FilterError, TypeError):
        return  # a value that cannot be compared: the suite has what must happen then
    try:
        found = [document.id for document in filled.filter_documents(filters)]
    except FilterError:
        return
    assert found == wanted
    assert {document.id for document in filled.search("a b x y", filters)} == set(wanted)


@pytest.mark.parametrize(
    "filters",
    [
        {"field": "meta.a", "operator": "~", "value": 1},
        {"operator": "XOR", "conditions": []},
        {"field": "meta.a", "operator": ">", "value": "tuesday"},
        {"field": "meta.a", "operator": ">", "value": {}},
        {"field": "meta.a", "operator": ">", "value": float("nan")},
        ["meta.a"],
    ],
    ids=json.dumps,
)
def test_a_malformed_filter_is_refused(filled, filters):
    with pytest.raises(FilterError):
        filled.filter_documents(filters)


def test_dates_of_two_zones_are_compared_as_moments(filled):
    filled.write_documents([Document(content="late", meta={"when": "2026-05-01T01:00:00+02:00"})])
    filters = {"field": "meta.when", "operator": "<", "value": "2026-05-01T00:00:00+00:00"}
    assert [document.content for document in filled.search("late", filters)] == ["late"]


# retrieval and pipelines


def store_in(path) -> MemkitDocumentStore:
    store = MemkitDocumentStore(path, embedder=embed, user_id="ana")
    store.write_documents(
        [Document(content="green tea", meta={"n": 1}), Document(content="black coffee", meta={"n": 2})],
        DuplicatePolicy.SKIP,
    )
    return store


def test_a_pipeline_is_saved_loaded_and_finds_what_an_earlier_one_wrote(tmp_path):
    store = store_in(tmp_path / "a.mem")
    pipeline = Pipeline()
    pipeline.add_component("memory", MemkitRetriever(store, top_k=1))
    saved = pipeline.dumps()
    store.close()

    again = Pipeline.loads(saved, allowed_modules=["memkit_adapters.haystack", "support"])
    found = again.run({"memory": {"query": "tea"}})["memory"]["documents"]
    assert [document.content for document in found] == ["green tea"]
    assert 0 < found[0].score <= 1
    again.get_component("memory").document_store.close()


def test_haystacks_own_writer_writes_into_it(document_store):
    written = DocumentWriter(document_store, policy=DuplicatePolicy.OVERWRITE).run([Document(content="tea")])
    assert written == {"documents_written": 1}
    assert document_store.count_documents() == 1


async def test_filters_of_the_retriever_are_replaced_or_merged(tmp_path):
    store = store_in(tmp_path / "a.mem")
    one, two = ({"field": "meta.n", "operator": "==", "value": n} for n in (1, 2))
    either = {"operator": "AND", "conditions": [{"field": "meta.n", "operator": "in", "value": [1, 2]}]}
    replacing = MemkitRetriever(store, filters=one)
    merging = MemkitRetriever(store, filters={"operator": "AND", "conditions": [one]}, filter_policy="merge")
    assert [d.meta["n"] for d in (await replacing.run_async("tea", two))["documents"]] == [2]
    assert [d.meta["n"] for d in merging.run("tea", either)["documents"]] == [1]
    store.close()


def test_a_store_made_from_an_open_memory_cannot_be_saved(document_store):
    with pytest.raises(SerializationError, match="make it from the path"):
        document_store.to_dict()
