"""Regions and statements in DICOM structured reports: measurement reports, PS3.16 TID 1500, and CAD, TID 4000 ff.

A region is an outline in pixels of an image (SCOORD) or in mm of a frame of reference (SCOORD3D), PS3.3 C.18.6 and
C.18.9. Lengths, points and references to segments are no regions; they are passed over and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.errors import FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.slice_geometry import LPS_TO_RAS
from hilum.files.dicom.uids import CAD, REPORT_CLASSES
from hilum.values import Floats

# Concepts by their values, which no two schemes share.
REPORT, GROUP, IMAGE_REGION, VOLUME_SURFACE = "126000", "125007", "111030", "121231"
CAD_FINDING, CAD_OUTLINE, RENDERING, NOT_SHOWN = "111059", "111041", "111056", "111152"
FINDING, CATEGORY, TRACKING, TRACKING_IDENTIFIER = "121071", "276214006", "112040", "112039"
SEGMENTS = ("121191", "121214")  # Referenced Segment, and Segmentation Frame
# An outline from which an area was inferred is one of a region, as some viewers write it: Area, Area of defined region.
AREAS = frozenset({"42798000", "G-A166", "131184002", "G-A16A"})
# In percent: Certainty of Finding, Probability of cancer, Probability.
SCORES = ("111012", "111047", "122157")
# How far the ends of an interval lie from a measured value, PS3.16 TID 310.
BELOW, ABOVE = "371885007", "371886008"
# The finding of a report that finds nothing.
NOT_DETECTED_CODE = "260415000"
# The images of the request, and others that were used, PS3.3 C.17.2.3.
EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
# {value type: axes of its points}
COORDINATES = {"SCOORD": 2, "SCOORD3D": 3}
PLACED = frozenset({*COORDINATES, "IMAGE", "COMPOSITE", "WAVEFORM", "TCOORD"})
# Points that each kind of graphic has, of outlines at least; other kinds bound nothing. PS3.3 C.18.6.1.2 and C.18.9.1.2
FIXED = {"CIRCLE": 2, "ELLIPSE": 4, "ELLIPSOID": 6}
FEWEST = {**FIXED, "POLYLINE": 3, "POLYGON": 3}
UNNAMED = "finding"


@dataclass(frozen=True, eq=False)
class MarkedRegion:
    """One outline of a finding.

    name:     the meaning of the finding's code, else that of its category, else "finding"
    points:   (n, 2) column and row, from the corner of the first pixel; or (n, 3) in RAS+ mm
    tracking: equal for the outlines of one finding
    image:    the SOP instance in which pixels are counted, and its frame from 1; empty where points are in mm
    score:    0..1, where the report states the certainty of its finding
    """

    name: str
    graphic: str
    points: Floats
    tracking: str
    image: tuple[str, int | None] = ("", None)
    frame_of_reference: str = ""
    score: float | None = None

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """(start, end) along each axis of its own points."""
        return graphic_bounds(self.graphic, self.points)


@dataclass(frozen=True)
class Statement:
    """One value that a measurement group states.

    answer:    identifier of its group
    finding:   the meaning of the finding of the group; "finding" where it names none
    concept:   the meaning of the value's name
    value:     a number in its unit, or the meaning of a code
    low, high: ends of the interval of a number, where they are stated
    segment:   (SOP instance of a segmentation, segment) that the group is about
    """

    answer: str
    finding: str
    concept: str
    value: float | str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    segment: tuple[str, int] | None = None


@dataclass(frozen=True, eq=False)
class MeasurementReport:
    """The outlines of a report, what it states, and the images that it refers to.

    evidence: {series UID: SOP instances} that it refers to
    passed:   what marks a place and bounds none, in words
    is_whole: whether an image that it refers to and marks nothing on is known to hold nothing
    instance, predecessors: its SOP instance, and those of reports whose content it holds
    """

    path: Path
    marked: tuple[MarkedRegion, ...]
    evidence: Mapping[str, frozenset[str]]
    stated: tuple[Statement, ...] = ()
    passed: tuple[str, ...] = ()
    is_whole: bool = False
    instance: str = ""
    predecessors: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class _Node:
    """A content item in its tree; place: its identifier, PS3.3 C.17.3.2.5"""

    item: DicomDataset
    place: tuple[int, ...]
    above: _Node | None

    @property
    def concept(self) -> str:
        """The value of its concept name's code."""
        return _value(tags.first_item(self.item, "ConceptNameCodeSequence"))

    @property
    def children(self) -> Iterator[_Node]:
        """The items that it contains."""
        for n, child in enumerate(tags.items(self.item, "ContentSequence"), start=1):
            yield _Node(child, (*self.place, n), self)

    def walk(self) -> Iterator[_Node]:
        """Itself and all items below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def read_report(path: Path | str) -> MeasurementReport:
    """The regions of a report.

    Raises FormatError for what is no report with coordinates, and for coordinates that are damaged.
    """
    head, where = header_reading.read_header(Path(path)), str(path)
    if head.sop_class not in REPORT_CLASSES:
        raise FormatError("is not a structured report with coordinates", where, "Give a measurement or CAD report")
    try:
        nodes = {node.place: node for node in _Node(head.dataset, (1,), None).walk()}
    except RecursionError as error:
        raise FormatError("its items are nested too deeply", where, "The file is damaged: get it again") from error
    marked, passed, digests = list[MarkedRegion](), Counter[str](), set[bytes]()
    for node in nodes.values():
        group = _group(node)
        if group is None or not _is_region(node) or _is_hidden(group):
            continue
        outline, reason = _outline(node, group, nodes, where)
        if outline is None:
            passed[reason] += 1
        elif (same := _same(outline)) not in digests:
            digests.add(same)
            marked.append(outline)
    groups = [node for node in nodes.values() if node.concept in (GROUP, CAD_FINDING)]
    others = [group for group in groups if not _is_none(group)]
    # Beside a group that states "not detected", those that point at nothing say something of the whole image.
    others = [group for group in others if len(others) == len(groups) or _is_placed(group)]
    measures = nodes[1,].concept == REPORT or head.sop_class in CAD
    return MeasurementReport(
        Path(path),
        tuple(marked),
        _references(head.dataset, *EVIDENCE),
        tuple(one for node in nodes.values() if node.concept == GROUP for one in _statements(node, where)),
        tuple(f"{errors.count_phrase(count, 'outline')}: {what}" for what, count in sorted(passed.items())),
        measures and not passed and (bool(marked) or not others),
        tags.text(head.dataset, "SOPInstanceUID"),
        frozenset[str]().union(*_references(head.dataset, "PredecessorDocumentsSequence").values()),
    )


def graphic_bounds(graphic: str, points: Floats) -> tuple[Floats, Floats]:
    """(start, end) of a graphic along each axis of its points, (n, axes): on any grid, oblique or sheared.

    An ellipse or ellipsoid is given by the ends of its axes; a circle by its centre and a point on it.
    """
    if graphic not in FIXED:
        return points.min(axis=0), points.max(axis=0)
    if FIXED[graphic] == 2:
        radius = np.linalg.norm(points[1] - points[0])
        return points[0] - radius, points[0] + radius
    # Half axes of an ellipse stay conjugate under any affine map, and so bound it.
    half = np.sqrt((((points[1::2] - points[::2]) / 2) ** 2).sum(axis=0))
    centre = points.mean(axis=0)
    return centre - half, centre + half


def _group(node: _Node) -> _Node | None:
    """The measurement group or the CAD device's finding to which the item belongs."""
    while node.above is not None:
        node = node.above
        if node.concept in (GROUP, CAD_FINDING):
            return node
    return None


def _is_region(node: _Node) -> bool:
    if tags.text(node.item, "ValueType") not in COORDINATES:
        return False
    above = node.above
    inferred = above is not None and tags.text(above.item, "ValueType") == "NUM" and above.concept in AREAS
    return inferred or node.concept in (IMAGE_REGION, VOLUME_SURFACE, CAD_OUTLINE)


def _is_hidden(group: _Node) -> bool:
    """Whether a CAD device has found it and decided not to show it."""
    return any(_code_of(child) == NOT_SHOWN for child in group.children if child.concept == RENDERING)


def _is_none(group: _Node) -> bool:
    """Whether the group states that nothing was detected."""
    return any(_code_of(child) == NOT_DETECTED_CODE for child in group.children if child.concept == FINDING)


def _outline(
    node: _Node, group: _Node, nodes: Mapping[tuple[int, ...], _Node], where: str
) -> tuple[MarkedRegion | None, str]:
    """(the outline, else None; why it is none)."""
    graphic, axes = tags.text(node.item, "GraphicType"), COORDINATES[tags.text(node.item, "ValueType")]
    if graphic not in FEWEST:
        return None, f"a {graphic.lower() or 'graphic without type'} bounds no region"
    data = tags.numbers(node.item, "GraphicData", where)
    if data is None or len(data) % axes or len(data) != axes * FIXED.get(graphic, len(data) // axes):
        problem = f"a {graphic} of {len(data or ())} numbers"
        raise FormatError(problem, where, "Get the report again")
    points = np.reshape(data, (-1, axes))
    if len(np.unique(points, axis=0)) < FEWEST[graphic]:
        return None, f"a {graphic.lower()} of fewer points than {FEWEST[graphic]} bounds no region"
    image = ("", None) if axes == 3 else _image(node, nodes)
    if image is None:
        return None, "it refers to no image"
    outline = MarkedRegion(
        _finding(group),
        graphic,
        points @ LPS_TO_RAS if axes == 3 else points,
        next((tags.text(one.item, "UID") for one in group.children if one.concept == TRACKING), "") or str(group.place),
        image,
        tags.text(node.item, "ReferencedFrameOfReferenceUID"),
        _score(group, where),
    )
    return outline, ""


def _finding(group: _Node) -> str:
    """The name of what a group describes: of a CAD device its finding, else the group's finding, else its category."""
    named = [group] if group.concept == CAD_FINDING else []
    for concept in (FINDING, CATEGORY):
        named += [child for child in group.children if child.concept == concept]
    for node in named:
        code = tags.first_item(node.item, "ConceptCodeSequence")
        meaning = "" if code is None else tags.text(code, "CodeMeaning")
        if meaning:
            return meaning
    return UNNAMED


def _score(group: _Node, where: str) -> float | None:
    percents = (_value_of(child, where) for child in group.children if child.concept in SCORES)
    return next((percent / 100 for percent in percents if percent is not None), None)


def _statements(group: _Node, where: str) -> Iterator[Statement]:
    """Numbers and codes of a measurement group."""
    children = list(group.children)
    answer = next((tags.text(one.item, "TextValue") for one in children if one.concept == TRACKING_IDENTIFIER), "")
    referred = [tags.first_item(one.item, "ReferencedSOPSequence") for one in children if one.concept in SEGMENTS]
    segment = next((_segment(one, where) for one in referred if one is not None), None)
    for child in children:
        name = tags.first_item(child.item, "ConceptNameCodeSequence")
        concept = "" if name is None else tags.text(name, "CodeMeaning")
        kind, shared = tags.text(child.item, "ValueType"), (answer, _finding(group), concept)
        coded = tags.first_item(child.item, "ConceptCodeSequence")
        if kind == "CODE" and coded is not None and child.concept not in (FINDING, CATEGORY):
            yield Statement(*shared, tags.text(coded, "CodeMeaning"), segment=segment)
        elif kind == "NUM" and (value := _value_of(child, where)) is not None:
            ends = {below.concept: _value_of(below, where) for below in child.children}
            low, high = ends.get(BELOW), ends.get(ABOVE)
            low, high = None if low is None else value - low, None if high is None else value + high
            yield Statement(*shared, value, _unit(child), low, high, segment)


def _segment(reference: DicomDataset, where: str) -> tuple[str, int] | None:
    number = tags.whole_number(reference, "ReferencedSegmentNumber", where)
    return None if number is None else (tags.text(reference, "ReferencedSOPInstanceUID"), number)


def _value_of(node: _Node, where: str) -> float | None:
    measured = tags.first_item(node.item, "MeasuredValueSequence")
    return None if measured is None else tags.single_number(measured, "NumericValue", where)


def _unit(node: _Node) -> str:
    """The meaning of a number's unit."""
    measured = tags.first_item(node.item, "MeasuredValueSequence")
    unit = None if measured is None else tags.first_item(measured, "MeasurementUnitsCodeSequence")
    return "" if unit is None else tags.text(unit, "CodeMeaning")


def _image(node: _Node, nodes: Mapping[tuple[int, ...], _Node]) -> tuple[str, int | None] | None:
    """(SOP instance, frame from 1) in which an outline lies: an item below it, or one that it points at."""
    for child in node.children:
        target = tags.words(child.item, "ReferencedContentItemIdentifier")
        path = tuple(int(n) for n in target if n.isdecimal())
        meant = nodes.get(path, child) if target else child
        named = tags.first_item(meant.item, "ReferencedSOPSequence")
        if named is not None and tags.text(named, "ReferencedSOPInstanceUID"):
            frames = tags.words(named, "ReferencedFrameNumber") or (tags.text(named, "ReferencedFrameNumber"),)
            return tags.text(named, "ReferencedSOPInstanceUID"), int(frames[0]) if frames[0].isdecimal() else None
    return None


def _same(marked: MarkedRegion) -> bytes:
    """Equal for an outline that stands in a group twice: as its region, and where an area was inferred from it."""
    return repr((marked.tracking, marked.image, marked.frame_of_reference, marked.points.tolist())).encode()


def _references(dataset: DicomDataset, *keywords: str) -> dict[str, frozenset[str]]:
    """{series UID: SOP instances} of hierarchical references, PS3.3 10.2."""
    referred: dict[str, frozenset[str]] = {}
    for study in (study for keyword in keywords for study in tags.items(dataset, keyword)):
        for series in tags.items(study, "ReferencedSeriesSequence"):
            uid, named = tags.text(series, "SeriesInstanceUID"), tags.items(series, "ReferencedSOPSequence")
            instances = {tags.text(one, "ReferencedSOPInstanceUID") for one in named}
            referred[uid] = referred.get(uid, frozenset()) | instances
    return referred


def _is_placed(group: _Node) -> bool:
    """Whether the group points at a place, or at images or segments in which it has one."""
    return any(tags.text(child.item, "ValueType") in PLACED for child in group.walk())


def _code_of(node: _Node) -> str:
    return _value(tags.first_item(node.item, "ConceptCodeSequence"))


def _value(code: DicomDataset | None) -> str:
    """The value of a code, which is kept elsewhere where it is long: PS3.3 8.1."""
    return "" if code is None else tags.text(code, "CodeValue") or tags.text(code, "LongCodeValue")
