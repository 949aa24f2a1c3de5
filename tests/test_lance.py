"""The sealed index: agreement with the exact tail, dead rows, seals, crashes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit_storage import cache, lance_table
from memkit_storage.filters import Filter
from memkit_storage.lance import IndexBusy, LanceIndex, available
from memkit_storage.lexical import TermStats

pytest.importorskip("lancedb")

from lance_support import DIM, KEY, WORDS, Both, exact, make, many, query, rng


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path / "index")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """6,000 rows: enough for an ANN index."""
    both = Both(tmp_path_factory.mktemp("large") / "index")
    both.seal(many(6_000))
    return both


# agreement

row_specs = st.lists(
    st.tuples(
        st.lists(st.sampled_from(WORDS), max_size=7),
        st.integers(0, 6),
        st.sampled_from([None, "ana", "bo", "o'x"]),
    ),
    min_size=1,
    max_size=60,
)


@given(row_specs, row_specs, st.data())
@settings(max_examples=12, deadline=None)
def test_rankings_do_not_change_when_rows_are_sealed(
    tmp_path_factory: pytest.TempPathFactory, first: list[Any], second: list[Any], data: st.DataObject
) -> None:
    """Equal positions and bit-equal scores, in the tail and in an index made by two seals with deletions."""
    both = Both(tmp_path_factory.mktemp("index"))
    rows = [make(i, " ".join(words), seed, user) for i, (words, seed, user) in enumerate(first + second)]
    dead = data.draw(st.lists(st.integers(0, len(first) - 1), unique=True))
    both.seal(rows[: len(first)])
    both.seal(rows[len(first) :], dead)

    for user in (None, "ana", "o'x"):
        where = Filter.parse({"user_id": user}) if user else None
        terms = data.draw(st.lists(st.sampled_from(WORDS), max_size=5))
        both.agree(data.draw(st.integers(1, 9)), terms, data.draw(st.integers(1, 20)), where)
    assert both.index is not None
    assert both.index.positions().tolist() == [row.position for row in both.tail.rows]
    assert both.index.stats() == both.stats
    shutil.rmtree(both.root)


def test_statistics_of_all_rows_rank_the_sealed_ones(both: Both) -> None:
    """The table ranks by its own statistics; those of a large tail turn the order around, and it follows."""
    rows = [make(i, "common rare" if i % 2 else "common common common") for i in range(400)]
    index = both.seal(rows)
    stats = both.stats.copy()
    for _ in range(3_000):
        stats.add(["rare", "filler"])
    expected = exact(rows).lexical(["common", "rare"], 10, stats)

    assert index.lexical(["common", "rare"], 10, stats)[0] == expected
    assert {position % 2 for position, _ in expected} == {0}


def test_longer_texts_in_the_tail_rank_the_sealed_ones(both: Both) -> None:
    """A greater mean length forgives the long rows, which LanceDB ranks behind hundreds of short ones."""
    rows = [make(i, "tea" if i % 4 else "tea tea" + " filler" * 8) for i in range(400)]
    index = both.seal(rows)
    stats = both.stats.copy()
    for _ in range(400):
        stats.add(["long"] * 100)
    expected = exact(rows).lexical(["tea"], 10, stats)

    assert index.lexical(["tea"], 10, stats)[0] == expected
    assert {position % 4 for position, _ in expected} == {0}


def test_words_find_exactly_the_best_of_many_rows(large: Both) -> None:
    """LanceDB's candidates hold the best k, whatever they are."""
    for seed in range(20):
        terms = [f"w{i}" for i in rng(seed).zipf(1.4, 5) % 400]
        for where in (None, Filter.parse({"user_id": "u7"})):
            expected = large.tail.lexical(terms, 10, large.tail.select(where))
            assert large.index is not None
            assert large.index.lexical(terms, 10, large.stats, where)[0] == expected


def test_the_ann_index_finds_nearly_all_neighbours(large: Both) -> None:
    """Recall@10 of at least 0.98, with exact cosines; within a small scope all of them."""
    assert large.index is not None
    hits = 0
    for seed in range(50):
        found, expected = large.index.dense(query(seed), 10)[0], large.tail.dense(query(seed), 10)
        hits += len(set(found) & set(expected))
        where = Filter.parse({"user_id": "u3"})
        assert large.index.dense(query(seed), 10, where)[0] == large.tail.dense(
            query(seed), 10, large.tail.select(where)
        )

    assert hits >= 0.98 * 500


def test_many_equal_rows_are_cut_at_the_newest(both: Both) -> None:
    """Ties do not depend on the order in which LanceDB returns them."""
    both.seal([make(i, "same words", 3) for i in range(300)])

    both.agree(3, ["same"], 10)


def test_passages_read_as_in_the_tail(large: Both) -> None:
    """By position; what is not there is left out."""
    assert large.index is not None
    found = {passage.row.position: passage for passage in large.index.passages([5, 17, 999_999])}
    same = {passage.row.position: passage for passage in large.tail.passages([5, 17, 999_999])}

    assert sorted(found) == sorted(same) == [5, 17]
    for position in (5, 17):
        one, other = found[position], same[position]
        assert replace(one.row, vector=None, first=-1) == replace(other.row, vector=None, first=-1)
        assert one.tokens == other.tokens
        assert np.array_equal(one.vector, other.vector)
    assert large.index.passages([]) == []


def test_a_dimension_that_is_no_multiple_of_eight_gets_an_index_too(tmp_path: Path) -> None:
    """Scalar quantisation takes any dimension."""
    key, draw = replace(KEY, dim=12), rng(0).standard_normal((6_000, 12))
    vectors = (draw / np.linalg.norm(draw, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    rows = [replace(make(i, "tea"), vector=vector) for i, vector in enumerate(vectors)]
    stats = TermStats()

    index = LanceIndex.seal(tmp_path, key, None, rows, [["tea"]] * 6_000, watermark=1, chain="", stats=stats)

    found = index.dense(vectors[7], 5)[0]
    assert found[0] == (7, pytest.approx(1, abs=1e-5))
    assert [p for p, _ in found] == np.argsort(-(vectors @ vectors[7]))[:5].tolist()


def test_rows_without_vectors_make_an_index(tmp_path: Path) -> None:
    """An embedder that knows no word gives zeros: found by words, never by meaning."""
    both = Both(tmp_path)
    both.seal([make(i, f"w{i % 90}", 0) for i in range(5_100)])

    assert both.index is not None
    assert both.index.dense(query(1), 5)[0] == []
    assert both.index.lexical(["w3"], 2, both.stats)[0] == both.tail.lexical(["w3"], 2)


def test_nothing_is_asked_of_the_table_without_a_question(large: Both) -> None:
    """No terms, no direction, no rows wanted."""
    assert large.index is not None
    assert large.index.lexical([], 5, large.stats)[0] == []
    assert large.index.lexical(["w1"], 0, large.stats)[0] == []
    assert large.index.lexical(["absent"], 5, large.stats)[0] == []
    assert large.index.dense(np.zeros(DIM, np.float32), 5)[0] == []
    assert large.index.dense(query(1), 0)[0] == []


@pytest.mark.parametrize("where", [None, {"user_id": "u3"}, {"user_id": "nobody"}])
def test_rows_near_another_vector_are_named_beside_what_is_found(large: Both, where: dict[str, str] | None) -> None:
    """As the tail names them, whatever the filter leaves; what is found is the same."""
    only, terms = Filter.parse(where), ["w1", "w2"]
    found, named = large.index.search(query(4), terms, 10, only, frozenset(), large.stats, query(9))

    assert named == [position for position, _ in large.tail.dense(query(9), 10, large.tail.select(only))]
    assert found == large.index.search(query(4), terms, 10, only, frozenset(), large.stats)[0]
    assert large.index.search(query(4), terms, 10, only, frozenset(), large.stats, query(9) * 0)[1] == []


# dead rows


def test_dead_rows_are_never_returned_and_k_rows_survive(large: Both) -> None:
    """Even when the 200 best candidates have all ended since the seal."""
    assert large.index is not None
    best = [position for position, _ in large.tail.dense(query(4), 200)]
    words = [position for position, _ in large.tail.lexical(["w1"], 200)]
    dead = frozenset(best + words)

    found = [position for position, _ in large.index.dense(query(4), 10, None, dead)[0]]
    said = [position for position, _ in large.index.lexical(["w1"], 10, large.stats, None, dead)[0]]

    assert len(found) == len(said) == 10
    assert not dead & {*found, *said}
    assert set(large.index.search(query(4), ["w1"], 10, None, dead, large.stats)[0]) == {*found, *said}


def test_all_rows_may_be_dead(both: Both) -> None:
    """Then nothing is found, and the search ends."""
    index = both.seal(many(100))

    assert index.dense(query(1), 5, None, frozenset(range(100)))[0] == []
    assert index.lexical(["w1"], 5, both.stats, None, frozenset(range(100)))[0] == []


# seals


def test_an_index_is_opened_as_it_was_sealed(both: Both) -> None:
    """Rows, marks and statistics come back."""
    index = both.seal(many(300))

    opened = LanceIndex.open(both.root, KEY)

    assert opened is not None
    assert (len(opened), opened.watermark, opened.chain) == (300, 299, "c0ffee")
    assert opened.stats() == both.stats
    assert opened.dense(query(1), 5)[0] == index.dense(query(1), 5)[0]
    assert opened.current()
    assert opened.verify()


@pytest.mark.parametrize(
    "change",
    [
        {"file_id": "cd" * 16},
        {"generation": 2},
        {"embedder": "e/1"},
        {"dim": 24},
        {"analyzer": "2"},
        {"schema": 99},
    ],
    ids=str,
)
def test_an_index_made_from_something_else_is_not_opened(large: Both, change: dict[str, Any]) -> None:
    """Another file, another embedder, another analyzer."""
    assert LanceIndex.open(large.root, replace(KEY, **change)) is None


def test_a_missing_index_is_not_opened(tmp_path: Path) -> None:
    """No directory, or an empty one."""
    assert LanceIndex.open(tmp_path / "none", KEY) is None
    assert LanceIndex.open(tmp_path, KEY) is None


def test_the_table_holds_what_people_ask_of_it(both: Both) -> None:
    """Text and metadata, readable, at a version that cannot be written."""
    both.seal([make(0, "I like 東京", 1, "ana", price=3)])
    assert both.index is not None

    table = both.index.table()

    (record,) = table.search().to_list()
    assert (record["text"], record["user_id"], record["metadata"]) == ("I like 東京", "ana", '{"price": 3}')
    with pytest.raises(Exception, match=r"checkout|version"):
        table.delete("true")


def test_an_old_index_goes_on_while_newer_ones_are_sealed(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version is not cleaned up under it, not even when it is older than the grace for other readers."""
    monkeypatch.setattr(lance_table, "_GRACE", 0)
    old = both.seal(many(300))
    expected = old.dense(query(1), 5)[0], old.lexical(["w1"], 5, old.stats())[0]
    failures: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                assert (old.dense(query(1), 5)[0], old.lexical(["w1"], 5, old.stats())[0]) == expected
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    new = both.seal(many(100, start=1_000), dead=[0, 1])
    stop.set()
    thread.join()

    assert not failures
    assert old.verify(), "its files are all there, not only in LanceDB's memory"
    assert (len(old), len(new)) == (300, 398)
    assert (old.current(), new.current()) == (False, True)
    both.agree(1, ["w1", "w2"], 5)


def test_versions_that_nobody_serves_are_deleted(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory does not grow with every seal."""
    monkeypatch.setattr(lance_table, "_GRACE", 0)
    sizes = []
    both.seal(many(2_000))
    for i in range(12):
        both.seal(many(10, start=10_000 + 10 * i))
        sizes.append(sum(path.stat().st_size for path in both.root.rglob("*") if path.is_file()))

    # now and then a version is deleted one seal later
    assert min(sizes[-3:]) < 1.5 * sizes[3], "three times as much if nothing were deleted"


def test_a_seal_from_an_outdated_index_is_refused(both: Both) -> None:
    """What another process sealed meanwhile is not overwritten."""
    old = both.seal(many(50))
    both.seal(many(10, start=100))

    with pytest.raises(IndexBusy, match="open the index again"):
        LanceIndex.seal(both.root, KEY, old, [], [], [0], watermark=1, chain="", stats=both.stats)


def test_only_one_seals_at_a_time(both: Both) -> None:
    """The second is told so at once, and may search on."""
    index = both.seal(many(50))

    with cache.writing(both.root), pytest.raises(IndexBusy, match="another process or thread"):
        both.seal(many(10, start=100))

    assert index.current()
    assert len(index.dense(query(1), 5)[0]) == 5


def test_a_build_beside_an_open_index_does_not_disturb_it(both: Both) -> None:
    """A rebuild makes another table; the old one goes away with the next seal."""
    old = both.seal(many(50))
    expected = old.dense(query(1), 5)[0]
    fresh = Both(both.root)
    fresh.seal(many(60))

    assert old.dense(query(1), 5)[0] == expected
    fresh.seal([], dead=[3])
    assert [path.name for path in both.root.glob("table-*")] == ["table-2"]
    fresh.agree(1, ["w1"], 5)


# crashes


class Crash(Exception):
    pass


@pytest.mark.parametrize("point", ["listing", "write_state", "free_name"])
def test_a_seal_that_did_not_finish_does_not_count(both: Both, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """Its rows are not visible, and the next seal does not hold them twice."""
    both.seal(many(300))
    with monkeypatch.context() as patch:

        def crash(*_: Any, **__: Any) -> None:
            raise Crash

        patch.setattr(f"memkit_storage.lance.{point}", crash)
        with pytest.raises(Crash):
            LanceIndex.seal(
                both.root,
                KEY,
                both.index,
                many(20, start=500),
                [["lost"]] * 20,
                [0, 1],
                watermark=600,
                chain="",
                stats=TermStats(),
            )

    reopened = LanceIndex.open(both.root, KEY)
    assert reopened is not None
    assert (len(reopened), reopened.watermark) == (300, 299)
    assert reopened.lexical(["lost"], 5, both.stats)[0] == []
    both.index = reopened
    both.seal(many(20, start=500), dead=[7])
    both.agree(2, ["w1", "w3"], 8)
    assert len(both.index) == 319


def test_a_killed_build_leaves_nothing_that_is_opened(tmp_path: Path) -> None:
    """kill -9 between the table and STATE: no index, and the next build sweeps up."""
    script = (
        "import os, sys; sys.path[:0] = sys.argv[2].split(os.pathsep)\n"
        "from pathlib import Path\n"
        "from test_lance import Both, many\n"
        "from memkit_storage import lance\n"
        "lance.write_state = lambda *_: os.kill(os.getpid(), 9)\n"
        "Both(Path(sys.argv[1])).seal(many(50))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), paths], capture_output=True, timeout=120)

    assert done.returncode == -9, done.stderr
    assert (tmp_path / "table-1").exists()
    assert LanceIndex.open(tmp_path, KEY) is None
    both = Both(tmp_path)
    both.seal(many(50))
    both.agree(1, ["w1"], 5)
    assert [path.name for path in tmp_path.glob("table-*")] == ["table-1"]


# the library


def test_nothing_is_printed_and_lancedb_is_imported_late(tmp_path: Path) -> None:
    """A first seal, a search and an opening in a fresh process; asking whether it is available imports nothing."""
    script = (
        "import os, sys; sys.path[:0] = sys.argv[2].split(os.pathsep)\n"
        "from memkit_storage import lance\n"
        "assert lance.available()\n"
        "assert not {'lancedb', 'pyarrow'} & set(sys.modules)\n"
        "from pathlib import Path\n"
        "import test_lance as t\n"
        "both = t.Both(Path(sys.argv[1]))\n"
        "both.seal(t.many(5_100))\n"
        "both.seal(t.many(20, start=9_000), dead=[3])\n"
        "both.agree(1, ['w1'], 3)\n"
        "assert lance.LanceIndex.open(Path(sys.argv[1]), t.KEY)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {k: v for k, v in os.environ.items() if k != "LANCEDB_LOG"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path), paths],
        capture_output=True,
        timeout=120,
        env=environment,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_without_lancedb_there_is_no_index(large: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Platforms without a wheel: no index opens, and nothing is raised."""
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("memkit_storage.lance.version", missing)

    assert not available()
    assert LanceIndex.open(large.root, KEY) is None
