"""Prompts: what a person points at in an image, as boxes, points and scribbles of one label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from hilum import errors
from hilum.errors import GeometryError, UsageError
from hilum.values import bounding_boxes
from hilum.values.grid_geometry import Floats, Geometry
from hilum.values.voxel_images import Array, Image

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

# Values of a scribble.
INSIDE, OUTSIDE = 1, 2
# Points that stand for a scribble, of its inside and of its outside.
MOST_POINTS = 8
WHERE = "prompts"


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is pointed at of one label.

    boxes:    (x0, y0[, z0], x1, y1[, z1]) each: edges as in `predictions.csv`, so that (0, 0, 2, 3) holds 2 x 3 voxels
    points:   (x, y[, z], 1 inside or 0 outside) each; x, y, z is a voxel's index, its centre
    scribble: a mask on the image's grid, (*spatial), or an image of one channel: 1 inside, 2 outside
    label:    what the result calls it
    unit:     "voxel", or "mm": RAS+ mm
    previous: (*spatial) the mask that an earlier answer marked, which these prompts correct; a model that takes
              coordinates takes no notice of it
    Raises UsageError for a box without extent, ends that are swapped, and what are no coordinates.
    """

    boxes: Sequence[Sequence[float]] = ()
    points: Sequence[Sequence[float]] = ()
    scribble: Array | Image | None = None
    label: str = "object"
    unit: Literal["voxel", "mm"] = "voxel"
    previous: Array | None = None

    def __post_init__(self) -> None:
        for name in ("boxes", "points"):
            object.__setattr__(self, name, tuple(tuple(map(float, one)) for one in getattr(self, name)))
        if self.unit not in ("voxel", "mm"):
            raise UsageError(f"there is no unit {self.unit!r}", WHERE, "Choose voxel or mm")
        if not self.label or not (self.boxes or self.points or self.scribble is not None):
            raise UsageError("points at nothing, or has no label", WHERE, "Give a box, a point or a scribble")
        for box in self.boxes:
            if len(box) not in (4, 6) or not np.isfinite(box).all():
                raise UsageError(f"{_words(box)} is no box", WHERE, "Give x0,y0[,z0],x1,y1[,z1]")
            shortest = np.subtract(*np.split(np.asarray(box), 2)[::-1]).min()
            if shortest <= 0:
                problem = (
                    f"the box {_words(box)} is empty" if shortest == 0 else f"the ends of {_words(box)} are swapped"
                )
                raise UsageError(problem, WHERE, "Give its start, then its end: 0,0,2,3 holds 2 x 3 voxels")
        for point in self.points:
            if len(point) not in (3, 4) or not np.isfinite(point).all() or point[-1] not in (0, 1):
                raise UsageError(f"{_words(point)} is no point", WHERE, "Give x,y[,z]:1 inside, :0 outside")

    @property
    def record(self) -> Mapping[str, PlainValue]:
        """Plain values; of a scribble that there is one, or its file."""
        scribble, source = self.scribble, getattr(self.scribble, "source", None)
        stated = {} if scribble is None else {"scribble": source.paths[0] if source and source.paths else "given"}
        listed = {"boxes": [list(one) for one in self.boxes], "points": [list(one) for one in self.points]}
        return {"label": self.label, "unit": self.unit, **listed, **stated}

    def __str__(self) -> str:
        given = {"box": len(self.boxes), "point": len(self.points), "scribble": int(self.scribble is not None)}
        return f"{self.label} by {', '.join(errors.count_phrase(n, what) for what, n in given.items() if n)}"

    def on(self, geometry: Geometry, where: str) -> PlacedPrompts:
        """The prompts in voxels of an image's grid.

        Raises UsageError for other axes than the image has, GeometryError for what lies outside, for mm without a known
        orientation, and for a scribble on another grid.
        """
        axes, size = geometry.ndim, np.asarray(geometry.shape)
        for what, given, count in (("box", self.boxes, 2 * axes), ("point", self.points, axes + 1)):
            if wrong := [one for one in given if len(one) != count]:
                problem = f"a {what} of {len(wrong[0]) * axes // count} coordinates in an image of {axes} axes"
                raise UsageError(problem, where, "Give x and y for a picture; x, y and z for a volume")
        if self.unit == "mm" and not geometry.has_sides:
            problem = "prompts in mm need an orientation in the patient, and the image has none"
            raise GeometryError(problem, where, "Give voxels")
        boxes = np.reshape(self.boxes, (-1, 2, axes)).astype(np.float64)
        points = np.reshape(self.points, (-1, axes + 1)).astype(np.float64)
        if self.unit == "mm":
            # An index is a voxel's centre, half a voxel beyond its edge.
            boxes, indices = np.sort(geometry.to_index(boxes) + 0.5, axis=1), geometry.to_index(points[:, :-1])
        else:
            to_axes = ["xyz".index(letter) for letter in bounding_boxes.LETTERS.get(axes, ())]
            boxes, indices = boxes[..., to_axes], points[:, to_axes]
        beyond = {
            "box": (boxes[:, 1] <= 0) | (boxes[:, 0] >= size),
            "point": (indices < -0.5) | (indices > size - 0.5),
        }
        if outside := [what for what, one in beyond.items() if one.any()]:
            raise GeometryError(f"a {outside[0]} lies outside the image", where, f"It has {_words(size)} voxels")
        inside = points[:, -1] == 1
        if self.previous is not None and self.previous.shape != geometry.shape:
            problem = f"the earlier mask has {_words(self.previous.shape)} voxels"
            raise GeometryError(problem, where, f"Give one of the image's {_words(size)}")
        strokes, is_within = (
            self._scribbled(geometry, where) if self.scribble is not None else (indices[:0], inside[:0])
        )
        return PlacedPrompts(np.clip(boxes, 0, size), indices, inside, self.label, strokes, is_within, self.previous)

    def _scribbled(self, geometry: Geometry, where: str) -> tuple[Floats, Array]:
        """The voxels of a scribble, and whether each is inside."""
        scribble = self.scribble
        fits = not isinstance(scribble, Image) or scribble.geometry.equals(geometry)
        mask = np.asarray(scribble.data[0] if isinstance(scribble, Image) else scribble)
        if not fits or mask.shape != geometry.shape or not np.isin(mask, (0, INSIDE, OUTSIDE)).all() or not mask.any():
            problem = "the scribble is no mask of this image with 1 inside and 2 outside"
            raise GeometryError(problem, where, "Make it on the image")
        positions = [np.argwhere(mask == value) for value in (INSIDE, OUTSIDE)]
        return np.concatenate(positions).astype(np.float64), np.repeat([True, False], [len(one) for one in positions])


@dataclass(frozen=True, eq=False)
class PlacedPrompts:
    """Prompts of one label in voxels of an image, along its axes in their order.

    boxes:  (n, 2, axes) starts and ends, edges, within the image
    points: (m, axes) indices; inside: (m,) whether they are in the object
    strokes, within: the same of the voxels of a scribble
    previous: (*spatial) the mask that they correct; None without one
    """

    boxes: Floats
    points: Floats
    inside: Array
    label: str
    strokes: Floats
    within: Array
    previous: Array | None = None

    @property
    def with_stroke_points(self) -> PlacedPrompts:
        """The same with points that are evenly spread along the scribble in its place."""
        sides = [np.flatnonzero(self.within == side) for side in (True, False)]
        places = [np.linspace(0, len(one) - 1, min(MOST_POINTS, len(one))).round().astype(int) for one in sides]
        chosen = np.concatenate([one[np.unique(kept)] for one, kept in zip(sides, places, strict=True)])
        points = np.concatenate([self.points, self.strokes[chosen]])
        inside = np.concatenate([self.inside, self.within[chosen]])
        return replace(self, points=points, inside=inside, strokes=self.strokes[:0], within=self.within[:0])

    @property
    def slices(self) -> set[int]:
        """The indices along the last axis that its boxes meet."""
        return {k for low, high in self.boxes[..., -1] for k in range(math.floor(low), math.ceil(high))}

    def in_slice(self, index: int) -> PlacedPrompts | None:
        """The prompts of one slice of a volume, as of a picture (row, column); None where no box meets it."""
        met = (np.floor(self.boxes[:, 0, -1]) <= index) & (index < np.ceil(self.boxes[:, 1, -1]))
        near = np.rint(self.points[:, -1]) == index
        flat = self.boxes[met][..., -2::-1], self.points[near][:, -2::-1]
        return replace(self, boxes=flat[0], points=flat[1], inside=self.inside[near]) if met.any() else None


def _words(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
