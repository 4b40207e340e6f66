from __future__ import annotations

import pytest
import torch

from isocenter import networks
from isocenter.values import Dense, Vector

torch.set_num_threads(1)

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
PLANE = [[1, 1], [2, 2]]


def unet(**size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build("unet", 1, 3, {"mask": Dense(2)}, {"strides": STRIDES, "width": 4, **size})


def sliced(heads: dict | None = None, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    wanted = heads or {"mask": Dense(2)}
    return networks.build("unet_slices", 1, 3, wanted, {"strides": PLANE, "width": 4, **size}).eval()


def test_each_coarser_output_has_the_resolution_of_its_stage():
    shapes = {
        head: tuple(output.shape[2:]) for head, output in unet(deep_supervision=2)(torch.randn(1, 1, 8, 16, 24)).items()
    }
    assert shapes == {"mask": (8, 16, 24), "mask@1": (8, 8, 12), "mask@2": (4, 4, 6)}


def test_weights_of_a_network_without_further_options_keep_their_names():
    """Models that were written before the options came are read by these names."""
    small = networks.build("unet", 1, 2, {"mask": Dense(2)}, {"strides": PLANE, "width": 4})
    block = ["first.weight", "first_norm.weight", "first_norm.bias"]
    block += ["second.weight", "second_norm.weight", "second_norm.bias", "shortcut.weight"]
    expected = [f"{part}.{name}" for part in ("encoder.0", "encoder.1") for name in block]
    expected += ["up.0.weight", *(f"decoder.0.{name}" for name in block), "dense.mask.weight", "dense.mask.bias"]
    assert list(small.state_dict()) == expected


def test_blocks_kernels_and_shortcuts_are_as_asked_for():
    network = unet(blocks=[1, 2, 3, 1], decoder_blocks=2, kernels=[[1, 3, 3]] * 3 + [[5, 3, 3]], residual=False)
    assert [len(stage) if isinstance(stage, torch.nn.Sequential) else 1 for stage in network.encoder] == [1, 2, 3, 1]
    assert [len(stage) for stage in network.decoder] == [2, 2, 2]
    assert network.encoder[3].first.kernel_size == (5, 3, 3)
    assert not [name for name in network.state_dict() if "shortcut" in name]
    assert network(torch.randn(1, 1, 8, 16, 16))["mask"].shape == (1, 2, 8, 16, 16)


def test_a_block_without_a_shortcut_is_two_convolutions_each_normalised_and_activated():
    block = unet(residual=False).encoder[1]
    images = torch.randn(2, 4, 4, 8, 8)
    inner = torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(block.first(images)), 0.01)
    expected = torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(block.second(inner)), 0.01)
    torch.testing.assert_close(block(images), expected, atol=1e-5, rtol=1e-5)


def test_a_light_decoder_has_one_convolution_a_stage():
    network = unet(light_decoder=True, deep_supervision=1)
    assert [stage.first.in_channels for stage in network.decoder] == [32, 16, 8]
    assert not [name for name in network.state_dict() if name.startswith("decoder") and "second" in name]
    outputs = network(torch.randn(1, 1, 8, 16, 16))
    assert outputs["mask"].shape == (1, 2, 8, 16, 16)
    sum(output.square().mean() for output in outputs.values()).backward()
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
def test_every_activation_can_be_trained(activation):
    network = unet(activation=activation, dropout=0.2)
    network(torch.randn(1, 1, 8, 16, 16))["mask"].square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_dropout_leaves_out_whole_maps_while_training_only():
    network = unet(dropout=0.5)
    images = torch.randn(1, 1, 8, 16, 16)
    assert not torch.equal(network(images)["mask"], network(images)["mask"])
    network.eval()
    assert torch.equal(network(images)["mask"], network(images)["mask"])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_without_neighbours_each_slice_goes_through_the_plane_alone(axis):
    network = sliced(axis=axis, neighbours=0)
    shape = [4, 6, 8]
    shape[axis] = 3
    volume = torch.randn(2, 1, *shape)
    answer = network(volume)["mask"]
    assert answer.shape == (2, 2, *shape)
    for n in range(3):
        alone = network.plane(volume.select(axis + 2, n))["mask"]
        torch.testing.assert_close(answer.select(axis + 2, n), alone)


def test_a_slice_sees_its_neighbours_and_no_slice_beyond():
    network = sliced(axis=2, neighbours=2)
    volume = torch.randn(1, 1, 4, 4, 9)
    other = volume.clone()
    other[..., 4] += torch.randn(4, 4)
    changed = (network(volume)["mask"] != network(other)["mask"]).flatten(0, 3).any(dim=0)
    assert changed.tolist() == [False, False, True, True, True, True, True, False, False]


def test_the_outermost_slice_stands_for_those_that_are_missing():
    network = sliced(axis=0, neighbours=1)
    volume = torch.randn(1, 1, 5, 4, 4)
    longer = torch.cat([volume[:, :, :1], volume, volume[:, :, -1:]], dim=2)
    torch.testing.assert_close(network(volume)["mask"], network(longer)["mask"][:, :, 1:-1])


def test_neighbours_come_in_the_order_of_the_slices():
    network = sliced(axis=0, neighbours=1)
    volume = torch.arange(3.0).reshape(1, 1, 3, 1, 1).expand(1, 1, 3, 4, 4)
    seen = []
    network.plane.register_forward_pre_hook(lambda plane, given: seen.append(given[0][:, :, 0, 0].tolist()))
    network(volume)
    assert seen == [[[0, 0, 1], [0, 1, 2], [1, 2, 2]]]


def test_one_answer_for_a_volume_is_the_mean_of_its_slices():
    network = sliced({"class": Vector(3)}, axis=0, neighbours=0)
    volume = torch.randn(2, 1, 4, 4, 4)
    slices = torch.stack([network.plane(volume[:, :, n])["class"] for n in range(4)])
    torch.testing.assert_close(network(volume)["class"], slices.mean(dim=0))


def test_the_cut_goes_along_the_axis_that_is_halved_least():
    size, because, _ = networks.size_for("unet_slices", (64, 12, 64), [[1, 1, 1], [2, 1, 2], [2, 2, 2]], "cpu")
    assert (size["axis"], size["strides"]) == (1, [[1, 1], [2, 2], [2, 2]])
    assert "axis 1" in because


def test_large_patches_learn_from_coarser_outputs_too_and_the_reason_says_so():
    stages = [[1, 1, 1], *[[2, 2, 2]] * 4]
    size, because, _ = networks.size_for("unet", (128, 128, 128), stages, "cuda:0")
    assert size["deep_supervision"] == 2  # nnU-Net leaves out the two lowest resolutions
    assert "2 coarser outputs" in because
    size, because, _ = networks.size_for("unet", (40, 56, 40), stages[:4], "cpu")
    assert size["deep_supervision"] == 0
    assert "no coarser outputs for 89600 voxels" in because
