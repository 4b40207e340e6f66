"""Outlines of a result as Grayscale Softcopy Presentation State, PS3.3 A.33.1, which viewers show over its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import highdicom
import numpy as np
from highdicom import pr
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.writing import dicom_answers, mask_outlines, new_object, series_writing, source_planes
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.files.dicom.writing.source_planes import SourceSlice
from hilum.values import Array, Finding

SERIES_NUMBER = 106
# Of a line: its coordinates have at most 65534 bytes in Explicit VR. PS3.5 7.1.2
MOST_POINTS = 8000
# Groups of the greys of frames, with their elements. PS3.3 C.7.6.16.2.9 and C.7.6.16.2.10
GREYS = {
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"),
}
Colour = tuple[int, int, int] | None


@dataclass(frozen=True, eq=False)
class _Mark:
    """Lines on one slice or frame, with their text and the name of their layer.

    lines: (points, 2) columns and rows in edges of pixels
    """

    name: str
    text: str
    number: int
    lines: Sequence[Array]


def presentations(result: Result, path: Path) -> Iterator[Path]:
    """The presentation state of a result.

    Raises FormatError for an image in colour, and for one whose frames have no rescaling in common; GeometryError for
    marks on slices that were filled in.
    """
    target = dicom_answers.path_of_object(path, "gsps")
    where, source = str(target), result.source
    slices = source_planes.source_slices(source, where)
    for _, mask, _ in () if source.geometry.is_picture else result.label_maps:
        source_planes.marked_slices(mask, slices, where)  # which refuses marks where there is no image
    by_number = {part.number: part for part in slices}
    marks = [one for one in _marks(result) if one.number in by_number]
    shown = [by_number[number] for number in sorted({one.number for one in marks})]
    if not shown:
        raise FormatError("nothing is marked on a slice that the image has", where, "Ask for seg and sr")
    heads = _grey(shown, where)
    by_uid = {str(head.SOPInstanceUID): head for head in heads}
    images = {part.number: by_uid[_instance(part)] for part in shown}
    with new_object.make_on_source("presentation state", where):
        shape = "INVERSE" if heads[0].PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"
        layers = _layers(result, dict.fromkeys(one.name for one in marks))
        presentation = pr.GrayscaleSoftcopyPresentationState(
            referenced_images=heads,
            content_label="FINDINGS",
            content_description="Outlines",
            graphic_layers=list(layers.values()),
            graphic_annotations=[
                _annotation(one, by_number[one.number], images[one.number], layers[one.name]) for one in marks
            ],
            presentation_lut_transformation=highdicom.PresentationLUTTransformation(shape),
            **new_object.new_series_arguments(SERIES_NUMBER, "Outlines"),
        )
        presentation.Laterality = None
        _state_aspect(presentation, heads[0], shown[0])
    new_object.save_object(presentation, slices[0].frame.path, [one.text for one in marks], target, overwrite=False)
    yield target


def _grey(shown: Sequence[SourceSlice], where: str) -> Sequence[Dataset]:
    """The headers of the images on which something is marked, if a presentation of their greys can be stated."""
    heads = source_planes.source_file_headers(list(shown))
    paths = list(dict.fromkeys(part.frame.path for part in shown))
    if len(heads) < len(paths) and "NumberOfFrames" not in heads[0]:  # a clip of which each frame is a file
        heads = [source_planes.complete_for_highdicom(header_reading.read_header(path).library) for path in paths]
    if any(str(head.get("PhotometricInterpretation")) not in ("MONOCHROME1", "MONOCHROME2") for head in heads):
        raise FormatError("the image is in colour", where, "Ask for seg, sr or sc instead")
    for head in heads:
        _drop_empty_windows(head)
    if "NumberOfFrames" not in heads[0]:
        return heads
    head = source_planes.complete_for_highdicom(
        header_reading.read_header(shown[0].frame.path).library
    )  # with the greys of its frames, which heads[0] lacks
    if len(paths) > 1:
        raise FormatError("the image is in several files of many frames", where, "Ask for seg, sr or sc instead")
    if "PerFrameFunctionalGroupsSequence" not in head:
        _describe_frames(head)
    _share_rescaling(head, where)
    return [head]


def _describe_frames(head: Dataset) -> None:
    """State the greys of all frames, as a clip's header has them, in the groups where highdicom looks for them."""
    shared = Dataset()
    for group, names in GREYS.items():
        stated = Dataset({head[name].tag: head[name] for name in names if name in head})
        if "RescaleSlope" in stated and "RescaleType" not in stated:
            stated.RescaleType = "US"  # unspecified, PS3.3 C.11.1.1.2: highdicom asks for a type
        if len(stated):
            setattr(shared, group, [stated])
    head.SharedFunctionalGroupsSequence = [shared]
    head.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(int(head.NumberOfFrames))]


def _state_aspect(presentation: Dataset, head: Dataset, part: SourceSlice) -> None:
    """State the shape of pixels in place of highdicom's squares: their size, else their ratio. PS3.3 C.10.4"""
    spacing = None if part.frame.plane is None else part.frame.plane.spacing
    spacing, ratio = spacing or head.get("PixelSpacing"), head.get("PixelAspectRatio")
    if spacing is None and (detector := head.get("ImagerPixelSpacing")) is not None:  # no size in the patient
        ratio = Fraction(float(detector[0]) / float(detector[1])).limit_denominator(1000).as_integer_ratio()
    for area in presentation.DisplayedAreaSelectionSequence:
        if spacing is not None:
            del area.PresentationPixelAspectRatio
            area.PresentationPixelSpacing = series_writing.decimal_strings(spacing)
        elif ratio is not None:
            area.PresentationPixelAspectRatio = list(ratio)


def _drop_empty_windows(head: Dataset) -> None:
    """Without windows of no width, which show nothing, a viewer chooses one. PS3.3 C.11.2.1.2"""
    widths = head.get("WindowWidth")
    if widths is None or all(width > 0 for width in np.atleast_1d(widths)):
        return
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        if keyword in head:
            del head[keyword]


def _share_rescaling(head: Dataset, where: str) -> None:
    """State the rescaling of all frames once: a presentation state has one for all. PS3.3 C.11.1"""
    groups = [
        frame_group.get("PixelValueTransformationSequence") for frame_group in head.PerFrameFunctionalGroupsSequence
    ]
    if not any(groups):
        return
    groups_as_text = {str(frame_group[0].to_json_dict()) if frame_group else "" for frame_group in groups}
    if len(groups_as_text) > 1:
        problem = "the frames of the image have different rescalings, and a presentation state has one for all"
        raise FormatError(problem, where, "Ask for seg, sr or sc instead")
    head.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = groups[0]
    for frame_group in head.PerFrameFunctionalGroupsSequence:
        del frame_group.PixelValueTransformationSequence


def _marks(result: Result) -> Iterator[_Mark]:
    """The outlines of each structure and box, slice by slice, or frame by frame."""
    geometry = result.source.geometry
    for _, mask, labels in result.label_maps:
        # (slices, rows, columns), each slice in one piece: all are looked through for each label
        planes = np.ascontiguousarray(mask.T)
        if geometry.is_picture:
            planes = mask.reshape(-1, *geometry.shape)  # of a clip its frames
        for label in (one for one in labels if one.value):
            words = _structure_text(label.name, label.value, result.findings)
            for number, plane in enumerate(planes):
                rings = [
                    np.concatenate([ring, ring[:1]]) for ring in mask_outlines.trace_outlines(plane == label.value)
                ]
                if not rings:
                    continue
                yield _Mark(label.name, words, number, [line[:, ::-1] for ring in rings for line in _pieces(ring)])
    for boxed in (finding for finding in result.findings if finding.box is not None):
        (x0, y0), (x1, y1), through = source_planes.box_in_slices(np.asarray(boxed.value, dtype=np.float64), geometry)
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
        for number in through if boxed.frame is None else (boxed.frame,):
            yield _Mark(boxed.concept, _box_text(boxed), number, [corners])


def _pieces(ring: Array) -> list[Array]:
    """A closed line in pieces that an element holds, each from where the one before ends."""
    return [ring[start : start + MOST_POINTS] for start in range(0, max(1, len(ring) - 1), MOST_POINTS - 1)]


def _structure_text(name: str, value: int, findings: Sequence[Finding]) -> str:
    """The name of a structure and its size."""
    of_label = [one for one in findings if one.label == value and one.concept == name]
    sizes = [f"{one.value:.3g} {one.unit}" for one in of_label[:1] if isinstance(one.value, int | float)]
    return " ".join([name, *sizes])


def _box_text(finding: Finding) -> str:
    """The class of a box and its probability."""
    if finding.probability is None:
        return finding.concept
    return f"{finding.concept} {100 * finding.probability:.3g} %{'' if finding.calibrated else ', uncalibrated'}"


def _layers(result: Result, names: Mapping[str, None]) -> dict[str, pr.GraphicLayer]:
    """{name of what is marked: its layer}, in its own colour where it has one."""
    colours = defaultdict[str, Colour](lambda: None)
    colours.update({label.name: label.colour for _, _, labels in result.label_maps for label in labels})
    layers = {}
    for number, name in enumerate(names, start=1):
        colour = colours[name]
        colour_value = None if colour is None else CIELabColor.from_rgb(*colour)
        layers[name] = pr.GraphicLayer(f"MARK {number}", number, name[:64], colour_value)
    return layers


def _instance(part: SourceSlice) -> str:
    """The UID of the object that holds a slice."""
    return tags.text(header_reading.read_header(part.frame.path).dataset, "SOPInstanceUID")


def _annotation(mark: _Mark, part: SourceSlice, image: Dataset, layer: pr.GraphicLayer) -> pr.GraphicAnnotation:
    """The lines of a mark on its image, and its text at its upper right."""
    points = np.concatenate(mark.lines)
    anchor = float(points[:, 0].max()), float(points[:, 1].min())
    return pr.GraphicAnnotation(
        [image],
        layer,
        referenced_frame_number=part.frame.number + 1 if "NumberOfFrames" in image else None,
        graphic_objects=[pr.GraphicObject("POLYLINE", line.astype(np.float64), "PIXEL") for line in mark.lines],
        text_objects=[pr.TextObject(mark.text[:1024], "PIXEL", anchor_point=anchor, anchor_point_visible=False)],
    )
