"""Co-training: two networks that teach each other."""

from __future__ import annotations

import math
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy

import hilum
import trained
from hilum.errors import PlanError
from hilum.objectives import co_training
from hilum.objectives.co_training import CoTraining
from hilum.objectives.objective_terms import ObjectiveStep, SeenBatch
from hilum.planning import plan_file
from hilum.values import Vector

BOTH = {"objectives.terms": ["supervised", "co_training"]}
TASK = SimpleNamespace(name="toy", parts={}, uncertainty="classes", labels=range(2), heads={"a": Vector(2)})


def test_each_learns_the_likeliest_class_of_the_other_and_the_second_its_references():
    first, second = torch.tensor([[0.0, 1.0]], requires_grad=True), torch.tensor([[3.0, 0.0]], requires_grad=True)
    labelled, seen = SeenBatch(torch.ones(1, 1), torch.tensor([1]), ()), SeenBatch(torch.zeros(1, 1), None, ())
    taught = torch.zeros(1, 2)
    step = ObjectiveStep(
        labelled,
        {},
        lambda given: {"a": first},
        None,
        lambda outputs, targets: cross_entropy(outputs["a"], targets),
        TASK,
        unlabelled=(seen,),
        another=lambda network, given: {"a": taught if given.images.any() else second},
    )
    found = CoTraining().loss(step)
    expected = math.log(2) + cross_entropy(first, torch.tensor([0])) + cross_entropy(second, torch.tensor([1]))
    assert found.item() == pytest.approx(expected.item())
    found.backward()
    assert first.grad[0, 0] < 0 < second.grad[0, 0]  # each is pulled to what the other says


def test_each_network_may_see_channels_of_its_own():
    images = torch.ones(2, 3, 4, 4)
    assert co_training.limit_channels(SeenBatch(images, None, ()), (0, 2)).images.mean(dim=(0, 2, 3)).tolist() == [
        1,
        0,
        1,
    ]
    assert co_training.limit_channels(SeenBatch(images, None, ()), None).images is images
    with pytest.raises(PlanError, match="images have 3"):
        co_training.limit_channels(SeenBatch(images, None, ()), (3,))
    assert "two networks" in CoTraining(views=((0,),)).refusal(TASK)
    assert not CoTraining(views=((0,), (1,))).refusal(TASK)


def test_the_second_network_has_weights_of_its_own():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).requires_grad_(False)
    second = CoTraining().parts(network, 0)
    assert not second[0].weight.equal(network[0].weight)
    assert second[0].weight.requires_grad
    assert not network[0].weight.requires_grad


@pytest.mark.whole
def test_a_stopped_run_goes_on_to_the_bit_and_its_model_has_one_network(tmp_path):
    data, extra = trained.pictures(tmp_path / "data", 20), trained.pictures(tmp_path / "extra", 6, first=80)
    assignments = {**BOTH, "training.validations": 3, "co_training.views": [[0], [0]]}
    given = {"unlabelled": [extra], "assignments": assignments}
    trained.classifying(data, tmp_path / "whole", **given)

    def pressed(moment):
        if moment.step == 3:
            signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        trained.classifying(data, tmp_path / "resumed", **given)
    hilum.train(resume=tmp_path / "resumed")
    kept = {}
    for name in ("module", "weights", "optimiser", "objectives"):
        place = f"checkpoints/last/{name}.safetensors"
        kept[name] = load_file(tmp_path / "whole" / place)
        assert (tmp_path / "whole" / place).read_bytes() == (tmp_path / "resumed" / place).read_bytes(), name
    assert {name.removeprefix("parts.co_training.") for name in kept["objectives"]} == set(kept["module"])
    assert len(kept["weights"]) == len(kept["module"])
    assert plan_file.read_plan(tmp_path / "whole" / "plan.yaml")["co_training.views"] == [[0], [0]]
