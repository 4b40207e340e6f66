"""Picture formats: PNG, JPEG, BMP, GIF, WebP, JPEG 2000, PGM and PPM; and TIFF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.pictures.picture import FORMAT as PICTURE
    from isocenter.files.pictures.tiff import FORMAT as TIFF

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
