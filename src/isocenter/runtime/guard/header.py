"""What an image's header tells of its kind, without a look at its voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from isocenter.values import Geometry, Image

UNKNOWN = "unknown"
RADIOGRAPH = "radiograph"
# DICOM's words for one kind of image, PS3.3 C.7.3.1.1.1.
ALIKE = {"CR": RADIOGRAPH, "DX": RADIOGRAPH, "RG": RADIOGRAPH, "PX": RADIOGRAPH}
AXES = ("left to right", "back to front", "feet to head")


class Header(NamedTuple):
    """Facts of a header.

    words:   {fact: word} of what is known: modality, body part, whether the orientation is
    numbers: {fact: natural logarithm} of spacing and field of view in mm along each axis of the canonical order; of an
             image without physical size of the proportions of its sides
    """

    words: Mapping[str, str]
    numbers: Mapping[str, float]


def header_of(image: Image, covariates: Mapping[str, Any] | None = None) -> Header:
    """The header of an image; covariates: of its case, of which the part of the body is asked for."""
    modality = ALIKE.get(image.modality, image.modality)
    words = {
        "modality": "" if modality == UNKNOWN else modality,
        "body part": str((covariates or {}).get("body_part") or ""),
        "orientation": ("known" if image.geometry.oriented else UNKNOWN) if image.geometry.is_volume else "",
    }
    return Header({name: word for name, word in words.items() if word}, _numbers(image.geometry))


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
