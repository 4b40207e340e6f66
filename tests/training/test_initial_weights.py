from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.planning import Network
from isocenter.planning.typed import check_value
from isocenter.training.session import initialise
from isocenter.values import Vector

torch.set_num_threads(1)

SIZE = {"blocks": [1, 1], "width": 4}


def resnet(axes: int) -> torch.nn.Module:
    return networks.build("resnet", 1, axes, {"class": Vector(2)}, SIZE)


@pytest.fixture
def flat(tmp_path) -> Path:
    """Weights of a network for pictures."""
    save_file(resnet(2).state_dict(), tmp_path / "flat.safetensors")
    return tmp_path / "flat.safetensors"


@pytest.mark.parametrize(("inflation", "share"), [("mean", 1 / 3), ("centre", 1)])
@pytest.mark.parametrize("by", ["pretrained", "start"])
def test_a_network_for_volumes_begins_from_one_for_pictures_as_the_plan_says(flat, by, inflation, share):
    deep = resnet(3)
    kernels = [name for name, value in deep.state_dict().items() if value.ndim == 5]
    given = str(flat) if by == "pretrained" else None
    because = initialise(deep, Network("resnet", SIZE, given, inflation=inflation), flat if by == "start" else None)
    assert f"{len(kernels)} kernels inflated along axis 2" in because
    assert because.count("flat.safetensors") == 1
    middle = resnet(2)
    networks.pretrained(middle, "resnet", SIZE, flat)
    torch.testing.assert_close(deep.body[0].weight[..., 1], share * middle.body[0].weight)


def test_fresh_weights_are_nothing_to_speak_of():
    assert initialise(resnet(2), Network("resnet", SIZE), None) == ""


def test_an_inflation_that_there_is_not_is_refused():
    with pytest.raises(PlanError, match="inflation"):
        check_value("network.inflation", "corner")
