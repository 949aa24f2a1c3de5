"""A small deterministic embedder for tests (a bag of hashed words: texts that share words are near), and works that run
at once, in threads or in processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np

DIM = 32
_gate = None  # of a process of `two_processes`: where it waits for the other one


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


@contextmanager
def two_processes():
    """A function that runs two works at once, each on a memory of its own of one file, and returns what they return.

    A work is a function of a module, or a `partial` of one, that takes the memory. What one raises is raised here.
    """
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(2)

    def run(path, *works):
        gate.reset()
        futures = [pool.submit(_work, path, work) for work in works]
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return [future.result() for future in futures]

    with ProcessPoolExecutor(2, mp_context=context, initializer=_begin, initargs=(gate,)) as pool:
        yield run


def meet():
    """In a work of `two_processes`: go on when the other one is here, too."""
    _gate.wait(60)


def _begin(gate):
    globals()["_gate"] = gate


def _work(path, work):
    from memkit import Memory

    try:
        with Memory(path, embedder=embed, cache_dir=path.parent / "cache", durability="os") as memory:
            meet()
            return work(memory)
    except BaseException:
        _gate.abort()  # the other one need not wait
        raise
