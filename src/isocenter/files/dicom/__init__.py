"""DICOM objects: read as images and label maps, written as series, SEG and SR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.dicom.header import Header, frame_count, looks_like_dicom, read_header
    from isocenter.files.dicom.identity import Identity, read_identity, same_object
    from isocenter.files.dicom.reading import (
        DRAWN,
        KEY_OBJECTS,
        PROJECTIONS,
        REPORT_CLASSES,
        STRUCTURE_SET,
        Drawing,
        Marked,
        Report,
        SeriesFiles,
        Window,
        bounds,
        drawing_of,
        is_decodable,
        native_frame,
        native_object,
        originals,
        patient_of,
        rasterise,
        read_rejection,
        read_report,
        read_segmentation,
        read_series,
        regions_of,
        segments_of,
        shown_frame,
        stored_frame,
        survey,
        unique,
    )
    from isocenter.files.dicom.tags import items, text, whole
    from isocenter.files.dicom.warnings import quiet
    from isocenter.files.dicom.writing import (
        SeriesNames,
        Stamp,
        implicit_data_set,
        stamped,
        write_report,
        write_segmentation,
        write_series,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
