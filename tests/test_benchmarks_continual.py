"""The benchmark of facts in batches: what it draws, that nothing asked is trained, and that its learners run."""

from __future__ import annotations

import gzip
import json
from argparse import Namespace

import numpy as np
import pytest
from lm_support import tiny
from slow_lm_support import Words

from benchmarks.continual import __main__ as main
from benchmarks.continual import asking, facts, learners, report


@pytest.fixture
def data(tmp_path):
    """Relations data of the form that the benchmark reads."""
    folder = tmp_path / "relations" / "factual"
    folder.mkdir(parents=True)
    for name in facts.RELATIONS:
        samples = [{"subject": f"s{at}", "object": f"Object{at}"} for at in range(40)]
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            json.dump({"name": name, "samples": samples}, file)
    return folder.parent


def test_batches_are_drawn_by_seed_and_no_subject_comes_twice(data):
    drawn = facts.batches(data, seed=3)
    assert [len(batch) for batch in drawn] == [10] * 5
    assert drawn == facts.batches(data, seed=3) != facts.batches(data, seed=4)
    subjects = [{fact.subject for fact in batch} for batch in drawn]
    assert len(set.union(*subjects)) == sum(map(len, subjects))
    taught = set.union(*subjects)
    others = facts.strangers(data, seed=3)
    assert len(others) == 20 and not taught & {fact.subject for fact in others}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_is_asked_is_among_the_forms_that_are_trained(data, seed):
    drawn = [fact for batch in facts.batches(data, seed=seed) for fact in batch]
    made = learners.lessons(drawn)
    assert [one.subject for one in made] == [fact.subject for fact in drawn]
    trained = {text for one in made for form in one.forms for text in (form.prompt, form.lead)}
    assert not trained & {text for fact in drawn for text in (fact.completion, fact.question)}
    assert all(asking.holds(one.forms[0].answer, fact.value) for one, fact in zip(made, drawn, strict=True))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of peft
@pytest.mark.parametrize("name", ["frozen", "full", "LoRA", "EWC", "replay50", "kNN", "band", "memory"])
def test_every_learner_runs_on_a_tiny_model(data, tmp_path, monkeypatch, name):
    if name in {"LoRA", "EWC", "replay50"}:
        pytest.importorskip("peft")
    monkeypatch.setattr(main, "load", lambda *_: (tiny(), Words()))
    monkeypatch.setattr(learners, "STEPS", 2)
    monkeypatch.setattr(asking, "TEXT_TOKENS", 512)
    monkeypatch.setattr(learners.Band, "recipe", learners.Recipe(steps=2))
    options = Namespace(model="tiny", data=data, batches=2, facts=4, device="cpu")
    result = main.run(name, 0, options, tmp_path)
    assert np.array(result["matrix"][-1]).shape == (2, 2)
    assert result["text"] == pytest.approx(0.0, abs=1e-6) or name not in {"frozen", "band", "memory"}
    assert (result["bytes"] > 0) == (
        name != "frozen"
    ) or name == "memory"  # whose gate lets nothing in that is not told


def test_runs_become_a_table_and_a_figure(tmp_path):
    pytest.importorskip("matplotlib")
    made = {"seed": 0, "seconds": 60.0, "bytes": 1e6, "tokens": 0.0, "text": 0.001, "controls": 1.0, "strangers": 1.0}
    good = [[[1.0, 1.0]], [[1.0, 0.5], [1.0, 1.0]]]
    runs = [
        {**made, "name": "LoRA", "learner": "LoRA", "matrix": [[[1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]]},
        {**made, "name": "band", "learner": "band", "matrix": good},
    ]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(json.dumps(run) for run in runs))
    assert report.read(path) == runs
    assert report.done(path, "band", 0) and not report.done(path, "band", 1)
    assert [report.forgetting(run) for run in runs] == [1.0, 0.25]
    assert "| LoRA | 1 | 50.0% | 50.0% | 100.0% | 100.0% |" in report.table(runs)
    report.figure(runs, tmp_path / "figures" / "continual.svg")
    assert (tmp_path / "figures" / "continual.svg").stat().st_size < 60_000
