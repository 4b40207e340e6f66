"""What a label map says of the image that it lies on: how large each structure is, and how bright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.transforms import without_alpha
from isocenter.values import MM3_PER_ML, Array, Deferred, Floats, Geometry, Image, Label, blocks

BLOCK_VOXELS = 2**20


def measurements(label_map: Array | Deferred, labels: Sequence[Label], image: Image) -> list[dict[str, Any]]:
    """One row a label: voxels, volume (ml; in 2D area in mm², of a series its length), mean and SD of each channel.

    label_map: (*spatial) on the image's own grid
    The intensities are the image's own (HU of a CT), where they are measurements; no volume without a voxel's size.
    """
    names, size, unit = without_alpha(image.channels), _size(image.geometry), image.facts.get("unit")
    voxels, means, deviations = _moments(label_map, labels, image, len(names))
    rows = []
    for label in labels:
        row: dict[str, Any] = {"label": label.name, "voxels": int(voxels[label.value])}
        if size is not None:
            row[size[0]] = round(float(voxels[label.value]) * size[1], 6)
        for channel, name in enumerate(names):
            row[f"mean_{name}"] = float(means[channel, label.value])
            row[f"sd_{name}"] = float(deviations[channel, label.value])
        rows.append({**row, "unit": unit} if unit else row)
    return rows


def _size(geometry: Geometry) -> tuple[str, float] | None:
    """(column, size of one voxel)."""
    size = geometry.voxel_volume
    if size is None:
        return None
    if geometry.ndim == 1:
        return (f"length_{geometry.unit}", size)
    return ("volume_ml", size / MM3_PER_ML) if geometry.ndim == 3 else ("area_mm2", size)


def _moments(
    label_map: Array | Deferred, labels: Sequence[Label], image: Image, channels: int
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """(values,) voxels of each value of the label map, and (channels, values) mean and SD; NaN where there is none.

    A few slices at a time, each with its own mean, and the sums joined as in Chan, Golub and LeVeque, The American
    Statistician 1983, doi:10.1080/00031305.1983.10483115.
    """
    length = max(label.value for label in labels) + 1
    voxels = np.zeros(length, dtype=np.int64)
    counts, means, squares = np.zeros((3, channels, length))
    read = image.reader()
    for region, marked in blocks(label_map, BLOCK_VOXELS):
        voxels += np.bincount(marked.ravel(), minlength=length)[:length]
        part = read((slice(0, channels), *region)) if marked.any() else np.empty((0,))
        for channel, (values, valid) in enumerate(zip(part, image.measured(part), strict=True)):
            there = (marked > 0) & (marked < length) & valid
            value, intensity = marked[there], values[there].astype(np.float64)
            count = np.bincount(value, minlength=length)
            mean = np.bincount(value, intensity, length) / np.maximum(count, 1)
            apart = np.where(count > 0, mean - means[channel], 0.0)
            together = np.maximum(counts[channel] + count, 1)
            squares[channel] += np.bincount(value, (intensity - mean[value]) ** 2, length)
            squares[channel] += apart**2 * counts[channel] * count / together
            means[channel] += apart * count / together
            counts[channel] += count
    with np.errstate(invalid="ignore", divide="ignore"):
        return voxels, np.where(counts > 0, means, np.nan), np.sqrt(squares / counts)
