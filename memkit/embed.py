"""Any embedder behind one door: float32 rows of unit length, checked, cached, batched, identified.

    texts ──▶ cache ──▶ distinct missing texts, by length ──▶ your embedder ──▶ check ──▶ unit rows

`as_embedder` takes the object that you pass to `Memory(path, embedder=...)`; `default_embedder` is what
`Memory` uses when you pass none. Neither loads a model: that happens with the first text.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memkit_storage.errors import InvalidInput, InvalidVector
from memkit_storage.rows import Vector

Matrix = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all)."""

# Stored in files by its vectors: changing it makes every embedder look changed.
PROBE = "The 07:40 ferry to Pico was late again, so Zoë kept both tickets."
SAME = 0.99  # cosine on PROBE; the int8 and fp32 weights of one model agree to 0.999
CACHE_BYTES = 16 * 2**20
_TINY = 1e-200  # squares between this and its inverse have lost nothing to under- or overflow


class Embedder(Protocol):
    """What memkit asks of an embedder; LangChain's `Embeddings` has this shape."""

    def embed_documents(self, texts: list[str]) -> Any:
        """Vectors of texts to be stored: array-like (n, d), finite, in order."""

    def embed_query(self, text: str) -> Any:
        """Vector of a text to search with: array-like (d,)."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbedderInfo:
    """Who made a file's vectors.

    Attributes:
        name: model or class, for people.
        digest: sha256 of the weights, where known.
        dim: d, or None while no text has been embedded.
        probe: (2, d) unit vectors of PROBE as document and as query; None if the embedder refuses that text.
    """

    name: str
    digest: str | None
    dim: int | None
    probe: Matrix | None


def same_embedder(a: EmbedderInfo, b: EmbedderInfo) -> bool:
    """Whether vectors of the two may be compared: judged by what they do, by name only where that is unknown.

    Two probes decide alone, whatever the names and digests say; without them the digests, then the names.
    """
    if a.dim is not None and b.dim is not None and a.dim != b.dim:
        return False
    if a.probe is not None and b.probe is not None and a.probe.any() and b.probe.any():
        return bool((_cosines(a.probe, b.probe) >= SAME).all())
    if a.digest is not None and b.digest is not None:
        return a.digest == b.digest
    return a.name == b.name


def _cosines(a: Matrix, b: Matrix) -> Vector:
    """(n,) cosines of rows; two zero rows are alike."""
    a, b = unit(a), unit(b)
    alike: Vector = np.where(a.any(axis=1) | b.any(axis=1), (a * b).sum(axis=1), np.float32(1))
    return alike


def as_embedder(embedder: object) -> BoundEmbedder:
    """The embedder that the user passed, behind memkit's door. Loads and calls nothing.

    Args:
        embedder: an object with `embed_documents` and `embed_query` (LangChain style), a sentence-transformers
            model, or a callable `list[str] -> (n, d)` array.

    Raises:
        InvalidInput: it is none of these.

    >>> as_embedder(lambda texts: [[len(text), 1.0] for text in texts]).embed_query("four").round(2).tolist()
    [0.9700000286102295, 0.23999999463558197]
    """
    if isinstance(embedder, BoundEmbedder):
        return embedder
    if not isinstance(embedder, (type, str)):  # a class has the methods but no model; a string has `encode`
        documents, query = (_method(embedder, name) for name in ("embed_documents", "embed_query"))
        if documents and query:
            return BoundEmbedder(documents, query, name=_name(embedder))
        if _method(embedder, "encode"):
            return _sentence_transformer(embedder)
        if callable(embedder) and not inspect.iscoroutinefunction(embedder):
            return BoundEmbedder(embedder, name=_name(embedder))
    raise InvalidInput(
        f"embedder={embedder!r:.80} of type {type(embedder).__qualname__} cannot embed; pass an object with "
        "embed_documents and embed_query (LangChain style), a sentence-transformers model, "
        "or a callable list[str] -> (n, d) array"
    )


@functools.cache
def default_embedder() -> BoundEmbedder:
    """all-MiniLM-L6-v2 from pip-installed weights: offline, verified by sha256, shared by the whole process."""
    from memkit.minilm import NAME, MiniLM

    model = MiniLM()
    return BoundEmbedder(model.embed, name=NAME, digest=model.digest, batch_size=64)


class BoundEmbedder:
    """An embedder whose vectors can be trusted: (n, d) float32, finite, unit length or zero, of one dimension.

    Equal texts are embedded once; recent ones are remembered (CACHE_BYTES). Safe to call from several threads;
    the embedder itself is then called from several threads too (a sentence-transformers model one at a time).
    """

    def __init__(
        self,
        documents: Callable[[list[str]], Any],
        query: Callable[[str], Any] | None = None,
        *,
        name: str,
        digest: Callable[[], str | None] = lambda: None,
        batch_size: int = 256,
    ) -> None:
        self.name = name
        self._documents = documents
        self._query = query
        self._digest = digest
        self._batch_size = batch_size
        self._cache = _Cache(CACHE_BYTES)
        self._lock = threading.Lock()
        self._dim: int | None = None
        self._probe: Matrix | None = None

    @property
    def dim(self) -> int | None:
        """d, known once a text has been embedded."""
        return self._dim

    def embed_documents(self, texts: list[str], *, progress: Progress | None = None) -> Matrix:
        """(n, d) float32 in the order of `texts`; (0, d) for none.

        Args:
            texts: what will be stored.
            progress: called with (done, total) after each batch.

        Raises:
            InvalidInput: not a list of strings.
            InvalidVector: the embedder returned NaN, infinity, another number of vectors or another dimension;
                names the text.
        """
        first = _first_places(texts)
        known = {text: vector for text in first if (vector := self._cache.get(("document", text))) is not None}
        missing = sorted((text for text in first if text not in known), key=len)
        report = _reporter(texts, progress)
        report(known)
        for start in range(0, len(missing), self._batch_size):
            batch = missing[start : start + self._batch_size]
            vectors = self._checked(self._documents(list(batch)), [first[text] for text in batch])
            for text, vector in zip(batch, vectors, strict=True):
                known[text] = vector
                self._cache.put(("document", text), vector)
            report(batch)
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, self._dim or 0), np.float32)

    def embed_query(self, text: str) -> Vector:
        """(d,) float32. Raises like `embed_documents`."""
        if self._query is None:
            vector: Vector = self.embed_documents([text])[0]
            return vector
        _first_places([text])
        cached = self._cache.get(("query", text))
        if cached is None:
            cached = self._checked([self._query(text)], [0])[0]
            self._cache.put(("query", text), cached)
        return cached.copy()

    def describe(self) -> EmbedderInfo:
        """Name, digest, dimension and probe. The first call embeds PROBE, and so loads the model."""
        if self._probe is None:
            self._probe = self._probed()
        return EmbedderInfo(self.name, self._digest(), self._dim, self._probe)

    def _probed(self) -> Matrix | None:
        try:
            return np.stack([self.embed_documents([PROBE])[0], self.embed_query(PROBE)])
        except Exception:  # noqa: BLE001 - one that knows only some texts may refuse in any way; its name remains
            return None

    def _checked(self, output: Any, places: list[int]) -> Matrix:
        """(n, d) unit rows; `places` are the texts' indices in the caller's list, for messages."""
        rows = _as_matrix(output, places)
        with self._lock:
            self._dim = self._dim or rows.shape[1]
            if rows.shape[1] != self._dim:
                raise InvalidVector(
                    f"the embedding of text {min(places)} has dimension {rows.shape[1]}, but this embedder "
                    f"gave {self._dim} before; an embedder must keep one dimension"
                )
        return unit(rows)


class _Cache:
    """Vectors of recent texts by (kind, text), bounded by bytes; the least recently used leave first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._entries: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> Vector | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: tuple[str, str], vector: Vector) -> None:
        vector = vector.copy()  # a view would keep its whole batch alive
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = vector
            self._size += _cost(key, vector)
            while self._size > self._capacity:
                self._size -= _cost(*self._entries.popitem(last=False))


def _cost(key: tuple[str, str], vector: Vector) -> int:
    """Bytes, about: a text may take up to four a character, but mostly takes one."""
    return len(key[1]) + int(vector.nbytes)


def _method(embedder: object, name: str) -> Callable[..., Any] | None:
    method = getattr(embedder, name, None)
    return method if callable(method) else None


def _name(embedder: Any) -> str:
    """`Class:model` for an object that says its model, the qualified name of a function."""
    if isinstance(embedder, functools.partial):
        return _name(embedder.func)
    if inspect.isroutine(embedder):
        return f"{embedder.__module__}.{embedder.__qualname__}"
    model = next(
        (value for field in ("model", "model_name") if isinstance(value := getattr(embedder, field, None), str)),
        "",
    )
    return f"{type(embedder).__qualname__}:{model}" if model else type(embedder).__qualname__


def _sentence_transformer(model: Any) -> BoundEmbedder:
    """A sentence-transformers model; from version 5 on its own document and query prompts are used."""
    lock = threading.Lock()  # its tokenizer is set up anew in each call, so two calls at once may fail

    def run(encode: Callable[..., Any], texts: list[str]) -> Any:
        with lock:
            return encode(texts, show_progress_bar=False, convert_to_numpy=True)

    documents = getattr(model, "encode_document", model.encode)
    queries = getattr(model, "encode_query", model.encode)
    return BoundEmbedder(lambda texts: run(documents, texts), lambda text: run(queries, [text])[0], name=_name(model))


def _first_places(texts: list[str]) -> dict[str, int]:
    """Each distinct text with its first index."""
    if isinstance(texts, str):
        raise InvalidInput(f"texts={texts!r:.80} is one string; pass a list of strings")
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"text {index} is of type {type(text).__qualname__}, not str")
        first.setdefault(text, index)
    return first


def _reporter(texts: list[str], progress: Progress | None) -> Callable[[Any], None]:
    """A function that adds finished distinct texts to the count, repeats included, and reports it."""
    if progress is None:
        return lambda _: None
    counts, done = Counter(texts), 0

    def report(finished: Any) -> None:
        nonlocal done
        done += sum(counts[text] for text in finished)
        progress(done, len(texts))

    return report


def _as_matrix(output: Any, places: list[int]) -> npt.NDArray[np.float64]:
    """The embedder's output as finite numbers (n, d), d >= 1; n = len(places)."""
    if hasattr(output, "detach"):  # a torch tensor, perhaps on another device or with a gradient
        output = output.detach().float().cpu().numpy()
    rows = list(output) if isinstance(output, Iterator) else output
    if not hasattr(rows, "__len__") or len(rows) != len(places):
        got = f"{len(rows)} vectors" if hasattr(rows, "__len__") else f"a {type(rows).__qualname__}"
        raise InvalidVector(
            f"the embedder returned {got} for {len(places)} texts; it must return one vector for each, in order"
        )
    try:
        matrix = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return _one_by_one(rows, places)
    if matrix.ndim != 2 or not matrix.shape[1] or not np.isfinite(matrix).all():
        return _one_by_one(rows, places)
    return matrix


def _one_by_one(rows: Any, places: list[int]) -> npt.NDArray[np.float64]:
    """Like `_as_matrix` for rows that are wrong somewhere: names the first such text."""
    vectors: dict[int, npt.NDArray[np.float64]] = {}
    for place, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0]):
        vectors[place] = _as_vector(row, place)
        dim = vectors[min(vectors)].size
        if vectors[place].size != dim:
            raise InvalidVector(
                f"the embedding of text {place} has dimension {vectors[place].size}, "
                f"that of text {min(vectors)} has {dim}; an embedder must keep one dimension"
            )
    return np.stack([vectors[place] for place in places])


def _as_vector(row: Any, place: int) -> npt.NDArray[np.float64]:
    try:
        vector = np.asarray(row, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidVector(f"the embedding of text {place} is no vector of numbers: {row!r:.80}") from None
    if vector.ndim != 1 or not vector.size:
        raise InvalidVector(f"the embedding of text {place} has shape {vector.shape}; it must be one vector (d,)")
    wrong = np.flatnonzero(~np.isfinite(vector))
    if wrong.size:
        raise InvalidVector(
            f"the embedding of text {place} holds {vector[wrong[0]]} at dimension {wrong[0]}; "
            "leave that text out, or have the embedder return finite numbers"
        )
    return vector


def unit(vectors: npt.ArrayLike) -> Matrix:
    """Rows (n, d) at length 1, float32; a zero row stays zero. Exact for tiny and huge numbers too."""
    rows = np.asarray(vectors, dtype=np.float64)
    with np.errstate(over="ignore"):
        squares = np.vecdot(rows, rows)
    if squares.size and squares.min() > _TINY and squares.max() < 1 / _TINY:  # the square root is exact enough
        return np.asarray(rows / np.sqrt(squares)[:, None], np.float32)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)  # first, so that no square over- or underflows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
