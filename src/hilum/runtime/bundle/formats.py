"""Files that a package reads, by their suffix; the first is the one that results are written in."""

from __future__ import annotations

from collections.abc import Mapping

from hilum.files import numpy_file, series
from hilum.files.format_options import Format
from hilum.files.nifti import nifti_reading
from hilum.files.pictures import plain_picture


def tables() -> Mapping[str, Format]:
    """Series in tables of numbers, or in plain arrays."""
    return {".csv": series.FORMAT, ".tsv": series.FORMAT, ".npy": numpy_file.FORMAT, ".npz": numpy_file.FORMAT}


def pictures() -> Mapping[str, Format]:
    """Images in picture files, or in volume files of a single slice."""
    suffixes = (".png", ".jpeg", ".jpg", ".bmp", ".jp2", ".webp", ".gif")
    return {**volumes(), **dict.fromkeys(suffixes, plain_picture.FORMAT)}


def volumes() -> Mapping[str, Format]:
    """Images in volume files: NIfTI."""
    return {".nii.gz": nifti_reading.FORMAT, ".nii": nifti_reading.FORMAT}
