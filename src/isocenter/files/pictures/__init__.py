"""Picture formats. Listed is what is imported at its first use: few data sets have pictures to decode or to turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.pictures.picture import FLIPPED, MIRRORED, QUARTERS, SIDEWAYS, orientation_of, upright
    from isocenter.files.pictures.picture import read_indices as picture_indices
    from isocenter.files.pictures.tiff import read_indices as tiff_indices

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
