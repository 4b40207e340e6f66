"""Each case passes the network that has not seen it once, whoever asks for its prediction."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import hilum
import trained
from hilum.networks import network_parts
from hilum.planning import plan_checks, plan_file
from hilum.reading import ReadingOptions, dataset_reading
from hilum.runs import _run_minutes, training_loop
from hilum.runs._run_minutes import Cuts
from hilum.runs.tuning import UnseenPredictions
from hilum.runtime.torch_networks import KeptOutputs, TorchNetwork
from hilum.tasks import fitting
from hilum.tasks.fitting import PredictedCases
from hilum.values import Image


@pytest.fixture
def computed(monkeypatch):
    """{module: {content of a batch: how often it has passed it}}, of all predictions."""
    passed = defaultdict[torch.nn.Module, Counter](Counter)
    features, plain = network_parts.compute_features, TorchNetwork.__call__

    def counted(module, images, *context, **how):
        passed[module][images.numpy().tobytes()] += 1
        return features(module, images, *context, **how)

    def counted_plain(self, images, *context):
        passed[self.module][images.tobytes()] += 1
        return plain(self, images, *context)

    monkeypatch.setattr(network_parts, "compute_features", counted)
    monkeypatch.setattr(TorchNetwork, "__call__", counted_plain)
    return passed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return trained.pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture
def model(pictures):
    """A classification of these pictures that has learnt nothing."""
    size = {"network.size": trained.SMALL_RESNET}
    torch.manual_seed(0)
    return _run_minutes.fresh_model(
        plan_checks.checked_settings(hilum.plan(pictures, device="cpu", threads=1, assignments=size).plan)
    )


@pytest.fixture(scope="module")
def cases(pictures):
    return list(dataset_reading.open_dataset(pictures, ReadingOptions()))


@pytest.mark.whole
def test_a_run_of_three_folds_predicts_each_test_case_once_by_its_fold(computed, pictures, tmp_path):
    """Belief, the gate and the scores of its answers ask for it."""
    chosen = {**trained.TWO_STEPS, "network.size": trained.SMALL_RESNET, "guard.error": 0.5, "guard.delta": 0.5}
    run = trained.classifying(pictures, tmp_path / "run", folds=3, assignments=chosen).out
    split = pd.read_csv(run / "split.csv", dtype=str)
    assert sorted(split.loc[split["split"] == "test", "case"].astype(int)) == list(range(24))
    prepared = hilum.load(run, "cpu", fold=0).preprocessing
    folds = [each for each in computed.values() if len(each) == 24]  # of the others the gate looks at each
    assert len(folds) == 3
    for case in dataset_reading.open_dataset(pictures, ReadingOptions()):
        pixels, _ = prepared.open_image(next(iter(case.images.values())), case.id)
        batch = np.asarray(pixels, np.float32)[None].tobytes()
        assert [each[batch] for each in folds] == [1, 1, 1]


def test_what_a_calibrated_model_says_and_the_gate_sees_of_kept_outputs_is_the_same_to_the_bit(model, cases, computed):
    unseen = UnseenPredictions()
    predictions = unseen.predict(model, model.task, cases)
    task, _ = fitting.with_fitted_calibration(model.task, PredictedCases(predictions, cases))
    seen = [observation.features for observation, _ in unseen.observe(model, cases)]
    tuned = replace(model, task=task)
    again = [unseen.by(tuned).predict(case) for case in cases]
    assert {count for each in computed.values() for count in each.values()} == {1}
    assert [one.probabilities for one in again] == [tuned.predict(case).probabilities for case in cases]
    assert again[0].probabilities != predictions[0].probabilities
    for case, own in zip(cases, seen, strict=True):
        assert np.array_equal(model.observe(case)[0].features, own)


def test_what_does_not_fit_into_the_memory_for_outputs_is_computed_again(model, cases, computed):
    unseen = UnseenPredictions(KeptOutputs(limit=0))
    first, second = (unseen.predict(model, model.task, cases[:2]) for _ in range(2))
    assert {count for each in computed.values() for count in each.values()} == {2}
    assert [one.probabilities for one in first] == [one.probabilities for one in second]


def test_after_it_is_closed_what_is_known_stays_and_nothing_is_added(model, cases, computed):
    unseen = UnseenPredictions()
    unseen.predict(model, model.task, cases[:2])
    unseen.outputs.close()
    unseen.predict(model, model.task, cases[:4])
    unseen.predict(model, model.task, cases[:4])
    [counts] = computed.values()
    assert sorted(counts.values()) == [1, 1, 2, 2]


def test_a_changed_image_of_the_same_name_is_another_image(model, cases):
    unseen, case = UnseenPredictions(), cases[0]
    name, image = next(iter(case.images.items()))
    unseen.predict(model, model.task, [case])
    changed = replace(case, images={name: Image(np.asarray(image.data)[..., ::-1] / 2, image.geometry)})
    [known] = unseen.predict(model, model.task, [changed])
    assert known.probabilities == model.predict(changed).probabilities


def test_who_writes_into_outputs_does_not_change_those_that_are_kept(model):
    batch, kept = np.ones((1, int(model.networks.architecture["channels"]), 24, 24), np.float32), KeptOutputs()
    run = UnseenPredictions(kept).by(model).networks.run
    [head] = model.task.heads
    first = run(batch)[head].copy()
    for _ in range(2):
        assert np.array_equal(run(batch)[head], first)
        run(batch)[head][:] = 7


@pytest.mark.parametrize(
    ("cuts", "gate", "deciding"),
    [
        (
            Cuts(tuned=5, looking=(-1.0, 3600.0)),
            "gate cut short (30 of 54 training cases, and 5 of 10 that did not train it; the minutes were over)",
            "; 5 of 10 cases, the minutes were over",
        ),
        pytest.param(
            Cuts(looking=(0.0, 0.0)),
            "no gate: every image gets an answer (the minutes were over before",
            "",
            marks=pytest.mark.whole,
        ),
    ],
)
def test_what_the_clock_cut_short_says_so_in_model_plan_report_and_answers(monkeypatch, tmp_path, cuts, gate, deciding):
    monkeypatch.setattr(training_loop.TrainingLoop, "cuts", lambda self, networks: cuts)
    data = trained.pictures(tmp_path / "pictures", 80)
    run = trained.gating(data, tmp_path / "run").out
    assert str(hilum.load(run, "cpu").gate).startswith(gate)
    plan = plan_file.read_plan(run / "plan.yaml")
    assert any(deciding in decision.because for decision in plan.sections["task"].values())
    answers = hilum.predict(run, next(data.rglob("*.png")), out=tmp_path / "answers")
    assert gate in repr(answers)
