from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models import resnet18, resnet50
from torchvision.models.segmentation import deeplabv3_resnet50

from hilum.errors import PlanError
from hilum.networks import factory, inflated_resnet, weight_loading
from hilum.networks.inflated_resnet import InflatedEncoder
from hilum.values import Head, Vector

torch.set_num_threads(1)

CLASS: dict[str, Head] = {"class": Vector(5)}


def lived_in(network: torch.nn.Module) -> torch.nn.Module:
    """Running means that are not those of a fresh network."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    torch.manual_seed(0)
    return lived_in(resnet18(num_classes=5))


@pytest.fixture(scope="module")
def given(theirs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(theirs.state_dict(), path)
    return path


def carried(network: torch.nn.Module, theirs: torch.nn.Module) -> torch.nn.Module:
    """The last layer too, of which a file of weights knows nothing."""
    [last] = network.vectors.values()
    last.load_state_dict(theirs.fc.state_dict())
    return network.eval()


def test_in_pictures_it_is_torchvisions_network(theirs, given):
    ours = factory.build("inflated_resnet", 3, 2, CLASS, {})
    said = factory.load_pretrained(ours, "inflated_resnet", {}, given).words
    assert said.endswith("fresh: vectors.class.weight, vectors.class.bias")
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(carried(ours, theirs)(images)["class"], theirs(images))


@pytest.mark.parametrize("size", [{}, {"planar": 2}, {"axis": 0, "planar": 3}, {"strides": [[2, 2, 1]] * 5}], ids=str)
@pytest.mark.parametrize("inflation", ["mean", "centre"])
@pytest.mark.whole
def test_a_volume_of_equal_slices_gets_torchvisions_answer_for_one(theirs, given, size, inflation):
    ours = factory.build("inflated_resnet", 1, 3, CLASS, size)
    said = factory.load_pretrained(ours, "inflated_resnet", size, given, inflation).words
    axis = size.get("axis", 2)
    assert f"20 kernels inflated along axis {axis}" in said
    picture, place = torch.randn(1, 1, 32, 32), axis + 2
    volume = picture.unsqueeze(place).repeat_interleave(5, dim=place)
    with torch.no_grad():
        expected = theirs(picture.expand(1, 3, 32, 32))
        torch.testing.assert_close(carried(ours, theirs)(volume)["class"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.whole
def test_what_lies_along_the_axis_is_seen_by_the_mean_and_not_by_the_centre(given):
    """Two volumes of the same slices in another order: kernels of one slice cannot tell them apart."""
    size = {"strides": [[2, 2, 1]] * 5}
    volume = torch.randn(1, 1, 32, 32, 6)
    apart = {}
    for inflation in ("mean", "centre"):
        network = factory.build("inflated_resnet", 1, 3, CLASS, size).eval()
        factory.load_pretrained(network, "inflated_resnet", size, given, inflation)
        network.encoder.maxpool = torch.nn.MaxPool3d((3, 3, 1), (2, 2, 1), (1, 1, 0))  # it too looks beyond a slice
        one, other = (network(each)["class"] for each in (volume, volume[..., [3, 0, 5, 1, 4, 2]]))
        apart[inflation] = (one - other).abs().max().item()
    assert apart["centre"] < 1e-5
    assert apart["mean"] > 1e-3


def test_parts_in_the_plane_do_not_mix_slices():
    encoder = InflatedEncoder(1, 3, width=4, strides=[[2, 2, 1]] * 5, planar=3).eval()
    volume = torch.randn(1, 1, 32, 32, 7)
    other = volume.clone()
    other[..., 3] += torch.randn(32, 32)
    changed = [(a != b).flatten(0, 3).any(dim=0).tolist() for a, b in zip(encoder(volume), encoder(other), strict=True)]
    alone = [n == 3 for n in range(7)]
    assert changed[:2] == [alone, alone]
    assert sum(changed[2]) > 1


def convolutions(network: torch.nn.Module) -> list[tuple]:
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    return [(one.weight.shape, one.stride, one.dilation, one.padding) for one in layers]


def test_dilated_stages_are_those_of_torchvisions_deeplab():
    with torch.device("meta"):
        theirs = deeplabv3_resnet50(weights=None, weights_backbone=None).backbone
        ours = InflatedEncoder(3, 2, "resnet50", dilated=2)
    assert convolutions(ours) == convolutions(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.whole
def test_the_addresses_of_published_weights_are_torchvisions_and_all_of_them_fit(monkeypatch):
    for model, file in inflated_resnet.FILES.items():
        of = torchvision.models.get_model_weights(model)
        assert f"{inflated_resnet.PUBLISHED_AT}/models/{file}" == of.DEFAULT.url
    with torch.device("meta"):
        theirs = resnet50().state_dict()
    given = {name: torch.zeros(value.shape) for name, value in theirs.items()}
    monkeypatch.setattr(weight_loading, "_silence", lambda address: "")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda address, **asked: given)
    size, _, _ = factory.size_for("inflated_resnet", (64, 64, 24), [[1, 1, 1]], "cuda")
    network = factory.build("inflated_resnet", 1, 3, CLASS, size)
    said = factory.load_pretrained(network, "inflated_resnet", size, "auto").words
    assert "the published weights of resnet50" in said
    assert "without a place here: encoder.fc.weight, encoder.fc.bias" in said
    assert said.endswith("fresh: vectors.class.weight, vectors.class.bias")
    with pytest.raises(PlanError, match="with a width of 64"):
        factory.load_pretrained(network, "inflated_resnet", {**size, "width": 32}, "auto")


def test_a_short_axis_is_looked_along_in_the_deeper_parts():
    size, because, _ = factory.size_for("inflated_resnet", (96, 96, 24), [[1, 1, 1]], "cuda")
    assert (size["axis"], size["planar"]) == (2, 2)
    assert size["strides"] == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert "reduced 2 parts later" in because


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"model": "resnet9"}, "choose one of resnet18"),
        ({"strides": [[2, 2, 2]] * 4}, "5 entries of 3 numbers"),
        ({"planar": 6}, "planar 6"),
        ({"axis": 3}, "axis 3"),
    ],
)
def test_what_is_no_such_network_is_refused(size, says):
    with pytest.raises(PlanError, match=says):
        factory.build("inflated_resnet", 1, 3, CLASS, size)
