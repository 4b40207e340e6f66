"""A MONAI bundle's own transforms: what its network sees of an image, and its outputs on the image's own grid."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import DatasetError, GeometryError, counted
from isocenter.lazy import monai as lazy_monai
from isocenter.lazy import torch
from isocenter.runtime.foreign.monai_config import REMEDY
from isocenter.runtime.foreign.monai_grid import Change, Regions, changes, single
from isocenter.runtime.foreign.output_activation import log_odds, logarithm
from isocenter.runtime.freed_memory import give_back
from isocenter.runtime.preprocessing.columns import parts_of
from isocenter.runtime.preprocessing.protocol import Held, Part, Source
from isocenter.runtime.preprocessing.restore import restored
from isocenter.runtime.preprocessing.trace import Trace
from isocenter.transforms import COLOUR, Stretched, padding
from isocenter.values import MM, Array, Geometry, Image, Region, Slabs

if TYPE_CHECKING:
    from torch import Tensor

monai: Any = lazy_monai  # its types do not say what a transform takes
KIND = "monai"
KEY = "image"
# Volumes that would take more than this as float32 are prepared part by part: MONAI holds several copies of them.
STREAMED_BYTES = 2**26
# Bytes a voxel while MONAI resamples: three coordinates and the intensity in double precision, and two in single.
COPIES = 40

# The one output of such a network.
HEAD = "mask"
# A picture (row, column) as (column, row).
TURN = Change((1, 0), (False, False), (None, None))


@dataclass(frozen=True, eq=False)
class Transformed:
    """Outcome of the transforms for MONAI to undo them, and with how many zeros a small image was surrounded.

    Only where they cannot be undone axis by axis: else there is a trace.
    turned: whether MONAI knows the picture as (column, row)
    """

    source: Geometry
    image: Any
    pad: Sequence[tuple[int, int]]
    turned: bool = False
    squeezed: None = None


@dataclass(frozen=True, eq=False)
class MonaiTransforms:
    """The bundle's own preprocessing, undone as MONAI undoes it: what went through the network, interpolated linearly.

    exclusive: whether outputs become probabilities by a softmax or by a sigmoid, before they are brought back
    columns_first: whether MONAI reads a picture as (column, row)
    """

    channels: tuple[str, ...]
    ndim: int
    transform: Any
    exclusive: bool
    patch: tuple[int, ...]
    columns_first: bool = True
    modality: str = "unknown"
    spacing: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: {"kind": KIND})

    unit = MM
    frames = None
    interval = None
    reduction = 1.0
    cascade = None

    @property
    def order_of_axes(self) -> tuple[int, ...]:
        """The image's own order."""
        return tuple(range(self.ndim))

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], Trace | Transformed]:
        """(channels, *spatial); DatasetError for other channels, GeometryError for other axes."""
        self._check(image, where)
        turned = self._turns(image)
        data, geometry = (
            (image.data.swapaxes(1, 2), _turned(image.geometry)) if turned else (image.data, image.geometry)
        )
        pixels = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
        prepared = self.transform({KEY: _with_affine(pixels, geometry)})[KEY]
        pad = padding(tuple(prepared.shape[1:]), self.patch)  # as MONAI's own windows have it
        seen = np.pad(np.asarray(prepared.numpy(), dtype=np.float32), [(0, 0), *pad])
        made = changes(prepared.applied_operations, prepared.affine, prepared.shape[1:], pad, geometry)
        if made is None:
            return np.ascontiguousarray(seen), Transformed(image.geometry, prepared, pad, turned)
        trace = made[0].by_smallest_plane()
        return np.ascontiguousarray(seen), _from_rows(trace, image.geometry) if turned else trace

    def _turns(self, image: Image) -> bool:
        """Whether MONAI knows a picture as (column, row): its readers give it so, but for arrays of NumPy."""
        of_numpy = image.source is not None and image.source.format == "numpy"
        return image.geometry.is_picture and self.columns_first and not of_numpy

    def _check(self, image: Image, where: str) -> None:
        if len(image.channels) != len(self.channels):
            problem = f"has {counted(len(image.channels), 'channel')} ({', '.join(image.channels)}), the model expects "
            problem += f"{len(self.channels)} ({', '.join(self.channels)})"
            raise DatasetError(problem, where, f"Give {', '.join(self.channels)}, in that order")
        if not _may_be(image.channels, self.channels):
            problem = f"channels {', '.join(image.channels)} are not the model's {', '.join(self.channels)}"
            remedy = "Name and order the images as the bundle's metadata.json does, or number them CASE_0000, CASE_0001"
            raise DatasetError(problem, where, remedy)
        if image.geometry.ndim != self.ndim or image.frames is not None:
            raise GeometryError(f"has not {self.ndim} axes", where, "Give images of the kind it was trained on")

    def opened(self, image: Image, where: str) -> tuple[Source, Trace | Transformed]:
        """The same as a call, but of a large volume only what is asked for is made, and it is never held."""
        self._check(image, where)
        foreseen = self._foreseen(image.geometry, self._turns(image))
        if 4 * math.prod(image.shape) < STREAMED_BYTES or foreseen.trace is None or foreseen.steps is None:
            return self(image, where)
        shape, walk = (len(self.channels), *foreseen.trace.padded), foreseen.trace.slice_order
        return Regions(image, shape, walk, foreseen.steps), foreseen.trace

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """All channels: an image with fewer is refused."""
        return (True,) * len(self.channels)

    def parts(
        self, trace: Trace | Transformed, region: Region | None, patch: Sequence[int], channels: int
    ) -> Sequence[Part]:
        """Columns of what is wanted; all at once where MONAI itself has to undo its transforms."""
        return parts_of(trace, region, patch, channels) if isinstance(trace, Trace) else (Part(),)

    def restored(
        self, slabs: Slabs, trace: Trace | Transformed, part: Region | None = None
    ) -> Iterator[tuple[Region, Mapping[str, Any]]]:
        """Outputs whose probabilities are those that were brought back; numbers of another name, as they are."""
        then = logarithm if self.exclusive else log_odds
        likely = ((region, {name: self._likely(name, one) for name, one in arrays.items()}) for region, arrays in slabs)
        if isinstance(trace, Transformed):
            name, whole = self._whole(likely, trace)
            yield tuple(slice(0, size) for size in trace.source.shape), {name: then(whole) if name == HEAD else whole}
            return
        for region, arrays in restored(likely, trace, part):
            if HEAD not in arrays:
                yield region, arrays
                continue
            back = arrays[HEAD]
            if not isinstance(back, Stretched):
                back = Stretched(back, (None,) * self.ndim, tuple(range(self.ndim)))
            yield region, {HEAD: replace(back, then=then)}
            give_back()  # parts come and go between sums that stay: a sixth of the peak at 100 classes

    def _likely(self, name: str, outputs: Array) -> Array:
        """Probabilities of the network's own output."""
        return self._probabilities(outputs) if name == HEAD else outputs

    def _probabilities(self, outputs: Array) -> NDArray[np.float32]:
        logits = torch.from_numpy(np.ascontiguousarray(outputs, dtype=np.float32))
        return np.asarray((logits.softmax(dim=0) if self.exclusive else logits.sigmoid()).numpy())

    def _whole(self, likely: Slabs, trace: Transformed) -> tuple[str, NDArray[np.float32]]:
        """The one output's name, and its numbers on the source grid, as MONAI undoes its steps: class by class."""
        inner = tuple(slice(low, low + n) for (low, _), n in zip(trace.pad, trace.image.shape[1:], strict=True))
        there, outputs, name = np.empty(0, np.float32), np.empty(0, np.float32), HEAD
        for (rows, *plane), arrays in likely:
            [(name, given)] = arrays.items()
            if not there.size:
                sizes = [n + low + high for (low, high), n in zip(trace.pad, trace.image.shape[1:], strict=True)]
                there = np.empty((len(given), *sizes), np.float32)
                outputs = np.empty((len(there), *trace.source.shape), np.float32)
            there[(slice(None), rows, *plane)] = given
        for number in range(len(there)):
            operations = copy.deepcopy(trace.image.applied_operations)  # undoing takes notes apart
            pixels = torch.from_numpy(there[(slice(number, number + 1), *inner)])
            image = monai.data.MetaTensor(pixels, affine=trace.image.affine, applied_operations=operations)
            with monai.transforms.utils.allow_missing_keys_mode(self.transform):
                back = self.transform.inverse({KEY: image})[KEY][0]
            back = back.swapaxes(0, 1) if trace.turned else back
            if tuple(back.shape) != trace.source.shape:
                raise GeometryError("its transforms cannot be undone", "the bundle", REMEDY)
            outputs[number] = back
        return name, outputs

    def held(self, geometry: Geometry) -> Held:
        """Forecast by what its steps would do to an image of this geometry; no voxel is looked at."""
        if geometry.ndim != self.ndim:
            return Held()
        foreseen = self._foreseen(geometry, geometry.is_picture and self.columns_first)
        streamed = None if foreseen.steps is None else STREAMED_BYTES
        return Held(streamed, foreseen.trace is not None, foreseen.shape, COPIES)

    def _foreseen(self, source: Geometry, turned: bool) -> Foreseen:
        geometry = _turned(source) if turned else source
        image = _with_affine(torch.zeros(1).expand(1, *geometry.shape), geometry)
        kinds = monai.transforms
        chain: list[Any] | None = []
        for step in self.transform.transforms:
            if isinstance(step, kinds.LazyTransform) and not isinstance(step, kinds.CropForegroundd):
                noted = len(image.pending_operations)
                image = step({KEY: image}, lazy=True)[KEY]
                chain = None if chain is None else [*chain, *image.pending_operations[noted:]]
            else:
                # What is cut away of an image depends on its voxels, and goes back axis by axis all the same.
                chain = None if chain is None or not _of_each_voxel(step) else [*chain, step]
        shape = tuple(int(size) for size in image.peek_pending_shape())
        pad = padding(shape, self.patch)
        made = changes(image.pending_operations, image.peek_pending_affine(), shape, pad, geometry)
        if made is None:
            return Foreseen(shape, None, None)
        trace, each = made
        steps = None if chain is None else _in_order(chain, each)
        if not turned:
            return Foreseen(shape, trace, steps)
        return Foreseen(shape, _from_rows(trace, source), None if steps is None else [TURN, *steps])


@dataclass(frozen=True, eq=False)
class Foreseen:
    """Forecast of what a bundle's steps make of an image of which only the header is known.

    shape: before it is padded to a window; all of it, where voxels decide what is cut away
    trace: None where MONAI has to undo them for the whole image
    steps: as `Regions` has them; None where one of them looks at all voxels together
    """

    shape: tuple[int, ...]
    trace: Trace | None
    steps: Sequence[Change | Callable[[NDArray[np.float32]], NDArray[np.float32]]] | None


def _in_order(chain: Sequence[Any], each: Sequence[Change]) -> list[Any]:
    """Functions of intensities, and changes of the grid in place of MONAI's notes of them; the padding comes last."""
    left, steps = list(each), list[Any]()
    for step in chain:
        if isinstance(step, Mapping):
            steps += [left.pop(0) for _ in single([step])]
        else:
            steps.append(partial(_changed, step))
    return [*steps, *left]


def _changed(step: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    changed = step({KEY: monai.data.MetaTensor(torch.from_numpy(np.ascontiguousarray(pixels)))})[KEY]
    return np.asarray(changed.numpy(), dtype=np.float32)


def _of_each_voxel(step: Any) -> bool:
    """Whether what becomes of a voxel depends on its own intensity alone."""
    kinds = monai.transforms
    if isinstance(step, kinds.NormalizeIntensityd):
        own = step.normalizer
        return own.subtrahend is not None and own.divisor is not None
    return isinstance(
        step, (kinds.ScaleIntensityRanged, kinds.ThresholdIntensityd, kinds.EnsureTyped, kinds.CastToTyped)
    )


def _may_be(given: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether channels may be those of a model in this order, by their names as far as both have any."""
    numbered = [str(number) for number in range(len(expected))]
    ours, theirs = ([name.strip().casefold() for name in names] for names in (given, expected))
    named = len(set(theirs)) == len(theirs) and theirs != numbered
    if len(expected) < 2 or not named or ours in (theirs, numbered):
        return True
    # A picture has its colours in this one order, whatever a bundle calls them.
    colours, initials = [name.casefold() for name in COLOUR], [name[:1] for name in theirs]
    return ours == colours and (initials == colours or sorted(initials) != sorted(colours))


def _turned(picture: Geometry) -> Geometry:
    """The grid of a picture (row, column) as (column, row); its first axis in mm stays that of its first index."""
    order = [1, 0, 2]
    return replace(picture, shape=picture.shape[::-1], affine=picture.affine[np.ix_(order, order)])


def _from_rows(trace: Trace, picture: Geometry) -> Trace:
    """The way of a picture (row, column), of which MONAI knows (column, row)."""
    return replace(trace, source=picture, axes=tuple(1 - axis for axis in trace.axes))


def _with_affine(pixels: Tensor, geometry: Geometry) -> Any:
    """(channels, *spatial) as MONAI knows where it lies."""
    affine, ndim = np.eye(4), geometry.ndim
    affine[:ndim, :ndim], affine[:ndim, 3] = geometry.affine[:-1, :-1], geometry.affine[:-1, -1]
    return monai.data.MetaTensor(pixels, affine=torch.from_numpy(affine))
