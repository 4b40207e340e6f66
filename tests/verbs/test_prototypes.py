"""`transfer.mode=prototypes`: the last layer is the nearest mean of features, of classes and of structures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import NearestCentroid

import hilum
import trained
from hilum.errors import PlanError
from hilum.networks import factory
from hilum.planning import plan_checks, plan_file
from hilum.planning.rules import learning_rules
from hilum.tasks.regression.question import Regression
from hilum.training import _prototype_layer
from hilum.training.data.prepared_store import PreparedCase

PROTOTYPES = {"transfer.mode": "prototypes", "training.batch": 2}
HERE = {"device": "cpu", "threads": 1}


def nearest_means(embedded: pd.DataFrame, data: Path, taught: set[str]) -> dict[str, str]:
    """{case: class} by scikit-learn, of features by `embed`; taught: the cases whose features have a known class."""
    features = embedded.filter(regex=r"^e\d+$").to_numpy()
    classes = np.array([Path(image).parent.name for image in embedded["image"]])
    known = embedded["case"].isin(taught).to_numpy()
    fitted = NearestCentroid().fit(features[known], classes[known])
    return dict(zip(embedded["case"], fitted.predict(features), strict=True))


def test_classes_are_those_of_the_nearest_mean_of_embedded_cases(classified, tmp_path):
    data = trained.pictures(tmp_path / "others", 24, first=100)
    run = hilum.train(data, out=tmp_path / "run", start=classified.out, assignments=PROTOTYPES, **HERE)
    split = pd.read_csv(tmp_path / "run" / "split.csv", dtype=str).set_index("case")["split"]
    embedded = hilum.embed(tmp_path / "run", [data]).table
    expected = nearest_means(embedded, data, set(split.index[split == "train"]))
    tested = pd.read_csv(tmp_path / "run" / "evaluation" / "cases.csv", dtype=str)
    assert len(tested) == (split == "test").sum()
    chances = tested.filter(like="probability_").astype(float)
    called = chances.idxmax(axis=1).str.removeprefix("probability_")
    assert called.tolist() == [expected[case] for case in tested["case"]]
    rows = (tmp_path / "run" / "transfer.json").read_text()
    assert '"mode": "prototypes"' in rows
    assert run.steps == 1
    assert not any("pass over them" in note or "steps" in note for note in run.notes)


class Watched(torch.nn.Module):
    """A network whose features are the image itself."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bottom = torch.nn.Identity()
        self.dense = torch.nn.ModuleDict({"mask": torch.nn.Conv3d(2, classes, 1)})

    def forward(self, images):
        return {"mask": self.dense["mask"](self.bottom(images))}


def session_of(segmented, monkeypatch, *labels: np.ndarray) -> SimpleNamespace:
    """A session on cases with these label maps, whose two channels are 3 times the label, and its square, plus 1."""
    settings = plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml"))
    settings = replace(settings, transfer=replace(settings.transfer, mode="prototypes"))
    family = replace(factory.family_of(settings.network.name), features="bottom")
    monkeypatch.setattr(factory, "family_of", lambda name: family)
    cases = [
        PreparedCase(
            f"c{n}", np.stack([3.0 * one, one**2 + 1.0]).astype(np.float32), one.astype(np.uint8), (), (1,) * 3
        )
        for n, one in enumerate(labels)
    ]
    modules = [Watched(3) for _ in range(2)]
    return SimpleNamespace(
        settings=settings,
        train_cases=cases,
        module=modules[0],
        averaged=modules[1],
        fabric=SimpleNamespace(device="cpu"),
    )


def test_structures_have_the_means_of_the_dense_features_of_their_voxels(segmented, monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (2, 20, 18, 16))
    session = session_of(segmented, monkeypatch, *labels)
    session.settings = replace(session.settings, task=replace(session.settings.task, ignore=7))
    session.train_cases[0].target[:4] = session.settings.task.outside  # nobody knows these voxels: they enter no mean
    _prototype_layer.set_prototypes(session)
    means = torch.tensor([[0.0, 1.0], [3.0, 2.0], [6.0, 5.0]])
    for module in (session.module, session.averaged):
        layer = module.dense["mask"]
        torch.testing.assert_close(layer.weight.flatten(1), 2 * means)
        torch.testing.assert_close(layer.bias, -(means**2).sum(dim=1))


def test_a_target_that_states_no_class_is_refused(segmented, monkeypatch):
    session = session_of(segmented, monkeypatch, np.full((16, 16, 16), 9))
    with pytest.raises(PlanError, match="values that are no class"):
        _prototype_layer.set_prototypes(session)


def test_fewer_cases_than_classes_are_refused_by_the_class(segmented, monkeypatch):
    session = session_of(segmented, monkeypatch, np.zeros((16, 16, 16), dtype=np.int64))
    with pytest.raises(PlanError, match="no training case shows class 1 of 3"):
        _prototype_layer.set_prototypes(session)


def test_an_answer_that_is_no_class_of_several_is_refused(classified):
    settings = plan_checks.checked_settings(plan_file.read_plan(classified.out / "plan.yaml"))
    settings = replace(settings, transfer=replace(settings.transfer, mode="prototypes"))
    learning_rules.check_transfer(settings)
    with pytest.raises(PlanError, match="no linear last layer"):
        learning_rules.check_transfer(replace(settings, task=Regression(("age",), ("years",), (50.0,), (9.0,))))


def test_prototypes_without_a_source_are_refused(classified, tmp_path):
    with pytest.raises(PlanError, match="prototypes needs weights"):
        hilum.train(classified.data, out=tmp_path / "run", assignments=PROTOTYPES, **HERE)
    assert not (tmp_path / "run").exists()


def test_a_source_that_lacks_tensors_before_the_last_layer_is_refused(classified, tmp_path):
    other = {**PROTOTYPES, "network.size": {**trained.SMALL_RESNET, "blocks": [1, 1, 1]}}
    with pytest.raises(PlanError, match="features would be random"):
        hilum.train(classified.data, out=tmp_path / "run", start=classified.out, assignments=other, **HERE)
