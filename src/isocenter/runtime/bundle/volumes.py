"""Images in volume files: NIfTI."""

from __future__ import annotations

from collections.abc import Mapping

from isocenter.files import Format
from isocenter.files.nifti import read as nifti


def formats() -> Mapping[str, Format]:
    """By suffix; the first is the one that results are written in."""
    return {".nii.gz": nifti.FORMAT, ".nii": nifti.FORMAT}
