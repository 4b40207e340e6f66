"""The protocol of preprocessing: from an image to the network's input, and from outputs back to the image's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from isocenter.runtime.preprocessing.trace import SliceOrder
from isocenter.values import Array, Geometry, Image, Region, Slabs


def as_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a record with tuples in place of lists, as frozen values hold them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def as_lists(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a frozen value with lists in place of tuples, as records hold them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


@dataclass(frozen=True)
class Part:
    """A part of a volume that is predicted at a time; None stands for all of it.

    kept:   on the grid on which slabs are restored
    needed: of the grid that the network sees, for that
    slice_order: in which the part is walked
    """

    kept: Region | None = None
    needed: Region | None = None
    slice_order: SliceOrder = field(default_factory=SliceOrder)


@dataclass(frozen=True)
class Held:
    """The parts of a large volume that are held while it is predicted.

    streamed: bytes as float32 from which on only parts are held of what the network sees of it; None: always all
    restored: only parts of the outputs on their way back; else all, on the network's grid and on the image's own
    shape:    of what the network sees, before it is padded to a window; None where it follows from the spacing
    copies:   bytes for each voxel of that, where all of it is prepared together: normalised, resampled, padded
    """

    streamed: int | None = None
    restored: bool = True
    shape: tuple[int, ...] | None = None
    copies: int = 8


class Source(Protocol):
    """(channels, *spatial) numbers that are read region by region: an array, or parts that are made on request."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *spatial)."""

    def __getitem__(self, region: tuple[slice, ...], /) -> Array:
        """Numbers of a region; its first slice is of channels."""


class Restores(Protocol):
    """The steps around the network for one image: its input region by region, and outputs on the image's own grid."""

    @property
    def cascade(self) -> float | None:
        """None where the network sees the image alone; else the last channel are numbers of labels marked before."""

    def opened(self, image: Image, where: str) -> tuple[Source, Any]:
        """The same, where what the network sees may be made part by part."""

    def parts(self, trace: Any, region: Region | None, patch: Sequence[int], channels: int) -> Sequence[Part]:
        """The parts that are predicted one after the other, so that the sums of so many channels need not much memory.

        region: of the source's grid, of what nobody wants the rest
        """

    def restored(self, slabs: Slabs, trace: Any, part: Region | None = None) -> Slabs:
        """Finished rows of the network's grid, in the part's slice order, as parts of the source's own grid."""


class Prepares(Restores, Protocol):
    """A kind of preprocessing; `preprocessing_kinds.preprocessing_of` makes one from a model's record."""

    @property
    def ndim(self) -> int:
        """Axes of the network's grid."""

    @property
    def order_of_axes(self) -> tuple[int, ...]:
        """The axis of an upright image (RAS+) that each axis of the network's grid is."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that images have to have, by name and order."""

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """mm between voxels of the network's grid; None where it is the image's own."""

    @property
    def unit(self) -> str:
        """The unit of the spacing: mm, of a series that of its axis."""

    @property
    def frames(self) -> int | None:
        """The number of frames of a clip that are looked at, as further channels; None for still images."""

    @property
    def interval(self) -> float | None:
        """The time from one frame that is looked at to the next; None where they are spread evenly over each clip."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Fixed number of voxels of the network's grid; None where it follows from the image."""

    @property
    def modality(self) -> str:
        """DICOM's word, or "unknown"."""

    @property
    def reduction(self) -> float:
        """The factor by which the network's grid is coarser than the spacing, or the image's own grid, makes it."""

    def held(self, geometry: Geometry) -> Held:
        """The parts of an image of this geometry that are held while it is predicted."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values for a model's record."""

    def __call__(self, image: Image, where: str) -> tuple[Any, Any]:
        """(channels, *padded) as the network sees it, and the way back, which knows its `source` geometry."""

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """Whether the image has each channel; DatasetError where one is missing that the model needs."""
