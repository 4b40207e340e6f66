"""Faults of a mask beside its image, or of the image below it, planted by rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Pair = tuple[Array, Array]

# Words of the finding that names the right cause of each fault.
CAUSES = {
    "shifted by a tenth": "better",
    "shifted by three": "better",
    "shifted by six": "better",
    "mirrored": "mirrored",
    "image reversed": "mirrored",
    "values exchanged": "seem to be exchanged",
    "mask of another case": "does not fit|no better than",
    "image inverted": "darker than|brighter than|inverted",
    "image of another kind": "no better than|unlike",
    "image rolled by half": "no better than|moved|rolled",
    "slab of zeros": "slices? of one value",
}
FAULTS = tuple(CAUSES)
# Voxels of a shift "by a tenth" at the least.
LEAST_SHIFT = 2


def plant(fault: str, pair: Pair, others: list[Pair], stranger: Array, rng: np.random.Generator) -> Pair | None:
    """The image and labels with the fault; None where it cannot be planted.

    pair:     image and labels, (*spatial) each
    others:   other cases of the set
    stranger: an image of another set
    """
    image, labels = pair
    axis = int(rng.integers(labels.ndim))
    sign = int(rng.choice([-1, 1]))
    places = np.argwhere(labels)
    extent = np.ptp(places, axis=0) + 1
    if fault == "shifted by a tenth":
        return image, _shifted(labels, axis, sign * max(LEAST_SHIFT, round(0.1 * float(extent[axis]))))
    if fault == "shifted by three":
        return image, _shifted(labels, axis, sign * 3)
    if fault == "shifted by six":
        return image, _shifted(labels, axis, sign * 6)
    simple: dict[str, Callable[[], Pair]] = {
        "mirrored": lambda: (image, np.flip(labels, axis).copy()),
        "image reversed": lambda: (np.flip(image, axis).copy(), labels),
        "image inverted": lambda: ((image.max() + image.min() - image), labels),
        "image of another kind": lambda: (_fitted(stranger, image), labels),
        "image rolled by half": lambda: (np.roll(image, image.shape[axis] // 2, axis), labels),
        "slab of zeros": lambda: (_with_slab(image, axis, rng), labels),
    }
    if fault in simple:
        return simple[fault]()
    if fault == "values exchanged":
        return None if labels.max() < 2 else (image, _exchanged(labels))
    other = others[int(rng.integers(len(others)))][1]
    return image, _fitted_labels(other, labels)


def _shifted(labels: Array, axis: int, voxels: int) -> Array:
    moved = np.roll(labels, voxels, axis)
    edge = [slice(None)] * labels.ndim
    edge[axis] = slice(0, voxels) if voxels > 0 else slice(voxels, None)
    moved[tuple(edge)] = 0
    return moved


def _exchanged(labels: Array) -> Array:
    """Labels with 1 and 2 exchanged."""
    changed = labels.copy()
    changed[labels == 1] = 2
    changed[labels == 2] = 1
    return changed


def _with_slab(image: Array, axis: int, rng: np.random.Generator) -> Array:
    """A quarter of the slices, next to each other, are 0."""
    size = image.shape[axis]
    thick = max(2, size // 4)
    first = int(rng.integers(size - thick + 1))
    slab = [slice(None)] * image.ndim
    slab[axis] = slice(first, first + thick)
    changed = image.copy()
    changed[tuple(slab)] = 0
    return changed


def _fitted(stranger: Array, image: Array) -> Array:
    """A stranger's pixels on the image's grid, repeated where they are too few."""
    pixels = stranger
    while pixels.ndim > image.ndim:
        pixels = pixels[..., pixels.shape[-1] // 2]
    while pixels.ndim < image.ndim:
        pixels = np.repeat(pixels[..., None], image.shape[-1], axis=-1)
    times = [-(-size // own) for size, own in zip(image.shape, pixels.shape, strict=True)]
    return np.tile(pixels, times)[tuple(slice(0, size) for size in image.shape)]


def _fitted_labels(other: Array, labels: Array) -> Array:
    """Another case's labels on this grid, from the same corner."""
    placed = np.zeros_like(labels)
    common = tuple(slice(0, min(sizes)) for sizes in zip(other.shape, labels.shape, strict=True))
    placed[common] = other[common]
    return placed
