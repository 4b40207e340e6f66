"""Small DICOM objects with UIDs, as a peer sends them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from dicom_objects import picture


def simulated(
    instance: str = "1.2.3.4", *, study: str = "1.2", series: str = "1.2.3", side: int = 8, **tags: Any
) -> Dataset:
    """A picture with UIDs; its pixels follow from the instance."""
    pixels = np.random.default_rng(sum(map(ord, instance))).integers(0, 4000, (side, side), dtype=np.uint16)
    uids = {"SOPInstanceUID": instance, "StudyInstanceUID": study, "SeriesInstanceUID": series}
    return picture(pixels, **{"PatientName": "Doe^Jane", "PatientID": "secret-17"} | uids | tags)


def encoded(dataset: Dataset) -> bytes:
    """The object as a file."""
    file = BytesIO()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def data_set(file: bytes) -> bytes:
    """What stands behind preamble and group 2."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def is_readable(file: bytes) -> bool:
    """Whether the DICOM library takes it."""
    return "SOPInstanceUID" in dcmread(BytesIO(file))


def note(instance: str, of: Dataset, code: str, *rejected: str) -> Dataset:
    """A key object selection about objects of a study."""
    title, evidence, within = Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, "DCM", "Rejected"
    within.SeriesInstanceUID, within.ReferencedSOPSequence = "1.5", []
    for uid in rejected:
        one = Dataset()
        one.ReferencedSOPInstanceUID = uid
        within.ReferencedSOPSequence.append(one)
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = of.StudyInstanceUID, [within]
    made = simulated(instance, study=of.StudyInstanceUID, series="1.7", Modality="KO")
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    made.PatientID, made.PatientName = of.PatientID, of.PatientName
    made.ConceptNameCodeSequence, made.CurrentRequestedProcedureEvidenceSequence = [title], [evidence]
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(made, keyword)
    return made
