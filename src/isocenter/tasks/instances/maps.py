"""Targets and loss of instance segmentation: which voxels are inside an object, and how far from its border.

Naylor et al., IEEE Trans Med Imaging 2019, doi:10.1109/TMI.2018.2865709. Made of the numbers after they have moved
with their image, on the device and in any number of axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from isocenter.lazy import torch
from isocenter.tasks.shared import label_loss

if TYPE_CHECKING:
    from torch import Tensor

# How much more a voxel counts where two objects touch: few voxels lie there, and they part the objects.
# Ronneberger et al., MICCAI 2015, arXiv:1505.04597, equation 2, gives these up to ten times the weight.
TOUCHING = 8.0
# Where the squared error of a height turns into an absolute one.
BETA = 0.1


def instance_loss(outputs: Tensor, numbers: Tensor, steps: Sequence[float], reach: float) -> Tensor:
    """A number to lower: Dice and cross-entropy of inside, and how far heights are off.

    outputs: (batch, 2, *spatial) logit of inside, and height
    numbers: (batch, *spatial) of objects
    """
    inside = numbers > 0
    logits = torch.stack([torch.zeros_like(outputs[:, 0]), outputs[:, 0]], dim=1)
    apart = torch.nn.functional.smooth_l1_loss(
        outputs[:, 1], heights(numbers, steps, reach), reduction="none", beta=BETA
    )
    weight = 1 + (TOUCHING - 1) * touching(numbers)
    # Inside and outside count alike, however little of an image the objects fill.
    sides = [(apart * weight * side).sum() / (weight * side).sum().clamp(min=1) for side in (inside, ~inside)]
    return label_loss("dice+ce", logits, inside.long()) + (sides[0] + sides[1]) / BETA


def heights(numbers: Tensor, steps: Sequence[float], reach: float) -> Tensor:
    """(batch, *spatial) distance to the nearest voxel of anything else, as a share of the object's largest or of reach.

    steps: length of a voxel per axis, reach in the same unit
    Every object has a top of 1, so that small ones stand out as large ones do; what is deeper than `reach` is as high
    as that, because no network sees farther than it has to. The edge of a patch is no border.
    """
    distance = torch.where(numbers > 0, _to_border(numbers, steps, reach), 0.0)
    cases = torch.arange(len(numbers), device=numbers.device).reshape(-1, *[1] * (numbers.ndim - 1))
    owner = (numbers.long() + cases * (int(numbers.max()) + 1)).flatten()
    deepest = distance.new_zeros(int(owner.max()) + 1).scatter_reduce(0, owner, distance.flatten(), "amax")
    return distance / deepest[owner].reshape(distance.shape).clamp(min=1e-6)


def touching(numbers: Tensor) -> Tensor:
    """(batch, *spatial) 1 in voxels next to another object, else 0."""
    return _next_to(numbers, lambda own, other: (own != other) & (own > 0) & (other > 0)).float()


def _to_border(numbers: Tensor, steps: Sequence[float], reach: float) -> Tensor:
    """Euclidean distance to the border voxels of the own object and one step on, exact up to `reach`.

    The squared distance is a minimum over each axis after the other: Felzenszwalb and Huttenlocher, Theory of Computing
    2012, doi:10.4086/toc.2012.v008a019; distances beyond `reach` are not needed.
    """
    border = _next_to(numbers, lambda own, other: own != other)
    squared = torch.where(border, 0.0, float(reach) ** 2)
    for axis, step in enumerate(steps, start=1):
        nearest = squared
        for far in range(1, min(math.ceil(reach / step), squared.shape[axis])):
            cost = (far * step) ** 2
            size = squared.shape[axis] - far
            nearest = nearest.clone() if nearest is squared else nearest
            for start, other in ((0, far), (far, 0)):
                part = nearest.narrow(axis, start, size)
                torch.minimum(part, squared.narrow(axis, other, size) + cost, out=part)
        squared = nearest
    return (squared.sqrt() + min(steps)).clamp(max=reach)


def _next_to(numbers: Tensor, differ: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(batch, *spatial) where a voxel and the next along an axis differ, both of them."""
    marked = torch.zeros_like(numbers, dtype=torch.bool)
    for axis, size in enumerate(numbers.shape[1:], start=1):
        if size > 1:
            edges = differ(numbers.narrow(axis, 0, size - 1), numbers.narrow(axis, 1, size - 1))
            marked.narrow(axis, 0, size - 1).logical_or_(edges)
            marked.narrow(axis, 1, size - 1).logical_or_(edges)
    return marked
