from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models import densenet121

from hilum.networks import factory
from hilum.values import Vector

torch.set_num_threads(1)


def densenet(axes: int, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    small = {"blocks": [2, 3], "growth": 4, "width": 8, "dropout": 0.0}
    return factory.build("densenet", 1, axes, {"class": Vector(3)}, {**small, **size})


@pytest.mark.parametrize("axes", [2, 3])
def test_maps_that_are_computed_twice_give_the_same_gradients_and_running_statistics(axes):
    plain, efficient = densenet(axes), densenet(axes, efficient=True)
    efficient.load_state_dict(plain.state_dict())
    images = torch.randn(4, 1, *[8, 10, 6][:axes])
    for network in (plain, efficient):
        network(images)["class"].square().sum().backward()
    for ours, theirs in zip(plain.parameters(), efficient.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    for name, value in plain.state_dict().items():
        if not name.endswith("num_batches_tracked"):  # nothing reads it
            assert torch.equal(value, efficient.state_dict()[name]), name


def test_with_the_settings_of_densenet_121_it_has_its_number_of_weights():
    size = {"blocks": [6, 12, 24, 16], "growth": 32, "width": 64, "stem_stride": 2}
    with torch.device("meta"):
        ours = factory.build("densenet", 3, 2, {"class": Vector(1000)}, size)
        theirs = densenet121()
    first_norm = 2 * 64  # behind torchvision's stem; here the first layer normalises
    counted = sum(weight.numel() for weight in ours.parameters())
    assert counted == sum(weight.numel() for weight in theirs.parameters()) - first_norm


def test_every_layer_sees_the_maps_of_all_layers_before_it():
    network = densenet(2)
    assert [layer.first.in_channels for stage in network.stages for layer in stage] == [8, 12, 8, 12, 16]


def test_its_memory_is_small_because_joined_maps_are_not_kept():
    """Counts what the backward pass holds on to."""
    kept = {}
    for efficient in (False, True):
        network, images = densenet(2, blocks=[12], efficient=efficient), torch.randn(2, 1, 32, 32)
        tensors: dict[int, int] = {}

        def pack(tensor: torch.Tensor, tensors: dict[int, int] = tensors) -> torch.Tensor:
            tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(images)
        kept[efficient] = sum(tensors.values())
    assert kept[True] < 0.5 * kept[False]


def test_a_copy_can_be_averaged_beside_it():
    network = densenet(2, efficient=True)
    assert list(copy.deepcopy(network).state_dict()) == list(network.state_dict())
