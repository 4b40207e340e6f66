"""File formats: the values by which one is recognised, read and, for some, written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np

from hilum.errors import FormatError, UsageError
from hilum.values import Array, FactRule, Image, Setting, grid_geometry

Part = Literal["magnitude", "real", "imaginary", "phase"]
Prefer = Literal["sform", "qform"]
# What the pages of a TIFF are, where they are no frames: bands, or wavelengths, of one picture.
Pages = Literal["bands"]
# What DICOM cases may be called by: the number of their series, or its description.
CaseNames = Literal["number", "description"]


@dataclass(frozen=True, kw_only=True)
class FileChoices:
    """Choices of the caller where a file leaves several readings open.

    Raises UsageError for a part, a form or an orientation that does not exist.
    """

    part: Annotated[
        Part | None, Setting("Part of complex voxels to read: magnitude, real, imaginary or phase.", "NAME")
    ] = None
    prefer: Annotated[
        Prefer | None, Setting("Transform of a NIfTI file to use where the two disagree: sform or qform.", "FORM")
    ] = None
    orientation: Annotated[
        str | None,
        Setting("Directions in which the axes of volumes grow whose files state none, such as RAS or LPS.", "LETTERS"),
    ] = None
    mm_per_pixel: Annotated[
        float | None, Setting("Size of a pixel (mm) of slides and pictures whose files state none.", "MM")
    ] = None
    pages: Annotated[Pages | None, Setting("Pages of a TIFF as channels of one picture: bands.", "NAME")] = None
    fill_missing: Annotated[bool, Setting("Accept a series with missing slices; they become padding.")] = False
    fill_contours: Annotated[
        bool, Setting("Interpolate contours of DICOM structure sets between contoured slices.")
    ] = False

    def __post_init__(self) -> None:
        refuse_no_orientation(self.orientation)
        if self.mm_per_pixel is not None and not 0 < self.mm_per_pixel < math.inf:
            raise UsageError(f"a pixel of {self.mm_per_pixel} mm", "--mm-per-pixel", "Give a number above 0")
        for name, kinds in (("part", Part), ("prefer", Prefer), ("pages", Pages)):
            value = getattr(self, name)
            if value is not None and value not in get_args(kinds):
                raise UsageError(f"there is no {value!r}", f"--{name}", f"Choose {' or '.join(get_args(kinds))}")

    def state_missing(self, image: Image) -> Image:
        """The image with the orientation and the size of a pixel that the choices state where its file does not."""
        turned = image if self.orientation is None else image.along(self.orientation)
        return turned if self.mm_per_pixel is None else turned.with_mm_per_pixel(self.mm_per_pixel)


@dataclass(frozen=True, kw_only=True)
class ReadOptions(FileChoices):
    """Choices for one file, those of a format's own reader included.

    real_world:   apply a DICOM Real World Value Mapping, PS3.3 C.7.6.16.2.11
    stored:       keep the pixels of pictures as they are stored, where EXIF would turn them upright
    background:   of label maps in which 0 is a structure: the value around the structures, which is exchanged with 0
    """

    real_world: bool = False
    stored: bool = False
    background: int = 0


@dataclass(frozen=True)
class ImageOptions(FileChoices):
    """Read one image.

    path:       a file, or a folder of DICOM
    volume:     one of several that lie on different grids
    real_world: apply a DICOM Real World Value Mapping
    """

    path: str | Path
    volume: str | None = None
    _: KW_ONLY
    real_world: bool = False


def refuse_no_orientation(letters: str | None) -> None:
    """Raise UsageError for letters that are no orientation; None states nothing."""
    if letters is not None and not grid_geometry.is_orientation(letters):
        remedy = "Give three letters, one of each pair L or R, P or A, I or S: the directions in which the axes grow"
        raise UsageError(f"{letters!r} is no orientation", "--orientation", f"{remedy}, as in RAS or LPS")


def _itself(path: Path) -> tuple[Path, ...]:
    return (path,)


@dataclass(frozen=True)
class Format:
    """One file format.

    read:       all volumes of a file (or, for DICOM, of a folder), by name; several where the grids differ
    write:      to exactly this path, which does not exist; refuses with FormatError what the format cannot hold
    references: {kind: function that reads it} of references in an image's own file; `FormatEntry` names the kinds
    parts:      of a file that `FormatEntry` calls detached: all files that its image is read from
    facts:      what is done with what its files state of themselves: rows of the table of docs/stated-facts.md
    """

    name: str
    read: Callable[[Path, ReadOptions], Mapping[str, Image]]
    write: Callable[[Image, Path], None] | None = None
    references: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)
    parts: Callable[[Path], Sequence[Path]] = _itself
    facts: tuple[FactRule, ...] = ()


@dataclass(frozen=True)
class FormatEntry:
    """A format's line in the index: enough to recognise it without importing it.

    target:     "module:name" of the Format
    suffixes:   lower case, longest first where one ends another
    magic:      (offset, bytes) of which one stands in every file, as far as the format has one
    references: kinds of reference that every file holds beside its image
    detached:   suffixes of files whose voxels may stand in another file
    over:       formats that know such files by their first bytes, and of which the suffixes decide
    """

    target: str
    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...] = ()
    references: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


PARTS: dict[Part, Callable[[Array], Array]] = {
    "magnitude": np.abs,
    "real": np.real,
    "imaginary": np.imag,
    "phase": np.angle,
}


def real_part(values: Array, part: Part | None, where: str) -> Array:
    """Real values as they are, of complex ones the part that was asked for.

    Raises FormatError where none was.
    """
    if not np.iscomplexobj(values):
        return values
    if part is None:
        raise FormatError("holds complex values", where, "Choose with --part magnitude|real|imaginary|phase")
    return PARTS[part](values)
