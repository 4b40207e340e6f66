"""The kind of an image by its header, and its colours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from isocenter.transforms import COLOUR, without_alpha
from isocenter.values import Geometry, Image

UNKNOWN = "unknown"
RADIOGRAPH = "radiograph"
# DICOM's words for one kind of image, PS3.3 C.7.3.1.1.1.
ALIKE = {"CR": RADIOGRAPH, "DX": RADIOGRAPH, "RG": RADIOGRAPH, "PX": RADIOGRAPH}
AXES = ("left to right", "back to front", "feet to head")
# The planes of slices by the world axis across them, and the cosine from which on one is none of these, as DICOM
# toolkits take it (Clunie, PixelMed).
PLANES, OBLIQUE, STRAIGHT = ("sagittal", "coronal", "axial"), "oblique", 0.8
# By this factor slices lie further apart than voxels in them; else nobody knows across which axis they were taken.
APART = 1.5
# Of the range, a share of colour that is next to none: a tint, or marks that somebody drew, have a hundredth or two.
TINT = 0.1
MODALITY = "modality"
# Channels of a picture from an array, which a model takes for R, G and B.
UNNAMED = ("0", "1", "2")
# Lines of a picture at which its colour is looked at, about.
LINES = 64


class Header(NamedTuple):
    """Facts of a header.

    words:   {fact: word} of what is known: modality, whether the orientation is, the plane of slices, and last the body
             part, which people write as they like
    numbers: {fact: natural logarithm} of spacing and field of view in mm along each axis of the canonical order; of an
             image without physical size of the proportions of its sides; and of the colour of a picture, which no
             longer shows in what a network of grey pictures sees
    """

    words: Mapping[str, str]
    numbers: Mapping[str, float]


def header_of(image: Image, covariates: Mapping[str, Any] | None = None) -> Header:
    """The header of an image; covariates: of its case, of which the part of the body is asked for."""
    modality = ALIKE.get(image.modality, image.modality)
    words = {
        MODALITY: "" if modality == UNKNOWN else modality,
        "orientation": ("known" if image.geometry.oriented else UNKNOWN) if image.geometry.is_volume else "",
        "plane": _plane(image.geometry),
        "body part": str((covariates or {}).get("body_part") or ""),
    }
    return Header({name: word for name, word in words.items() if word}, {**_numbers(image.geometry), **_colour(image)})


def _plane(geometry: Geometry) -> str:
    """The plane in which slices were taken; empty where sides or the axis across them are not known."""
    if not geometry.has_sides:
        return ""
    *_, second, across = np.argsort(geometry.steps)
    single = [axis for axis, size in enumerate(geometry.shape) if size == 1]
    if len(single) == 1:
        [across] = single
    elif geometry.steps[across] < APART * geometry.steps[second]:
        return ""
    # Across the slices, not along their axis: a tilted gantry shears the grid.
    first, other = np.delete(geometry.affine[:3, :3], across, axis=1).T
    normal = np.abs(np.cross(first, other))
    closest = int(np.argmax(normal))
    return PLANES[closest] if normal[closest] >= STRAIGHT * np.linalg.norm(normal) else OBLIQUE


def _numbers(geometry: Geometry) -> dict[str, float]:
    own = geometry.canonical
    extents = [size * step for size, step in zip(own.shape, own.steps, strict=True)]
    names = AXES if geometry.has_sides else tuple(f"axis {n}" for n in range(own.ndim))
    proportions = {
        f"proportion of {names[0]} and {name}": math.log(extents[0] / extent)
        for name, extent in zip(names[1:], extents[1:], strict=False)
    }
    if not geometry.physical:
        return proportions
    axes = list(zip(names, own.steps, extents, strict=False))
    spacings = {f"spacing {name}": math.log(step) for name, step, _ in axes}
    return {**proportions, **spacings, **{f"field of view {name}": math.log(extent) for name, _, extent in axes}}


def _colour(image: Image) -> dict[str, float]:
    """The distance between the channels of a picture, as a share of its range; none where it is grey, however kept."""
    own = without_alpha(image.channels)
    if len(own) == 1 and image.geometry.is_picture:
        return {"colour": math.log(TINT)}
    if own != COLOUR and not (own == UNNAMED and image.geometry.is_picture):
        return {}
    read, step = image.reader(), max(1, image.shape[1] // LINES)
    rest = (slice(None),) * (len(image.shape) - 2)
    lines = [read((slice(0, len(COLOUR)), slice(n, n + 1), *rest)) for n in range(0, image.shape[1], step)]
    pixels = np.concatenate(lines, axis=1).astype(np.float32)
    apart, extent = float(np.nanmean(np.ptp(pixels, axis=0))), float(np.nanmax(pixels) - np.nanmin(pixels))
    return {"colour": math.log(TINT + (apart / extent if extent > 0 else 0.0))}
