"""What the file at large is like: the yardstick for vectors, taken from a sample and never from labels.

Sentence embeddings share a large common part, and a few directions carry most of their variance. Centring and soft
whitening, which divides each principal direction by the root of 0.8 * mean eigenvalue + 0.2 * its own, take both out:
recall@10 of vectors alone rises by 14 points on LoCoMo chats, and by 3 on BEAM's (`python -m benchmarks.recall`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memkit_storage.rows import Vector
from memkit_storage.sample import Sample
from memkit_storage.tail import unit

OWN = 0.2  # share of its own eigenvalue in the variance that a direction is scaled by
PATIENCE = 64  # versions, at which half of what they say about the whole is believed
RELATED = (0.4, 1.0)  # coherence from which neighbours count, and from which they count fully
_MIN_STD = 1e-3  # a spread below this is rounding of float16, as when all items say the same


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of a query's similarity with the file at large."""

    mean: float
    std: float

    @classmethod
    def of(cls, similarities: npt.NDArray[np.floating]) -> Spread:
        """Of (s,) similarities; of none, one that makes every similarity unremarkable."""
        if not len(similarities):
            return cls(0.0, 1.0)
        return cls(float(similarities.mean()), max(float(similarities.std()), _MIN_STD))

    def z(self, similarities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Similarities in standard deviations above the mean."""
        return np.asarray((similarities - self.mean) / self.std, np.float64)


@dataclass(frozen=True, slots=True)
class Whitening:
    """Centring and soft whitening: x -> (x - mean) matrix.

    Attributes:
        mean: (d,).
        matrix: (d, d), symmetric: one product with it is half the work of one to the principal directions and back.
    """

    mean: Vector
    matrix: Vector

    @classmethod
    def of(cls, vectors: Vector) -> Whitening:
        """From (s, d) unit vectors; the fewer there are, the less it changes."""
        n, d = vectors.shape
        if n < 2:
            return cls(np.zeros(d, np.float32), np.eye(d, dtype=np.float32))
        trust = n / (n + PATIENCE)
        mean = np.asarray(trust * vectors.mean(axis=0), np.float32)
        values, directions = _spectrum(vectors - mean)
        level = float(values.sum()) / d
        scale = 1 / np.sqrt((1 - trust * OWN) * level + trust * OWN * values + 1e-12)
        rest = float(1 / np.sqrt((1 - trust * OWN) * level + 1e-12))  # of directions in which the sample does not vary
        matrix = rest * np.eye(d) + directions.T @ ((scale - rest)[:, None] * directions)
        return cls(mean, np.asarray(matrix, np.float32))

    def apply(self, vectors: Vector) -> Vector:
        """(n, d) unit vectors whitened, at length one again; zero vectors stay zero."""
        there = np.asarray(vectors.any(axis=1))
        centred = np.where(there[:, None], vectors - self.mean, np.float32(0))
        return unit(np.asarray(centred @ self.matrix, np.float32))


def _spectrum(centred: Vector) -> tuple[Vector, Vector]:
    """Eigenvalues (r,) and eigenvectors (r, d) of the covariance of (n, d) rows, by the smaller of the two products."""
    n, d = centred.shape
    if n >= d:
        values, directions = np.linalg.eigh(centred.T @ centred / n)
        return np.maximum(values, 0), np.ascontiguousarray(directions.T)
    values, weights = np.linalg.eigh(centred @ centred.T / n)
    keep = values > 1e-6 * max(float(values[-1]), 1e-12)
    directions = (weights[:, keep] / np.sqrt(n * values[keep])).T @ centred
    return values[keep], np.ascontiguousarray(directions)


@dataclass(frozen=True, slots=True)
class Background:
    """A file's yardstick.

    Attributes:
        raw, white: (s, d) vectors of the sample, as they are and whitened.
        coherence: how many standard deviations nearer to each other neighbours are than strangers, as far as it
            matters: 0 where neighbours have nothing to do with each other, as passages in a row, 1 in a conversation.
    """

    raw: Vector
    white: Vector
    whitening: Whitening
    coherence: float

    @classmethod
    def of(cls, sample: Sample) -> Background:
        """From a sample; costs an eigendecomposition."""
        whitening = Whitening.of(sample.vectors)
        white = whitening.apply(sample.vectors)
        return cls(sample.vectors, white, whitening, _coherence(white, sample.pairs))


def _coherence(white: Vector, pairs: npt.NDArray[np.int64]) -> float:
    if len(pairs) < 2:
        return 0.5  # unknown
    near = np.vecdot(white[pairs[:, 0]], white[pairs[:, 1]])
    strangers = np.vecdot(white, np.roll(white, len(white) // 2, axis=0))
    found = (near.mean() - strangers.mean()) / max(float(strangers.std()), _MIN_STD)
    low, high = RELATED
    return float(np.clip((found - low) / (high - low), 0, 1))
