"""A run that was stopped: what is made with its model says so first."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import hilum
from hilum.errors import UsageError
from hilum.runtime.model_parts import ModelParts
from hilum.tasks import task_catalogue


@pytest.fixture(scope="module")
def stopped(classified, tmp_path_factory) -> Path:
    """A run that was stopped after 2 of its steps, and has a model by then."""
    run = Path(shutil.copytree(classified.out, tmp_path_factory.mktemp("stopped") / "run"))
    (run / "report.html").unlink()
    file = run / "checkpoints" / "last" / "state.json"
    state = json.loads(file.read_text())
    state |= {"step": 2, "pace": {**state["pace"], "steps": 9}}
    file.write_text(json.dumps(state))
    return run


def test_every_verb_says_first_that_the_training_is_not_finished_and_its_record_keeps_it(stopped, classified, tmp_path):
    picture = next(classified.data.rglob("*.png"))
    made = {
        "findings.json": hilum.predict(stopped, picture, out=tmp_path / "predicted", device="cpu"),
        "embeddings.json": hilum.embed(stopped, picture, out=tmp_path / "embedded", device="cpu"),
        "explanations.json": hilum.explain(
            stopped, picture, out=tmp_path / "explained", device="cpu", method="gradcam", tests=0
        ),
        "summary.json": hilum.evaluate(stopped, classified.data, out=tmp_path / "evaluated", device="cpu"),
    }
    words = "the training is not finished: 2 of 9 steps"
    for name, result in made.items():
        assert str(result).splitlines()[0] == words
        assert words in json.dumps(result.as_record())
        assert words[1:] in (result.out / name).read_text()
    before_its_end = replace(hilum.load(stopped), parts=ModelParts())
    before_its_end = replace(before_its_end, task=task_catalogue.untuned_task(before_its_end.task))
    assert before_its_end.unfinished_training == f"{words}; it lacks calibration, thresholds, gate"
    assert str(before_its_end.gate) == "no gate: every image gets an answer (its training is not finished)"
    assert hilum.load(classified.out).unfinished_training == ""
    with pytest.raises(UsageError, match="not finished"):
        hilum.package(stopped, out=tmp_path / "package")
