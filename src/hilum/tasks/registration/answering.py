"""The answers of a registration: displacements of voxels to a transform in mm.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hilum.errors import HilumError
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Task
from hilum.transforms import spatial_transforms
from hilum.values import (
    Array,
    Displacement,
    Finding,
    Floats,
    Geometry,
    Label,
    Measurements,
    Prediction,
    Slabs,
    SpatialTransform,
)
from hilum.values.table_cells import TableRow

HEAD = "field"
# Of `Prediction.values`: similarity where the images lay at first, and through the transform.
BEFORE, AFTER = "similarity_before", "similarity_after"
# Of each side, the margin beyond the image in which displacements fall to zero, so that none ends abruptly; and of the
# largest displacement at the edge, how many times it is as wide: from once on nothing folds there.
MARGIN = 0.12
STEADY = 2.0


class FieldAnswering(Task):
    """The answers of a registration; the fields are those of `Registration`."""

    classes: tuple[Label, ...]
    axes: int

    @property
    def channel_labels(self) -> tuple[Label, ...]:
        """None: no channel is a structure."""
        return ()

    @property
    def bytes_per_voxel(self) -> int:
        """Memory of displacements, and of what is made of them."""
        return 4 * (2 * self.axes + 1)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean displacement."""
        return {HEAD: averages.mean_output([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """None: displacements are measured."""
        return {}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """The field in mm; nothing moves where no slab is."""
        voxels = np.zeros((geometry.ndim, *geometry.shape), dtype=np.float32)
        axes = [axis for axis, size in enumerate(geometry.shape) if size > 1 or geometry.ndim == self.axes]
        for region, arrays in slabs:
            for axis, component in zip(axes, np.asarray(arrays[HEAD]), strict=True):
                voxels[axis][region] = component
        field = fade_at_margin(voxels, geometry)
        return Prediction(geometry, transform=SpatialTransform((field,), geometry), labels=self.labels)

    def outputs(self, prediction: Prediction) -> TableRow:
        """Similarity before and after where it is known, voxels that fold, and how unevenly the image is stretched."""
        return {
            **(prediction.values or {}),
            **field_regularity(prediction),
            "inverse_error_mm": inverse_error(prediction),
        }

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """None: a transform is no finding."""
        return []


def fade_at_margin(voxels: Floats, geometry: Geometry) -> Displacement:
    """(n, *spatial) displacements in voxels as a field in mm that falls to zero in a margin around the image."""
    margins = []
    for axis, size in enumerate(geometry.shape):
        ends = np.take(voxels, [0, size - 1], axis=axis + 1)
        margins.append(math.ceil(max(MARGIN * size, STEADY * float(np.abs(ends).max()))) if size > 1 else 0)
    wide = np.pad(voxels, [(0, 0), *((margin, margin) for margin in margins)], mode="linear_ramp")
    affine = geometry.affine.copy()
    affine[:-1, -1] = geometry.to_world(-np.array(margins, dtype=float))
    mm = np.einsum("wi,i...->w...", geometry.affine[:-1, :-1].astype(np.float32), wide)
    grid = Geometry(wide.shape[1:], affine, physical=geometry.physical, oriented=geometry.oriented)
    return spatial_transforms.right_angled_field(Displacement(mm, grid))


def field_regularity(prediction: Prediction) -> dict[str, float]:
    """{figure: value} of the transform on the fixed grid: folded voxels in percent, and the SD of the log Jacobian."""
    assert prediction.transform is not None  # noqa: S101 - as decoded
    determinant = spatial_transforms.jacobian_determinants(prediction.transform, prediction.geometry)
    return {
        "folded_percent": spatial_transforms.folded_percent(determinant),
        "sd_log_jacobian": spatial_transforms.sd_log_jacobian(determinant),
    }


def inverse_error(prediction: Prediction) -> float:
    """Mean mm by which points miss themselves when they go forth and back; NaN for a field that folds."""
    assert prediction.transform is not None  # noqa: S101 - as decoded
    transform = prediction.transform
    try:
        parts = list(
            spatial_transforms.inverse_errors(
                transform, spatial_transforms.invert_transform(transform), prediction.geometry
            )
        )
    except HilumError:
        return math.nan
    distances = np.concatenate([one.ravel() for one in parts])
    return float(distances.mean()) if distances.size else math.nan
