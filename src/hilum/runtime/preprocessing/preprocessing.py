"""Hilum's preprocessing: an image to the network's input, and outputs back onto the image's own grid.

Permute to canonical order, crop, resample, normalise, pad: all along the axes, so that every step has an exact
inverse on the grid and a result can go back slab by slab.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, GeometryError, PlanError
from hilum.runtime.preprocessing import image_statistics, protocol, restore, slide_tiles
from hilum.runtime.preprocessing.protocol import GridTrace, HeldParts, RegionSource, VolumePart
from hilum.runtime.preprocessing.slide_tiles import Bag, Tiles
from hilum.transforms import COLOUR, channel_stack, clip_frames, label_resampling, orient, resampling, stains
from hilum.transforms.intensity import ChannelScale, Normalisation
from hilum.transforms.resampling import Order, Taps
from hilum.values import MM, Array, Geometry, Image, Region, Setting, Slabs, StatedSettings, slabs
from hilum.values.voxel_images import Reader

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

# Volumes that would take more than this as float32 are prepared part by part.
STREAMED_BYTES = 2**28


@dataclass(frozen=True)
class Preprocessing:
    """The settings of the path from file to network: the plan's section "preprocessing".

    ndim:     1 for a series, 2 or 3; a volume with a single slice is a picture to a two-dimensional network
    channels: what the network expects, by name and order; the images are checked against it
    spacing:  mm between voxels on the network's grid; None keeps the image's own
    unit:     of the spacing: mm, of a series that of its axis
    shape:    fixed number of voxels on the network's grid; None lets it follow from the spacing
    aspect:   how an image of other proportions gets that shape: it is stretched, its longer side is cropped about the
              middle, or its shorter one padded
    crop:     "content" cuts away the constant border
    frames:   of a clip that are looked at, as further channels; None for still images
    interval: from one of them to the next, in `time_unit`: of a shorter clip the last are not there, which is NaN; None
              spreads them evenly over each clip, whatever it lasts
    time_unit: "s", or "frame" where nothing says when frames were taken
    around:   frames before and after each frame of a clip, as further channels; at its ends the last one again
    border:   share of each axis that is cut away at either end, after the crop
    smallest: the padded shape is at least this
    order:    interpolation of intensities
    reduction: by which factor the network's grid is coarser yet than the spacing, or the image's own grid, makes it
    absent:   channels that a case may lack; the network sees zeros in their place
    cascade:  by which factor that of a network before is coarser still, whose labels are one more channel, the last;
              None for a network that sees the image alone
    prompts:  further channels, the last, of what a person points at
    stain:    how the dyes of a picture in colour are brought to those of a reference before all else: "macenko", by
              the two that its own colours show
    tissue:   how tissue is told on a slide, beside which nothing is predicted: "otsu", by the saturation of its dye
    tiles:    of which a slide becomes a bag, as the plan's section of that name states; None where images stay whole
    """

    ndim: int
    channels: tuple[str, ...]
    normalisation: tuple[Normalisation, ...]
    spacing: Annotated[tuple[float, ...] | None, Setting(unit="mm", always=True)] = None
    shape: tuple[int, ...] | None = None
    crop: Annotated[Literal["none", "content"], Setting(always=True)] = "none"
    order: Order = "linear"
    smallest: tuple[int, ...] = ()
    modality: str = "unknown"
    aspect: Annotated[Literal["stretch", "crop", "pad"], Setting(only_with=("preprocessing.shape",))] = "stretch"
    border: Annotated[float, Setting(always=True)] = 0.0
    reduction: float = 1.0
    unit: str = MM
    frames: int | None = None
    interval: float | None = None
    time_unit: Literal["s", "frame"] | None = None
    cascade: float | None = None
    absent: tuple[str, ...] = ()
    prompts: int = 0
    tissue: Annotated[Literal["otsu", "none"], Setting(always=True)] = "otsu"
    stain: Literal["none", "macenko"] = "none"
    around: int = 0
    tiles: Tiles | None = None
    slicewise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.around < 0 or (self.around and self.frames is not None):
            problem = f"{self.around} frames around each, where the network sees {self.frames or 1} of a clip"
            raise PlanError(problem, "preprocessing.around", "Give 0 or more, and none for a model of whole clips")
        if not 1 <= self.reduction < math.inf:
            problem = f"images cannot be brought down by a factor of {self.reduction}"
            raise PlanError(problem, "preprocessing.reduction", "Give a number from 1 on")
        if self.cascade is not None and not 1 < self.cascade < math.inf:
            problem = f"a grid that is coarser by a factor of {self.cascade} shows no more of an image"
            raise PlanError(problem, "preprocessing.cascade", "Give a number above 1, or none")

    @classmethod
    def from_settings(cls, settings: StatedSettings) -> Preprocessing:
        """Read the plan's section or a model's record."""
        values = protocol.as_tuples(settings)
        try:
            values["normalisation"] = tuple(Normalisation(**one) for one in settings["normalisation"])
            values["tiles"] = slide_tiles.from_settings(settings.get("tiles"))
            return cls(**values)
        except (TypeError, KeyError) as error:
            raise PlanError(f"impossible settings: {error}", "preprocessing", "Plan again, or correct it") from error

    @property
    def inputs(self) -> int:
        """Channels of the network: one a channel and frame, and those of what is marked in the image."""
        return len(self.channels) * self.moments + self.marks

    @property
    def moments(self) -> int:
        """Frames that the network sees at once; 1 of still images."""
        return self.frames or 2 * self.around + 1

    @property
    def marks(self) -> int:
        """Channels after those of the image: labels that were marked before, and what somebody points at."""
        return (self.cascade is not None) + self.prompts

    @property
    def colour_scales(self) -> tuple[ChannelScale, ...] | None:
        """From colours of 8 bits to what the network sees of each; None where that is the image's own affair."""
        if self.channels != COLOUR or any(one.method == "zscore" for one in self.normalisation):
            return None
        return tuple(one.scale(0.0) for one in self.normalisation)

    @property
    def _crops(self) -> bool:
        return self.crop == "content"

    @property
    def _all_images(self) -> str:
        """A remedy for an image that lacks."""
        columns = f"--column image:{self.channels[0]}=COLUMN,..."
        return f"Give all images of a case: a folder with CASE_0000, CASE_0001, ..., or a table with {columns}"

    def held_parts(self, geometry: Geometry) -> HeldParts:
        """Parts of a large volume."""
        return HeldParts(STREAMED_BYTES)

    @property
    def order_of_axes(self) -> tuple[int, ...]:
        """The axes of an upright image (RAS+), unchanged."""
        return tuple(range(self.ndim))

    @property
    def settings(self) -> dict[str, PlainValue]:
        """Plain values for YAML and JSON."""
        return protocol.as_lists(asdict(self))

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], GridTrace]:
        """(channels, *padded) as the network sees it, and the way back.

        Raises DatasetError for other channels than the network knows, GeometryError for a grid that cannot be used.
        """
        if self.tiles is not None:
            bag, of_bag = self._open_bag(image, where, self.tiles)
            return bag[(slice(None),) * 4], of_bag
        slots = self._slots(image, where)
        image = image if slots is None else clip_frames.thin_clip(image, [one for one in slots if one is not None])
        image = clip_frames.with_frames_around(self._match_colours(image), self.around)
        places = self._places(image, where)
        image = image.with_pixels(image.data)  # read once: `valid` looks at the voxels too
        self._refuse_brighter(image, where)
        data, valid = (clip_frames.frames_as_channels(one, image.frames) for one in (image.data, image.valid))
        geometry, squeezed = image.geometry, self._flat_axis(image.geometry, where)
        if squeezed is not None:
            data, valid = data.squeeze(squeezed + 1), valid.squeeze(squeezed + 1)
        axes, flips = self._canonical(geometry, squeezed)
        data, valid = orient.permute_axes(data, axes, flips), orient.permute_axes(valid, axes, flips)
        region = self._region(data, valid)
        data, valid = data[(slice(None), *region)], valid[(slice(None), *region)]
        trace = self._trace(geometry, squeezed, axes, flips, region)
        # Each channel all the way before the next: only what the network sees is held of more than one. The frames of
        # one are normalised together, so that what changes with time is kept.
        arrays = [one.reshape(len(places), -1, *one.shape[1:]) for one in (data, valid)]
        normalisations = [self.normalisation[place] for place in places]
        channels, scales = list[NDArray[np.float32]](), list[ChannelScale]()
        for normalisation, channel, measured in zip(normalisations, *arrays, strict=True):
            normalised, scale = normalisation.apply_and_keep(channel, measured)
            channels.append(_pad(resampling.resample(normalised, trace.shape, self.order), trace.pad))
            scales.append(scale)
        trace = replace(trace, scales=_by_place(scales, places, len(self.channels)))
        if len(places) < len(self.channels):
            by_place, nothing = dict(zip(places, channels, strict=True)), np.zeros_like(channels[0])
            channels = [by_place.get(place, nothing) for place in range(len(self.channels))]
        if slots is not None:
            channels = [clip_frames.place_in_slots(channel, slots) for channel in channels]
        joined = channels[0] if len(channels) == 1 else np.concatenate(channels)
        return np.ascontiguousarray(joined, dtype=np.float32), trace

    def _match_colours(self, image: Image) -> Image:
        """The image with the channels that the network knows, in the dyes of the reference where that is asked for."""
        matched = channel_stack.match_colours(image, self.channels)
        is_dyed = self.stain == "macenko" and matched.channels == COLOUR and matched.dtype == np.uint8
        return stains.normalise_stain(matched) if is_dyed else matched

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """Whether the image has each channel; DatasetError where one is missing that the model needs."""
        places = self._places(channel_stack.match_colours(image, self.channels), where)
        return tuple(place in places for place in range(len(self.channels)))

    def labels(self, labels: Array, trace: GridTrace, outside: int | None = None) -> Array:
        """(*spatial) label map on the source grid, taken the same way.

        outside: what it is padded with; None continues its edge, as that of the image is
        """
        if trace.squeezed is not None:
            labels = labels.squeeze(trace.squeezed)
        moved = orient.permute_axes(labels[None], trace.axes, trace.flips)[0][trace.crop]
        resampled = label_resampling.resample_labels(np.ascontiguousarray(moved), trace.shape)
        if outside is None:
            return np.pad(resampled, trace.pad, mode="edge")
        return np.pad(resampled, trace.pad, constant_values=outside)

    def numbers(self, maps: Array, trace: GridTrace) -> Array:
        """(channels, *spatial) numbers on the source grid, taken the same way; linear between voxels."""
        if trace.squeezed is not None:
            maps = maps.squeeze(trace.squeezed + 1)
        moved = orient.permute_axes(maps, trace.axes, trace.flips)[(slice(None), *trace.crop)]
        return _pad(resampling.resample(np.ascontiguousarray(moved, dtype=np.float32), trace.shape), trace.pad)

    def open_image(self, image: Image, where: str) -> tuple[RegionSource, GridTrace]:
        """The same as a call, but of a large image only what is asked for is made, and it is never held."""
        if self.tiles is not None:
            return self._open_bag(image, where, self.tiles)
        if self.moments > 1 or self.frames is not None:
            return self(image, where)
        image = self._match_colours(image)
        if self.ndim != image.geometry.ndim or 4 * math.prod(image.shape) < STREAMED_BYTES:
            return self(image, where)
        places = self._places(image, where)
        self._refuse_brighter(image.level(-1) if image.is_slide else image, where)
        geometry = image.geometry
        (axes, flips), size = geometry.to_canonical, geometry.shape
        content = image_statistics.image_content(image) if self._crops else tuple(slice(0, n) for n in size)
        region = tuple(
            slice(size[axis] - content[axis].stop, size[axis] - content[axis].start) if flip else content[axis]
            for axis, flip in zip(axes, flips, strict=True)
        )
        trace = self._trace(geometry, None, axes, flips, self._without_border(region))
        image, read = self._level_for(image, trace)
        normalisations = [self.normalisation[place] for place in places]
        scales = image_statistics.channel_scales(
            image, normalisations, read.region(tuple(slice(0, n) for n in read.kept_shape))
        )
        trace = replace(trace, scales=_by_place(scales, places, len(self.channels)))
        return Streamed(image, read, tuple(scales), self.order, places, len(self.channels)), trace

    def _open_bag(self, image: Image, where: str, tiles: Tiles) -> tuple[Bag, GridTrace]:
        """The tiles of a slide's tissue, and the trace of a volume that they would be."""
        stack = slide_tiles.stack_tissue(self._match_colours(image), where, tiles, self.tissue)
        grid, every = Geometry.of_pixels(stack.shape[1:]), tuple(slice(0, size) for size in stack.shape[1:])
        scales = self.colour_scales or ()
        trace = GridTrace(grid, None, (0, 1, 2), (False,) * 3, every, grid.shape, ((0, 0),) * 3, grid.steps, walked=0)
        return Bag(stack, scales, stack.places, stack.corners), trace

    def _level_for(self, image: Image, trace: GridTrace) -> tuple[Image, GridTrace]:
        """Of a slide the picture that its coarsest level is, of those as fine as the network's grid, and its trace."""
        whole = trace.kept_shape == image.geometry.shape
        if not image.is_slide or not whole:
            return image, trace
        factors = [kept / size for kept, size in zip(trace.kept_shape, trace.shape, strict=True)]
        picture = image.level(image.level_within(min(factors)))
        return picture, replace(
            trace, source=picture.geometry, crop=tuple(slice(0, size) for size in picture.geometry.shape)
        )

    def parts(self, trace: GridTrace, region: Region | None, patch: Sequence[int], channels: int) -> list[VolumePart]:
        """Columns of what is wanted, as few as there may be."""
        return image_statistics.wanted_columns(trace, region, patch, channels)

    def restore(
        self, output_slabs: Slabs, trace: GridTrace, part: Region | None = None
    ) -> Iterator[tuple[Region, Mapping[str, Array]]]:
        """Finished parts of the network's grid, in order of the trace's slice order, as parts of the source's own grid.

        part: of the region that was kept; the slabs then hold what it needs
        """
        return restore.restore_regions(output_slabs, trace, part)

    def _trace(
        self,
        geometry: Geometry,
        squeezed: int | None,
        axes: tuple[int, ...],
        flips: tuple[bool, ...],
        region: Region,
    ) -> GridTrace:
        """The way of a grid of which this region of the canonical order is kept."""
        steps = tuple(np.delete(geometry.steps, [] if squeezed is None else squeezed)[list(axes)].tolist())
        cropped = tuple(part.stop - part.start for part in region)
        shape = self._target(cropped, steps)
        pad = tuple(orient.padding_to_size(shape, self.smallest or self.shape or shape))
        steps = tuple(step * old / new for step, old, new in zip(steps, cropped, shape, strict=True))
        return GridTrace(geometry, squeezed, axes, flips, region, shape, pad, steps)

    def _slots(self, image: Image, where: str) -> list[int | None] | None:
        """The frame of a clip that is looked at in each slot; None for a model of still images."""
        if self.frames is None:
            return None
        return clip_frames.frames_in_slots(image, self.frames, self.interval, self.time_unit, where)

    def _places(self, image: Image, where: str) -> tuple[int, ...]:
        """The channel of the network that each of the image's is; what cannot be used is refused."""
        is_complete = len(image.channels) == len(self.channels)
        places = (
            tuple(range(len(self.channels)))
            if is_complete
            else channel_stack.channel_places(image.channels, self.channels)
        )
        if places is None or len(places) > len(self.channels):
            channels = errors.count_phrase(len(image.channels), "channel")
            raise DatasetError(
                f"has {channels} ({', '.join(image.channels)}), the model expects "
                f"{len(self.channels)} ({', '.join(self.channels)})",
                where,
                self._all_images
                if len(self.channels) > len(image.channels)
                else "Give the images that the model was trained on, in that order",
            )
        # _0000 and _0001 say which channel of the model a file is, as nnU-Net has it; names have to be the same names.
        numbered = image.channels == tuple(str(n) for n in range(len(self.channels)))
        if is_complete and len(self.channels) > 1 and not numbered and image.channels != self.channels:
            raise DatasetError(
                f"channels {', '.join(image.channels)} are not the model's {', '.join(self.channels)}",
                where,
                "Name and order the images as in training",
            )
        lacking = [name for place, name in enumerate(self.channels) if place not in places and name not in self.absent]
        if lacking:
            raise DatasetError(
                f"lacks {' and '.join(lacking)}, which training never dropped: the model cannot do without",
                where,
                f"{self._all_images}. A model that is trained with --set training.modality_dropout=0.5 does without",
            )
        self._check(image, where)
        return places

    def _check(self, image: Image, where: str) -> None:
        if image.frames is not None and self.frames is None and not (self.around and image.frames == self.moments):
            raise GeometryError(
                f"has {image.frames} frames on a fourth axis", where, "Give one volume (volume=..., one file per frame)"
            )
        if self.spacing is not None and image.spacing is None:
            raise GeometryError(
                f"has no size in {self.unit}, and the model works at {self.spacing} {self.unit}",
                where,
                "Give a file with its spacing",
            )
        if self.spacing is not None and image.geometry.unit != self.unit:
            problem = f"its axis is in {image.geometry.unit}, the model's in {self.unit}"
            raise GeometryError(problem, where, "Give series of the kind that the model was trained on")

    def _refuse_brighter(self, image: Image, where: str) -> None:
        """DatasetError for colours of more bits than those that the model knows: they would nearly all be white."""
        if image.channels != COLOUR:
            return
        # Noise, as where an image is degraded, may lead floating colours a little beyond.
        beyond = 1 if image.dtype.kind in "iu" else 2
        for normalisation, values in zip(self.normalisation, image.data, strict=True):
            if (
                normalisation.method == "range"
                and normalisation.high is not None
                and (most := values.max()) > beyond * normalisation.high
            ):
                problem = (
                    f"its colours reach {most:g}, and those of the model's images {normalisation.high:g} at the most"
                )
                raise DatasetError(problem, where, "Give pictures of as many bits a colour as in training")

    def _flat_axis(self, geometry: Geometry, where: str) -> int | None:
        if geometry.ndim == self.ndim:
            return None
        single = [axis for axis, size in enumerate(geometry.shape) if size == 1]
        if self.ndim == 2 and geometry.is_volume and single:
            return single[-1]
        raise GeometryError(
            f"has {geometry.ndim} axes of {geometry.shape} voxels, the model works in {self.ndim} dimensions",
            where,
            "Give images of the kind that the model was trained on",
        )

    def _canonical(self, geometry: Geometry, squeezed: int | None) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        axes, flips = geometry.to_canonical
        if squeezed is None:
            return axes, flips
        turns = [(axis - (axis > squeezed), flip) for axis, flip in zip(axes, flips, strict=True) if axis != squeezed]
        return tuple(axis for axis, _ in turns), tuple(flip for _, flip in turns)

    def _region(self, data: Array, valid: NDArray[np.bool_]) -> Region:
        """The kept region of the canonical grid: the content, without its border, in the proportions of the shape."""
        region = tuple(slice(0, size) for size in data.shape[1:])
        if self._crops:
            above = [_above_lowest(channel, measured) for channel, measured in zip(data, valid, strict=True)]
            region = orient.content_region(np.any(above, axis=0))
        return self._without_border(region)

    def _without_border(self, region: Region) -> Region:
        """A region without its border, in the proportions of the shape."""
        sizes = [part.stop - part.start for part in region]
        region = _middle(region, [size - 2 * int(self.border * size) for size in sizes])
        if self.shape is None or self.aspect != "crop":
            return region
        sizes = [part.stop - part.start for part in region]
        factor = min(size / whole for size, whole in zip(sizes, self.shape, strict=True))
        return _middle(region, [max(1, round(factor * whole)) for whole in self.shape])

    def _target(self, shape: tuple[int, ...], steps: tuple[float, ...]) -> tuple[int, ...]:
        """Voxels an axis after resampling."""
        if self.shape is not None and self.aspect == "pad":
            factor = max(size / whole for size, whole in zip(shape, self.shape, strict=True))
            return tuple(
                min(whole, max(1, round(size / factor))) for size, whole in zip(shape, self.shape, strict=True)
            )
        if self.shape is not None:
            return self.shape
        spacing = steps if self.spacing is None else self.spacing
        sizes = zip(shape, steps, spacing, strict=True)
        return tuple(max(1, round(size * old / (new * self.reduction))) for size, old, new in sizes)


def _middle(region: Region, sizes: Sequence[int]) -> Region:
    """A region of as many voxels, about the middle of another."""
    starts = [part.start + (part.stop - part.start - size) // 2 for part, size in zip(region, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _pad(channel: Array, pad: Sequence[tuple[int, int]]) -> Array:
    """(frames, *spatial) continued beyond its edges."""
    return np.pad(channel, ((0, 0), *pad), mode="edge") if np.any(pad) else channel


def _above_lowest(channel: Array, measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask of voxels above the lowest measurement of the channel."""
    return measured & (channel > channel[measured].min()) if measured.any() else measured


def _by_place(scales: Sequence[ChannelScale], places: Sequence[int], count: int) -> tuple[ChannelScale, ...]:
    """The scale of each channel of the network; of one that the image lacks none."""
    by_place = dict(zip(places, scales, strict=True))
    return tuple(by_place.get(place, ChannelScale(None)) for place in range(count))


@dataclass(eq=False)
class Streamed:
    """(channels, *padded) as a network sees it, part by part, quickest in the order of the trace's slice order.

    scales: of each channel, known from all of its values
    order:  interpolation of intensities
    places: which of `channels` channels each of the image's is; zeros where there is none
    """

    image: Image
    trace: GridTrace
    scales: tuple[ChannelScale, ...]
    order: Order
    places: tuple[int, ...]
    channels: int
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    _read: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._read = self.image.reader()

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *padded)."""
        return (self.channels, *self.trace.padded_shape)

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """(channels, *region); slices have a start and a stop."""
        inner, rows = padded_region(self.trace, region[1:])
        array = self._whole(self._resample(inner))[region[0]]
        for axis, (rows_of_axis, size) in enumerate(zip(rows, self.trace.shape, strict=True), start=1):
            if len(rows_of_axis) != array.shape[axis]:
                array = array.take(np.clip(rows_of_axis, 0, size - 1) - inner[axis - 1].start, axis)  # the edge goes on
        return array

    def _whole(self, inner: NDArray[np.float32]) -> NDArray[np.float32]:
        """All channels, of those that are there."""
        if self.places == tuple(range(self.channels)):
            return inner
        padded = np.zeros((self.channels, *inner.shape[1:]), dtype=inner.dtype)
        padded[list(self.places)] = inner
        return padded

    def _resample(self, part: Region) -> NDArray[np.float32]:
        """A part of the grid between resampling and padding."""
        steps: list[Taps | None] = []
        source = []
        for old, new, rows in zip(self.trace.kept_shape, self.trace.shape, part, strict=True):
            if old == new:
                steps.append(None)
                source.append(rows)
                continue
            [near], [step] = source_region([resampling.axis_taps(old, new, self.order).part(rows)])
            steps.append(step)
            source.append(near)
        array = self._normalise(tuple(source))
        # In the order of `resample`, and as the image lies in memory: it is the smaller result that is turned.
        layout = slabs.memory_order(array[0])
        array = np.ascontiguousarray(array.transpose(0, *(axis + 1 for axis in layout)))
        for axis in sorted(range(len(part)), key=lambda axis: self.trace.shape[axis] / self.trace.kept_shape[axis]):
            if (taps_of := steps[axis]) is not None:
                array = resampling.resample_axis(array, layout.index(axis) + 1, taps_of)
        return array.transpose(0, *(int(axis) + 1 for axis in np.argsort(layout)))

    def _normalise(self, part: Region) -> NDArray[np.float32]:
        """A part of the region that was kept, in canonical order."""
        read = self._read((slice(None), *self.trace.region(part)))
        valid = None if image_statistics.is_measured(self.image) else self.image.is_measured(read)
        values = read.astype(np.float32, order="K", copy=True)
        for number, (channel, scale) in enumerate(zip(values, self.scales, strict=True)):
            scale.apply_in_place(channel, None if valid is None else valid[number])
        return orient.permute_axes(values, self.trace.axes, self.trace.flips)


def padded_region(trace: GridTrace, region: Region) -> tuple[Region, list[NDArray[np.intp]]]:
    """The region before padding that a region of the padded grid needs, and its rows there, which may lie beyond."""
    inner, every = [], []
    for part, (before, _), size in zip(region, trace.pad, trace.shape, strict=True):
        rows = np.arange(part.start, part.stop) - before
        held = np.clip(rows, 0, size - 1)
        inner.append(slice(int(held[0]), int(held[-1]) + 1))
        every.append(rows)
    return tuple(inner), every


def source_region(steps: Sequence[Taps]) -> tuple[Region, list[Taps]]:
    """The old samples that these new ones are made of, and the taps counted from the first of them."""
    source, counted = [], []
    for step in steps:
        first = int(step.index.min())
        source.append(slice(first, int(step.index.max()) + 1))
        counted.append(Taps(step.index - first, step.weight))
    return tuple(source), counted
