"""Preprocessing: an image as it was read to the network's input, and outputs back onto the image's own grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.preprocessing.columns import HELD_BYTES, parts_of
    from isocenter.runtime.preprocessing.image_statistics import BLOCK_VOXELS
    from isocenter.runtime.preprocessing.preprocessing import Preprocessing
    from isocenter.runtime.preprocessing.protocol import Held, Part, Prepares, Restores, Source, as_lists, as_tuples
    from isocenter.runtime.preprocessing.restore import YIELDED_BYTES, Passing, restored
    from isocenter.runtime.preprocessing.streamed import Streamed, padded_region, source_region
    from isocenter.runtime.preprocessing.trace import SliceOrder, Trace

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
