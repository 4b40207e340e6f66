"""Bounding boxes of a label map: around the pieces of each structure, or around each numbered object.

Edges are tight: a box ends where the last voxel does, on the map's own axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isocenter.errors import GeometryError
from isocenter.lazy import ndimage
from isocenter.values import Array, BoundingBoxes, Floats, Image

# A piece of less than a hundredth of the largest, and of fewer voxels than a cube of 3, is rather a slip of the pen.
SPECK_SHARE, SPECK_VOXELS = 0.01, 27
PIECES = (
    "one around each piece of a structure in the masks, voxels touching at corners too; a piece of fewer than "
    f"{SPECK_VOXELS} voxels and less than {SPECK_SHARE:.0%} of the largest of its structure has none"
)
# Axes of a label map that boxes can be drawn around.
AXES = (2, 3)
OBJECTS = "one around each numbered object"


def is_speck(sizes: Array) -> Array:
    """(pieces,) whether each is tiny beside the largest; sizes: (pieces,) voxels."""
    return np.asarray(sizes < min(SPECK_VOXELS, SPECK_SHARE * max(sizes, default=0)))


def boxes_of_pieces(mask: Image, structures: Mapping[str, Sequence[int]], where: str) -> BoundingBoxes:
    """A box around each connected piece, corners touching, of each structure; specks have none, and that is noted.

    structures: {name: values of the mask that it is made of}
    Raises GeometryError for a map of one axis or with frames.
    """
    numbers = _one_map(mask, where)
    corners: list[Floats] = [np.zeros((0, 2 * numbers.ndim))]
    names, left = list[str](), False
    for name, values in structures.items():
        boxes, specks = _pieces(np.isin(numbers, list(values)))
        corners.append(boxes)
        names += [name] * len(boxes)
        left |= specks
    notes = ("specks in the mask, of a few voxels beside a large piece, have no box",) if left else ()
    return BoundingBoxes(np.concatenate(corners), tuple(names), notes=notes)


def boxes_of_objects(numbers: Image, name: str, where: str) -> BoundingBoxes:
    """A box around all voxels of each number above 0, all of one class.

    Raises GeometryError for a map of one axis or with frames.
    """
    numbers_found, corners = boxes_of_numbers(_one_map(numbers, where))
    return BoundingBoxes(corners, (name,) * len(numbers_found), numbers=numbers_found)


def boxes_of_numbers(values: Array) -> tuple[tuple[int, ...], Floats]:
    """The numbers above 0 in a map, the lowest first, and the (n, 2 * axes) corners of the boxes around them."""
    numbers_found, places = np.unique(values, return_inverse=True)
    # Numbered without gaps, because a file's numbers may be large.
    ordered: Array = places.reshape(values.shape).astype(np.int32) + int(numbers_found[0] != 0)
    corners = [_corners(one) for one in ndimage.find_objects(ordered)]
    return tuple(int(one) for one in numbers_found if one), np.reshape(corners, (-1, 2 * values.ndim)).astype(
        np.float64
    )


def _one_map(mask: Image, where: str) -> Array:
    """(*spatial) whole numbers."""
    if mask.geometry.ndim not in AXES or mask.frames is not None or len(mask.channels) > 1:
        problem = f"a label map of shape {mask.shape} has no boxes around what it shows"
        raise GeometryError(problem, where, "Give label maps of two or three axes, one an image")
    return np.asarray(mask.data[0])


def _pieces(inside: Array) -> tuple[Floats, bool]:
    """((n, 2 * axes) corners of the pieces, whether specks were left out); inside: (*spatial) truths"""
    pieces, _ = ndimage.label(inside, structure=np.ones((3,) * inside.ndim))
    specks = is_speck(np.bincount(pieces.ravel())[1:])
    corners = [_corners(box) for box, speck in zip(ndimage.find_objects(pieces), specks, strict=True) if not speck]
    return np.reshape(corners, (-1, 2 * inside.ndim)), bool(specks.any())


def _corners(box: Sequence[slice]) -> list[int]:
    return [*(part.start for part in box), *(part.stop for part in box)]
