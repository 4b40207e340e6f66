"""Members that one training leaves by itself: ends of the cycles of its rate, and draws about its last weights."""

from __future__ import annotations

import signal
from itertools import count

import numpy as np
import pytest
import torch

import isocenter
import trained
from isocenter.errors import PlanError
from isocenter.files import read_dataset
from isocenter.planning import read_plan
from isocenter.runtime import Averaged, read_tensors
from isocenter.verbs.ensembling.members import member

# Of sixteen steps the last four leave weights with moments.
SNAPSHOTS = {**trained.FEW_STEPS, "training.snapshots": 3, "guard.gate": False}
SWAG = {**trained.FEW_STEPS, "training.steps": 16, "training.swag": 2, "guard.gate": False}


@pytest.fixture(scope="module")
def drawn(classified, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "run"
    return trained.classifying(classified.data, out, assignments=SWAG).out


def weights(run, number: int) -> dict[str, torch.Tensor]:
    return read_tensors(run / "checkpoints" / f"member_{number}" / "weights.safetensors")


@pytest.mark.whole
def test_the_ends_of_the_cycles_of_a_rate_are_members_whose_mean_is_the_model(classified, tmp_path):
    run = trained.classifying(classified.data, tmp_path / "run", assignments=SNAPSHOTS).out
    model, case = isocenter.load(run, "cpu"), next(iter(read_dataset(classified.data)))
    assert isinstance(model.networks.run, Averaged)
    assert len(model.networks.members) == 3
    assert (weights(run, 1)["vectors.class.weight"] != weights(run, 2)["vectors.class.weight"]).any()
    stated = model.predict(case).confidence
    assert model.uncertainty.name == "members"
    assert stated.epistemic > 0
    assert stated.total == pytest.approx(stated.aleatoric + stated.epistemic, abs=1e-6)
    chosen = {**SNAPSHOTS, "training.swag": 2}
    with pytest.raises(PlanError, match=r"training\.swag: training\.swag needs a single cycle"):
        trained.classifying(classified.data, tmp_path / "both", assignments=chosen)


@pytest.mark.whole
def test_draws_about_the_last_weights_are_members_with_statistics_of_their_own(drawn, classified):
    model, case = isocenter.load(drawn, "cpu"), next(iter(read_dataset(classified.data)))
    assert len(model.networks.members) == 3
    first, second = weights(drawn, 1), weights(drawn, 2)
    named = dict(model.networks.members[0].module.named_parameters())
    assert all((first[name] != second[name]).any() for name in named)
    means = [name for name in first if name.endswith("running_mean")]
    assert means
    assert all((first[name] != second[name]).any() for name in means)
    assert not (drawn / "checkpoints" / "moments").exists()
    stated = model.predict(case).confidence
    assert stated.epistemic > 0
    assert stated.total == pytest.approx(stated.aleatoric + stated.epistemic, abs=1e-6)
    assert read_plan(drawn / "plan.yaml")["training.swag"] == 2


@pytest.mark.whole
def test_a_run_whose_gate_the_plan_turns_off_keeps_none(drawn, classified):
    assert list(classified.out.rglob("guard.safetensors"))
    assert isocenter.load(drawn, "cpu").guard is None
    assert not list(drawn.rglob("guard.safetensors"))


@pytest.mark.whole
def test_a_training_stopped_among_its_last_weights_draws_the_same_members(drawn, classified, tmp_path):
    moments = count()

    def pressed(moment):
        if next(moments) == 13:
            signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        trained.classifying(classified.data, tmp_path / "run", assignments=SWAG)
    isocenter.train(resume=tmp_path / "run")
    for number in (1, 2):
        ours, theirs = (weights(one, number) for one in (tmp_path / "run", drawn))
        assert all(np.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


@pytest.mark.whole
def test_each_fold_leaves_members_of_its_own(classified, tmp_path):
    chosen = {**trained.TWO_STEPS, "training.snapshots": 2, "guard.gate": False}
    run = trained.classifying(classified.data, tmp_path / "run", folds=2, assignments=chosen).out
    case = next(iter(read_dataset(classified.data)))
    whole, *folds = (isocenter.load(run, "cpu", fold=fold) for fold in (None, 0, 1))
    assert [len(one.networks.members) for one in (whole, *folds)] == [4, 2, 2]
    each = [[*one.predict(case).confidence.uncalibrated.values()] for one in (whole, *folds)]
    assert each[0] == pytest.approx(np.mean(each[1:], axis=0), abs=1e-6)
    assert len(member(run, "run").models) == 4  # it may be one of an ensemble, which it is not itself
