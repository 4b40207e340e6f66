"""Prototypical: its loss by hand, patients apart, refusals, and a run whose last layer is made of means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

import hilum
import trained
from hilum.errors import PlanError, UsageError
from hilum.objectives import prototypical
from hilum.planning import plan_file

FEATURES = torch.tensor([[0.0], [2.0], [1.0], [5.0], [7.0], [4.0]])
CLASSES = torch.tensor([0, 0, 0, 3, 3, 3])


def test_the_loss_is_the_cross_entropy_of_distances_from_the_means_of_supports():
    # Supports are 0 and 2 with the mean 1, and 5 and 7 with the mean 6; queries are 1 and 4.
    found = prototypical.episode_loss(FEATURES, CLASSES, torch.arange(6), shots=2)
    of_first = math.log(1 + math.exp(0 - 25))
    of_second = math.log(1 + math.exp(4 - 9))
    assert float(found) == pytest.approx((of_first + of_second) / 2, rel=1e-5)


def test_a_patient_among_the_supports_is_no_query():
    owners = torch.tensor([0, 1, 0, 3, 4, 5])  # the query of the first class is a patient of its supports
    found = prototypical.episode_loss(FEATURES, CLASSES, owners, shots=2)
    assert float(found) == pytest.approx(math.log(1 + math.exp(4 - 9)), rel=1e-5)
    nobody = prototypical.episode_loss(FEATURES, CLASSES, torch.zeros(6, dtype=torch.int64), shots=2)
    assert float(nobody) == 0.0


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A pretraining by episodes on small pictures of two classes."""
    root = tmp_path_factory.mktemp("episodes")
    data = trained.pictures(root / "data", 40)
    few = {**trained.TWO_STEPS, "network.size": trained.SMALL_RESNET}
    few.pop("training.batch")
    hilum.pretrain(
        data, objective="prototypical", everything=True, out=root / "run", device="cpu", threads=1, assignments=few
    )
    return data, root / "run"


def test_the_classes_of_a_run_by_episodes_are_those_of_the_nearest_mean(taught):
    data, run = taught
    table = hilum.embed(run, [data]).table
    features = table.filter(regex=r"^e\d+$").to_numpy()
    classes = table["image"].str.split("/").str[-2].to_numpy()
    expected = NearestCentroid().fit(features, classes).predict(features)
    model = hilum.load(run, threads=1)
    called = [max((p := model.predict(image).probabilities), key=p.get) for image in table["image"]]
    assert np.array_equal(called, expected)


def test_a_batch_is_an_episode_of_each_class(taught):
    plan = plan_file.read_plan(taught[1] / "plan.yaml")
    assert plan["training.batch"] == 20
    assert plan["training.sampling"] == "balanced"
    assert plan["task.name"] == "classification"


def test_fewer_cases_than_an_episode_takes_are_refused(tmp_path):
    data = trained.pictures(tmp_path / "data", 12)
    with pytest.raises(PlanError, match="an episode takes 10 patients of each of two classes"):
        hilum.pretrain(data, objective="prototypical", everything=True, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_several_data_sets_are_refused_because_an_episode_is_of_one(tmp_path):
    with pytest.raises(UsageError, match="Give one"):
        hilum.pretrain(["one", "two"], objective="prototypical", out=tmp_path / "run")
