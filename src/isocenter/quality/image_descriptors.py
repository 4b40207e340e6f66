"""Measurements of an image in a few numbers: descriptors by which groups of cases are compared, and intensities.

Intensities of a channel are of all voxels, or of those that a label map names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.quality.thumbnail import Look
from isocenter.values import Array, CaseFacts, CaseReference, Deferred, Floats, Image

# Means of the small image over so many parts a side: how bright what lies where.
PARTS = 4


def descriptors(facts: Sequence[CaseFacts], looks: Sequence[Look]) -> Floats:
    """(cases, numbers) intensities, sharpness and noise, size and spacing, and the small image in a few parts.

    Of cases with unlike channels or axes what all of them have; NaN becomes the column's median.
    """
    channels = min(len(one.intensity) for one in facts)
    measured = min(len(one.quality) for one in looks)
    axes = {len(one.shape) for one in facts}
    columns: list[list[float]] = []
    for fact, look in zip(facts, looks, strict=True):
        row = [float(own[name]) for own in fact.intensity[:channels] for name in sorted(own)]
        row += [float(own[name]) for own in look.quality[:measured] for name in sorted(own)]
        row.append(fact.content)
        if len(axes) == 1:
            row += [*np.log(np.maximum([*fact.shape, *fact.steps], 1e-6)).tolist(), *_parts(look.small).tolist()]
        columns.append(row)
    shortest = min(len(row) for row in columns)
    rows = np.array([row[:shortest] for row in columns], dtype=np.float64)
    for column in rows.T:
        is_finite = np.isfinite(column)
        column[~is_finite] = np.median(column[is_finite]) if is_finite.any() else 0.0
    return rows


def _parts(small: Floats) -> Floats:
    """Means over a few parts a side."""
    image = np.asarray(small, dtype=np.float64)
    for axis in range(image.ndim):
        image = np.stack([part.mean(axis=axis) for part in np.array_split(image, PARTS, axis=axis)], axis=axis)
    return image.ravel()


# Of an image's voxels so many say how bright it is.
SAMPLE = 65536


def image_facts(image: Image) -> Mapping[str, Any]:
    """Modality, size, voxel size, field of view, and where its voxels are in memory their mean and deviation."""
    grid, sizes = image.geometry, sorted(image.geometry.shape)
    facts: dict[str, Any] = {"modality": image.modality, "longest side": sizes[-1], "shortest side": sizes[0]}
    if grid.spacing is not None:
        facts |= {"smallest spacing": min(grid.spacing), "largest spacing": max(grid.spacing)}
        facts["field of view"] = max(np.multiply(grid.shape, grid.spacing).tolist())
    if image.frames is not None:
        facts["frames"] = image.frames
    if not isinstance(image.pixels, Deferred):
        voxels = image.pixels.reshape(-1)
        some = voxels[:: 1 + voxels.size // SAMPLE]
        measured = some[image.measured(some)].astype(np.float64)
        if measured.size:
            facts |= {
                "mean intensity": float(measured.mean()),
                "standard deviation of intensities": float(measured.std()),
            }
    return facts


def intensity(values: Array) -> Mapping[str, float]:
    """Statistics of (voxels,) intensities; low and high are the 0.5th and 99.5th percentile, p5 and the like others."""
    shares = {"low": 0.5, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "high": 99.5}
    percentiles = zip(shares, np.percentile(values, list(shares.values())).tolist(), strict=True)
    return {
        "min": float(values.min()),
        **dict(percentiles),
        "max": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
        "deviation": float(values.std(dtype=np.float64)),
    }


def foreground(reference: CaseReference) -> tuple[Mapping[str, float], ...]:
    """Per channel the intensities inside the structures; nothing where one holds no measurement."""
    inside = drawn(reference.value) != 0
    channels = zip(reference.image.data, reference.valid, strict=True)
    parts = [channel[known & inside] for channel, known in channels]
    return tuple(intensity(part) for part in parts) if all(part.size for part in parts) else ()


def drawn(mask: Image) -> Array:
    """(*spatial) label values of the structures only: 0 also where nobody looked, or a value names the background."""
    data = mask.data[0]
    others = [label.value for label in mask.labels if label.value and (label.is_ignored or label.is_background)]
    return np.where(np.isin(data, others), data.dtype.type(0), data) if others else data
