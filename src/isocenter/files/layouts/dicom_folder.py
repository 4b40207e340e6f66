"""A folder of DICOM: what tells that it is one. How its cases are found needs the DICOM library, and lies apart."""

from __future__ import annotations

from isocenter.files.layouts.cases import Folder
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading


def fits(folder: Folder, options: DatasetOptions) -> bool:
    del options
    return bool(folder.dicom)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Series are told apart by their headers, never by folders or file names."""
    from isocenter.files.layouts.cases import (
        dicom_cases,  # half a second, and every folder is asked whether it is DICOM
    )

    return dicom_cases.read(folder, options)


LAYOUT = Layout("dicom_folder", "a folder of DICOM series", fits, read, over=frozenset({"plain_images"}))
