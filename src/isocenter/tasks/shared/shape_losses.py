"""Losses of shape: surfaces, distances and centrelines, of (batch, channels, *spatial) logits of any number of axes.

Surfaces and skeletons follow the voxels, of which they are made; distances are in mm, by the sides of a voxel.
These terms count a voxel far from the structure little, or not at all: each needs a second term that counts all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import ndimage, torch
from isocenter.tasks.shared.loss_terms import SMOOTH, by_label, over_labels, sums

if TYPE_CHECKING:
    from torch import Tensor

# Voxels that a soft surface may lie off the true one and still count: the width of the step between two labels.
TOLERANCE = 1
# Erosions until a soft skeleton is whole; a structure wider than twice as many voxels keeps no skeleton in its middle.
EROSIONS = 8


def boundary(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - F1 of the labels' soft surfaces, within a tolerance of a voxel; for thin and tiny structures.

    A surface is what a minimum over the neighbours takes away, so that each piece counts by its surface and not by its
    volume, and a thin one is all surface. Max-pooling makes it: no distance map, and any number of axes.
    Bokhovkin and Burnaev, arXiv:1905.07852
    """
    probabilities, truth = by_label(logits, target)
    predicted, true = _surface(probabilities), _surface(truth)
    precision = (sums(predicted * _widened(true)) + SMOOTH) / (sums(predicted) + SMOOTH)
    recall = (sums(true * _widened(predicted)) + SMOOTH) / (sums(true) + SMOOTH)
    return over_labels(1 - 2 * precision * recall / (precision + recall + SMOOTH), truth)


def distance(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, spacing: Sequence[float] | None = None
) -> Tensor:
    """Voxels that are wrong, each by its mm to the true surface, as a share of what the opposite would cost.

    spacing: mm per axis of the grid; all axes alike without
    As published it is a sum of signed distances, with a least value of its own for each batch; here that is taken off,
    and the unit is divided away, so that it adds to terms between 0 and 1 on any grid.
    Kervadec et al., arXiv:1812.07032
    """
    probabilities, truth = by_label(logits, target)
    away = _distances(truth, spacing)
    return over_labels(sums((probabilities - truth).abs() * away) / sums(away).clamp(min=SMOOTH), truth)


def hausdorff(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, spacing: Sequence[float] | None = None
) -> Tensor:
    """Squared errors, each by its squared mm to the true and to the predicted surface, as their weighted mean.

    spacing: mm per axis of the grid; all axes alike without
    The predicted surface is where a label reaches half; no gradient goes through the distances. As published the sum is
    not divided by the distances' own, and weighed against Dice by hand.
    Karimi and Salcudean, arXiv:1904.10030
    """
    probabilities, truth = by_label(logits, target)
    marked = (probabilities.detach() > 0.5).to(truth.dtype)
    far = _distances(truth, spacing) ** 2 + _distances(marked, spacing) ** 2
    return over_labels(sums((probabilities - truth) ** 2 * far) / sums(far).clamp(min=SMOOTH), truth)


def centreline(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, labels: Sequence[int] | None = None
) -> Tensor:
    """1 - centreline Dice (clDice): how much of each skeleton lies inside the other label map.

    labels: channels of structures that have a centreline; without them all but the background
    Shit et al., arXiv:2003.07311
    """
    probabilities, truth = by_label(logits, target, labels)
    with torch.no_grad():
        true = soft_skeleton(truth)
    predicted = soft_skeleton(probabilities)
    precision = (sums(predicted * truth) + SMOOTH) / (sums(predicted) + SMOOTH)
    recall = (sums(true * probabilities) + SMOOTH) / (sums(true) + SMOOTH)
    return over_labels(1 - 2 * precision * recall / (precision + recall + SMOOTH), truth)


def soft_skeleton(inside: Tensor, erosions: int = EROSIONS) -> Tensor:
    """(batch, labels, *spatial) in 0..1: what an opening takes away, at every depth of a structure.

    Shit et al., arXiv:2003.07311
    """
    skeleton = torch.zeros_like(inside)
    for _ in range(erosions + 1):
        if inside.requires_grad:  # computed twice, because its many steps would all be kept for the backward pass
            inside, lost = torch.utils.checkpoint.checkpoint(_opened, inside, use_reentrant=False)
        else:
            inside, lost = _opened(inside)
        skeleton = skeleton + (lost - skeleton * lost).relu()
    return skeleton


def _opened(inside: Tensor) -> tuple[Tensor, Tensor]:
    """The eroded structure, and the voxels that widening does not bring back."""
    eroded = _narrowed(inside)
    return eroded, (inside - _widened(eroded)).relu()


def _surface(inside: Tensor) -> Tensor:
    outside = 1 - inside
    return _widened(outside) - outside


def _widened(values: Tensor) -> Tensor:
    """The largest value among each voxel and its neighbours, corners included."""
    for axis in range(2, values.ndim):
        values = _largest_along(values, axis)
    return values


def _narrowed(values: Tensor) -> Tensor:
    """The least value among each voxel and its neighbours along the axes."""
    least = [-_largest_along(-values, axis) for axis in range(2, values.ndim)]
    return torch.stack(least).amin(dim=0) if len(least) > 2 else torch.minimum(least[0], least[-1])


def _largest_along(values: Tensor, axis: int) -> Tensor:
    """The largest of each voxel and its neighbours along one axis."""
    for _ in range(TOLERANCE if values.shape[axis] > 1 else 0):
        pairs = _larger_of_neighbours(values, axis)
        ends = pairs.narrow(axis, 0, 1), pairs.narrow(axis, pairs.shape[axis] - 1, 1)
        values = torch.cat([ends[0], _larger_of_neighbours(pairs, axis), ends[1]], dim=axis)
    return values


def _larger_of_neighbours(values: Tensor, axis: int) -> Tensor:
    """One fewer along the axis than there are values."""
    fewer = values.shape[axis] - 1
    return torch.maximum(values.narrow(axis, 0, fewer), values.narrow(axis, 1, fewer))


def _distances(inside: Tensor, spacing: Sequence[float] | None) -> Tensor:
    """(batch, labels, *spatial) mm from each voxel to the nearest beyond the surface; 0 without a surface.

    Made by SciPy on the processor.
    """
    masks = inside.detach().cpu().numpy() > 0.5
    distances = np.zeros(masks.shape, dtype=np.float32)
    for index in np.ndindex(*masks.shape[:2]):
        mask = masks[index]
        if mask.any() and not mask.all():
            distances[index] = sum(ndimage.distance_transform_edt(side, spacing) for side in (mask, ~mask))
    return torch.from_numpy(distances).to(inside)
