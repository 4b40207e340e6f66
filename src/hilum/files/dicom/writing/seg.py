"""A label map as DICOM SEG, PS3.3 A.51, on the series that it was made from, by segments or as one label map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from hilum.errors import FormatError, GeometryError
from hilum.files.dicom.dictionary_codes import TISSUE
from hilum.files.dicom.writing import dicom_answers, new_object, source_planes
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.files.dicom.writing.new_object import ReadingPerson
from hilum.files.dicom.writing.source_planes import SourceSlice
from hilum.values import Code, Image, Label

STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
MOST_FRAMES = 3000
ABNORMAL = Code("SCT", "49755003", "Morphologically Abnormal Structure")
# PS3.16 CID 7159 (lesion segmentation types) and its neighbours: what is no structure but something wrong with one.
LESIONS = frozenset(("108369006", "86049000", "14799000", "4147007", "52988006", "27925004", "79654002", "6574001"))

AUTOMATIC, SEMIAUTOMATIC = SegmentAlgorithmTypeValues.AUTOMATIC, SegmentAlgorithmTypeValues.SEMIAUTOMATIC

Mask = NDArray[Any]


def segmentations(result: Result, path: Path) -> Iterator[Path]:
    """A binary segmentation for each label map of a result."""
    return dicom_answers.write_label_maps(result, path, "", write_segmentation)


def write_segmentation(
    label_map: Mask,
    labels: Sequence[Label],
    source: Image,
    path: Path,
    *,
    algorithm_name: str,
    description: str = "Segmentation",
    series_number: int = 100,
    form: SegmentationTypeValues = SegmentationTypeValues.BINARY,
    reader: ReadingPerson | None = None,
    overwrite: bool = False,
) -> None:
    """Write a label map on the source's own grid, as the same patient, study and frame of reference.

    label_map: (*spatial), of a clip (frames, *spatial), of values that `labels` describe, 0 is background
    form: BINARY has a frame a segment and plane, LABELMAP one a plane
    reader: who has corrected what the algorithm made
    Segments are numbered 1, 2, ... in the order of the labels' values, as the standard demands, and keep name, colour
    and code; without a code they are coded as tissue. Only planes with a segment become frames.
    Raises GeometryError where the map does not lie on the source's planes, FormatError for values without label and
    for a source on which no SEG can be written.
    """
    where = str(path)
    labels = [label for label in labels if label.value != 0]  # background is no segment
    numbered = _number_segments(np.asarray(label_map), labels, where)
    is_clip = source.frames is not None and source.geometry.is_picture
    shape = (source.frames, *source.geometry.shape) if is_clip else source.geometry.shape
    if numbered.shape != shape:
        raise GeometryError(f"a map of {numbered.shape} on {shape} voxels", where, "Give the same grid")
    slices = source_planes.source_slices(source, where)
    source_planes.refuse_placeless(slices, source, where)
    segments = [
        _segment(n + 1, label, algorithm_name, version("hilum"), AUTOMATIC if reader is None else SEMIAUTOMATIC)
        for n, label in enumerate(sorted(labels, key=lambda label: label.value))
    ]
    places: Any
    if is_clip:
        slices = _marked_frames(numbered, slices, where)
        planes, places = numbered[slices[0].number][None], {}  # of the others `_add_frames` makes frames
    elif source.geometry.is_picture:
        planes, places = numbered[None], {}
    else:
        slices = source_planes.marked_slices(numbered, slices, where)
        planes = np.stack([numbered[:, :, part.number].T for part in slices])
        places = source_planes.placing_arguments(slices, source.geometry)
    with new_object.make_on_source("SEG", where):
        segmentation = highdicom.seg.Segmentation(
            source_images=source_planes.source_file_headers(slices[:1] if is_clip else slices),
            pixel_array=planes,
            segmentation_type=form,
            segment_descriptions=segments,
            content_label="SEGMENTATION",
            content_description=description[:64],
            content_creator_name=None if reader is None else reader.person_name,
            omit_empty_frames=bool(planes.any()),  # there must be a frame
            **new_object.new_series_arguments(series_number, description),
            **places,
        )
    source_planes.correct_frames(segmentation, slices, places)
    if is_clip:
        _add_frames(segmentation, numbered, slices)
    new_object.save_object(
        segmentation, slices[0].frame.path, [label.name for label in labels], path, overwrite=overwrite
    )


def _marked_frames(numbered: Mask, slices: list[SourceSlice], where: str) -> list[SourceSlice]:
    """The frames of a clip on which something is marked; its first one where nothing is."""
    marked = [one for one in slices if numbered[one.number].any()]
    if len(marked) > MOST_FRAMES:
        problem = f"{len(marked)} frames are marked, and a SEG of at most {MOST_FRAMES} is written"
        raise GeometryError(problem, where, "Use the label map, or give a shorter clip")
    return marked or slices[:1]


def _add_frames(segmentation: Dataset, numbered: Mask, slices: list[SourceSlice]) -> None:
    """Make the frames of a clip's segmentation from its first one, one after the other: highdicom holds all at once."""
    first = segmentation.PerFrameFunctionalGroupsSequence[0]
    is_binary = segmentation.SegmentationType == SegmentationTypeValues.BINARY.value
    shared, packed, held = segmentation.SharedFunctionalGroupsSequence[0], list[bytes](), list[Mask]()
    marked = list[tuple[int, Dataset]]()
    for place, one in enumerate(slices):
        plane = numbered[one.number]
        for number in np.flatnonzero(np.bincount(plane.ravel(), minlength=2)[1:]) + 1 if is_binary else [0]:
            groups = deepcopy(first)
            if is_binary:
                groups.SegmentIdentificationSequence = [Dataset()]
                groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber = int(number)
            marked.append((place, groups))
            held.append(plane == number if is_binary else plane)
            if len(held) == 8:  # of which the bits are whole bytes
                packed.append(_pixel_bytes(held, is_binary=is_binary))
                held = []
    if not marked:
        return
    packed.append(_pixel_bytes(held, is_binary=is_binary))
    if is_binary and "SegmentIdentificationSequence" in shared:
        del shared.SegmentIdentificationSequence
    source_planes.name_clip_frames(segmentation, slices, marked)
    segmentation.PerFrameFunctionalGroupsSequence = [groups for _, groups in marked]
    segmentation.NumberOfFrames = len(marked)
    pixels = b"".join(packed)
    segmentation.PixelData = pixels + b"\0" * (len(pixels) % 2)


def _pixel_bytes(planes: Sequence[Mask], *, is_binary: bool) -> bytes:
    """Planes as they lie in Pixel Data, PS3.5 8.1.1: bits without a gap between frames, or whole numbers."""
    if not planes:
        return b""
    return (
        np.packbits(np.stack(planes).ravel(), bitorder="little").tobytes() if is_binary else np.stack(planes).tobytes()
    )


def _number_segments(label_map: Mask, labels: Sequence[Label], where: str) -> Mask:
    """Label values to segment numbers: 1, 2, ... without a gap."""
    values = sorted(label.value for label in labels)
    if not values or len(set(values)) < len(values) or values[0] <= 0:
        raise FormatError(f"labels with the values {values}", where, "Give each label its own value above 0")
    if label_map.dtype == bool:
        label_map = label_map.astype(np.uint8)  # as an index it would be a mask
    if not np.issubdtype(label_map.dtype, np.integer):
        raise FormatError(f"a label map of {label_map.dtype}", where, "Give whole numbers")
    low, high = int(label_map.min()), int(label_map.max())
    # Tables instead of sorting: a whole-body map has hundreds of millions of voxels.
    present = np.zeros(max(high, values[-1]) + 1, dtype=bool)
    present[label_map if low >= 0 else label_map[label_map >= 0]] = True
    unknown = sorted(set(np.flatnonzero(present).tolist()) - set(values) - {0}) or ([low] if low < 0 else [])
    if unknown:
        raise FormatError(f"the map has the values {unknown[:10]} without a label", where, "Describe each value")
    table = np.zeros(len(present), dtype=np.uint8 if len(values) < 256 else np.uint16)
    table[values] = np.arange(1, len(values) + 1)
    return table[label_map]


def _segment(
    number: int, label: Label, name: str, release: str, how: SegmentAlgorithmTypeValues
) -> highdicom.seg.SegmentDescription:
    kind = label.code or TISSUE
    category = TISSUE if kind == TISSUE else ABNORMAL if kind.value in LESIONS else STRUCTURE
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=(label.name or str(label.value))[:64],  # LO, PS3.5 6.2
        segmented_property_category=_concept(category),
        segmented_property_type=_concept(kind),
        algorithm_type=how,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=name, family=codes.cid7162.ArtificialIntelligence, version=release
        ),
        display_color=CIELabColor.from_rgb(*label.colour) if label.colour else None,
    )


def _concept(code: Code) -> SRCode:
    return SRCode(code.value, code.scheme, code.meaning)


SERIES_NUMBER = 102


def label_maps(result: Result, path: Path) -> Iterator[Path]:
    """An object for each label map of a result."""
    form = SegmentationTypeValues.LABELMAP
    write = partial(write_segmentation, description="Label map", series_number=SERIES_NUMBER, form=form)
    return dicom_answers.write_label_maps(result, path, "labelmap", write)
