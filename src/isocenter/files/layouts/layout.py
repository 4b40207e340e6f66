"""Layouts of data sets: the values by which a folder is recognised and its files become cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from isocenter.files.format import CaseNames, ReadOptions
from isocenter.files.layouts.cases.folder import Folder
from isocenter.values import Image, Label, Problem, Split

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
    column:     {role: column of the table}, roles as in `layouts.manifest.ROLES`
    modality:   of all images, where the files state none
    read:       how single files are read
    references: False where only images are wanted (prediction): images without labels are then cases too
    channels:   number of images of a case, where a model knows it; decides between channel numbers and case numbers
    absent:     whether a case may lack some of these images, because a model has learnt to do without
    kinds:      of reference that are asked for: a label map is read as a "mask", unless "instances" is among them
    case_names: "description" calls a DICOM case by the description of its series, which is free text
    exif:       whether references lie on pixels as they are "stored" or "upright" by EXIF; None: what fits decides
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


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case with the functions that read them; nothing is read yet.

    name:       path without suffix relative to the data set, from which the id and the patient are made
    images:     {channel: function that reads it}
    references: {kind: function that reads it}
    aliases:    what a table may call it beside its name and files, alone or with others: UIDs and accession number
    slices:     each of its files as a case, of a series of DICOM; None where it has one file
    """

    name: str
    images: Mapping[str, Callable[[], Image]]
    references: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    key: str = ""
    split: Split | None = None
    patient: str | None = None
    group: str | None = None
    covariates: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    slices: Callable[[], tuple[CaseFiles, ...]] | None = None


@dataclass(frozen=True)
class Reading:
    """The cases of a folder and what its layout declares.

    how:      how the folder was read, in words
    classes:  {kind: labels} where they are declared
    modality: where it is declared, in the file's own word
    patients: the rule, in words, where `CaseFiles.patient` is set
    patient_column: of the table where the layout is one and has it
    columns:  {role: column} where the layout is a table
    readers:  who drew the masks, where several did, the one of "mask" first
    channels: the images that a case may have, in order; empty where they are not declared
    tables:   tables whose rows are references, so that they hold no covariates
    """

    cases: tuple[CaseFiles, ...]
    how: str
    classes: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    modality: str | None = None
    patients: str = ""
    patient_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    readers: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()


def left_out(
    names: Iterable[str], what: str, remedy: str = "", severity: Literal["error", "warning"] = "error"
) -> tuple[Problem, ...]:
    """The problem that these cases or files are left out; none where there are none."""
    named = tuple(names)
    return (Problem(severity, what, named, "they are left out", remedy),) if named else ()


@dataclass(frozen=True)
class Layout:
    """One way in which a data set can lie in a folder or file.

    what:  the layout in words, as errors list it
    fits:  whether the folder looks like it, from names only as far as possible
    read:  the cases
    over:  layouts that would also fit but know less, so that this one is chosen
    """

    name: str
    what: str
    fits: Callable[[Folder, DatasetOptions], bool]
    read: Callable[[Folder, DatasetOptions], Reading]
    over: frozenset[str] = frozenset()
