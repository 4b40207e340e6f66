"""Length, least diameter and narrowing of tubes, such as vessels, along their centrelines.

A narrowing is measured against the tube as it would be without: a straight taper through its diameters on either side
(the computer calculated reference of PS3.17 T.4.1). A dip that the grid alone can make is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import GeometryError
from hilum.evaluation import _vessel_lines, _vessel_profiles, _weighting
from hilum.evaluation._vessel_lines import Line
from hilum.evaluation._vessel_profiles import DiameterProfile
from hilum.evaluation._vessel_ways import Voxels
from hilum.lazy import ndimage, spatial
from hilum.values import Floats

# mm of the line on either side of a narrowing that say how wide the tube is without it.
AROUND = 10.0
# A narrowing ends where this share of its depth is made up.
SHOULDER = 0.9
# mm of the line on either side of the narrowest calm place where the narrowest keen one is looked for.
NEARBY = 3.0
# Voxels by which the diameter of an even tube can seem to fall: in 2D each of two edges by half of one; in 3D less,
# since a section has many, and the less the wider it is. The figure for 3D was chosen on tubes of known diameter.
DIP = {2: 1.0, 3: 0.7}


@dataclass(frozen=True, eq=False)
class Narrowing:
    """The centrelines of a mask, and the narrowest place on them; NaN where there is none.

    length:         mm of all branches together
    least_diameter: mm; in 2D the width
    place:          (axes,) voxels, the centre of the first being 0
    percent:        by which the diameter there is less than that of the tube without a narrowing; 0 where that is no
                    more than the grid makes uncertain
    """

    length: float
    least_diameter: float
    place: Floats
    percent: float


def narrowing(mask: ArrayLike, spacing: ArrayLike) -> Narrowing:
    """The length of a tube, or of a tree of tubes, and its narrowest place; ends and forks do not count.

    mask:    (*spatial) of a picture or a volume
    spacing: (axes,) mm, or (axes, axes), whose columns are the steps of one index in mm, as in an affine
    Raises GeometryError for another number of axes.
    """
    inside = np.asarray(mask, dtype=bool)
    steps = _weighting.spacing_steps(spacing)
    if inside.ndim not in DIP or len(steps) != inside.ndim:
        problem = f"a mask with {inside.ndim} axes and a spacing of {len(steps)}"
        raise GeometryError(problem, "narrowing", "Give a picture or a volume, and the mm of each of its axes")
    nowhere = np.full(inside.ndim, np.nan)
    if not inside.any():
        return Narrowing(np.nan, np.nan, nowhere, np.nan)

    voxels = Voxels(np.argwhere(inside), steps)
    lines = _vessel_lines.trace_lines(voxels)
    profiles = _vessel_profiles.measure_profiles(voxels, lines)
    length = sum(line.length for line in lines) or np.nan
    narrowest = Narrowing(length, np.nan, nowhere, np.nan)
    for number, (line, profile) in enumerate(zip(lines, profiles, strict=True)):
        for stretch, part in _stretches(voxels, lines, profiles, number):
            station, diameter, percent = _narrowest(profile, stretch, part, line.gap, voxels)
            if not diameter >= narrowest.least_diameter:
                place = np.linalg.solve(steps, line.stations[station])
                narrowest = Narrowing(length, diameter, place, percent)
    return narrowest


def _stretches(
    voxels: Voxels, lines: Sequence[Line], profiles: Sequence[DiameterProfile], number: int
) -> Iterator[tuple[slice, slice]]:
    """Stations of a line between forks that say how wide it is, and those of them at which it can be narrowest.

    The two differ at the ends of a tube, where a section can be cut.
    """
    line = lines[number]
    profile = profiles[number]
    end = (float(np.median(profile.calm)) / 2 + 2 * voxels.longest_side) / line.gap
    at = np.arange(len(profile.calm))
    # Where another line has taken the voxels around a station, less is left than lies around it. A station in a hole of
    # a rough mask is none of these: a break there would leave a narrowing without one of its sides.
    numbers = voxels.find_points(line.stations)
    is_clear = profile.keen >= np.where(numbers >= 0, voxels.depths[numbers], voxels.shortest_side) / 2
    is_clear &= (at >= line.first + end / 2) & (at <= line.last - end / 2)
    others = [other for other in range(len(lines)) if other != number]
    if others:
        stations = np.concatenate([lines[other].stations for other in others])
        radii = np.concatenate([profiles[other].calm for other in others]) / 2
        apart, nearest = spatial.KDTree(stations).query(line.stations)
        is_clear &= apart > radii[nearest] + profile.calm / 2
    labels, _ = ndimage.label(is_clear)
    for (stretch,) in ndimage.find_objects(labels):
        first = max(stretch.start, round(line.first + end))
        last = min(stretch.stop - 1, round(line.last - end))
        if first <= last:
            yield stretch, slice(first, last + 1)


def _narrowest(
    profile: DiameterProfile, stretch: slice, part: slice, gap: float, voxels: Voxels
) -> tuple[int, float, float]:
    """The narrowest station of a part, the diameter there, and by how many percent it is narrower than the tube."""
    calm = profile.calm[stretch]
    offset = part.start - stretch.start
    least = offset + int(profile.calm[part].argmin())
    healthy = _healthy_diameter(calm, least, gap)
    side = voxels.volume ** (1 / voxels.axes)
    uncertain = DIP[voxels.axes] * side
    if voxels.axes > 2:
        uncertain /= np.sqrt(max(healthy / 2 / side, 1.0))
    if healthy - calm[least] < uncertain:
        return stretch.start + least, healthy, 0.0

    keen = profile.keen[stretch]
    nearby = round(NEARBY / gap)
    start = max(offset, least - nearby)
    stop = min(part.stop - stretch.start, least + nearby + 1)
    least = start + int(keen[start:stop].argmin())
    diameter = float(keen[least])
    return stretch.start + least, diameter, 100 * (1 - diameter / _healthy_diameter(keen, least, gap))


def _healthy_diameter(diameters: Floats, least: int, gap: float) -> float:
    """The diameter at a station, of a straight taper through what lies on either side of the narrowing there."""
    before = diameters[: least + 1][::-1]
    after = diameters[least:]
    depth = min(before.max(), after.max()) - diameters[least]
    shoulder = diameters[least] + SHOULDER * depth
    left = least - int((before >= shoulder).argmax())
    right = least + int((after >= shoulder).argmax())
    reach = round(AROUND / gap)
    healthy = np.r_[max(0, left - reach) : left + 1, right : min(len(diameters), right + reach + 1)]
    if len(np.unique(healthy)) < 2:
        return float(diameters[least])
    return float(np.polyfit(healthy - least, diameters[healthy], 1)[1])
