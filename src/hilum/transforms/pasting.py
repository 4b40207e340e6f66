"""Voxels of one image in place of those of another, and boxes for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Side of a box, as a share of the image's: that of Bai et al., CVPR 2023, arXiv:2305.00673.
SIDE = 2 / 3


def paste_voxels(images: Tensor, others: Tensor, inside: Tensor) -> Tensor:
    """(batch, channels, *spatial) images, of which the voxels inside are those of the others.

    inside: (batch, *spatial)
    """
    return torch.where(inside[:, None], others, images)


def sample_boxes(count: int, spatial: Sequence[int]) -> Tensor:
    """(count, *spatial) voxels of a box at a random place for each sample."""
    inside = torch.zeros(count, *spatial, dtype=torch.bool)
    sides = [max(1, round(SIDE * size)) for size in spatial]
    for place_inside in inside:
        starts = [int(torch.randint(size - side + 1, ())) for size, side in zip(spatial, sides, strict=True)]
        place_inside[tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))] = True
    return inside
