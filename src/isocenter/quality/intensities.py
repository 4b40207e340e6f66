"""Intensities of a channel in a few numbers, of all voxels or of those that a label map names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isocenter.values import Array, CaseReference, Image


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
