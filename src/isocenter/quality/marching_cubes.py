"""Volume and surface of the triangle mesh around a region of voxels: marching cubes at half way between voxels.

Lorensen and Cline, SIGGRAPH 1987, doi:10.1145/37402.37422. Where two voxels of the region touch at an edge of a face
only, the mesh lies between them, in both cells that share the face, so that it is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np

from isocenter.values import Array, Floats

CORNERS = list(product((0, 1), repeat=3))


def mesh_measures(inside: Array, steps: Floats) -> tuple[float, float]:
    """(volume, surface area) of the mesh around a region of three axes; steps: lengths of a voxel."""
    padded = np.pad(inside, 1).astype(np.intp)
    codes: Array = np.zeros([size - 1 for size in padded.shape], dtype=np.intp)
    for bit, at in enumerate(CORNERS):
        codes |= padded[tuple(slice(one, size - 1 + one) for one, size in zip(at, padded.shape, strict=True))] << bit
    places = np.broadcast_to(np.arange(codes.shape[0])[:, None, None], codes.shape)
    counts = np.bincount(codes.ravel(), minlength=256)
    along = np.bincount(codes.ravel(), weights=places.ravel(), minlength=256)
    volume = area = 0.0
    for code in np.flatnonzero(counts[1:255]) + 1:
        triangles = _triangles(int(code)) * steps
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) / 2
        area += counts[code] * np.linalg.norm(normals, axis=1).sum()
        # The divergence theorem along the first axis: each triangle's centre, in all cells of this kind together.
        centres = counts[code] * triangles[:, :, 0].mean(axis=1) + along[code] * steps[0]
        volume += (normals[:, 0] * centres).sum()
    return abs(float(volume)), float(area)


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
    made = []
    while following:
        loop = [next(iter(following))]
        while (point := following.pop(loop[-1])) != loop[0]:
            loop.append(point)
        # Around the middle of the loop, which need not be plane: the same however the image is turned.
        middle = np.mean(loop, axis=0)
        made += [(middle, loop[n - 1], loop[n]) for n in range(len(loop))]
    return np.array(made, dtype=np.float64)


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
