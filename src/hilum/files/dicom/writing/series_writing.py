"""A volume as a DICOM series of single-frame images: CT (PS3.3 A.3), MR (A.4) or PET (A.21)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.valuerep import format_number_as_ds

from hilum.errors import FormatError, GeometryError
from hilum.files import _world
from hilum.files.dicom.elements import DicomAttributes
from hilum.files.storage import atomic
from hilum.files.synthetic_marks import SYNTHETIC
from hilum.values import Geometry, Image
from hilum.values.grid_geometry import DIRECTION_TOLERANCE

IMAGE_TYPES = {"CT": "AXIAL", "MR": "OTHER"}  # third value of Image Type, PS3.3 C.8.2.1.1.1 and C.8.3.1.1.1
KINDS = {"CT": uid.CTImageStorage, "MR": uid.MRImageStorage, "PT": uid.PositronEmissionTomographyImageStorage}
# PS3.3 C.8.9.4: values of PET are multiples of the slope, and images are numbered in their series.
PET = "PT"
# Attributes that PS3.3 C.8.2.1 (CT) and C.8.3.1 (MR) demand, empty where they are not known.
DEMANDED: Mapping[str, DicomAttributes] = {
    "CT": {"KVP": None, "AcquisitionNumber": None, "RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "HU"},
    "MR": {
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": None,
        "MRAcquisitionType": "3D",
        "RepetitionTime": None,
        "EchoTime": None,
        "EchoTrainLength": None,
    },
    "PT": {"RescaleIntercept": "0", "RescaleSlope": "1"},
}
# Of the Patient and General Study modules: present, but not known (PS3.3 C.7.1.1, C.7.2.1).
UNKNOWN = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
LEVELS = 2**16 - 1


@dataclass(frozen=True)
class SeriesNames:
    """Whose series it is, in names that are unique where the series is written; the UIDs follow from them.

    So the same names give the same UIDs, and a file that is written twice is the same file.
    """

    patient: str
    study: str
    series: str
    number: int = 1

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return _uid(self.patient, self.study)

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return _uid(self.patient, self.study, self.series)

    @property
    def frame_of_reference(self) -> str:
        """Frame of Reference UID, one a study: its series were taken without the patient getting up."""
        return _uid(self.patient, self.study, "frame of reference")

    def instance_uid(self, number: int) -> str:
        """SOP Instance UID of a slice, counted from 1."""
        return _uid(self.patient, self.study, self.series, str(number))


def write_series(image: Image, names: SeriesNames, folder: Path, *, overwrite: bool = False) -> None:
    """Write one channel of a CT or MR volume as one file a slice into a new folder.

    Whole numbers that 16 bits hold are kept exactly; others are rescaled to 65536 levels, off by half a level at most.
    Read again, the slices follow the direction that columns and rows make (PS3.3 C.7.6.2.1.1), so a left-handed grid
    comes back with its slices reversed, each voxel in its place.
    Raises GeometryError for a grid that DICOM slices cannot have, FormatError for values that cannot be stored.
    """
    if image.modality == PET:
        raise FormatError("a PET series states its tracer, which a synthetic image lacks", str(folder), "Write .nii.gz")
    write_slices(image, _of_nobody(image, names), names.instance_uid, folder, overwrite=overwrite)


def write_slices(
    image: Image,
    tags: DicomAttributes,
    uid_of: Callable[[int], str],
    folder: Path,
    *,
    padding: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write one channel of a CT, MR or PET volume as one file a slice, with these attributes beside those of its grid.

    uid_of:  the SOP Instance UID of a slice, counted from 1
    padding: the value of voxels that are no measurement
    Raises what `write_series` raises.
    """
    where = str(folder)
    _check(image, where)
    stored, rescale = _to_stored(image.data[0], where, from_zero=image.modality == PET)
    if padding is not None:
        slope, intercept = (
            float(rescale.get(f"Rescale{name}", usual)) for name, usual in (("Slope", 1), ("Intercept", 0))
        )
        rescale = {**rescale, "PixelPaddingValue": round((padding - intercept) / slope)}
    with atomic.write_whole(folder, overwrite=overwrite) as partial:
        partial.mkdir()
        common = {**_of_grid(image), **tags, **rescale}
        if image.facts.get(SYNTHETIC):
            common["SyntheticData"] = "YES"  # PS3.3 C.12.1
        for number, plane in enumerate(_planes(image.geometry), start=1):
            attributes = {"SOPInstanceUID": uid_of(number), "InstanceNumber": number, **plane}
            attributes |= (
                {"ImageIndex": number, "NumberOfSlices": image.geometry.shape[2]} if image.modality == PET else {}
            )
            # (column, row, slice) here, rows of columns there
            _write(
                partial / f"{number:04d}.dcm",
                np.ascontiguousarray(stored[:, :, number - 1].T),
                {**common, **attributes},
            )


def _check(image: Image, where: str) -> None:
    geometry = image.geometry
    if not geometry.is_volume or not geometry.physical or not geometry.oriented:
        raise GeometryError("the image has no place in a patient", where, "Write .nii.gz or .png instead")
    axes = geometry.affine[:3, :2] / geometry.steps[:2]
    if abs(float(axes[:, 0] @ axes[:, 1])) > DIRECTION_TOLERANCE:
        raise GeometryError("rows and columns are not at right angles", where, "Resample it, or write .nii.gz")
    if image.modality not in KINDS or image.shape[0] != 1 or image.frames is not None:
        raise FormatError(f"{image!r} is not a CT, MR or PET volume of one channel", where, "Write .nii.gz instead")


def _to_stored(data: NDArray[Any], where: str, *, from_zero: bool) -> tuple[NDArray[Any], DicomAttributes]:
    """16 bit numbers, and the slope and intercept that make them the image's values again; from_zero: intercept 0."""
    if not np.isfinite(data).all():
        raise FormatError("has values that are not numbers", where, "Replace them, or write .nii.gz")
    low, high = float(data.min()), float(data.max())
    are_integers = bool((data == np.rint(data)).all())
    for kind in ("<u2", "<i2"):
        if are_integers and np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return data.astype(kind), {}
    if from_zero:
        kind = "<i2" if low < 0 else "<u2"
        most = np.iinfo(kind).max
        slope = format_number_as_ds(max(high / most, -low / (most + 1)) * (1 + 1e-9) or 1.0)
        return np.rint(data / float(slope)).astype(kind), {"RescaleIntercept": "0", "RescaleSlope": slope}
    intercept = format_number_as_ds(low)
    # Rounded up, so that the highest value still has a level.
    slope = format_number_as_ds(max((high - float(intercept)) / LEVELS * (1 + 1e-9), 1e-30))
    levels = np.rint((data.astype(np.float64) - float(intercept)) / float(slope))
    return np.clip(levels, 0, LEVELS).astype("<u2"), {"RescaleIntercept": intercept, "RescaleSlope": slope}


def _of_nobody(image: Image, names: SeriesNames) -> DicomAttributes:
    """Patient, study and series of a synthetic image."""
    return {
        "PatientID": names.patient,
        "PatientName": f"{names.patient}^",  # a family name only, PS3.5 6.2.1
        **dict.fromkeys(UNKNOWN),
        "ReferringPhysicianName": None,
        "StudyInstanceUID": names.study_uid,
        "StudyDescription": names.study,
        "SeriesInstanceUID": names.series_uid,
        "SeriesDescription": names.series,
        "SeriesNumber": names.number,
        "FrameOfReferenceUID": image.geometry.frame_of_reference or names.frame_of_reference,
    }


def _of_grid(image: Image) -> DicomAttributes:
    """The attributes of kind and grid, which all slices share."""
    affine = _world.swap_lps_ras(image.geometry.affine)
    column, row, _ = image.geometry.steps
    normal = np.cross(affine[:3, 0], affine[:3, 1]) / (column * row)
    apart = format_number_as_ds(abs(float(normal @ affine[:3, 2])))
    return {
        "SOPClassUID": KINDS[image.modality],
        "ImageType": ["DERIVED", "PRIMARY", *filter(None, [IMAGE_TYPES.get(image.modality)])],
        "Modality": image.modality,
        "Manufacturer": "Hilum",
        "PositionReferenceIndicator": None,
        "ImageOrientationPatient": decimal_strings([*(affine[:3, 0] / column), *(affine[:3, 1] / row)]),
        "PixelSpacing": decimal_strings([row, column]),  # between rows first, PS3.3 10.7.1.3
        "SliceThickness": apart,
        **DEMANDED[image.modality],
    }


def _planes(geometry: Geometry) -> Iterator[DicomAttributes]:
    affine = _world.swap_lps_ras(geometry.affine)
    for number in range(geometry.shape[2]):
        yield {"ImagePositionPatient": decimal_strings(affine[:3, 3] + number * affine[:3, 2])}


def decimal_strings(values: Any) -> list[str]:
    """Numbers in the 16 characters that a decimal string has, PS3.5 6.2."""
    return [format_number_as_ds(float(value)) for value in values]


def _write(path: Path, pixels: NDArray[Any], tags: DicomAttributes) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _uid(*names: str) -> str:
    return uid.generate_uid(entropy_srcs=["hilum", *(f"/{name}" for name in names)])
