"""Documents in pieces: nothing is lost, and bounds are where a reader would put them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.chunking import LIMIT, chunks

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(
    ["Yes.", "Dr.", "```", "~~~", "#"]
)
LINES = st.lists(st.lists(WORDS, max_size=30).map(" ".join), max_size=12)
PROSE = "The tide comes in at seven. Nobody had told the geese! Would Dr. Lund mind? He would not. "


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


def ends(text: str, limit: int) -> set[str]:
    """How chunks end, other than the last: the last two characters."""
    return {chunk.text[-2:] for chunk in chunks(text, limit)[:-1]}


@pytest.mark.parametrize("limit", range(50, 120, 7))
def test_titles_initials_and_ordinals_end_no_sentence(limit):
    text = "We met Dr. Lund and J. S. Bach on the 3. May in St. Gallen. " * 20
    assert ends(text, max(limit, 60)) == {"n."}
    assert {chunk.text[:2] for chunk in chunks(text, max(limit, 60))} == {"We"}


def test_quotes_stay_with_their_sentence():
    assert ends('"Come in!" she said. "It is late." ' * 30, 100) <= {"d.", '."'}
    assert ends("「はい。」と言った。（うん。）" * 60, 50) <= {"。」", "た。", "。）"}


def test_sentences_without_capitals_are_bounds_too():
    assert ends("no capitals here. never any. " * 60, 100) <= {"e.", "y."}


def test_lists_and_tables_are_cut_between_their_lines():
    for line in ("- an item of a list without a full stop", "| a cell | another cell |"):
        found = chunks("\n".join([line] * 60), 200)
        assert {row for chunk in found for row in chunk.text.split("\n")} == {line}


def test_a_paragraph_is_not_cut_when_it_fits():
    paragraphs = [(PROSE * (1 + i % 5)).strip() for i in range(30)]
    for chunk in chunks("\n\n".join(paragraphs), 500):
        assert set(chunk.text.split("\n\n")) <= set(paragraphs)


def test_a_word_longer_than_the_limit_is_cut_anywhere():
    assert [chunk.text for chunk in chunks("ab " + "x" * 25, 10)] == ["ab", "x" * 10, "x" * 10, "x" * 5]


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


def test_a_bare_heading_joins_what_follows_it():
    found = chunks("# A\n\n## B\n\n### C ###\n\ntext\n\n## C#\n\nmore\n\n# End\n")
    assert [(chunk.text.splitlines()[0], chunk.headings) for chunk in found] == [
        ("# A", ("A", "B", "C")),
        ("## C#", ("A", "C#")),
        ("# End", ("End",)),
    ]


@pytest.mark.parametrize(
    "fence",
    ["```\n# no\n```", "~~~\n```\n# no\n~~~", "````md\n```\n# no\n```\n# no\n````", "```\n# no", "  ```\n# no\n  ```"],
)
def test_what_stands_in_a_fence_is_no_heading(fence):
    assert [chunk.headings for chunk in chunks(f"# Yes\n\n{fence}")] == [("Yes",)]


def test_code_in_a_line_opens_no_fence():
    assert [chunk.headings for chunk in chunks("```not a fence```\n# Yes\ntext")] == [(), ("Yes",)]


def test_a_fence_is_kept_whole_without_blank_lines_around_it():
    code = "```sh\n" + "echo one. Echo two.\n\n" * 10 + "```"
    found = chunks(PROSE * 5 + "\n" + code + "\n" + PROSE * 5, 450)
    assert any(code in chunk.text for chunk in found)


def test_a_fence_that_does_not_fit_is_cut_between_its_lines():
    lines = [f"value_{i} = compute(first. second)" for i in range(60)]
    found = chunks("```\n" + "\n".join(lines) + "\n```", 200)
    assert [line for chunk in found for line in chunk.text.split("\n")] == ["```", *lines, "```"]


def test_a_code_fence_is_kept_whole_and_its_comments_are_no_headings():
    code = "```python\n# not a heading\n\n\nx = 1\n```"
    text = "before " * 150 + "\n\n" + code + "\n\nafter"
    assert any(code in chunk.text for chunk in chunks(text))


@pytest.mark.parametrize("text", ["", " \n\n "])
def test_an_empty_document_has_no_chunks(text):
    assert chunks(text) == []
