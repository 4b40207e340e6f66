"""The planes of a DICOM source, on which results lie, and the headers that they copy from; objects are highdicom's."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, TypedDict

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from hilum.errors import FormatError, GeometryError
from hilum.files.dicom import header_reading, seg_planes, tags
from hilum.files.dicom.character_sets import UTF_8
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import file_frames
from hilum.files.dicom.slice_geometry import Frame, SliceHeader
from hilum.values import Array, Deferred, Floats, Geometry, Image

# In the header of a source that is one volume of several: which.
VOLUME: Final = "volume"

AGE = re.compile(r"\d{3}[DWMY]")  # PS3.5 6.2, value representation AS
# Codes that a result repeats from the study of its source, PS3.3 C.7.2.1 and C.7.2.2.
STUDY_CODES = (
    "ProcedureCodeSequence",
    "ReasonForPerformedProcedureCodeSequence",
    "AdmittingDiagnosesCodeSequence",
    "PatientSpeciesCodeSequence",
    "PatientBreedCodeSequence",
)
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

# By which frames of results are ordered, PS3.3 C.7.6.17.
SEGMENT_NUMBER, TEMPORAL_POSITION, FRAME_CONTENT = 0x0062000B, 0x00209128, 0x00209111
# What a result names its image by, type 1 in the Common Instance Reference Module, PS3.3 C.12.2.
IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass(frozen=True, eq=False)
class SourceSlice:
    """One plane of the source's grid and the source frame that lies there."""

    number: int
    frame: Frame


def source_slices(source: Image, where: str) -> list[SourceSlice]:
    """The source's frames with the slice that each shows, the first one where several show the same."""
    if source.source is None or not source.source.is_dicom:
        problem = "a DICOM result needs a DICOM series to refer to"
        raise FormatError(problem, where, "Write .nii.gz, or give the DICOM source")
    slices: dict[int, SourceSlice] = {}
    frames = [
        frame
        for name in source.source.paths
        for frame in file_frames.list_frames(header_reading.read_header(Path(name)))
    ]
    header: SliceHeader = source.source.header or SliceHeader()
    if VOLUME in header:  # another one has frames at the same places
        positions = {one[:2] for one in header["slices"] if one is not None}
        frames = [frame for frame in frames if (str(frame.path), frame.number) in positions]
    if source.frames is not None and source.geometry.is_picture:
        return _clip_frames(frames, header)
    for frame in frames:
        number = _number(frame, source.geometry)
        slices.setdefault(number, SourceSlice(number, frame))
    return [slices[number] for number in sorted(slices)]


def _clip_frames(frames: list[Frame], header: SliceHeader) -> list[SourceSlice]:
    """The frames of a clip in its order, each with its number in it."""
    by_place = {(str(frame.path), frame.number): frame for frame in frames}
    return [SourceSlice(n, by_place[one[:2]]) for n, one in enumerate(header["slices"]) if one is not None]


def split_into_volumes(source: Image) -> Iterator[Image]:
    """Each volume of a series of several as an image of the frames that it was read from, without its voxels."""
    origin = source.source
    stacks = origin.header.get("volumes", ()) if origin is not None and origin.is_dicom else ()
    if origin is None or len(stacks) != source.frames:
        raise GeometryError("nobody knows which images each volume is of", "series", "Write .nii.gz instead")
    for number, stack in enumerate(stacks):
        paths = tuple(dict.fromkeys(one[0] for one in stack if one is not None))
        header = {"slices": stack, VOLUME: number}
        nothing = Deferred((len(source.channels), *source.geometry.shape), source.dtype, _unread)
        yield replace(source, pixels=nothing, times=None, source=replace(origin, paths=paths, header=header))


def _unread() -> Array:
    raise NotImplementedError("a volume of a series that results are written on is not read")


def refuse_placeless(slices: list[SourceSlice], source: Image, where: str) -> None:
    """Refuse an image on which no result can be placed; without a frame of reference it has no place, PS3.3 A.51.3."""
    geometry = source.geometry
    if geometry.is_volume and slices[0].frame.frame_of_reference is None:
        raise FormatError("the image states no FrameOfReferenceUID (0020,0052)", where, "Write .nii.gz instead")
    if int(np.prod(geometry.shape[:2])) < 8:  # highdicom then starts each frame on a byte, which no reader expects
        raise FormatError("the image has fewer than 8 pixels a slice", where, "Write .nii.gz instead")
    if geometry.is_picture and source.frames is None and len(slices) > 1:
        raise FormatError("the image is a clip, a result has one frame", where, "Write .png or .nii.gz instead")


def _number(frame: Frame, geometry: Geometry) -> int:
    """The slice of the grid that a frame shows. Raises GeometryError where the grid is not the frame's own."""
    if geometry.is_picture:
        if frame.shape != geometry.shape:
            raise GeometryError("another size than its image", frame.name, "Give the map on the image's own grid")
        return frame.number
    placed = seg_planes.place_frame(frame.plane, *frame.shape, geometry, frame.name)
    number = int(placed.origin[2])
    same = placed.origin[:2].tolist() == [0, 0] and frame.shape == (geometry.shape[1], geometry.shape[0])
    if not (same and placed.column_step.tolist() == [1, 0, 0] and placed.row_step.tolist() == [0, 1, 0]):
        raise GeometryError(
            "the map lies on another grid than its image", frame.name, "Give it on the image's own grid"
        )
    return number


def marked_slices(label_map: NDArray[Any], slices: list[SourceSlice], where: str) -> list[SourceSlice]:
    """The slices on which a map marks something; one slice of an empty map, because a result has at least one frame."""
    marked = set(np.nonzero(label_map.any(axis=(0, 1)))[0].tolist())
    missing = marked - {part.number for part in slices}
    if missing:
        raise GeometryError(
            f"slices {sorted(missing)} of the map have no image", where, "Leave slices that were filled in empty"
        )
    return [part for part in slices if part.number in marked] or slices[:1]


def box_in_slices(corners: Floats, geometry: Geometry) -> tuple[Floats, Floats, range]:
    """((column, row) of a box's start, of its end, within the image; its slices, rounded to at least one)."""
    low, high = np.reshape(corners, (2, -1))
    if geometry.is_picture:
        rows, columns = geometry.shape
        low, high = low[::-1], high[::-1]
        return np.clip(low, 0, [columns, rows]), np.clip(high, 0, [columns, rows]), range(1)
    *size, count = geometry.shape
    first = min(max(round(float(low[2])), 0), count - 1)
    last = min(max(round(float(high[2])), first + 1), count)
    return np.clip(low[:2], 0, size), np.clip(high[:2], 0, size), range(first, last)


class PlacingArguments(TypedDict, total=False):
    """The arguments of highdicom that say where a result lies; none where they are those of its source."""

    plane_positions: Sequence[Any]
    plane_orientation: Any
    pixel_measures: Any


def placing_arguments(slices: list[SourceSlice], geometry: Geometry) -> PlacingArguments:
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
    dataset = header_reading.read_header(frame.path).dataset
    measures = (tags.first_item(groups, "PixelMeasuresSequence") for groups in tags.frame_groups(dataset, frame.number))
    thicknesses = (tags.lenient_number(one, "SliceThickness") for one in (*measures, dataset) if one is not None)
    return next((size for size in thicknesses if size is not None and size > 0), None)


def _normal(geometry: Geometry) -> NDArray[np.floating]:
    normal = np.cross(geometry.affine[:3, 0], geometry.affine[:3, 1])
    return normal / np.linalg.norm(normal)


def source_file_headers(slices: list[SourceSlice]) -> list[Dataset]:
    """The headers that highdicom copies from, each file once; of several multi-frame files it takes only the first.

    Raises FormatError where one lacks a UID by which the result names it.
    """
    files = {part.frame.path: header_reading.read_header(part.frame.path) for part in slices}
    for path, head in files.items():
        for keyword in IDENTIFIERS:
            if not tags.text(head.dataset, keyword):
                problem = f"{tags.keyword_with_tag(keyword)} is missing, by which a result names its image"
                raise FormatError(problem, str(path), "Write .nii.gz, or export the series again")
    several = [path for path, head in files.items() if "NumberOfFrames" in head.dataset]
    if slices[0].frame.plane is None:  # of pictures of a kind that may have frames highdicom asks for groups
        several = list(files)
    if several:
        head = files[several[0]]
        frames = [one.frame for one in slices] if slices[0].frame.plane is None else file_frames.list_frames(head)
        return [_with_groups(complete_for_highdicom(head.library), frames)]
    return [complete_for_highdicom(head.library) for head in files.values()]


def correct_frames(dataset: Dataset, slices: list[SourceSlice], places: PlacingArguments) -> None:
    """Correct what highdicom states of a multi-frame result's places and sources.

    places: as `placing_arguments` gives them
    """
    if places:  # highdicom takes the source's, and for a step that these lack the gaps between the frames
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = places["pixel_measures"]
        _name_sources(dataset, slices)
        return
    groups, source = dataset.SharedFunctionalGroupsSequence[0], header_reading.read_header(slices[0].frame.path).library
    if "PixelMeasuresSequence" in groups and not source.get("PixelSpacing"):
        del groups.PixelMeasuresSequence  # of pixels without a size
    # How a picture lies towards the patient is stated where the source knows it, and left empty elsewhere, C.7.6.1.
    dataset.PatientOrientation = source.get("PatientOrientation") or None


def _name_sources(derived: Dataset, slices: list[SourceSlice]) -> None:
    """Name the frames of several multi-frame files as those that were segmented. PS3.3 C.7.6.16.2.6 and C.12.2"""
    files = {part.frame.path: header_reading.read_header(part.frame.path).dataset for part in slices}
    if len(files) < 2 or not any("NumberOfFrames" in dataset for dataset in files.values()):
        return  # highdicom has named them
    instances = [reference_object(dataset) for dataset in files.values()]
    derived.SourceImageSequence = derived.ReferencedSeriesSequence[0].ReferencedInstanceSequence = instances
    positions = np.array([part.frame.plane.position for part in slices if part.frame.plane is not None])
    for groups in derived.PerFrameFunctionalGroupsSequence:
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        frame = slices[int(np.linalg.norm(positions - position, axis=1).argmin())].frame
        image, derivation = reference_object(files[frame.path]), Dataset()
        if (tags.lenient_number(files[frame.path], "NumberOfFrames") or 1) > 1:
            image.ReferencedFrameNumber = frame.number + 1
        image.SpatialLocationsPreserved = "YES"
        image.PurposeOfReferenceCodeSequence = [_code_item(codes.DCM.SourceImageForImageProcessingOperation)]
        derivation.DerivationCodeSequence = [_code_item(codes.DCM.Segmentation)]
        derivation.SourceImageSequence = [image]
        groups.DerivationImageSequence = [derivation]


def reference_object(dataset: DicomDataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = tags.text(dataset, "SOPClassUID")
    reference.ReferencedSOPInstanceUID = tags.text(dataset, "SOPInstanceUID")
    return reference


def name_clip_frames(derived: Dataset, frames: list[SourceSlice], marked: list[tuple[int, Dataset]]) -> None:
    """Name the frame of a clip that each frame of a result shows, PS3.3 C.7.6.16.2.6; they are ordered by it.

    marked: (place in `frames`, the functional groups) of each frame of the result
    """
    files = {one.frame.path: header_reading.read_header(one.frame.path).dataset for one in frames}
    instances = [reference_object(dataset) for dataset in files.values()]
    derived.SourceImageSequence = derived.ReferencedSeriesSequence[0].ReferencedInstanceSequence = instances
    for place, groups in marked:
        frame, derivation = frames[place].frame, groups.DerivationImageSequence[0].SourceImageSequence[0]
        derivation.ReferencedSOPInstanceUID = tags.text(files[frame.path], "SOPInstanceUID")
        if (tags.lenient_number(files[frame.path], "NumberOfFrames") or 1) > 1:
            derivation.ReferencedFrameNumber = frame.number + 1
        groups.FrameContentSequence[0].TemporalPositionIndex = frames[place].number + 1
        segment = groups.get("SegmentIdentificationSequence")
        by_segment = [] if segment is None else [segment[0].ReferencedSegmentNumber]
        groups.FrameContentSequence[0].DimensionIndexValues = [*by_segment, frames[place].number + 1]
    by_time = Dataset()
    by_time.DimensionOrganizationUID = derived.DimensionOrganizationSequence[0].DimensionOrganizationUID
    by_time.DimensionIndexPointer, by_time.FunctionalGroupPointer = TEMPORAL_POSITION, FRAME_CONTENT
    by_time.DimensionDescriptionLabel = "Temporal Position Index"
    others = [one for one in derived.DimensionIndexSequence if one.DimensionIndexPointer == SEGMENT_NUMBER]
    derived.DimensionIndexSequence = [*others, by_time]


def _code_item(code: SRCode) -> highdicom.sr.CodedConcept:
    return highdicom.sr.CodedConcept(*code[:3])


def complete_for_highdicom(dataset: Dataset) -> Dataset:
    """The data set as highdicom takes it: an empty value for each attribute that may be unknown (type 2).

    Without its character sets and `AS_STATED` values, which `repeat_elements` gives the result, and without codes of
    the study that lack what a code is made of: a PACS may refuse an object that repeats them.
    """
    if "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    for keyword in ("FrameOfReferenceUID", "LossyImageCompressionRatio"):
        if keyword in dataset and dataset[keyword].is_empty:
            del dataset[keyword]
    for keyword in STUDY_CODES:
        codes = list(dataset.get(keyword) or ())
        if any(not _is_whole(code) for code in codes):
            complete = [code for code in codes if _is_whole(code)]
            setattr(dataset, keyword, complete) if complete else delattr(dataset, keyword)
    if "PatientAge" in dataset and not AGE.fullmatch(str(dataset.PatientAge)):
        del dataset.PatientAge  # no PACS knows the patient by it
    if "PatientSpeciesDescription" in dataset and "PatientSexNeutered" not in dataset:
        dataset.PatientSexNeutered = None  # type 2C for animals, PS3.3 C.7.2.2
    for keyword in UNKNOWN_ALLOWED:
        if keyword not in dataset or keyword in AS_STATED:
            setattr(dataset, keyword, None)
    return dataset


def _is_whole(code: Dataset) -> bool:
    """Whether an item has a value, a scheme and a meaning. PS3.3 table 8.8-1"""
    value = any(code.get(keyword) for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue"))
    has_scheme = bool(code.get("CodingSchemeDesignator")) or bool(code.get("URNCodeValue"))
    return value and has_scheme and bool(code.get("CodeMeaning"))


def _with_groups(dataset: Dataset, frames: list[Frame]) -> Dataset:
    """A multi-frame header that states each frame's place in functional groups, wherever it stated it before."""
    plane = frames[0].plane
    shared, per_frame = Dataset(), [Dataset() for _ in frames]
    if plane is None:
        # highdicom looks into the measures, and `correct_frames` takes those out that nobody stated.
        shared.PixelMeasuresSequence = highdicom.PixelMeasuresSequence(dataset.get("PixelSpacing") or (1, 1), None)
    else:
        shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence("PATIENT", plane.orientation)
        shared.PixelMeasuresSequence = highdicom.PixelMeasuresSequence(plane.spacing, slice_thickness=0.0)
    for groups, frame in zip(per_frame, frames, strict=True):
        if frame.plane is not None:
            groups.PlanePositionSequence = highdicom.PlanePositionSequence("PATIENT", frame.plane.position)
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = len(frames)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = per_frame
    return dataset


# Sites write birth dates such as 17.03.1962, sexes such as D or X, and a backslash in a name. A PACS knows the patient
# by just these.
AS_STATED = ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
# Dates and times of the making, PS3.3 C.12.1, C.7.3.1, C.7.6.1 and C.17.2.
DATES = ("InstanceCreation", "Series", "Content", "StructureSet", "PresentationCreation")
ZONE = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")  # of UTC -1200 to +1400, PS3.3 C.12.1


def repeat_elements(dataset: Dataset, source: Path, names: Iterable[str]) -> None:
    """Give a result the character sets of its source, its `AS_STATED` values and its time zone.

    names: that the result adds
    highdicom must see none of these: it would parse them, and refuse odd values.
    `complete_for_highdicom` has hidden them from it.
    """
    head = header_reading.read_header(source)
    _state_character_sets(dataset, head.dataset, names)
    library = head.library
    for keyword in AS_STATED:
        if keyword in library:
            dataset[keyword] = library[keyword]
    zone = tags.text(head.dataset, "TimezoneOffsetFromUTC")
    if ZONE.fullmatch(zone):  # a result whose source states no zone states none, and has this machine's time
        dataset.TimezoneOffsetFromUTC = zone
        date_result(dataset, time.time())


def date_result(dataset: Dataset, at: float) -> None:
    """Set the dates and times of the making: `at` (s since 1970) in the object's own zone, else in this machine's."""
    moment = _local(at, str(dataset.get("TimezoneOffsetFromUTC") or ""))
    for name in DATES:
        if f"{name}Date" in dataset:
            setattr(dataset, f"{name}Date", moment.strftime("%Y%m%d"))
            setattr(dataset, f"{name}Time", moment.strftime("%H%M%S.%f"))
    for equipment in dataset.get("ContributingEquipmentSequence", [])[-1:]:  # the writer's own stands last
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")


def _state_character_sets(dataset: Dataset, source: DicomDataset, names: Iterable[str]) -> None:
    """State the source's character sets, by which a PACS knows the patient's name, or UTF-8 for names beyond ASCII.

    highdicom refuses some that the standard allows, such as those of Japan and Korea.
    """
    character_sets = tags.words(source, "SpecificCharacterSet")
    if not all(name.isascii() for name in names):
        dataset.SpecificCharacterSet = UTF_8
    elif any(character_sets):
        dataset.SpecificCharacterSet = character_sets[0] if len(character_sets) == 1 else list(character_sets)


def _local(at: float, offset: str) -> datetime:
    """A moment in a zone such as +0130, else in this machine's."""
    if (parts := ZONE.fullmatch(offset)) is None:
        return datetime.fromtimestamp(at, UTC).astimezone()
    beyond = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return datetime.fromtimestamp(at, timezone(-beyond if parts[1] == "-" else beyond))
