"""A contact sheet holds the voxels of one image at a time."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np

from hilum.report.figures import sheets
from hilum.values import Geometry, Image, Label, LazyMapping


def test_of_the_images_of_a_sheet_none_is_held_while_the_next_is_read():
    read = list[weakref.ref[np.ndarray]]()
    held = list[int]()

    def load(seed: int) -> Image:
        held.append(sum(voxels() is not None for voxels in read))
        pixels = np.random.default_rng(seed).integers(0, 2, (1, 12, 12, 4)).astype(np.uint8)
        read.append(weakref.ref(pixels))
        return Image(pixels, Geometry(pixels.shape[1:], np.eye(4)))

    images = LazyMapping({name: partial(load, seed) for seed, name in enumerate("abc")})
    references = LazyMapping({name: partial(load, seed) for seed, name in enumerate("abc", start=3)})
    sheets.contact_sheet(images, "Cases", references=references, labels=(Label(1, "disc"),))
    # The image of the case before may stand until the next is bound; a reference comes beside its own image.
    assert held == [0, 1, 1, 1, 1, 1]
