"""What a network is asked for, what it is taught, and what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from isocenter.values.boxes import BoundingBoxes
from isocenter.values.geometry import Geometry
from isocenter.values.image import Array, Code, Deferred, Label

Region = tuple[slice, ...]
# Finished parts of the source grid, in order, each with one array a head: (channels, *region) or (channels,).
Slabs = Iterable[tuple[Region, Mapping[str, Array]]]


@dataclass(frozen=True)
class Vector:
    """A head of `size` numbers for the whole image.

    holds: "classes", one number each, of which the largest wins; or "numbers", quantities that may be sizes, so that
           the image keeps its scale
    """

    size: int
    holds: Literal["classes", "numbers"] = "classes"


@dataclass(frozen=True)
class Dense:
    """A head of `channels` numbers for every voxel.

    lengths, offsets: so many of the last channels are lengths along the axes, one an axis, and after them a vector:
                      both in any unit of voxels of the network's grid. They turn, mirror and stretch with the grid
    """

    channels: int
    lengths: int = 0
    offsets: int = 0

    @property
    def plain(self) -> int:
        """Of the channels, how many have nothing to do with the grid's axes."""
        return self.channels - self.lengths - self.offsets


@dataclass(frozen=True)
class Points:
    """A head of heat maps, one a kind of point."""

    kinds: int


@dataclass(frozen=True)
class Boxes:
    """Boxes, each of one of so many classes."""

    classes: int


@dataclass(frozen=True)
class Field:
    """A head of vectors for every voxel, in voxels of the input grid."""

    components: int


Head = Vector | Dense | Points | Boxes | Field


@dataclass(frozen=True, eq=False)
class Target:
    """What a network is taught about one case; the kind says how it is cropped, warped and batched.

    head: Vector data are stacked as they are; Dense data, (*spatial) of label values, follow the image voxel by voxel;
          Boxes data, (n, 1 + 2 * axes) of class, where it begins on every axis and where it ends (edges in voxels),
          follow it by their corners
    """

    head: Head
    data: Array


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a task decodes to.

    probabilities: {class: probability} for the whole image
    data:          (*spatial) label map on the source grid, possibly Deferred
    labels:        what the values of `data` mean
    values:        {target: number} for tasks that measure
    uncertainty:   of `values`, one standard deviation each in their order
    boxes:         with scores, on the source grid
    frames:        of a clip that was looked at frame by frame, each frame's own; `data` is then (frames, *spatial)
    abstained:     why the model gave no answer, where it gave none
    """

    geometry: Geometry
    probabilities: Mapping[str, float] | None = None
    data: Array | Deferred | None = None
    uncertainty: Array | float | None = None
    abstained: str | None = None
    labels: tuple[Label, ...] = ()
    values: Mapping[str, float] | None = None
    boxes: BoundingBoxes | None = None
    frames: tuple[Prediction, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One result that a report, a DICOM SR or a FHIR resource states."""

    concept: str
    value: Any = None
    unit: str = ""
    probability: float | None = None
    code: Code | None = None
