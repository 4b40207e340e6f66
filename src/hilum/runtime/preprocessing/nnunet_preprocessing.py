"""nnU-Net's way of an image to its network and back: its order of axes, crop, intensities, resampling and padding.

Resampling is by SciPy's splines without anti-aliasing, far slices apart. A spline in several axes is the same spline in
each of them, one after the other: four samples an axis in place of 64 a voxel.
Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z. NumPy and SciPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, GeometryError, PlanError
from hilum.lazy import ndimage
from hilum.runtime.preprocessing import image_statistics, protocol, restore
from hilum.runtime.preprocessing.protocol import GridTrace, HeldParts, VolumePart
from hilum.transforms import channel_stack, orient, resampling
from hilum.transforms.resampling import Taps
from hilum.values import MM, Array, Geometry, Image, Region, Slabs, StatedSettings

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

KIND = "nnunet"
# The spacing that nnU-Net gives the axis that a picture lacks.
OF_A_PICTURE = (999.0, 1.0, 1.0)
# What a deviation or a range is at least: nnU-Net's own.
LEAST = 1e-8
# By how many samples scipy.ndimage.zoom continues an axis before it filters; there the border's influence has died.
CONTINUED = 12


@dataclass(frozen=True)
class NNUNetResampling:
    """One of a plan's resampling functions with its arguments.

    order:     of the spline: 0, 1 or 3
    order_far: of the one across slices that lie far apart: 0 or 1
    apart:     whether slices count as far apart; None decides by the spacings
    threshold: how many times the longest side of a voxel is its shortest where they do
    by_share:  labels go by their largest share of a voxel, rather than by half of it
    """

    order: int = 3
    order_far: int = 0
    apart: bool | None = None
    threshold: float = 3.0
    by_share: bool = False

    def far_axis(self, current: Sequence[float], new: Sequence[float]) -> int | None:
        """The one axis whose slices lie far apart, before or else after; None where none does."""
        if self.apart is False:
            return None
        chosen = current
        if self.apart is None:
            wide = [one for one in (current, new) if max(one) / min(one) > self.threshold]
            if not wide:
                return None
            chosen = wide[0]
        longest = [axis for axis, step in enumerate(chosen) if max(chosen) / step == 1]
        return longest[0] if len(longest) == 1 else None

    def steps(self, old: Sequence[int], new: Sequence[int], far: int | None) -> list[Taps | None]:
        """Taps of each axis, by which a new sample is made of old ones; None where it stays. Of order 0 and 1 only."""
        orders = [self.order_far if axis == far else self.order for axis in range(len(old))]
        return [None if a == b else resampling_taps(a, b, order) for a, b, order in zip(old, new, orders, strict=True)]


@dataclass(frozen=True)
class Scheme:
    """The normalisation of one channel, by nnU-Net's name of it.

    masked: a z-score counts and changes only what lies within the content
    low, high, mean, deviation: of the training cases, for a CT
    """

    name: str
    masked: bool = False
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    deviation: float = 1.0

    def apply(self, channel: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """(*spatial), changed in place; `inside` is the content, where it was asked for."""
        SCHEMES[self.name](self, channel, inside)
        return channel


def _zscore(scheme: Scheme, channel: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> None:
    chosen: Any = inside if scheme.masked and inside is not None else slice(None)
    values = channel[chosen]
    channel[chosen] = (values - values.mean()) / max(values.std(), LEAST)


def _ct(scheme: Scheme, channel: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> None:
    np.clip(channel, scheme.low, scheme.high, out=channel)
    channel -= scheme.mean
    channel /= max(scheme.deviation, LEAST)


def _none(scheme: Scheme, channel: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> None:
    """The intensities stay."""


def _to_unit_range(scheme: Scheme, channel: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> None:
    channel -= channel.min()
    channel /= max(float(channel.max()), LEAST)


def _colour(scheme: Scheme, channel: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> None:
    channel /= 255.0


SCHEMES: Mapping[str, Callable[[Scheme, NDArray[np.float32], NDArray[np.bool_] | None], None]] = {
    "ZScoreNormalization": _zscore,
    "CTNormalization": _ct,
    "NoNormalization": _none,
    "RescaleTo01Normalization": _to_unit_range,
    "RGBTo01Normalization": _colour,
}


@dataclass(frozen=True)
class OfPicture(GridTrace):
    """The trace of a picture (row, column), which nnU-Net sees as a volume (column, row, slice) of one slice."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels of that volume along each axis."""
        return (*self.source.shape[::-1], 1)

    def part(self, region: Region) -> Region | None:
        """The same as of a volume."""
        rows, columns = region
        return super().part((columns, rows, slice(0, 1)))

    def region(self, part: Region) -> Region:
        """The same as of a volume."""
        columns, rows, _ = super().region(part)
        return rows, columns

    def unpermute(self, array: Array) -> Array:
        """(channels, row, column)."""
        return np.asarray(super().unpermute(array))[..., 0].swapaxes(1, 2)


@dataclass(frozen=True)
class NNUNetPreprocessing:
    """The settings of that way: what `plans.json` and `dataset.json` say of one configuration.

    spacing:       mm on the network's grid in its order of axes; two of them where it goes slice by slice
    transpose:     the network's order of the axes (slice, row, column)
    reorient:      whether the image is brought to RAS+ first
    patch:         smaller images are padded with 0 to it
    data, outputs: how images are resampled, and outputs on their way back
    previous:      label values of the stage before, given as one more channel; each becomes a channel of its own
    labels:        how that channel is resampled
    """

    channels: tuple[str, ...]
    schemes: tuple[Scheme, ...]
    spacing: tuple[float, ...]
    patch: tuple[int, ...]
    transpose: tuple[int, ...] = (0, 1, 2)
    reorient: bool = False
    data: NNUNetResampling = field(default_factory=NNUNetResampling)
    outputs: NNUNetResampling = field(default_factory=lambda: NNUNetResampling(1))
    previous: tuple[int, ...] = ()
    labels: NNUNetResampling = field(default_factory=lambda: NNUNetResampling(1))
    modality: str = "unknown"

    ndim = 3
    unit = MM
    frames = None
    around, moments = 0, 1
    interval = None
    shape = None
    reduction = 1.0
    slicewise, tissue, tiles = False, "none", None
    marks = 0
    cascade = None  # its labels of the stage before are no numbers, and nnU-Net has no sides to change in them

    @classmethod
    def from_settings(cls, settings: StatedSettings) -> NNUNetPreprocessing:
        """Read a model's record; PlanError for impossible settings."""
        values = protocol.as_tuples({key: value for key, value in settings.items() if key != "kind"})
        try:
            values["schemes"] = tuple(Scheme(**one) for one in settings["schemes"])
            values |= {name: NNUNetResampling(**settings[name]) for name in ("data", "outputs", "labels")}
            return cls(**values)
        except (TypeError, KeyError) as error:
            raise PlanError(f"impossible settings: {error}", "preprocessing", "Adopt the model again") from error

    def __post_init__(self) -> None:
        unknown = [one.name for one in self.schemes if one.name not in SCHEMES]
        orders = [(how.order, how.order_far) for how in (self.data, self.outputs, self.labels)]
        if unknown:
            raise PlanError(f"there is no {unknown[0]}", "preprocessing", f"Known are {', '.join(SCHEMES)}")
        if any(order not in (0, 1, 3) or far not in (0, 1) for order, far in orders) or self.outputs.order == 3:
            raise PlanError("resampling of an order that is not 0, 1 or 3 (1 for outputs)", "preprocessing", "Retrain")
        if len(self.schemes) != len(self.channels) or sorted(self.transpose) != [0, 1, 2]:
            raise PlanError("channels or axes do not fit together", "preprocessing", "Adopt the model again")

    @property
    def order_of_axes(self) -> tuple[int, ...]:
        """SimpleITK's arrays are (slice, row, column), and ours (column, row, slice)."""
        return tuple(2 - axis for axis in self.transpose)

    @property
    def settings(self) -> dict[str, PlainValue]:
        """Plain values for JSON."""
        return {"kind": KIND, **protocol.as_lists(asdict(self))}

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], GridTrace]:
        """(channels, *padded) as the network sees it, and the way back.

        Raises DatasetError for other channels than the network knows, GeometryError for a grid that cannot be used.
        """
        image, earlier = self._split_labels(image, where)
        picture = image.geometry.is_picture
        data = _volume(image.data, picture)
        axes, flips = self._order(image.geometry)
        data = orient.permute_axes(data, axes, flips)
        region = orient.content_region(np.any(data != 0, axis=0))
        data = np.array(data[(slice(None), *region)], dtype=np.float32, order="C")
        steps = self._steps(image.geometry, axes, where)
        target = self.spacing if len(self.spacing) == 3 else (steps[0], *self.spacing)
        shape = tuple(round(a / b * n) for a, b, n in zip(steps, target, data.shape[1:], strict=True))
        if min(shape) < 1:
            raise GeometryError(f"nothing is left of it at {target} mm", where, "Give a larger image")
        inside = self._inside(data)
        far = self.data.far_axis(steps, target)
        channels = [
            resample_intensities(scheme.apply(channel, inside), shape, self.data, far)
            for scheme, channel in zip(self.schemes, data, strict=True)
        ]
        if earlier is not None:
            labels = orient.permute_axes(_volume(earlier, picture), axes, flips)[(slice(None), *region)][0]
            channels += self._one_hot(labels, inside, shape, self.labels.far_axis(steps, target))
        pad = tuple(orient.padding_to_size(shape, self.patch))
        cropped = data.shape[1:]
        back = tuple(self.outputs.steps(shape, cropped, self.outputs.far_axis(target, steps)))
        kind = OfPicture if picture else GridTrace
        trace = kind(image.geometry, None, axes, flips, region, shape, pad, tuple(target), back)
        return np.pad(np.stack(channels).astype(np.float32, copy=False), ((0, 0), *pad)), trace.by_smallest_plane()

    def open_image(self, image: Image, where: str) -> tuple[NDArray[np.float32], GridTrace]:
        """The same as a call: the image is prepared whole."""
        return self(image, where)

    def held_parts(self, geometry: Geometry) -> HeldParts:
        """All of an image, and of outputs columns."""
        return HeldParts()

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """All channels: an image with fewer is refused."""
        return (True,) * len(self.channels)

    def parts(self, trace: GridTrace, region: Region | None, patch: Sequence[int], channels: int) -> list[VolumePart]:
        """Columns of what is wanted: the image is prepared whole, as splines look far, and outputs go back in parts."""
        return image_statistics.wanted_columns(trace, region, patch, channels)

    def restore(
        self, output_slabs: Slabs, trace: GridTrace, part: Region | None = None
    ) -> Iterator[tuple[Region, Mapping[str, Array]]]:
        """Finished rows of the network's grid, in order of its slice order, as parts of the source's own grid."""
        return restore.restore_regions(output_slabs, trace, part)

    def _split_labels(self, image: Image, where: str) -> tuple[Image, Array | None]:
        """The image, and the labels of the stage before where there was one."""
        expected = len(self.channels)
        earlier = None
        if self.previous:
            earlier = image.data[-1:]
            names = image.channels[:-1]
            image = Image(image.data[:-1], image.geometry, modality=image.modality, channels=names, source=image.source)
        image = channel_stack.match_colours(image, self.channels)
        if len(image.channels) != expected:
            channels = errors.count_phrase(len(image.channels), "channel")
            raise DatasetError(
                f"has {channels} ({', '.join(image.channels)}), the model expects "
                f"{expected} ({', '.join(self.channels)})",
                where,
                "Give all images of a case, CASE_0000, CASE_0001, ..., in the order of training",
            )
        numbered = image.channels == tuple(str(n) for n in range(expected))
        if expected > 1 and not numbered and image.channels != self.channels:
            raise DatasetError(
                f"channels {', '.join(image.channels)} are not the model's {', '.join(self.channels)}",
                where,
                "Name and order the images as in training",
            )
        if image.frames is not None:
            raise GeometryError(f"has {image.frames} frames on a fourth axis", where, "Give one volume")
        return image, earlier

    def _order(self, geometry: Geometry) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """The turn from (column, row, slice) to the network's axes."""
        axes, flips = ((0, 1, 2), (False,) * 3) if geometry.is_picture or not self.reorient else geometry.to_canonical
        return tuple(axes[one] for one in self.order_of_axes), tuple(flips[one] for one in self.order_of_axes)

    def _steps(self, geometry: Geometry, axes: tuple[int, ...], where: str) -> tuple[float, ...]:
        """mm between voxels in the network's order of axes."""
        if geometry.is_picture and len(self.spacing) == 3:
            # nnU-Net's spacing of a picture would make a volume of 999 mm of it.
            raise GeometryError("is a picture, and the model works in volumes", where, "Give a volume")
        if geometry.is_picture:
            return tuple(OF_A_PICTURE[one] for one in self.transpose)
        if geometry.spacing is None:
            raise GeometryError("has no size in mm, and the model works in mm", where, "Give a file with its spacing")
        return tuple(geometry.spacing[axis] for axis in axes)

    def _inside(self, data: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """The content without its holes, where somebody asks for it."""
        if not self.previous and not any(scheme.masked for scheme in self.schemes):
            return None
        return np.asarray(ndimage.binary_fill_holes(np.any(data != 0, axis=0)))

    def _one_hot(
        self, labels: Array, inside: NDArray[np.bool_] | None, shape: tuple[int, ...], far: int | None
    ) -> list[NDArray[np.float32]]:
        # What lies outside the content has a label of its own there, which takes part in the resampling.
        outside = np.where((labels == 0) & ~np.asarray(inside), -1, labels.astype(np.int32))
        moved = resample_label_map(outside, shape, self.labels, far)
        return [(moved == value).astype(np.float32) for value in self.previous]


def _volume(array: Array, picture: bool) -> Array:
    """(channels, column, row, slice) also of a picture, which is (channels, row, column)."""
    return array.swapaxes(1, 2)[..., None] if picture else array


@lru_cache(maxsize=64)
def resampling_taps(old: int, new: int, order: int) -> Taps:
    """Taps from `old` samples to `new` ones over the same length; beyond the edge the edge goes on. Order 0 or 1."""
    position = old / new * (np.arange(new) + 0.5) - 0.5
    if order == 0:
        index = np.floor(position + 0.5).astype(np.intp)[:, None]
        return Taps(np.clip(index, 0, old - 1), np.ones((new, 1), dtype=np.float32))
    below = np.floor(position).astype(np.intp)
    share = position - below
    index = np.clip(np.stack([below, below + 1], axis=1), 0, old - 1)
    return Taps(index, np.stack([1 - share, share], axis=1).astype(np.float32))


@lru_cache(maxsize=64)
def _cubic_taps(old: int, new: int) -> Taps:
    """Taps of the coefficients of an axis that is continued at either end."""
    position = old / new * (np.arange(new) + 0.5) - 0.5 + CONTINUED
    below = np.floor(position).astype(np.intp)
    t = (position - below)[:, None]
    weight = np.concatenate(
        [(1 - t) ** 3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - (1 - t) ** 2 + (1 - t) ** 3 / 2, t**3 / 6], axis=1
    )
    return Taps(below[:, None] + np.arange(-1, 3), weight.astype(np.float32))


def resample_intensities(
    image: NDArray[np.float32], shape: Sequence[int], how: NNUNetResampling, far: int | None
) -> Array:
    """(*spatial) intensities to (*shape), held within what the image (with a far axis: its slice) has.

    far: the axis across which only `order_far` is used
    """
    if image.shape == tuple(shape):
        return image
    near = tuple(axis for axis in range(image.ndim) if axis != far)
    low, high = image.min(axis=near, keepdims=True), image.max(axis=near, keepdims=True)
    for axis in near:
        if image.shape[axis] != shape[axis]:
            image = _along(image, axis, shape[axis], how.order)
    image = np.clip(image, low, high)
    return image if far is None or image.shape[far] == shape[far] else _along(image, far, shape[far], how.order_far)


def resample_label_map(
    labels: NDArray[np.integer], shape: Sequence[int], how: NNUNetResampling, far: int | None
) -> Array:
    """(*spatial) label map to (*shape): a label where it has half of a voxel, and the highest of two that have."""
    if labels.shape == tuple(shape):
        return labels
    if how.order == 0 and not how.by_share:
        return resample_intensities(labels.astype(np.float32), shape, how, far).astype(labels.dtype)
    labelled = np.zeros(shape, dtype=labels.dtype)
    most = np.zeros(shape, dtype=np.float32)
    for value in np.unique(labels):
        share = resample_intensities((labels == value).astype(np.float32), shape, how, far)
        # Half of a voxel, but for what float32 rounds off.
        wins = share > most if how.by_share else share >= 0.5 - 1e-6
        labelled[wins] = value
        most = np.maximum(most, share)
    return labelled


def _along(image: Array, axis: int, size: int, order: int) -> Array:
    if order != 3:
        return np.asarray(resampling.resample_axis(image, axis, resampling_taps(image.shape[axis], size, order)))
    ends = [(CONTINUED, CONTINUED) if one == axis else (0, 0) for one in range(image.ndim)]
    continued = np.pad(image, ends, mode="edge")
    filtered = ndimage.spline_filter1d(continued, 3, axis, output=np.float32, mode="nearest")
    return np.asarray(resampling.resample_axis(filtered, axis, _cubic_taps(image.shape[axis], size)))
