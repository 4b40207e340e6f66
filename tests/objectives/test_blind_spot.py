"""Blind spots, and what their restoration costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.tasks.test_enhancement import pairs
from tests.trained import SMALL_UNET, TWO_STEPS
from torch import nn

import hilum
from hilum.errors import PlanError
from hilum.objectives import blind_spot
from hilum.objectives.blind_spot import BlindSpot


@pytest.mark.parametrize("spatial", [(64,), (32, 24), (16, 12, 20), (9, 30, 1)])
def test_each_image_has_its_own_spots_apart_and_about_the_share_that_is_asked_for(spatial) -> None:
    torch.manual_seed(0)
    spots = blind_spot.sample_spots(6, spatial, 1 / 64)
    assert spots.shape == (6, 1, *spatial)
    share = spots.float().mean(dim=tuple(range(1, spots.ndim)))
    assert ((share > 1 / 80) & (share < 1 / 30)).all()
    assert not torch.equal(spots[0], spots[1])


def test_over_many_images_every_voxel_is_a_spot_as_often() -> None:
    torch.manual_seed(0)
    often = blind_spot.sample_spots(4000, (8, 8), 1 / 16).float().mean(dim=0)[0]
    assert often.min() > 0.045
    assert often.max() < 0.082


@pytest.mark.parametrize("spatial", [(40,), (12, 10), (6, 7, 5), (9, 1, 9)])
def test_a_spot_gets_all_channels_of_a_neighbour_and_nothing_else_changes(spatial) -> None:
    torch.manual_seed(0)
    size = torch.Size(spatial).numel()
    numbers = torch.arange(size, dtype=torch.float32).reshape(1, 1, *spatial).expand(3, 1, *spatial)
    images = torch.cat([numbers, numbers + 1000], dim=1)
    spots = blind_spot.sample_spots(3, spatial, 1 / 16)
    hidden = blind_spot.hide_spots(images, spots, 2)
    changed = hidden != images
    assert torch.equal(changed, spots.expand_as(changed))  # a neighbour is never the voxel itself
    assert torch.equal(hidden[:, 1], hidden[:, 0] + 1000)
    for place, value in zip(spots[:, 0].nonzero()[:, 1:], hidden[:, 0][spots[:, 0]], strict=True):
        [at] = (numbers[0, 0] == value).nonzero()
        assert (at - place).abs().max() <= 2


def test_only_spots_cost() -> None:
    restored = torch.tensor([[[9.0, 1.0, 3.0, 9.0], [9.0, 2.0, 4.0, 9.0]]])
    spots = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    assert blind_spot.spot_error(restored, torch.zeros(1, 2, 4), spots).tolist() == [7.5]


def test_a_network_learns_the_image_without_its_noise_and_not_the_noisy_image() -> None:
    torch.manual_seed(0)
    line = torch.sin(torch.arange(128) / 8)
    clean = line[:, None].expand(128, 32)[None, None]
    noisy = clean + 0.5 * torch.randn_like(clean)
    network = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(100):
        spots = blind_spot.sample_spots(1, (128, 32), 1 / 16)
        restored = network(blind_spot.hide_spots(noisy, spots, 5))
        cost = blind_spot.spot_error(restored, noisy, spots.float()).mean()
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
    error = (network(noisy) - clean).std().item()
    assert error < 0.5 / 2


def test_it_refuses_a_network_without_an_image() -> None:
    assert "no image as output" in BlindSpot().refusal(SimpleNamespace(heads={}))


def test_it_teaches_an_enhancement_without_any_target_and_nothing_else_does(tmp_path) -> None:
    settings = {**TWO_STEPS, "network.size": SMALL_UNET, "guard.gate": False, "task.error_bars": False}
    data = pairs(tmp_path / "data", 8)
    planned = hilum.plan(data, minutes=1, assignments={**settings, "objectives.terms": ["blind_spot"]})
    assert planned.plan["blind_spot.reach"] == 5
    with pytest.raises(PlanError, match="alone cannot teach enhancement"):
        hilum.plan(data, minutes=1, assignments={**settings, "objectives.terms": ["masked"]})
