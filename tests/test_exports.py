"""What `import memkit` promises: few names, sorted, documented, and light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import memkit

HEAVY = (
    "torch",
    "lancedb",
    "pyarrow",
    "numpy",
    "transformers",
    "sentence_transformers",
    "onnxruntime",
    "pydantic",
)


def test_public_names_are_sorted_and_few():
    assert memkit.__all__ == sorted(memkit.__all__)
    assert len(memkit.__all__) <= 14


@pytest.mark.parametrize("name", memkit.__all__)
def test_every_public_name_exists_and_says_what_it_is(name):
    assert getattr(memkit, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Memori"):
        memkit.Memori  # noqa: B018


def test_importing_memkit_loads_no_heavy_library():
    code = f"import memkit, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not done.stderr


def test_opening_and_writing_need_no_torch_and_no_lancedb(tmp_path):
    code = (
        "import memkit, sys\n"
        f"memory = memkit.Memory({str(tmp_path / 'a.mem')!r}, cache_dir={str(tmp_path)!r})\n"
        "memory.add('I moved to Lisbon in May.', user_id='ana')\n"
        "assert memory.search('where does she live?', user_id='ana')\n"
        "memory.close()\n"
        "print([m for m in ('torch', 'lancedb', 'transformers') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not done.stderr
