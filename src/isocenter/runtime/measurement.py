"""What a label map says of the image that it lies on: how large each structure is, and how bright."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.transforms import without_alpha
from isocenter.values import MM3_PER_ML, Array, Floats, Geometry, Image, Label

BLOCK_VOXELS = 2**20


def measurements(label_map: Array, labels: Sequence[Label], image: Image) -> list[dict[str, Any]]:
    """One row a label: voxels, volume (ml; in 2D area in mm²) and the mean and SD of each channel's voxels in it.

    label_map: (*spatial) on the image's own grid
    The intensities are the image's own (HU of a CT), where they are measurements; no volume without a voxel's size.
    """
    names, size, unit = without_alpha(image.channels), _size(image.geometry), image.facts.get("unit")
    label_map = np.asarray(label_map)
    top = max((int(label_map.max(initial=0)), *(label.value for label in labels)))
    voxels = np.zeros(top + 1, dtype=np.int64)
    for block in _blocks(label_map.shape):
        voxels += np.bincount(label_map[block].ravel(), minlength=top + 1)
    means, deviations = _moments(label_map, image.data[: len(names)], image.valid, top + 1)
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
    return ("volume_ml", size / MM3_PER_ML) if geometry.ndim == 3 else ("area_mm2", size)


def _moments(label_map: Array, data: Array, valid: NDArray[np.bool_], values: int) -> tuple[Floats, Floats]:
    """(channels, values) mean and SD of the voxels of each value of the label map; NaN where there is none."""
    counts, sums, squares = np.zeros((3, len(data), values))
    for channel, value, intensity in _voxels(label_map, data, valid):
        counts[channel] += np.bincount(value, minlength=values)
        sums[channel] += np.bincount(value, intensity, values)
    with np.errstate(invalid="ignore"):
        means = sums / counts
        for channel, value, intensity in _voxels(label_map, data, valid):
            squares[channel] += np.bincount(value, (intensity - means[channel][value]) ** 2, values)
        return means, np.sqrt(squares / counts)


def _voxels(label_map: Array, data: Array, valid: NDArray[np.bool_]) -> Iterator[tuple[int, Array, Floats]]:
    """(channel, (voxels,) label values, (voxels,) intensities) of one block after the other: never a second volume."""
    for block in _blocks(label_map.shape):
        marked = label_map[block]
        for channel in range(len(data)) if marked.any() else ():
            there = (marked > 0) & valid[channel, block]
            yield channel, marked[there], data[channel, block][there].astype(np.float64)


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of the first axis, about a million voxels at a time."""
    rows = max(1, BLOCK_VOXELS // math.prod(shape[1:]))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))
