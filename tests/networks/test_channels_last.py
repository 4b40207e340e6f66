from __future__ import annotations

import copy

import pytest
import torch

from hilum.networks import factory, quick_convolutions
from hilum.runtime import hardware
from hilum.values import Dense

torch.set_num_threads(1)
SIZES = {
    2: {"strides": [[1, 1], [2, 2]], "width": 4},
    3: {"strides": [[1, 1, 1], [2, 2, 2]], "width": 4, "deep_supervision": 0},
}


def pair(axes: int) -> tuple[torch.nn.Module, torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A network, itself with the channels last, a batch of images, and it with the channels last."""
    torch.manual_seed(0)
    module = factory.build("unet", 2, axes, {"mask": Dense(3)}, SIZES[axes]).double()
    other = quick_convolutions.to_channels_last(copy.deepcopy(module))
    images = torch.randn(3, 2, *[8] * axes, dtype=torch.float64)
    found = quick_convolutions.batch_memory_order(module)
    assert found is not None
    return module, other, images, images.contiguous(memory_format=found[1])


@pytest.mark.parametrize("axes", SIZES)
def test_outputs_and_gradients_are_those_of_the_plain_order(axes):
    module, other, images, ordered = pair(axes)
    results = []
    for network, batch in ((module, images), (other, ordered)):
        given = batch.clone().requires_grad_()
        output = network(given)["mask"]
        (output * torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)).sum().backward()
        results.append([output, given.grad, *(one.grad for one in network.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("axes", SIZES)
def test_normalisation_leaves_every_feature_map_in_the_order(axes):
    _, other, _, ordered = pair(axes)
    other, ordered = other.float(), ordered.float()  # torch convolves float64 volumes in the plain order alone
    order, seen = quick_convolutions.batch_memory_order(other), []
    for part in other.modules():
        if isinstance(part, torch.nn.InstanceNorm2d | torch.nn.InstanceNorm3d):
            part.register_forward_hook(lambda part, given, output: seen.append((given[0], output)))
    other(ordered)
    assert order is not None
    assert len(seen) == 6  # two blocks down, one up, each with two
    assert all(one.is_contiguous(memory_format=order[1]) for maps in seen for one in maps)


@pytest.mark.parametrize("weights", [True, False])
def test_normalisation_takes_half_the_bits_with_and_without_weights(weights):
    part = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 1), torch.nn.InstanceNorm3d(4, affine=weights))
    images = torch.randn(2, 4, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    results = []
    for norm in (part[1], quick_convolutions.to_channels_last(copy.deepcopy(part))[1]):
        given = images.bfloat16().requires_grad_()
        output = norm(given)
        (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
        results.append((output.float(), given.grad.float()))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_one_channel_which_fits_any_order_is_told_apart():
    """torch takes its strides for the plain order, and would convolve so."""
    images = torch.randn(2, 1, 4, 5, 6)
    assert torch.equal(quick_convolutions.order_channels_last(images), images)
    assert (
        quick_convolutions.order_channels_last(images).stride()
        == torch.empty(2, 1, 4, 5, 6).to(memory_format=torch.channels_last_3d).stride()
    )
    weight = torch.randn(8, 1, 3, 3, 3)
    kind = torch.bfloat16 if hardware.computes_bfloat16("cpu") else torch.float32  # in which a processor would convolve
    output = torch.conv3d(quick_convolutions.order_channels_last(images).to(kind), weight.to(kind), padding=1)
    assert output.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_way_back_leads_to_what_it_was():
    module, other, images, _ = pair(3)
    back = quick_convolutions.to_contiguous(other)
    assert [type(part) for part in back.modules()] == [type(part) for part in module.modules()]
    assert all(one.is_contiguous() for one in back.parameters())
    assert torch.equal(back(images)["mask"], module(images)["mask"])


def test_weights_keep_their_names_and_a_copy_is_a_network_of_its_own():
    module, other, _, ordered = pair(3)
    assert list(other.state_dict()) == list(module.state_dict())
    copied = copy.deepcopy(other)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.testing.assert_close(copied(ordered)["mask"], module(ordered)["mask"])


def test_a_network_without_convolutions_stays_as_it_is():
    module = torch.nn.Linear(2, 2)
    assert quick_convolutions.to_channels_last(module) is module
    assert quick_convolutions.batch_memory_order(module) is None
