"""Diameters of tubes, such as vessels, along their centrelines, exact to a part of a voxel.

Where a tube is cut at right angles to the line through the middles of its cross-sections, its volume is the area of
each section times the length of the line (Pappus), also in a bend. So the area of a section is the volume of the
voxels that lie nearest to a place on the line, for each mm of it, and its diameter that of a disc of this area; in 2D
the width.

A grid cuts alike sections differently: of a tube that is four voxels wide and nearly parallel to an axis, the area
rises and falls by a tenth, slowly, so that no smoothing helps. So a model is measured along with the mask: the round
tube of these diameters around this line, in the voxels of this grid. By what its measured diameters differ from its
own, those of the mask are corrected, and so is the line; that also undoes the smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.evaluation import _vessel_lines
from hilum.evaluation._vessel_lines import Line
from hilum.evaluation._vessel_ways import Numbers, Voxels
from hilum.lazy import ndimage
from hilum.values import Floats

# Areas are smoothed along the line over so many voxels, where they stay the same over up to 15 times as many.
FINEST = {2: 0.8, 3: 0.5}
WIDTHS = 1.4 ** np.arange(8)
# Standard errors by which diameters of two widths of smoothing may differ and are still one: to measure a narrowing,
# and to ask whether there is one. Chosen on tubes of known diameter, with the number of corrections by the model.
KEEN = 1.2
CALM = 3.0
CORRECTIONS = 4
# The standard error of the finest width, for each standard deviation of its difference from the one after the next.
ERROR = 1 / 0.474
NORMAL = 1.4826  # standard deviations in a median absolute deviation


@dataclass(frozen=True, eq=False)
class DiameterProfile:
    """(stations,) mm of one line: calm, to look for narrowings, and keen, to measure them."""

    calm: Floats
    keen: Floats


def measure_profiles(voxels: Voxels, lines: list[Line]) -> list[DiameterProfile]:
    """The diameters along each line: each voxel counts where it lies nearest."""
    if not lines:
        return []
    points = voxels.with_surroundings()
    is_marked = np.arange(len(points)) < len(voxels.points)
    stations, owners = _vessel_lines.nearest_stations([line.stations for line in lines], points)
    found = list[DiameterProfile]()
    for number, line in enumerate(lines):
        own = owners == number
        found.append(_profile(voxels, line, stations[own], points[own], is_marked[own]))
    return found


def _profile(
    voxels: Voxels, line: Line, nearest: Numbers, points: Floats, is_marked: NDArray[np.bool_]
) -> DiameterProfile:
    count = len(line.stations)
    directions = np.gradient(line.stations, axis=0) / line.gap
    beyond, across = _offsets(line.stations, directions, nearest, points)
    places = np.clip(nearest + beyond / line.gap, 0, count - 1)
    step = float(np.abs(directions @ voxels.steps).sum(axis=1).mean())
    sigmas = FINEST[voxels.axes] * step / line.gap * WIDTHS
    is_whole = np.zeros(count)
    inset = round(line.radius / 2 / line.gap)
    is_whole[line.first + inset : max(line.last - inset, line.first + inset) + 1] = 1

    def measure(chosen: NDArray[np.bool_]) -> Floats:
        volumes = _spread(places, chosen.astype(float), count) * voxels.volume / line.gap
        return _diameters(volumes, is_whole, sigmas, voxels.axes)

    measured = corrected = measure(is_marked)
    keen = _choose(corrected, sigmas, is_whole, KEEN)
    weights = np.bincount(nearest, is_marked, minlength=count)
    stations = line.stations
    for _ in range(CORRECTIONS):
        radii = np.interp(places, np.arange(count), keen / 2)
        is_model = np.linalg.norm(across, axis=1) <= radii
        corrected = np.maximum(measured - measure(is_model) + keen, 0)
        keen = _choose(corrected, sigmas, is_whole, KEEN)
        excess = is_marked.astype(float) - is_model
        moves = np.stack([np.bincount(nearest, excess * column, minlength=count) for column in across.T], axis=1)
        total = ndimage.gaussian_filter1d(moves, line.stiffness, axis=0, mode="constant")
        weight = ndimage.gaussian_filter1d(weights, line.stiffness, mode="constant")
        stations = stations + total / np.maximum(weight, 1e-9)[:, None]
        directions = np.gradient(stations, axis=0)
        directions /= np.linalg.norm(directions, axis=1)[:, None]
        _, across = _offsets(stations, directions, nearest, points)
    return DiameterProfile(_choose(corrected, sigmas, is_whole, CALM), keen)


def _offsets(stations: Floats, directions: Floats, nearest: Numbers, points: Floats) -> tuple[Floats, Floats]:
    """(points,) mm along the line from the nearest station, and (points, axes) mm across it."""
    offsets = points - stations[nearest]
    beyond = (offsets * directions[nearest]).sum(axis=1)
    return beyond, offsets - beyond[:, None] * directions[nearest]


def _spread(places: Floats, weights: Floats, count: int) -> Floats:
    """(count,) sums of weights at places between stations, shared by the two stations."""
    low = np.minimum(places.astype(int), count - 2)
    share = places - low
    below = np.bincount(low, (1 - share) * weights, minlength=count)
    return np.asarray(below + np.bincount(low + 1, share * weights, minlength=count))


def _diameters(volumes: Floats, is_whole: Floats, sigmas: Floats, axes: int) -> Floats:
    """(widths, stations) from the volume for each mm, smoothed over whole sections."""
    found = list[Floats]()
    for sigma in sigmas:
        total = ndimage.gaussian_filter1d(volumes * is_whole, sigma, mode="constant")
        weight = ndimage.gaussian_filter1d(is_whole, sigma, mode="constant")
        areas = total / np.maximum(weight, 1e-9)
        found.append(2 * np.sqrt(areas / np.pi) if axes > 2 else areas)
    return np.array(found)


def _choose(diameters: Floats, sigmas: Floats, is_whole: Floats, errors: float) -> Floats:
    """(stations,) of (widths, stations) the widest that agrees with all narrower ones within so many standard errors.

    Lepski, Theory Probab Appl 1991, doi:10.1137/1135065
    """
    roughness = np.abs(diameters[0] - diameters[2])[is_whole > 0]
    error = ERROR * NORMAL * float(np.median(roughness))
    low = np.full(diameters.shape[1], -np.inf)
    high = np.full(diameters.shape[1], np.inf)
    chosen = diameters[0].copy()
    agrees = np.ones(diameters.shape[1], dtype=bool)
    for sigma, smoothed in zip(sigmas, diameters, strict=True):
        reach = errors * error * np.sqrt(sigmas[0] / sigma)
        low = np.maximum(low, smoothed - reach)
        high = np.minimum(high, smoothed + reach)
        agrees &= low <= high
        chosen[agrees] = smoothed[agrees]
    return np.asarray(chosen)
