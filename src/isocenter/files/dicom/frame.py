"""One frame of a DICOM image: where it is kept, where it lies, and what tells it from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from isocenter.errors import GeometryError
from isocenter.files.dicom.geometry import Plane, checked_plane
from isocenter.files.dicom.tags import named, number, numbers

# What may tell frames at one position apart, in the order in which it is tried.
TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION = "temporal position", "frame time", "trigger time", "acquisition number"
B_VALUE, DIRECTION, ECHO = "b-value", "gradient direction", "echo time"

Label = float | tuple[float, ...]
Labels = Mapping[str, Label]


@dataclass(frozen=True)
class Frame:
    """One plane of voxels, and where in which file it is.

    number:    frame in the file, from 0; tile: of a mosaic, and how many a side
    shape:     (rows, columns)
    thickness: (mm, the attribute that says so): the step where there is only one slice
    order:     (instance number, frame number, tile)
    stack:     of an enhanced object that declares several
    kind:      what is shown: magnitude, phase, ...
    time:      s, of acquisition; only differences mean something
    labels:    {what may tell it apart: value}
    """

    path: Path
    shape: tuple[int, int]
    number: int = 0
    tile: int | None = None
    side: int = 1
    plane: Plane | None = None
    thickness: tuple[float, str] | None = None
    frame_of_reference: str | None = None
    uid: str = ""
    order: tuple[int, int, int] = (0, 0, 0)
    stack: str = ""
    kind: str = ""
    time: float | None = None
    labels: Labels = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages: the file, and the frame where there are several."""
        place = f" frame {self.number + 1}" if self.number else ""
        return f"{self.path.name}{place}" + (f" tile {self.tile + 1}" if self.tile else "")


def plane_of(sources: list[Dataset], where: str, *, required: bool) -> Plane | None:
    """The plane that the first of these items with the attribute tells, None where there is none.

    Raises GeometryError where one part is there and another is missing.
    """
    position = _first(sources, "ImagePositionPatient", where, 3)
    orientation = _first(sources, "ImageOrientationPatient", where, 6)
    spacing = _first(sources, "PixelSpacing", where, 2)
    if position is None and orientation is None:
        return None
    told = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, "PixelSpacing": spacing}
    if position is not None and orientation is not None and spacing is not None:
        return checked_plane(position, orientation, spacing, where)
    if not required:
        return None
    missing = next(keyword for keyword, value in told.items() if value is None)
    raise GeometryError(
        f"{named(missing)} is missing, so it cannot be known where the voxels lie",
        where,
        "Export the series again with all attributes",
    )


def _first(sources: list[Dataset], keyword: str, where: str, count: int) -> tuple[float, ...] | None:
    for source in sources:
        found = numbers(source, keyword, where, count)
        if found is not None:
            return found
    return None


def thickness_of(dataset: Dataset, where: str) -> tuple[float, str] | None:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = number(dataset, keyword, where)
        if value:  # absent and 0 say the same: not known; NM counts against the normal with a minus
            return value, keyword
    return None
