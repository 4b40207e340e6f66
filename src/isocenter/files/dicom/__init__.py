"""DICOM objects: read as images and label maps, written as series, SEG and SR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.dicom.reading.pictures import PROJECTIONS
    from isocenter.files.dicom.reading.read import read_series
    from isocenter.files.dicom.reading.series import SEGMENTATIONS, SeriesFiles, survey
    from isocenter.files.dicom.reading.sr import Marked, Report
    from isocenter.files.dicom.tags import items, text, whole
    from isocenter.files.dicom.writing.series import SeriesNames, write_series

__all__ = [
    "PROJECTIONS",
    "SEGMENTATIONS",
    "Marked",
    "Report",
    "SeriesFiles",
    "SeriesNames",
    "items",
    "read_series",
    "survey",
    "text",
    "whole",
    "write_series",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
