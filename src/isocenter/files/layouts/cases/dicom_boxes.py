"""The regions of structured reports as boxes on the grid of the series that they were drawn on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from isocenter.errors import DatasetError, FormatError, GeometryError, counted
from isocenter.files.dicom import Marked, Report, SeriesFiles, text
from isocenter.files.dicom.header import header
from isocenter.files.dicom.reading import sr as dicom_sr
from isocenter.files.layouts.cases.boxes import Annotation, Drawn, load_boxes
from isocenter.values import BoundingBoxes, Floats, Image, Problem

# In voxels: what is thinner along an axis lies in one voxel of it.
FLAT = 0.1
# A report, and which of its outlines are on one image: none where it is known to hold nothing.
Speaks = tuple[Path, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Reported:
    """What reports say about series of images.

    of:       {number of the series: reports that speak of it}
    read:     files that hold regions, or say that there are none
    problems: what could not be understood, or lies on images that are not here
    """

    of: Mapping[int, tuple[Speaks, ...]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    read: frozenset[Path] = frozenset()
    problems: tuple[Problem, ...] = ()


def reported(everything: Sequence[SeriesFiles], images: Sequence[SeriesFiles]) -> Reported:
    """The reports among the files of a folder, and which of its images each speaks of."""
    of: dict[int, list[Speaks]] = defaultdict(list)
    names, known, problems = set[str](), set[Path](), list[Problem]()
    for path in (path for series in everything if series.sop_class in dicom_sr.SOP_CLASSES for path in series.paths):
        try:
            report = dicom_sr.read(path)
        except FormatError as error:
            known.add(path)
            problems.append(_said("error", path, error.problem, error.remedy))
            continue
        if not (report.marked or report.passed or report.is_whole):
            continue
        known.add(path)
        names |= {one.name for one in report.marked}
        owners = [_owners(one, report, images) for one in report.marked]
        lost = sum(len(found) != 1 for found in owners)
        told: dict[int, list[int]] = defaultdict(list)
        if report.is_whole and not lost:
            told |= {n: [] for n, image in enumerate(images) if _refers(report, image)}
        for number, found in enumerate(owners):
            if len(found) == 1:
                told[found[0]].append(number)
        for n, numbers in told.items():
            of[n].append((path, tuple(numbers)))
        problems += [_said("warning", path, one, "Draw a closed outline around it") for one in report.passed]
        if lost:
            what = f"{counted(lost, 'region')} of {len(owners)} on no image series here, or on one of several"
            problems.append(_said("warning", path, what, "Put the series that it was drawn on into the folder"))
    speaks = {n: tuple(some) for n, some in of.items()}
    return Reported(speaks, frozenset(names), frozenset(known), tuple(problems))


def boxes_on(
    reports: Sequence[Speaks], called: Mapping[str, str], image: Callable[[], Image]
) -> partial[BoundingBoxes]:
    """A function that reads the boxes of one image."""
    return partial(load_reported, tuple(reports), dict(called), image)


def load_reported(reports: Sequence[Speaks], called: Mapping[str, str], image: Callable[[], Image]) -> BoundingBoxes:
    """The regions that reports have drawn on an image: one box for the outlines of one finding.

    Raises GeometryError, by file, for another frame of reference, and DatasetError for a box outside the image.
    """
    on = image()
    if on.frames is not None:
        problem = "boxes on an image with frames: which of them they are meant for is lost"
        raise DatasetError(problem, str(reports[0][0]), "Give each moment a series of its own")
    places = _places(on)
    found = [
        load_boxes(Annotation(path, tuple(_drawn(path, numbers, on, places))), called, lambda: on)
        for path, numbers in reports
    ]
    return BoundingBoxes(
        np.concatenate([one.corners for one in found]),
        tuple(name for one in found for name in one.names),
        notes=tuple(note for one in found for note in one.notes),
    )


def _drawn(path: Path, numbers: Sequence[int], on: Image, places: Mapping[tuple[str, int], int]) -> Iterator[Drawn]:
    """A box for each finding of a report that has outlines on this image."""
    marked = dicom_sr.read(path).marked
    ends: dict[tuple[str, str], list[tuple[Floats, Floats]]] = {}
    for one in (marked[number] for number in numbers):
        in_mm = one.points.shape[1] == 3
        found = _in_mm(one, on, path) if in_mm else _in_pixels(one, on, places, path)
        ends.setdefault((one.tracking, one.name), []).append(found)
    for n, ((_, name), parts) in enumerate(ends.items(), start=1):
        low, high = np.min([low for low, _ in parts], axis=0), np.max([high for _, high in parts], axis=0)
        yield Drawn(name, tuple(low.tolist()), tuple(high.tolist()), f"finding {n}")


def _in_pixels(one: Marked, on: Image, places: Mapping[tuple[str, int], int], path: Path) -> tuple[Floats, Floats]:
    """Edges along x, y[, z]: columns and rows are counted from the corner of the first pixel, as ours are."""
    uid, frame = one.image
    several = sum(known == uid for known, _ in places) > 1
    place = places.get((uid, (frame or 1) - 1))
    if not any(known == uid for known, _ in places):
        problem = f"marks the image {uid}, which is no slice of the volume that was read"
        raise DatasetError(problem, str(path), "Put each volume of the series into a folder of its own")
    if place is None or (several and frame is None):
        said = f"frame {frame}" if frame else "all frames at once"
        raise DatasetError(f"marks {said} of an image of several frames", str(path), "Name a frame for each outline")
    low, high = one.bounds
    if on.geometry.ndim == 2:
        return low, high
    return np.append(low, place), np.append(high, place + 1)


def _in_mm(one: Marked, on: Image, path: Path) -> tuple[Floats, Floats]:
    """Edges along x, y, z; what is flat along an axis fills the voxel in which it lies."""
    grid = on.geometry
    if grid.ndim != 3 or grid.frame_of_reference != one.frame_of_reference:
        problem = "marks places in another frame of reference than the image's"
        raise GeometryError(problem, str(path), "Give the image that the report was made on")
    low, high = dicom_sr.bounds(one.graphic, grid.to_index(one.points) + 0.5)
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
    uids = {path: text(header(Path(path)).dataset, "SOPInstanceUID") for path in {one[0] for _, one in slices}}
    return {(uids[path], frame): n for n, (path, frame, _) in slices}


def _owners(one: Marked, report: Report, images: Sequence[SeriesFiles]) -> list[int]:
    """The series on which an outline was drawn, by number; several where it cannot be told."""
    if one.points.shape[1] == 3:
        named = [n for n, image in enumerate(images) if image.uid in report.evidence]
        same = [n for n, image in enumerate(images) if image.frame_of_reference == one.frame_of_reference]
        # Where the frame of reference is another, the series that is named says so when it is read.
        return [n for n in same if n in named] or same or named
    uid = one.image[0]
    series = {name for name, instances in report.evidence.items() if uid in instances}
    candidates = [n for n, image in enumerate(images) if image.uid in series or not series]
    if len(candidates) > 1 or not series:
        return [n for n in candidates if uid in _instances(images[n])]
    return candidates


def _refers(report: Report, image: SeriesFiles) -> bool:
    named = report.evidence.get(image.uid, frozenset())
    return bool(named) and (len(image.paths) > 1 or bool(named & _instances(image)))


def _instances(series: SeriesFiles) -> set[str]:
    return {text(header(path).dataset, "SOPInstanceUID") for path in series.paths}


def _said(severity: str, path: Path, what: str, remedy: str) -> Problem:
    assert severity in ("error", "warning")  # noqa: S101 - as called above
    return Problem("error" if severity == "error" else "warning", what, (path.name,), "it is left out", remedy)
