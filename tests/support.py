"""A small deterministic embedder for tests (a bag of hashed words: texts that share words are near), and threads."""

from __future__ import annotations

import hashlib
import threading

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


def at_once(*works):
    """Run functions in threads that begin together; what one raises is raised here."""
    start, failures = threading.Barrier(len(works)), []

    def guarded(work):
        start.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread's error would be lost
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
