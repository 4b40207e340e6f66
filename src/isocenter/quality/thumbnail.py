"""A small copy of each case's picture: thousands are held at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from isocenter.quality.image_quality import quality
from isocenter.quality.small_marks import patches
from isocenter.transforms import COLOUR, GREY, permuted, recoloured, resample, without_alpha
from isocenter.values import Array, Floats, Image

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
