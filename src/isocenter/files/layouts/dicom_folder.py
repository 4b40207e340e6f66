"""A folder of DICOM."""

from __future__ import annotations

from isocenter.files.layouts.folder import Folder
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading


def fits(folder: Folder, options: DatasetOptions) -> bool:
    return False


def read(folder: Folder, options: DatasetOptions) -> Reading:
    raise NotImplementedError


LAYOUT = Layout("dicom_folder", "a folder of DICOM", fits, read)
