"""Measures of a map: the place and the spread of its evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
# Of each axis, half at either end.
OUTER = 0.2


def evidence_of(data: Singles) -> Singles:
    """The map's evidence for the target, in sum 1; all zeros where it has none."""
    evidence = np.clip(np.nan_to_num(data), 0, None)
    total = float(evidence.sum(dtype=np.float64))
    return evidence / total if total > 0 else evidence


def outer_fifth(spatial: tuple[int, ...]) -> NDArray[np.bool_]:
    """(*spatial) whether a voxel lies in the outer fifth along any axis longer than a few voxels."""
    outer = np.zeros(spatial, dtype=bool)
    for axis, size in enumerate(spatial):
        edge = round(size * OUTER / 2)
        ends = np.zeros(size, dtype=bool)
        if edge:
            ends[:edge] = ends[-edge:] = True
        outer |= ends.reshape([-1 if n == axis else 1 for n in range(len(spatial))])
    return outer


def map_measures(data: Singles, ndim: int | None = None) -> dict[str, Any]:
    """`border_share`: the share of the evidence in the image's outer fifth; of a clip in all its frames."""
    evidence = evidence_of(data)
    spatial = data.shape if ndim is None else data.shape[-ndim:]
    outer = outer_fifth(spatial)
    return {"border_share": round(float(evidence[..., outer].sum()), 6) if evidence.any() else None}
