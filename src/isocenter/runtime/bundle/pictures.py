"""Images in picture files, or in volume files of a single slice."""

from __future__ import annotations

from collections.abc import Mapping

from isocenter.files import Format
from isocenter.files.pictures import picture
from isocenter.runtime.bundle import volumes


def formats() -> Mapping[str, Format]:
    """By suffix."""
    pictures = (".png", ".jpeg", ".jpg", ".bmp", ".jp2", ".webp", ".gif", ".pgm", ".ppm")
    return {**volumes.formats(), **dict.fromkeys(pictures, picture.FORMAT)}
