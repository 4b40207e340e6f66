"""Picture formats: PNG, JPEG, BMP, GIF, WebP, JPEG 2000, PGM and PPM; and TIFF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.pictures.picture import FLIPPED, MIRRORED, QUARTERS, SIDEWAYS, orientation_of, upright
    from isocenter.files.pictures.picture import FORMAT as PICTURE
    from isocenter.files.pictures.picture import read_indices as picture_indices
    from isocenter.files.pictures.tiff import FORMAT as TIFF
    from isocenter.files.pictures.tiff import read_indices as tiff_indices

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
