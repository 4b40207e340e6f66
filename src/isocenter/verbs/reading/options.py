"""Options that say how a data set is read, as every verb takes them and a plan keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from isocenter.errors import PlanError
from isocenter.files import Part

# Options that make other voxels of the same files.
VOXELS = ("part", "prefer", "fill_missing", "align")
# The option of a plan that is no reading option: it trains on every case.
EVERYTHING = "everything"


class ReadingKeywords(TypedDict, total=False):
    """The keyword arguments of a verb that reads data; each is a field of `ReadingOptions`."""

    layout: str | None
    labels: str | None
    patient: str | None
    column: Mapping[str, str] | None
    modality: str | None
    part: Part | None
    prefer: Literal["sform", "qform"] | None
    fill_missing: bool
    align: bool


@dataclass(frozen=True)
class ReadingOptions:
    """How a data set is read; without an option the files decide.

    layout:   the layout of the folder, by name
    labels:   names of the values, "1=anterior,2=posterior"; "each=NAME" where each number is one object
    patient:  a column, or a regular expression on the case's name
    column:   {role: column} of a table
    modality: of all images, where the files do not say
    part:     of complex voxels: "magnitude", "real", "imaginary" or "phase"
    prefer:   "sform" or "qform", where the two of a NIfTI file disagree
    fill_missing: keep a series with gaps; the missing slices become padding
    align:    resample the images of a case onto the grid of its first
    """

    layout: str | None = None
    labels: str | None = None
    patient: str | None = None
    column: Mapping[str, str] | None = None
    modality: str | None = None
    part: Part | None = None
    prefer: Literal["sform", "qform"] | None = None
    fill_missing: bool = False
    align: bool = False

    @classmethod
    def of_plan(cls, options: Mapping[str, Any]) -> ReadingOptions:
        """Return the reading options among those that a plan keeps; PlanError for an unknown one."""
        names = [field.name for field in fields(cls)]
        if unknown := sorted({*options} - {*names, EVERYTHING}):
            raise PlanError(f"{', '.join(unknown)}: no reading option", "options", f"Choose of {', '.join(names)}")
        return cls(**{name: value for name, value in options.items() if name != EVERYTHING})

    @property
    def chosen(self) -> dict[str, Any]:
        """{name: value} of the options that differ from the default, as a plan keeps them."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value}

    @property
    def of_voxels(self) -> dict[str, Any]:
        """{name: value} of the chosen options that make other voxels of the same files."""
        return {name: value for name, value in self.chosen.items() if name in VOXELS}

    def overridden(self, options: ReadingOptions) -> ReadingOptions:
        """Return these options, with those in their place that the others choose."""
        return ReadingOptions(**{**self.chosen, **options.chosen})
