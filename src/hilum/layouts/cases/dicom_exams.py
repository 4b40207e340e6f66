"""The radiographs of a DICOM study as one exam, whose views are told apart by side and view position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hilum import errors
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.reading import series_survey
from hilum.files.dicom.reading.picture_scale import PROJECTIONS
from hilum.layouts import layout
from hilum.values import CaseRow, Problem, grouping

IMAGE = "image"
# Image Laterality (0020,0062) of what has no pair, PS3.3 C.8.11.5.1.1.
UNPAIRED = "U"
STATE = "State ImageLaterality and ViewPosition in the headers, or name the files in a table, image:VIEW=COLUMN"
ALONE = "Read them without --align apart"
TWICE = "Keep the one that is meant, or name the files in a table, image:VIEW=COLUMN"


def join_exams(rows: Sequence[CaseRow]) -> tuple[tuple[CaseRow, ...], tuple[Problem, ...]]:
    """A row for each study of pictures, as RCC and LMLO of a mammogram; as they are where there are none.

    An exam with two pictures of one view, or with none of a known view, is an error; so is what is no picture.
    """
    exams: dict[tuple[str, str], list[CaseRow]] = defaultdict(list)
    others = list[str]()
    for row in rows:
        series = row.images[IMAGE].known
        if series.modality in PROJECTIONS and len(row.images[IMAGE].paths) == 1:
            exams[series.patient, series.study].append(row)
        else:
            others.append(row.name)
    if not exams:
        return tuple(rows), ()
    names = series_survey.unique_names([_exam_name(own) for own in exams.values()])
    joined, unknown, nameless, problems = list[CaseRow](), list[str](), list[str](), list[Problem]()
    for name, own in zip(names, exams.values(), strict=True):
        views = {**grouping.by_key((view_of(row), row) for row in own)}
        nameless += [row.name for row in views.pop("", ())]
        if not views:
            unknown.append(name)
        elif twice := next((view for view, rows_of_view in views.items() if len(rows_of_view) > 1), None):
            files = errors.list_phrase(sorted(row.images[IMAGE].paths[0].name for row in views[twice]))
            problems += layout.left_out_problem([name], f"two pictures of the exam are {twice}: {files}", TWICE)
        else:
            joined.append(_exam_row(name, {view: row for view, [row] in sorted(views.items())}))
    return tuple(joined), (
        *problems,
        *layout.left_out_problem(unknown, "no picture of the exam states its view", STATE),
        *layout.left_out_problem(nameless, "pictures of exams state no view", STATE, "warning"),
        *layout.left_out_problem(others, "series are no pictures of exams", ALONE, "warning"),
    )


def view_of(row: CaseRow) -> str:
    """The side and view position of a picture, as LCC; empty where its header states no view."""
    dataset = header_reading.read_header(row.images[IMAGE].paths[0]).dataset
    side = tags.text(dataset, "ImageLaterality") or tags.text(dataset, "Laterality")
    return ("" if side.upper() == UNPAIRED else side.upper()) + tags.text(dataset, "ViewPosition").upper()


def _exam_name(rows: Sequence[CaseRow]) -> str:
    """Patient and modality, as in a1b2c3d4_MG."""
    series = rows[0].images[IMAGE].known
    return f"{series.patient[:8]}_{series.modality}"


def _exam_row(name: str, views: Mapping[str, CaseRow]) -> CaseRow:
    """One case of these views, called as the study is; what was contoured on single pictures stays there."""
    first = next(iter(views.values()))
    series = first.images[IMAGE].known
    aliases = tuple(uid for uid in (series.study, series.accession) if uid)
    images = {view: row.images[IMAGE] for view, row in views.items()}
    return replace(first, name=name, images=images, references={}, aliases=aliases)
