"""Resampling of an image onto the grid of another, by their places in the patient."""

from __future__ import annotations

from dataclasses import replace

from isocenter.errors import GeometryError
from isocenter.transforms.spatial import carried
from isocenter.values import Geometry, Image, SpatialTransform


def aligned(image: Image, geometry: Geometry, where: str) -> Image:
    """The image sampled at the voxel centres of `geometry`, linearly; what it does not cover is NaN, so not `valid`.

    Nor is what is made of voxels that are no measurements. Nothing is registered: both must lie in the same world.
    Raises GeometryError where they do not, or where the size or sides of one are not known.
    """
    for grid in (image.geometry, geometry):
        if not (grid.physical and grid.oriented):
            raise GeometryError(
                "a grid without spacing or orientation",
                where,
                "Give images with a position in the patient: only these can be aligned",
            )
    frames = {image.geometry.frame_of_reference, geometry.frame_of_reference} - {None}
    if len(frames) > 1:
        raise GeometryError(
            "the images lie in different frames of reference",
            where,
            "Register them: --align register; the headers alone do not say how they lie",
        )
    if image.geometry.equals(geometry):
        return image
    moved = carried(image, SpatialTransform((), geometry, image.geometry), geometry)
    return replace(moved, notes=(*image.notes, "resampled onto another image's grid"))
