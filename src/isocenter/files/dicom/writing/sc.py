"""The page of a result as Secondary Capture in RGB, PS3.3 A.8: what every viewer shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from isocenter.files.dicom.writing.answers import Result, answer_path
from isocenter.files.dicom.writing.new_object import made_on_source, new_series, save
from isocenter.files.dicom.writing.source_planes import reference_to, slices_of, sources_of

SERIES_NUMBER = 104


def captures(result: Result, path: Path) -> Iterator[Path]:
    """The page of a result, where it has one."""
    target = answer_path(path, "sc")
    if result.page is None:
        return
    slices, pixels = slices_of(result.source, str(target)), result.page().pixels()
    heads = sources_of(slices)
    with made_on_source("secondary capture", str(target)):
        made: Any = highdicom.sc.SCImage(  # whose attributes are typed as it sets them
            pixel_array=np.asarray(pixels),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            study_instance_uid=heads[0].StudyInstanceUID,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **new_series(SERIES_NUMBER, "Page of findings"),
        )
        made.copy_patient_and_study_information(heads[0])
        made.PatientOrientation = made.Laterality = None  # a page has none
        made.ConversionType = "WSD"
        made.BurnedInAnnotation = "YES"  # the date of the study
        made.SourceImageSequence = [reference_to(head) for head in heads]
        del made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture  # the time of its making is stated elsewhere
    save(made, slices[0].frame.path, [], target, overwrite=False)
    yield target
