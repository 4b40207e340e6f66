"""Measurements of an image in a few numbers: a small copy of it, descriptors that compare cases, and intensities.

Intensities of a channel are of all voxels, or of those that a label map names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.quality.image_quality import quality
from isocenter.quality.small_marks import patches
from isocenter.transforms import COLOUR, GREY, permuted, recoloured, resample, without_alpha
from isocenter.values import Array, CaseFacts, CaseReference, Deferred, Floats, Image

# Voxels a side of the small image, by number of axes: 2 and 8 kB a case, as half precision shows a twin too.
SMALL_SIDE = {1: 64, 2: 32, 3: 16}


@dataclass(frozen=True, eq=False)
class Look:
    """One case as it looks.

    digest:  of the voxels, whatever the file's format: equal for equal images
    small:   (*spatial) of the first channel (a colour picture's luma) in canonical order, stretched to a few voxels
             a side in half precision, between 0 and 1 at the 0.5th and 99.5th percentile
    quality: measures of each channel, as in `picture.quality`
    patches: of a picture, as of `small_marks.patches`; None of other images, of cases without an answer, and where
             enough others are known
    """

    digest: str
    small: Floats
    quality: tuple[Mapping[str, float], ...]
    patches: Array | None = None


def look(image: Image, valid: Array, *, marks: bool = True) -> Look:
    """image: with its voxels read; valid: where they are measurements. A clip is seen by its middle frame.

    marks: whether small marks in it could give an answer away: patches take as long as all else
    """
    if image.frames is not None:
        middle = image.frames // 2
        return replace(look(image.frame(middle), valid[:, middle], marks=marks), digest=voxel_digest(image))
    grey = recoloured(image, GREY) if without_alpha(image.channels) == COLOUR else image
    channels = grey.data if grey is image else grey.data[:1]
    measured: Array = valid if grey is image else np.logical_and.reduce(valid[:3], keepdims=True)
    measures = tuple(
        quality(channel, known, image.geometry.steps) for channel, known in zip(channels, measured, strict=True)
    )
    scaled = scaled_intensities(*(permuted(array[:1], *image.geometry.to_canonical) for array in (channels, measured)))
    patched = patches(scaled) if marks and scaled.ndim == 2 else None
    return Look(voxel_digest(image), small_image(scaled), measures, patched)


def voxel_digest(image: Image) -> str:
    """A digest of the voxels, whatever the file's format; a grey picture in colours is the same picture."""
    data = image.data[: len(without_alpha(image.channels))]
    if without_alpha(image.channels) == COLOUR and (data[:1] == data).all():
        data = data[:1]
    turned = permuted(data.reshape(-1, *image.geometry.shape), *image.geometry.to_canonical)
    total = hashlib.blake2b(repr(turned.shape).encode(), digest_size=16)
    total.update(np.ascontiguousarray(turned, dtype=np.float32).tobytes())
    return total.hexdigest()


def scaled_intensities(data: Array, valid: Array) -> Floats:
    """(*spatial) of a single channel, 0 and 1 at the 0.5th and 99.5th percentile; what is no measurement is 0."""
    measured = data[valid]
    low, high = np.percentile(measured, (0.5, 99.5)).tolist()
    if low == high:  # nearly all is background: the little that is not is the image
        low, high = float(measured.min()), float(measured.max())
    return (np.where(valid, data, low)[0].astype(np.float32) - low) / max(high - low, 1e-12)


def small_image(scaled: Floats) -> Floats:
    """A few voxels a side, in half precision, of what `scaled_intensities` gives."""
    side = SMALL_SIDE[scaled.ndim]
    return np.asarray(resample(scaled[None].clip(0, 1), (side,) * scaled.ndim)[0], dtype=np.float16)


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
