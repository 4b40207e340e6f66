"""Images of any size in whole cells of a network's coarsest grid, and outputs cut back to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad


def sizes(images: Tensor) -> list[int]:
    """Voxels per axis as plain numbers, which an export keeps as constants."""
    return [int(n) for n in images.shape[2:]]


def cells(images: Tensor, multiple: Sequence[int]) -> list[int]:
    """Whole cells along each axis that hold the images, at least two in all."""
    counts = [-(-n // step) for n, step in zip(sizes(images), multiple, strict=True)]
    return counts if max(counts) > 1 else [*counts[:-1], 2]


def filled(images: Tensor, multiple: Sequence[int]) -> Tensor:
    """Images padded by their last voxels to whole cells, at least two in all."""
    sides = zip(cells(images, multiple), multiple, sizes(images), strict=True)
    beyond = [count * step - n for count, step, n in sides]
    if max(beyond) == 0:
        return images
    return pad(images, [end for n in reversed(beyond) for end in (0, n)], mode="replicate")


def cut(maps: Tensor, size: Sequence[int], filled_size: Sequence[int]) -> Tensor:
    """Maps of padded images, on their grid or a coarser one, cropped to the images."""
    for axis, (n, padded) in enumerate(zip(size, filled_size, strict=True), start=2):
        maps = maps.narrow(axis, 0, -(-n * int(maps.shape[axis]) // padded))
    return maps


def product_of(strides: Sequence[Sequence[int]], axes: int) -> list[int]:
    """Voxels per axis of a cell of the last stage.

    strides: one entry a stage and axis; the first stage has stride 1
    Raises ValueError for other strides, and for fewer than two stages.
    """
    if len(strides) < 2 or max(strides[0]) > 1 or any(len(stride) != axes for stride in strides):
        raise ValueError(f"strides need two stages, {axes} numbers in each, and 1 in the first, not {strides}")
    return [math.prod(along) for along in zip(*strides, strict=True)]


def stages_for(strides: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The first stages of a plan, at least two: images are halved once where it has only one."""
    axes = len(strides[0])
    stages = [list(stride) for stride in strides[:most]]
    return stages if len(stages) > 1 else [[1] * axes, [2] * axes]
