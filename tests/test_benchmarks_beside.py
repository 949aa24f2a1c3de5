"""The benchmark of an application beside a sleep: its table, and that its kills check what they say."""

from __future__ import annotations

import pytest

from benchmarks import beside


@pytest.mark.slow
def test_kills_of_the_application_and_of_the_sleeper_lose_nothing(tmp_path):
    counts = beside.killed(tmp_path, 2, seed=1)
    assert (counts["application"], counts["sleeper"]) == (1, 1)
    assert counts["bands at once"] + counts["bands by the next sleep"] == 8


def test_the_table_tells_how_many_times_slower():
    spans = {"alone": {"add": [1.0] * 400, "search": [2.0] * 400}, "beside": {"add": [2.0] * 400, "search": [2.0] * 9}}
    add, search = beside.table(spans).splitlines()[2:]
    assert "2.00" in add and "few" not in add
    assert "1.00" in search and "(few)" in search
