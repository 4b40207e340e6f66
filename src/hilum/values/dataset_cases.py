"""Data sets and their cases: who was examined, what the model may see, what is true, and the rows of their table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

from hilum.errors import HilumError
from hilum.values import case_outcome, voxel_images
from hilum.values.case_outcome import REFUSED, OutcomeName
from hilum.values.covariate_values import CovariateValues
from hilum.values.setting_fields import StatedSettings
from hilum.values.voxel_images import Image, Label

T = TypeVar("T")
# What is true of a case, by the kind of reference.
References = Mapping[str, Any]
# Between the two patients of a pair of images.
AND = " & "


def people_of_patient(patient: str) -> tuple[str, ...]:
    """The person or, of a pair of images, the two persons that `Case.patient` names."""
    return tuple(patient.split(AND))


class LazyMapping(Mapping[str, T], Generic[T]):
    """Values by name that are read on demand, and not kept.

    Each value is a function without arguments that survives pickling, so that a case can cross processes.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], T]]) -> None:
        self._loaders = dict(loaders)

    @property
    def loaders(self) -> Mapping[str, Callable[[], T]]:
        """The functions, by name."""
        return self._loaders

    def without_others(self, names: Collection[str]) -> LazyMapping[T] | None:
        """These values as they are where the others do not exist; None where that changes none."""
        return None

    def __getitem__(self, name: str) -> T:
        return self._loaders[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._loaders  # Mapping would read the value to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)


@dataclass(frozen=True, eq=False)
class Case:
    """One examination.

    patient:    whose it is; of a pair of two patients' images both, joined by `AND`
    images:     {channel name: Image}; what the model may see, in the order in which it sees them
    references: {kind: value}; what is true. Kinds: "class" (a name), "findings" ({name: present}), "mask" and
                "instances" (an Image of integers), "boxes" (BoundingBoxes), "value" ({name: number}),
                "event" ((time, happened)), "field" (Correspondence); "mask:<reader>" is what another person contoured
    covariates: who it is (age, sex, site, scanner, ...), as read; a missing one is None
    known:      the structures that somebody contoured in its masks: any other is unknown there, not absent; None: all
    files:      what the case was read from, for hashing
    key:        distinguishes cases of one file (a row of an .npz)
    accepted:   findings on it that a person accepts, as `Problem.accepts` has them
    """

    id: str
    patient: str
    images: Mapping[str, Image]
    references: References = field(default_factory=dict)
    covariates: CovariateValues = field(default_factory=dict)
    group: str | None = None
    files: tuple[Path, ...] = ()
    key: str = ""
    known: frozenset[str] | None = None
    accepted: frozenset[str] = frozenset()

    def knows(self, structure: str) -> bool:
        """Whether somebody contoured this structure in its masks, or looked and found none."""
        return self.known is None or structure in self.known

    def with_images(self, names: Collection[str]) -> Case:
        """The case as if it had no other images than these."""
        if isinstance(self.images, LazyMapping) and (fewer := self.images.without_others(names)) is not None:
            return replace(self, images=fewer)
        images = {
            voxel_images.pad_numeric_name(name): partial(_image_named, self.images, name)
            for name in self.images
            if name in names
        }
        return replace(self, images=LazyMapping(images))


def _image_named(images: Mapping[str, Image], name: str) -> Image:
    return images[name].with_image_name(voxel_images.pad_numeric_name(name))


Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the worst first


# Warnings about single cases that a person can accept, by the word that stands for them in a table.
FindingKind = Literal[
    "",
    "blank-slab",
    "blurred",
    "clipped",
    "constant",
    "contrast",
    "doubted-label",
    "empty-mask",
    "file-name",
    "gaps",
    "ghosts",
    "label",
    "letters",
    "magnitude",
    "mask-place",
    "mask-values",
    "missing-structure",
    "no-voxel",
    "noisy",
    "not-finite",
    "objects",
    "outline",
    "spacing",
    "target",
    "unlike-image",
]
FINDING_KINDS: tuple[FindingKind, ...] = tuple(kind for kind in get_args(FindingKind) if kind)


@dataclass(frozen=True)
class Problem:
    """Something wrong or odd about a data set.

    severity: "error" forbids going on with these cases, "warning" may bias a result, "note" is good to know
    outcome:  of an error, that of a case which has no result because of it
    column:   the covariate that has cells without a meaning, and so cannot be asked for
    kind:     of a warning that a person can accept, its word; empty: it cannot be
    accepts:  for each of its cases what the table says where a person accepts it: the kind and the case's version
    """

    severity: Severity
    what: str
    cases: tuple[str, ...] = ()
    why: str = ""
    remedy: str = ""
    outcome: OutcomeName = REFUSED
    column: str = ""
    kind: FindingKind = ""
    accepts: tuple[str, ...] = ()

    @classmethod
    def error(cls, what: str, cases: tuple[str, ...] = (), why: str = "", remedy: str = "") -> Problem:
        """A problem that forbids going on with these cases."""
        return cls("error", what, cases, why, remedy)

    @classmethod
    def warning(
        cls, what: str, cases: tuple[str, ...] = (), why: str = "", remedy: str = "", kind: FindingKind = ""
    ) -> Problem:
        """A problem that may bias a result."""
        return cls("warning", what, cases, why, remedy, kind=kind)

    @classmethod
    def note(cls, what: str, cases: tuple[str, ...] = (), why: str = "", remedy: str = "") -> Problem:
        """A problem that is good to know."""
        return cls("note", what, cases, why, remedy)

    @classmethod
    def of_case(cls, case: str, error: HilumError, where: str = "") -> Problem:
        """The problem of a case that has no result because of an error."""
        what = f"{where or error.where}: {error.problem}"
        return cls("error", what, (case,), remedy=error.remedy, outcome=case_outcome.error_outcome(error))


def worst_first(problems: Iterable[Problem]) -> list[Problem]:
    """The problems by severity, those of one severity in their order."""
    return sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Cases, and the set's own split where it has one. It names no task.

    splits:   {case id: train | val | calibration | test}, empty where the set has no split of its own
    hash:     of all file contents; empty until it was needed
    classes:  {kind of reference: labels}, the declared set where one is declared
    columns:  {role: column} of the table that it was read from, such as "value:volume" and "volume (ml)"
    regions:  {name: values} of structures that overlap, each made of several values of the masks, of which the first
              marks it in a label map; a later one is written over an earlier one
    readers:  who contoured the masks, where several did: the first one's are "mask", the others' "mask:<reader>"
    patients: the rule by which patients were identified, in words
    patients_known: False where no rule fits and each case stands for itself
    layout:   how the folder was read, in words
    derived:  {kind of reference: how it was made of another, in words}
    painted:  how its images are painted from its label maps, in words; empty where they are images
    parted:   how `splits` were made, in words, where the set has no split of its own; empty: they are its own
    problems: what could not be read, and why
    ranked:   whether a person states the order of the classes, from the lowest grade to the highest
    accepted: findings that would forbid training, by their names, and that a person accepts
    lesions:  structures of masks of which a person says that cases without them exist
    table:    the rows that the cases were read from; None of cases that were made in memory
    """

    cases: tuple[Case, ...]
    splits: Mapping[str, Split] = field(default_factory=dict)
    hash: str = ""
    name: str = ""
    root: Path | None = None
    classes: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    readers: tuple[str, ...] = ()
    modality: str = "unknown"
    patients: str = "each case stands for itself"
    patients_known: bool = False
    layout: str = ""
    derived: Mapping[str, str] = field(default_factory=dict)
    painted: str = ""
    parted: str = ""
    problems: tuple[Problem, ...] = ()
    ranked: bool = False
    accepted: frozenset[str] = frozenset()
    lesions: frozenset[str] = frozenset()
    table: DatasetTable | None = None

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of reference that at least one case has."""
        return frozenset(kind for case in self.cases for kind in case.references)

    @property
    def structures(self) -> tuple[str, ...]:
        """The names of what masks show: regions, else declared labels; where none are, what cases say they know."""
        declared = [one for one in self.classes.get("mask", ()) if one.value and not one.is_ignored]
        names = list(self.regions) or [one.name for one in declared if not one.is_background]
        return tuple(names or sorted({name for case in self.cases for name in case.known or ()}))

    @property
    def knowing(self) -> dict[str, int]:
        """{structure: cases with a mask that know it}; empty where every case knows every structure."""
        with_mask = [case for case in self.cases if "mask" in case.references]
        if all(case.known is None for case in with_mask):
            return {}
        return {name: sum(case.knows(name) for case in with_mask) for name in self.structures}

    def only(self, ids: set[str]) -> Dataset:
        """The cases with these ids, in the same order."""
        cases = tuple(case for case in self.cases if case.id in ids)
        return replace(self, cases=cases, splits={k: v for k, v in self.splits.items() if k in ids})

    def rename_cases(self, names: Mapping[str, str]) -> Dataset:
        """The same cases, those of them by other ids that `names` maps to one."""
        renamed = tuple(replace(case, id=names.get(case.id, case.id)) for case in self.cases)
        splits = {names.get(name, name): part for name, part in self.splits.items()}
        problems = tuple(
            replace(problem, cases=tuple(names.get(name, name) for name in problem.cases)) for problem in self.problems
        )
        return replace(self, cases=renamed, splits=splits, problems=problems)


# What trains, what decides afterwards, what chose nothing so that guarantees come from it, and what only tests.
Split = Literal["train", "val", "calibration", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class DataFrameLike(Protocol):
    """A table in memory, as pandas has it."""

    columns: Any
    iloc: Any


# After the end of a sentence or a line.
SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")


@dataclass(frozen=True, repr=False)
class CaseTexts:
    """The texts of a case, such as reports, one or more; nothing prints a word of them.

    names_patient: whether one repeats the patient's name or number in the image's header
    """

    texts: tuple[str, ...]
    names_patient: bool = False

    def __repr__(self) -> str:
        return f"CaseTexts of {len(self.texts)}"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences and lines of all texts."""
        return tuple(part for text in self.texts for part in SENTENCE_END.split(text) if part.strip())

    @property
    def digest(self) -> str:
        """SHA-256 of the texts, by which a case is known again."""
        return hashlib.sha256("\0".join(self.texts).encode()).hexdigest()


@dataclass(frozen=True)
class Cell:
    """The files of one image or one reference of a case; nothing of them is read yet.

    paths:    several are the slices of a series, pieces of one mask, or the masks of `names`
    part:     what of the file is meant, a word: a "frame", a "row", a "series", or the grammar of an annotation file
    key:      which of these, as the word's files spell it
    names:    of structures, one for each path
    reader:   who contoured it, where that is known
    modality: of an image, where its file states none
    known:    what was read of the file to make the row, so that nobody reads it twice
    """

    paths: tuple[Path, ...]
    part: str = ""
    key: str = ""
    names: tuple[str, ...] = ()
    reader: str = ""
    modality: str | None = None
    known: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class CaseRow:
    """One case of a data set's table.

    name:       path without suffix relative to the data set, from which the id and the patient are made
    images:     {channel: its cell}
    references: {kind: a cell, or the value itself}; kinds as of `Case.references`
    aliases:    what a table may call it beside its name and files, alone or with others: UIDs and accession number
    accepted:   the cell of findings that a person accepts
    """

    name: str
    images: Mapping[str, Cell]
    references: References = field(default_factory=dict)
    split: Split | None = None
    patient: str | None = None
    group: str | None = None
    covariates: CovariateValues = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    accepted: str | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that its cells name, images first."""
        cells = (*self.images.values(), *(one for one in self.references.values() if isinstance(one, Cell)))
        return tuple(dict.fromkeys(path for cell in cells for path in cell.paths))


@dataclass(frozen=True)
class DatasetTable:
    """The rows that a data set was read from, called by the ids of its cases, and what holds for all of them.

    declared: what `dataset.toml` states: classes, readers, order of channels, options of reading and so on
    """

    rows: tuple[CaseRow, ...] = ()
    declared: StatedSettings = field(default_factory=dict)
