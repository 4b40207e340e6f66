from __future__ import annotations

import math

import pytest
import torch
from monai.networks.nets import swin_unetr
from timm.models import swin_transformer
from torch.nn.functional import pad

from hilum.networks import coatnet, factory, transformer_blocks
from hilum.networks.transformer_blocks import AttendedGroups
from hilum.values import Vector


@pytest.mark.parametrize(("grid", "shift"), [((8, 8), (0, 0)), ((8, 12), (2, 2)), ((6, 7), (2, 2))])
def test_shifted_windows_are_those_of_monai_and_of_timm(grid, shift):
    voxels = torch.arange(1, 1 + math.prod(grid)).reshape(1, *grid, 1)
    missing = [(0, -n % 4) for n in reversed(grid)]
    filled = [n + end for n, (_, end) in zip(grid, reversed(missing), strict=True)]
    sides = (0, 0, *[one for pair in missing for one in pair])
    back = [-one for one in shift]
    monai = swin_unetr.window_partition(pad(voxels, sides).roll(back, (1, 2)), (4, 4)).flatten(1)
    ours = transformer_blocks.places_in_windows(grid, (4, 4), shift, pads_first=True)
    assert torch.equal(ours, monai)
    theirs = swin_transformer.window_partition(pad(voxels.roll(back, (1, 2)), sides), (4, 4)).flatten(1)
    assert torch.equal(transformer_blocks.places_in_windows(grid, (4, 4), shift, pads_first=False), theirs)
    assert ours.numel() == math.prod(filled)


def test_what_attends_only_to_one_voxel_is_rolled_out_to_it_and_half_stays_where_it_is():
    weights = torch.zeros(1, 1, 4, 4)
    weights[..., 2] = 1  # all voxels of a grid of 2 x 2 attend to the third
    layer = AttendedGroups((2, 2), torch.arange(1, 5)[None], weights)
    rolled = transformer_blocks.roll_out_groups([layer], (4, 4), (1, 1))
    quarter = torch.full((2, 2), 1 / 32)
    assert torch.allclose(rolled[0, 0, 2:, :2], quarter + 1 / 8)
    assert torch.allclose(rolled[0, 0, :2, :2], quarter)
    assert rolled.sum().item() == pytest.approx(1)


def test_shares_beyond_an_image_that_is_filled_up_belong_to_no_voxel():
    layer = AttendedGroups((2, 2), torch.arange(1, 5)[None], torch.full((1, 1, 4, 4), 0.25))
    rolled = transformer_blocks.roll_out_groups([layer], (6, 8), (8, 8))
    assert rolled.shape == (1, 1, 6, 8)
    assert rolled.sum().item() == pytest.approx(6 * 8 / 256)


SWIN = {"img_size": 32, "window_size": 4, "patch_size": 2, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]}
HIERARCHICAL = {
    "coatnet": {"blocks": [1, 1, 1], "width": 8, "convolved": 1, "head": 8, "patch": [32, 32], "stem_stride": 2},
    "axial": {"strides": [[1, 1], [2, 2], [2, 2]], "patch": [32, 32], "width": 16, "convolved": 1},
    "timm": {"model": "swin_tiny_patch4_window7_224", "settings": SWIN},
    "swin_unetr": {"width": 12, "window": 3, "heads": [1, 1, 2, 2], "depths": [2, 2, 2, 2]},
}


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_attention_on_several_grids_is_rolled_out_to_a_map_that_sums_to_one_and_changes_no_answer(name):
    torch.manual_seed(0)
    module, images = (
        factory.build(name, 1, 2, {"class": Vector(2)}, HIERARCHICAL[name]).eval(),
        torch.randn(2, 1, 32, 32),
    )
    with torch.no_grad():
        plain = module(images)["class"]
        found = transformer_blocks.compute_attention(module, images, at=factory.family_of(name).attention)
    assert torch.allclose(found.outputs["class"], plain, atol=1e-5)
    assert len(found.groups) > 1
    assert not found.weights
    for layer in found.groups:
        within = layer.weights[:, (layer.places > 0).all(dim=1)].sum(dim=-1)
        assert torch.allclose(within, torch.ones_like(within), atol=1e-4)
    rolled = transformer_blocks.roll_out_groups(found.groups, (32, 32), getattr(found.module, "multiple", [1, 1]))
    assert rolled.shape == (2, 1, 32, 32)
    assert (rolled >= 0).all()
    assert rolled.sum(dim=(1, 2, 3)).max().item() <= 1 + 1e-4


def test_the_kept_weights_of_a_grid_are_those_that_the_network_uses():
    torch.manual_seed(0)
    layer = coatnet.GridAttention(2, 6, 4, (3, 4), 4, halved=False, left_out=0.0).eval()
    tokens, layer.kept = torch.randn(2, 12, 6), []
    with torch.no_grad():
        taken = layer._attend(tokens, (3, 4))
        values = layer.qkv(tokens).chunk(3, dim=2)[2]
        expected = layer.projection(layer.kept[0].weights[:, 0] @ values)
    assert torch.allclose(taken, expected, atol=1e-5)
