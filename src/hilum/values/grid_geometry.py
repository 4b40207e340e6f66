"""The geometry of a grid: where its voxels lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.errors import GeometryError

Floats = NDArray[np.floating]

# NIfTI keeps directions in float32, DICOM as short text: 1e-3 is rounding, not a tilt.
DIRECTION_TOLERANCE = 1e-3
# Two grids are one when their corners agree within this share of the smallest step, and within so many mm: programs
# write geometry as float32, as quaternions or with one or two decimals, and no voxel changes its neighbours by that.
GRID_TOLERANCE, LARGEST_GRID_TOLERANCE = 0.05, 0.5
# mm: what float32 and short text make of one grid is no difference that is worth a word.
HEADER_ROUNDING = 1e-3
MM3_PER_ML = 1000.0
MM = "mm"
# The two directions of each axis of RAS+, the one in which it falls first.
DIRECTIONS = ("LR", "PA", "IS")
ORDINALS = ("first", "second", "third")
# What the axis of a series may be counted in: time, spectra.
SERIES_UNITS = (MM, "s", "ppm", "cm-1", "nm", "Hz")


def pixels_or_voxels(axes: int) -> str:
    """The unit of a grid of so many axes where lengths are not known: pixels or voxels."""
    return "pixels" if axes == 2 else "voxels"


def is_orientation(letters: str) -> bool:
    """Whether three letters name one direction of each of the patient's axes, as "RAS" and "PIL" do."""
    return sorted(next((n for n, both in enumerate(DIRECTIONS) if one in both), -1) for one in letters) == [0, 1, 2]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The place of voxels: index to RAS+ mm, for two axes as for three; of one axis, index to its own unit.

    shape:     (n,) voxels per axis
    affine:    (n + 1, n + 1) index to world, at voxel centres; a gantry tilt is a shear, kept as it is
    frame_of_reference: DICOM Frame of Reference UID, PS3.3 C.7.4.1
    physical:  False where the size of a voxel in mm is not known (a PNG); the affine then counts pixels
    oriented:  False where left and right cannot be known (a picture, a NIfTI with both codes 0)
    unit:      of a series of one axis that of its axis ("s", "ppm", ...), else mm
    Raises GeometryError for a grid that cannot exist.
    """

    shape: tuple[int, ...]
    affine: Floats
    frame_of_reference: str | None = None
    physical: bool = True
    oriented: bool = True
    unit: str = MM

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)  # our own copy, locked against changes
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        n = len(self.shape)
        if min(self.shape, default=0) < 1 or affine.shape != (n + 1, n + 1):
            raise GeometryError(f"shape {self.shape} with an affine of {affine.shape}", "Geometry", "Give (n+1, n+1)")
        is_affine = np.isfinite(affine).all() and np.array_equal(affine[-1], np.eye(n + 1)[-1])
        if not is_affine or np.linalg.matrix_rank(affine[:-1, :-1]) < n:
            raise GeometryError("the affine is not a grid", "Geometry", "Check the file's header")
        if self.unit not in (SERIES_UNITS if n == 1 else (MM,)):
            raise GeometryError(f"{n} axes in {self.unit!r}", "Geometry", "Space is in mm")
        if not self.physical and self.frame_of_reference is not None:
            raise GeometryError("a frame of reference without a voxel size", "Geometry", "Check the file's header")

    @classmethod
    def of_pixels(cls, shape: Sequence[int]) -> Geometry:
        """A grid that counts pixels: neither size in mm nor sides are known."""
        return cls(tuple(shape), np.eye(len(shape) + 1), physical=False, oriented=False)

    @classmethod
    def of_spacing(cls, shape: Sequence[int], spacing: Sequence[float]) -> Geometry:
        """A grid whose voxel size is known but not where it lies in the patient."""
        return cls(tuple(shape), np.diag([*spacing, 1.0]), oriented=False)

    @property
    def at_origin(self) -> Geometry:
        """The grid with its first voxel at 0: it no longer says where in a patient it lay."""
        affine = np.array(self.affine)
        affine[:-1, -1] = 0
        return replace(self, affine=affine, frame_of_reference=None)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def steps(self) -> tuple[float, ...]:
        """Length of one index step per axis, in mm where the size is known, else in the file's own unit."""
        return tuple(np.linalg.norm(self.affine[:-1, :-1], axis=0).tolist())

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """mm between voxel centres per axis; None without physical size."""
        return self.steps if self.physical else None

    @property
    def voxel_volume(self) -> float | None:
        """mm³ (of two axes mm²) of a voxel, which under a shear is less than its edges multiplied; None if unknown."""
        return abs(float(np.linalg.det(self.affine[:-1, :-1]))) if self.physical else None

    @property
    def voxel_size(self) -> tuple[float, str] | None:
        """(size, unit) of a voxel: ml of three axes, mm² of two, the axis's own unit of one; None if unknown."""
        volume = self.voxel_volume
        if volume is None:
            return None
        return {1: (volume, self.unit), 2: (volume, "mm²"), 3: (volume / MM3_PER_ML, "ml")}[self.ndim]

    @property
    def is_sheared(self) -> bool:
        """Whether axes are not at right angles, as of a tilted gantry."""
        axes = self.affine[:-1, :-1] / np.asarray(self.steps)
        return not np.allclose(axes.T @ axes, np.eye(self.ndim), atol=DIRECTION_TOLERANCE)

    @property
    def is_oblique(self) -> bool:
        """Whether an axis runs along none of the patient's axes."""
        axes = np.abs(self.affine[:-1, :-1] / np.asarray(self.steps))
        return not np.allclose(axes.max(axis=0), 1.0, atol=DIRECTION_TOLERANCE)

    @property
    def is_series(self) -> bool:
        """Whether it has one axis: its values are shown as lines, not as a picture."""
        return self.ndim == 1

    @property
    def is_picture(self) -> bool:
        """Whether it has two axes."""
        return self.ndim == 2

    @property
    def is_volume(self) -> bool:
        """Whether it has three axes."""
        return self.ndim == 3

    @property
    def has_sides(self) -> bool:
        """Whether it is a volume of which left and right are known."""
        return self.oriented and self.is_volume

    @property
    def orientation(self) -> str | None:
        """The direction in which each axis grows, such as "RAS" or "LPI"; None where sides are not known."""
        if not self.has_sides:
            return None
        return "".join(DIRECTIONS[axis][int(sign > 0)] for axis, sign in self._closest_axes())

    def along(self, orientation: str) -> Geometry:
        """The grid with its axes in these directions, such as "LPS", as `orientation` states them.

        Raises GeometryError where they are not three different axes, or the grid is no volume.
        """
        if not (self.is_volume and is_orientation(orientation)):
            raise GeometryError(f"{self.ndim} axes along {orientation!r}", "Geometry", "Give three letters, as RAS")
        affine = np.eye(self.ndim + 1)
        for axis, (letter, step) in enumerate(zip(orientation, self.steps, strict=True)):
            world = next(n for n, both in enumerate(DIRECTIONS) if letter in both)
            affine[world, axis] = step if letter == DIRECTIONS[world][1] else -step
        return replace(self, affine=affine, oriented=True)

    def to_world(self, index: ArrayLike) -> Floats:
        """(..., n) voxel index to (..., n) mm."""
        return np.asarray(index) @ self.affine[:-1, :-1].T + self.affine[:-1, -1]

    def to_index(self, world: ArrayLike) -> Floats:
        """(..., n) mm to (..., n) voxel index: the exact inverse of `to_world`."""
        offset = np.asarray(world, dtype=np.float64) - self.affine[:-1, -1]
        flat = np.linalg.solve(self.affine[:-1, :-1], offset.reshape(-1, self.ndim).T).T
        return flat.reshape(offset.shape)

    @property
    def corners(self) -> Floats:
        """(2**n, n) the outermost voxel centres in the world."""
        return self.to_world(np.array(list(product(*[(0, size - 1) for size in self.shape]))))

    @property
    def tolerance(self) -> float:
        """The distance of corners up to which a grid counts as the same, in mm or the unit of `steps`."""
        share = GRID_TOLERANCE * min(self.steps)
        return min(share, LARGEST_GRID_TOLERANCE) if self.physical and self.unit == MM else share

    def equals(self, other: Geometry, tolerance: float | None = None) -> bool:
        """Whether both are the same grid: no corner lies further than `tolerance` (mm) from its twin.

        Without one, the smaller tolerance of the two grids holds. Frames of reference differ only where both are
        stated. Unknown size or sides equal only unknown ones.
        """
        mine, theirs = ((one.shape, one.physical, one.oriented, one.unit) for one in (self, other))
        if mine != theirs:
            return False
        if None not in (self.frame_of_reference, other.frame_of_reference) and (
            self.frame_of_reference != other.frame_of_reference
        ):
            return False
        within = min(self.tolerance, other.tolerance) if tolerance is None else tolerance
        return self.apart(other) <= within

    def refuse_other(self, other: Geometry, words: str, where: str, remedy: str) -> None:
        """GeometryError for another grid. words: which of them lies where; how they differ follows"""
        if not self.equals(other):
            raise GeometryError(f"{words}: {self.difference(other)}", where, remedy)

    def meets(self, other: Geometry) -> bool:
        """Whether the boxes around both grids meet."""
        begins = np.maximum(self.corners.min(axis=0), other.corners.min(axis=0))
        ends = np.minimum(self.corners.max(axis=0), other.corners.max(axis=0))
        return bool((begins <= ends).all())

    def apart(self, other: Geometry) -> float:
        """The largest distance between corners of two grids of one shape, in the unit of `steps`."""
        return float(np.linalg.norm(self.corners - other.corners, axis=1).max())

    def deviation(self, other: Geometry) -> str:
        """Words for the distance of a grid that counts as this one; empty for the rounding of headers."""
        apart = self.apart(other) if self.equals(other) else 0.0
        if apart <= HEADER_ROUNDING:
            return ""
        return f"corners up to {apart:.2g} {self.unit if self.physical else pixels_or_voxels(self.ndim)} apart"

    def difference(self, other: Geometry) -> str:
        """Words for how another grid differs: "36 x 52 x 38 and 18 x 52 x 38 voxels"; empty where it does not."""
        parts = []
        if self.shape != other.shape:
            parts.append(" and ".join(" x ".join(map(str, one.shape)) for one in (self, other)) + " voxels")
            if (axis := self._short_axis(other)) is not None:
                lacking = errors.count_phrase(other.shape[axis] - self.shape[axis], "slice")
                parts.append(f"the first lacks {lacking} along the {ORDINALS[axis]} axis")
        for what, mine, theirs in (
            ("the size of a voxel", self.physical, other.physical),
            ("the sides of the patient", self.oriented, other.oriented),
        ):
            if mine != theirs:
                parts.append(f"{what} known of the {'first' if mine else 'second'} only")
        if self.physical and other.physical:
            steps = [" x ".join(f"{step:.4g}" for step in one.steps) + f" {one.unit}" for one in (self, other)]
            parts += [f"voxels of {steps[0]} and {steps[1]}"] if steps[0] != steps[1] else []
        if self.has_sides and other.has_sides and self.orientation != other.orientation:
            parts.append(f"axes to {self.orientation} and {other.orientation}")
        if not parts and not self.equals(other):
            apart, within = self.apart(other), min(self.tolerance, other.tolerance)
            frames = "different frames of reference"
            words = self._shift_words(other) or f"corners up to {apart:.4g} {self.unit} apart"
            parts.append(frames if apart <= within else words)
        return ", ".join(parts)

    def remedy_on(self, image: Geometry) -> str:
        """What to do about a label map on this grid that has to lie on another, an image's, by how they differ."""
        if self.shape == image.shape and self._shift_words(image):
            return (
                "If the structures fit the image voxel by voxel, the mask's header may be wrong: copy that of the "
                "image; resample the mask only if its position is true"
            )
        if self._short_axis(image) is not None:
            return "Add the slices that lack as background, where they belong, or save the mask anew with all of them"
        return "Resample one onto the other, or leave the case out"

    def _shift_words(self, other: Geometry) -> str:
        """Words for how far this grid lies from another, where nothing but their origins differ; else empty."""
        shift, affine = self.affine[:-1, -1] - other.affine[:-1, -1], np.array(self.affine)
        affine[:-1, -1] -= shift
        if not replace(self, affine=affine).equals(other):
            return ""
        moves = [(axis, move) for axis, move in enumerate(shift.tolist()) if abs(move) > HEADER_ROUNDING]
        if self.has_sides:
            words = [f"{abs(move):.4g} {self.unit} to {DIRECTIONS[axis][move > 0]}" for axis, move in moves]
        else:
            unit = self.unit if self.physical else pixels_or_voxels(self.ndim)
            words = [f"{move:+.4g} {unit} along {'xyz'[axis]}" for axis, move in moves]
        return f"the first is shifted by {' and '.join(words)}" if words else ""

    def _short_axis(self, other: Geometry) -> int | None:
        """The only axis along which this volume has fewer slices than another, where all else is equal; else None."""
        if not self.is_volume or not other.is_volume or not self.equals(replace(other, shape=self.shape)):
            return None
        short = [axis for axis, sizes in enumerate(zip(self.shape, other.shape, strict=True)) if sizes[0] != sizes[1]]
        return short[0] if len(short) == 1 and self.shape[short[0]] < other.shape[short[0]] else None

    # Each of the following makes a new grid over the same world; `transforms` moves the voxels along.

    def crop(self, region: Sequence[slice]) -> Geometry:
        """The grid of `array[region]`: slices with start and stop inside the grid, step 1."""
        if any(part.step not in (None, 1) for part in region):
            raise GeometryError(f"a crop of {tuple(region)}", "Geometry", "Crop with a step of 1, or resample")
        starts = np.array([part.indices(size)[0] for part, size in zip(region, self.shape, strict=True)])
        stops = np.array([part.indices(size)[1] for part, size in zip(region, self.shape, strict=True)])
        return self._move(starts, tuple((stops - starts).tolist()))

    def pad(self, before: Sequence[int], after: Sequence[int]) -> Geometry:
        """The grid with voxels added before and after each axis; a negative number takes away."""
        shape = tuple(size + low + high for size, low, high in zip(self.shape, before, after, strict=True))
        return self._move(-np.asarray(before), shape)

    def resample(self, spacing: Sequence[float]) -> Geometry:
        """The grid that covers the same field of view with about this spacing (in the unit of `steps`).

        The field of view, outer voxel edge to outer voxel edge, is kept exactly; the spacing is the
        nearest that fits a whole number of voxels into it.
        """
        if not all(0 < new < np.inf for new in spacing):
            raise GeometryError(f"a spacing of {tuple(spacing)}", "Geometry", "Give a size above 0 for each axis")
        shape = tuple(
            max(1, round(size * old / new)) for size, old, new in zip(self.shape, self.steps, spacing, strict=True)
        )
        return self.reshape(shape)

    def reshape(self, shape: Sequence[int]) -> Geometry:
        """The grid of this shape over the same field of view, edge to edge."""
        ratio = np.asarray(self.shape) / np.asarray(shape)
        affine = np.eye(self.ndim + 1)
        affine[:-1, :-1] = self.affine[:-1, :-1] * ratio
        affine[:-1, -1] = self.to_world((ratio - 1) / 2)  # edges stay, so centres move by half the growth
        return replace(self, shape=tuple(shape), affine=affine)

    def permute(self, axes: Sequence[int], flips: Sequence[bool]) -> Geometry:
        """The grid of `flip(transpose(array, axes), flips)`; `flips` belong to the new axes."""
        if sorted(axes) != list(range(self.ndim)) or len(flips) != self.ndim:
            raise GeometryError(f"axes {tuple(axes)} of {self.ndim}", "Geometry", "Name each axis once")
        linear = self.affine[:-1, :-1][:, list(axes)]
        shape = tuple(self.shape[axis] for axis in axes)
        sign = np.where(flips, -1.0, 1.0)
        affine = np.eye(self.ndim + 1)
        affine[:-1, :-1] = linear * sign
        affine[:-1, -1] = self.affine[:-1, -1] + linear @ np.where(flips, np.asarray(shape) - 1, 0)
        return replace(self, shape=shape, affine=affine)

    @property
    def to_canonical(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """(axes, flips) that bring the voxel order as close to RAS+ as it goes without resampling."""
        if not self.oriented:
            return tuple(range(self.ndim)), (False,) * self.ndim
        closest = self._closest_axes()
        axes = tuple(int(axis) for axis in np.argsort([axis for axis, _ in closest]))
        return axes, tuple(closest[axis][1] < 0 for axis in axes)

    def axes_onto(self, other: Geometry) -> tuple[tuple[int, ...], tuple[bool, ...]] | None:
        """(axes, flips) by which `permute` makes this grid the other; None where it is another grid however turned."""
        if not self.oriented or self.ndim != other.ndim:
            return None
        turns = product(permutations(range(self.ndim)), product((False, True), repeat=self.ndim))
        return next((turn for turn in turns if self.permute(*turn).equals(other)), None)

    @property
    def canonical(self) -> Geometry:
        """The grid with its axes in the order and direction closest to RAS+."""
        return self.permute(*self.to_canonical)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.affine.setflags(write=False)  # NumPy does not keep the lock when it is pickled

    def _closest_axes(self) -> list[tuple[int, float]]:
        """Per index axis the world axis that it runs along most, each world axis once, and the sign."""
        # The strongest first, as nibabel does: its canonical images and ours have the same voxel order.
        cosines = self.affine[:-1, :-1] / np.asarray(self.steps)
        taken: dict[int, tuple[int, float]] = {}
        strengths = np.abs(cosines)
        for flat in np.argsort(-strengths, axis=None, kind="stable"):
            world, index = divmod(int(flat), self.ndim)
            if index not in taken and world not in {axis for axis, _ in taken.values()}:
                taken[index] = (world, float(np.sign(cosines[world, index])) or 1.0)
        return [taken[index] for index in range(self.ndim)]

    def _move(self, start: ArrayLike, shape: tuple[int, ...]) -> Geometry:
        affine = self.affine.copy()
        affine[:-1, -1] = self.to_world(start)
        return replace(self, shape=shape, affine=affine)

    @property
    def words(self) -> str:
        """Size, spacing and sides: "64 x 64 x 20 voxels of 1 x 1 x 3 mm, RAS"."""
        size = " x ".join(str(n) for n in self.shape)
        if self.spacing is None:
            return f"{size} voxels, size in mm unknown"
        if self.is_series:
            return f"{size} samples of {self.spacing[0]:.4g} {self.unit}"
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing)
        return f"{size} voxels of {spacing} {self.unit}, {self.orientation or 'orientation unknown'}"

    def __repr__(self) -> str:
        return f"Geometry({self.words})"
