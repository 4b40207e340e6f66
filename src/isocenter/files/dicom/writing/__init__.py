"""Writing DICOM: image series, segmentations, structured reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.dicom.writing.implicit import implicit_data_set
    from isocenter.files.dicom.writing.seg import write_segmentation
    from isocenter.files.dicom.writing.series import SeriesNames, write_series
    from isocenter.files.dicom.writing.sr import write_report
    from isocenter.files.dicom.writing.stamp import Stamp, stamped

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
