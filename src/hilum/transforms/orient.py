"""Axis order, cropping, padding and mirroring: voxels are moved, and no label ends up on the wrong side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import PlanError
from hilum.values import Region


def names_sides(mirrored: Sequence[int] | None) -> bool:
    """Whether any label names a side.

    mirrored: for each label the one that it becomes when left and right change sides, empty where all stay; None where
              one has no counterpart
    """
    return mirrored is None or any(other != place for place, other in enumerate(mirrored))


def check_flips(
    section: str,
    flips: Sequence[int],
    left_right: int | None,
    *,
    mirrored: Sequence[int] | None,
    ndim: int,
    remedy: str = "",
) -> None:
    """Raises PlanError where an axis does not exist, or where flips would, or may, put a label on the wrong side.

    section:    of the plan, whose `flips` and `left_right` these are
    left_right: the axis between left and right; None where it is not known
    remedy:     in place of an edit of the plan
    """
    for name, axes in (("flips", flips), ("left_right", () if left_right is None else (left_right,))):
        beyond = [axis for axis in axes if not 0 <= axis < ndim]
        if beyond:
            problem = f"there is no axis {beyond[0]} in {ndim} dimensions"
            raise PlanError(problem, f"{section}.{name}", "Axes count from 0")
    where = f"{section}.flips"
    if names_sides(mirrored) and flips and left_right is None:
        problem = "labels name a side, and it is not known which axis runs from left to right"
        raise PlanError(problem, where, remedy or f"Give {section}.left_right, or no flips")
    if mirrored is None and left_right in flips:
        problem = "left and right would change sides, and a label has no counterpart on the other side"
        raise PlanError(problem, where, remedy or f"Leave out axis {left_right}")


def permute_axes(array: NDArray[Any], axes: Sequence[int], flips: Sequence[bool]) -> NDArray[Any]:
    """(channels, *spatial) with its spatial axes transposed and then flipped, as `Geometry.permute` does."""
    moved = array.transpose(0, *[axis + 1 for axis in axes])
    return moved[(slice(None), *[slice(None, None, -1) if flip else slice(None) for flip in flips])]


def undo_permute(array: NDArray[Any], axes: Sequence[int], flips: Sequence[bool]) -> NDArray[Any]:
    """The inverse of `permute_axes`."""
    back = array[(slice(None), *[slice(None, None, -1) if flip else slice(None) for flip in flips])]
    return back.transpose(0, *[int(axis) + 1 for axis in np.argsort(axes)])


def content_region(mask: NDArray[np.bool_], margin: int = 0) -> Region:
    """The smallest region that holds every true voxel, with a margin; the whole array where none is true."""
    region = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if len(used) == 0:
            return tuple(slice(0, size) for size in mask.shape)
        low, high = int(used[0]) - margin, int(used[-1]) + 1 + margin
        region.append(slice(max(0, low), min(mask.shape[axis], high)))
    return tuple(region)


def padding_to_size(shape: Sequence[int], smallest: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) per axis that bring `shape` to at least `smallest`, the image in the middle."""
    short = [max(0, want - have) for have, want in zip(shape, smallest, strict=True)]
    return [(missing // 2, missing - missing // 2) for missing in short]
