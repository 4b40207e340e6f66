"""The shape of a region of voxels: its pieces, centre and principal axes, and the mesh of its surface.

Sphericity, elongation and flatness are those of the Image Biomarker Standardisation Initiative, Radiology 2020,
doi:10.1148/radiol.2020191145. A region can come in parts that follow each other along its last axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations_with_replacement, product

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import ndimage
from hilum.values import Array, Floats

CORNERS = list(product((0, 1), repeat=3))
KINDS = 256  # of cells, by which of their eight corners lie inside


@dataclass(frozen=True, eq=False)
class MeshCells:
    """Cells between eight voxels that the surface of a region crosses.

    counts: (256,) cells of each kind, by which of their corners lie inside
    along:  (256,) sum of the places of these cells on the first axis
    """

    counts: Floats = field(default_factory=lambda: np.zeros(KINDS))
    along: Floats = field(default_factory=lambda: np.zeros(KINDS))

    @classmethod
    def from_region(cls, inside: Array) -> MeshCells:
        """All cells of a region of three axes, (*spatial)."""
        cells = cls()
        cells.add(np.pad(inside, 1))
        return cells

    def add(self, inside: Array, first: int = 0) -> None:
        """Add all cells between these voxels, (*spatial); first: the place of the first voxel on the first axis."""
        cells = tuple(size - 1 for size in inside.shape)
        kinds: NDArray[np.uint8] = np.zeros(cells, np.uint8)
        for bit, at in enumerate(CORNERS):
            corner = tuple(slice(one, size + one) for one, size in zip(at, cells, strict=True))
            kinds |= inside[corner] * np.uint8(1 << bit)
        flat = kinds.ravel()
        crossed = np.flatnonzero((flat != 0) & (flat != KINDS - 1))
        places = crossed // max(1, cells[1] * cells[2]) + first
        self.counts[:] += np.bincount(flat[crossed], minlength=KINDS)
        self.along[:] += np.bincount(flat[crossed], weights=places, minlength=KINDS)

    def volume_and_area(self, steps: Floats) -> tuple[float, float]:
        """(volume, surface area) of the triangle mesh around the region; steps: (3, 3) of the axes, mm in columns.

        Marching cubes at half way between voxels: Lorensen and Cline, SIGGRAPH 1987, doi:10.1145/37402.37422. Where two
        voxels touch at an edge of a face only, the mesh lies between them in both cells that share the face, so that it
        is closed.
        """
        volume = area = 0.0
        for kind in np.flatnonzero(self.counts[1:-1]) + 1:
            triangles = _triangles(int(kind))
            count = self.counts[kind]
            normals = _normals(triangles)
            area += count * np.linalg.norm(_normals(triangles @ np.asarray(steps).T), axis=1).sum()
            # The divergence theorem along the first axis: each triangle's centre, in all cells of this kind together.
            volume += (normals[:, 0] * (count * triangles[:, :, 0].mean(axis=1) + self.along[kind])).sum()
        return abs(float(volume) * float(np.linalg.det(steps))), float(area)


@dataclass(eq=False)
class RegionShape:
    """The shape of one region, which comes in parts that follow each other along its last axis.

    axes: how many the region has
    """

    axes: int
    voxels: int = 0
    sums: Floats = field(init=False)
    products: Floats = field(init=False)
    mesh: MeshCells = field(default_factory=MeshCells)
    _owners: list[int] = field(default_factory=list)  # of each piece so far, one that it is joined with
    _edge: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))

    def __post_init__(self) -> None:
        self.sums = np.zeros(self.axes)
        self.products = np.zeros((self.axes, self.axes))

    def add(self, inside: Array, start: tuple[int, ...], *, follows: bool = False) -> None:
        """Add a part, (*spatial), whose first voxel is at `start`.

        follows: whether its first plane is the last one of the part before, and connects both
        """
        voxels = inside[..., 1:] if follows else inside
        first = np.array([*start[:-1], start[-1] + follows], dtype=np.float64)
        self._add_moments(voxels, first)
        self._add_pieces(inside, follows=follows)

    def _add_moments(self, inside: Array, first: Floats) -> None:
        self.voxels += int(inside.sum())
        places = [np.arange(size) + origin for size, origin in zip(inside.shape, first, strict=True)]
        for one, other in combinations_with_replacement(range(self.axes), 2):
            others = tuple(axis for axis in range(self.axes) if axis not in (one, other))
            counts = inside.sum(axis=others, dtype=np.float64)
            if one == other:
                self.sums[one] += counts @ places[one]
                self.products[one, one] += counts @ places[one] ** 2
            else:
                self.products[one, other] += places[one] @ counts @ places[other]
                self.products[other, one] = self.products[one, other]

    def _add_pieces(self, inside: Array, *, follows: bool) -> None:
        """Number pieces that touch at corners as one; those that go on from the part before keep their number."""
        pieces, count = ndimage.label(inside, np.ones((3,) * self.axes))
        numbers = np.full(count + 1, -1, dtype=np.intp)
        if follows:
            ends = pieces[..., 0][inside[..., 0]]  # in the order of `_edge`: both are the voxels of one plane
            for piece, edge in dict.fromkeys(zip(ends.tolist(), self._edge.tolist(), strict=True)):
                if numbers[piece] < 0:
                    numbers[piece] = self._owner(edge)
                self._owners[self._owner(edge)] = self._owner(int(numbers[piece]))
        for piece in np.flatnonzero(numbers[1:] < 0) + 1:
            numbers[piece] = len(self._owners)
            self._owners.append(len(self._owners))
        self._edge = numbers[pieces[..., -1][inside[..., -1]]]

    def _owner(self, piece: int) -> int:
        while self._owners[piece] != piece:
            piece = self._owners[piece]
        return piece

    @property
    def pieces(self) -> int:
        """The number of pieces; voxels that touch at a corner are of one."""
        return sum(owner == piece for piece, owner in enumerate(self._owners))

    @property
    def centre(self) -> Floats:
        """(axes,) mean index of the voxels; NaN without any."""
        return self.sums / self.voxels if self.voxels else np.full(self.axes, np.nan)

    def elongation(self, steps: Floats) -> tuple[float, ...]:
        """Lengths of the shorter principal axes beside the longest: elongation, of three axes also flatness.

        steps: (axes, axes) of the axes, mm in columns. NaN for a single voxel
        """
        if self.voxels < 2:
            return (float("nan"),) * (self.axes - 1)
        spread = self.products / self.voxels - np.outer(self.centre, self.centre)
        variances = np.linalg.eigvalsh(np.asarray(steps) @ spread @ np.asarray(steps).T)[::-1].clip(min=0)
        return tuple(np.sqrt(variances[1:] / variances[0]).tolist())

    def sphericity(self, steps: Floats) -> float:
        """The surface of a sphere of the mesh's volume beside the mesh's own; NaN without a voxel."""
        volume, area = self.mesh.volume_and_area(steps)
        return float((36 * np.pi * volume**2) ** (1 / 3) / area) if area else float("nan")


def _normals(triangles: Floats) -> Floats:
    """(triangles, 3) normals as long as the triangles are large."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) / 2
    return np.asarray(normals, dtype=np.float64)


@cache
def _triangles(code: int) -> Floats:
    """(triangles, 3 points, 3 axes) in a cell whose corner n lies inside where bit n of the code is set."""
    following: dict[tuple[float, ...], tuple[float, ...]] = {}
    for face in _faces():
        lies = [bool(code >> CORNERS.index(corner) & 1) for corner in face]
        for first in range(4):
            if lies[first] and not lies[first - 1]:
                last = next(n for n in range(first, first + 4) if not lies[(n + 1) % 4])
                following[_between(face[first - 1], face[first])] = _between(face[last % 4], face[(last + 1) % 4])
    triangles = []
    while following:
        loop = [next(iter(following))]
        while (point := following.pop(loop[-1])) != loop[0]:
            loop.append(point)
        # Around the middle of the loop, which need not be plane: the same however the image is turned.
        middle = np.mean(loop, axis=0)
        triangles += [(middle, loop[n - 1], loop[n]) for n in range(len(loop))]
    return np.array(triangles, dtype=np.float64)


def _faces() -> Iterator[list[tuple[int, ...]]]:
    """The corners of each face of a cell, in turn as seen from outside."""
    for axis, side in product(range(3), (0, 1)):
        turn = [(0, 0), (1, 0), (1, 1), (0, 1)][:: 1 if side else -1]
        for_axis = {axis: side}
        yield [
            tuple({**for_axis, (axis + 1) % 3: one, (axis + 2) % 3: other}[n] for n in range(3)) for one, other in turn
        ]


def _between(start: tuple[int, ...], other: tuple[int, ...]) -> tuple[float, ...]:
    return tuple((a + b) / 2 for a, b in zip(start, other, strict=True))
