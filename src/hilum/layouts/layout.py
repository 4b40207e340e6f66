"""Layouts of data sets: the values by which a folder is recognised and its files become cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hilum import errors, plugins
from hilum.files.format_options import CaseNames, ReadOptions
from hilum.layouts.cases.dataset_folder import Folder
from hilum.values import CaseRow, FactRule, Label, Problem

# {kind: a cell, or the value itself}, as of `CaseRow`.
References = dict[str, Any]
Labels = tuple[Label, ...]
Problems = tuple[Problem, ...]
Severity = Literal["error", "warning"]
# How patients of DICOM are known: a run's record of its data then says which key hid them.
PSEUDONYMS = "the patient identifier in the files, hidden by this installation's key"
DESCRIPTION: CaseNames = "description"


@dataclass(frozen=True)
class DatasetOptions:
    """Choices of the caller about how a data set is read.

    layout:     a name in `LAYOUTS`, where the folder can be read in several ways
    labels:     "1=anterior,2=posterior": what the values of masks, or class numbers, stand for; where structures
                overlap, "1+2=whole,2=core"
    patient:    a column, or a regular expression whose first group is the patient in a case's name
    class_rule: a regular expression whose first group (else the whole match) is the class in a case's name
    column:     {role: column of the table}, roles as in `cases.column_names.ROLES`
    modality:   of all images, where the files state none
    read:       how single files are read
    references: False where only images are wanted (prediction): images without labels are then cases too
    channels:   number of images of a case, where a model knows it; decides between channel numbers and case numbers
    absent:     whether a case may lack some of these images, because a model has learnt to do without
    kinds:      of reference that are asked for: a label map is read as a "mask", unless "instances" is among them
    case_names: "description" calls a DICOM case by the description of its series, which is free text
    exif:       whether references lie on pixels as they are "stored" or "upright" by EXIF; None: what fits decides
    paints:     whether label maps without images are cases, because images can be painted from them
    bare:       whether images without any reference are cases too, where no image has one
    root:       folder from which relative paths of a table start; None: its own
    exams:      whether the radiographs of a DICOM study are one case, each named by its side and view
    """

    layout: str | None = None
    labels: str | None = None
    patient: str | None = None
    class_rule: str | None = None
    column: Mapping[str, str] = field(default_factory=dict)
    modality: str | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    references: bool = True
    channels: int | None = None
    absent: bool = False
    kinds: frozenset[str] = frozenset()
    case_names: CaseNames = "number"
    exif: str | None = None
    paints: bool = False
    bare: bool = False
    root: Path | None = None
    exams: bool = False


@dataclass(frozen=True)
class Reading:
    """The rows of a data set, and what its layout declares of all of them.

    how:      how the folder was read, in words
    name:     of the data set, where its folder does not say it
    classes:  {kind: labels} where they are declared
    annotation_names: what the names in annotation files stand for; None without such files
    modality: where it is declared, in the file's own word
    patients: the rule, in words, where `CaseRow.patient` is set
    patient_column: of the table where the layout is one and has it
    columns:  {role: column} where the layout is a table
    regions:  {name: values} of structures that overlap, where the layout declares them
    readers:  who contoured the masks, where several did, the one of "mask" first
    channels: the images that a case may have, in order; empty where they are not declared
    tables:   tables whose rows are references, so that they hold no covariates
    courses:  tables of readings over time, where they do not lie beside the images
    exif:     whether masks and boxes lie on "stored" or "upright" pixels of photographs; empty where no matter
    is_own:   whether the rows were written by this program: nothing is then guessed of names
    """

    rows: tuple[CaseRow, ...]
    how: str
    name: str = ""
    classes: Mapping[str, Labels] = field(default_factory=dict)
    annotation_names: AnnotationNames | None = None
    modality: str | None = None
    patients: str = ""
    patient_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    readers: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()
    problems: Problems = ()
    courses: tuple[Path, ...] = ()
    exif: str = ""
    is_own: bool = False


@dataclass(frozen=True)
class AnnotationNames:
    """What the names in annotation files stand for.

    called: {name in the file: name of its class} of boxes
    labels: {name in the file: its label} of label maps; what is not in it is background
    settings: how the file is read, {word: value}: roles of its columns, keypoints
    """

    called: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def left_out_problem(
    names: Iterable[str], what: str | tuple[str, str, str], remedy: str = "", severity: Severity = "error"
) -> Problems:
    """The problem that these cases or files are left out; none where there are none.

    what: in words, or (subject and verb of one, of several, the rest), before which their number stands
    """
    named = tuple(names)
    words = what if isinstance(what, str) else f"{errors.count_phrase(len(named), *what[:2])} {what[2]}"
    return (Problem(severity, words, named, "they are left out", remedy),) if named else ()


def miscount_problem(description: Mapping[str, Any] | None, count: int) -> Problems:
    """The warning that `numTraining` of dataset.json is not the number of training cases; none where it states none."""
    stated = (description or {}).get("numTraining")
    if not isinstance(stated, int) or isinstance(stated, bool) or stated == count:
        return ()
    what = f"dataset.json states {errors.count_phrase(stated, 'training case')} (numTraining), and there are {count}"
    why = "files may be missing, or some that do not belong to the set may have come in"
    return (Problem.warning(what, (), why, "Get the files again, or correct numTraining"),)


# {name of a file: what it holds}: text, or the value of an image; of several values each has a band of the image, or a
# frame of the clip, and in each frame of a volume there may be bands.
Example = Mapping[str, str | int | tuple[int | tuple[int, ...], ...]]


@dataclass(frozen=True)
class Layout:
    """One way in which a data set can lie in a folder or file.

    what:  the layout in words, as errors list it
    fits:  whether the folder looks like it, from names only as far as possible
    read:  the cases
    over:  layouts that would also fit but know less, so that this one is chosen
    example: a small folder, which tests write and read, and `docs/write_layouts.py` shows
    facts: what is done with what its files state of themselves: rows of the table of docs/stated-facts.md
    annotations: of an annotation file and the roles of its columns, {name of an image in it: its annotation}
    """

    name: str
    what: str
    fits: Callable[[Folder, DatasetOptions], bool]
    read: Callable[[Folder, DatasetOptions], Reading]
    over: frozenset[str] = frozenset()
    example: Example = field(default_factory=dict)
    annotations: Callable[[Path, Mapping[str, str]], Mapping[str, Any]] | None = None
    facts: tuple[FactRule, ...] = ()


# Layouts that know files by their names alone, which a description or annotations of the images go before.
BY_NAMES = frozenset({"plain_images", "class_folders", "image_folders", "suffix_masks", "case_folders"})
# In the order in which they are asked; that of `name` is `LAYOUT` in the file `name.py`.
LAYOUTS = {
    name: f"hilum.layouts.{name}:LAYOUT"
    for name in (
        "image_pairs", "image_targets", "nnunet", "decathlon", "bids", "image_folders", "object_masks",
        "suffix_masks", "case_folders", "class_folders", "voc", "yolo", "labelme", "qupath", "cvat", "mot",
        "clip_masks", "via", "coco", "box_table", "medmnist", "manifest", "dicom_folder", "plain_images",
    )
}  # fmt: skip


def reads_annotations(name: str) -> bool:
    """Whether this is the name of a layout that reads annotation files."""
    return name in LAYOUTS and load_layout(name).annotations is not None


def load_layout(name: str) -> Layout:
    """The layout of this name; its file is imported now."""
    layout: Layout = plugins.load_target(LAYOUTS[name])
    return layout
