"""Options that say how a data set is read, as every verb takes them and a plan keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict, Unpack

from isocenter.errors import PlanError, UsageError
from isocenter.files import CaseNames, Part, Prefer, refuse_no_orientation
from isocenter.planning import COVARIATES, EVERYTHING, FURTHER, LEAVE_OUT
from isocenter.reading.alignment import Alignment, refuse_no_alignment
from isocenter.reading.name_values import pairs

# Options that make other voxels of the same files, and those that make other references too.
VOXELS = ("part", "prefer", "orientation", "fill_missing", "fill_contours", "align")
DECISIVE = ("layout", "labels", "class_rule", "column", "exif", *VOXELS)
# The reading option by which cases out of all proportion are kept.
ALLOW_LARGE = "allow_large"


# Names of label values: "1=anterior,2=posterior", {1: "anterior"}, or {"anterior": 1} as in dataset.json.
Labels = str | Mapping[Any, Any]
# Columns of a table by role: "image=filename,label=finding", several such texts, or {"image": "filename"}.
Columns = str | Sequence[str] | Mapping[str, str]


class ReadingKeywords(TypedDict, total=False):
    """The keyword arguments of a verb that reads data, as `ReadingOptions.of` takes them."""

    layout: str | None
    labels: Labels | None
    patient: str | None
    class_rule: str | None
    column: Columns | None
    modality: str | None
    part: Part | None
    prefer: Prefer | None
    orientation: str | None
    fill_missing: bool
    fill_contours: bool
    align: Alignment | None
    case_names: CaseNames | None
    accept: str | None
    order: str | Sequence[str] | None
    exif: str | None
    allow_large: bool


@dataclass(frozen=True)
class ReadingOptions:
    """Options for reading a data set; where one is not given, the files decide.

    layout:   the layout of the folder, by name
    labels:   names of the values, "1=anterior,2=posterior"; "each=NAME" where each number is one object
    patient:  a column, or a regular expression on the case's name
    class_rule: a regular expression on the case's name, whose first group is the class
    column:   {role: column} of a table
    modality: of all images, where the files do not say
    part:     of complex voxels: "magnitude", "real", "imaginary" or "phase"
    prefer:   "sform" or "qform", where the two of a NIfTI file disagree
    orientation: of volumes whose files state none, as "RAS" or "LPS": the direction in which each axis grows
    fill_missing: keep a series with gaps; the missing slices become padding
    fill_contours: interpolate the contours of structure sets between the slices on which they are drawn
    align:    bring the images of a case onto the grid of its first: by the "world" of their headers, or "register" them
    case_names: "description" calls a DICOM case by the description of its series: free text, which may name people
    exif:     whether references lie on the "stored" pixels of photographs, or on those that EXIF turns "upright"
    order:    the classes from the lowest grade to the highest, "mild,moderate,severe"
    accept:   findings that would forbid training and are accepted, by name: "mixed-scale"
    allow_large: keep cases that are out of all proportion to the others, or to those that trained the model
    Raises UsageError for an orientation that does not exist.
    """

    layout: str | None = None
    labels: str | None = None
    patient: str | None = None
    class_rule: str | None = None
    column: Mapping[str, str] | None = None
    modality: str | None = None
    part: Part | None = None
    prefer: Prefer | None = None
    orientation: str | None = None
    fill_missing: bool = False
    fill_contours: bool = False
    align: Alignment | None = None
    case_names: CaseNames | None = None
    exif: str | None = None
    order: str | None = None
    accept: str | None = None
    allow_large: bool = False

    def __post_init__(self) -> None:
        refuse_no_orientation(self.orientation)
        refuse_no_alignment(self.align)

    @classmethod
    def of(cls, **keywords: Unpack[ReadingKeywords]) -> ReadingOptions:
        """Return the options that keywords state: labels and columns as text or as a mapping.

        Raises UsageError for text without a name and a value, or a name that the text form cannot hold.
        """
        values: dict[str, Any] = {**keywords}
        values |= {"labels": labels_text(keywords.get("labels")), "column": columns_of(keywords.get("column")) or None}
        if (order := keywords.get("order")) is not None and not isinstance(order, str):
            values["order"] = ",".join(order)
        return cls(**values)

    @classmethod
    def of_plan(cls, options: Mapping[str, Any]) -> ReadingOptions:
        """Return the reading options among those that a plan keeps; PlanError for an unknown one."""
        names = [field.name for field in fields(cls)]
        if unknown := sorted({*options} - {*names, EVERYTHING, COVARIATES, FURTHER, LEAVE_OUT}):
            raise PlanError(f"{', '.join(unknown)}: no reading option", "options", f"Choose from {', '.join(names)}")
        return cls(**{name: value for name, value in options.items() if name in names})

    @property
    def chosen(self) -> dict[str, Any]:
        """{name: value} of the options that differ from the default, as a plan keeps them."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value}

    @property
    def decisive(self) -> dict[str, Any]:
        """{name: value} of the chosen options that make other voxels of the same files, or other references."""
        return {name: value for name, value in self.chosen.items() if name in DECISIVE}

    def overridden(self, options: ReadingOptions) -> ReadingOptions:
        """Return these options, with those in their place that the others choose."""
        return ReadingOptions(**{**self.chosen, **options.chosen})


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


def columns_of(column: Columns | None) -> dict[str, str]:
    """{role: column}. column: such a mapping, or "image=filename,label=finding", or several such texts."""
    match column:
        case None:
            return {}
        case Mapping():
            return dict(column)
        case str():
            return pairs(column.split(","), "--column")
        case _:
            return pairs([pair for text in column for pair in text.split(",")], "--column")
