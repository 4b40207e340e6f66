"""Each case passes the network of the fold that has not seen it once, whoever asks for it."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

import isocenter
import trained
from isocenter import networks
from isocenter.reading import ReadingOptions, open_dataset
from isocenter.runtime import TorchNetwork

SMALL = {"training.steps": 2, "training.validations": 1, "training.batch": 2}


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


def test_a_run_of_three_folds_predicts_each_test_case_once_by_its_fold(computed, tmp_path):
    data = trained.pictures(tmp_path / "data", 24)
    chosen = {**SMALL, "network.size": trained.SMALL_RESNET, "guard.error": 0.5, "guard.delta": 0.5}
    run = trained.classifying(data, tmp_path / "run", folds=3, assignments=chosen).out
    split = pd.read_csv(run / "split.csv", dtype=str)
    folds = {fold: set(rows["case"]) for fold, rows in split[split["split"] == "test"].groupby("fold")}
    prepared = isocenter.load(run, "cpu", fold=0).preprocessing
    for case in open_dataset(data, ReadingOptions()):
        [image] = case.images.values()
        content = np.asarray(prepared.opened(image, case.id)[0])[None].astype(np.float32).tobytes()
        print(case.id, [own[content] for own in computed.values()])
    assert folds
