"""Reading DICOM: series, frames, pixels, values, segmentations, structured reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.dicom.reading.frames import Frame, frames_of
    from isocenter.files.dicom.reading.pictures import PROJECTIONS
    from isocenter.files.dicom.reading.read import read_series
    from isocenter.files.dicom.reading.series import SEGMENTATIONS, SeriesFiles, survey
    from isocenter.files.dicom.reading.sr import Marked, Report

__all__ = [
    "PROJECTIONS",
    "SEGMENTATIONS",
    "Frame",
    "Marked",
    "Report",
    "SeriesFiles",
    "frames_of",
    "read_series",
    "survey",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
