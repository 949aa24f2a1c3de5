"""One analyzer for the tail, the index and queries: what it keeps apart, and what it makes findable."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit_storage.analyzer import MAX_TOKEN, analyze


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("She moved to LISBON", "lisbon"),
        ("running shoes", "run shoe"),
        ("Ana's café", "ana cafe"),
        ("I don't know", "dont"),
        ("naïve façade", "naive facade"),
        ("Straße in München", "strasse munchen"),
        ("Привет, мир", "МИР"),
        ("مرحبا بالعالم", "بالعالم"),
        ("हिन्दी में खोज", "खोज"),
        ("日本語を勉強しています", "勉強"),
        ("日本語を勉強しています", "本"),
        ("我昨天搬到了北京", "北京"),
        ("한국어를 공부합니다", "한국어"),
        ("ภาษาไทยยากมาก", "ไทย"),
        ("see foo_bar.baz", "bar"),
        ("the camelCaseWord", "case"),
        ("the camelCaseWord", "camelcaseword"),
        ("my iPhone", "iphone"),
        ("write to ana@example.com", "example"),
        ("born 2023-05-01", "2023"),
        ("born 2023-05-01", "2023-05-01"),
        ("version 3.5", "3.5"),
        ("１２３", "123"),
        ("ﬁne", "fine"),
        ("party 👩🏽‍💻", "👩"),
        ("great 👍🏽", "👍"),
    ],
)
def test_a_text_is_found_by_a_query(text, query):
    assert analyze(query)
    assert set(analyze(query)) <= set(analyze(text))


@pytest.mark.parametrize(("one", "other"), [("cat", "car"), ("10", "100"), ("北", "南"), ("😀", "😢")])
def test_different_words_stay_apart(one, other):
    assert not set(analyze(one)) & set(analyze(other))


@pytest.mark.parametrize("text", ["", "  \n", "!?.,;", "\x00", "\u200d"])
def test_a_text_without_words_has_no_tokens(text):
    assert analyze(text) == []


@given(st.text(st.characters(), max_size=60))
def test_tokens_hold_no_white_space_and_are_encodable(text):
    for token in analyze(text):
        assert token
        assert not any(char.isspace() for char in token)
        assert len(token) <= MAX_TOKEN
        token.encode()


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_a_text_is_found_by_itself_in_capitals_or_not(text):
    assert analyze(text) == analyze(text)
    if text.isascii() and text.islower():
        assert analyze(text.upper()) == analyze(text)


def test_a_lone_surrogate_and_a_huge_word_do_no_harm():
    assert analyze("a \ud800 b") == ["a", "b"]
    assert analyze("x" * 10_000) == ["x" * MAX_TOKEN]


def test_threads_get_the_same_stems():
    words = [f"running{i} cities flies" for i in range(300)]
    expected = [analyze(word) for word in words]
    found: list[list[list[str]]] = []
    threads = [threading.Thread(target=lambda: found.append([analyze(word) for word in words])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
