from __future__ import annotations

import socket

import pytest
import timm
import torch

from isocenter import networks
from isocenter.values import Vector

torch.set_num_threads(1)


def backbone(**size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build("timm", 2, 2, {"class": Vector(3)}, size).eval()


def test_building_a_backbone_opens_no_connection(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert backbone(model="resnet10t")(torch.randn(1, 2, 64, 64))["class"].shape == (1, 3)


# A plain one, one whose head is wider than its features, one without convolutions.
@pytest.mark.parametrize(
    ("model", "settings"),
    [("resnet10t", {}), ("mobilenetv3_small_050", {}), ("vit_tiny_patch16_224", {"img_size": 64})],
)
def test_the_answer_is_a_linear_layer_on_what_timm_pools(model, settings):
    network = backbone(model=model, settings=settings)
    theirs = timm.create_model(model, in_chans=2, num_classes=0, **settings).eval()
    theirs.load_state_dict(network.body.state_dict())
    images = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images)["class"], network.vectors["class"](theirs(images)))


# Maps with channels first, and with channels last.
@pytest.mark.parametrize(
    ("model", "settings"), [("resnet10t", {}), ("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": [1, 1]})]
)
@torch.no_grad()
def test_the_deepest_map_has_its_channels_first_and_its_mean_is_what_is_pooled(model, settings):
    network, images = backbone(model=model, settings=settings), torch.randn(2, 2, 64, 64)
    family = networks.family_of("timm")
    seen = networks.features(network, images, at=family.grid_features)
    assert seen.deepest.shape[2] == seen.deepest.shape[3] > 1
    torch.testing.assert_close(seen.pooled, networks.features(network, images, at=family.features).pooled)


def test_small_images_are_enlarged_first():
    small, large = backbone(model="resnet10t", enlarge=3), backbone(model="resnet10t")
    large.load_state_dict(small.state_dict())
    flat = torch.full((1, 2, 32, 32), 0.7)  # an even image is even at any size
    torch.testing.assert_close(small(flat)["class"], large(torch.full((1, 2, 96, 96), 0.7))["class"])
    size, because, _ = networks.size_for("timm", (28, 28), [[1, 1]], "cpu")
    assert size["enlarge"] == 4
    assert "enlarged 4 times" in because
