from __future__ import annotations

import ast
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.values import Boxes, Dense, Field, Points, Vector

torch.set_num_threads(1)

STRIDES = {
    "one stage": [[1, 1]],
    "picture": [[1, 1], [2, 2], [2, 2]],
    "one axis late": [[1, 1], [2, 1], [2, 2]],
    "cube": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "thick slices": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "thicker slices": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]],
    "by three": [[1, 1, 1], [3, 1, 2]],
}


def unet(strides: list[list[int]], channels: int = 1, heads: dict | None = None, **size: int) -> torch.nn.Module:
    torch.manual_seed(0)
    wanted = {"mask": Dense(3)} if heads is None else heads
    return networks.build("unet", channels, len(strides[0]), wanted, {"strides": strides, "width": 4, **size})


def resnet(spatial_dims: int, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build("resnet", 2, spatial_dims, {"class": Vector(5)}, {"width": 4, "blocks": [1, 1, 1], **size})


def learns(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Every weight gets a finite gradient, and some of it is not 0."""
    sum(output.float().square().mean() for output in network(images).values()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    assert any(weight.grad.abs().max() > 0 for weight in network.parameters())


@pytest.mark.parametrize("strides", STRIDES.values(), ids=STRIDES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_unet_answers_for_every_voxel_of_its_input_and_learns(strides, channels):
    shape = [2 * math.prod(stride) for stride in zip(*strides, strict=True)]
    images = torch.randn(2, channels, *shape)
    network = unet(strides, channels, {"mask": Dense(3), "edge": Dense(1), "class": Vector(4)})
    outputs = network(images)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "mask": (2, 3, *shape),
        "edge": (2, 1, *shape),
        "class": (2, 4),
    }
    learns(network, images)


@settings(max_examples=10)
@given(st.integers(2, 3), st.data())
def test_a_unet_keeps_the_shape_for_any_strides(ndim, data):
    later = data.draw(st.lists(st.tuples(*[st.sampled_from([1, 2])] * ndim), max_size=3))
    strides = [[1] * ndim, *map(list, later)]
    shape = [math.prod(axis) * data.draw(st.integers(1, 2)) for axis in zip(*strides, strict=True)]
    shape[0] *= 2  # instance normalisation needs more than one voxel
    assert unet(strides)(torch.randn(1, 1, *shape))["mask"].shape == (1, 3, *shape)


def test_no_convolution_goes_across_an_axis_while_its_voxels_are_too_long():
    network = unet(STRIDES["thicker slices"])
    kernels = [tuple(block.first.kernel_size) for block in network.encoder]
    assert kernels == [(1, 3, 3), (1, 3, 3), (1, 3, 3), (3, 3, 3)]
    slices = torch.randn(1, 1, 4, 8, 8)
    other = slices.clone()
    other[:, :, 2:] += 1
    convolution = network.encoder[0].first  # the normalisation after it sees all slices
    assert torch.equal(convolution(slices)[:, :, :2], convolution(other)[:, :, :2])


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("size", [{}, {"stem_stride": 2}, {"blocks": [2, 1], "dropout": 0.0}], ids=str)
def test_a_resnet_answers_once_for_the_whole_image_and_learns(spatial_dims, size):
    images = torch.randn(2, 2, *[13, 9, 11][:spatial_dims])
    network = resnet(spatial_dims, **size)
    assert network(images)["class"].shape == (2, 5)
    learns(network, images)


def test_each_stage_of_a_resnet_but_the_first_halves_the_resolution():
    network = resnet(2).eval()
    sizes = []
    for layer in network.body:
        layer.register_forward_hook(lambda layer, given, output: sizes.append(output.shape[-1]))
    network(torch.randn(1, 2, 32, 32))
    assert sizes[0] == 32
    assert sorted(set(sizes), reverse=True) == [32, 16, 8]


@pytest.mark.parametrize("make", [lambda: unet(STRIDES["thick slices"]), lambda: resnet(3)])
def test_weights_make_the_same_network_again(make):
    network, again = make().eval(), make().eval()
    with torch.no_grad():
        for weight in again.parameters():
            weight.add_(1)
    again.load_state_dict(network.state_dict())
    images = torch.randn(1, network.state_dict()[next(iter(network.state_dict()))].shape[1], 8, 16, 16)
    for ours, theirs in zip(network(images).values(), again(images).values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("make", [lambda: (unet(STRIDES["cube"]), 1), lambda: (resnet(3), 2)])
def test_half_the_bits_give_nearly_the_same_answer(make):
    network, channels = make()
    images = torch.randn(1, channels, 8, 8, 8)
    network.eval()
    with torch.no_grad():
        exact = next(iter(network(images).values()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = next(iter(network(images).values()))
    assert rough.dtype == torch.bfloat16
    assert_allclose(rough.float(), exact, atol=0.05 * exact.abs().max().item())


def test_the_number_of_weights_is_that_counted_by_hand():
    """One stage: 3 x 3 convolutions 1 -> 4 and 4 -> 4, a 1 x 1 shortcut, two norms, a head of 3."""
    counted = sum(weight.numel() for weight in unet(STRIDES["one stage"]).parameters())
    assert counted == 9 * 4 + 9 * 4 * 4 + 4 + 2 * (4 + 4) + (4 * 3 + 3)
    widths = [block.first.out_channels for block in unet([[1, 1]] + [[2, 2]] * 3, widest=10).encoder]
    assert widths == [4, 8, 10, 10]
    sizes = [sum(w.numel() for w in resnet(2, width=width).parameters()) for width in (4, 8, 16)]
    assert all(3 < large / small < 4.5 for small, large in pairwise(sizes))


def test_two_networks_of_one_seed_are_equal_and_of_two_are_not():
    first, same = unet(STRIDES["picture"]), unet(STRIDES["picture"])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    other = networks.build("unet", 1, 2, {"mask": Dense(3)}, {"strides": STRIDES["picture"], "width": 4})
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "spatial_dims", "heads", "size", "says"),
    [
        ("vgg", 2, {"mask": Dense(2)}, {}, r"no network 'vgg'\. Choose one of resnet, unet"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1]], "depth": 4}, "depth"),
        ("unet", 2, {"mask": Dense(2)}, {}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": []}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1, 1], [2, 2, 2]]}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[2, 2], [2, 2]]}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1]], "width": -4}, "cannot be built"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1]], "width": "wide"}, "cannot be built"),
        ("unet", 4, {"mask": Dense(2)}, {"strides": [[1] * 4]}, "4 dimensions"),
        ("resnet", 1, {"class": Vector(2)}, {}, "1 dimensions"),
        ("resnet", 2, {"mask": Dense(2)}, {}, "choose unet"),
        ("resnet", 2, {"class": Vector(2)}, {"strides": [[1, 1]]}, "strides"),
        ("resnet", 2, {"class": Vector(2)}, {"blocks": 3}, "cannot be built"),
        ("unet", 2, {"points": Points(2)}, {"strides": [[1, 1]]}, "'points'"),
        ("unet", 2, {"boxes": Boxes(2)}, {"strides": [[1, 1]]}, "'boxes'"),
        ("resnet", 2, {"motion": Field(2), "class": Vector(2)}, {}, "'motion'"),
    ],
)
def test_a_network_that_cannot_be_is_refused(name, spatial_dims, heads, size, says):
    with pytest.raises(PlanError, match=says):
        networks.build(name, 1, spatial_dims, heads, size)


def test_every_family_of_the_index_can_be_built():
    size = {"unet": {"strides": [[1, 1], [2, 2]]}}
    for name in networks.names():
        assert isinstance(networks.build(name, 1, 2, {"class": Vector(2)}, size.get(name, {})), torch.nn.Module)


def test_the_file_of_a_family_needs_torch_alone():
    """A copy of it travels with a model."""
    folder = Path(networks.__file__).parent
    known = {"torch", "collections", "typing", "__future__"}
    for name in networks.NETWORKS:
        tree = ast.parse((folder / f"{name}.py").read_text())
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert {module.partition(".")[0] for module in imported} <= known


def test_a_network_takes_a_window_of_zeros_without_a_number_being_lost():
    outputs = unet(STRIDES["cube"])(torch.zeros(1, 1, 8, 8, 8))["mask"]
    assert np.isfinite(outputs.detach().numpy()).all()
