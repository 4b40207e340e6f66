"""Small DICOM series written for tests: every tag that geometry depends on is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

Contour = list[tuple[float, float, float]]
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def write_slice(
    path: Path,
    pixels: np.ndarray[Any, Any],
    *,
    position: Sequence[float] | None = (0.0, 0.0, 0.0),
    orientation: Sequence[float] | None = AXIAL,
    spacing: Sequence[float] | None = (1.0, 1.0),
    sop_class: str = CTImageStorage,
    **tags: Any,
) -> Path:
    """One image of (rows, columns), or (frames, rows, columns), of 16 bits; `tags` by keyword, None leaves one out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "CT" if sop_class == CTImageStorage else "MR"
    dataset.PatientID, dataset.PatientName = "secret-4711", "Doe^Jane"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
    dataset.FrameOfReferenceUID = "1.2.3.3"
    if position is not None:
        dataset.ImagePositionPatient = [decimal(x) for x in position]
    if orientation is not None:
        dataset.ImageOrientationPatient = [decimal(x) for x in orientation]
    if spacing is not None:
        dataset.PixelSpacing = [decimal(x) for x in spacing]
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype("<i2" if pixels.dtype.kind == "i" else "<u2").tobytes()
    for keyword, value in tags.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def decimal(value: float) -> str:
    """A decimal string as a scanner writes it: at most 16 characters."""
    return next(text for digits in range(12, 0, -1) if len(text := f"{value:.{digits}g}") <= 16)


def sequence(**tags: Any) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return [item]


def write_enhanced(
    path: Path, pixels: np.ndarray[Any, Any], frames: Sequence[dict[str, list[Dataset]]], **tags: Any
) -> Path:
    """An enhanced MR object of (frames, rows, columns); each frame's functional groups by keyword."""
    groups = []
    for own in frames:
        item = Dataset()
        for keyword, value in own.items():
            setattr(item, keyword, value)
        groups.append(item)
    shared = sequence(
        PlaneOrientationSequence=sequence(ImageOrientationPatient=list(AXIAL)),
        PixelMeasuresSequence=sequence(PixelSpacing=[2.0, 1.5], SliceThickness=3.0),
    )
    return write_slice(
        path,
        pixels,
        position=None,
        orientation=None,
        spacing=None,
        sop_class=EnhancedMRImageStorage,
        SharedFunctionalGroupsSequence=shared,
        PerFrameFunctionalGroupsSequence=groups,
        **tags,
    )


def write_segmented_series(segmentation: Path, folder: Path) -> Path:
    """An empty CT series, of the slices that a SEG object names as its sources."""
    seg_object = pydicom.dcmread(segmentation, stop_before_pixels=True)
    shared_groups = seg_object.SharedFunctionalGroupsSequence[0]
    folder.mkdir(parents=True)
    for frame in seg_object.PerFrameFunctionalGroupsSequence:
        instance = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        write_slice(
            folder / f"{instance}.dcm",
            np.zeros((seg_object.Rows, seg_object.Columns), np.int16),
            position=frame.PlanePositionSequence[0].ImagePositionPatient,
            orientation=shared_groups.PlaneOrientationSequence[0].ImageOrientationPatient,
            spacing=shared_groups.PixelMeasuresSequence[0].PixelSpacing,
            SOPInstanceUID=instance,
            PatientID=seg_object.PatientID,
            StudyInstanceUID=seg_object.StudyInstanceUID,
            SeriesInstanceUID=seg_object.ReferencedSeriesSequence[0].SeriesInstanceUID,
            FrameOfReferenceUID=seg_object.FrameOfReferenceUID,
        )
    return folder


def structure_set(path: Path, regions: dict[str, Sequence[Contour]], kind: str = "CLOSED_PLANAR", **tags: Any) -> Path:
    """Regions by name; `tags` frame_of_reference and instance, of the image, None where it is not named."""
    instance = tags.get("instance", "1.2.3.4")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = RTStructureSetStorage, "1.2.3.9", "RTSTRUCT"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for n, (name, contours) in enumerate(regions.items(), start=1):
        dataset.StructureSetROISequence += sequence(
            ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=tags.get("frame_of_reference", "1.2.3.3")
        )
        items = [
            sequence(
                ContourGeometricType=kind,
                NumberOfContourPoints=len(contour),
                ContourData=[f"{x:.10g}" for point in contour for x in point],
                ContourImageSequence=sequence(ReferencedSOPInstanceUID=instance) if instance else [],
            )[0]
            for contour in contours
        ]
        dataset.ROIContourSequence += sequence(
            ReferencedROINumber=n, ROIDisplayColor=[10 * n, 20, 30], ContourSequence=items
        )
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path
