"""Whether a file holds a slide, by its name and header alone."""

from __future__ import annotations

from pathlib import Path

import tifffile

from hilum.files import file_formats
from hilum.files.slides import tiled_tiff

SLIDE, TIFF = "slide", "tiff"


def is_slide(path: Path) -> bool:
    """Whether a file is of a scanner's own format, or a tiled TIFF with levels; False for a damaged one."""
    suffix = file_formats.suffix_of(path)
    if suffix in file_formats.FORMATS[SLIDE].suffixes:
        return True
    if suffix not in file_formats.FORMATS[TIFF].suffixes:
        return False
    try:
        with tifffile.TiffFile(path, is_ndtiff=False, is_mmstack=False) as file:
            return bool(tiled_tiff.level_pages(file))
    except (tifffile.TiffFileError, OSError, ValueError, LookupError):  # whoever opens it says what is wrong
        return False
