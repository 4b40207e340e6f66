"""Registration by optimisation as training on pairs, and a trained network, use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hilum.lazy import torch
from hilum.registration import _pyramid, deformable
from hilum.registration.deformable import SMOOTHNESS
from hilum.registration.linear import FirstGuess
from hilum.registration.similarity_measures import SIMILARITIES
from hilum.transforms import spatial_transforms
from hilum.values import Displacement, Image

if TYPE_CHECKING:
    from torch import Tensor

# Voxels of the grid on which a network's answer is refined.
MOST_REFINED = 2**20


def pull_images(images: Tensor, field: Tensor) -> Tensor:
    """(batch, channels, *spatial) read at the places to which a field, (batch, axes, *spatial) in voxels, leads.

    Between voxels linearly; beyond the edge the edge goes on.
    """
    spatial = field.shape[2:]
    lines = [torch.arange(size, dtype=field.dtype, device=field.device) for size in spatial]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij")) + field
    last = field.new_tensor([max(size - 1, 1) for size in spatial])
    at = (2 * places.movedim(1, -1) / last - 1).flip(-1)
    return torch.nn.functional.grid_sample(images, at, mode="bilinear", padding_mode="border", align_corners=True)


def pair_similarity(fixed: Image, moved: Image, similarity: str) -> float:
    """Similarity of two images on one grid where both are measured, 1 less the loss: larger is better."""
    pair = _pyramid.prepare_pair(fixed, moved, None, one_scale=similarity == "mse")
    both = (pair.fixed_known & pair.moving_known).astype(np.float32)
    with torch.no_grad():
        tensors = (torch.from_numpy(array)[None, None] for array in (pair.fixed, pair.moving, both))
        return 1 - float(SIMILARITIES[similarity](*tensors))


def refining_field(fixed: Image, moved: Image, similarity: str, steps: int) -> Displacement:
    """The field that a few more steps of optimisation find between two images that nearly lie on one another."""
    pair = _pyramid.prepare_pair(fixed, moved, None, one_scale=similarity == "mse")
    level = pair.level(_pyramid.level_spacings(pair.fixed_grid, 1, MOST_REFINED)[0])
    ndim = fixed.geometry.ndim
    start = FirstGuess("network", np.eye(ndim), np.zeros(ndim))
    return spatial_transforms.right_angled_field(
        deformable.field_of_velocity(
            deformable.fit_velocity(
                level, start, SIMILARITIES[similarity], smoothness=SMOOTHNESS[similarity], steps=steps
            )
        )
    )
