"""Minutes that one training leaves train further networks, of other seeds; the model is their mean."""

from __future__ import annotations

import signal
from itertools import count

import numpy as np
import pytest

import hilum
import trained
from hilum.errors import PlanError
from hilum.layouts import dataset_layouts
from hilum.planning import plan_file
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import task_settings

THREE = {**trained.TWO_STEPS, "training.networks": 3}


@pytest.fixture(scope="module")
def averaged(classified, tmp_path_factory):
    return classified.data, trained.classifying(
        classified.data, tmp_path_factory.mktemp("networks") / "run", assignments=THREE
    ).out


def probabilities(model, data) -> np.ndarray:
    return np.array(
        [
            [*model.predict(case).confidence.uncalibrated.values()]
            for case in list(dataset_layouts.read_dataset(data))[:6]
        ]
    )


@pytest.mark.whole
def test_the_model_of_a_run_is_the_mean_of_its_networks_which_differ(averaged):
    data, run = averaged
    each = [probabilities(hilum.load(run, "cpu", fold=number), data) for number in range(3)]
    assert isinstance(hilum.load(run, "cpu").networks.run, AveragedNetwork)
    assert not np.allclose(each[0], each[1])
    assert not np.allclose(each[1], each[2])
    assert probabilities(hilum.load(run, "cpu"), data) == pytest.approx(np.mean(each, axis=0), abs=1e-6)


@pytest.mark.whole
def test_the_run_was_scored_with_the_model_that_it_gives(averaged, tmp_path):
    data, run = averaged
    again = hilum.evaluate(run, data)
    before = {(row["metric"], row["label"]): row["value"] for row in trained.rows_of(run)}
    now = {(row.metric, row.label): row.estimate.value for row in again.rows}
    assert {name: value for name, value in now.items() if np.isfinite(value)} == pytest.approx(
        {name: value for name, value in before.items() if value is not None}, abs=1e-6
    )


@pytest.mark.whole
def test_the_threshold_is_that_of_the_mean_and_not_of_a_single_network(averaged):
    _, run = averaged
    task = hilum.load(run, "cpu").task
    assert task_settings.settings_of(task)["thresholds"] == plan_file.read_plan(run / "plan.yaml")["task.thresholds"]


@pytest.mark.whole
def test_a_run_stopped_in_a_further_network_goes_on_to_the_same_model(averaged, tmp_path):
    data, run = averaged
    moments = count()

    def pressed(moment):
        if next(moments) == 3:  # the second step of the second network
            signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        trained.classifying(data, tmp_path / "run", assignments=THREE)
    hilum.train(resume=tmp_path / "run")
    ours, theirs = (probabilities(hilum.load(one, "cpu"), data) for one in (tmp_path / "run", run))
    assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.whole
def test_minutes_that_are_left_train_five_networks_and_the_plan_says_why(classified, tmp_path):
    chosen = {"training.steps": None, "training.epochs": 1, "split.inner_folds": 0, "guard.gate": False}
    run = trained.classifying(classified.data, tmp_path / "run", minutes=30, assignments=chosen)
    plan = plan_file.read_plan(run.out / "plan.yaml")
    assert plan["training.networks"] == 5
    assert "never above" in plan.decision("training.networks").because
    assert "left" in plan.decision("training.networks").because


def test_a_number_of_steps_leaves_no_minutes_and_one_network(classified):
    assert plan_file.read_plan(classified.out / "plan.yaml")["training.networks"] == 1


def test_folds_are_networks_of_one_model_already(classified, tmp_path):
    with pytest.raises(PlanError, match="--folds makes a model of several networks already"):
        trained.classifying(classified.data, tmp_path / "run", folds=2, assignments=THREE)
