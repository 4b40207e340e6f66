"""Images whose voxels are read before their turn, where they are few enough to wait in memory."""

from __future__ import annotations

import numpy as np

from isocenter.runtime import available_memory
from isocenter.transforms import stacked
from isocenter.values import Case, Deferred, Image

# An image that takes more than this share of the free memory, or than this many bytes, is not read ahead: it is read,
# or streamed, at its turn.
AHEAD_SHARE, AHEAD_BYTES = 0.05, 2**28


def image_of(case: Case) -> Image:
    """The case's image, its voxels read now where they are few enough to wait for their turn in memory."""
    return in_memory(stacked(case.images, case.id))


def in_memory(image: Image) -> Image:
    """The image with its voxels read now, where they are few enough to wait in memory."""
    size = int(np.prod(image.shape)) * image.dtype.itemsize
    if isinstance(image.pixels, Deferred) and size <= min(AHEAD_BYTES, AHEAD_SHARE * available_memory()):
        return image.with_pixels(image.data)
    return image
