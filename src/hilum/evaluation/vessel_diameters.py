"""Length and least diameter of tubes, such as vessels, along their centrelines.

A line follows what thinning leaves, moved to the middle of the voxels around it. Where a tube is cut at right angles to
the line through the middles of its cross-sections, its volume is the area of each section times the length of the line
(Pappus), also in a bend. So the area of a section is the volume of the voxels that lie nearest to a place on the line,
for each mm of it, which is exact to a part of a voxel, and its diameter that of a disc of this area.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import GeometryError
from hilum.evaluation import _weighting, centrelines
from hilum.lazy import csgraph, ndimage, sparse, spatial
from hilum.values import Floats

Mask = NDArray[np.bool_]
# mm of the line on either side of the narrowest place with which its diameter is compared.
AROUND = 10.0
# Stations of a line for the shortest side of a voxel.
STATIONS = 4
# Along the line areas are smoothed over so many voxels, and places over so many: less leaves the steps of the grid in
# them, more widens a short narrowing. Chosen on tubes of known diameter; a width has fewer voxels than an area.
SMOOTHED, SMOOTHED_LINE = {2: 0.8, 3: 0.5}, 2.0
# The ends of thinned tubes turn to a corner: so many radii of them are replaced by the line's own direction.
REPLACED = 1.5
# A branch is longer than so many radii of what it leaves.
SPUR = 3.0


@dataclass(frozen=True, eq=False)
class Narrowing:
    """The centrelines of a mask, and the narrowest place on them; NaN where there is none.

    length:         mm of all branches together
    least_diameter: mm; in 2D the width
    place:          (axes,) voxels, the centre of the first being 0
    percent:        by which the diameter there is less than the mean of the 10 mm of line on either side of it
    """

    length: float
    least_diameter: float
    place: Floats
    percent: float


@dataclass(frozen=True, eq=False)
class Branch:
    """A line from end to end, evenly in stations.

    stations: (stations, axes) mm
    radii:    (stations,) mm from each to the outside of the mask
    """

    stations: Floats
    radii: Floats

    @property
    def gap(self) -> float:
        """The mm between two stations."""
        return self.length / (len(self.stations) - 1)

    @property
    def length(self) -> float:
        """The mm from end to end."""
        return float(np.linalg.norm(np.diff(self.stations, axis=0), axis=1).sum())


def narrowing(mask: ArrayLike, spacing: ArrayLike) -> Narrowing:
    """The length of a tube, or of a tree of tubes, and its narrowest place; ends and forks do not count.

    mask:    (*spatial) of a picture or a volume
    spacing: (axes,) mm, or (axes, axes), whose columns are the steps of one index in mm, as in an affine
    Raises GeometryError for another number of axes.
    """
    inside, steps = np.asarray(mask, dtype=bool), _weighting.spacing_steps(spacing)
    if inside.ndim not in SMOOTHED or len(steps) != inside.ndim:
        problem = f"a mask with {inside.ndim} axes and a spacing of {len(steps)}"
        raise GeometryError(problem, "narrowing", "Give a picture or a volume, and the mm of each of its axes")
    low = np.zeros(inside.ndim)
    for box in ndimage.find_objects(inside.view(np.uint8)):
        inside, low = inside[box], np.array([one.start for one in box])
    branches, side = _branches(inside, steps), float(np.linalg.norm(steps, axis=0).max())
    nothing = np.full(inside.ndim, np.nan)
    best = Narrowing(sum(one.length for one in branches) or np.nan, np.nan, nothing, np.nan)
    for number, (branch, diameters) in enumerate(zip(branches, _diameters(inside, steps, branches), strict=True)):
        at, end = branch.gap * np.arange(len(diameters)), float(np.median(diameters)) + 2 * side
        counted = (at >= end) & (at <= at[-1] - end)
        # What lies across a fork from its own voxels has less than the disc within the mask around it.
        counted &= (branch.radii > 0) & (diameters >= branch.radii)
        if others := [*branches[:number], *branches[number + 1 :]]:
            apart, nearest = spatial.KDTree(np.concatenate([one.stations for one in others])).query(branch.stations)
            counted &= apart > np.concatenate([one.radii for one in others])[nearest] + 2 * side
        if counted.any() and not diameters[counted].min() >= best.least_diameter:
            narrowest = np.flatnonzero(counted)[diameters[counted].argmin()]
            least = float(diameters[narrowest])
            percent = 100 * (1 - least / float(diameters[np.abs(at - at[narrowest]) <= AROUND].mean()))
            best = Narrowing(best.length, least, np.linalg.solve(steps, branch.stations[narrowest]) + low, percent)
    return best


def _branches(inside: Mask, steps: Floats) -> list[Branch]:
    """The lines of a mask, each through the middles of its cross-sections and up to the ends of the mask."""
    sides = np.linalg.norm(steps, axis=0)
    gap, sigma = sides.min() / STATIONS, STATIONS * sides.max() / sides.min()
    radii, points = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=sides), np.argwhere(inside) @ steps.T
    lines, whole = list[Floats](), list[bool]()
    for path, leaves in _paths(inside, steps, radii):
        line, cut = _evenly(path @ steps.T, gap), round(REPLACED * float(radii[tuple((path + 1).T)].max()) / gap)
        if len(line) > 4 * cut + 2 * STATIONS:
            line = line[0 if leaves else cut : len(line) - cut]
        lines.append(_smooth(line, SMOOTHED_LINE * sigma))
        whole.append(not leaves)
    for _ in range(2):
        lines = [_evenly(line, gap) for line in lines]
        near = list(_points_of_lines(lines, points))
        lines = [_to_middles(line, *own, sigma) for line, own in zip(lines, near, strict=True)]
    branches = []
    for line, has_two_ends in zip(lines, whole, strict=True):
        longer = _to_the_end(line, inside, steps, round(3 * sigma))
        longer = _to_the_end(longer[::-1], inside, steps, round(3 * sigma))[::-1] if has_two_ends else longer
        stations = _evenly(longer, gap)
        voxels = np.rint(np.linalg.solve(steps, stations.T)).astype(int) + 1
        branches.append(Branch(stations, radii[tuple(np.clip(voxels, 0, np.array(radii.shape)[:, None] - 1))]))
    return branches


def _paths(inside: Mask, steps: Floats, radii: Floats) -> Iterator[tuple[NDArray[np.int64], bool]]:
    """(places, axes) of the longest line of each piece, then of those that leave it, and whether it is one of these.

    What is not longer than three radii where it leaves is a corner of the surface. Loops are opened.
    """
    places = np.argwhere(centrelines.skeleton(inside))
    pairs = spatial.KDTree(places).query_pairs(np.sqrt(inside.ndim) + 0.1, output_type="ndarray")
    lengths = np.linalg.norm((places[pairs[:, 0]] - places[pairs[:, 1]]) @ steps.T, axis=1)
    graph = sparse.csr_matrix((lengths, (pairs[:, 0], pairs[:, 1])), (len(places),) * 2)
    tree = csgraph.minimum_spanning_tree(graph)
    tree = tree + tree.T
    count, pieces = csgraph.connected_components(tree, directed=False)
    for piece in range(count):
        own = np.flatnonzero(pieces == piece)
        near = csgraph.dijkstra(tree, indices=own[0])[own]
        known = [int(own[near.argmax()])]
        while True:
            far, before, _ = csgraph.dijkstra(tree, indices=known, min_only=True, return_predecessors=True)
            path = [int(own[far[own].argmax()])]
            while before[path[-1]] >= 0:
                path.append(int(before[path[-1]]))
            radius = float(radii[tuple(places[path[-1]] + 1)])
            if len(path) < 2 or (len(known) > 1 and far[path[0]] <= SPUR * radius):
                break
            yield places[path[::-1]], len(known) > 1
            known = sorted({*known, *path})


def _evenly(line: Floats, gap: float) -> Floats:
    """A line in stations that lie about so many mm apart."""
    at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.linspace(0, at[-1], max(2, round(at[-1] / gap) + 1))
    return np.stack([np.interp(wanted, at, column) for column in line.T], axis=1)


def _smooth(line: Floats, sigma: float) -> Floats:
    """The line without its steps; its ends stay, because it is continued through them, turned round."""
    last = len(line) - 1
    whole = np.concatenate([2 * line[0] - line[:0:-1], line, 2 * line[-1] - line[-2::-1]])
    return np.asarray(ndimage.gaussian_filter1d(whole, sigma, axis=0)[last : 2 * last + 1])


def _points_of_lines(lines: Sequence[Floats], points: Floats) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """(points,) the nearest station and (points, axes) mm, of the points of each line: those to which it is nearest."""
    if not lines:
        return
    ends = np.cumsum([len(one) for one in lines])
    nearest = np.asarray(spatial.KDTree(np.concatenate(lines)).query(points)[1])
    owner = np.searchsorted(ends, nearest, side="right")
    for number, line in enumerate(lines):
        yield nearest[owner == number] - (ends[number] - len(line)), points[owner == number]


def _to_middles(line: Floats, nearest: NDArray[np.int64], points: Floats, sigma: float) -> Floats:
    """The line through the middles of the points around it; the ends are near to what lies beyond them too."""
    inner = (nearest > 0) & (nearest < len(line) - 1)
    counts, offsets = np.bincount(nearest[inner], minlength=len(line)), np.zeros(line.shape)
    np.add.at(offsets, nearest[inner], (points - line[nearest])[inner])
    total, count = (ndimage.gaussian_filter1d(one.astype(float), 2 * sigma, axis=0) for one in (offsets, counts))
    return _smooth(line + total / np.maximum(count, 1e-9)[:, None], sigma)


def _to_the_end(line: Floats, inside: Mask, steps: Floats, back: int) -> Floats:
    """The line, straight on from its last station until it leaves the mask."""
    step = (line[-1] - line[max(0, len(line) - 1 - back)]) / min(back, len(line) - 1)
    most = int(np.ceil(sum(inside.shape) * abs(steps).max() / max(np.linalg.norm(step), 1e-9)))
    further = line[-1] + step * np.arange(1, 1 + most)[:, None]
    voxels = np.rint(np.linalg.solve(steps, further.T).T).astype(int)
    within = np.asarray(((voxels >= 0) & (voxels < inside.shape)).all(axis=1))
    within[within] = inside[tuple(voxels[within].T)]
    return np.concatenate([line, further[: int(np.argmin([*within, False]))]])


def _diameters(inside: Mask, steps: Floats, branches: Sequence[Branch]) -> Iterator[Floats]:
    """(stations,) mm of each branch: each voxel counts where it lies nearest."""
    points, voxel = np.argwhere(inside) @ steps.T, abs(float(np.linalg.det(steps)))
    near = _points_of_lines([one.stations for one in branches], points)
    for branch, (station, own) in zip(branches, near, strict=True):
        count, gap, along = len(branch.stations), branch.gap, np.gradient(branch.stations, axis=0) / branch.gap
        beyond = ((own - branch.stations[station]) * along[station]).sum(axis=1) / gap
        sigma = SMOOTHED[inside.ndim] * float(np.abs(along @ steps).sum(axis=1).mean()) / gap
        places = np.clip(np.rint(station + beyond), 0, count - 1).astype(int)
        volumes, ones = np.bincount(places, minlength=count) * voxel / gap, np.ones(count)
        areas, weight = (ndimage.gaussian_filter1d(one, sigma, mode="constant") for one in (volumes, ones))
        yield 2 * np.sqrt(areas / weight / np.pi) if inside.ndim > 2 else areas / weight
