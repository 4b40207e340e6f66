"""DICOM objects: read as images and label maps, written as series, SEG and SR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.dicom.dictionary_codes import dictionary_code, names_structure
    from isocenter.files.dicom.header import Header, frame_count, looks_like_dicom, read_header, read_object
    from isocenter.files.dicom.identity import Identity, originals, read_identity, same_object
    from isocenter.files.dicom.reading.one_frame import (
        is_decodable,
        native_frame,
        native_object,
        shown_frame,
        stored_frame,
    )
    from isocenter.files.dicom.reading.pictures import PROJECTIONS
    from isocenter.files.dicom.reading.read import read_series
    from isocenter.files.dicom.reading.rtstruct import rasterise, regions_of
    from isocenter.files.dicom.reading.seg import Drawing, drawing_of, images_of_frames, read_segmentation, segments_of
    from isocenter.files.dicom.reading.series import (
        DRAWN,
        SeriesFiles,
        patient_of,
        stated_patient,
        survey,
        taken_on,
        unique,
    )
    from isocenter.files.dicom.reading.sr import Marked, Report, Statement, bounds, read_report
    from isocenter.files.dicom.reading.suv import SUV_BW, lean_body_share
    from isocenter.files.dicom.reading.values import Window
    from isocenter.files.dicom.registration import read_registration, transforms_to, write_registration
    from isocenter.files.dicom.rejection import KEY_OBJECTS, read_rejection, write_rejection
    from isocenter.files.dicom.tags import items, text, whole
    from isocenter.files.dicom.uids import LABEL_MAP, MAKER, REPORT_CLASSES, SEGMENTATION, STRUCTURE_SET
    from isocenter.files.dicom.warnings import quiet
    from isocenter.files.dicom.writing.answers import ANSWERS, Answer, Result
    from isocenter.files.dicom.writing.derived import DEFORMED, RESAMPLED, can_derive, write_derived_series
    from isocenter.files.dicom.writing.new_object import Reader, encoded
    from isocenter.files.dicom.writing.report_changes import (
        COMPREHENSIVE,
        COMPREHENSIVE_3D,
        as_comprehensive,
        name_predecessor,
        state_priority,
    )
    from isocenter.files.dicom.writing.seg import write_segmentation
    from isocenter.files.dicom.writing.series import SeriesNames, write_series
    from isocenter.files.dicom.writing.source_planes import volumes_of
    from isocenter.files.dicom.writing.sr import UCUM, write_no_answer, write_report
    from isocenter.files.dicom.writing.stamp import Stamp, stamped, stamped_uids

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
