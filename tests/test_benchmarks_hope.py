"""The five-task benchmark on a small scale: its figures mean what it says they mean."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.hope.continual import ROWS, Task, digits, main, run
from benchmarks.hope.learners import Network, rls


class Forgetful:
    """Knows the labels of the task it met last, and gives the first of them for all else."""

    def learn(self, x, y):
        self.known = {tuple(row.tolist()): int(label) for row, label in zip(x, y, strict=True)}
        self.first = int(y[0])

    def predict(self, x):
        return torch.tensor([self.known.get(tuple(row.tolist()), self.first) for row in x])

    def size(self):
        return 7


def tasks(count: int = 3) -> list[Task]:
    x = torch.eye(2 * count)
    y = torch.arange(2 * count)
    return [Task(x[i : i + 2], y[i : i + 2], x[i : i + 2], y[i : i + 2]) for i in range(0, 2 * count, 2)]


def test_forgetting_is_what_was_known_and_is_not_any_more():
    outcome = run(Forgetful(), tasks())
    assert outcome.accuracy == pytest.approx(1 / 3)
    assert (outcome.forgetting, outcome.relative, outcome.size) == (1, 1, 7)


def test_least_squares_forgets_nothing_where_keys_are_orthogonal():
    outcome = run(rls(6, 6, 0.1), tasks())
    assert (outcome.accuracy, outcome.relative) == (1, 0)


def test_a_network_that_is_fine_tuned_forgets_and_one_that_replays_does_not():
    torch.manual_seed(0)
    some = digits(0, permuted=False)
    assert run(Network(1_024, 10, 1e-3), some).relative > 0.6
    assert run(Network(1_024, 10, 1e-3, replay=None), some).relative < 0.2


@pytest.mark.parametrize("permuted", [False, True])
def test_tasks_have_unit_features_and_share_no_example_between_learning_and_test(permuted):
    for task in digits(1, permuted=permuted):
        torch.testing.assert_close(task.x.norm(dim=1), torch.ones(len(task.x)))
        assert len(task.x) > 2 * len(task.test_x) > 0
        learned = {row.numpy().tobytes() for row in task.x}
        assert not any(row.numpy().tobytes() in learned for row in task.test_x)
        assert len(task.y.unique()) == (10 if permuted else 2)


def test_the_command_prints_a_table_and_writes_its_figures(capsys, tmp_path):
    main(["--protocols", "split", "--seeds", "2", "--rows", "Hebbian,delta rule", "--json", str(tmp_path / "o.json")])
    printed = capsys.readouterr().out
    assert "class-incremental" in printed
    assert "| Hebbian | " in printed
    found = json.loads((tmp_path / "o.json").read_text())["split"]
    assert set(found) == {"Hebbian", "delta rule"} <= set(ROWS)
    assert all(len(outcomes) == 2 for outcomes in found.values())
