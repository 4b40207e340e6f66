"""Bounding boxes on the grid of an image, in voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import GeometryError
from hilum.values.grid_geometry import Floats

# The letters of a grid's axes: a picture is (row, column), a volume (column, row, slice).
LETTERS = {2: ("y", "x"), 3: ("x", "y", "z")}


@dataclass(frozen=True, eq=False)
class BoundingBoxes:
    """Boxes with a class each, on one image's own grid.

    corners: (n, 2 * axes) its start on every axis of the image, in the image's own order, then its end:
             edges in voxels, so that voxel i reaches from i to i + 1, and (0, 0, 2, 3) holds 2 x 3 voxels. A voxel's
             index is its centre, half a voxel beyond its edge
    names:   (n,) the class of each
    scores:  (n,) in 0..1, of a prediction; None of a reference
    ignored: (n,) whether detecting it is neither right nor wrong: "difficult" of Pascal VOC, "iscrowd" of COCO
    epistemic: (n,) share of its uncertainty about which several views of the image disagree; None where nobody knows
    uncalibrated: (n,) scores before they were calibrated; None where that changed nothing
    numbers: (n,) of the objects, which keep them in other frames of a clip; empty where nobody numbered them
    notes:   decisions of the reader and oddities of the file, one sentence each
    Raises GeometryError for a box without extent, or corners that are no numbers.
    """

    corners: Floats
    names: tuple[str, ...]
    scores: Floats | None = None
    ignored: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    notes: tuple[str, ...] = ()
    epistemic: Floats | None = None
    uncalibrated: Floats | None = None
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        corners = _lock_copy(self.corners, np.float64)
        ignored = _lock_copy(self.ignored if len(self.ignored) else np.zeros(count), np.bool_)
        scores = None if self.scores is None else _lock_copy(self.scores, np.float64)
        object.__setattr__(self, "corners", corners)
        object.__setattr__(self, "ignored", ignored)
        object.__setattr__(self, "scores", scores)
        if corners.shape not in ((count, 4), (count, 6)):
            problem = f"corners of shape {corners.shape} for {count} names"
            raise GeometryError(problem, "BoundingBoxes", "Give (n, 2 * axes) corners of 2 or 3 axes, and a name each")
        if ignored.shape != (count,) or (scores is not None and scores.shape != (count,)):
            raise GeometryError("not one score and one mark a box", "BoundingBoxes", f"Give {count} of each")
        if not np.isfinite(corners).all() or not (self.lengths > 0).all():
            problem = f"box {_first(np.isfinite(corners).all(axis=1) & (self.lengths > 0).all(axis=1))} has no extent"
            raise GeometryError(problem, "BoundingBoxes", "Give boxes whose end lies beyond their start")

    @classmethod
    def none(cls, axes: int, *, scored: bool = False) -> BoundingBoxes:
        """No box on a grid of so many axes."""
        return cls(np.zeros((0, 2 * axes)), (), np.zeros(0) if scored else None)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def axes(self) -> int:
        """Number of axes of the image."""
        return int(self.corners.shape[1]) // 2

    @property
    def low(self) -> Floats:
        """(n, axes) the start of each box."""
        return self.corners[:, : self.axes]

    @property
    def high(self) -> Floats:
        """(n, axes) the end of each box."""
        return self.corners[:, self.axes :]

    @property
    def lengths(self) -> Floats:
        """(n, axes) voxels."""
        return self.high - self.low

    @property
    def centres(self) -> Floats:
        """(n, axes) edges count: the centre of voxel i is at i + 0.5."""
        return (self.low + self.high) / 2

    def of_class(self, name: str) -> BoundingBoxes:
        """The boxes of one class."""
        return self.at(np.array([one == name for one in self.names], dtype=bool))

    def at(self, places: NDArray[np.bool_] | NDArray[np.integer]) -> BoundingBoxes:
        """Some of them, by a mark for each or by their numbers."""
        chosen = np.arange(len(self))[places]
        arrays = (self.scores, self.epistemic, self.uncalibrated)
        scores, epistemic, uncalibrated = (None if one is None else one[chosen] for one in arrays)
        names = tuple(self.names[n] for n in chosen)
        numbers = tuple(self.numbers[n] for n in chosen) if self.numbers else ()
        return BoundingBoxes(
            self.corners[chosen], names, scores, self.ignored[chosen], self.notes, epistemic, uncalibrated, numbers
        )


def corner_columns(axes: int) -> tuple[str, ...]:
    """The names of the columns of `corners`: y0, x0, y1, x1 of a picture; x0, y0, z0, x1, ... of a volume."""
    return tuple(f"{letter}{end}" for end in (0, 1) for letter in LETTERS[axes])


def table_columns(axes: int) -> tuple[str, ...]:
    """The same in the order in which tables have them: x0, y0[, z0], x1, y1[, z1]."""
    return tuple(sorted(corner_columns(axes), key=lambda name: (name[1], name[0])))


def in_letters(coordinates: Floats) -> Floats:
    """Coordinates along the axes of an image, (axes,), in the order of their letters: x, y[, z]."""
    return coordinates[np.argsort(LETTERS[len(coordinates)])]


def _lock_copy(values: Sequence[float] | NDArray[Any], kind: type) -> NDArray[Any]:
    """Our own copy, locked against changes."""
    array: NDArray[Any] = np.array(values, dtype=kind)
    array.setflags(write=False)
    return array


def _first(fine: NDArray[np.bool_]) -> int:
    """The number of the first that is not fine, counted from 1."""
    return int(np.flatnonzero(~fine)[0]) + 1
