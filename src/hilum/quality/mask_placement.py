"""How an image looks along the surface of its mask, where the mask lies and at other places.

A mask that belongs to its image lies on edges; moved or mirrored it lies on something else. Both are measured when the
case is read; whether a case is unlike the others is decided when all are known (`mask_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.quality import image_descriptors
from hilum.quality.references.masks import MOST_LABELS
from hilum.transforms import COLOUR, channel_stack, label_maps, orient
from hilum.transforms.channel_stack import GREY
from hilum.values import Array, Floats, Image, slabs

# Of a structure at most so many faces, points inside, and voxels along an axis are looked at.
MOST_FACES, MOST_POINTS, MOST_VOXELS = 200, 150, 64
# Of a mask at most so many structures.
MOST_STRUCTURES = 12
# A structure with fewer voxels has no surface.
FEWEST_VOXELS = 8
# The mask is moved by so many units along each axis: one is a twentieth of its extent, and of thin structures, such as
# vessels, a fifth of their thickness.
SHIFTS, PARTS, THICKNESS_PARTS = (2, 4, 7), 20, 5
# Where the image is read along the normal of a face: in steps (0 is the last voxel inside), then in twentieths of the
# structure's extent.
NEAR, FAR = tuple(range(-3, 5)), (-8, -5, -3, 3, 5, 8)
# A step is a voxel, of a structure that is longer than this many voxels its extent over this.
FINE_PARTS = 60
# Levels into which intensities are sorted, and voxels that say how frequent they are.
LEVELS, SAMPLE = 1024, 8192

Indices = NDArray[np.intp]


class TriedPlace(NamedTuple):
    """A place at which a mask is tried: first mirrored along axes of the image, then moved.

    shift:    per axis, in units as of `MaskPlacement`
    mirrored: per axis
    """

    shift: tuple[float, ...]
    mirrored: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class MaskPlacement:
    """Measures of a mask on its image, in canonical order of axes.

    surfaces: {value: (placements, features)} how the image looks along the structure's surface, at each of
              `tried_placements`, in ranks of the intensities around the mask
    centres:  {value: (axes,)} of each structure, in the unit of the image's steps
    sizes:    {value: volume} in that unit
    unit:     (axes,) of shifts, in voxels: a twentieth of the mask's extent, or less where it is thin
    steps:    (axes,) from voxel to voxel
    """

    surfaces: Mapping[int, Array]
    centres: Mapping[int, Floats]
    sizes: Mapping[int, float]
    unit: Floats
    steps: Floats


def tried_placements(axes: int) -> list[TriedPlace]:
    """The placements of `MaskPlacement.surfaces`: as it is, moved along each axis, and mirrored."""
    still = (0.0,) * axes
    upright = (False,) * axes
    placements = [TriedPlace(still, upright)]
    for axis in range(axes):
        for units in SHIFTS:
            for sign in (1, -1):
                shift = tuple(float(sign * units) if other == axis else 0.0 for other in range(axes))
                placements.append(TriedPlace(shift, upright))
    for mirrored in product((False, True), repeat=axes):
        if any(mirrored):
            placements.append(TriedPlace(still, mirrored))
    return placements


def count_shifts(axes: int) -> int:
    """The number of moves among `tried_placements`, which follow the first; the others are mirrored."""
    return 2 * len(SHIFTS) * axes


def measure_placement(image: Image, mask: Image, *, is_objects: bool = False) -> MaskPlacement | None:
    """Measures of a mask on an image with its voxels read; None of a clip, and where no structure has a surface.

    is_objects: whether values number objects, which are one structure then
    """
    if image.frames is not None or mask.frames is not None:
        return None
    pixels, labels = canonical_arrays(image, mask, is_objects=is_objects)
    boxes = label_maps.boxes_of_labels(labels)
    if not boxes or min(boxes) < 0:
        return None
    steps = np.asarray(image.geometry.canonical.steps)
    largest = sorted(boxes, key=lambda value: -np.prod([part.stop - part.start for part in boxes[value]]))
    structures: dict[int, Surface] = {}
    for value in sorted(largest[:MOST_STRUCTURES]):
        structure = Surface.of_structure(labels, value, boxes[value])
        if structure is not None:
            structures[value] = structure
    if not structures:
        return None
    thickest = max(structure.thickness for structure in structures.values())
    unit = np.minimum(mask_extent(list(boxes.values())) / PARTS, thickest / THICKNESS_PARTS)
    placements = tried_placements(pixels.ndim)
    surfaces: dict[int, Array] = {}
    centres: dict[int, Floats] = {}
    sizes: dict[int, float] = {}
    for value, structure in structures.items():
        surfaces[value] = structure.features(pixels, placements, unit).astype(np.float16)
        centres[value] = structure.centre * steps
        sizes[value] = structure.voxels * float(np.prod(steps))
    return MaskPlacement(surfaces, centres, sizes, unit, steps)


def canonical_arrays(image: Image, mask: Image, *, is_objects: bool = False) -> tuple[Array, Array]:
    """(*spatial) intensities of the first channel, of a colour picture its luma, and labels, in canonical order.

    Labels of a map that numbers objects, or that has more values than names of structures, are 0 and 1.
    """
    turn = image.geometry.to_canonical
    is_colour = channel_stack.without_alpha(image.channels) == COLOUR
    grey = channel_stack.match_colours(image, GREY) if is_colour else image
    pixels: Array = orient.permute_axes(grey.data[:1], *turn)[0]
    structures = image_descriptors.structure_labels(mask)
    labels: Array = orient.permute_axes(structures[None], *turn)[0]
    if is_objects or len(slabs.label_voxels(labels)) > MOST_LABELS + 1:
        labels = (labels != 0).astype(np.uint8)
    return pixels, labels


def mask_extent(boxes: Sequence[tuple[slice, ...]]) -> Floats:
    """(axes,) voxels of the box around all boxes."""
    starts = np.min([[part.start for part in box] for box in boxes], axis=0)
    stops = np.max([[part.stop for part in box] for box in boxes], axis=0)
    return np.asarray(stops - starts, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Surface:
    """Faces between voxels of a structure and others, in a grid of every so many voxels.

    start, stride: (axes,) first voxel of that grid, and voxels from one of its points to the next
    faces:         (faces, axes) the last voxel inside, in points of the grid
    axes, signs:   (faces,) the axis that each face is normal to, and 1 or -1 for the way out
    points:        (points, axes) inside the structure
    extent:        (axes,) of the structure, in points
    centre:        (axes,) in voxels of the image
    voxels:        of the structure, estimated from the grid
    thickness:     in voxels, the mean run along the axis where runs are shortest
    """

    start: Indices
    stride: Indices
    faces: Indices
    axes: Indices
    signs: Indices
    points: Indices
    extent: Floats
    centre: Floats
    voxels: float
    thickness: float

    @classmethod
    def of_structure(cls, labels: Array, value: int, box: tuple[slice, ...]) -> Surface | None:
        """The surface of the structure with this value, which lies in this box; None of a few voxels."""
        lengths = np.array([part.stop - part.start for part in box])
        stride = -(-lengths // MOST_VOXELS)
        corner = np.array([part.start for part in box])
        thinned = tuple(slice(part.start, part.stop, int(step)) for part, step in zip(box, stride, strict=True))
        inside = np.pad(labels[thinned] == value, 1)
        numbers = np.flatnonzero(inside)
        if len(numbers) < FEWEST_VOXELS:
            return None
        faces, axes, signs, runs = _faces(inside)
        points = _evenly(numbers, MOST_POINTS)
        centre = np.stack(np.unravel_index(numbers, inside.shape), axis=-1).mean(axis=0)
        start = corner % stride  # the image is read on the same points
        offset = corner // stride - 1  # of the padded box in points of the grid
        return cls(
            start=start,
            stride=stride,
            faces=faces + offset,
            axes=axes,
            signs=signs,
            points=np.stack(np.unravel_index(points, inside.shape), axis=-1) + offset,
            extent=lengths / stride,
            centre=(centre + offset) * stride + start,
            voxels=float(len(numbers) * np.prod(stride)),
            thickness=float((len(numbers) / np.maximum(runs, 1) * stride).min()),
        )

    def features(self, pixels: Array, placements: Sequence[TriedPlace], unit: Floats) -> Floats:
        """(placements, features): means and deviations at each offset, steps between them, and those of the inside.

        pixels: (*spatial) intensities; unit: (axes,) voxels of a shift by one
        """
        grid = pixels[tuple(slice(int(a), None, int(b)) for a, b in zip(self.start, self.stride, strict=True))]
        ranks = _Ranks.around(grid, self.faces, self.extent)
        unit = np.maximum(unit / self.stride, 1.0)
        surface = ranks.of(grid[_moved(self._profile(), placements, unit, grid.shape)])
        interior = ranks.of(grid[_moved(self.points[None], placements, unit, grid.shape)])[:, 0]
        means = surface.mean(axis=2)
        deviations = surface.std(axis=2)
        near = surface[:, : len(NEAR)]
        steps = np.abs(np.diff(near, axis=1)).mean(axis=2)
        inside = np.stack([interior.mean(axis=1), interior.std(axis=1)], axis=1)
        return np.concatenate([means, deviations, steps, inside], axis=1)

    def _profile(self) -> Indices:
        """(offsets, faces, axes) points along the normals."""
        step = np.maximum(1, np.round(self.extent / FINE_PARTS)).astype(np.intp)
        near = np.array(NEAR)[:, None] * step[self.axes]
        far = np.round(np.array(FAR)[:, None] * (self.extent / PARTS)[self.axes]).astype(np.intp)
        along = np.concatenate([near, far]) * self.signs
        profile = np.repeat(self.faces[None], len(along), axis=0)
        profile[:, np.arange(len(self.faces)), self.axes] += along
        return profile


def _faces(inside: NDArray[np.bool_]) -> tuple[Indices, Indices, Indices, Indices]:
    """(faces, axes), (faces,) and (faces,) as in `Surface`, and (axes,) the number of runs along each axis.

    inside: padded by a voxel on each side
    """
    places: list[Indices] = []
    runs = np.zeros(inside.ndim, dtype=np.intp)
    for axis in range(inside.ndim):
        for sign in (1, -1):
            is_last = inside & ~np.roll(inside, -sign, axis)
            numbers = np.flatnonzero(is_last)
            numbered = np.stack([numbers, np.full_like(numbers, axis), np.full_like(numbers, sign)])
            places.append(numbered)
            runs[axis] = len(numbers)
    numbers, axes, signs = _evenly(np.concatenate(places, axis=1), MOST_FACES)
    return np.stack(np.unravel_index(numbers, inside.shape), axis=-1), axes, signs, runs


def _evenly(values: Indices, most: int) -> Indices:
    """At most so many of the last axis, evenly."""
    count = values.shape[-1]
    return values if count <= most else values[..., np.linspace(0, count - 1, most).astype(np.intp)]


def _moved(
    points: Indices, placements: Sequence[TriedPlace], unit: Floats, shape: Sequence[int]
) -> tuple[Indices, ...]:
    """Per axis (placements, offsets, points) the indices; beyond the image those of its edge."""
    indices = []
    for axis, size in enumerate(shape):
        along = points[..., axis].astype(np.int32)
        is_mirrored = np.array([placement.mirrored[axis] for placement in placements])
        shift = np.round([placement.shift[axis] * unit[axis] for placement in placements]).astype(np.int32)
        sign = np.where(is_mirrored, -1, 1).astype(np.int32)
        first = np.where(is_mirrored, size - 1, 0).astype(np.int32) + shift
        places = along * sign[:, None, None] + first[:, None, None]
        indices.append(np.clip(places, 0, size - 1, out=places))
    return tuple(indices)


@dataclass(frozen=True, eq=False)
class _Ranks:
    """Shares of the intensities around a structure that lie below a value, from a table over even levels."""

    low: float
    scale: float
    table: Floats

    @classmethod
    def around(cls, grid: Array, faces: Indices, extent: Floats) -> _Ranks:
        reach = np.ceil(extent / 2).astype(np.intp)
        low = np.maximum(faces.min(axis=0) - reach, 0)
        high = np.minimum(faces.max(axis=0) + reach + 1, grid.shape)
        around = grid[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        thinned = max(1, int(np.ceil((around.size / SAMPLE) ** (1 / grid.ndim))))
        values = around[(slice(None, None, thinned),) * grid.ndim].ravel().astype(np.float32)
        values = np.sort(values[np.isfinite(values)])
        if not len(values):
            return cls(0.0, 0.0, np.full(LEVELS, 0.5, dtype=np.float32))
        first, last = np.quantile(values, [0.005, 0.995]).tolist()
        edges = np.linspace(first, last, LEVELS, dtype=np.float32)
        below = np.searchsorted(values, edges, side="left") + np.searchsorted(values, edges, side="right")
        scale = (LEVELS - 1) / (last - first) if last > first else 0.0
        return cls(first, scale, (below / (2 * len(values))).astype(np.float32))

    def of(self, values: Array) -> Floats:
        """Ranks from 0 to 1; of what is not finite that of the lowest value."""
        levels = (values.astype(np.float32) - np.float32(self.low)) * np.float32(self.scale)
        if values.dtype.kind == "f":
            levels = np.nan_to_num(levels, nan=0.0, posinf=LEVELS, neginf=0.0)
        return np.asarray(self.table[np.clip(levels, 0, LEVELS - 1).astype(np.int32)])
