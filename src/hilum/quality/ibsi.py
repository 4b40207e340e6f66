"""Size, shape, intensities and texture of a region in some twenty-five numbers, named and defined by the IBSI.

Image Biomarker Standardisation Initiative, Radiology 2020, doi:10.1148/radiol.2020191145; names as in its reference
tables (https://ibsi.readthedocs.io). In two axes the same definitions hold, of areas in place of volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from hilum.evaluation.region_shape import MeshCells
from hilum.lazy import spatial
from hilum.values import Array, Floats

# Grey levels of texture: a fixed number of bins over the region's own range, so that units do not matter.
BINS = 32
# Of a larger region the diameter is that of its extreme points in so many directions.
MOST_POINTS = 3000


def region_measurements(values: ArrayLike, mask: ArrayLike, spacing: Sequence[float]) -> dict[str, float]:
    """{IBSI name: number} of the voxels of (*spatial) values that lie in the mask; nothing of an empty region."""
    return channel_measurements({"": values}, mask, spacing)


def channel_measurements(
    channels: Mapping[str, ArrayLike], mask: ArrayLike, spacing: Sequence[float]
) -> dict[str, float]:
    """The same of several channels: the region's shape once, and "<channel> <IBSI name>" of the values in each.

    channels: {name: (*spatial)}; the region is where all of them are numbers
    """
    images = {name: np.asarray(values, dtype=np.float64) for name, values in channels.items()}
    inside = np.asarray(mask, dtype=bool) & np.all([np.isfinite(image) for image in images.values()], axis=0)
    if not inside.any():
        return {}
    measured = region_morphology(inside, spacing)
    for channel, image in images.items():
        levels = discretise(image, inside)
        numbers = (
            intensity_statistics(image[inside]) | histogram_features(levels[inside]) | texture_features(levels, inside)
        )
        measured |= {f"{channel} {name}".strip(): value for name, value in numbers.items()}
    return measured


def discretise(values: Floats, inside: Array, bins: int = BINS) -> Array:
    """(*spatial) grey levels from 1 on: a fixed number of bins over the range inside."""
    low, high = values[inside].min(), values[inside].max()
    if high <= low:
        return np.ones(values.shape, dtype=np.intp)
    scaled = np.floor(bins * (np.nan_to_num(values, nan=low) - low) / (high - low)) + 1
    return cast("Array", scaled.clip(1, bins).astype(np.intp))


def region_morphology(inside: Array, spacing: Sequence[float]) -> dict[str, float]:
    """Volume by counting voxels, in three axes also of the mesh with its surface; largest diameter; principal axes."""
    steps = np.asarray(spacing, dtype=np.float64)
    places = np.argwhere(inside) * steps
    lengths = 4 * np.sqrt(_variances(places))
    axes = dict(zip(("maj_axis", "min_axis", "least_axis"), lengths.tolist(), strict=False))
    longest = max(lengths[0], 1e-12)
    ratios = dict(zip(("elongation", "flatness"), (lengths[1:] / longest).tolist(), strict=False))
    mesh = MeshCells.from_region(inside).volume_and_area(np.diag(steps)) if inside.ndim == 3 else ()
    return {
        **dict(zip(("morph_volume", "morph_area_mesh"), mesh, strict=False)),
        "morph_vol_approx": float(inside.sum() * steps.prod()),
        "morph_diam": _diameter(inside, steps),
        **{f"morph_pca_{name}": value for name, value in {**axes, **ratios}.items()},
    }


def intensity_statistics(values: Floats) -> dict[str, float]:
    """Statistics of (voxels,) intensities as they are."""
    mean, variance = values.mean(), values.var()
    away = values - mean
    spread = max(np.sqrt(variance), 1e-300)
    p10, p25, median, p75, p90 = np.percentile(values, (10, 25, 50, 75, 90), method="inverted_cdf").tolist()
    return {
        "stat_mean": float(mean),
        "stat_var": float(variance),
        "stat_skew": float((away**3).mean() / spread**3) if variance else 0.0,
        "stat_kurt": float((away**4).mean() / spread**4 - 3) if variance else 0.0,
        "stat_median": median,
        "stat_p10": p10,
        "stat_p90": p90,
        "stat_iqr": p75 - p25,
        "stat_range": float(np.ptp(values)),
    }


def histogram_features(levels: Array) -> dict[str, float]:
    """Statistics of the histogram of (voxels,) grey levels."""
    shares = np.unique(levels, return_counts=True)[1] / levels.size
    return {"ih_entropy": _entropy(shares), "ih_uniformity": float((shares**2).sum())}


def texture_features(levels: Array, inside: Array) -> dict[str, float]:
    """Features of the co-occurrence of neighbours' grey levels, all directions merged into one matrix."""
    shares = _cooccurrence(levels, inside)
    if not shares.sum():
        return {}
    first, second = np.indices(shares.shape) + 1.0
    mean = (first * shares).sum()
    variance = ((first - mean) ** 2 * shares).sum()
    both = first + second - 2 * mean
    apart = np.abs(first - second)
    return {
        "cm_joint_max": float(shares.max()),
        "cm_joint_var": float(variance),
        "cm_joint_entr": _entropy(shares[shares > 0]),
        "cm_contrast": float((apart**2 * shares).sum()),
        "cm_inv_diff": float((shares / (1 + apart)).sum()),
        "cm_corr": float(((first - mean) * (second - mean) * shares).sum() / variance) if variance else 1.0,
        "cm_clust_tend": float((both**2 * shares).sum()),
        "cm_clust_shade": float((both**3 * shares).sum()),
    }


def _cooccurrence(levels: Array, inside: Array) -> Floats:
    """(levels, levels) shares of pairs of neighbours, symmetric."""
    most, ndim = int(levels[inside].max()), levels.ndim
    counts = np.zeros((most + 1) ** 2)
    steps = [step for step in product((-1, 0, 1), repeat=ndim) if step > (0,) * ndim]
    for step in steps:
        here = tuple(slice(max(0, -one), size - max(0, one)) for one, size in zip(step, levels.shape, strict=True))
        overlapping = tuple(
            slice(max(0, one), size + min(0, one)) for one, size in zip(step, levels.shape, strict=True)
        )
        both = inside[here] & inside[overlapping]
        pairs = levels[here][both] * (most + 1) + levels[overlapping][both]
        counts += np.bincount(pairs, minlength=(most + 1) ** 2)
    matrix = counts.reshape(most + 1, most + 1)[1:, 1:]
    matrix = matrix + matrix.T
    return cast("Floats", matrix / max(matrix.sum(), 1.0))


def _variances(places: Floats) -> Floats:
    """(axes,) along the principal axes, the longest first."""
    away = places - places.mean(axis=0)
    return np.linalg.eigvalsh(away.T @ away / max(len(places) - 1, 1))[::-1].clip(min=0)


def _diameter(inside: Array, steps: Floats) -> float:
    """Between the two points of the surface that lie furthest apart: it passes half-way to the next voxel outside."""
    padded, points = np.pad(inside, 1), []
    for axis in range(inside.ndim):
        for side in (-1, 1):
            edge = padded & ~np.roll(padded, -side, axis=axis)
            points.append(np.argwhere(edge) + 0.5 * side * np.eye(inside.ndim)[axis])
    corners = np.unique(np.concatenate(points), axis=0) * steps
    if len(corners) > MOST_POINTS:
        directions = np.random.default_rng(0).normal(size=(MOST_POINTS // 2, inside.ndim))
        sides = corners @ directions.T
        corners = corners[np.unique([*sides.argmin(axis=0), *sides.argmax(axis=0)])]
    return float(spatial.distance.pdist(corners).max())


def _entropy(shares: Floats) -> float:
    return float(-(shares * np.log2(shares)).sum())
