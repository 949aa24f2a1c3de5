"""Embedders: the three forms, what is checked, caching, identity, and the embedded default.

Run: pytest tests/test_embed.py
"""

from __future__ import annotations

import functools
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memkit.embed import (
    PROBE,
    BoundEmbedder,
    EmbedderInfo,
    as_embedder,
    same_embedder,
    unit,
)
from memkit_storage.errors import InvalidInput, InvalidVector


def letters(texts: list[str], dim: int = 8) -> list[list[float]]:
    """A vector per text that depends on the text alone."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    return [[byte - 127.5 for byte in digest[:dim]] for digest in digests]


class LangChainStyle:
    """An embedder with different vectors for documents and queries."""

    model = "letters-1"

    def embed_documents(self, texts):
        return letters(texts)

    def embed_query(self, text):
        return letters([f"query: {text}"])[0]


class SentenceTransformerStyle:
    """The part of a sentence-transformers model that memkit uses; like one, it is callable as well."""

    def __call__(self, features):
        raise AssertionError("a model is not called as a function")

    def encode(self, sentences, *, show_progress_bar=True, convert_to_numpy=False):
        assert not show_progress_bar
        assert convert_to_numpy
        return np.asarray(letters(sentences), dtype=np.float32)


class WithPrompts(SentenceTransformerStyle):
    """As from version 5 on."""

    def encode_document(self, sentences, **options):
        return self.encode([f"passage: {s}" for s in sentences], **options)

    def encode_query(self, sentences, **options):
        return self.encode([f"query: {s}" for s in sentences], **options)


class Counting:
    """A callable that remembers what it was asked."""

    def __init__(self):
        self.calls: list[list[str]] = []

    def __call__(self, texts):
        self.calls.append(list(texts))
        return letters(texts)

    @property
    def texts(self):
        return [text for call in self.calls for text in call]


# the three forms


def test_a_langchain_style_object_keeps_its_two_methods_apart():
    embedder = as_embedder(LangChainStyle())
    np.testing.assert_array_equal(embedder.embed_documents(["a", "b"]), unit(letters(["a", "b"])))
    np.testing.assert_array_equal(embedder.embed_query("a"), unit(letters(["query: a"]))[0])


def test_a_sentence_transformers_model_uses_its_prompts_where_it_has_them():
    plain, prompted = as_embedder(SentenceTransformerStyle()), as_embedder(WithPrompts())
    np.testing.assert_allclose(plain.embed_query("a"), unit(letters(["a"]))[0], atol=1e-6)
    np.testing.assert_allclose(prompted.embed_query("a"), unit(letters(["query: a"]))[0], atol=1e-6)
    np.testing.assert_allclose(prompted.embed_documents(["a"]), unit(letters(["passage: a"])), atol=1e-6)


@pytest.mark.parametrize(
    "output",
    [
        letters,
        lambda texts: np.asarray(letters(texts), dtype=np.float16),
        lambda texts: [np.asarray(row) for row in letters(texts)],
        lambda texts: tuple(tuple(row) for row in letters(texts)),
        lambda texts: (row for row in letters(texts)),
        lambda texts: np.asarray(letters(texts)).round().astype(np.int64),
    ],
    ids=["lists", "float16", "list of arrays", "tuples", "generator", "integers"],
)
def test_a_callable_may_return_any_array_like(output):
    vectors = as_embedder(output).embed_documents(["one", "two", "three"])
    assert vectors.shape == (3, 8)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, unit(letters(["one", "two", "three"])), atol=0.02)


@pytest.mark.slow
def test_a_callable_may_return_a_torch_tensor_with_a_gradient():
    import torch

    embedder = as_embedder(lambda texts: torch.tensor(letters(texts), dtype=torch.bfloat16, requires_grad=True))
    np.testing.assert_allclose(embedder.embed_documents(["a"]), unit(letters(["a"])), atol=0.01)


def test_a_bound_embedder_stays_itself():
    embedder = as_embedder(letters)
    assert as_embedder(embedder) is embedder


async def embed_later(texts):
    return letters(texts)


@pytest.mark.parametrize(
    "wrong",
    ["all-MiniLM-L6-v2", None, 3, LangChainStyle, object(), embed_later],
    ids=["a name", "None", "a number", "a class", "an object", "a coroutine function"],
)
def test_anything_else_is_refused_with_its_type_and_the_three_forms(wrong):
    with pytest.raises(InvalidInput) as caught:
        as_embedder(wrong)
    message = str(caught.value)
    assert type(wrong).__qualname__ in message
    for form in ("embed_documents", "sentence-transformers", "callable"):
        assert form in message


def test_binding_calls_nothing():
    counting = Counting()
    assert as_embedder(counting).dim is None
    assert counting.calls == []


# what is checked


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_with_its_text_and_dimension(bad):
    def embed(texts):
        return [[1.0, 2.0, bad if text == "bb" else 3.0] for text in texts]

    with pytest.raises(InvalidVector, match=r"text 2 holds .* at dimension 2"):
        as_embedder(embed).embed_documents(["a longer one", "a", "bb"])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ([[1.0]], "1 vectors for 2 texts"),
        ([[1.0], [2.0], [3.0]], "3 vectors for 2 texts"),
        ([[1.0, 2.0], [1.0]], "text 1 has dimension 1, that of text 0 has 2"),
        ([[1.0, 2.0], None], r"text 1 has shape \(\)"),
        ([[1.0, 2.0], ["x", "y"]], "text 1 is no vector of numbers"),
        ([1.0, 2.0], r"text 0 has shape \(\)"),
        ([[], []], r"text 0 has shape \(0,\)"),
        ([[[1.0]], [[2.0]]], r"text 0 has shape \(1, 1\)"),
        (None, "a NoneType for 2 texts"),
        (7, "a int for 2 texts"),
        ({"a": 1, "b": 2}, "text 0 is no vector of numbers"),
    ],
)
def test_a_result_of_another_shape_is_refused(output, message):
    with pytest.raises(InvalidVector, match=message):
        as_embedder(lambda _: output).embed_documents(["a", "bb"])


def test_the_first_wrong_text_is_named_in_the_callers_order():
    """Texts reach the embedder by length, which is not the order that the caller knows."""
    with pytest.raises(InvalidVector, match="text 0 has shape"):
        as_embedder(lambda texts: [[[1.0]] for _ in texts]).embed_documents(["longest", "short", "mid"])


def test_an_embedder_may_not_change_its_dimension():
    embedder = as_embedder(lambda texts: [[1.0] * len(texts[0])] * len(texts))
    assert embedder.embed_documents(["abc"]).shape == (1, 3)
    with pytest.raises(InvalidVector, match="dimension 5, but this embedder gave 3"):
        embedder.embed_query("abcde")
    assert embedder.dim == 3


@pytest.mark.parametrize("wrong", ["one string", [1], ["a", None], [b"bytes"]])
def test_only_lists_of_strings_are_embedded(wrong):
    counting = Counting()
    with pytest.raises(InvalidInput):
        as_embedder(counting).embed_documents(wrong)
    assert counting.calls == []


def test_an_error_of_the_embedder_reaches_the_caller_as_it_is():
    def embed(texts):
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError, match="no route"):
        as_embedder(embed).embed_query("a")


def test_what_was_embedded_before_an_error_is_not_embedded_again():
    counting = Counting()

    def embed(texts):
        if "fail" in texts and len(counting.calls) == 1:
            raise ConnectionError
        return counting(texts)

    embedder = BoundEmbedder(embed, name="flaky", batch_size=2)
    with pytest.raises(ConnectionError):
        embedder.embed_documents(["a", "b", "fail"])
    counting.calls.append([])
    embedder.embed_documents(["a", "b", "fail"])
    assert sorted(counting.texts) == ["a", "b", "fail"]


def test_no_texts_give_no_vectors():
    embedder = as_embedder(letters)
    assert embedder.embed_documents([]).shape == (0, 0)
    embedder.embed_query("a")
    assert embedder.embed_documents([]).shape == (0, 8)


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=finite))
def test_rows_become_unit_length_or_stay_zero(rows):
    """Also where the squares would overflow or vanish."""
    vectors = unit(rows)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths, rows.any(axis=1).astype(float), atol=1e-6)
    assert (np.sign(vectors) * np.sign(rows) >= 0).all()


# caching and batching


@given(
    lists=st.lists(st.lists(st.text(max_size=6), max_size=12), max_size=4),
    batch_size=st.integers(1, 5),
)
def test_batches_and_cache_change_nothing(lists, batch_size):
    """Any history of calls gives what embedding one by one gives, and no text is embedded twice."""
    counting = Counting()
    embedder = BoundEmbedder(counting, name="letters", batch_size=batch_size)
    for texts in lists:
        vectors = embedder.embed_documents(texts)
        for text, vector in zip(texts, vectors, strict=True):
            np.testing.assert_array_equal(vector, unit(letters([text]))[0])
            np.testing.assert_array_equal(embedder.embed_query(text), vector)
    assert len(counting.texts) == len(set(counting.texts))
    assert all(len(call) <= batch_size for call in counting.calls)


def test_documents_and_queries_are_not_mixed_up_in_the_cache():
    embedder = as_embedder(LangChainStyle())
    for _ in range(2):
        assert not np.array_equal(embedder.embed_documents(["a"])[0], embedder.embed_query("a"))


def test_a_changed_result_does_not_reach_the_cache():
    embedder = as_embedder(letters)
    query = as_embedder(LangChainStyle())
    for ask in (lambda: embedder.embed_documents(["a"])[0], lambda: query.embed_query("a")):
        before = ask().copy()
        ask()[:] = 0
        np.testing.assert_array_equal(ask(), before)


def test_the_cache_is_bounded_and_forgets_the_least_recently_used():
    counting = Counting()
    embedder = BoundEmbedder(lambda texts: [[*row, *[0.0] * 2**20] for row in counting(texts)], name="wide")
    for text in ("a", "b", "a", "c", "d"):  # 4 MiB a vector, 16 MiB in all
        embedder.embed_query(text)
    embedder.embed_query("a")
    assert counting.texts == ["a", "b", "c", "d"]
    embedder.embed_query("b")
    assert counting.texts == ["a", "b", "c", "d", "b"]


def test_progress_counts_every_text_up_to_the_last():
    seen = []
    embedder = BoundEmbedder(letters, name="letters", batch_size=2)
    texts = ["a", "b", "a", "ccc", "dddd", "eeeee"]
    embedder.embed_documents(texts, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 6), (3, 6), (5, 6), (6, 6)]
    embedder.embed_documents(texts, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)


def test_texts_are_batched_by_length():
    """Padding is what a model pays for; neighbours in length pay least."""
    counting = Counting()
    BoundEmbedder(counting, name="letters", batch_size=2).embed_documents(["dddd", "a", "ccc", "bb"])
    assert counting.calls == [["a", "bb"], ["ccc", "dddd"]]


def test_one_sentence_transformers_model_is_never_called_twice_at_once():
    running = threading.Lock()

    class Model(SentenceTransformerStyle):
        def encode(self, sentences, **options):
            assert running.acquire(blocking=False)
            try:
                return super().encode(sentences, **options)
            finally:
                running.release()

    embedder = as_embedder(Model())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: embedder.embed_query(str(number)), range(200)))


# identity


def test_an_embedder_is_described_by_name_dimension_and_probe():
    info = as_embedder(LangChainStyle()).describe()
    assert info.name == "LangChainStyle:letters-1"
    assert info.digest is None
    assert info.dim == 8
    np.testing.assert_array_equal(info.probe, unit(letters([PROBE, f"query: {PROBE}"])))


@pytest.mark.parametrize(
    ("embedder", "name"),
    [
        (letters, f"{letters.__module__}.letters"),
        (functools.partial(letters, dim=4), f"{letters.__module__}.letters"),
        (Counting(), "Counting"),
        (SentenceTransformerStyle(), "SentenceTransformerStyle"),
    ],
)
def test_an_embedder_is_named_after_its_function_or_class(embedder, name):
    assert as_embedder(embedder).name == name


def test_embedders_are_the_same_if_they_do_the_same():
    """Whatever they are called: a renamed function or another precision of the weights is no change."""
    one = as_embedder(letters).describe()
    other = as_embedder(lambda texts: np.asarray(letters(texts)) + 0.5).describe()
    assert one.name != other.name
    assert same_embedder(one, other)


def test_embedders_of_one_name_that_act_differently_are_not_the_same():
    class Prompted(LangChainStyle):
        def embed_query(self, text):
            return letters([f"search: {text}"])[0]

    one, other = as_embedder(LangChainStyle()).describe(), as_embedder(Prompted()).describe()
    assert not same_embedder(one, replace(other, name=one.name))
    assert not same_embedder(as_embedder(letters).describe(), as_embedder(functools.partial(letters, dim=4)).describe())


def test_an_embedder_that_refuses_the_probe_is_known_by_name_and_dimension():
    table = {"a": [1.0, 0.0], "b": [0.0, 1.0]}

    def look_up(texts):
        return [table[text] for text in texts]

    embedder = as_embedder(look_up)
    assert embedder.describe().dim is None
    embedder.embed_query("a")
    info = embedder.describe()
    assert (info.dim, info.probe) == (2, None)
    assert same_embedder(info, as_embedder(look_up).describe())
    assert not same_embedder(info, replace(info, name="another"))
    assert not same_embedder(info, replace(info, dim=3))


def test_a_probe_that_could_not_be_taken_once_is_taken_later():
    down = [True]

    def embed(texts):
        if down[0]:
            raise ConnectionError
        return letters(texts)

    embedder = as_embedder(embed)
    assert embedder.describe().probe is None
    down[0] = False
    assert embedder.describe().probe is not None


def test_without_probes_the_digest_of_the_weights_decides():
    one = EmbedderInfo("name", "aa", 2, None)
    assert same_embedder(one, EmbedderInfo("renamed", "aa", 2, None))
    assert not same_embedder(one, EmbedderInfo("name", "bb", 2, None))


def test_a_probe_of_zeros_says_nothing():
    nothing = EmbedderInfo("name", None, 2, np.zeros((2, 2), dtype=np.float32))
    assert same_embedder(nothing, nothing)
    assert not same_embedder(nothing, replace(nothing, name="another"))
