"""What rows say, in files beside the table: written once, read by position, checked on the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from lance_support import Both, make, many

from memkit_storage.cache import IndexDamaged
from memkit_storage.rows import Row
from memkit_storage.segments import Record, Segments, write


def segments(folder: Path, *some: list[Row]) -> Segments:
    paths = [folder / f"segment-{i}" for i in range(len(some))]
    for path, rows in zip(paths, some, strict=True):
        write(path, (Record.of(row, row.text.split()) for row in rows))
    return Segments(paths)


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    row = make(7, "straße 東京 🙂", user_id="ana", n=3, deep={"a": [1, None, "x"]}, price=0.1)
    (record,) = segments(tmp_path, [row]).read([7])

    back = record.row(0.25)
    assert record.lex == row.text
    assert record.vector == row.vector.astype("<f2").tobytes()
    assert (back.id, back.text, back.scope, back.metadata) == (row.id, row.text, row.scope, row.metadata)
    assert (back.position, back.surprise, len(back.vector)) == (7, 0.25, 0)


def test_rows_come_in_the_order_asked_from_whichever_file_and_missing_ones_are_left_out(tmp_path: Path) -> None:
    here = segments(tmp_path, many(20), many(20, start=100), [])

    assert [one.position for one in here.read([105, 3, 999, 100, -1, 19])] == [105, 3, 100, 19]
    assert here.positions.tolist() == [*range(20), *range(100, 120)]
    assert [one.position for one in here.only({5, 101, 300})] == [5, 101]
    assert list(segments(tmp_path).read([1])) == []


@pytest.mark.parametrize("where", [0, 2, 30, 75])
def test_a_flipped_bit_is_noticed_in_the_row_that_it_is_in(tmp_path: Path, where: int) -> None:
    here, path = segments(tmp_path, [make(0, "tea at four"), make(1, "may")]), tmp_path / "segment-0"
    data = bytearray(path.read_bytes())
    data[where] ^= 4
    path.write_bytes(data)

    assert next(here.read([1])).lex == "may"
    with pytest.raises(IndexDamaged, match="position 0"):
        list(here.read([0]))


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_cut_file_is_noticed_when_it_is_opened_or_read(tmp_path: Path, keep: int) -> None:
    here, path = segments(tmp_path, many(3)), tmp_path / "segment-0"
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(IndexDamaged):
        Segments([path])
    if keep >= 0:
        with pytest.raises(IndexDamaged):
            list(here.read([0]))


def test_what_rows_said_that_have_ended_does_not_pile_up(tmp_path: Path) -> None:
    """Every seal replaces the rows of the one before it: no more than a quarter stays behind."""
    both = Both(tmp_path / "index")
    index, before = both.seal(many(40)), list(range(40))
    for start in (1_000, 2_000, 3_000, 4_000):
        index, now = both.seal(many(40, start=start), dead=before), list(range(start, start + 40))
        assert index.positions().tolist() == now
        assert sorted(one.row.position for one in index.passages([*before, *now])) == now
        before = now
    index = both.seal(many(5, start=5_000), dead=before[:5])  # the few of a small change stay until there are more
    assert len(index.passages(before[:5])) == 5
    assert len(list(both.root.glob("segment-*"))) == 2


def test_many_small_seals_do_not_leave_many_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memkit_storage.lance._SEGMENTS", 2)
    both, now = Both(tmp_path / "index"), []
    for start in range(0, 500, 100):
        index = both.seal(many(10, start=start))
        now += range(start, start + 10)
        assert sorted(one.row.position for one in index.passages(range(500))) == now
        assert len(index._state.segments) <= 2
