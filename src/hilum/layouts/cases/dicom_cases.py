"""A folder of DICOM: each image series a case, of radiographs each image.

Segmentations and structure sets that refer to it are its masks, the regions of structured reports its boxes.

Patients are pseudonyms made of the identifiers in the files, so that no identifier leaves them. Cases are called by
patient, modality and number of the series: a description is free text, in which people write names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, FormatError, GeometryError
from hilum.files import modality_words, patient_names
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import dicom_reading, series_survey, sr_reading
from hilum.files.dicom.reading.picture_scale import PROJECTIONS
from hilum.files.dicom.reading.series_survey import CONTOURED, SeriesFiles, SeriesSurvey
from hilum.files.dicom.reading.sr_reading import MarkedRegion, MeasurementReport
from hilum.files.dicom.uids import REPORT_CLASSES
from hilum.files.format_options import ReadOptions
from hilum.files.storage import hashing
from hilum.layouts import layout
from hilum.layouts.cases import (
    annotated_boxes,
    cell_loading,
    class_labels,
    dataset_folder,
    dicom_exams,
    dicom_masks,
    mask_pairs,
    object_classes,
)
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.names import LABEL_NAME, MASK_NAME, MASK_SUFFIX
from hilum.layouts.layout import (
    DESCRIPTION,
    PSEUDONYMS,
    AnnotationNames,
    DatasetOptions,
    Problems,
    Reading,
    References,
)
from hilum.values import BoundingBoxes, CaseRow, Cell, Floats, Image, Label, Problem, grouping

Maps = Mapping[str, Sequence[Path]]  # of structures by their names, "" where none is stated
# A code such as MR, PS3.3 C.7.3.1.1.1.
MODALITY = re.compile(r"[A-Z]{2,10}")
# In voxels: what is thinner along an axis lies in one voxel of it.
FLAT = 0.1
# In voxels: reports hold numbers of seven digits.
SAME = 1e-3
# A report, and the numbers of its outlines on one image: none where the image is known to hold nothing.
Outlines = tuple[Path, tuple[int, ...]]


def read_dicom(folder: Folder, options: DatasetOptions) -> Reading:
    """The series, separated by their headers and never by folders or file names."""
    is_directory = folder.is_file and folder.root.name.upper() == "DICOMDIR"
    if folder.is_file and not is_directory:
        return _one_file(folder, options)
    seen = series_survey.survey_folder(folder.root)
    localizers = _localizers(seen.series)
    images_of_cases = {one.paths for one in seen.series if one.is_image} - {one.paths for one in localizers}
    parts = [part for one in seen.series if one.paths in images_of_cases for part in _split_images(one, seen.rivals)]
    parts, people = _with_people_by_names(parts, folder.root.parent if folder.is_file else folder.root)
    images = [series for series, _ in parts]
    # For single objects --labels gives the names of classes; it does not choose segments.
    are_objects = object_classes.OBJECT_MAPS in options.kinds
    contoured = dicom_masks.survey_contoured_objects(
        seen.series, images, replace(options, labels=None) if are_objects else options
    )
    maps, lonely = _label_maps(folder, images)
    names = series_survey.unique_names([_case_name(series, options) + ending for series, ending in parts])
    stated = [one for own in maps.values() for one in own] if any(len(own) > 1 for own in maps.values()) else []
    structures = mask_pairs.structure_labels(stated, folder, options)
    labels = contoured.labels
    if maps and not contoured.of:
        labels = tuple(structures.values()) or class_labels.mask_labels(folder, options)
    partly = [one.paths for one in images if one.paths in maps and not structures.keys() <= maps[one.paths].keys()]
    reports = _gather_reports(seen.series, images) if options.references else ReportedOutlines()
    segment_classes = {dicom_masks.class_of_segment(label.name) for label in contoured.labels} if are_objects else set()
    object_labels, called_objects = class_labels.name_classes(filter(None, segment_classes), folder, options)
    classes, called = class_labels.name_classes(reports.names, folder, options, declare=not (contoured.of or maps))
    cells_of = dicom_masks.objects_on if are_objects else dicom_masks.masks_on
    modality, made = modality_words.modality_word(options.modality), list[CaseRow]()
    for n, (name, one) in enumerate(zip(names, images, strict=True)):
        own = contoured.of.get(one.paths, ())
        references: References = {**(cells_of(own) if own else _of_maps(maps.get(one.paths, {}), structures))}
        made.append(_case_row(name, one, references | _of_reports(reports.of.get(n, ())), modality))
    rows = tuple(made)
    rows, exam_problems = dicom_exams.join_exams(rows) if options.exams else (rows, ())
    named = {name: one.paths for name, one in zip(names, images, strict=True)}
    studies, series = {one.study for one in images}, {one.uid for one in images}
    return Reading(
        rows,
        how=f"DICOM, {len(series)} image series in {errors.count_phrase(len(studies), 'study', 'studies')}",
        classes={
            "mask": () if are_objects else labels,
            "boxes": classes if reports.names else (),
            object_classes.OBJECT_MAPS: object_labels if segment_classes else (),
        },
        annotation_names=AnnotationNames({**called, **called_objects}) if reports.names or called_objects else None,
        modality=modality_words.common_modality([series.modality for series in images]),
        patients=PSEUDONYMS,
        channels=tuple(sorted({view for row in rows for view in row.images})) if options.exams else (),
        problems=(
            *exam_problems,
            *map(_damage_problem, seen.damaged),
            *_copy_warning(seen.copies),
            *_mixed_study_warning(seen, rows),
            *_planning_only(localizers, options),
            *contoured.problems,
            *dicom_masks.unlike_map_warning([name for name, paths in named.items() if paths in contoured.unlike]),
            *_lonely(lonely),
            *mask_pairs.missing_structure_problem([n for n, paths in named.items() if paths in partly], structures),
            *reports.problems,
            *_without_image(seen.series, reports.read),
            *(_nobodys(images, people) if options.references else ()),
        ),
    )


def load_series(paths: tuple[Path, ...], options: ReadOptions, modality: str | None = None) -> Image:
    """The one volume of a series.

    Raises FormatError where it holds several on different grids.
    """
    volumes = dicom_reading.read_series(paths, options)
    if len(volumes) != 1:
        problem = f"the series holds {len(volumes)} volumes on different grids: {', '.join(volumes)}"
        raise FormatError(problem, str(paths[0].parent), "Convert the one that is meant, and use that")
    return cell_loading.with_modality(next(iter(volumes.values())), modality)


def person_in_files(path: Path) -> str | None:
    """The pseudonym of whose a file of DICOM is, or the first in a folder; None where no header can be read."""
    for file in sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]:
        with suppress(FormatError):
            return series_survey.pseudonym_from_header(header_reading.read_header(file).dataset)
    return None


def _one_file(folder: Folder, options: DatasetOptions) -> Reading:
    cell = Cell((folder.root,), modality=modality_words.modality_word(options.modality))
    return Reading((CaseRow(folder.members[0].stem, {"image": cell}),), how="one DICOM file")


def _localizers(everything: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    """The localizers among other image series, without those that something was contoured on."""
    outlined = {uid for one in everything if one.sop_class in CONTOURED for uid in one.references}
    images = [one for one in everything if one.is_image]
    localizers = [one for one in images if one.is_localizer and one.uid not in outlined]
    return localizers if len(localizers) < len(images) else []


def _planning_only(localizers: Sequence[SeriesFiles], options: DatasetOptions) -> Problems:
    """The warning that localizers are left out."""
    files = [f"{_case_name(one, options)}, {one.paths[0].name}" for one in localizers]
    what = "series only served", "series only served", "to plan others (localizers)"
    return layout.left_out_problem(files, what, "To use them, put them into a folder of their own", "warning")


def _copy_warning(copies: Sequence[Path]) -> Problems:
    """The warning that files hold the same object as others."""
    what = "file is a copy", "files are copies", "of another file of the same series"
    return layout.left_out_problem([path.name for path in copies], what, severity="warning")


def _mixed_study_warning(seen: SeriesSurvey, rows: Sequence[CaseRow]) -> Problems:
    """The warning that series of a study state several patients, with its cases, and its files that are no case."""
    if not seen.mixed:
        return ()
    cases = [row.name for row in rows if any(cell.known.study in seen.mixed for cell in row.images.values())]
    paths_of_cases = {path for row in rows for cell in row.images.values() for path in cell.paths}
    others = [one.paths[0] for one in seen.series if one.study in seen.mixed and one.paths[0] not in paths_of_cases]
    studies = errors.count_phrase(len(seen.mixed), "study holds", "studies hold")
    what = f"{studies} series of several patients under one StudyInstanceUID (0020,000D)"
    why = "a series may show another person than its header states, or one person may be in training and in test"
    remedy = "Correct PatientID (0010,0020) or StudyInstanceUID where the images come from, or leave the study out"
    return (Problem.warning(what, (*cases, *(path.name for path in others)), why, remedy),)


def _split_images(series: SeriesFiles, rivals: Mapping[Path, Path]) -> list[tuple[SeriesFiles, str]]:
    """The images of a series with endings for their names: all its files as one, of radiographs each file.

    rivals: {file: another with its UID}, which stay one case, so that reading it refuses both
    """
    if series.modality not in PROJECTIONS or len(series.paths) == 1:
        return [(series, "")]
    if "ImagePositionPatient" in header_reading.read_header(series.paths[0]).dataset:  # slices of a tomosynthesis
        return [(series, "")]
    same = grouping.by_key((rivals.get(path, path), path) for path in series.paths)
    return [(replace(series, paths=tuple(paths)), f"_{n}") for n, paths in enumerate(same.values(), start=1)]


def _case_name(series: SeriesFiles, options: DatasetOptions) -> str:
    """Patient, modality and number of the series, as in a1b2c3d4_MR_3; its description where it was asked for."""
    modality = series.modality if MODALITY.fullmatch(series.modality) else "image"
    number = "" if series.number is None else f"_{series.number}"
    called = series.name if options.case_names == DESCRIPTION else f"{modality}{number}"
    return f"{series.patient[:8]}_{called}"


def _case_row(name: str, series: SeriesFiles, references: References, modality: str | None) -> CaseRow:
    return CaseRow(
        name,
        {"image": Cell(series.paths, "series", series.uid, modality=modality, known=series)},
        references,
        patient=series.patient,
        covariates=series.covariates,
        aliases=tuple(uid for uid in (series.uid, series.study, series.accession) if uid),
    )


def cases_of_slices(row: CaseRow) -> Sequence[CaseRow]:
    """Each file of a series as a case, in order, for tables that state something of single slices."""
    cell = row.images["image"]
    if len(cell.paths) < 2:
        return ()
    uids = {path: uid for uid, path in cell.known.instances.items()}
    return tuple(
        CaseRow(
            f"{row.name}_{number}",
            {"image": replace(cell, paths=(path,), key="")},
            patient=row.patient,
            covariates=row.covariates,
            aliases=(uids[path],) if path in uids else (),
        )
        for number, path in enumerate(cell.paths, start=1)
    )


def _of_maps(maps: Maps, structures: Mapping[str, Label]) -> dict[str, Cell]:
    """The masks that label maps in other formats are; none where one of several structures is lacking."""
    if structures:
        return {"mask": cell_loading.structure_cell(maps)} if structures.keys() <= maps.keys() else {}
    return cell_loading.mask_cells({"": [path for own in maps.values() for path in own]} if maps else {})


def _of_reports(reports: Sequence[Outlines]) -> References:
    """The boxes that outlines of reports are."""
    numbers = ";".join(",".join(map(str, own)) for _, own in reports)
    return {"boxes": Cell(tuple(path for path, _ in reports), "report", numbers)} if reports else {}


def _label_maps(folder: Folder, images: Sequence[SeriesFiles]) -> tuple[dict[tuple[Path, ...], Maps], list[str]]:
    """{files of a case: its label maps in other formats}, and those of no single case.

    By the name of the folder, or of the one file, that holds a case alone, else by the folder in which both lie.
    """
    maps: dict[tuple[Path, ...], dict[str, list[Path]]] = {}
    places = [(path.parent, one.paths) for one in images if folder.images for path in one.paths]
    above = ((one, paths) for place, paths in dict.fromkeys(places) for one in (place, *place.parents))
    below, lonely = grouping.distinct_by_key(above), list[str]()
    named = [(place.name, next(iter(cases))) for place, cases in below.items() if len(cases) == 1]
    single = (one.paths for one in images if folder.images and len(one.paths) == 1)
    called = grouping.distinct_by_key([*named, *((dataset_folder.stem_of(own[0].name), own) for own in single)])
    for member in folder.images:
        place, fit = member.path.parent, MASK_NAME.match(member.stem)
        is_inside = bool(LABEL_NAME.search(place.name) or MASK_NAME.match(place.name))
        if not (is_inside or fit):
            continue
        owners = called.get(MASK_SUFFIX.sub("", member.stem), set())
        structure = ""
        if len(owners) != 1:
            owners = below.get(place.parent if is_inside else place, set())
            structure = (fit["before"] or fit["after"] or "") if fit else member.stem
        if len(owners) == 1:
            maps.setdefault(next(iter(owners)), {}).setdefault(structure, []).append(member.path)
        else:
            lonely.append(member.name)
    return {**maps}, lonely


def _damage_problem(error: FormatError) -> Problem:
    return Problem("error", f"{Path(error.where).name}: {error.problem}", why="it is left out", remedy=error.remedy)


def _without_image(everything: Sequence[SeriesFiles], known: Collection[Path]) -> Problems:
    """The problem that files hold no pixels: presentation states, reports without regions, images cut short."""
    without = (series for series in everything if not series.is_image and series.sop_class not in CONTOURED)
    others = [(path, one.sop_class_name) for one in without for path in one.paths if path not in known]
    kinds = ", ".join(sorted({name for _, name in others}))
    files = tuple(path.name for path, _ in others)
    return layout.left_out_problem(files, ("file holds", "files hold", f"no pixels ({kinds})"), severity="warning")


def _with_people_by_names(
    parts: Sequence[tuple[SeriesFiles, str]], root: Path
) -> tuple[list[tuple[SeriesFiles, str]], str]:
    """The images with pseudonyms of whom names state, of files and folders, where no header states anybody; the rule.

    As they are, and no rule, where names state nobody either, divide a study, or are the same in several folders, as
    numbers of images are. Slices are numbered, so that of a series only its folder counts.
    """
    images = [series for series, _ in parts]
    if not all(one.is_nobodys for one in images):
        return list(parts), ""
    firsts = [one.paths[0] for one in images]
    paths = [path.relative_to(root) if path.is_relative_to(root) else path for path in firsts]
    names = [path if len(one.paths) == 1 else path.with_name("series") for one, path in zip(images, paths, strict=True)]
    named = patient_names.patients_of([path.with_suffix("").as_posix() for path in names])
    people = grouping.distinct_by_key((one.study, owner) for one, owner in zip(images, named.names, strict=True))
    stated = [(owner, path.parent) for owner, path in zip(named.names, paths, strict=True)]
    places = grouping.distinct_by_key((owner, place) for owner, place in stated if owner not in place.as_posix())
    is_divided = any(len(own) > 1 for own in people.values()) or any(len(own) > 1 for own in places.values())
    if not named.known or is_divided:
        return list(parts), ""
    owners = [hashing.pseudonym_of_number(owner) for owner in named.names]
    return [(replace(one, patient=own), end) for (one, end), own in zip(parts, owners, strict=True)], named.words


def _nobodys(images: Sequence[SeriesFiles], people: str) -> Problems:
    """The warning that nobody knows whose some studies are; a single one is nobody else's.

    people: the rule by which names of files say it, and it is a note; else empty
    """
    studies = {one.study for one in images if one.is_nobodys}
    what = f"{len(studies)} studies state no patient, in PatientID (0010,0020) or PatientName (0010,0010)"
    if people:
        return (Problem("note", what, (), f"names of files and folders do: {people}"),)
    why = "each counts as a patient, so that one person may be in training and in test"
    remedy = "Name whose the images are by a table: --column patient=COLUMN"
    return (Problem("warning", what, (), why, remedy),) if len(studies) > 1 else ()


def _lonely(names: Sequence[str]) -> Problems:
    what = "label map lies", "label maps lie", "beside no series or several"
    remedy = "Put each into the folder of its one series, which may lie below it, or give it the name of that folder"
    return layout.left_out_problem(names, what, remedy, "warning")


@dataclass(frozen=True, eq=False)
class ReportedOutlines:
    """The outlines of reports, by the series of images that they lie on.

    of:       {number of the series: outlines of reports on it}
    read:     files that hold regions, or state that there are none
    problems: what could not be understood, or lies on images that are not here
    """

    of: Mapping[int, tuple[Outlines, ...]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    read: frozenset[Path] = frozenset()
    problems: Problems = ()


def _gather_reports(everything: Sequence[SeriesFiles], images: Sequence[SeriesFiles]) -> ReportedOutlines:
    """The reports among the files of a folder, with the images that each is about."""
    of: dict[int, list[Outlines]] = defaultdict(list)
    names, known, problems, reports = set[str](), set[Path](), list[Problem](), list[MeasurementReport]()
    for path in (path for one in everything if one.sop_class in REPORT_CLASSES for path in one.paths):
        try:
            report = sr_reading.read_report(path)
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
        about = [n for n, image in enumerate(images) if _refers(report, image)] if report.is_whole and not lost else []
        placed = ((series[0], number) for number, series in enumerate(owners) if len(series) == 1)
        outlines_of: dict[int, list[int]] = {**{n: [] for n in about}, **grouping.by_key(placed)}
        for n, numbers in outlines_of.items():
            of[n].append((path, tuple(numbers)))
        problems += [_left_out("warning", path, one, "Outline it with a closed line") for one in report.passed]
        if lost:
            regions = errors.count_phrase(lost, "region")
            what = f"{regions} of {len(owners)} on no image series here, or on one of several"
            problems.append(_left_out("warning", path, what, "Put the series that it was outlined on into the folder"))
    outlines = {n: tuple(some) for n, some in of.items()}
    return ReportedOutlines(outlines, frozenset(names), frozenset(known), tuple(problems))


def load_reported_boxes(cell: Cell, called: Mapping[str, str], image: Callable[[], Image]) -> BoundingBoxes:
    """The regions of reports on an image: a box for the outlines of a finding; equal ones of several reports are one.

    Raises GeometryError, by file, for another frame of reference, and DatasetError for a box outside the image.
    """
    on = image()
    numbers = [tuple(map(int, filter(None, own.split(",")))) for own in cell.key.split(";")]
    reports = list(zip(cell.paths, numbers, strict=True))
    if on.frames is not None:
        problem = "boxes on an image with frames: the report does not name the frame"
        raise DatasetError(problem, str(reports[0][0]), "Give each moment a series of its own")
    places = _places(on)
    found = [Annotation(path, tuple(_boxes_of_findings(path, own, on, places))) for path, own in reports]
    boxes = [annotated_boxes.load_boxes(one, called, lambda: on) for one in found]
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
        notes.append(f"{errors.count_phrase(again, 'box stands', 'boxes stand')} in several reports and counts once")
    return BoundingBoxes(np.reshape(corners, (-1, 2 * on.geometry.ndim)), tuple(names), notes=tuple(notes))


def _boxes_of_findings(
    path: Path, numbers: Sequence[int], on: Image, places: Mapping[tuple[str, int], int]
) -> Iterator[AnnotatedBox]:
    """A box for each finding of a report that has outlines on this image."""
    marked = sr_reading.read_report(path).marked
    ends: dict[tuple[str, str], list[tuple[Floats, Floats]]] = {}
    for outline in (marked[number] for number in numbers):
        in_mm = outline.points.shape[1] == 3
        edges = _in_mm(outline, on, path) if in_mm else _in_pixels(outline, on, places, path)
        ends.setdefault((outline.tracking, outline.name), []).append(edges)
    for n, ((_, name), parts) in enumerate(ends.items(), start=1):
        low, high = np.min([low for low, _ in parts], axis=0), np.max([high for _, high in parts], axis=0)
        yield AnnotatedBox(name, tuple(low.tolist()), tuple(high.tolist()), f"finding {n}")


def _in_pixels(
    outline: MarkedRegion, on: Image, places: Mapping[tuple[str, int], int], path: Path
) -> tuple[Floats, Floats]:
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


def _in_mm(outline: MarkedRegion, on: Image, path: Path) -> tuple[Floats, Floats]:
    """Edges along x, y, z; what is flat along an axis fills the voxel in which it lies."""
    grid = on.geometry
    if grid.ndim != 3 or grid.frame_of_reference != outline.frame_of_reference:
        problem = "marks places in another frame of reference than the image's"
        raise GeometryError(problem, str(path), "Give the image that the report was made on")
    low, high = sr_reading.graphic_bounds(outline.graphic, grid.to_index(outline.points) + 0.5)
    flat = high - low < FLAT
    if flat.sum() > 1:
        raise GeometryError("an outline without area", str(path), "Outline the finding with a closed line")
    voxel = np.floor((low + high) / 2)
    return np.where(flat, voxel, low), np.where(flat, voxel + 1, high)


def _places(image: Image) -> dict[tuple[str, int], int]:
    """{(SOP instance, frame from 0): slice}; 0 of a picture"""
    source = image.source
    if source is None or source.header is None:
        return {}
    slices = [(n, one) for n, one in enumerate(source.header["slices"]) if one is not None and one[2] is None]
    uids = {path: dicom_masks.instance_of(Path(path)) for path in {one[0] for _, one in slices}}
    return {(uids[path], frame): n for n, (path, frame, _) in slices}


def _owners(outline: MarkedRegion, report: MeasurementReport, images: Sequence[SeriesFiles]) -> list[int]:
    """The series on which an outline lies, by number; several where it cannot be decided."""
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


def _refers(report: MeasurementReport, image: SeriesFiles) -> bool:
    named = report.evidence.get(image.uid, frozenset())
    return bool(named) and (len(image.paths) > 1 or bool(named & _instances(image)))


def _instances(series: SeriesFiles) -> set[str]:
    return {*map(dicom_masks.instance_of, series.paths)}


def _left_out(severity: Literal["error", "warning"], path: Path, what: str, remedy: str) -> Problem:
    return Problem(severity, what, (path.name,), "it is left out", remedy)
