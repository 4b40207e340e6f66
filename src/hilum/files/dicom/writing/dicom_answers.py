"""The kinds of DICOM objects that state a result. A new kind is one file beside this one and its line in `ANSWERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hilum import plugins
from hilum.files.dicom import uids
from hilum.values import Array, Finding, Image, Label, Map


class OnePageResult(Protocol):
    """A result on one page."""

    def pixels(self) -> Array:
        """(rows, columns, 3) uint8."""

    def pdf(self) -> bytes:
        """The same as PDF, with the same bytes each time."""


@dataclass(frozen=True)
class EarlierObjects:
    """The objects of an earlier study that a report names.

    images: files of its series; report: on its answer, if any; days: from it to the new study, None where unknown
    """

    images: Sequence[Path]
    report: Path | None = None
    days: float | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """A model's result on one DICOM image, as writers of objects take it.

    algorithm:   the model's name
    label_maps:  (part, (*spatial) values, what they mean) on the image's grid; the part is "" of the first
    findings:    what it states; of a clip that was looked at frame by frame each names its frame
    classes, is_empty: what was looked for in the image, and whether none of it was found
    least_score: the score from which on boxes are among the findings
    limits:      sentences without which the result would be misread
    maps:        {kind: numbers of every voxel on the image's grid}
    segmentations: {SEG of the result: labels of its label map}, once they are written
    earlier:     the study since which the findings called change are stated
    page:        what shows it on one page, when that is asked for
    """

    source: Image
    algorithm: str
    label_maps: Sequence[tuple[str, Array, Sequence[Label]]] = ()
    findings: Sequence[Finding] = ()
    classes: Sequence[str] = ()
    is_empty: bool = False
    least_score: float = 0.0
    limits: Sequence[str] = ()
    maps: Mapping[str, Map] = field(default_factory=dict)
    segmentations: Mapping[Path, Sequence[Label]] = field(default_factory=dict)
    earlier: EarlierObjects | None = None
    page: Callable[[], OnePageResult] | None = None


@dataclass(frozen=True)
class DicomAnswer:
    """A kind of object that states a result.

    name:        of such an object
    target:      "module:function" that writes it; the module is imported when it is first needed
    suits:       whether a result has what the object states
    states:      what that is, in words
    sop_classes: of its objects
    """

    name: str
    target: str
    suits: Callable[[Result], bool]
    states: str
    sop_classes: tuple[str, ...]

    def write(self, result: Result, path: Path) -> Iterator[Path]:
        """Write the objects of a result, and give each one's path as soon as it lies there.

        path: of the case's files, without what ends their names
        Raises FormatError or GeometryError for a source that cannot bear one.
        """
        written: Iterator[Path] = plugins.load_target(self.target)(result, path)
        return written


def _marks_structures(result: Result) -> bool:
    return bool(result.label_maps)


def _has_maps(result: Result) -> bool:
    return bool(result.maps)


def _is_image(result: Result) -> bool:
    return any(one.is_image for one in result.maps.values())


def _reports(result: Result) -> bool:
    return bool(result.findings or result.classes)


def _marks_something(result: Result) -> bool:
    has_box = any(one.box is not None for one in result.findings)
    return has_box or any(bool(mask.any()) for _, mask, _ in result.label_maps)


def _has_page(result: Result) -> bool:
    return result.page is not None and (_marks_structures(result) or _reports(result))


def path_of_object(path: Path, ending: str, part: str = "", number: int = 1) -> Path:
    """The path of one object of a case: its part of several, its ending, and a number from the second one on."""
    names = [path.name, part, ending, str(number) if number > 1 else ""]
    return path.with_name(f"{'_'.join(filter(None, names))}.dcm")


def write_label_maps(result: Result, path: Path, ending: str, write: Callable[..., object]) -> Iterator[Path]:
    """An object for each label map of a result, by a function of map, labels, source and path."""
    for part, mask, labels in result.label_maps:
        target = path_of_object(path, ending, part)
        write(mask, labels, result.source, target, algorithm_name=result.algorithm)
        yield target


HERE = "hilum.files.dicom.writing"
MASKS = "a mask"
ANSWERS: Mapping[str, DicomAnswer] = {
    "seg": DicomAnswer("SEG", f"{HERE}.seg:segmentations", _marks_structures, MASKS, (uids.SEGMENTATION,)),
    "labelmap": DicomAnswer("label map", f"{HERE}.seg:label_maps", _marks_structures, MASKS, (uids.LABEL_MAP,)),
    "rtstruct": DicomAnswer(
        "structure set", f"{HERE}.rtstruct:structure_sets", _marks_structures, MASKS, (uids.STRUCTURE_SET,)
    ),
    "stl": DicomAnswer("surface", f"{HERE}.stl:surface_objects", _marks_structures, MASKS, (uids.ENCAPSULATED_STL,)),
    "pm": DicomAnswer("parametric map", f"{HERE}.pm:parametric_maps", _has_maps, "a map", (uids.PARAMETRIC_MAP,)),
    "series": DicomAnswer("series", f"{HERE}.derived:enhanced_series", _is_image, "an image", uids.DERIVED_SERIES),
    "gsps": DicomAnswer(
        "presentation state", f"{HERE}.gsps:presentations", _marks_something, "a mark", (uids.PRESENTATION,)
    ),
    "sc": DicomAnswer("secondary capture", f"{HERE}.page:captures", _has_page, "a page", (uids.SECONDARY_CAPTURE,)),
    "pdf": DicomAnswer("PDF", f"{HERE}.page:documents", _has_page, "a page", (uids.ENCAPSULATED_PDF,)),
    "sr": DicomAnswer("report", f"{HERE}.sr:reports", _reports, "a finding", uids.REPORT_CLASSES),
}
