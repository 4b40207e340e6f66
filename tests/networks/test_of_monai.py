"""The encoder-decoders of MONAI, beside MONAI's own classes."""

from __future__ import annotations

import socket

import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks import nets

from hilum.errors import PlanError
from hilum.networks import common_layers, factory, monai_networks
from hilum.values import Dense, Vector
from matrices import thinned

torch.set_num_threads(1)

# A size of ours, MONAI's network for two axes with the same settings, and a size that both take.
FIVE = [[1, 1], *[[2, 2]] * 4]
TWINS = {
    "attention_unet": (
        {"strides": [[1, 1], [1, 2], [2, 2]], "width": 8},
        lambda: nets.AttentionUnet(2, 2, 4, (8, 16, 32), ((1, 2), (2, 2))),
        (12, 20),
    ),
    "unet_plus_plus": (
        {"strides": FIVE, "width": 4},
        lambda: nets.BasicUNetPlusPlus(2, 2, 4, features=(4, 8, 16, 32, 64, 4)),
        (32, 48),
    ),
    "vnet": ({"strides": FIVE}, lambda: nets.VNet(2, 2, 4), (32, 48)),
    "mednext": (
        {"halvings": 3, "width": 8, "blocks": [1, 2, 1, 3], "expansion": [2, 3, 4, 4]},
        lambda: nets.MedNeXt(
            2,
            8,
            2,
            4,
            encoder_expansion_ratio=(2, 3, 4),
            decoder_expansion_ratio=(4, 3, 2),
            bottleneck_expansion_ratio=4,
            kernel_size=3,
            use_residual_connection=True,
            blocks_down=(1, 2, 1),
            blocks_bottleneck=3,
            blocks_up=(1, 2, 1),
        ),
        (16, 24),
    ),
    "unetr": (
        {"patch": [32, 48], "hidden": 24, "inner": 48, "heads": 3, "width": 4},
        lambda: nets.UNETR(2, 4, (32, 48), 4, 24, 48, 3, spatial_dims=2),
        (32, 48),
    ),
    "swin_unetr": ({"width": 12}, lambda: nets.SwinUNETR(2, 4, feature_size=12, spatial_dims=2), (64, 32)),
}
# The smallest of each in volumes, and in signals where MONAI has it, with a size that is no multiple of anything.
ANY_SIZE = {
    "attention_unet": {1: {"strides": [[1], [2]], "width": 2}, 3: {"strides": [[1] * 3, [1, 2, 2]], "width": 2}},
    "unet_plus_plus": {1: {"strides": [[1], [2]], "width": 2}, 3: {"strides": [[1] * 3, [1, 2, 2]], "width": 2}},
    "vnet": {3: {"strides": [[1] * 3, [1, 2, 2]], "width": 2}},
    "mednext": {3: {"halvings": 2, "width": 2}},
    "unetr": {axes: {"patch": [16] * axes, "hidden": 12, "inner": 12, "heads": 3, "width": 2} for axes in (1, 3)},
    "swin_unetr": {3: {"width": 12, "depths": [1, 1, 1, 1], "window": 2}},
}


def built(name: str, axes: int, size: dict, heads: dict | None = None, channels: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build(name, channels, axes, heads or {"mask": Dense(4)}, size).eval()


@pytest.mark.parametrize("name", thinned(3, TWINS))
def test_with_the_weights_of_monais_class_it_gives_monais_answer(name):
    size, twin, shape = TWINS[name]
    torch.manual_seed(1)
    theirs = twin().eval()
    ours = built(name, 2, size, {"mask": Dense(3), "edge": Dense(1)})
    kept = {key for key in theirs.state_dict() if f"body.{key}" in ours.state_dict()}
    # What is left out learns nothing: outputs of nodes that are not asked, norms before an attention that is not there.
    assert all("final_conv" in key or "norm_cross_attn" in key for key in set(theirs.state_dict()) - kept)
    ours.load_state_dict({f"body.{key}": theirs.state_dict()[key] for key in kept})
    images = torch.randn(2, 2, *shape)
    with torch.no_grad():
        said, expected = ours(images), theirs(images)
    expected = expected[-1] if isinstance(expected, list) else expected
    torch.testing.assert_close(torch.cat([said["mask"], said["edge"]], dim=1), expected)


@pytest.mark.parametrize(
    ("name", "axes"), thinned(3, [(name, axes) for name, sizes in ANY_SIZE.items() for axes in sizes])
)
def test_a_size_that_is_no_multiple_is_continued_by_its_last_voxels_and_the_answer_cut_back(name, axes):
    network = built(name, axes, ANY_SIZE[name][axes], {"mask": Dense(3), "class": Vector(2)})
    shape = (9, 10, 7)[:axes]
    images = torch.randn(1, 2, *shape)
    with torch.no_grad():
        said, whole = network(images), network(common_layers.pad_to_cells(images, network.multiple))
    assert said["mask"].shape == (1, 3, *shape)
    inside = tuple(slice(n) for n in shape)
    torch.testing.assert_close(said["mask"], whole["mask"][(..., *inside)])
    torch.testing.assert_close(said["class"], whole["class"])


@pytest.mark.whole  # its export takes 17 s, however small it is
def test_onnxruntime_gives_the_answer_of_swin_unetr_for_another_batch(tmp_path):
    network = built("swin_unetr", 2, {"width": 12, "depths": [1, 1, 1, 1], "window": 4})
    path, count = tmp_path / "network.onnx", torch.export.Dim("batch", min=1)
    options = {"dynamo": True, "dynamic_shapes": ({0: count},), "verbose": False, "external_data": False}
    torch.onnx.export(network, (torch.randn(2, 2, 30, 40),), path, **options)
    others = torch.randn(3, 2, 30, 40)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [said] = session.run(None, {session.get_inputs()[0].name: others.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(said), network(others)["mask"], atol=1e-5, rtol=1e-4)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 8)), min_size=1, max_size=3))
def test_an_image_is_continued_to_whole_cells_of_which_there_are_at_least_two(axes):
    size, multiple = zip(*axes, strict=True)
    image = torch.arange(float(torch.tensor(size).prod())).reshape(1, 1, *size)
    larger = common_layers.pad_to_cells(image, multiple)
    cells = [n / step for n, step in zip(larger.shape[2:], multiple, strict=True)]
    assert all(one == int(one) for one in cells)
    assert max(cells) >= 2
    assert torch.equal(common_layers.crop_to_images(larger, size, larger.shape[2:]), image)
    assert larger.flatten()[-1] == image.flatten()[-1]
    # No more than is needed, but for the second cell.
    slack = [n - step < m for n, step, m in zip(larger.shape[2:-1], multiple[:-1], size[:-1], strict=True)]
    assert all(slack)


def test_an_image_of_another_size_than_unetr_was_built_for_reads_its_places_in_between():
    size = {"patch": [32, 32], "hidden": 12, "inner": 12, "heads": 3, "width": 2}
    network = built("unetr", 2, size)
    learnt = network.body.vit.patch_embedding.position_embeddings
    assert network.places([2, 2]) is learnt
    with torch.no_grad():  # a ramp from left to right stays one on a finer grid
        learnt.copy_(torch.tensor([0.0, 1.0, 0.0, 1.0])[None, :, None].expand_as(learnt))
    finer = network.places([2, 4])
    torch.testing.assert_close(finer[0, :, 0], torch.tensor([0.0, 0.25, 0.75, 1.0] * 2))
    assert network(torch.randn(1, 2, 32, 60))["mask"].shape == (1, 4, 32, 60)


def test_coarser_outputs_of_mednext_lie_on_the_image_alone():
    network = built("mednext", 2, {"halvings": 3, "width": 4, "deep_supervision": 2}).train()
    said = network(torch.randn(2, 2, 12, 20))  # continued to 16 x 24
    assert {head: tuple(one.shape[2:]) for head, one in said.items()} == {
        "mask": (12, 20),
        "mask@1": (6, 10),
        "mask@2": (3, 5),
    }


@pytest.mark.parametrize(("channels", "added"), [(1, 0), (2, 0), (3, 1), (5, 3), (16, 0)])
def test_vnet_takes_any_number_of_channels_up_to_its_width(channels, added):
    network = built("vnet", 2, {"strides": [[1, 1], [2, 2]]}, channels=channels)
    assert network.added == added
    images = torch.randn(1, channels, 8, 8)
    zeros = torch.zeros(1, added, 8, 8)
    taken = factory.build("vnet", channels + added, 2, {"mask": Dense(4)}, {"strides": [[1, 1], [2, 2]]}).eval()
    taken.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(images)["mask"], taken(torch.cat([images, zeros], dim=1))["mask"])


def test_dropout_of_vnet_leaves_no_picture_of_a_batch_without_maps():
    """MONAI's class takes the images of a batch for maps there, and blanks whole ones."""
    network = built("vnet", 2, {"strides": [[1, 1], [2, 2]], "dropout": 0.5}).train()
    across = network.body.get_submodule("up_tr32").dropout2
    dropped = across(torch.ones(8, 16, 4, 4)).amax(dim=(2, 3))
    assert (dropped.amax(dim=1) > 0).all()
    assert (dropped == 0).any()


def test_axes_are_reduced_as_the_strides_say():
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    for name in ("attention_unet", "unet_plus_plus", "vnet"):
        network = built(name, 3, {"strides": strides, "width": 2})
        with torch.no_grad():
            features = network.encode(torch.randn(1, 2, 4, 8, 12))
        assert [tuple(one.shape[2:]) for one in features] == [(4, 8, 12), (4, 4, 6), (2, 2, 3)]
        assert [one.shape[1] for one in features] == [2, 4, 8]


@pytest.mark.parametrize(("patch", "often"), [((96, 96, 96), 4), ((96, 96, 24), 3), ((28, 28), 3), ((5, 64), 1)])
def test_all_axes_are_halved_as_often_as_the_shortest_keeps_two_cells(patch, often):
    assert monai_networks.halvings_for(patch, 4) == often


def test_where_nobody_asks_for_a_map_none_is_made():
    network = built("vnet", 2, {"strides": [[1, 1], [2, 2]], "width": 2}, {"class": Vector(3)})
    assert {head: tuple(one.shape) for head, one in network(torch.randn(2, 2, 8, 8)).items()} == {"class": (2, 3)}


def test_building_one_opens_no_connection(monkeypatch):
    addresses: list[object] = []

    def refuse(_: object, address: object) -> None:
        addresses.append(address)  # whoever asks may go on without an answer
        raise OSError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name, (size, _, _) in TWINS.items():
        built(name, 2, size)
    assert addresses == []


@pytest.mark.parametrize(
    ("name", "axes", "size", "says"),
    [
        ("attention_unet", 2, {"strides": [[1, 1]]}, "two stages"),
        ("attention_unet", 2, {"strides": [[1, 1, 1], [2, 2, 2]]}, "2 numbers"),
        ("unet_plus_plus", 2, {"strides": [[2, 2], [2, 2]]}, "1 in the first"),
        ("unet_plus_plus", 2, {}, "strides"),
        ("vnet", 1, {"strides": [[1], [2]]}, "2 or 3 axes, not 1"),
        ("vnet", 2, {"strides": [[1, 1], [2, 2]], "width": 1}, "cannot be added"),
        ("mednext", 1, {}, "2 or 3 axes, not 1"),
        ("mednext", 2, {"kernel": 4}, "odd"),
        ("mednext", 2, {"halvings": 2, "deep_supervision": 3}, "coarser outputs"),
        ("mednext", 2, {"halvings": 2, "blocks": [1, 1]}, "blocks"),
        ("unetr", 3, {"patch": [32, 32]}, "3 sizes"),
        ("unetr", 2, {"patch": [32, 32], "hidden": 10, "heads": 3}, "divisible"),
        ("swin_unetr", 1, {}, "2 or 3 axes, not 1"),
        ("swin_unetr", 2, {"width": 20}, "12"),
        ("swin_unetr", 2, {"depths": [2, 2]}, "four grids"),
    ],
)
def test_a_network_that_cannot_be_is_refused(name, axes, size, says):
    with pytest.raises(PlanError, match=says):
        factory.build(name, 2, axes, {"mask": Dense(2)}, size)


def test_one_that_knows_images_alone_refuses_covariates():
    with pytest.raises(PlanError, match="takes no covariates"):
        factory.build("vnet", 1, 2, {"mask": Dense(2)}, {"strides": [[1, 1], [2, 2]]}, context=3)
