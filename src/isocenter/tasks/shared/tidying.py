"""Tidy label maps: rules by which pieces of a label go, or holes become part of it.

NumPy and SciPy only, and nothing of ours: a packaged model carries a copy of this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import ndimage


@dataclass(frozen=True)
class Tidying:
    """The post-processing of one label of a finished label map; by default none.

    largest:  only the largest connected piece stays
    holes:    background that the label encloses becomes the label
    smallest: connected pieces of less than this volume go (mm³, in 2D mm²; voxels where their size is not known)
    in_voxels: whether that counts voxels whatever their size, as where nobody knew it when the rule was chosen
    """

    largest: bool = False
    holes: bool = False
    smallest: float = 0.0
    in_voxels: bool = False


def tidied(mask: NDArray[np.integer], rules: Mapping[int, Tidying], voxel: float = 1.0) -> NDArray[np.integer]:
    """A label map (*spatial) with each label's rules applied, small pieces first, then the rest, then holes.

    rules: by label value
    voxel: volume of one, in the unit of `smallest`
    What is taken from a label becomes background; a hole gives way only where it is background.
    """
    result = mask
    for value, rule in rules.items():
        boxes = [] if rule == Tidying() else ndimage.find_objects((result == value).view(np.uint8))
        if not boxes:
            continue
        if result is mask:
            result = mask.copy()
        region = result[boxes[0]]
        inside = region == value
        remaining = _pieces(inside, rule, 1.0 if rule.in_voxels else voxel)
        region[inside & ~remaining] = 0
        if rule.holes:
            region[ndimage.binary_fill_holes(remaining) & (region == 0)] = value
    return result


def _pieces(inside: NDArray[np.bool_], rule: Tidying, voxel: float) -> NDArray[np.bool_]:
    """The connected pieces (touching corners connect) that the rule keeps."""
    if not rule.largest and not rule.smallest:
        return inside
    pieces, _ = ndimage.label(inside, np.ones((3,) * inside.ndim))
    sizes = np.bincount(pieces.ravel()) * voxel
    sizes[0] = 0
    keep = sizes >= max(rule.smallest, voxel)
    if rule.largest:
        keep &= np.arange(len(sizes)) == sizes.argmax()
    return np.asarray(keep[pieces])
