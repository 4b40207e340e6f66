"""Centrelines of tubes, such as vessels, in mm: ways through a mask, moved to the middles of their cross-sections.

A way is smoothed over the radius of its tube and moved to the middles of the voxels around it. Where a border cuts a
tube obliquely, its last sections are not whole: there the line goes on with the bend that it has before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum.evaluation import _vessel_ways
from hilum.evaluation._vessel_ways import Numbers, Voxels, Way
from hilum.lazy import ndimage, spatial
from hilum.values import Floats

# Stations of a line for the shortest side of a voxel.
STATIONS = 4
# Times that a line is moved to the middles; more change nothing.
MOVES = 3
# A section is whole that has this share of the usual area.
WHOLE = 0.9
# A line goes on with the bend that it has over so many radii, at most for so many.
BENT = 5.0
FARTHEST = 6.0
# Voxels by which the middle of a section is uncertain, since the grid cuts it differently from station to station;
# chosen on tubes of known axis. It falls with the root of the radius.
UNCERTAIN = 0.4


@dataclass(frozen=True, eq=False)
class Line:
    """A line from end to end, evenly in stations.

    stations:    (stations, axes) mm
    first, last: the stations between which cross-sections are whole
    radius:      mm, the median distance of its way from the surface
    stiffness:   stations over which it can be smoothed, and keeps to the middles
    """

    stations: Floats
    first: int
    last: int
    radius: float
    stiffness: float

    @property
    def gap(self) -> float:
        """The mm between two stations."""
        return self.length / (len(self.stations) - 1)

    @property
    def length(self) -> float:
        """The mm from end to end."""
        return length_of(self.stations)


def trace_lines(voxels: Voxels) -> list[Line]:
    """The line of each tube and of each of its branches; none of what is not longer than it is wide."""
    ways = list(_vessel_ways.find_ways(voxels))
    if not ways:
        return []
    gap = voxels.shortest_side / STATIONS
    radii = [float(np.median(voxels.depths[path.numbers])) for path in ways]
    sigmas = [max(radius, 2 * voxels.longest_side) / gap for radius in radii]
    lines = [_start(path, voxels, gap, *widths) for path, *widths in zip(ways, radii, sigmas, strict=True)]
    for turn in range(MOVES):
        lines = [evenly(line, gap) for line in lines]
        stations, owners = nearest_stations(lines, voxels.points)
        for number, path in enumerate(ways):
            own = owners == number
            nearest = stations[own]
            moved = _to_middles(lines[number], nearest, voxels.points[own], sigmas[number])
            is_last = turn == MOVES - 1
            lines[number] = moved if is_last else _whole_part(moved, nearest, radii[number] / gap, path.joins)
    stiffnesses = [
        _stiffness(line, voxels, sigma, radius) for line, sigma, radius in zip(lines, sigmas, radii, strict=True)
    ]
    lines = [stiffen(line, stiffness) for line, stiffness in zip(lines, stiffnesses, strict=True)]
    found = list[Line]()
    for number, (path, line, radius) in enumerate(zip(ways, lines, radii, strict=True)):
        others = [*lines[:number], *lines[number + 1 :]]
        before = _further(line[::-1], path.joins[0], others, voxels, gap, radius)[::-1]
        after = _further(line, path.joins[1], others, voxels, gap, radius)
        whole = smooth(np.concatenate([before, line, after]), radius / 2 / gap)
        first = length_of(whole[: len(before) + 1])
        last = length_of(whole[: len(before) + len(line)])
        even = evenly(whole, gap)
        even_gap = length_of(even) / (len(even) - 1)
        found.append(Line(even, round(first / even_gap), round(last / even_gap), radius, stiffnesses[number]))
    return found


def length_of(line: Floats) -> float:
    """The mm from end to end of (stations, axes) mm."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def evenly(line: Floats, gap: float) -> Floats:
    """A line in stations that lie about so many mm apart."""
    at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.linspace(0, at[-1], max(2, round(at[-1] / gap) + 1))
    return np.stack([np.interp(wanted, at, column) for column in line.T], axis=1)


def smooth(line: Floats, sigma: float) -> Floats:
    """The line without its steps; its ends stay, because it is continued through them, turned round."""
    last = len(line) - 1
    whole = np.concatenate([2 * line[0] - line[:0:-1], line, 2 * line[-1] - line[-2::-1]])
    return np.asarray(ndimage.gaussian_filter1d(whole, min(sigma, last / 4), axis=0)[last : 2 * last + 1])


def stiffen(line: Floats, sigma: float) -> Floats:
    """The line smoothed twice, so that a bend that stays the same is kept."""
    once = smooth(line, sigma)
    return once + smooth(line - once, sigma)


def nearest_stations(lines: Sequence[Floats], points: Floats) -> tuple[Numbers, Numbers]:
    """(points,) the nearest station, counted within its line, and the line."""
    ends = np.cumsum([len(line) for line in lines])
    nearest = np.asarray(spatial.KDTree(np.concatenate(lines)).query(points)[1])
    owners = np.searchsorted(ends, nearest, side="right")
    starts = ends - [len(line) for line in lines]
    return nearest - starts[owners], owners


def _start(path: Way, voxels: Voxels, gap: float, radius: float, sigma: float) -> Floats:
    """The way as a smooth line, without the ends, which turn to a corner of the tube."""
    line = evenly(voxels.points[path.numbers], gap)
    cut = round(radius / gap)
    if len(line) > 4 * cut + 2 * STATIONS:
        line = line[0 if path.joins[0] else cut : len(line) - (0 if path.joins[1] else cut)]
    return smooth(line, sigma)


def _to_middles(line: Floats, nearest: Numbers, points: Floats, sigma: float) -> Floats:
    """The line through the middles of the points around it; its ends are near to what lies beyond them too."""
    inner = (nearest > 0) & (nearest < len(line) - 1)
    counts = np.bincount(nearest[inner], minlength=len(line)).astype(float)
    offsets = np.zeros(line.shape)
    np.add.at(offsets, nearest[inner], (points - line[nearest])[inner])
    sigma = min(sigma, len(line) / 8)
    total = ndimage.gaussian_filter1d(offsets, sigma, axis=0, mode="constant")
    count = ndimage.gaussian_filter1d(counts, sigma, mode="constant")
    return np.asarray(line + total / np.maximum(count, 1e-9)[:, None])


def _whole_part(line: Floats, nearest: Numbers, radius: float, joins: tuple[bool, bool]) -> Floats:
    """The line between its first and its last whole cross-section; radius in stations."""
    counts = np.bincount(nearest, minlength=len(line)).astype(float)
    counts[[0, -1]] = counts[[1, -2]]
    areas = ndimage.gaussian_filter1d(counts, max(radius / 4, 2.0))
    most = int(min(4 * radius, len(line) / 4))
    cuts = list[int]()
    for side, joined in zip((areas, areas[::-1]), joins, strict=True):
        is_whole = side[:most] >= WHOLE * np.median(side[: 2 * most + 1])
        cuts.append(0 if joined else int(np.argmax([*is_whole, True])))
    return line[cuts[0] : len(line) - cuts[1]]


def _stiffness(line: Floats, voxels: Voxels, least: float, radius: float) -> float:
    """The most stations over which the line can be smoothed without leaving the middles, as far as these are known."""
    side = voxels.volume ** (1 / voxels.axes)
    most = UNCERTAIN / np.sqrt(max(radius / side, 1.0))
    sigma = least
    while sigma < len(line) / 4:
        moves = np.linalg.solve(voxels.steps, (stiffen(line, 1.4 * sigma) - line).T)
        if np.quantile(np.abs(moves).max(axis=0), 0.95) > most:
            break
        sigma *= 1.4
    return sigma


def _further(line: Floats, joined: bool, others: Sequence[Floats], voxels: Voxels, gap: float, radius: float) -> Floats:
    """Stations behind the last: up to the line that this one leaves, else until it comes out of the mask."""
    if joined:
        return _to_joint(line, np.concatenate(others), gap, radius)
    back = min(len(line) - 1, max(2, round(BENT * radius / gap)))
    behind = gap * np.arange(-back, 1)
    terms = np.stack([behind**0, behind, behind**2], axis=1)
    place, direction, bend = np.linalg.lstsq(terms, line[-1 - back :], rcond=None)[0]
    ahead = gap * np.arange(1, int(FARTHEST * radius / gap) + 4 * STATIONS)[:, None]
    further = place + ahead * direction + ahead**2 * bend
    is_inside = voxels.find_points(further) >= 0
    if others:  # a loop, which was opened, is not gone round twice
        is_inside &= spatial.KDTree(np.concatenate(others)).query(further)[0] > radius
    return np.asarray(further[: int(np.argmin([*is_inside, False]))])


def _to_joint(line: Floats, others: Floats, gap: float, radius: float) -> Floats:
    """Stations straight on to where a branch is nearest to the other lines."""
    back = min(len(line) - 1, max(2, round(2 * radius / gap)))
    direction = line[-1] - line[-1 - back]
    tree = spatial.KDTree(others)
    most = int(4 * float(tree.query(line[-1])[0]) / gap)
    further = line[-1] + np.arange(1, most + 2)[:, None] * gap * direction / np.linalg.norm(direction)
    distances = np.asarray(tree.query(further)[0])
    return np.asarray(further[: int(distances.argmin()) + 1])
