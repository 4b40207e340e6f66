"""Families for whole images beside other implementations of the same papers, and beside what is worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torchvision.models import (
    AlexNet,
    GoogLeNet,
    convnext_tiny,
    efficientnet_b0,
    efficientnet_b3,
    mobilenet_v2,
    resnext50_32x4d,
)
from torchvision.models.vgg import cfgs, make_layers
from torchvision.ops import SqueezeExcitation

from hilum.errors import PlanError
from hilum.networks import common_layers, factory, lenet, resnet
from hilum.networks.convnext import ConvNeXtBlock
from hilum.values import Dense, Head, Vector
from matrices import thinned

torch.set_num_threads(1)

CLASSICS = (
    "alexnet",
    "cbam_resnet",
    "convnext",
    "efficientnet",
    "inception",
    "inflated_resnet",
    "lenet",
    "mobilenet",
    "pseudo3d_resnet",
    "resnext",
    "se_resnet",
    "vgg",
)
COLOURS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def built(
    name: str, axes: int = 2, channels: int = 3, classes: int = 10, context: int = 0, **size: object
) -> nn.Module:
    torch.manual_seed(0)
    return factory.build(name, channels, axes, {"class": Vector(classes)}, size, context)


def lived_in(network: nn.Module) -> nn.Module:
    """With running means and layer scales that are not those of a fresh network: images tell, and each block."""
    for name, tensor in network.named_parameters():
        if name.endswith("layer_scale"):
            nn.init.uniform_(tensor, 0.5, 1.5)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()(COLOURS)
    return network.eval()


def carry(theirs: list[Tensor], ours: nn.Module) -> None:
    """Another implementation's tensors, in the order of its layers, which is ours."""
    own = ours.state_dict()
    taken = {name: there.reshape(own[name].shape) for name, there in zip(own, theirs, strict=True)}
    ours.load_state_dict(taken)
    ours.eval()


def tensors(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict().values())


def alike(ours: Tensor, theirs: Tensor) -> None:
    """Within rounding, where the two images of a batch are not answered alike anyway."""
    expected = theirs.detach()
    assert len(expected) == 1 or (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()
    assert_allclose(ours.detach(), expected, atol=1e-4 * float(expected.abs().max()))


def weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_lenet_5_has_the_weights_counted_by_hand():
    """C1 sees 5 x 5 voxels of one channel, C3 of six maps, C5 all of 16 maps, F6 and the last layer the one before."""
    first, second = 6 * (25 + 1), 16 * (6 * 25 + 1)
    assert weights(built("lenet", channels=1)) == first + second + 120 * (400 + 1) + 84 * (120 + 1) + 10 * (84 + 1)


def test_lenet_sees_a_digit_in_the_middle_of_a_field_of_32():
    network = built("lenet", channels=1).eval()
    digit = torch.randn(1, 1, 28, 28)
    field = torch.zeros(1, 1, 32, 32)
    field[..., 2:30, 2:30] = digit
    assert torch.equal(network(digit)["class"], network(field)["class"])
    assert network.body(field).shape == (1, 16, 5, 5)  # the paper's S4, which is not averaged further


def test_the_tangent_of_lenet_is_scaled_so_that_one_stays_one():
    assert_allclose(lenet.Squash()(torch.tensor([-1.0, 0.0, 1.0, 100.0])), [-1, 0, 1, 1.7159], atol=1e-4)


@settings(max_examples=20)
@given(st.integers(1, 7), st.lists(st.integers(1, 17), min_size=2, max_size=3))
def test_the_means_over_cells_are_those_of_torchs_adaptive_pooling(cells, shape):
    maps = torch.randn(1, 2, *shape)
    theirs = {2: nn.functional.adaptive_avg_pool2d, 3: nn.functional.adaptive_avg_pool3d}[len(shape)](maps, cells)
    assert_allclose(common_layers.pool_cells(maps, cells), theirs, atol=1e-6)


@pytest.mark.parametrize(("letter", "convolutions"), thinned(1, [("A", [1, 1, 2, 2, 2]), ("D", [2, 2, 3, 3, 3])]))
def test_vgg_finds_the_features_of_torchvisions_vgg_before_its_last_pooling(letter, convolutions):
    theirs = make_layers(cfgs[letter], batch_norm=True)
    for layer in theirs:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.bias)  # as torchvision begins; the normalisation behind has one
    lived_in(theirs)
    ours = built("vgg", convolutions=convolutions, width=64)
    kept = [one for name, one in theirs.state_dict().items() if not _is_bias_of_convolution(theirs, name)]
    carry(kept, ours.body)
    alike(ours.body(COLOURS), theirs[:-1](COLOURS))


def _is_bias_of_convolution(layers: nn.Sequential, name: str) -> bool:
    layer, _, which = name.partition(".")
    return which == "bias" and isinstance(layers[int(layer)], nn.Conv2d)


def test_alexnet_without_normalisation_is_that_of_torchvision():
    with torch.device("meta"):
        assert weights(built("alexnet", classes=1000, normalise=False)) == weights(AlexNet())
    theirs = AlexNet().features.eval()
    ours = built("alexnet", normalise=False, hidden=4)
    carry(tensors(theirs), ours.body)
    # Torchvision's pooling leaves out an odd voxel at the edge; with 127 there is none.
    images = torch.randn(1, 3, 127, 127)
    alike(ours.body(images), theirs(images))


def test_inception_finds_the_features_of_torchvisions_googlenet():
    """Its third path has kernels of 3 voxels, which lie in the middle of our 5; its last pooling is exchanged."""
    theirs = GoogLeNet(num_classes=10, aux_logits=False, init_weights=False)
    theirs.maxpool4 = nn.MaxPool2d(3, 2, ceil_mode=True)  # table 1 of the paper; theirs sees 2 voxels
    lived_in(theirs)
    ours = built("inception", width=64)
    given = [
        nn.functional.pad(there, [1, 1, 1, 1])
        if there.ndim == own.ndim == 4 and there.shape[2] + 2 == own.shape[2]
        else there
        for there, own in zip(theirs.state_dict().values(), tensors(ours), strict=True)
    ]
    carry(given, ours)
    for layer in ours.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.001  # torchvision's
    alike(ours(COLOURS)["class"], theirs(COLOURS))


@pytest.mark.parametrize(
    ("name", "theirs"),
    thinned(1, [("mobilenet", mobilenet_v2), ("efficientnet", efficientnet_b0), ("convnext", convnext_tiny)]),
    ids=["mobilenet", "efficientnet", "convnext"],
)
def test_with_torchvisions_weights_a_network_gives_torchvisions_answer(name, theirs):
    other = lived_in(theirs(num_classes=10))
    ours = built(name)
    assert weights(ours) == weights(other)
    carry(tensors(other), ours)
    alike(ours(COLOURS)["class"], other(COLOURS))


def test_wider_and_deeper_efficientnets_have_torchvisions_number_of_weights():
    with torch.device("meta"):
        ours, theirs = built("efficientnet", width=1.2, depth=1.4, last=1280, classes=7), efficientnet_b3(num_classes=7)
    assert weights(ours) == weights(theirs)


def test_resnext_has_the_convolutions_of_torchvisions_resnext_50():
    with torch.device("meta"):
        ours = built("resnext", groups=32, width=256, blocks=[3, 4, 6, 3], stem_stride=4)
        theirs = resnext50_32x4d(num_classes=10)
    shapes = [
        sorted(tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
        for network in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("axes", [2, 3])
def test_a_resnet_without_further_settings_is_the_one_it_always_was(axes):
    """Names of the weights, and answers of a fresh network, as they were before there were any."""
    network = built("resnet", axes, 2, 3, blocks=[1, 1], width=4, dropout=0.0).eval()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    block = [
        *(f"first_norm.{one}" for one in norm),
        "first.weight",
        *(f"second_norm.{one}" for one in norm),
        "second.weight",
    ]
    names = ["body.0.weight", *(f"body.1.{one}" for one in block), *(f"body.2.{one}" for one in block)]
    names += [
        "body.2.shortcut.weight",
        *(f"body.3.{one}" for one in norm),
        "vectors.class.weight",
        "vectors.class.bias",
    ]
    assert list(network.state_dict()) == names
    answers = {
        2: [[-0.2783113718, 0.0112300962, 0.0601040125], [-0.2768791914, 0.0167066902, 0.0586412549]],
        3: [[0.1405738890, -0.0924641639, 0.3594614863], [0.1217951775, -0.0432543941, 0.3147348762]],
    }
    images = torch.linspace(-1, 1, 2 * 2 * 6**axes).reshape(2, 2, *[6] * axes)
    assert_allclose(network(images)["class"].detach(), answers[axes], atol=1e-6)
    spelt_out = built("resnet", axes, 2, 3, blocks=[1, 1], width=4, attention=None, groups=1, factorised=None)
    assert all(torch.equal(a, b) for a, b in zip(tensors(network), tensors(spelt_out), strict=True))


def test_maps_are_weighed_as_torchvision_squeezes_and_excites():
    torch.manual_seed(0)
    ours, theirs = common_layers.Excitation(32, 4), SqueezeExcitation(32, 4)
    carry(tensors(theirs), ours)
    images = torch.randn(2, 32, 5, 7)
    alike(ours(images), theirs(images))


@pytest.mark.parametrize(("attention", "share"), [("se", 1 / 2), ("cbam", 1 / 4)])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_attention_that_has_learnt_nothing_weighs_each_map_and_each_voxel_by_half(attention, share, axes):
    layer = resnet.ResNetConvolutions(attention).gate_for(axes, 16)
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    images = torch.randn(2, 16, *[5, 4, 6][:axes])
    assert_allclose(layer(images).detach(), share * images, atol=1e-6)


def test_cbam_weighs_maps_and_then_voxels_as_worked_out_by_hand():
    """Two maps: of 1 everywhere, and of 0 but for one voxel of 4; both layers pass on what they see."""
    layer = common_layers.BlockAttention(1, 2)
    images = torch.tensor([[[1.0, 1.0, 1.0, 1.0], [0.0, 4.0, 0.0, 0.0]]])
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
        layer.maps[0].weight[:2] = torch.eye(2)
        layer.maps[2].weight[:, :2] = torch.eye(2)
        layer.voxels.weight[0, :, common_layers.LOOK // 2] = torch.tensor([1.0, 10.0])  # of the mean, of the largest
    # Both means are 1, the largest voxels 1 and 4.
    by_map = torch.sigmoid(torch.tensor([[1.0 + 1.0], [1.0 + 4.0]]))
    weighed = by_map * images[0]
    by_voxel = torch.sigmoid(weighed.mean(dim=0) + 10 * weighed.amax(dim=0))
    assert_allclose(layer(images)[0].detach(), by_voxel * weighed, atol=1e-6)


@pytest.mark.parametrize(("axes", "axis"), [(2, 0), (3, 0), (3, -1)])
def test_a_convolution_taken_apart_has_no_more_weights_and_looks_along_each_axis_once(axes, axis):
    apart = resnet.ResNetConvolutions(factorised="axes", axis=axis).three(axes, 16, 24, 2)
    plane, line = [layer for layer in apart if not isinstance(layer, nn.ReLU | nn.BatchNorm2d | nn.BatchNorm3d)]
    whole = 3**axes * 16 * 24
    assert 0.95 * whole < plane.weight.numel() + line.weight.numel() <= whole
    along = [3 if n == axis % axes else 1 for n in range(axes)]
    assert list(line.kernel_size) == along
    assert [a * b for a, b in zip(plane.kernel_size, line.kernel_size, strict=True)] == [3] * axes
    assert apart(torch.randn(2, 16, *[8, 6, 10][:axes])).shape == (2, 24, *[4, 3, 5][:axes])


def test_a_convolution_of_each_map_alone_has_the_weights_counted_by_hand():
    apart = resnet.ResNetConvolutions(factorised="maps").three(3, 16, 24, 1)
    assert weights(apart) == 27 * 16 + 16 * 24
    network = built("resnet", 3, blocks=[1, 1], width=8, factorised="maps")
    assert network(torch.randn(2, 3, 7, 8, 9))["class"].shape == (2, 10)


def test_the_axis_of_thick_slices_is_looked_along_by_itself():
    strides = [[1, 1, 1], [2, 1, 2], [2, 2, 2]]
    size, because, paper = factory.size_for("pseudo3d_resnet", (64, 16, 64), strides, "cpu")
    assert (size["axis"], paper) == (1, "arXiv:1711.11248")
    assert "axis 1" in because


@pytest.mark.parametrize("name", ["convnext", "efficientnet"])
def test_blocks_are_left_out_while_training_only(name):
    size = {"width": 0.25, "depth": 0.5} if name == "efficientnet" else {"width": 8, "blocks": [1, 1]}
    plain, chancy = built(name, **size).eval(), built(name, left_out=0.5, **size)
    assert torch.equal(plain(COLOURS)["class"], chancy.eval()(COLOURS)["class"])


def test_a_sample_skips_its_block_or_its_answer_counts_the_more():
    block = ConvNeXtBlock(2, 8, 3, left_out=0.25)
    nn.init.ones_(block.scale)
    images = torch.randn(1, 8, 6, 6).expand(400, -1, -1, -1)
    whole = block.eval()(images[:1]) - images[:1]
    torch.manual_seed(0)
    found = block.train()(images) - images
    skipped = found.flatten(1).abs().amax(dim=1) == 0
    assert_allclose(
        found[~skipped].detach(), (whole / 0.75).expand(int((~skipped).sum()), -1, -1, -1).detach(), atol=1e-5
    )
    assert 0.17 < skipped.float().mean() < 0.33  # 0.25, four standard errors on either side


@pytest.mark.parametrize("name", thinned(4, CLASSICS))
def test_numbers_beside_an_image_join_what_the_network_has_made_of_it(name):
    size, _, _ = factory.size_for(name, (28, 28), [[1, 1], [2, 2]], "cpu")
    network = built(name, channels=1, context=2, **size).eval()
    images, told = torch.randn(2, 1, 28, 28), torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    [layer] = network.vectors.values()
    apart = network(images, told)["class"] - network(images, torch.zeros(2, 2))["class"]
    joined = told
    if hasattr(network, "telling"):  # beside the numbers themselves what a hidden layer makes of them
        aside = network.telling.aside
        joined = torch.cat([told, torch.relu(aside(told)) - torch.relu(aside(torch.zeros(2, 2)))], dim=1)
    assert_allclose(apart.detach(), (joined @ layer.weight[:, -joined.shape[1] :].T).detach(), atol=1e-5)


@settings(max_examples=10)
@given(
    st.sampled_from(CLASSICS), st.lists(st.integers(1, 70), min_size=1, max_size=3), st.sampled_from(["cpu", "cuda"])
)
def test_images_of_any_size_get_an_answer(name, shape, device):
    axes = len(shape)
    size, _, _ = factory.size_for(name, shape, [[1] * axes], device)
    if (name, axes) == ("pseudo3d_resnet", 1):
        return  # refused: see below
    with torch.device("meta"), torch.inference_mode():
        network = built(name, axes, 1, 2, **size).eval()
        assert network(torch.empty(1, 1, *shape))["class"].shape == (1, 2)


@pytest.mark.parametrize("name", CLASSICS)
def test_a_network_for_whole_images_refuses_to_answer_for_every_voxel(name):
    with pytest.raises(PlanError, match="Choose unet"):
        factory.build(name, 1, 2, {"mask": Dense(2)}, {})


@pytest.mark.parametrize(
    ("name", "axes", "size", "says"),
    [
        ("alexnet", 2, {"widths": [8, 8]}, "five convolutions"),
        ("convnext", 2, {"kernel": 4}, "kernel 4"),
        ("convnext", 2, {"left_out": 1.0}, "left_out 1.0"),
        ("efficientnet", 2, {"left_out": -0.1}, "left_out -0.1"),
        ("inception", 2, {"stem_stride": 3}, "1, 2, 4 or 8"),
        ("inception", 2, {"blocks": [3, 5, 2]}, "up to 2, 5 and 2"),
        ("pseudo3d_resnet", 1, {}, "choose resnet"),
        ("pseudo3d_resnet", 3, {"axis": 3}, "axis 3"),
        ("resnet", 2, {"attention": "self"}, "se, cbam and null"),
        ("resnet", 2, {"late": [1, 1]}, "one of them 0"),
        ("resnet", 2, {"factorised": "voxels"}, "axes, maps and null"),
        ("resnext", 2, {"factorised": "maps"}, "either groups or factorised"),
        ("resnext", 2, {"groups": 7}, "cannot be built"),
    ],
)
def test_sizes_that_cannot_be_are_refused(name, axes, size, says):
    heads: dict[str, Head] = {"class": Vector(2)}
    with pytest.raises(PlanError, match=says):
        factory.build(name, 1, axes, heads, size)


def test_an_axis_of_long_voxels_is_neither_looked_along_nor_halved_until_the_others_are_as_long():
    network = built("resnet", 3, 1, blocks=[1, 1, 1], width=4, stem_stride=2, late=[0, 0, 2])
    stem, *blocks = network.body[:4]
    assert (stem.kernel_size, stem.stride) == ((7, 7, 1), (2, 2, 1))
    assert [block.first.kernel_size for block in blocks] == [(3, 3, 1), (3, 3, 1), (3, 3, 3)]
    assert [block.first.stride for block in blocks] == [(1, 1, 1), (2, 2, 1), (2, 2, 2)]
    volume = torch.randn(1, 1, 16, 16, 6)
    other = volume.clone()
    other[..., 3] += 1
    early = network.eval().body[:3]
    changed = (early(volume) != early(other)).flatten(0, 3).any(dim=0)
    assert changed.tolist() == [n == 3 for n in range(6)]


def test_long_voxels_change_the_convolutions_and_the_reason_says_so():
    thick = [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2]]
    size, because, _ = factory.size_for("resnet", (96, 96, 16), thick, "cpu")
    assert size["late"] == [0, 0, 2]
    assert "axis 2 waits for 2 halvings of the others" in because
    few = [[1, 1, 1], [2, 2, 1], [2, 2, 1]]  # so few voxels that it is never halved: nothing says that they are long
    assert "late" not in factory.size_for("resnet", (96, 96, 6), few, "cpu")[0]


def test_kinds_of_resnet_wait_for_long_voxels_too():
    thick = [[1, 1, 1], [2, 2, 1], [2, 2, 2]]
    for name in ("se_resnet", "pseudo3d_resnet"):
        size, _, _ = factory.size_for(name, (32, 32, 8), thick, "cuda")
        network = built(name, 3, 1, **size)
        assert network.body[1].first.kernel_size == (3, 3, 1)
        assert network(torch.randn(2, 1, 16, 16, 5))["class"].shape == (2, 10)
