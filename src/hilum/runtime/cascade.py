"""Further channels of a network's input: the labels that a first stage of a cascade marks in an image, and prompts.

A copy of this file travels with a model: what the first stage's labels become needs NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.runtime.preprocessing import preprocessing
from hilum.runtime.preprocessing.preprocessing import Preprocessing, Streamed
from hilum.runtime.preprocessing.protocol import GridTrace, RegionSource
from hilum.transforms import label_resampling, orient
from hilum.values import Array, Deferred, Image, Label, Prediction, Region, Slabs, slabs, voxel_images
from hilum.values.voxel_images import Reader

if TYPE_CHECKING:
    from hilum.runtime.preprocessing.protocol import ImageSteps, PreprocessingKind, VolumePart
    from hilum.runtime.prompting import PromptSource

# The name of the channel of labels in an image.
EARLIER = "stage before"


def with_stage_labels(
    image: Image, image_steps: PreprocessingKind, stage: Prediction, labels: Sequence[Label]
) -> tuple[Image, ImageSteps]:
    """The image and its preprocessing with the result of a first stage, whose task has these labels."""
    if isinstance(image_steps, Preprocessing):
        return image, LabelledInput(image_steps, partial(LabelSource, label_numbers(stage, labels)))
    return _with_channel(image, stage), image_steps


@dataclass(frozen=True, eq=False)
class LabelledInput:
    """The preprocessing of one image, with further channels of the network's input after those of the image.

    further: of the way to the network's grid, what is read there of them, (*padded) or (channels, *padded)
    marks:   how many they are
    """

    preprocessing: Preprocessing
    further: Callable[[GridTrace], LabelSource | PromptSource]
    marks: int = 1

    slicewise: ClassVar[bool] = False
    tissue: ClassVar[str] = "none"
    tiles: ClassVar[None] = None

    @property
    def cascade(self) -> float | None:
        """The factor by which the grid of the first stage is coarser."""
        return self.preprocessing.cascade

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], GridTrace]:
        """(channels + further, *padded), held whole, and the trace back."""
        prepared, trace = self.preprocessing(image, where)
        return StackedSource(prepared, self.further(trace)).whole, trace

    def open_image(self, image: Image, where: str) -> tuple[RegionSource, GridTrace]:
        """The same, made region by region where the preprocessing makes the image so."""
        prepared, trace = self.preprocessing.open_image(image, where)
        stacked = StackedSource(prepared, self.further(trace))
        return (stacked if isinstance(prepared, Streamed) else stacked.whole), trace

    def parts(
        self, trace: GridTrace, region: Region | None, patch: Sequence[int], channels: int
    ) -> Sequence[VolumePart]:
        """The same as without labels."""
        return self.preprocessing.parts(trace, region, patch, channels)

    def restore(self, output_slabs: Slabs, trace: GridTrace, part: Region | None = None) -> Slabs:
        """The same as without labels."""
        return self.preprocessing.restore(output_slabs, trace, part)


@dataclass(frozen=True, eq=False)
class StackedSource:
    """(channels + further, *padded): an image, and what else the network sees, region by region."""

    image: RegionSource
    further: LabelSource | PromptSource

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels + further, *padded)."""
        channels, *spatial = self.image.shape
        return (channels + math.prod(self.further.shape[: -len(spatial)]), *spatial)

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        image = np.asarray(self.image[(slice(None), *region[1:])])
        further = np.reshape(self.further[region[1:]], (-1, *image.shape[1:]))
        return np.concatenate([image, further.astype(np.float32)])[region[0]]

    @property
    def whole(self) -> NDArray[np.float32]:
        """All of it, held."""
        return self[tuple(slice(0, size) for size in self.shape)]


@dataclass(eq=False)
class LabelSource:
    """(*padded) numbers of labels on the network's grid, region by region, equal to `Preprocessing.labels`.

    outside: their value beyond the image; None continues its edge
    """

    numbers: Array | Deferred
    trace: GridTrace
    outside: int | None = 0
    _read: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._read = voxel_images.reader_of(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        """(*padded)."""
        return self.trace.padded_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the numbers."""
        return self.numbers.dtype

    def __getitem__(self, region: Region) -> NDArray[Any]:
        trace = self.trace
        inner, rows = preprocessing.padded_region(trace, region)
        axes = list(zip(trace.kept_shape, trace.shape, inner, strict=True))
        source, steps = preprocessing.source_region(
            [label_resampling.label_taps(old, new).part(part) for old, new, part in axes]
        )
        read = np.asarray(self._read(trace.region(source)))
        if trace.squeezed is not None:
            read = read.squeeze(trace.squeezed)
        turned = orient.permute_axes(read[None], trace.axes, trace.flips)[0]
        order = slabs.memory_order(turned)  # of two layouts the one of the result is turned, which is smaller
        won = label_resampling.vote_on_slab(
            np.ascontiguousarray(turned.transpose(order)), [steps[axis] for axis in order]
        )
        labels = won.astype(self.dtype, copy=False).transpose(np.argsort(order))
        for axis, (along, size) in enumerate(zip(rows, trace.shape, strict=True)):
            if len(along) == labels.shape[axis]:
                continue
            labels = labels.take(np.clip(along, 0, size - 1) - inner[axis].start, axis)
            if self.outside is not None:
                np.moveaxis(labels, axis, 0)[(along < 0) | (along >= size)] = self.outside
        return labels


def label_numbers(prediction: Prediction, labels: Sequence[Label]) -> Deferred:
    """(*spatial) label values of a result as numbers: 0 for the background, then the labels in their order."""
    values = [0, *(label.value for label in labels)]
    table = np.zeros(max(values) + 1, np.min_scalar_type(len(values)))
    table[values] = range(len(values))
    data = prediction.data
    assert data is not None  # noqa: S101 - a task that cascades has a label map
    return Deferred(tuple(data.shape), table.dtype, partial(_whole, data, table), None, partial(_in_parts, data, table))


def _whole(data: Array | Deferred, table: Array) -> Array:
    return np.asarray(table[np.asarray(data)])


def _in_parts(data: Array | Deferred, table: Array) -> Reader:
    read = voxel_images.reader_of(data)
    return lambda region: table[np.asarray(read(region))]


def _with_channel(image: Image, stage: Prediction) -> Image:
    """The image with the label map as its last channel, as the preprocessing of other programs takes it."""
    return Image(
        np.concatenate([image.data.astype(np.float32, copy=False), np.asarray(stage.data)[None]]),
        image.geometry,
        modality=image.modality,
        channels=(*image.channels, EARLIER),
        padding=image.padding,
        source=image.source,
    )
