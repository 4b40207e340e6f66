"""Folders of DICOM; their cases are read in a file of their own, which needs the DICOM library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hilum import errors
from hilum.files import patient_names
from hilum.layouts.cases import class_labels, dicom_cases, mask_pairs
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import PairKey
from hilum.layouts.cases.table_reading import MOST_CLASSES
from hilum.layouts.layout import DatasetOptions, Example, Layout, Reading
from hilum.values import CaseRow, Problem, grouping

# Patients that each folder has to hold for a class.
FEWEST_PATIENTS = 2


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A file that is named like DICOM or starts like it."""
    return bool(folder.dicom)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """The series, separated by their headers and never by folders or file names.

    Where nothing is contoured on any, the folders around their patients are classes.
    """
    # Through the index, which imports pydicom only now: half a second, and every folder is asked whether it is DICOM.
    reading = dicom_cases.read_dicom(folder, options)
    has_references = any(row.references for row in reading.rows)
    has_references |= any(mask_pairs.is_called_mask(one.path) for one in folder.images)
    if folder.is_file or not options.references or has_references:
        return reading
    placed = {member.path: member for member in folder.members}
    members = [placed.get(row.paths[0]) for row in reading.rows]
    known = [member for member in members if member is not None]
    if len(known) < len(members) or not _are_classes(reading.rows, known):
        return reading
    classes, called = class_labels.name_classes({member.folders[0] for member in known}, folder, options)
    names = [label.name for label in classes]
    what, why = f"the folders {errors.list_phrase(names)} are read as classes", "nothing else says what is to be learnt"
    remedy = "If they are no classes, give a table with labels; if they are, nothing needs to be done"
    rows = [
        replace(row, references={"class": called[member.folders[0]]}, split=row.split or member.split)
        for row, member in zip(reading.rows, known, strict=True)
    ]
    return replace(
        reading,
        rows=tuple(rows),
        how=f"{reading.how}; a folder for each class: {', '.join(names)}",
        classes={**reading.classes, "class": classes},
        problems=(*reading.problems, Problem("warning", what, why=why, remedy=remedy)),
    )


def _are_classes(series: Sequence[CaseRow], members: Sequence[FolderMember]) -> bool:
    """Whether the first folders hold several patients each, none of whom is in two, and are not called as people."""
    names = mask_pairs.class_folder_names(PairKey(member.folders, member.stem) for member in members)
    placed = (("".join(one.folders[:1]), case.patient or case.name) for case, one in zip(series, members, strict=True))
    people = grouping.distinct_by_key(placed)
    apart = sum(map(len, people.values())) == len(set().union(*people.values()))
    several = all(len(own) >= FEWEST_PATIENTS for own in people.values())
    return 0 < len(names) <= MOST_CLASSES and apart and several and not patient_names.are_named_people(names)


EXAMPLE: Example = {f"series/{n}.dcm": n for n in range(3)}
LAYOUT = Layout("dicom_folder", "a folder of DICOM series", fits, read, frozenset({"plain_images"}), EXAMPLE)
