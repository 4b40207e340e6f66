"""Reading DICOM: series, frames, pixels, values, segmentations, structure sets, structured reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.dicom.reading.copies import originals
    from isocenter.files.dicom.reading.frames import frames_of
    from isocenter.files.dicom.reading.one_frame import (
        is_decodable,
        native_frame,
        native_object,
        shown_frame,
        stored_frame,
    )
    from isocenter.files.dicom.reading.pictures import PROJECTIONS
    from isocenter.files.dicom.reading.read import read_series
    from isocenter.files.dicom.reading.rejection import KEY_OBJECTS, read_rejection
    from isocenter.files.dicom.reading.rtstruct import rasterise, regions_of
    from isocenter.files.dicom.reading.seg import Drawing, drawing_of, read_segmentation, segments_of
    from isocenter.files.dicom.reading.series import (
        DRAWN,
        SEGMENTATIONS,
        STRUCTURE_SET,
        SeriesFiles,
        patient_of,
        survey,
        unique,
    )
    from isocenter.files.dicom.reading.sr import NOT_DETECTED_CODE, REPORT_CLASSES, Marked, Report, bounds, read_report
    from isocenter.files.dicom.reading.values import Window

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
