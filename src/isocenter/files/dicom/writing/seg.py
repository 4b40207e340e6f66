"""A label map as DICOM SEG on the series that it was made from, PS3.3 A.51; the object itself is highdicom's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from isocenter.errors import FormatError, GeometryError
from isocenter.files.dicom.elements import Dataset as Elements
from isocenter.files.dicom.geometry import Frame
from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.reading.frames import frames_of
from isocenter.files.dicom.seg_planes import placement
from isocenter.files.dicom.tags import first_item, frame_groups, lenient, named, text
from isocenter.files.dicom.warnings import quiet
from isocenter.files.dicom.writing.source_elements import AS_STATED, repeat_elements
from isocenter.files.storage.atomic import written
from isocenter.values import Code, Geometry, Image, Label

# Where a label has no code: PS3.16 CID 7150 and 7151 offer nothing less specific than tissue.
TISSUE = Code("SCT", "85756007", "Tissue")
STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
ABNORMAL = Code("SCT", "49755003", "Morphologically Abnormal Structure")
# PS3.16 CID 7159 (lesion segmentation types) and its neighbours: what is no structure but something wrong with one.
LESIONS = frozenset(("108369006", "86049000", "14799000", "4147007", "52988006", "27925004", "79654002", "6574001"))

# Type 2 of the Patient, General Study and Image Plane modules, PS3.3 C.7.1.1, C.7.2.1 and C.7.6.2.
UNKNOWN_ALLOWED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SliceThickness",
)

# What a result names its image by, type 1 in the Common Instance Reference Module, PS3.3 C.12.2.
IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")

Mask = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Slice:
    """One plane of the label map and the source frame that lies there."""

    number: int
    frame: Frame


def write_segmentation(
    label_map: Mask,
    labels: Sequence[Label],
    source: Image,
    path: Path,
    *,
    algorithm_name: str,
    description: str = "Segmentation",
    series_number: int = 100,
    overwrite: bool = False,
) -> None:
    """Write a label map on the source's own grid, as the same patient, study and frame of reference.

    label_map: (*spatial) of values that `labels` describe, 0 is background
    Segments are numbered 1, 2, ... in the order of the labels' values, as the standard demands, and keep name, colour
    and code; without a code they are coded as tissue. Only planes with a segment become frames.
    Raises GeometryError where the map does not lie on the source's planes, FormatError for values without label and
    for a source on which no SEG can be written.
    """
    where = str(path)
    labels = [label for label in labels if label.value != 0]  # background is no segment
    numbered = _numbered(np.asarray(label_map), labels, where)
    if numbered.shape != source.geometry.shape:
        raise GeometryError(f"a map of {numbered.shape} on {source.geometry.shape} voxels", where, "Give the same grid")
    slices = _slices(source, where)
    _check_reference(slices, source.geometry, where)
    segments = [
        _segment(n + 1, label, algorithm_name, version("isocenter"))
        for n, label in enumerate(sorted(labels, key=lambda label: label.value))
    ]
    if source.geometry.is_picture:
        planes, places = numbered[None], {}
    else:
        shown = _shown(numbered, slices, where)
        planes = np.stack([numbered[:, :, part.number].T for part in shown])
        places = _places(shown, source.geometry)
        slices = shown
    made = _made(slices, planes, segments, places, description, series_number, where)
    if places:  # highdicom takes the source's, and for a step that these lack the gaps between the frames
        made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = places["pixel_measures"]
        _name_sources(made, slices)
    elif not made.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence", [None]):
        del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence  # of pixels without a size
    with quiet(), written(Path(path), overwrite=overwrite) as partial:  # pydicom warns with values of the source
        repeat_elements(made, slices[0].frame.path, [label.name for label in labels])
        made.save_as(partial)


def _numbered(label_map: Mask, labels: Sequence[Label], where: str) -> NDArray[np.uint16]:
    """Label values to segment numbers: 1, 2, ... without a gap."""
    values = sorted(label.value for label in labels)
    if not values or len(set(values)) < len(values) or values[0] <= 0:
        raise FormatError(f"labels with the values {values}", where, "Give each label its own value above 0")
    if not (label_map.dtype == bool or np.issubdtype(label_map.dtype, np.integer)):
        raise FormatError(f"a label map of {label_map.dtype}", where, "Give whole numbers")
    low, high = int(label_map.min()), int(label_map.max())
    # Tables instead of sorting: a whole-body map has hundreds of millions of voxels.
    seen = np.zeros(max(high, values[-1]) + 1, dtype=bool)
    seen[label_map if low >= 0 else label_map[label_map >= 0]] = True
    unknown = sorted(set(np.flatnonzero(seen).tolist()) - set(values) - {0}) or ([low] if low < 0 else [])
    if unknown:
        raise FormatError(f"the map has the values {unknown[:10]} without a label", where, "Describe each value")
    table = np.zeros(len(seen), dtype=np.uint16)
    table[values] = np.arange(1, len(values) + 1)
    return table[label_map.astype(np.uint8) if label_map.dtype == bool else label_map]


def _slices(source: Image, where: str) -> list[_Slice]:
    """The source's frames with the slice that each shows, the first one where several show the same."""
    if source.source is None or not source.source.is_dicom:
        raise FormatError("a SEG needs a DICOM series to refer to", where, "Write .nii.gz, or give the DICOM source")
    slices: dict[int, _Slice] = {}
    frames = [frame for name in source.source.paths for frame in frames_of(read_header(Path(name)))]
    for frame in frames:
        number = _number(frame, source.geometry)
        slices.setdefault(number, _Slice(number, frame))
    return [slices[number] for number in sorted(slices)]


def _check_reference(slices: list[_Slice], geometry: Geometry, where: str) -> None:
    """Refuse an image on which no SEG can be written; without a frame of reference it has no place, PS3.3 A.51.3."""
    if geometry.is_volume and slices[0].frame.frame_of_reference is None:
        raise FormatError("the image states no FrameOfReferenceUID (0020,0052)", where, "Write .nii.gz instead")
    if int(np.prod(geometry.shape[:2])) < 8:  # highdicom then starts each frame on a byte, which no reader expects
        raise FormatError("the image has fewer than 8 pixels a slice", where, "Write .nii.gz instead")
    if geometry.is_picture and len(slices) > 1:
        raise FormatError(
            "the image is a film, a SEG has one frame per picture", where, "Write .png or .nii.gz instead"
        )


def _number(frame: Frame, geometry: Geometry) -> int:
    """The slice of the grid that a frame shows. Raises GeometryError where the grid is not the frame's own."""
    if geometry.is_picture:
        if frame.shape != geometry.shape:
            raise GeometryError("another size than its image", frame.name, "Give the map on the image's own grid")
        return frame.number
    place = placement(frame.plane, *frame.shape, geometry, frame.name)
    number = int(place.origin[2])
    same = place.origin[:2].tolist() == [0, 0] and frame.shape == (geometry.shape[1], geometry.shape[0])
    if not (same and place.column_step.tolist() == [1, 0, 0] and place.row_step.tolist() == [0, 1, 0]):
        raise GeometryError(
            "the map lies on another grid than its image", frame.name, "Give it on the image's own grid"
        )
    return number


def _shown(numbered: Mask, slices: list[_Slice], where: str) -> list[_Slice]:
    """The slices with a segment; one slice of an empty map, because a SEG has at least one frame."""
    marked = set(np.nonzero(numbered.any(axis=(0, 1)))[0].tolist())
    missing = marked - {part.number for part in slices}
    if missing:
        raise GeometryError(
            f"slices {sorted(missing)} of the map have no image", where, "Leave slices that were filled in empty"
        )
    return [part for part in slices if part.number in marked] or slices[:1]


def _places(slices: list[_Slice], geometry: Geometry) -> dict[str, Any]:
    """The arguments of highdicom that place the slices as the source does; slices as far apart as in its grid.

    PS3.3 C.7.6.16.2.1
    """
    planes = [part.frame.plane for part in slices]
    first = planes[0]
    if first is None:
        raise GeometryError("the image states no position", slices[0].frame.name, "Write .nii.gz or .png instead")
    apart = abs(float(_normal(geometry) @ geometry.affine[:3, 2]))
    return {
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", plane.position) for plane in planes if plane is not None
        ],
        "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", first.orientation),
        "pixel_measures": highdicom.PixelMeasuresSequence(
            pixel_spacing=first.spacing,
            slice_thickness=_thickness(slices[0].frame) or apart,
            spacing_between_slices=apart,
        ),
    }


def _thickness(frame: Frame) -> float | None:
    """The slice thickness that the source states, which need not be the distance of its slices. PS3.3 C.7.6.2.1"""
    dataset = read_header(frame.path).dataset
    measures = (first_item(groups, "PixelMeasuresSequence") for groups in frame_groups(dataset, frame.number))
    stated = (lenient(one, "SliceThickness") for one in (*measures, dataset) if one is not None)
    return next((size for size in stated if size is not None and size > 0), None)


def _normal(geometry: Geometry) -> NDArray[np.floating]:
    normal = np.cross(geometry.affine[:3, 0], geometry.affine[:3, 1])
    return normal / np.linalg.norm(normal)


def _segment(number: int, label: Label, name: str, release: str) -> highdicom.seg.SegmentDescription:
    kind = label.code or TISSUE
    category = TISSUE if kind == TISSUE else ABNORMAL if kind.value in LESIONS else STRUCTURE
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=(label.name or str(label.value))[:64],  # LO, PS3.5 6.2
        segmented_property_category=_concept(category),
        segmented_property_type=_concept(kind),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=name, family=codes.cid7162.ArtificialIntelligence, version=release
        ),
        display_color=CIELabColor.from_rgb(*label.colour) if label.colour else None,
    )


def _concept(code: Code) -> SRCode:
    return SRCode(code.value, code.scheme, code.meaning)


def _made(
    slices: list[_Slice],
    planes: Mask,
    segments: list[highdicom.seg.SegmentDescription],
    places: dict[str, Any],
    description: str,
    series_number: int,
    where: str,
) -> highdicom.seg.Segmentation:
    try:
        with quiet():  # highdicom warns about unusual names, and prints the patient's with the warning
            return highdicom.seg.Segmentation(
                source_images=_sources(slices),
                pixel_array=planes,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=segments,
                series_instance_uid=highdicom.UID(),
                series_number=series_number,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="Isocenter",
                manufacturer_model_name="Isocenter",
                software_versions=version("isocenter"),
                device_serial_number="0",
                content_label="SEGMENTATION",
                content_description=description[:64],
                series_description=description[:64],
                omit_empty_frames=bool(planes.any()),  # there must be a frame
                **places,
            )
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # what highdicom raises at a deficient source
        raise FormatError(
            f"no SEG can be written on this source ({error})", where, "Write .nii.gz, or repair the source's header"
        ) from error


def _sources(slices: list[_Slice]) -> list[Dataset]:
    """The headers that highdicom copies from, each file once; of several multi-frame files it takes only the first.

    Raises FormatError where one lacks a UID by which the SEG names it.
    """
    files = {part.frame.path: read_header(part.frame.path) for part in slices}
    for path, head in files.items():
        for keyword in IDENTIFIERS:
            if not text(head.dataset, keyword):
                problem = f"{named(keyword)} is missing, by which a SEG names its image"
                raise FormatError(problem, str(path), "Write .nii.gz, or export the series again")
    several = [path for path, head in files.items() if "NumberOfFrames" in head.dataset]
    if slices[0].frame.plane is None:  # of pictures of a kind that may have frames highdicom asks for groups
        several = list(files)
    if several:
        head = files[several[0]]
        return [_with_groups(completed(head.library), frames_of(head))]
    return [completed(head.library) for head in files.values()]


def _name_sources(made: Dataset, slices: list[_Slice]) -> None:
    """Name the frames of several multi-frame files as those that were segmented. PS3.3 C.7.6.16.2.6 and C.12.2"""
    files = {part.frame.path: read_header(part.frame.path).dataset for part in slices}
    if len(files) < 2 or not any("NumberOfFrames" in dataset for dataset in files.values()):
        return  # highdicom has named them
    instances = [_reference(dataset) for dataset in files.values()]
    made.SourceImageSequence = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = instances
    positions = np.array([part.frame.plane.position for part in slices if part.frame.plane is not None])
    for groups in made.PerFrameFunctionalGroupsSequence:
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        frame = slices[int(np.linalg.norm(positions - position, axis=1).argmin())].frame
        image, derivation = _reference(files[frame.path]), Dataset()
        if (lenient(files[frame.path], "NumberOfFrames") or 1) > 1:
            image.ReferencedFrameNumber = frame.number + 1
        image.SpatialLocationsPreserved = "YES"
        image.PurposeOfReferenceCodeSequence = [_code_item(codes.DCM.SourceImageForImageProcessingOperation)]
        derivation.DerivationCodeSequence = [_code_item(codes.DCM.Segmentation)]
        derivation.SourceImageSequence = [image]
        groups.DerivationImageSequence = [derivation]


def _reference(dataset: Elements) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = text(dataset, "SOPClassUID")
    reference.ReferencedSOPInstanceUID = text(dataset, "SOPInstanceUID")
    return reference


def _code_item(code: SRCode) -> highdicom.sr.CodedConcept:
    return highdicom.sr.CodedConcept(*code[:3])


def completed(dataset: Dataset) -> Dataset:
    """The data set as highdicom takes it: an empty value for each attribute that may be unknown (type 2).

    Without its character sets and `AS_STATED` values, which `repeat_elements` gives the result.
    """
    if "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    for keyword in ("FrameOfReferenceUID", "LossyImageCompressionRatio"):
        if keyword in dataset and dataset[keyword].is_empty:
            del dataset[keyword]
    for keyword in UNKNOWN_ALLOWED:
        if keyword not in dataset or keyword in AS_STATED:
            setattr(dataset, keyword, None)
    return dataset


def _with_groups(dataset: Dataset, frames: list[Frame]) -> Dataset:
    """A multi-frame header that states each frame's place in functional groups, wherever it stated it before."""
    plane = frames[0].plane
    shared, each = Dataset(), [Dataset() for _ in frames]
    if plane is None:
        size = dataset.get("PixelSpacing")
        shared.PixelMeasuresSequence = [] if size is None else highdicom.PixelMeasuresSequence(size, None)
    else:
        shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence("PATIENT", plane.orientation)
        shared.PixelMeasuresSequence = highdicom.PixelMeasuresSequence(plane.spacing, slice_thickness=0.0)
    for groups, frame in zip(each, frames, strict=True):
        if frame.plane is not None:
            groups.PlanePositionSequence = highdicom.PlanePositionSequence("PATIENT", frame.plane.position)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = each
    return dataset
