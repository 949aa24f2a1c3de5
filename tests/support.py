"""A small deterministic embedder for tests: a bag of hashed words, so that texts that share words are near."""

from __future__ import annotations

import hashlib

import numpy as np

DIM = 32


def embed(texts: list[str]) -> np.ndarray:
    """(n, DIM) sums of one fixed random direction per word."""
    return np.stack([_vector(text) for text in texts])


def _vector(text: str) -> np.ndarray:
    total = np.zeros(DIM)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        total += np.random.default_rng(seed).normal(size=DIM)
    return total
