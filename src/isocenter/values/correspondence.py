"""Pairs of images: what is known to lie on what, and the facts of a moving image that was brought onto a fixed one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isocenter.errors import DatasetError
from isocenter.values.case import AND
from isocenter.values.geometry import Floats
from isocenter.values.image import Image
from isocenter.values.transform import SpatialTransform

# Facts of a moving image on the grid of the fixed one: the transform through which it came there, and the image itself
# on its own grid.
ONTO, UNMOVED = "onto", "unmoved"


@dataclass(frozen=True, eq=False)
class Correspondence:
    """The structures and points of two images that belong together; an empty one says that the images are a pair.

    fixed_labels, moving_labels: label maps, each on the grid of its own image; one value is one structure in both
    fixed_points, moving_points: (points, n) mm, in one order
    onto: the transform from the fixed image to the moving one from which a registration begins
    Raises DatasetError for points of which one image has more than the other.
    """

    fixed_labels: Image | None = None
    moving_labels: Image | None = None
    fixed_points: Floats | None = None
    moving_points: Floats | None = None
    onto: SpatialTransform | None = None

    def __post_init__(self) -> None:
        sides = (self.fixed_points, self.moving_points)
        arrays = [np.asarray(one) for one in sides if one is not None]
        if len(arrays) == 1 or len({one.shape for one in arrays}) > 1:
            counts = " and ".join("no" if one is None else str(len(one)) for one in sides)
            raise DatasetError(
                f"{counts} points of the two images", "pair", "Give the same points of both, in one order"
            )

    @property
    def has_labels(self) -> bool:
        """Whether structures of both images are known."""
        return self.fixed_labels is not None and self.moving_labels is not None


def patients_of_pair(fixed: str, moving: str) -> str:
    """The patient of a pair as `Case.patient` has it: one person, or both."""
    return fixed if fixed == moving else AND.join((fixed, moving))
