"""Folders of DICOM; their cases are read in a file of their own, which needs the DICOM library."""

from __future__ import annotations

from isocenter.files.layouts import cases
from isocenter.files.layouts.cases import Folder
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A file that is named like DICOM or starts like it."""
    del options
    return bool(folder.dicom)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """The series, separated by their headers and never by folders or file names."""
    # Through the index, which imports pydicom only now: half a second, and every folder is asked whether it is DICOM.
    return cases.read_dicom(folder, options)


LAYOUT = Layout("dicom_folder", "a folder of DICOM series", fits, read, over=frozenset({"plain_images"}))
