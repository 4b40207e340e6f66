"""What is kept of each case's picture: small enough that thousands are held at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from isocenter.quality.image_quality import quality
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
    """

    digest: str
    small: Floats
    quality: tuple[Mapping[str, float], ...]


def look(image: Image, valid: Array) -> Look:
    """image: with its voxels read; valid: where they are measurements. A clip is seen by its middle frame."""
    if image.frames is not None:
        middle = image.frames // 2
        return replace(look(image.frame(middle), valid[:, middle]), digest=voxel_digest(image))
    grey = recoloured(image, GREY) if without_alpha(image.channels) == COLOUR else image
    channels = grey.data if grey is image else grey.data[:1]
    measured: Array = valid if grey is image else np.logical_and.reduce(valid[:3], keepdims=True)
    measures = tuple(
        quality(channel, known, image.geometry.steps) for channel, known in zip(channels, measured, strict=True)
    )
    turned = [permuted(array[:1], *image.geometry.to_canonical) for array in (channels, measured)]
    return Look(voxel_digest(image), _small(*turned), measures)


def voxel_digest(image: Image) -> str:
    """Of its voxels, whatever the file's format; a grey picture that is stored in colours is the same picture."""
    data = image.data[: len(without_alpha(image.channels))]
    if without_alpha(image.channels) == COLOUR and (data[:1] == data).all():
        data = data[:1]
    turned = permuted(data.reshape(-1, *image.geometry.shape), *image.geometry.to_canonical)
    total = hashlib.blake2b(repr(turned.shape).encode(), digest_size=16)
    total.update(np.ascontiguousarray(turned, dtype=np.float32).tobytes())
    return total.hexdigest()


def _small(data: Array, valid: Array) -> Floats:
    """(1, *spatial) to a few voxels; what is no measurement is as dark as the darkest that is one."""
    known = data[valid]
    low, high = np.percentile(known, (0.5, 99.5)).tolist()
    if low == high:  # nearly all is background: the little that is not is the image
        low, high = float(known.min()), float(known.max())
    values = np.where(valid, data, low).astype(np.float32).clip(low, high)
    side = SMALL_SIDE[values.ndim - 1]
    small = resample((values - low) / max(high - low, 1e-12), (side,) * (values.ndim - 1))
    return np.asarray(small[0], dtype=np.float16)
