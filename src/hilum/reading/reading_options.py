"""Options that say how a data set is read, as every verb takes them and a plan keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from uuid import uuid4

from hilum.errors import PlanError, UsageError
from hilum.files.format_options import CaseNames, FileChoices
from hilum.files.storage import kept
from hilum.files.storage.kept import Caching
from hilum.layouts.layout import LAYOUTS
from hilum.planning import plan_result
from hilum.values import Assignments, Dataset, Image, Setting
from hilum.values.covariate_values import CovariateReading
from hilum.values.dataset_cases import DataFrameLike

# How images of a case are brought onto one grid; behind a colon the name of the image whose grid that is.
Alignment = Literal["world", "register", "apart"]

# Options that make other voxels of the same files, and those that make other references too.
VOXELS = ("part", "prefer", "pages", "orientation", "mm_per_pixel", "fill_missing", "fill_contours", "align", "impute")
DECISIVE = ("layout", "labels", "class_rule", "column", "exif", *VOXELS)
# Those that change no result, and hold for one command.
OF_ONE_COMMAND = ("no_cache", "verify")
# The reading option by which cases out of all proportion are kept.
ALLOW_LARGE = "allow_large"


# A table of covariates, several of them, or the covariates of the one patient by name; readings are pairs of a time and
# a number.
GivenCovariates = Mapping[str, CovariateReading | Sequence[tuple[float, float]]]
Covariates = str | Path | Sequence[str | Path] | GivenCovariates | None
# What a model takes.
Input = str | Path | Image | Dataset | DataFrameLike
# Names of label values: "1=anterior,2=posterior", {1: "anterior"}, or {"anterior": 1} as in dataset.json.
Labels = str | Mapping[Any, Any]
# Columns of a table by role: "image=filename,label=finding", several such texts, or {"image": "filename"}.
Columns = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(FileChoices):
    """Options for reading a data set; where one is not given, the files decide.

    labels, column and order may be mappings or lists, as `Labels` and `Columns`; they are kept as a plan writes them.
    Raises UsageError for an option that does not exist, for text without a name and a value, and for a name that the
    text form cannot hold.
    """

    layout: Annotated[
        str | None,
        Setting(
            f"How the files are organised, where several layouts fit: {', '.join(LAYOUTS)}.",
            "NAME",
        ),
    ] = None
    labels: Annotated[
        Labels | None,
        Setting(
            "Names of the label values: 1=anterior,2=posterior; each=NAME where every value is one object.", "NAMES"
        ),
    ] = None
    patient: Annotated[
        str | None, Setting("Column that names the patient, or a regular expression on case names.", "RULE")
    ] = None
    class_rule: Annotated[
        str | None, Setting("Regular expression on case names whose group is the class.", "REGEX")
    ] = None
    column: Annotated[
        Columns | None,
        Setting(
            "Roles of a table's columns: image, mask, label, patient, split, modality, id, findings, finding:NAME, "
            "value:NAME, time, event, as in image=filename,label=diagnosis; repeatable.",
            "ROLE=COLUMN",
            repeats=True,
        ),
    ] = None
    modality: Annotated[str | None, Setting("Modality of all images, where the files do not state it.", "NAME")] = None
    align: Annotated[
        str | None,
        Setting(
            "Bring all images of a case onto the grid of the first: world (as the headers say), register (rigidly), or "
            "apart (each by itself, to its size: images that share no place); world:T1 onto that of T1.",
            "HOW[:IMAGE]",
        ),
    ] = None
    impute: Annotated[
        str | Path | None,
        Setting(
            "Enhancement model that makes an image which a case lacks, its target, of the case's other images.", "MODEL"
        ),
    ] = None
    case_names: Annotated[
        CaseNames | None,
        Setting("Names of DICOM cases: number (of the series), or description, which is free text.", "NAME"),
    ] = None
    exif: Annotated[
        str | None,
        Setting("Where references of photographs lie that EXIF turns: on stored pixels, or on upright ones.", "PIXELS"),
    ] = None
    root: Annotated[
        str | Path | None,
        Setting(
            "Folder from which relative paths of a table start; by default its own, of a DataFrame the working folder.",
            "FOLDER",
        ),
    ] = None
    order: Annotated[
        str | Sequence[str] | None,
        Setting("Classes from the lowest grade to the highest: mild,moderate,severe.", "CLASSES"),
    ] = None
    accept: Annotated[
        str | None,
        Setting(
            "What forbids training and is accepted: mixed-scale (of CT); with --resume changes (of plan or split).",
            "FINDINGS",
        ),
    ] = None
    allow_large: Annotated[bool, Setting("Keep cases that are out of all proportion to the others.")] = False
    no_cache: Annotated[bool, Setting("Read every file anew, and keep nothing of what was found in it.")] = False
    verify: Annotated[
        bool, Setting("Hash every file anew, also where size and times say that it is as it was when it was read.")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.no_cache and self.verify:
            problem = "without the cache every file is read anew, so that there is nothing to verify"
            raise UsageError(problem, "--no-cache --verify", "Give one of them")
        if self.align is not None and self.align.partition(":")[0] not in get_args(Alignment):
            remedy = (
                "Choose world (as the headers say), register (rigidly, by the voxels) or apart (each by itself, to the "
                "size of the first), or world:T1 onto T1"
            )
            raise UsageError(f"there is no {self.align!r}", "--align", remedy)
        object.__setattr__(self, "impute", None if self.impute is None else str(Path(self.impute).absolute()))
        object.__setattr__(self, "root", None if self.root is None else str(Path(self.root).absolute()))
        object.__setattr__(self, "labels", labels_text(self.labels))
        object.__setattr__(self, "column", parse_columns(self.column) or None)
        object.__setattr__(self, "order", order_text(self.order))

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """While a verb runs: what was kept of files is used as these options say, and what is new is kept."""
        with kept.caching_as(Caching(not self.no_cache, uuid4().hex if self.verify else "")):
            try:
                yield
            finally:
                kept.write_pending()

    @classmethod
    def of_plan(cls, options: Assignments) -> ReadingOptions:
        """Return the reading options among those that a plan keeps; PlanError for an unknown one."""
        names = field_names()
        others = plan_result.FURTHER_OPTIONS
        if unknown := sorted({*options} - {*names, *others}):
            raise PlanError(f"{', '.join(unknown)}: no reading option", "options", f"Choose from {', '.join(names)}")
        return ReadingOptions(**{name: value for name, value in options.items() if name in names})

    @property
    def reading(self) -> ReadingOptions:
        """These options without those that a verb has besides."""
        return ReadingOptions(**self.chosen_options)

    @property
    def columns(self) -> dict[str, str]:
        """{role: column} of a table."""
        return parse_columns(self.column)

    @property
    def chosen_options(self) -> Assignments:
        """{name: value} of the options that differ from the default, as a plan keeps them."""
        return {name: value for name in field_names() if (value := getattr(self, name))}

    @property
    def decisive(self) -> Assignments:
        """{name: value} of the chosen options that make other voxels of the same files, or other references."""
        return {name: value for name, value in self.chosen_options.items() if name in DECISIVE}

    def overridden(self, options: ReadingOptions) -> ReadingOptions:
        """Return these options, with those in their place that the others choose."""
        return ReadingOptions(**{**self.chosen_options, **options.chosen_options})


def field_names() -> list[str]:
    """Return the names of the reading options that a plan keeps."""
    return [field.name for field in fields(ReadingOptions) if field.name not in OF_ONE_COMMAND]


def order_text(order: str | Sequence[str] | None) -> str | None:
    """Return classes from the lowest grade to the highest as text, "mild,moderate,severe"."""
    return order if order is None or isinstance(order, str) else ",".join(order)


def labels_text(labels: Labels | None) -> str | None:
    """Label values and their names as text, "1=anterior,2=posterior"; of overlapping structures "1+2=whole,2=core".

    labels: such text, {value: name}, or {name: value or values}
    Raises UsageError for a name that holds a comma or an equals sign.
    """
    match labels:
        case Mapping():
            return ",".join(_label_text(key, value) for key, value in labels.items())
        case _:
            return labels or None


def _label_text(key: Any, value: Any) -> str:
    match key, value:
        case (_, str(name)):
            values = key
        case (str(name), _):
            values = value
        case _:
            raise UsageError(f"{key!r}: {value!r} names no label", "labels", "Give {1: 'anterior', 2: 'posterior'}")
    if set(name) & set(",="):
        raise UsageError(f"the name {name!r} holds a comma or an equals sign", "labels", "Choose another name")
    numbers = values if isinstance(values, list | tuple) else [values]
    return f"{'+'.join(map(str, numbers))}={name}"


def parse_columns(column: Columns | None) -> dict[str, str]:
    """{role: column}. column: such a mapping, or "image=filename,label=finding", or several such texts."""
    match column:
        case None:
            return {}
        case Mapping():
            return dict(column)
        case str():
            return parse_pairs(column.split(","), "--column")
        case _:
            return parse_pairs([pair for text in column for pair in text.split(",")], "--column")


def parse_pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """{name: value} of texts such as "name=value"; UsageError where one lacks either, or a name has two values."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise UsageError(f"{text!r} is not of the form name=value", flag, "Write it as name=value")
        if values.setdefault(name, value) != value:
            raise UsageError(f"{name} is {values[name]!r} and {value!r}", flag, "Give it once")
    return values
