"""The benchmark of intents that come in sequence: what its rows have in common, and that memkit's own rows learn."""

from __future__ import annotations

import pytest
import torch
from support import embed
from torch.nn.functional import normalize

from benchmarks.hope import intents
from benchmarks.hope.continual import Task, run
from benchmarks.hope.learners import rls

WORDS = ("boat", "dog", "piano", "garden", "cello", "bike")
TEXTS = [f"{word} {word} number {i}" for word in WORDS for i in range(12)]
VECTORS = normalize(torch.from_numpy(embed(TEXTS)).float(), dim=1)
LABELS = torch.arange(len(WORDS)).repeat_interleave(12)


def stream():
    """Two intents a task, of ten examples and two to test with."""
    tested = torch.arange(len(TEXTS)) % 12 >= 10
    tasks = []
    for first in (0, 2, 4):
        among = (first == LABELS) | (first + 1 == LABELS)
        learn, ask = among & ~tested, among & tested
        tasks.append(Task(VECTORS[learn], LABELS[learn], VECTORS[ask], LABELS[ask]))
    return tasks


def test_least_squares_in_sequence_are_joint_ridge_regression():
    tasks = stream()
    joint, recursive = intents.Joint(intents.ridge(0.1)), rls(32, len(WORDS), 0.1)
    for task in tasks:
        joint.learn(task.x, task.y)
        recursive.learn(task.x, task.y)
    assert torch.equal(joint.predict(VECTORS), recursive.predict(VECTORS))


@pytest.mark.parametrize("solve", [intents.discriminant(0.5), intents.logistic(10.0)])
def test_joint_rows_learn(solve):
    pytest.importorskip("sklearn")
    assert run(intents.Joint(solve), stream()).accuracy > 0.9


def test_the_memory_of_needs_and_a_head_learn():
    assert run(intents.Needs(32), stream()).accuracy > 0.8
    assert run(intents.Head(32, len(WORDS), 1e-2), stream()).accuracy > 0.3


@pytest.mark.parametrize("sleeps", [False, True])
def test_intents_that_are_items_are_taught_by_feedback(sleeps):
    said = {vector.numpy().tobytes(): text for vector, text in zip(VECTORS, TEXTS, strict=True)}
    learner = intents.Taught(said, WORDS, embed, sleeps=sleeps)
    assert run(learner, stream()).accuracy > 0.9
    assert bool(learner.memory.bands()) is sleeps
    assert run(intents.Examples(said, WORDS, embed), stream()).accuracy > 0.8
