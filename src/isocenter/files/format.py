"""File formats: the values by which one is recognised, read and, for some, written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from isocenter.errors import UsageError
from isocenter.values import Image, is_orientation

Part = Literal["magnitude", "real", "imaginary", "phase"]
Prefer = Literal["sform", "qform"]


class ReadKeywords(TypedDict, total=False):
    """The keyword arguments of a function that reads single files; each is a field of `ReadOptions`."""

    part: Part | None
    prefer: Prefer | None
    orientation: str | None
    fill_missing: bool
    fill_contours: bool
    real_world: bool


@dataclass(frozen=True)
class ReadOptions:
    """Choices of the caller where a file leaves several readings open.

    part:         of complex voxels; without it they are refused
    prefer:       which NIfTI form to use where both have the same code and disagree
    orientation:  of volumes whose files state none: the direction in which each axis grows, as "RAS" or "LPS"
    fill_missing: keep a DICOM series whose slices have gaps, on the regular grid, missing slices as padding
    fill_contours: interpolate the regions of a DICOM structure set between the slices on which they are drawn
    real_world:   apply a DICOM Real World Value Mapping, PS3.3 C.7.6.16.2.11
    stored:       keep the pixels of pictures as they are stored, where EXIF would turn them upright
    background:   of label maps in which 0 is a structure: the value around the structures, which is exchanged with 0
    Raises UsageError for a part, a form or an orientation that does not exist.
    """

    part: Part | None = None
    prefer: Prefer | None = None
    fill_missing: bool = False
    fill_contours: bool = False
    real_world: bool = False
    stored: bool = False
    background: int = 0
    orientation: str | None = None

    def __post_init__(self) -> None:
        refuse_no_orientation(self.orientation)
        for name, kinds in (("part", Part), ("prefer", Prefer)):
            value = getattr(self, name)
            if value is not None and value not in get_args(kinds):
                raise UsageError(f"there is no {value!r}", f"--{name}", f"Choose {' or '.join(get_args(kinds))}")


def refuse_no_orientation(letters: str | None) -> None:
    """Raise UsageError for letters that are no orientation; None states nothing."""
    if letters is not None and not is_orientation(letters):
        remedy = "Give three letters, one of each pair L or R, P or A, I or S: the directions in which the axes grow"
        raise UsageError(f"{letters!r} is no orientation", "--orientation", f"{remedy}, as in RAS or LPS")


@dataclass(frozen=True)
class Format:
    """One file format.

    read:       all volumes of a file (or, for DICOM, of a folder), by name; several where the grids differ
    write:      to exactly this path, which does not exist; refuses with FormatError what the format cannot hold
    references: {kind: function that reads it} of references that an image's own file holds; `Entry` names the kinds
    """

    name: str
    read: Callable[[Path, ReadOptions], Mapping[str, Image]]
    write: Callable[[Image, Path], None] | None = None
    references: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A format's line in the index: enough to recognise it without importing it.

    target:     "module:name" of the Format
    suffixes:   lower case, longest first where one ends another
    magic:      (offset, bytes) of which one stands in every file, as far as the format has one
    references: kinds of reference that every file holds beside its image
    """

    target: str
    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...] = ()
    references: tuple[str, ...] = ()
