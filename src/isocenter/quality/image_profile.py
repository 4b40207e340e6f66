"""An image in a few numbers, of which groups of cases are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isocenter.values import Deferred, Image

# Of an image's voxels so many say how bright it is.
SAMPLE = 65536


def image_facts(image: Image) -> Mapping[str, Any]:
    """Modality, size, voxel size, field of view, and where its voxels are in memory their mean and deviation."""
    grid, sizes = image.geometry, sorted(image.geometry.shape)
    facts: dict[str, Any] = {"modality": image.modality, "longest side": sizes[-1], "shortest side": sizes[0]}
    if grid.spacing is not None:
        facts |= {"smallest spacing": min(grid.spacing), "largest spacing": max(grid.spacing)}
        facts["field of view"] = max(np.multiply(grid.shape, grid.spacing).tolist())
    if image.frames is not None:
        facts["frames"] = image.frames
    if not isinstance(image.pixels, Deferred):
        voxels = image.pixels.reshape(-1)
        some = voxels[:: 1 + voxels.size // SAMPLE]
        known = some[image.measured(some)].astype(np.float64)
        if known.size:
            facts |= {"mean intensity": float(known.mean()), "standard deviation of intensities": float(known.std())}
    return facts
