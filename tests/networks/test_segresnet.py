from __future__ import annotations

import pytest
import torch
from monai.networks.nets import SegResNet

from hilum.networks import factory, segresnet
from hilum.values import Dense

torch.set_num_threads(1)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("blocks", [(1, 2, 2, 4), (1, 1)])
def test_with_the_weights_of_monais_network_it_gives_monais_answer(axes, blocks):
    torch.manual_seed(0)
    theirs = SegResNet(axes, 8, 2, 3, blocks_down=blocks, blocks_up=(1,) * (len(blocks) - 1)).eval()
    strides = [[1] * axes, *[[2] * axes] * (len(blocks) - 1)]
    size = {"strides": strides, "width": 8, "blocks": blocks}
    ours = factory.build("segresnet", 2, axes, {"mask": Dense(3)}, size).eval()
    weights = {segresnet.segresnet_tensor_name(name): value for name, value in theirs.state_dict().items()}
    for name in ("weight", "bias"):
        weights[f"dense.mask.{name}"] = weights.pop(f"conv_final.2.conv.{name}")
    ours.load_state_dict(weights)
    images = torch.randn(2, 2, *[16, 24, 8][:axes])
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["mask"], theirs(images))


def test_without_a_number_of_blocks_they_are_those_of_the_paper():
    network = factory.build("segresnet", 1, 2, {"mask": Dense(2)}, {"strides": [[1, 1], *[[2, 2]] * 3], "width": 8})
    assert [len(stage) for stage in network.encoder] == [1, 2, 2, 4]


def test_an_axis_that_is_not_reduced_is_not_mixed_while_reducing():
    network = factory.build("segresnet", 1, 3, {"mask": Dense(2)}, {"strides": [[1, 1, 1], [1, 2, 2]], "width": 8})
    assert network.reduce["1"].kernel_size == (1, 3, 3)
    assert network(torch.randn(1, 1, 3, 4, 6))["mask"].shape == (1, 2, 3, 4, 6)


def test_any_width_can_be_normalised_in_groups():
    network = factory.build("segresnet", 1, 2, {"mask": Dense(2)}, {"strides": [[1, 1], [2, 2]], "width": 6})
    assert network(torch.randn(1, 1, 4, 6))["mask"].isfinite().all()
