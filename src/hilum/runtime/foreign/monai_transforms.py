"""A MONAI bundle's own transforms: what its network sees of an image, and its outputs on the image's own grid.

MONAI makes and undoes its transforms for whole images only: of each it notes what it did, and those notes are followed
here, axis by axis. Cropping, padding, turning and linear resampling along the image's own axes are the same region by
region, so that they are undone a few rows at a time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, GeometryError
from hilum.lazy import monai as lazy_monai
from hilum.lazy import torch
from hilum.runtime import hardware
from hilum.runtime.foreign import monai_config, output_activation
from hilum.runtime.foreign.monai_config import KEY, REMEDY
from hilum.runtime.preprocessing import image_statistics, preprocessing, restore
from hilum.runtime.preprocessing.image_statistics import BLOCK_VOXELS
from hilum.runtime.preprocessing.protocol import GridTrace, HeldParts, RegionSource, SliceOrder, VolumePart
from hilum.transforms import COLOUR, label_resampling, orient
from hilum.transforms.label_resampling import StretchedOutputs
from hilum.transforms.resampling import Taps
from hilum.values import MM, Array, Floats, Geometry, Image, Region, Slabs, StatedSettings
from hilum.values.voxel_images import Reader

if TYPE_CHECKING:
    from torch import Tensor

    from hilum.runtime.foreign.monai_config import Described


# Voxels by which an axis may lean over the whole image: NIfTI keeps directions in float32.
LEAN = 1e-3
# What MONAI takes for no change of a grid (`AFFINE_TOL`).
UNCHANGED = 1e-3
# Rows with a smaller share of an image lie beyond it, but for rounding.
LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class GridChange:
    """The change that one transform makes of the grid.

    axes:  of the grid before, in the order in which they come then
    flips: which of them it turns round
    steps: how rows become others after that; None along an axis that stays
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    steps: tuple[Taps | None, ...]


def grid_changes(
    operations: Sequence[Described],
    affine: Floats,
    shape: Sequence[int],
    pad: Sequence[tuple[int, int]],
    source: Geometry,
    *,
    nearest: bool = False,
) -> tuple[GridTrace, list[GridChange]] | None:
    """Changes from the network's grid back to the source's, each on the way there; the padding is the last.

    operations: MONAI's notes of the transforms, in the order in which they were applied
    affine:     after them
    shape:      after them, and before `pad` is added
    nearest:    whether each row back is the one that lies nearest
    None where one of them is not a change along each axis.
    """
    ndim = source.ndim
    padded = [low + size + high for (low, high), size in zip(pad, shape, strict=True)]
    steps = [Taps(np.arange(size)[:, None], np.ones((size, 1))) for size in padded]
    path = _Path(steps, list(range(ndim)), [False] * ndim, _square(affine, ndim), nearest)
    affines = [_shift(path, [-low for low, _ in pad], shape)]
    path.affine = _square(affine, ndim)
    for operation in reversed(split_notes(operations)):
        change = _undone(path, operation)
        if change is None:
            return None
        affines.append(change)
    if tuple(len(step.index) for step in path.steps) != source.shape:
        return None
    spacing = tuple(np.linalg.norm(_square(affine, ndim)[:-1, :-1], axis=0).tolist())
    trace = _trace(path, padded, source, spacing)
    return None if trace is None else (trace, affines[::-1])


@dataclass(eq=False)
class _Path:
    """The part of a way back that is gone: for each axis of the grid there, how its rows are made of the network's.

    axes:   of the network's grid, by which each of them goes
    flips:  whether it goes against it
    affine: of the grid there
    nearest: as in `grid_changes`
    """

    steps: list[Taps]
    axes: list[int]
    flips: list[bool]
    affine: Floats
    nearest: bool


def _square(affine: Any, ndim: int) -> Floats:
    """(ndim + 1, ndim + 1), of a matrix that may have more axes."""
    matrix, square = np.asarray(affine, dtype=np.float64), np.eye(ndim + 1)
    square[:ndim, :ndim], square[:ndim, ndim] = matrix[:ndim, :ndim], matrix[:ndim, -1]
    return square


def split_notes(operations: Sequence[Described]) -> list[Described]:
    """Notes of which each is of one change: MONAI keeps a crop and the padding after it in one."""
    notes = []
    for operation in operations:
        if operation["class"] == "ToTensor":
            continue
        done = operation.get("extra_info", {})
        notes += [done.get("crop_info", operation), *([done["pad_info"]] if "pad_info" in done else [])]
    return notes


def _undone(path: _Path, operation: Described) -> GridChange | None:
    """Go one change back; None where that cannot be done axis by axis."""
    done, size = operation.get("extra_info", {}), [int(length) for length in operation["orig_size"]]
    match operation["class"]:
        case "Orientation":
            return _turned_change(path, _square(done["original_affine"], len(size)))
        case "SpatialResample" if done["mode"] == "bilinear" and done["padding_mode"] == "border":
            return _resample(path, _square(done["src_affine"], len(size)), size)
        case _ if "cropped" in done:
            return _shift(path, done["cropped"][::2], size)
        case _ if "padded" in done and not any(done["padded"][0]):
            return _shift(path, [-low for low, _ in done["padded"][1:]], size)
        case _:
            return None


def _turned_change(path: _Path, before: Floats) -> GridChange:
    turn = np.linalg.solve(before, path.affine)[:-1, :-1]
    became = np.abs(turn).argmax(axis=1).tolist()  # for each axis before, the one that it is then
    against = [bool(turn[own, axis] < 0) for own, axis in enumerate(became)]
    path.axes = [path.axes[axis] for axis in became]
    path.flips = [path.flips[axis] != flip for axis, flip in zip(became, against, strict=True)]
    order = [slice(None, None, -1 if flip else 1) for flip in against]
    path.steps = [path.steps[axis].part(rows) for axis, rows in zip(became, order, strict=True)]
    path.affine = before
    axes = np.argsort(became).tolist()
    return GridChange(tuple(axes), tuple(against[axis] for axis in axes), (None,) * len(axes))


def _resample(path: _Path, before: Floats, size: Sequence[int]) -> GridChange | None:
    """Linear, and beyond its edge the image goes on."""
    corner, now = np.linalg.solve(path.affine, before), [len(step.index) for step in path.steps]
    lean = np.abs(corner[:-1, :-1] - np.diag(np.diag(corner)[:-1])) @ np.asarray(size, dtype=float)
    if lean.max() > LEAN:
        return None
    path.affine = before
    if now == list(size) and np.allclose(corner, np.eye(len(corner)), atol=UNCHANGED):
        return _keep_grid([None] * len(size))
    steps: list[Taps | None] = []
    for axis, (old, new) in enumerate(zip(now, size, strict=True)):
        scale, offset = corner[axis, axis], corner[axis, -1]
        made = (_nearest if path.nearest else _linear)(scale * np.arange(new) + offset, old)
        path.steps[axis] = _after(path.steps[axis], made)
        steps.append(_linear((np.arange(old) - offset) / scale, new))
    return _keep_grid(steps)


def _linear(position: Floats, size: int) -> Taps:
    position = np.clip(position, 0, size - 1)
    below = np.floor(position).astype(np.intp)
    share = position - below
    return Taps(np.stack([below, np.minimum(below + 1, size - 1)], axis=1), np.stack([1 - share, share], axis=1))


def _nearest(position: Floats, size: int) -> Taps:
    # Halves go to the even row, as they do in torch.
    rows = np.clip(np.rint(position), 0, size - 1).astype(np.intp)
    return Taps(rows[:, None], np.ones((len(rows), 1)))


def _shift(path: _Path, lows: Sequence[int], size: Sequence[int]) -> GridChange:
    """Cropped from `lows` on, of which the rest becomes 0; from below 0 on where it was padded."""
    steps: list[Taps | None] = []
    for axis, (low, new) in enumerate(zip(lows, size, strict=True)):
        old = len(path.steps[axis].index)
        path.steps[axis] = _after(path.steps[axis], _rows(-low, new, old))
        steps.append(None if old == new and not low else _rows(low, old, new))
    moved = np.eye(len(size) + 1)
    moved[:-1, -1] = [-low for low in lows]
    path.affine = path.affine @ moved
    return _keep_grid(steps)


def _rows(low: int, count: int, size: int) -> Taps:
    """Taps of so many rows from `low` on, of an axis of this size; 0 beyond it."""
    rows = np.arange(low, low + count)
    inside = (rows >= 0) & (rows < size)
    return Taps(np.clip(rows, 0, size - 1)[:, None], inside[:, None].astype(np.float64))


def _keep_grid(steps: Sequence[Taps | None]) -> GridChange:
    """A change without a turn."""
    return GridChange(tuple(range(len(steps))), (False,) * len(steps), tuple(steps))


def _after(first: Taps, second: Taps) -> Taps:
    """Both steps as one."""
    weight = first.weight[second.index] * second.weight[..., None]
    return Taps(first.index[second.index].reshape(len(weight), -1), weight.reshape(len(weight), -1))


def _trace(path: _Path, padded: Sequence[int], source: Geometry, spacing: tuple[float, ...]) -> GridTrace | None:
    """The trace in the order of the network's axes; what no row of the network's grid takes part in is cut away."""
    order = [path.axes.index(axis) for axis in range(source.ndim)]
    crop, shape, pad, back = [], [], [], []
    for axis_of, size in zip(order, padded, strict=True):
        step = path.steps[axis_of].part(slice(None, None, -1 if path.flips[axis_of] else 1))
        used = np.flatnonzero(step.weight.sum(axis=1) > LEAST)
        if not len(used):
            return None
        crop.append(slice(int(used[0]), int(used[-1]) + 1))
        step = step.part(crop[-1])
        stays = _stays(step)
        first, last = (int(step.index[0, 0]), int(step.index[-1, 0])) if stays else (0, size - 1)
        pad.append((first, size - 1 - last))
        shape.append(last - first + 1)
        back.append(None if stays else step)
    flips = tuple(path.flips[own] for own in order)
    return GridTrace(source, None, tuple(order), flips, tuple(crop), tuple(shape), tuple(pad), spacing, tuple(back))


def _stays(step: Taps) -> bool:
    """Whether rows are only counted from another one on."""
    index: NDArray[np.intp] = step.index
    return index.shape[1] == 1 and bool((np.diff(index[:, 0]) == 1).all() and (step.weight == 1).all())


@dataclass(eq=False)
class Regions:
    """(channels, *padded) as the network of a bundle sees a large volume, each region made when it is asked for.

    walk:  the order in which the file gives its slices
    steps: changes of the grid, and functions of intensities alone, in the order of the bundle
    """

    image: Image
    shape: tuple[int, ...]
    walk: SliceOrder
    steps: Sequence[GridChange | Callable[[NDArray[np.float32]], NDArray[np.float32]]]
    _read: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._read = self.image.reader()

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        axes = zip(region[1:], self.shape[1:], strict=True)
        slices = [slice(*part.indices(size)[:2]) for part, size in axes]
        sizes, axis = [part.stop - part.start for part in slices], self.walk.axis
        voxels = np.empty((self.shape[0], *sizes), dtype=np.float32)
        # A voxel of a coarser grid is made of many, in double precision: a few rows at a time.
        finer = math.prod(self.image.geometry.shape) / math.prod(self.shape[1:])
        count = max(1, int(BLOCK_VOXELS / (finer * math.prod(sizes) / sizes[axis])))
        starts = range(slices[axis].start, slices[axis].stop, count)
        for start in reversed(starts) if self.walk.backwards else starts:
            rows = slice(start, min(start + count, slices[axis].stop))
            inside = [slice(None)] * (axis + 1) + [slice(rows.start - starts.start, rows.stop - starts.start)]
            voxels[tuple(inside)] = self._after(len(self.steps), (*slices[:axis], rows, *slices[axis + 1 :]))
        return voxels[region[0]]

    def _after(self, count: int, region: Region) -> NDArray[np.float32]:
        """(channels, *region) after so many steps."""
        if not count:
            return np.asarray(self._read((slice(None), *region)), dtype=np.float32)
        step = self.steps[count - 1]
        if not isinstance(step, GridChange):
            return step(self._after(count - 1, region))
        parts = [None if taps is None else taps.part(part) for taps, part in zip(step.steps, region, strict=True)]
        near, counted = [], []
        for part, taps in zip(region, parts, strict=True):
            [rows], [from_there] = ((part,), (None,)) if taps is None else preprocessing.source_region([taps])
            near.append(rows)
            counted.append(from_there)
        before: list[slice] = [slice(0)] * len(near)
        sizes = self._sizes(count - 1)
        for rows, axis, flip in zip(near, step.axes, step.flips, strict=True):
            before[axis] = slice(sizes[axis] - rows.stop, sizes[axis] - rows.start) if flip else rows
        moved = orient.permute_axes(self._after(count - 1, tuple(before)), step.axes, step.flips)
        order = label_resampling.axes_by_growth(
            [(a.stop - a.start, b.stop - b.start) for a, b in zip(near, region, strict=True)]
        )
        return np.asarray(StretchedOutputs(moved, tuple(counted), order))

    def _sizes(self, count: int) -> tuple[int, ...]:
        """Voxels along each axis after so many steps."""
        sizes = self.image.geometry.shape
        for step in self.steps[:count]:
            if isinstance(step, GridChange):
                moved = [sizes[axis] for axis in step.axes]
                sizes = tuple(n if taps is None else len(taps.index) for n, taps in zip(moved, step.steps, strict=True))
        return sizes


monai: Any = lazy_monai  # its types do not say what a transform takes
KIND = "monai"
# What a bundle brings back: outputs before their activation, probabilities, or what is called (one of the classes).
Returned = Literal["outputs", "probabilities", "labels"]
# Volumes that would take more than this as float32 are prepared part by part: MONAI holds several copies of them.
STREAMED_BYTES = 2**26
# Bytes a voxel while MONAI resamples: three coordinates and the intensity in double precision, and two in single.
COPIES = 40

# The one output of such a network.
HEAD = "mask"
# A picture (row, column) as (column, row).
TURN = GridChange((1, 0), (False, False), (None, None))


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


@contextmanager
def _unfit_refused(where: str) -> Iterator[None]:
    """Whatever a step of MONAI raises, which wraps it, becomes DatasetError; memory that ran out stays what it is."""
    try:
        yield
    except Exception as error:
        if errors.is_out_of_memory(error.__cause__ or error):
            raise
        problem = f"does not go through the model's transforms ({monai_config.error_reason(error.__cause__ or error)})"
        raise DatasetError(problem, where, "Give an image of the kind that it was trained on") from error


@dataclass(frozen=True, eq=False)
class MonaiTransforms:
    """The bundle's own preprocessing, undone as MONAI undoes it.

    exclusive: whether outputs become probabilities by a softmax or by a sigmoid
    columns_first: whether MONAI reads a picture as (column, row)
    returned: what is brought back onto the image's grid
    nearest:  whether that takes the nearest voxel; else it is interpolated linearly
    dense:    whether outputs are of voxels; else of the whole image, and nothing is brought back
    whole:    whether the network sees an image at once, which has to have the size of a window
    beyond:   what surrounds an image smaller than a window, as arguments of `numpy.pad`
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
    settings: StatedSettings = field(default_factory=lambda: {"kind": KIND})
    returned: Returned = "probabilities"
    nearest: bool = False
    dense: bool = True
    whole: bool = False
    beyond: StatedSettings = field(default_factory=dict)

    unit = MM
    frames = None
    around, moments = 0, 1
    interval = None
    reduction = 1.0
    cascade = None
    marks = 0
    slicewise, tissue, tiles = False, "none", None

    @property
    def order_of_axes(self) -> tuple[int, ...]:
        """The image's own order."""
        return tuple(range(self.ndim))

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], GridTrace | Transformed]:
        """(channels, *spatial); DatasetError for other channels, GeometryError for other axes."""
        self._check(image, where)
        turned = self._turns(image)
        data, geometry = (image.data.swapaxes(1, 2), _turn(image.geometry)) if turned else (image.data, image.geometry)
        pixels = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
        prepared = self._prepare(_with_affine(pixels, geometry), where)
        pad = orient.padding_to_size(tuple(prepared.shape[1:]), self.patch)  # as MONAI's own windows have it
        padded = np.pad(np.asarray(prepared.numpy(), dtype=np.float32), [(0, 0), *pad], **self.beyond)
        operations, shape = prepared.applied_operations, prepared.shape[1:]
        found = grid_changes(operations, prepared.affine, shape, pad, geometry, nearest=self.nearest)
        if found is None:
            return np.ascontiguousarray(padded), Transformed(image.geometry, prepared, pad, turned)
        trace = found[0].by_smallest_plane()
        return np.ascontiguousarray(padded), _from_rows(trace, image.geometry) if turned else trace

    def _prepare(self, pixels: Any, where: str) -> Any:
        """The image as MONAI's transforms make it; DatasetError where they cannot, or make it of another size."""
        with _unfit_refused(where):
            prepared = self.transform({KEY: pixels})[KEY]
        shape = tuple(prepared.shape[1:])
        if len(shape) != self.ndim or not all(shape):
            problem = (
                f"becomes {tuple(prepared.shape)} by the model's transforms, which is no image of {self.ndim} axes"
            )
            raise GeometryError(problem, where, REMEDY)
        if self.whole and shape != self.patch:
            seen, expected = (" x ".join(map(str, sizes)) for sizes in (shape, self.patch))
            problem = f"has {seen} voxels after its transforms, and the model sees images whole, of {expected}"
            raise DatasetError(problem, where, "Cut, pad or resample it to that size")
        return prepared

    def _turns(self, image: Image) -> bool:
        """Whether MONAI knows a picture as (column, row): its readers give it so, but for arrays of NumPy."""
        of_numpy = image.source is not None and image.source.format == "numpy"
        return image.geometry.is_picture and self.columns_first and not of_numpy

    def _check(self, image: Image, where: str) -> None:
        if len(image.channels) != len(self.channels):
            channels = errors.count_phrase(len(image.channels), "channel")
            problem = f"has {channels} ({', '.join(image.channels)}), the model expects "
            problem += f"{len(self.channels)} ({', '.join(self.channels)})"
            raise DatasetError(problem, where, f"Give {', '.join(self.channels)}, in that order")
        if not _may_be(image.channels, self.channels):
            problem = f"channels {', '.join(image.channels)} are not the model's {', '.join(self.channels)}"
            remedy = "Name and order the images as the bundle's metadata.json does, or number them CASE_0000, CASE_0001"
            raise DatasetError(problem, where, remedy)
        if image.geometry.ndim != self.ndim or image.frames is not None:
            raise GeometryError(f"has not {self.ndim} axes", where, "Give images of the kind it was trained on")

    def open_image(self, image: Image, where: str) -> tuple[RegionSource, GridTrace | Transformed]:
        """The same as a call, but of a large volume only what is asked for is made, and it is never held."""
        self._check(image, where)
        foreseen = self._foreseen(image.geometry, self._turns(image))
        small = self.whole or 4 * math.prod(image.shape) < STREAMED_BYTES
        if small or foreseen.trace is None or foreseen.steps is None:
            return self(image, where)
        shape, walk = (len(self.channels), *foreseen.trace.padded_shape), foreseen.trace.slice_order
        return Regions(image, shape, walk, foreseen.steps), foreseen.trace

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """All channels: an image with fewer is refused."""
        return (True,) * len(self.channels)

    def parts(
        self, trace: GridTrace | Transformed, region: Region | None, patch: Sequence[int], channels: int
    ) -> Sequence[VolumePart]:
        """Columns of what is wanted; all at once where MONAI itself has to undo its transforms."""
        if isinstance(trace, GridTrace):
            return image_statistics.wanted_columns(trace, region, patch, channels)
        return (VolumePart(),)

    def restore(
        self, output_slabs: Slabs, trace: GridTrace | Transformed, part: Region | None = None
    ) -> Iterator[tuple[Region, Mapping[str, Any]]]:
        """Outputs whose probabilities are those that were brought back; numbers of another name, as they are."""
        if not self.dense:
            yield from output_slabs
            return
        then = (
            None
            if self.returned == "outputs"
            else output_activation.class_logarithms
            if self.exclusive
            else output_activation.log_odds_of_probabilities
        )
        likely = (
            (region, {name: self._likely(name, one) for name, one in arrays.items()}) for region, arrays in output_slabs
        )
        if isinstance(trace, Transformed):
            name, answer = self._whole(likely, trace)
            done = answer if then is None or name != HEAD else then(answer)
            yield tuple(slice(0, size) for size in trace.source.shape), {name: done}
            return
        for region, arrays in restore.restore_regions(likely, trace, part):
            if HEAD not in arrays:
                yield region, arrays
                continue
            back: Any = arrays[HEAD]
            if not isinstance(back, StretchedOutputs):
                back = StretchedOutputs(back, (None,) * self.ndim, tuple(range(self.ndim)))
            yield region, {HEAD: replace(back, then=then)}
            hardware.release_memory()  # parts come and go between sums that stay: a sixth of the peak at 100 classes

    def _likely(self, name: str, outputs: Array) -> Array:
        """What is brought back of the network's own output."""
        return outputs if name != HEAD or self.returned == "outputs" else self._probabilities(outputs)

    def _probabilities(self, outputs: Array) -> NDArray[np.float32]:
        logits = torch.from_numpy(np.ascontiguousarray(outputs, dtype=np.float32))
        if self.returned == "labels":
            called = logits == logits.amax(dim=0) if self.exclusive else logits > 0
            return np.asarray(called.numpy(), dtype=np.float32)
        return np.asarray((logits.softmax(dim=0) if self.exclusive else logits.sigmoid()).numpy())

    def _whole(self, likely: Slabs, trace: Transformed) -> tuple[str, NDArray[np.float32]]:
        """The one output's name, and its numbers on the source grid, as MONAI undoes its steps: class by class."""
        inner = tuple(slice(low, low + n) for (low, _), n in zip(trace.pad, trace.image.shape[1:], strict=True))
        joined, outputs, name = np.empty(0, np.float32), np.empty(0, np.float32), HEAD
        operations = trace.image.applied_operations
        if self.nearest:
            operations = monai.transforms.utils.convert_applied_interp_mode(operations, mode="nearest")
        for (rows, *plane), arrays in likely:
            [(name, array)] = arrays.items()
            if not joined.size:
                sizes = [n + low + high for (low, high), n in zip(trace.pad, trace.image.shape[1:], strict=True)]
                joined = np.empty((len(array), *sizes), np.float32)
                outputs = np.empty((len(joined), *trace.source.shape), np.float32)
            joined[(slice(None), rows, *plane)] = array
        for number in range(len(joined)):
            pixels = torch.from_numpy(joined[(slice(number, number + 1), *inner)])
            notes = copy.deepcopy(operations)  # undoing takes notes apart
            image = monai.data.MetaTensor(pixels, affine=trace.image.affine, applied_operations=notes)
            with monai.transforms.utils.allow_missing_keys_mode(self.transform):
                back = self.transform.inverse({KEY: image})[KEY][0]
            back = back.swapaxes(0, 1) if trace.turned else back
            if tuple(back.shape) != trace.source.shape:
                raise GeometryError("its transforms cannot be undone", "the bundle", REMEDY)
            outputs[number] = back
        return name, outputs

    def held_parts(self, geometry: Geometry) -> HeldParts:
        """Forecast by what its steps would do to an image of this geometry; no voxel is looked at."""
        if geometry.ndim != self.ndim:
            return HeldParts()
        foreseen = self._foreseen(geometry, geometry.is_picture and self.columns_first)
        streamed = None if foreseen.steps is None or self.whole else STREAMED_BYTES
        return HeldParts(streamed, foreseen.trace is not None, foreseen.shape, COPIES)

    @_unfit_refused("image")
    def _foreseen(self, source: Geometry, turned: bool) -> Foreseen:
        geometry = _turn(source) if turned else source
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
        pad = orient.padding_to_size(shape, self.patch)
        operations, affine = image.pending_operations, image.peek_pending_affine()
        found = grid_changes(operations, affine, shape, pad, geometry, nearest=self.nearest)
        if found is None:
            return Foreseen(shape, None, None)
        trace, chain_of_changes = found
        surrounded = bool(self.beyond) and any(map(any, pad))  # regions are surrounded by zeros
        steps = None if chain is None or surrounded else _in_order(chain, chain_of_changes)
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
    trace: GridTrace | None
    steps: Sequence[GridChange | Callable[[NDArray[np.float32]], NDArray[np.float32]]] | None


def _in_order(chain: Sequence[Any], changes_of_steps: Sequence[GridChange]) -> list[Any]:
    """Functions of intensities, and changes of the grid in place of MONAI's notes of them; the padding comes last."""
    left, steps = list(changes_of_steps), list[Any]()
    for step in chain:
        if isinstance(step, Mapping):
            steps += [left.pop(0) for _ in split_notes([step])]
        else:
            steps.append(partial(_change, step))
    return [*steps, *left]


def _change(step: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    changed = step({KEY: monai.data.MetaTensor(torch.from_numpy(np.ascontiguousarray(pixels)))})[KEY]
    return np.asarray(changed.numpy(), dtype=np.float32)


def _of_each_voxel(step: Any) -> bool:
    """Whether what becomes of a voxel depends on its own intensity alone."""
    kinds = monai.transforms
    if isinstance(step, kinds.NormalizeIntensityd):
        normalizer = step.normalizer
        return normalizer.subtrahend is not None and normalizer.divisor is not None
    return isinstance(
        step, (kinds.ScaleIntensityRanged, kinds.ThresholdIntensityd, kinds.EnsureTyped, kinds.CastToTyped)
    )


def _may_be(stated_names: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether channels may be those of a model in this order, by their names as far as both have any."""
    numbered = [str(number) for number in range(len(expected))]
    ours, theirs = ([name.strip().casefold() for name in names] for names in (stated_names, expected))
    named = len(set(theirs)) == len(theirs) and theirs != numbered
    if len(expected) < 2 or not named or ours in (theirs, numbered):
        return True
    # A picture has its colours in this one order, whatever a bundle calls them.
    colours, initials = [name.casefold() for name in COLOUR], [name[:1] for name in theirs]
    return ours == colours and (initials == colours or sorted(initials) != sorted(colours))


def _turn(picture: Geometry) -> Geometry:
    """The grid of a picture (row, column) as (column, row); its first axis in mm stays that of its first index."""
    order = [1, 0, 2]
    return replace(picture, shape=picture.shape[::-1], affine=picture.affine[np.ix_(order, order)])


def _from_rows(trace: GridTrace, picture: Geometry) -> GridTrace:
    """The way of a picture (row, column), of which MONAI knows (column, row)."""
    return replace(trace, source=picture, axes=tuple(1 - axis for axis in trace.axes))


def _with_affine(pixels: Tensor, geometry: Geometry) -> Any:
    """(channels, *spatial) as MONAI knows where it lies."""
    affine, ndim = np.eye(4), geometry.ndim
    affine[:ndim, :ndim], affine[:ndim, 3] = geometry.affine[:-1, :-1], geometry.affine[:-1, -1]
    return monai.data.MetaTensor(pixels, affine=torch.from_numpy(affine))
