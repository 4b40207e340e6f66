"""The page of a result as Secondary Capture, PS3.3 A.8, which every viewer shows, and as Encapsulated PDF, A.45.1."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from hilum.files.dicom.uids import ENCAPSULATED_PDF
from hilum.files.dicom.writing import dicom_answers, new_object, source_planes
from hilum.files.dicom.writing.dicom_answers import Result

CAPTURE_NUMBER, PDF_NUMBER = 104, 105


def captures(result: Result, path: Path) -> Iterator[Path]:
    """The page of a result as a picture, where it has one."""
    target = dicom_answers.path_of_object(path, "sc")
    if result.page is None:
        return
    slices, pixels = source_planes.source_slices(result.source, str(target)), result.page().pixels()
    heads = source_planes.source_file_headers(slices)
    with new_object.make_on_source("secondary capture", str(target)):
        capture: Any = highdicom.sc.SCImage(  # whose attributes are typed as it sets them
            pixel_array=np.asarray(pixels),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            study_instance_uid=heads[0].StudyInstanceUID,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **new_object.new_series_arguments(CAPTURE_NUMBER, "Page of findings"),
        )
        capture.copy_patient_and_study_information(heads[0])
        capture.PatientOrientation = capture.Laterality = None  # a page has none
        capture.ConversionType = "WSD"
        capture.BurnedInAnnotation = "YES"  # the date of the study
        capture.SourceImageSequence = [source_planes.reference_object(head) for head in heads]
        del capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture  # the time of its making is stated elsewhere
    new_object.save_object(capture, slices[0].frame.path, [], target, overwrite=False)
    yield target


def documents(result: Result, path: Path) -> Iterator[Path]:
    """The page of a result as a PDF, where it has one."""
    target = dicom_answers.path_of_object(path, "pdf")
    if result.page is None:
        return
    slices, page = source_planes.source_slices(result.source, str(target)), result.page().pdf()
    heads = source_planes.source_file_headers(slices)
    with new_object.make_on_source("PDF", str(target)):
        document = new_object.create_object(
            ENCAPSULATED_PDF, "DOC", ExplicitVRLittleEndian, heads[0], PDF_NUMBER, "Page of findings"
        )
        document.ConversionType = "WSD"
        now = datetime.now()
        document.ContentDate, document.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        document.AcquisitionDateTime = None
        document.BurnedInAnnotation = "YES"  # the date of the study
        document.SourceInstanceSequence = [source_planes.reference_object(head) for head in heads]
        document.DocumentTitle = "Page of findings"
        document.ConceptNameCodeSequence = None
        document.MIMETypeOfEncapsulatedDocument = "application/pdf"
        document.EncapsulatedDocumentLength = len(page)
        document.EncapsulatedDocument = page + b"\0" * (len(page) % 2)  # values have an even length
    new_object.save_object(document, slices[0].frame.path, [], target, overwrite=False)
    yield target
