"""Blanked blocks, and what their restoration costs."""

from __future__ import annotations

import pytest
import torch

from hilum.objectives import masked


@pytest.mark.parametrize("spatial", [(12, 12), (8, 12, 16), (7, 5)])
def test_the_same_share_of_blocks_is_blanked_in_each_image(spatial: tuple[int, ...]) -> None:
    blank = masked.sample_blocks(4, spatial, 4, 0.5)
    assert blank.shape == (4, 1, *spatial)
    if all(size % 4 == 0 for size in spatial):
        assert blank.float().mean(dim=tuple(range(1, blank.ndim))).tolist() == pytest.approx([0.5] * 4, abs=0.06)
        corner = blank[(slice(None), 0, *[slice(0, 4)] * len(spatial))].flatten(1)
        assert all(len(set(one.tolist())) == 1 for one in corner)


def test_something_is_blanked_and_something_is_left_however_few_blocks_there_are() -> None:
    for ratio in (0.01, 0.99):
        share = masked.sample_blocks(3, (4, 4), 2, ratio).float().mean(dim=(1, 2, 3))
        assert ((share > 0) & (share < 1)).all()


def test_blanked_voxels_show_the_mean_of_the_others() -> None:
    images = torch.tensor([1.0, 3.0, 100.0, 5.0]).reshape(1, 1, 4)
    blank = torch.tensor([False, False, True, False]).reshape(1, 1, 4)
    assert masked.blank_out(images, blank).flatten().tolist() == [1, 3, 3, 5]


def test_only_blanked_voxels_cost() -> None:
    images = torch.zeros(1, 2, 4)
    restored = torch.tensor([[[9.0, 1.0, 2.0, 9.0], [9.0, 3.0, 0.0, 9.0]]])
    blank = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    assert masked.restoration_error(restored, images, blank).tolist() == [1.5]
