"""The regions of structured reports as boxes on the grid of the series that they were drawn on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from isocenter.errors import DatasetError, FormatError, GeometryError, counted
from isocenter.files.dicom import REPORT_CLASSES, Marked, Report, SeriesFiles, bounds, read_header, read_report, text
from isocenter.files.layouts.cases.boxes import Annotation, Drawn, load_boxes
from isocenter.values import BoundingBoxes, Floats, Image, Problem

# In voxels: what is thinner along an axis lies in one voxel of it.
FLAT = 0.1
# In voxels: reports hold numbers of seven digits.
SAME = 1e-3
# A report, and the numbers of its outlines on one image: none where the image is known to hold nothing.
Outlines = tuple[Path, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Reported:
    """The outlines of reports, by the series of images that they lie on.

    of:       {number of the series: outlines of reports on it}
    read:     files that hold regions, or state that there are none
    problems: what could not be understood, or lies on images that are not here
    """

    of: Mapping[int, tuple[Outlines, ...]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    read: frozenset[Path] = frozenset()
    problems: tuple[Problem, ...] = ()


def reported(everything: Sequence[SeriesFiles], images: Sequence[SeriesFiles]) -> Reported:
    """The reports among the files of a folder, with the images that each is about."""
    of: dict[int, list[Outlines]] = defaultdict(list)
    names, known, problems, reports = set[str](), set[Path](), list[Problem](), list[Report]()
    for path in (path for one in everything if one.sop_class in REPORT_CLASSES for path in one.paths):
        try:
            report = read_report(path)
        except FormatError as error:
            known.add(path)
            problems.append(_left_out("error", path, error.problem, error.remedy))
            continue
        if report.marked or report.passed or report.is_whole:
            known.add(path)
            reports.append(report)
    replaced = frozenset[str]().union(*(report.predecessors for report in reports))
    for report in reports:
        path = report.path
        if report.instance in replaced:
            remedy = "To use it, take the later one out of the folder"
            problems.append(_left_out("warning", path, "a later report names it as its predecessor", remedy))
            continue
        names |= {one.name for one in report.marked}
        owners = [_owners(one, report, images) for one in report.marked]
        lost = sum(len(series) != 1 for series in owners)
        drawn: dict[int, list[int]] = defaultdict(list)
        if report.is_whole and not lost:
            drawn |= {n: [] for n, image in enumerate(images) if _refers(report, image)}
        for number, series in enumerate(owners):
            if len(series) == 1:
                drawn[series[0]].append(number)
        for n, numbers in drawn.items():
            of[n].append((path, tuple(numbers)))
        problems += [_left_out("warning", path, one, "Draw a closed outline around it") for one in report.passed]
        if lost:
            what = f"{counted(lost, 'region')} of {len(owners)} on no image series here, or on one of several"
            problems.append(_left_out("warning", path, what, "Put the series that it was drawn on into the folder"))
    outlines = {n: tuple(some) for n, some in of.items()}
    return Reported(outlines, frozenset(names), frozenset(known), tuple(problems))


def boxes_on(
    reports: Sequence[Outlines], called: Mapping[str, str], image: Callable[[], Image]
) -> partial[BoundingBoxes]:
    """A function that reads the boxes of one image."""
    return partial(load_reported, tuple(reports), dict(called), image)


def load_reported(reports: Sequence[Outlines], called: Mapping[str, str], image: Callable[[], Image]) -> BoundingBoxes:
    """The regions of reports on an image: a box for the outlines of a finding; equal ones of several reports are one.

    Raises GeometryError, by file, for another frame of reference, and DatasetError for a box outside the image.
    """
    on = image()
    if on.frames is not None:
        problem = "boxes on an image with frames: the report does not name the frame"
        raise DatasetError(problem, str(reports[0][0]), "Give each moment a series of its own")
    places = _places(on)
    boxes = [
        load_boxes(Annotation(path, tuple(_drawn(path, numbers, on, places))), called, lambda: on)
        for path, numbers in reports
    ]
    corners, names = list[Floats](), list[str]()
    for one in boxes:
        earlier = list(zip(corners, names, strict=True))  # of other reports: in one, each finding is of its own
        for corner, name in zip(one.corners, one.names, strict=True):
            if not any(name == known and np.allclose(corner, other, rtol=0, atol=SAME) for other, known in earlier):
                corners.append(corner)
                names.append(name)
    again = sum(map(len, boxes)) - len(names)
    notes = [note for one in boxes for note in one.notes]
    if again:
        notes.append(f"{counted(again, 'box stands', 'boxes stand')} in several reports and counts once")
    return BoundingBoxes(np.reshape(corners, (-1, 2 * on.geometry.ndim)), tuple(names), notes=tuple(notes))


def _drawn(path: Path, numbers: Sequence[int], on: Image, places: Mapping[tuple[str, int], int]) -> Iterator[Drawn]:
    """A box for each finding of a report that has outlines on this image."""
    marked = read_report(path).marked
    ends: dict[tuple[str, str], list[tuple[Floats, Floats]]] = {}
    for outline in (marked[number] for number in numbers):
        in_mm = outline.points.shape[1] == 3
        edges = _in_mm(outline, on, path) if in_mm else _in_pixels(outline, on, places, path)
        ends.setdefault((outline.tracking, outline.name), []).append(edges)
    for n, ((_, name), parts) in enumerate(ends.items(), start=1):
        low, high = np.min([low for low, _ in parts], axis=0), np.max([high for _, high in parts], axis=0)
        yield Drawn(name, tuple(low.tolist()), tuple(high.tolist()), f"finding {n}")


def _in_pixels(outline: Marked, on: Image, places: Mapping[tuple[str, int], int], path: Path) -> tuple[Floats, Floats]:
    """Edges along x, y[, z]: columns and rows are counted from the corner of the first pixel, as ours are."""
    uid, frame = outline.image
    several = sum(known == uid for known, _ in places) > 1
    place = places.get((uid, (frame or 1) - 1))
    if not any(known == uid for known, _ in places):
        problem = f"marks the image {uid}, which is not a slice of the volume that was read"
        raise DatasetError(problem, str(path), "Put each volume of the series into a folder of its own")
    if place is None or (several and frame is None):
        frames = f"frame {frame}" if frame else "all frames at once"
        raise DatasetError(f"marks {frames} of an image of several frames", str(path), "Name a frame for each outline")
    low, high = outline.bounds
    if on.geometry.is_picture:
        return low, high
    return np.append(low, place), np.append(high, place + 1)


def _in_mm(outline: Marked, on: Image, path: Path) -> tuple[Floats, Floats]:
    """Edges along x, y, z; what is flat along an axis fills the voxel in which it lies."""
    grid = on.geometry
    if grid.ndim != 3 or grid.frame_of_reference != outline.frame_of_reference:
        problem = "marks places in another frame of reference than the image's"
        raise GeometryError(problem, str(path), "Give the image that the report was made on")
    low, high = bounds(outline.graphic, grid.to_index(outline.points) + 0.5)
    flat = high - low < FLAT
    if flat.sum() > 1:
        raise GeometryError("an outline without area", str(path), "Draw a closed outline around the finding")
    voxel = np.floor((low + high) / 2)
    return np.where(flat, voxel, low), np.where(flat, voxel + 1, high)


def _places(image: Image) -> dict[tuple[str, int], int]:
    """{(SOP instance, frame from 0): slice}; 0 of a picture"""
    source = image.source
    if source is None or source.header is None:
        return {}
    slices = [(n, one) for n, one in enumerate(source.header["slices"]) if one is not None and one[2] is None]
    uids = {path: text(read_header(Path(path)).dataset, "SOPInstanceUID") for path in {one[0] for _, one in slices}}
    return {(uids[path], frame): n for n, (path, frame, _) in slices}


def _owners(outline: Marked, report: Report, images: Sequence[SeriesFiles]) -> list[int]:
    """The series on which an outline was drawn, by number; several where it cannot be decided."""
    if outline.points.shape[1] == 3:
        named = [n for n, image in enumerate(images) if image.uid in report.evidence]
        same = [n for n, image in enumerate(images) if image.frame_of_reference == outline.frame_of_reference]
        # Where the frame of reference is another, the named series is refused when it is read.
        return [n for n in same if n in named] or same or named
    uid = outline.image[0]
    series = {name for name, instances in report.evidence.items() if uid in instances}
    candidates = [n for n, image in enumerate(images) if image.uid in series or not series]
    if len(candidates) > 1 or not series:
        return [n for n in candidates if uid in _instances(images[n])]
    return candidates


def _refers(report: Report, image: SeriesFiles) -> bool:
    named = report.evidence.get(image.uid, frozenset())
    return bool(named) and (len(image.paths) > 1 or bool(named & _instances(image)))


def _instances(series: SeriesFiles) -> set[str]:
    return {text(read_header(path).dataset, "SOPInstanceUID") for path in series.paths}


def _left_out(severity: Literal["error", "warning"], path: Path, what: str, remedy: str) -> Problem:
    return Problem(severity, what, (path.name,), "it is left out", remedy)
