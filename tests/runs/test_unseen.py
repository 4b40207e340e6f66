"""Each case passes the network that has not seen it once, whoever asks for its prediction."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import isocenter
import trained
from isocenter import networks
from isocenter.planning import settings
from isocenter.reading import ReadingOptions, open_dataset
from isocenter.runs import Unseen, fresh_model
from isocenter.runtime import KeptOutputs, TorchNetwork
from isocenter.tasks import Evidence, with_calibration
from isocenter.values import Image


@pytest.fixture
def computed(monkeypatch):
    """{module: {content of a batch: how often it has passed it}}, of all predictions."""
    passed = defaultdict[torch.nn.Module, Counter](Counter)
    features, plain = networks.features, TorchNetwork.__call__

    def counted(module, images, *context, **how):
        passed[module][images.numpy().tobytes()] += 1
        return features(module, images, *context, **how)

    def counted_plain(self, images, *context):
        passed[self.module][images.tobytes()] += 1
        return plain(self, images, *context)

    monkeypatch.setattr(networks, "features", counted)
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
    return fresh_model(settings(isocenter.plan(pictures, device="cpu", threads=1, assignments=size).plan))


@pytest.fixture(scope="module")
def cases(pictures):
    return list(open_dataset(pictures, ReadingOptions()))


@pytest.mark.whole
def test_a_run_of_three_folds_predicts_each_test_case_once_by_its_fold(computed, pictures, tmp_path):
    """Belief, the gate and the scores of its answers ask for it."""
    chosen = {**trained.TWO_STEPS, "network.size": trained.SMALL_RESNET, "guard.error": 0.5, "guard.delta": 0.5}
    run = trained.classifying(pictures, tmp_path / "run", folds=3, assignments=chosen).out
    split = pd.read_csv(run / "split.csv", dtype=str)
    assert sorted(split.loc[split["split"] == "test", "case"].astype(int)) == list(range(24))
    prepared = isocenter.load(run, "cpu", fold=0).preprocessing
    folds = [each for each in computed.values() if len(each) == 24]  # of the others the gate looks at each
    assert len(folds) == 3
    for case in open_dataset(pictures, ReadingOptions()):
        pixels, _ = prepared.opened(next(iter(case.images.values())), case.id)
        batch = np.asarray(pixels, np.float32)[None].tobytes()
        assert [each[batch] for each in folds] == [1, 1, 1]


def test_what_a_calibrated_model_says_and_the_gate_sees_of_kept_outputs_is_the_same_to_the_bit(model, cases, computed):
    unseen = Unseen()
    predictions = unseen.predicted(model, model.task, cases)
    task, _ = with_calibration(model.task, Evidence(predictions, cases))
    seen = [observation.features for observation, _ in unseen.observed(model, cases)]
    tuned = replace(model, task=task)
    again = [unseen.by(tuned).predict(case) for case in cases]
    assert {count for each in computed.values() for count in each.values()} == {1}
    assert [one.probabilities for one in again] == [tuned.predict(case).probabilities for case in cases]
    assert again[0].probabilities != predictions[0].probabilities
    for case, own in zip(cases, seen, strict=True):
        assert np.array_equal(model.observed(case)[0].features, own)


def test_what_does_not_fit_into_the_memory_for_outputs_is_computed_again(model, cases, computed):
    unseen = Unseen(KeptOutputs(limit=0))
    first, second = (unseen.predicted(model, model.task, cases[:2]) for _ in range(2))
    assert {count for each in computed.values() for count in each.values()} == {2}
    assert [one.probabilities for one in first] == [one.probabilities for one in second]


def test_after_it_is_closed_what_is_known_stays_and_nothing_is_added(model, cases, computed):
    unseen = Unseen()
    unseen.predicted(model, model.task, cases[:2])
    unseen.outputs.close()
    unseen.predicted(model, model.task, cases[:4])
    unseen.predicted(model, model.task, cases[:4])
    [counts] = computed.values()
    assert sorted(counts.values()) == [1, 1, 2, 2]


def test_a_changed_image_of_the_same_name_is_another_image(model, cases):
    unseen, case = Unseen(), cases[0]
    name, image = next(iter(case.images.items()))
    unseen.predicted(model, model.task, [case])
    changed = replace(case, images={name: Image(np.asarray(image.data)[..., ::-1] / 2, image.geometry)})
    [known] = unseen.predicted(model, model.task, [changed])
    assert known.probabilities == model.predict(changed).probabilities


def test_who_writes_into_outputs_does_not_change_those_that_are_kept(model):
    batch, kept = np.ones((1, int(model.networks.architecture["channels"]), 24, 24), np.float32), KeptOutputs()
    run = Unseen(kept).by(model).networks.run
    [head] = model.task.heads
    first = run(batch)[head].copy()
    for _ in range(2):
        assert np.array_equal(run(batch)[head], first)
        run(batch)[head][:] = 7
