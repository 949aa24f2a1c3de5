"""A plugin of pytest that `run.py` puts beside a suite: the tests that `suites.py` lists have to be there, and to fail."""

import json
from pathlib import Path

import pytest

LISTED = json.loads(Path(__file__).with_suffix(".json").read_text())


def pytest_collection_modifyitems(items):
    unseen = set(LISTED)
    for item in items:
        name = item.nodeid.partition("[")[0]
        unseen.discard(name)
        if name in LISTED:
            item.add_marker(pytest.mark.xfail(reason=LISTED[name], strict=True))
    if unseen:
        raise pytest.UsageError(f"listed, but not among the tests: {', '.join(sorted(unseen))}")
