"""Documents in pieces: nothing is lost, and bounds are where a reader would put them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.chunking import LIMIT, chunks

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
LINES = st.lists(st.lists(WORDS, max_size=30).map(" ".join), max_size=12)


def squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)


@given(st.tuples(LINES, st.sampled_from(["\n", "\n\n", "\r\n", "\n# h\n", "\n```\n"])), st.integers(20, 200))
def test_chunks_hold_the_whole_text_in_order_and_know_where_they_stand(parts, limit):
    text = parts[1].join(parts[0])
    found = chunks(text, limit)
    assert squeeze("".join(chunk.text for chunk in found)) == squeeze(text)
    for chunk in found:
        assert text[chunk.start : chunk.start + len(chunk.text)] == chunk.text
        assert len(chunk.text) <= limit
        assert chunk.text.strip()


def test_a_short_document_is_one_chunk():
    assert [chunk.text for chunk in chunks("One. Two.\n\nThree.")] == ["One. Two.\n\nThree."]


def test_sentences_are_not_cut():
    text = " ".join(f"This is sentence number {i} of the text." for i in range(200))
    for chunk in chunks(text):
        assert chunk.text.startswith("This is")
        assert chunk.text.endswith("of the text.")
        assert len(chunk.text) > LIMIT // 2 or chunk.text.endswith("199 of the text.")


def test_cjk_sentences_end_without_a_space():
    text = "これは文です。" * 400
    assert all(chunk.text.endswith("。") for chunk in chunks(text))


def test_headings_begin_chunks_and_are_remembered():
    text = "intro\n\n# A\n\ntext a\n\n## B\n\ntext b\n\n# C\n\ntext c\n"
    found = chunks(text)
    assert [(chunk.text.splitlines()[0], chunk.headings) for chunk in found] == [
        ("intro", ()),
        ("# A", ("A",)),
        ("## B", ("A", "B")),
        ("# C", ("C",)),
    ]


def test_a_code_fence_is_kept_whole_and_its_comments_are_no_headings():
    code = "```python\n# not a heading\n\n\nx = 1\n```"
    text = "before " * 150 + "\n\n" + code + "\n\nafter"
    assert any(code in chunk.text for chunk in chunks(text))


@pytest.mark.parametrize("text", ["", " \n\n "])
def test_an_empty_document_has_no_chunks(text):
    assert chunks(text) == []
