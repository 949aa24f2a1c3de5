"""The `where` language: what it means, what it refuses, and that LanceDB agrees with the definition."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memkit_storage.errors import InvalidFilter
from memkit_storage.filter_sql import filter_columns, pa_fields
from memkit_storage.filters import Filter, flatten
from memkit_storage.rows import Row

os.environ.setdefault("LANCEDB_LOG", "error")


def row(**more: object) -> Row:
    values: dict = {"id": "a", "text": "hello world", "vector": np.zeros(2, np.float32), "position": 7, **more}
    return Row(**values)


def matches(where: dict, **more: object) -> bool:
    return Filter.parse(where).matches(row(**more))


ANA = {
    "user_id": "ana",
    "metadata": {"price": 3, "kind": "a", "ok": True, "tags": ["x", 2], "a": {"b": "c"}, "none": None},
}


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"user_id": "ana"},
        {"price": 3},
        {"price": 3.0},
        {"price": {"gte": 3, "lt": 4}},
        {"kind": {"in": ["b", "a"]}},
        {"kind": {"nin": ["b"]}},
        {"kind": {"gt": "Z"}},
        {"kind": {"contains": "a"}},
        {"tags": {"contains": 2}},
        {"a.b": "c"},
        {"metadata.a.b": "c"},
        {"a": {"exists": True}},
        {"none": {"exists": False}},
        {"none": None},
        {"missing": None},
        {"missing": {"ne": 5}},
        {"missing": {"in": [None, 1]}},
        {"agent_id": None},
        {"text": {"contains": "lo wo"}},
        {"position": {"gt": 6.5}},
        {"occurred_at": "1970-01-01"},
        {"occurred_at": {"lt": datetime(1970, 1, 2, tzinfo=UTC)}},
        {"OR": [{"price": 9}, {"kind": "a"}]},
        {"NOT": {"price": 9}},
        {"NOT": [{"price": 3}, {"kind": "b"}]},
        {"AND": [{"price": 3}, {"OR": [{"ok": True}]}]},
    ],
)
def test_a_filter_lets_its_row_through(where):
    assert matches(where, **ANA)


@pytest.mark.parametrize(
    "where",
    [
        {"user_id": "bob"},
        {"price": "3"},
        {"price": True},
        {"ok": 1},
        {"ok": {"ne": True}},
        {"price": {"gt": 3}},
        {"price": {"gt": "2"}},
        {"missing": {"gt": 0}},
        {"missing": {"eq": 1}},
        {"tags": "x"},
        {"tags": {"contains": "2"}},
        {"a": {"exists": False}},
        {"OR": []},
        {"NOT": {}},
        {"kind": {"in": []}},
    ],
)
def test_a_filter_stops_a_row_that_differs(where):
    assert not matches(where, **ANA)


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        ({"price": {"$gte": 3}}, "write 'gte'"),
        ({"price": {"above": 3}}, "use one of"),
        ({"address": {"city": "Lisbon"}}, "address.city"),
        ({"or": [{}]}, "'OR'"),
        ({"$or": [{}]}, "'OR'"),
        ({"OR": {"a": 1}}, "list of filters"),
        ({"AND": [3]}, "pass a dict"),
        ({"price": {"in": 3}}, "takes a list"),
        ({"price": {"gt": [3]}}, "'in' for several"),
        ({"price": {"gt": True}}, "eq or ne"),
        ({"price": float("nan")}, "finite"),
        ({"price": {"exists": 1}}, "True or False"),
        ({"price": {}}, "no operator"),
        ({"user_id": 5}, "text"),
        ({"position": "5"}, "number"),
        ({"occurred_at": datetime(2026, 5, 1)}, "time zone"),  # noqa: DTZ001
        ({"occurred_at": "2026-05-01T10:00"}, "time zone"),
        ({"occurred_at": "yesterday"}, "ISO 8601"),
        ({"occurred_at": 5}, "aware datetime"),
        ({"when": datetime(2026, 5, 1, tzinfo=UTC)}, "holds no times"),
        ({"": 1}, "keys are field names"),
        ("user_id", "pass a dict"),
        ({"kind": "\ud800"}, "surrogate"),
    ],
)
def test_a_bad_filter_names_the_value_and_the_next_step(where, hint):
    with pytest.raises(InvalidFilter, match=hint):
        Filter.parse(where)


def test_endless_nesting_is_refused():
    where: dict = {"a": 1}
    for _ in range(70):
        where = {"NOT": where}
    with pytest.raises(InvalidFilter, match="flatten"):
        Filter.parse(where)


def test_both_filters_of_a_conjunction_must_hold():
    both = Filter.parse({"price": 3}) & Filter.parse({"user_id": "ana"})
    assert both.matches(row(**ANA))
    assert not both.matches(row(user_id="ana"))
    assert both.scope() == {"user_id": "ana"}


def test_a_literal_dotted_key_and_a_nested_one_share_a_path():
    assert flatten({"a.b": 1}) == flatten({"a": {"b": 1}}) == {"a.b": 1}


# LanceDB agrees

KEYS = st.sampled_from(["k", "a.b", "a", "b'", 'q"', "é", "user_id", "$x", "x y"])
TEXTS = st.sampled_from(
    ["", "a", "ab", "'", "' OR '1'='1", "\\", '"', "é", "日本", "🎉", "%", "_", "\n", "B", "3", "true"]
)
NUMBERS = st.sampled_from([0, 1, -1, 3, 2.5, -0.0, 0.1 + 0.2, 0.3, 1e300, -1e300, 2**53 + 1, 5e-324])
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans())
METADATA = st.recursive(
    st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=3)),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(
    st.builds(
        lambda text, user, agent, meta, occurred: {
            "text": text or "x",
            "user_id": user,
            "agent_id": agent,
            "metadata": meta,
            "occurred_us": occurred,
        },
        TEXTS,
        st.one_of(st.none(), TEXTS),
        st.one_of(st.none(), TEXTS),
        st.dictionaries(KEYS, METADATA, max_size=4),
        st.integers(-(10**15), 10**15),
    ),
    min_size=1,
    max_size=12,
)
PATHS = st.one_of(
    KEYS.map(lambda key: f"metadata.{key}"), st.sampled_from(["metadata.a.b", "metadata.a.k", "metadata.k.a.b"])
)
VALUE_TESTS = st.one_of(
    SCALARS.map(lambda v: {"eq": v}),
    SCALARS.map(lambda v: {"ne": v}),
    st.builds(lambda op, v: {op: v}, st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(TEXTS, NUMBERS)),
    st.builds(
        lambda op, v: {op: v}, st.sampled_from(["in", "nin"]), st.lists(st.one_of(SCALARS, st.none()), max_size=3)
    ),
    SCALARS.map(lambda v: {"contains": v}),
    st.booleans().map(lambda v: {"exists": v}),
    st.just({"eq": None}),
    st.just({"ne": None}),
)
FIELD_TESTS = st.one_of(
    st.builds(
        lambda field, op, v: {field: {op: v}},
        st.sampled_from(["text", "user_id", "agent_id", "run_id"]),
        st.sampled_from(["eq", "ne", "gt", "lte", "contains"]),
        TEXTS,
    ),
    st.builds(lambda field, v: {field: v}, st.sampled_from(["user_id", "run_id"]), st.none()),
    st.builds(lambda v: {"user_id": {"in": v}}, st.lists(TEXTS, max_size=3)),
    st.builds(
        lambda op, v: {"position": {op: v}}, st.sampled_from(["eq", "gt", "lte"]), st.one_of(st.integers(0, 9), NUMBERS)
    ),
    st.builds(
        lambda op, v: {"occurred_at": {op: v}},
        st.sampled_from(["gt", "lte", "ne"]),
        st.datetimes(datetime(1960, 1, 1), datetime(2000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    ),
)
WHERE = st.recursive(
    st.one_of(st.builds(lambda p, t: {p: t}, PATHS, VALUE_TESTS), FIELD_TESTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"OR": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"AND": parts}),
        inner.map(lambda part: {"NOT": part}),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    lancedb = pytest.importorskip("lancedb")
    return lancedb.connect(tmp_path_factory.mktemp("lance"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, wheres=st.lists(WHERE, min_size=3, max_size=12))
def test_lancedb_finds_exactly_the_rows_that_match(database, rows, wheres):
    import pyarrow as pa

    made = [row(position=i, id=f"i{i}", **values) for i, values in enumerate(rows)]
    columns = [filter_columns(one) for one in made]
    schema = pa.schema(pa_fields())
    arrays = [pa.array([c[field.name] for c in columns], field.type) for field in schema]
    table = database.create_table("rows", pa.table(arrays, schema=schema), mode="overwrite")
    for where in wheres:
        chosen = Filter.parse(where)
        found = table.search().where(chosen.sql()).select(["position"]).limit(100).to_arrow()["position"].to_pylist()
        assert sorted(found) == [one.position for one in made if chosen.matches(one)], (where, chosen.sql())


@settings(max_examples=200, deadline=None)
@given(where=WHERE, values=ROWS)
def test_not_is_the_exact_opposite(where, values):
    one = row(**values[0])
    assert Filter.parse({"NOT": where}).matches(one) != Filter.parse(where).matches(one)
