"""The part of an image that somebody wants to be predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isocenter.errors import GeometryError, UsageError
from isocenter.files import read
from isocenter.values import Geometry, Image, Region, blocks

FLAG = "--region"
REMEDY = "Give voxels as 0:120,40:200,10:50, or a mask's file, or FILE=VALUE for one label of it"


def region_of(asked: str, image: Image, where: str) -> Region:
    """Voxels of the image, slices along its axes.

    asked: the voxels themselves (first:last+1 along each axis, an empty end for the image's own), or the file of a
           mask on the image's grid, of which the box around all that is not 0 is meant; FILE=VALUE is one label of it
    Raises UsageError for what is neither, GeometryError for a mask on another grid.
    """
    name, _, value = asked.rpartition("=")
    for path, label in ((asked, None), (name, value)):
        if path and Path(path).exists():
            return _around(read(path), label, image.geometry, path)
    return _voxels(asked, image.geometry.shape, where)


def found_from_anywhere(asked: str) -> str:
    """The same, where a file is meant by its full path: a worker may run in another folder.

    Raises UsageError for what no image can have.
    """
    name, equals, value = asked.rpartition("=")
    if Path(asked).exists():
        return str(Path(asked).absolute())
    if name and Path(name).exists():
        return f"{Path(name).absolute()}{equals}{value}"
    _bounds(asked)
    return asked


def _bounds(asked: str) -> list[tuple[int, int | None]]:
    """First voxel and the one behind the last, along each axis; None for the image's own end."""
    bounds: list[tuple[int, int | None]] = []
    for part in asked.split(","):
        try:
            first, end = (one.strip() for one in part.split(":"))
            low, high = int(first or 0), int(end) if end else None
        except ValueError as error:
            raise UsageError(f"{asked!r} is neither voxels nor a file that is there", FLAG, REMEDY) from error
        if low < 0 or (high is not None and high <= low):
            raise UsageError(f"{part.strip()!r} of {asked!r} holds no voxel", FLAG, REMEDY)
        bounds.append((low, high))
    return bounds


def _voxels(asked: str, shape: tuple[int, ...], where: str) -> Region:
    bounds = _bounds(asked)
    if len(bounds) != len(shape):
        raise UsageError(f"{asked!r} are not two voxels for each of {len(shape)} axes", FLAG, REMEDY)
    region = []
    for (low, high), size in zip(bounds, shape, strict=True):
        stop = size if high is None else high
        if not low < stop <= size:
            raise UsageError(f"{asked!r} does not lie within the {shape} voxels of {where}", FLAG, REMEDY)
        region.append(slice(low, stop))
    return tuple(region)


def _around(mask: Image, label: str | None, geometry: Geometry, path: str) -> Region:
    """The smallest box that holds all of a label, or of all labels."""
    if label is not None and not label.isdecimal():
        raise UsageError(f"{label!r} is not a value of a label map", FLAG, REMEDY)
    if mask.frames is not None or mask.shape[0] != 1 or not mask.geometry.equals(geometry):
        raise GeometryError("the mask lies on another grid than the image", path, "Resample it onto the image's grid")
    used = [np.zeros(size, bool) for size in geometry.shape]
    for region, part in blocks(mask.pixels):
        marked = part[0] != 0 if label is None else part[0] == int(label)
        for axis, (marks, rows) in enumerate(zip(used, region[1:], strict=True)):
            marks[rows] |= marked.any(axis=tuple(other for other in range(marked.ndim) if other != axis))
    if not used[0].any():
        raise UsageError("nothing is marked" if label is None else f"nothing is marked with {label}", path, REMEDY)
    ends = [np.flatnonzero(marks)[[0, -1]].tolist() for marks in used]
    return tuple(slice(low, high + 1) for low, high in ends)
