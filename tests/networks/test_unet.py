from __future__ import annotations

import pytest
import torch

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.networks.unet import UNetConvolutions
from hilum.values import Dense, Vector

torch.set_num_threads(1)

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
PLANE = [[1, 1], [2, 2]]


def unet(**size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build("unet", 1, 3, {"mask": Dense(2)}, {"strides": STRIDES, "width": 4, **size})


def sliced(heads: dict | None = None, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    wanted = heads or {"mask": Dense(2)}
    return factory.build("unet_slices", 1, 3, wanted, {"strides": PLANE, "width": 4, **size}).eval()


def test_each_coarser_output_has_the_resolution_of_its_stage():
    shapes = {
        head: tuple(output.shape[2:]) for head, output in unet(deep_supervision=2)(torch.randn(1, 1, 8, 16, 24)).items()
    }
    assert shapes == {"mask": (8, 16, 24), "mask@1": (8, 8, 12), "mask@2": (4, 4, 6)}


def test_weights_of_a_network_without_further_options_keep_their_names():
    """Models that were written before the options came are read by these names."""
    small = factory.build("unet", 1, 2, {"mask": Dense(2)}, {"strides": PLANE, "width": 4})
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
    size, because, _ = factory.size_for("unet_slices", (64, 12, 64), [[1, 1, 1], [2, 1, 2], [2, 2, 2]], "cpu")
    assert (size["axis"], size["strides"]) == (1, [[1, 1], [2, 2], [2, 2]])
    assert "axis 1" in because


def test_large_patches_learn_from_coarser_outputs_too_and_the_reason_says_so():
    stages = [[1, 1, 1], *[[2, 2, 2]] * 4]
    size, because, _ = factory.size_for("unet", (128, 128, 128), stages, "cuda:0")
    assert size["deep_supervision"] == 2  # nnU-Net leaves out the two lowest resolutions
    assert "2 coarser outputs" in because
    size, because, _ = factory.size_for("unet", (40, 56, 40), stages[:4], "cpu")
    assert size["deep_supervision"] == 0
    assert "no coarser outputs for 89600 voxels" in because


def kernels(network: torch.nn.Module) -> int:
    """Weights of all convolutions but those of a single voxel."""
    return sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, torch.nn.Conv3d))


def test_a_separable_convolution_has_the_weights_counted_by_hand_and_that_of_the_image_is_whole():
    network = unet(separable=True, width=8, kernels=[[3] * 3] * 4)
    assert tuple(network.encoder[0].first.weight.shape) == (8, 1, 3, 3, 3)
    alone, across = network.encoder[1].first
    assert (tuple(alone.weight.shape), alone.groups, alone.stride) == ((8, 1, 3, 3, 3), 8, (1, 2, 2))
    assert tuple(across.weight.shape) == (16, 8, 1, 1, 1)
    assert kernels(network) < kernels(unet(width=8, kernels=[[3] * 3] * 4)) / 5


@pytest.mark.parametrize("size", [{"separable": True}, {"groups": 4}], ids=str)
def test_a_convolution_taken_apart_is_the_whole_one_that_its_parts_multiply_to(size):
    """Within the maps, then across them: the kernel of a whole convolution is the product of both."""
    torch.manual_seed(0)
    alone, across = UNetConvolutions(**size).convolution(2, 8, 6, (3, 3), (2, 1))
    whole = torch.nn.Conv2d(8, 6, 3, (2, 1), 1, bias=False)
    group = 8 // alone.groups
    with torch.no_grad():
        for n in range(8):
            inside = torch.zeros(8, 3, 3)
            middle = slice(n // group * group, n // group * group + group)
            inside[middle] = alone.weight[middle, n % group]
            whole.weight[:, n] = torch.einsum("om,mij->oij", across.weight[..., 0, 0], inside)
    images = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(across(alone(images)), whole(images), atol=1e-5, rtol=1e-4)


def test_a_gate_weighs_each_image_by_itself_although_normalisation_gives_all_the_same_mean():
    block = unet(attention="se", residual=False, width=8).encoder[1]
    seen = []
    block.attention.weigh.register_forward_hook(lambda layer, given, weights: seen.append(weights))
    block(torch.randn(2, 8, 4, 8, 8) * torch.rand(2, 8, 1, 1, 1).exp())
    assert (seen[0][0] - seen[0][1]).abs().max() > 1e-4


@pytest.mark.parametrize(("attention", "share"), [("se", 1 / 2), ("cbam", 1 / 4)])
def test_a_gate_that_has_learnt_nothing_halves_what_a_block_gives(attention, share):
    plain, gated = unet(width=8).encoder[1], unet(width=8, attention=attention).encoder[1]
    missing = gated.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys == [name for name in gated.state_dict() if name.startswith("attention.")]
    for weight in gated.attention.parameters():
        torch.nn.init.zeros_(weight)
    images = torch.randn(2, 8, 4, 8, 8)
    torch.testing.assert_close(gated(images), share * plain(images))


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"groups": 0}, "groups 0"),
        ({"groups": 4, "separable": True}, "with separable"),
        ({"attention": "self"}, "se, cbam and null"),
    ],
)
def test_a_way_to_convolve_that_there_is_not_is_refused(size, says):
    with pytest.raises(PlanError, match=says):
        unet(**size)


@pytest.mark.parametrize(
    ("name", "setting"), [("separable_unet", "separable"), ("grouped_unet", "groups"), ("se_unet", "attention")]
)
def test_each_kind_of_unet_is_a_unet_with_one_setting(name, setting):
    size, because, paper = factory.size_for(name, (32, 32, 32), STRIDES, "cpu")
    plain, reason, _ = factory.size_for("unet", (32, 32, 32), STRIDES, "cpu")
    assert {key for key in size if size[key] != plain.get(key)} == {setting}
    assert because.startswith(reason)
    assert paper.startswith("arXiv:")
