"""The sealed index: damage of every file is found, and no answer is wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memkit_storage import cache
from memkit_storage.filters import Filter
from memkit_storage.lance import IndexDamaged, LanceIndex
from memkit_storage.lexical import TermStats

pytest.importorskip("lancedb")

from lance_support import KEY, Both, make, many, query, rng


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path / "index")


# damage


def answers(index: LanceIndex, stats: TermStats) -> list[Any]:
    where = Filter.parse({"user_id": "u3"})
    return [
        [index.dense(query(i), 5, w)[0] for i in range(3) for w in (None, where)],
        [index.lexical([f"w{i}", "w9"], 5, stats, w)[0] for i in range(3) for w in (None, where)],
        index.stats() == stats,
    ]


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)


def garble(path: Path) -> None:
    path.write_bytes(rng(0).bytes(path.stat().st_size))


DAMAGES: list[Callable[[Path], None]] = [delete, empty, cut, flip, garble]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """An index of two seals with deletions and an ANN index: every kind of file that there is."""
    both = Both(tmp_path_factory.mktemp("grown") / "index")
    both.seal(many(5_000))
    both.seal(many(50, start=9_000), dead=[1, 2, 3])
    return both


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_noticed_at_opening(grown: Both, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Whichever file it is: there is no index then, rather than a wrong answer. LanceDB's hint alone may be lost."""
    assert grown.index is not None
    expected = answers(grown.index, grown.stats)
    names = [
        path.relative_to(grown.root) for path in sorted(grown.root.rglob("*")) if path.is_file() and path.stat().st_size
    ]
    assert len(names) > 20
    opened = []
    for name in names:
        shutil.copytree(grown.root, tmp_path / "copy")
        damage(tmp_path / "copy" / name)
        index = LanceIndex.open(tmp_path / "copy", KEY)
        if index is not None:
            opened.append(name.name)
            assert answers(index, grown.stats) == expected
        shutil.rmtree(tmp_path / "copy")

    assert set(opened) <= {"latest_version_hint.json", "terms-1"}


@pytest.mark.parametrize("damage", [delete, empty, cut, garble], ids=lambda damage: damage.__name__)
def test_damage_under_an_open_index_is_no_wrong_answer(
    grown: Both, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """The rows' data go bad while the index is open: it says so, or it still holds what it needs."""
    shutil.copytree(grown.root, tmp_path / "copy")
    index = LanceIndex.open(tmp_path / "copy", KEY)
    assert index is not None
    assert grown.index is not None
    expected = answers(grown.index, grown.stats)
    for path in [*(tmp_path / "copy").rglob("data/*.lance"), *(tmp_path / "copy").glob("segment-*")]:
        damage(path)

    def use() -> None:
        assert answers(index, grown.stats) == expected
        index.passages([10, 20, 30])

    with pytest.raises(IndexDamaged):
        use()
    assert not index.verify()


def test_a_flipped_bit_in_a_large_table_is_noticed_when_the_row_is_returned(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading everything at opening would take too long; the row's own checksum does not match."""
    monkeypatch.setattr(cache, "_EAGER", 0)
    both.seal([make(0, "tea"), make(1, "may", 2)])
    (data,) = both.root.glob("segment-*")
    content = data.read_bytes()
    vector = make(1, "may", 2).vector.astype(np.float16).tobytes()
    assert content.count(vector) == 1
    data.write_bytes(content.replace(vector, vector[:-2] + b"\x00\x00"))

    index = LanceIndex.open(both.root, KEY)

    assert index is not None
    assert len(index.passages([0])) == 1
    with pytest.raises(IndexDamaged, match="position 1 does not match its checksum"):
        index.passages([1])
    assert not index.verify()


def test_a_cut_file_of_a_large_table_is_noticed_at_opening(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are compared even where reading everything would take too long."""
    monkeypatch.setattr(cache, "_EAGER", 0)
    both.seal(many(50))
    for data in [*both.root.rglob("data/*.lance"), *both.root.glob("segment-*")]:
        whole = data.read_bytes()
        cut(data)
        assert LanceIndex.open(both.root, KEY) is None
        data.write_bytes(whole)
    assert LanceIndex.open(both.root, KEY) is not None


def test_a_deleted_directory_is_noticed(both: Both) -> None:
    """Somebody cleared the cache while the index was open."""
    both.seal(many(6_000))
    index = LanceIndex.open(both.root, KEY)
    assert index is not None
    index.destroy()

    with pytest.raises(IndexDamaged):
        index.positions()
    with pytest.raises(IndexDamaged):
        index.stats()
    assert not index.current()
    assert LanceIndex.open(both.root, KEY) is None


def test_a_directory_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    """A file stands in the way."""
    (tmp_path / "index").write_text("not a directory")

    with pytest.raises(OSError, match="index"):
        Both(tmp_path / "index").seal(many(5))
    assert LanceIndex.open(tmp_path / "index", KEY) is None
