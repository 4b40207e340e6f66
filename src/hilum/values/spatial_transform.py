"""Spatial transforms: points of one image to points of another, in RAS+ mm, and what is known of such pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.errors import DatasetError, GeometryError
from hilum.values.dataset_cases import AND
from hilum.values.grid_geometry import Floats, Geometry
from hilum.values.voxel_images import Image


@dataclass(frozen=True, eq=False)
class Affine:
    """A linear map and a shift.

    matrix: (n + 1, n + 1) mm to mm
    Raises GeometryError for a matrix that maps space onto less than itself.
    """

    matrix: Floats

    def __post_init__(self) -> None:
        matrix = _lock_copy(self.matrix, np.float64)
        object.__setattr__(self, "matrix", matrix)
        n = len(matrix) - 1
        if matrix.shape != (n + 1, n + 1) or n < 1 or not np.array_equal(matrix[-1], np.eye(n + 1)[-1]):
            raise GeometryError(
                f"a matrix of {matrix.shape}", "Affine", "Give (n + 1, n + 1) with a last row of 0 and 1"
            )
        if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) <= n:
            raise GeometryError("the matrix has no inverse", "Affine", "Give one that keeps every axis")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.matrix) - 1

    @property
    def inverse(self) -> Affine:
        """The exact inverse."""
        return Affine(np.linalg.inv(self.matrix))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.matrix.setflags(write=False)  # NumPy does not keep the lock when it is pickled


@dataclass(frozen=True, eq=False)
class Displacement:
    """A field of displacements: linear between voxel centres, the edge's own up to half a voxel beyond, 0 outside.

    vectors:  (n, *spatial) mm along each axis of the world, added to the place of the voxel
    geometry: the grid on which they stand
    So ITK reads fields too. Raises GeometryError for vectors that do not fit the grid.
    """

    vectors: Floats
    geometry: Geometry

    def __post_init__(self) -> None:
        vectors = _lock_copy(self.vectors, np.float32)
        object.__setattr__(self, "vectors", vectors)
        if vectors.shape != (self.ndim, *self.geometry.shape):
            problem = f"vectors of {vectors.shape} on a grid of {self.geometry.shape}"
            raise GeometryError(problem, "Displacement", "Give one number an axis for each voxel")
        if not np.isfinite(vectors).all():
            raise GeometryError("a displacement is no number", "Displacement", "Give finite lengths")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.geometry.ndim

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.vectors.setflags(write=False)


TransformPart = Affine | Displacement


@dataclass(frozen=True, eq=False)
class SpatialTransform:
    """Transform that gives where each point of the fixed image lies in the moving one.

    parts:         in the order in which they are applied; none is the identity
    fixed, moving: the grids of both images, None where a file does not state them
    Points and displacements are in RAS+ mm; of pictures without a physical size in pixels, (row, column).
    Raises GeometryError for parts of unlike numbers of axes.
    """

    parts: tuple[TransformPart, ...]
    fixed: Geometry | None = None
    moving: Geometry | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        grids = [grid for grid in (self.fixed, self.moving) if grid is not None]
        counts = {part.ndim for part in self.parts} | {grid.ndim for grid in grids}
        if len(counts) != 1:
            problem = f"parts and grids of {sorted(counts)} axes"
            raise GeometryError(
                problem, "SpatialTransform", "Give parts and grids of one number of axes, and one at least"
            )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return next(one for one in (*self.parts, self.fixed, self.moving) if one is not None).ndim

    @property
    def is_linear(self) -> bool:
        """Whether no part is a field."""
        return all(isinstance(part, Affine) for part in self.parts)

    @property
    def matrix(self) -> Floats | None:
        """(n + 1, n + 1) of all parts together; None with a field."""
        matrix = np.eye(self.ndim + 1)
        for part in self.parts:
            if not isinstance(part, Affine):
                return None
            matrix = part.matrix @ matrix
        return matrix

    def __repr__(self) -> str:
        words = ["affine" if isinstance(part, Affine) else f"field of {part.geometry.words}" for part in self.parts]
        return f"SpatialTransform({', then '.join(words) or 'identity'})"


def _lock_copy(values: Floats, kind: type) -> Floats:
    """Our own copy, locked against changes."""
    array: Floats = np.array(values, dtype=kind)
    array.setflags(write=False)
    return array


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
