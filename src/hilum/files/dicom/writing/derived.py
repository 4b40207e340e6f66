"""An image that was computed from a DICOM series, as a series of the same patient and study."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.elements import DicomAttributes
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading.suv_scaling import SUV_BW
from hilum.files.dicom.writing import series_writing, source_planes
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.files.dicom.writing.series_writing import KINDS, PET
from hilum.files.dicom.writing.source_planes import UNKNOWN_ALLOWED
from hilum.files.dicom.writing.stamp import Stamp
from hilum.values import Code, Image, voxel_images
from hilum.values.voxel_images import SCALE

# PS3.16 D.1: how the pixels were made, and what the source was to them.
RESAMPLED = Code("DCM", "113085", "Spatial resampling")
SMOOTHED = Code("DCM", "113087", "Smoothing")
DEFORMED = Code("DCM", "125027", "Deformed for Registration")
SOURCE = ("DCM", "121322", "Source image for image processing operation")
SERIES_NUMBER = 107
WINDOW = ("WindowCenter", "WindowWidth")
# Of the Patient, Patient Study, General Study and acquisition modules: what remains true of the computed image.
REPEATED = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    *(keyword for keyword in UNKNOWN_ALLOWED if keyword != "SliceThickness"),
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyInstanceUID",
    "StudyDescription",
    "AcquisitionDate",
    "AcquisitionTime",
    "BodyPartExamined",
    "KVP",
    "ScanningSequence",
    "SequenceVariant",
    "RepetitionTime",
    "EchoTime",
    *WINDOW,
)
# Parts of the body of which there are two, as Body Part Examined has them: PS3.16 L.
PAIRED = (
    *("BREAST", "SHOULDER", "CLAVICLE", "SCAPULA", "ARM", "HUMERUS", "ELBOW", "FOREARM", "WRIST", "HAND", "FINGER"),
    *("HIP", "LEG", "FEMUR", "THIGH", "KNEE", "CALF", "ANKLE", "FOOT", "TOE", "EXTREMITY", "AXILLA", "EYE", "EAR"),
)
# Of PET series, PS3.3 C.8.9: what stays true of every voxel. What has to be there (type 1) stands in `NEEDED`.
NEEDED = ("SeriesDate", "SeriesTime", "SeriesType", "CountsSource", "DecayCorrection", "FrameReferenceTime")
REPEATED_OF_PET = (
    *NEEDED,
    "CorrectedImage",
    "CollimatorType",
    "ActualFrameDuration",
    "DecayFactor",
    "RadiopharmaceuticalInformationSequence",
    "PatientOrientationCodeSequence",
    "PatientGantryRelationshipCodeSequence",
)
# {unit of the voxels: Units (0054,1001)}; SUV Type says by what.
PET_MAY_BE_EMPTY = ("CorrectedImage", "CollimatorType", "RadiopharmaceuticalInformationSequence")
UNITS = {SUV_BW: "GML", "Bq/ml": "BQML", "counts": "CNTS", "counts/s": "CPS", "proportional to counts": "PROPCNTS"}


def enhanced_series(result: Result, path: Path) -> Iterator[Path]:
    """Write the image that a result is as a series of its source, a file a slice in a folder of its own."""
    for made in (one for one in result.maps.values() if one.is_image):
        source, folder = result.source, path.with_name(f"{path.name}_series")
        _derivable_paths(source, str(folder))  # refuses an image of several channels before one takes their place
        image = replace(source, pixels=voxel_images.one_channel(made.data), padding=None)
        code, is_kept = (RESAMPLED, False) if SCALE in source.facts else (SMOOTHED, True)
        words = f"Enhanced by a model: {result.algorithm}"
        write_derived_series(image, source, code, words, folder, is_kept=is_kept)
        yield from sorted(folder.iterdir())


def write_derived_series(
    image: Image,
    source: Image,
    code: Code,
    description: str,
    folder: Path,
    *,
    stamp: Stamp | None = None,
    is_kept: bool = False,
) -> None:
    """Write a CT, MR or PET volume that was computed from a DICOM series: its patient and study, and references to it.

    image: in its own frame of reference; voxels that are no measurement become padding below all others
    code:  how it was made; description: of the series
    stamp: what its UIDs derive from; by default the source's and the image's own voxels
    is_kept: whether its grid is the source's, so that locations are preserved
    Raises FormatError for another modality, or a source that is no DICOM series.
    """
    paths = _derivable_paths(source, str(folder))
    heads = [header_reading.read_header(Path(one)) for one in paths]
    integers, padding = _whole(image, source)
    stamp_of_series = stamp or _stamp([tags.text(one.dataset, "SOPInstanceUID") for one in heads], integers)
    first = heads[0].library
    now = datetime.now()
    # An empty attribute is repeated only where it may be empty: of others the slices have what DICOM demands.
    stated = {keyword for keyword in REPEATED if keyword in first and not first[keyword].is_empty}
    attributes: DicomAttributes = {
        keyword: first[keyword].value if keyword in stated else None
        for keyword in REPEATED
        if keyword in stated or keyword in UNKNOWN_ALLOWED
    }
    if "IR" in np.atleast_1d(attributes.get("ScanningSequence", "")):  # type 2C, PS3.3 C.8.3.1
        attributes = {**attributes, "InversionTime": first.get("InversionTime")}
    laterality = tags.text(heads[0].dataset, "Laterality") or None
    if laterality or attributes.get("BodyPartExamined", PAIRED[0]) in PAIRED:  # type 2C, PS3.3 C.7.3.1
        attributes = {**attributes, "Laterality": laterality}
    if any(width <= 0 for width in np.atleast_1d(attributes.get("WindowWidth", 0))):  # no window, PS3.3 C.11.2.1.2
        attributes = {name: value for name, value in attributes.items() if name not in WINDOW}
    attributes = {
        **attributes,
        "PatientPosition": None,  # of the source, which lay otherwise; type 2C, PS3.3 C.7.3.1
        "SeriesInstanceUID": stamp_of_series.uid("SeriesInstanceUID"),
        "SeriesDescription": description[:64],
        "SeriesNumber": SERIES_NUMBER,
        "FrameOfReferenceUID": image.geometry.frame_of_reference or stamp_of_series.uid("FrameOfReferenceUID"),
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL" if source.modality == "CT" else "OTHER"],
        "InstanceCreationDate": now.strftime("%Y%m%d"),
        "InstanceCreationTime": now.strftime("%H%M%S"),
        "DerivationDescription": description,
        "DerivationCodeSequence": [tags.code_item(code.scheme, code.value, code.meaning)],
        "SourceImageSequence": [_source(one.dataset, is_kept=is_kept) for one in heads],
    }
    if source.modality == PET:
        # A window would be in the unit of the source; and how the patient lay is a code of its own in PET.
        attributes = {name: value for name, value in attributes.items() if name not in (*WINDOW, "PatientPosition")}
        attributes = {**attributes, **_of_pet(heads[0], str(source.facts["unit"]))}
    series_writing.write_slices(
        integers, attributes, lambda number: stamp_of_series.uid(f"SOPInstanceUID {number}"), folder, padding=padding
    )


def _derivable_paths(source: Image, where: str) -> Sequence[str]:
    """The files of an image of which a series can be computed; FormatError for another."""
    if source.source is None or not source.source.is_dicom:
        raise FormatError("a derived series needs its DICOM source", where, "Write .nii.gz instead")
    if source.shape[0] != 1:
        raise FormatError("a derived series is of one channel", where, "Write .nii.gz instead")
    if not can_derive(source):
        problem = f"no derived series of this {source.modality}: it needs CT, MR, or PET that states units and decay"
        raise FormatError(problem, where, "Write .nii.gz instead")
    return source.source.paths


def can_derive(source: Image) -> bool:
    """Whether a series can be written of what is computed from an image: of CT, MR, and PET whose header is whole."""
    if source.source is None or not source.source.is_dicom or source.shape[0] != 1:
        return False
    if source.modality != PET:
        return source.modality in KINDS
    head = header_reading.read_header(Path(source.source.paths[0])).dataset
    return source.facts.get("unit") in UNITS and all(tags.text(head, keyword) for keyword in NEEDED)


def _of_pet(head: Header, unit: str) -> DicomAttributes:
    """The attributes of tracer, counts and units."""
    library = head.library
    attributes = {name: library[name].value if name in library else None for name in REPEATED_OF_PET}
    attributes = {name: value for name, value in attributes.items() if value is not None or name in PET_MAY_BE_EMPTY}
    attributes |= {"Units": UNITS[unit], "ImageType": ["DERIVED", "PRIMARY"]}  # no other second value, C.8.9.4.1.1
    return attributes | ({"SUVType": "BW"} if unit == SUV_BW else {})


def _whole(image: Image, source: Image) -> tuple[Image, int | None]:
    """The image without gaps, in whole numbers where its source has these, and the value of its padding."""
    data, valid = image.data[:1], image.valid[:1]
    is_whole = source.dtype.kind in "iu" or bool((source.data == np.rint(source.data)).all())
    data = np.rint(data) if is_whole else data
    padding = None
    if not valid.all():
        lowest = float(np.floor(data[valid].min())) if valid.any() else 0.0
        padding = int(max(lowest - 1, -(2**15)))
        data = np.where(valid, data, padding)
    computed = Image(data.astype(np.float32), image.geometry, modality=source.modality)
    return computed, padding


def _stamp(sources: Sequence[str], image: Image) -> Stamp:
    """The same image computed again is the same series."""
    key = hashlib.sha256("\\".join(sources).encode() + np.ascontiguousarray(image.data).tobytes()).hexdigest()
    return Stamp("2.25", key, time.time())


def _source(head: Any, *, is_kept: bool) -> Dataset:
    reference = source_planes.reference_object(head)
    reference.SpatialLocationsPreserved = "YES" if is_kept else "NO"
    reference.PurposeOfReferenceCodeSequence = [tags.code_item(*SOURCE)]
    return reference
