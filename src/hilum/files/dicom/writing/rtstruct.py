"""Masks as an RT Structure Set, PS3.3 A.19 and C.8.8.6: closed planar contours along the outer edges of voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.slice_geometry import Plane
from hilum.files.dicom.uids import STRUCTURE_SET
from hilum.files.dicom.writing import dicom_answers, mask_outlines, new_object, series_writing, source_planes
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.files.dicom.writing.mask_outlines import Corners
from hilum.files.dicom.writing.source_planes import SourceSlice
from hilum.values import Array, Image, Label

SERIES_NUMBER = 103
STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"  # what the standard still names the study by, PS3.3 C.8.8.5
DIGITS = 4  # behind the point of mm: finer than any pixel
LABEL_LETTERS = 16  # of the set's label, SH, PS3.5 6.2


def structure_sets(result: Result, path: Path) -> Iterator[Path]:
    """A structure set for each label map of a result."""
    return dicom_answers.write_label_maps(result, path, "rtstruct", write_structure_set)


def write_structure_set(
    label_map: Array, labels: Sequence[Label], source: Image, path: Path, *, algorithm_name: str
) -> None:
    """Write the structures of a label map, (*spatial) on the source's own grid, as regions of interest.

    Regions have the labels' values, names, colours and codes. A structure without a voxel is a region without contours.
    Raises FormatError for a picture, and for a source that lacks what a contour is placed by.
    """
    where, structures = str(path), [label for label in labels if label.value]
    slices = source_planes.source_slices(source, where)
    if not source.geometry.is_volume:
        raise FormatError("contours in mm need an image with positions", where, "Ask for seg or gsps instead")
    source_planes.refuse_placeless(slices, source, where)
    files = {part.frame.path: part for part in slices}
    label_map = np.asarray(label_map)
    marked = source_planes.marked_slices(label_map, slices, where)
    with new_object.make_on_source("structure set", where):
        head = source_planes.source_file_headers(slices)[0]
        structure_set = new_object.create_object(
            STRUCTURE_SET, "RTSTRUCT", ImplicitVRLittleEndian, head, SERIES_NUMBER, "Structures"
        )
        structure_set.FrameOfReferenceUID, structure_set.PositionReferenceIndicator = head.FrameOfReferenceUID, None
        structure_set.OperatorsName = None
        structure_set.StructureSetLabel = "Hilum"[:LABEL_LETTERS]
        structure_set.StructureSetName = algorithm_name[:64]  # LO
        now = datetime.now()
        structure_set.StructureSetDate, structure_set.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        structure_set.ReferencedFrameOfReferenceSequence = [_frame_of_reference(head, list(files.values()))]
        frame = head.FrameOfReferenceUID
        structure_set.StructureSetROISequence = [_region(label, frame, algorithm_name) for label in structures]
        planes = np.ascontiguousarray(label_map.T)  # each slice in one piece: all are looked through for each label
        structure_set.ROIContourSequence = [_contours(label, planes, marked) for label in structures]
        structure_set.RTROIObservationsSequence = [
            _observation(n, label) for n, label in enumerate(structures, start=1)
        ]
    new_object.save_object(
        structure_set, slices[0].frame.path, [label.name for label in structures], path, overwrite=False
    )


def _frame_of_reference(head: Dataset, slices: Sequence[SourceSlice]) -> Dataset:
    """The series of the contours, image by image."""
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = head.SeriesInstanceUID
    series.ContourImageSequence = [
        source_planes.reference_object(header_reading.read_header(part.frame.path).dataset) for part in slices
    ]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_COMPONENT, head.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = head.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(label: Label, frame: str, algorithm_name: str) -> Dataset:
    region = Dataset()
    region.ROINumber = label.value
    region.ReferencedFrameOfReferenceUID = frame
    region.ROIName = label.name[:64]  # LO
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = algorithm_name[:64]
    return region


def _contours(label: Label, planes: Array, slices: Sequence[SourceSlice]) -> Dataset:
    """The contours of a structure. planes: (slices, rows, columns)"""
    region, contours = Dataset(), list[Dataset]()
    if label.colour:
        region.ROIDisplayColor = list(label.colour)
    for part in slices:
        mask = np.equal(planes[part.number], label.value)
        if mask.any():
            image = _image(part)
            contours += [_contour(corners, part, image) for corners in mask_outlines.trace_outlines(mask)]
    if contours:
        region.ContourSequence = contours
    region.ReferencedROINumber = label.value
    return region


def _image(part: SourceSlice) -> Dataset:
    """The image of a contour."""
    header = header_reading.read_header(part.frame.path).dataset
    image = source_planes.reference_object(header)
    if (tags.whole_number(header, "NumberOfFrames", part.frame.name) or 1) > 1:
        image.ReferencedFrameNumber = part.frame.number + 1
    return image


def _contour(corners: Corners, part: SourceSlice, image: Dataset) -> Dataset:
    contour = Dataset()
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(corners)
    assert part.frame.plane is not None  # noqa: S101 - of a volume
    contour.ContourData = series_writing.decimal_strings(_in_patient(corners, part.frame.plane).round(DIGITS).ravel())
    return contour


def _in_patient(corners: Corners, plane: Plane) -> Array:
    """(points, 3) LPS mm of (points, 2) edges (row, column) of pixels, which lie half a pixel off the centres."""
    down, across = (corners - 0.5).T[..., None]
    between_rows, between_columns = plane.spacing
    return cast(
        "Array",
        np.asarray(plane.position)
        + across * between_columns * plane.along_row
        + down * between_rows * plane.along_column,
    )


def _observation(number: int, label: Label) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber, observation.ReferencedROINumber = number, label.value
    observation.RTROIInterpretedType, observation.ROIInterpreter = "", None
    if label.code is not None:
        code = tags.code_item(label.code.scheme, label.code.value, label.code.meaning[:64])
        observation.RTROIIdentificationCodeSequence = [code]
    return observation
