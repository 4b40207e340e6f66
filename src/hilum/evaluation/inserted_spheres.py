"""Spheres that are put into images, to measure how much of a faint structure an enhancement keeps.

Two results are compared, of the image with and without the spheres, and with the same noise. So all else that the
images hold cancels, and without any enhancement just that contrast is found that was put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.evaluation.metric import Metric
from hilum.values import Array, Floats, Geometry

# Diameters in mm, in voxels where these are longer or no size is known; contrasts by the range of the image.
DIAMETERS = (3.0, 5.0, 8.0)
CONTRASTS = (0.1, 0.2, 0.4)
# The range is that between these shares of the voxels; so many of them are read.
RANGE = (0.01, 0.99)
MOST_READ = 2**20
# Spheres lie where the image is above this share of its range, and so many voxels apart; a place is tried so often.
BODY = 0.1
GAP = 2.0
TRIES = 2000
# In an image whose longest side is below so many mm (microscopy) diameters are in voxels.
SMALLEST = 20.0
# The share of a voxel that a sphere fills is that of so many points along each axis.
POINTS = 4
RECOVERY = "recovery"
RECOVERY_METRICS = (
    Metric(RECOVERY, "Recovery of inserted contrast", "aim", aim=1.0, may_judge=False, joins_primary=True),
    *(
        Metric(f"{RECOVERY}_{size:g}", f"Recovery of spheres of {size:g} mm", "aim", aim=1.0, may_judge=False)
        for size in DIAMETERS
    ),
)


@dataclass(frozen=True)
class InsertedSphere:
    """A sphere, in two axes a disc.

    centre:   (axes,) voxel index
    diameter: in the unit of the grid's steps; size: as `DIAMETERS` states it
    contrast: what it adds, in the unit of the image; share: of the image's range, as `CONTRASTS` states it
    """

    centre: tuple[float, ...]
    diameter: float
    contrast: float
    size: float
    share: float

    def profile(self, grid: Geometry) -> tuple[tuple[slice, ...], Floats]:
        """The region around it, and the share of each voxel there that it fills."""
        reach = [int(np.ceil(self.diameter / 2 / step)) + 1 for step in grid.steps]
        region = tuple(
            slice(max(0, round(place) - far), min(size, round(place) + far + 1))
            for place, far, size in zip(self.centre, reach, grid.shape, strict=True)
        )
        within = (np.arange(POINTS) + 0.5) / POINTS - 0.5
        lines = [
            ((np.arange(one.start, one.stop)[:, None] + within - place) * step).ravel()
            for one, place, step in zip(region, self.centre, grid.steps, strict=True)
        ]
        is_filled = reduce(np.add.outer, [line**2 for line in lines]) <= (self.diameter / 2) ** 2
        split = is_filled.reshape([count for one in region for count in (one.stop - one.start, POINTS)])
        return region, split.mean(axis=tuple(range(1, 2 * grid.ndim, 2)))


def choose_spheres(
    values: Array, grid: Geometry, inside: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[InsertedSphere, ...]:
    """A sphere of each size and contrast, apart from one another and wholly in the image; fewer where there is no room.

    values: (*spatial) of the clean image; inside: (*spatial) where it was measured
    """
    read = values[inside]
    if not read.size:
        return ()
    low, high = np.quantile(read[:: 1 + read.size // MOST_READ], RANGE).tolist()
    steps = np.asarray(grid.steps)
    is_large = grid.physical and max(np.multiply(grid.shape, steps)) >= SMALLEST
    unit = max(1.0, float(steps.min())) if is_large else float(steps.min())
    chosen = list[InsertedSphere]()
    for size in sorted(DIAMETERS, reverse=True):
        for share in CONTRASTS:
            for centre in (tuple(rng.integers(grid.shape).tolist()) for _ in range(TRIES)):
                sphere = InsertedSphere(centre, size * unit, share * (high - low), size, share)
                is_body = inside[centre] and values[centre] > low + BODY * (high - low)
                if is_body and _has_room(sphere, chosen, grid, GAP * unit):
                    chosen.append(sphere)
                    break
    return tuple(chosen)


def _has_room(sphere: InsertedSphere, others: Sequence[InsertedSphere], grid: Geometry, gap: float) -> bool:
    """Whether it lies in the image along each axis that is as long, and apart from the others."""
    steps = np.asarray(grid.steps)
    place = np.asarray(sphere.centre)
    edge = np.minimum(place + 0.5, np.asarray(grid.shape) - 0.5 - place) * steps
    long = np.asarray(grid.shape) * steps > sphere.diameter
    if (edge[long] < sphere.diameter / 2).any():
        return False
    return all(
        np.linalg.norm((place - one.centre) * steps) > (sphere.diameter + one.diameter) / 2 + gap for one in others
    )


def insert_spheres(values: Array, spheres: Iterable[InsertedSphere], grid: Geometry) -> Floats:
    """(*spatial) float32 values with the spheres added."""
    changed = values.astype(np.float32)
    for sphere in spheres:
        region, filled = sphere.profile(grid)
        changed[region] += (sphere.contrast * filled).astype(np.float32)
    return changed


def contrasts_found(
    with_spheres: Array, without: Array, spheres: Iterable[InsertedSphere], grid: Geometry
) -> list[float]:
    """The contrast of each sphere in the difference of two results: the factor of its profile by least squares."""
    found = []
    for sphere in spheres:
        region, filled = sphere.profile(grid)
        apart = with_spheres[region].astype(np.float64) - without[region]
        found.append(float(np.sum(apart * filled) / np.sum(filled**2)))
    return found


def recovery_slope(inserted: ArrayLike, found: ArrayLike) -> float:
    """Slope of found against inserted contrast by least squares, through 0: where nothing is put in nothing is found.

    1 where all is kept, 0 where spheres are erased.
    """
    put = np.asarray(inserted, dtype=np.float64)
    got = np.asarray(found, dtype=np.float64)
    energy = float(np.sum(put**2))
    return float(np.sum(put * got) / energy) if energy else float("nan")
