"""BIDS: `sub-*/[ses-*/]anat/sub-*_T1w.nii.gz`, masks under derivatives/, participants.tsv. BIDS 1.9."""

from __future__ import annotations

from isocenter.files.layouts.folder import Folder
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading


def fits(folder: Folder, options: DatasetOptions) -> bool:
    return False


def read(folder: Folder, options: DatasetOptions) -> Reading:
    raise NotImplementedError


LAYOUT = Layout("bids", "BIDS (sub-*/anat)", fits, read)
