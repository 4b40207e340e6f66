"""Measurements of masks and of the voxels in them: diameters, uptake, ejection fraction, repeatability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import UsageError
from hilum.evaluation import _weighting
from hilum.evaluation.regression import NORMAL_95
from hilum.lazy import cv2, fft, spatial, stats
from hilum.values import Estimate, Floats

# RECIST 1.1's diameters are in mm; the sphere of SUVpeak holds 1 ml.
PEAK_MM3 = 1000.0
PEAK_RADIUS = (3 * PEAK_MM3 / (4 * np.pi)) ** (1 / 3)
# Test and retest cannot tell two people's difference from chance.
FEWEST = 2
WITHIN: Literal["within repeatability"] = "within repeatability"


@dataclass(frozen=True)
class Diameters:
    """long: the longest within a piece of one plane; short: the longest across it there; as RECIST 1.1 has them."""

    long: float
    short: float


def plane_diameters(mask: ArrayLike, spacing: ArrayLike, over: float = 0.0) -> Diameters | None:
    """Diameters in a plane (i, j) of a mask: those of the piece with the longest; None if none is longer than `over`.

    spacing: mm (or pixels) of the two axes, or (2, 2) their steps in the plane
    Ends are the middles of faces between inside and outside: so a row of n voxels is n spacings long. The short
    diameter is the longest line across within the piece's convex hull.
    Eisenhauer et al., Eur J Cancer 2009, doi:10.1016/j.ejca.2008.10.026
    """
    inside = np.asarray(mask, dtype=bool)
    steps = _weighting.spacing_steps(spacing)
    # Pieces that touch at corners are one. OpenCV finds them quicker, which matters where a map is noise.
    _, pieces = cv2.connectedComponents(inside.view(np.uint8), connectivity=8)
    low, high = _boxes(inside, np.asarray(pieces))
    lengths = _diagonals(high - low, steps)
    longest = over
    best = None
    # Nothing is longer than the box around it: after the largest most pieces need no look.
    open_to = np.flatnonzero(lengths > over)
    for n in open_to[np.argsort(-lengths[open_to], kind="stable")].tolist():
        if lengths[n] <= longest:
            break
        box = tuple(map(slice, low[n], high[n]))
        ends = _ends(pieces[box] == n + 1) @ steps.T
        ends = ends[spatial.ConvexHull(ends).vertices]
        apart = spatial.distance.squareform(spatial.distance.pdist(ends))
        if apart.max() > longest:
            longest = float(apart.max())
            best = (ends, np.unravel_index(apart.argmax(), apart.shape))
    if best is None:
        return None
    ends, (first, last) = best
    along = (ends[last] - ends[first]) / longest
    return Diameters(longest, _across(ends @ along, ends @ np.array([-along[1], along[0]])))


def longest_diagonal(box: Sequence[slice], steps: Floats) -> float:
    """The length that nothing in a box of voxels is longer than; steps: (2, 2) of the plane."""
    return float(_diagonals(np.array([[part.stop - part.start for part in box]]), steps)[0])


def _diagonals(sizes: NDArray[np.integer], steps: Floats) -> Floats:
    """(n,) lengths of the longer diagonals of boxes of (n, 2) voxels."""
    return cast(
        "Floats", np.maximum(*(np.linalg.norm((sizes * signs) @ steps.T, axis=1) for signs in ((1, 1), (1, -1))))
    )


def _boxes(inside: NDArray[np.bool_], pieces: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(pieces, 2) where the box of each piece begins and ends; pieces: their numbers from 1 on, wherever inside."""
    places = np.argwhere(inside)
    numbers = pieces[inside]
    if not len(places):
        return places, places
    order = np.argsort(numbers, kind="stable")
    first = np.searchsorted(numbers[order], np.arange(1, numbers.max() + 1))
    return np.minimum.reduceat(places[order], first), np.maximum.reduceat(places[order], first) + 1


def _ends(piece: NDArray[np.bool_]) -> Floats:
    """(n, 2) middles of the faces between inside and outside, in voxels."""
    padded = np.pad(piece, 1).astype(np.int8)
    middles = []
    for axis in (0, 1):
        places = np.argwhere(np.diff(padded, axis=axis)).astype(np.float64)
        places[:, axis] += 0.5
        middles.append(places - 1)
    return np.concatenate(middles)


def _across(along: Floats, aside: Floats) -> float:
    """The longest line of a convex outline at a right angle to the first coordinate: it begins or ends at a corner."""
    following = np.roll(np.arange(len(along)), -1)
    longest = 0.0
    for coordinates in along:
        low, high = np.minimum(along, along[following]), np.maximum(along, along[following])
        met = (low <= coordinates) & (coordinates <= high) & (high > low)
        share = (coordinates - along[met]) / (along[following][met] - along[met])
        crossings = aside[met] + share * (aside[following][met] - aside[met])
        longest = max(longest, float(np.ptp(crossings)) if len(crossings) else 0.0)
    return longest


def suv_peak(values: ArrayLike, mask: ArrayLike, spacing: ArrayLike) -> float:
    """The largest mean in a sphere of 1 ml around any voxel of the mask; the sphere may reach out of it.

    values, mask: (i, j, k); spacing: mm
    Where no voxel's sphere lies wholly within the image, its part that does.
    Wahl et al., J Nucl Med 2009 (PERCIST), doi:10.2967/jnumed.108.057307
    """
    inside = np.asarray(mask, dtype=bool)
    uptake = np.asarray(values, dtype=np.float64)
    if not inside.any():
        return float("nan")
    sphere = _sphere(np.asarray(spacing, dtype=np.float64))
    padded = [n + m - 1 for n, m in zip(uptake.shape, sphere.shape, strict=True)]
    middle = tuple(slice(m // 2, m // 2 + n) for n, m in zip(uptake.shape, sphere.shape, strict=True))
    # Around one number the sums of a Fourier transform lose less.
    level = float(uptake[inside].mean())
    sums = _convolve(uptake - level, sphere, padded)[middle]
    held = np.rint(_convolve(np.ones_like(uptake), sphere, padded)[middle])
    return level + float((sums / held)[inside].max())


def peak_reach(spacing: ArrayLike) -> list[int]:
    """Voxels an axis that the sphere of `suv_peak` reaches from its middle."""
    return [int(PEAK_RADIUS // step) for step in np.asarray(spacing, dtype=np.float64)]


def _sphere(spacing: Floats) -> Floats:
    """Ones where a voxel's centre lies in the sphere of 1 ml."""
    reach = peak_reach(spacing)
    grid = np.meshgrid(*(np.arange(-n, n + 1) * step for n, step in zip(reach, spacing, strict=True)), indexing="ij")
    return np.asarray(sum(axis**2 for axis in grid) <= PEAK_RADIUS**2, dtype=np.float64)


def _convolve(values: Floats, sphere: Floats, shape: list[int]) -> Floats:
    return np.asarray(fft.irfftn(fft.rfftn(values, shape) * fft.rfftn(sphere, shape), shape))


def ejection_fraction(end_diastolic: float, end_systolic: float) -> float:
    """Percent of the end-diastolic volume that a beat throws out. UsageError for volumes that no ventricle has."""
    if not 0 <= end_systolic <= end_diastolic or end_diastolic == 0:
        problem = f"{end_diastolic:g} at the end of diastole and {end_systolic:g} at the end of systole"
        raise UsageError(problem, "ejection fraction", "Give the larger volume first, both in one unit")
    return 100 * (end_diastolic - end_systolic) / end_diastolic


@dataclass(frozen=True)
class Repeatability:
    """The spread of two measurements of one unchanged person.

    deviation:   within a person (wSD), in the unit of the values, or percent of them
    coefficient: 95 % of repeated measurements differ by less (RC = 1.96 * sqrt(2) * wSD)
    relative:    in percent of the mean of both, for what varies the more the larger it is
    """

    deviation: Estimate
    coefficient: Estimate
    relative: bool = False

    def change(self, before: float, after: float) -> MeasuredChange:
        """Whether two measurements differ by more than chance makes them."""
        apart = after - before
        if self.relative:
            apart = 100 * apart / ((before + after) / 2)
        return MeasuredChange(apart, self.coefficient.value, self.coefficient.unit)


@dataclass(frozen=True)
class MeasuredChange:
    """A difference and the repeatability coefficient to judge it by, both in `unit`."""

    value: float
    coefficient: float
    unit: str

    @property
    def verdict(self) -> Literal["increase", "decrease", "within repeatability"]:
        """The verdict of the three, by the coefficient."""
        if abs(self.value) <= self.coefficient:
            return WITHIN
        return "increase" if self.value > 0 else "decrease"

    def __str__(self) -> str:
        beyond = "within" if self.verdict == WITHIN else f"a true {self.verdict} (95 %): beyond"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.value:+.3g}{unit}, {beyond} the repeatability coefficient of {self.coefficient:.3g}{unit}"


def repeatability(
    first: ArrayLike, second: ArrayLike, *, unit: str = "", relative: bool = False, level: float = 0.95
) -> Repeatability:
    """Repeatability from (people,) test and retest, with the interval of the variance of differences (chi squared).

    relative: differences in percent of the mean of both; all values must be above 0
    UsageError for fewer than two people or unlike lengths.
    Raunig et al., Stat Methods Med Res 2015, doi:10.1177/0962280214537344; Obuchowski and Bullen, Stat Methods Med Res
    2018, doi:10.1177/0962280217712089
    """
    _weighting.refuse_impossible_level(level)
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    is_complete = _weighting.have_same_cases(before, after) and bool(np.isfinite([before, after]).all())
    if not is_complete or len(before) < FEWEST or (relative and min(before.min(), after.min()) <= 0):
        problem = (
            f"{before.size} first and {after.size} second measurements, or one that is not a number (or not above 0)"
        )
        raise UsageError(problem, "repeatability", "Give two measurements each of at least two people")
    apart = 100 * (after - before) / ((before + after) / 2) if relative else after - before
    count = len(apart)
    squares = float((apart**2).sum()) / 2  # a difference has twice the variance of a measurement
    bounds = np.asarray(stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], count)).tolist()
    value, low, high = (float(np.sqrt(squares / n)) for n in (count, *bounds))
    unit = "%" if relative else unit
    method = "test and retest, chi squared"

    def estimate(times: float) -> Estimate:
        """The within-subject standard deviation times a factor, with its interval."""
        return Estimate(times * value, times * low, times * high, level, 2 * count, count, unit, method)

    return Repeatability(estimate(1.0), estimate(float(NORMAL_95 * np.sqrt(2))), relative)
