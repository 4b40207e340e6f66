"""Images: numbers on a grid, what is known about them, and label maps with structures that overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import GeometryError
from hilum.values.grid_geometry import Geometry

Array = NDArray[Any]
# What the file of an image states beside voxels and grid, and a later step needs.
FileFacts = Mapping[str, Any]
# Points of brightness: rising values, each with its share of white; the fourth part of an image's fact "window" where
# the file asks for more than the line through centre and width.
BrightnessCurve = tuple[tuple[float, float], ...]
# The fact of an image that holds those in which its channels differ.
OF_CHANNELS = "of_channels"
# The fact of an image on the grid of another: NaN is where it does not reach, and no fault of its file.
BROUGHT = "brought"
# The fact of an image whose file says that its values are labels.
LABEL_MAP = "label_map"
# The fact of a label map that holds the structures which were contoured and have no voxel in it, {name: why}.
WITHOUT_VOXELS = "without_voxels"
# In the note of an image whose orientation its file does not state: who does.
STATED_SIDES = "as --orientation states"
# The fact of an image that was brought onto a finer grid: by which factor along each axis.
SCALE = "scale"
# The fact of a frame that is a file: its place among the files of its clip, and these.
FRAME_FILES = "frame_files"
# The fact of an image that stands for its target, which nobody knows.
UNKNOWN_TARGET = "the target is not known"
# What to do about a label map whose values are no whole numbers.
WHOLE_NUMBERS = (
    "Save whole numbers: round them if an offset was added to labels, resample anew by the nearest neighbour if they "
    "were interpolated"
)
# A level of a slide may be a hundredth coarser than what was asked for: the sizes of levels are rounded.
LEVEL_TOLERANCE = 1.01
# A function that gives `array[region]` of an array that is not in memory.
Reader = Callable[[tuple[slice, ...]], Array]


@dataclass(frozen=True, eq=False)
class Deferred:
    """Voxels that are read on demand.

    load:   makes the whole array; it must survive pickling (a partial of a module's function)
    region: makes `array[region]` without the rest, where the file allows it
    stream: makes a `Reader` for parts that follow each other, where a file is quicker read so
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], Array]
    region: Callable[[tuple[slice, ...]], Array] | None = None
    stream: Callable[[], Reader] | None = None

    def reader(self) -> Reader:
        """A function that gives one part after the other; other files are read once as a whole."""
        if self.stream is not None:
            return self.stream()
        return self.region if self.region is not None else self.load().__getitem__

    def one_channel(self) -> Deferred:
        """(*spatial) as (1, *spatial)."""
        return Deferred((1, *self.shape), self.dtype, partial(_first_axis, self), partial(_first_axis_of, self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.load(), dtype=dtype)

    def __getitem__(self, region: tuple[slice, ...]) -> Array:
        return self.region(region) if self.region is not None else self.load()[region]


def reader_of(array: Array | Deferred) -> Reader:
    """A function that reads parts of an array, of a deferred one without all of it in memory where that is possible."""
    return array.reader() if isinstance(array, Deferred) else array.__getitem__


def one_channel(array: Array | Deferred) -> Array | Deferred:
    """(*spatial) as (1, *spatial); a deferred array stays one."""
    return array.one_channel() if isinstance(array, Deferred) else array[None]


def walk_blocks(array: Array | Deferred, voxels: int = 2**22) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """(region, part) after (region, part) along the axis in which files and results give them.

    That is the last one, of volumes their slices; of (rows, columns) it is the rows.
    """
    read, whole = reader_of(array), tuple(slice(0, n) for n in array.shape)
    walked = 0 if len(array.shape) == 2 else len(array.shape) - 1
    size = array.shape[walked]
    step = max(1, voxels * size // max(1, math.prod(array.shape)))
    for start in range(0, size, step):
        region = (*whole[:walked], slice(start, min(start + step, size)), *whole[walked + 1 :])
        yield region, read(region)


def pad_numeric_name(name: str) -> str:
    """The name of a case's image where others are absent: a number gets four digits, as in nnU-Net's files.

    Else 0 could be the one channel of any grey picture.
    """
    return f"{int(name):04}" if name.isdigit() else name


def names_of_channels(name: str, channels: Sequence[str]) -> tuple[str, ...]:
    """The channels' names of one of several images of a case."""
    return (name,) if len(channels) == 1 else tuple(f"{name}:{channel}" for channel in channels)


def _first_axis(deferred: Deferred) -> Array:
    return deferred.load()[np.newaxis]


def _first_axis_of(deferred: Deferred, region: tuple[slice, ...]) -> Array:
    return deferred[region[1:]][np.newaxis][region[:1]]


@dataclass(frozen=True)
class Code:
    """A coded concept of DICOM, PS3.3 8.8: ("SCT", "71854001", "Colon structure")."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Label:
    """One value of a label map and its meaning.

    kind: the class of a single object, where the map numbers objects of several classes
    """

    value: int
    name: str
    colour: tuple[int, int, int] | None = None
    code: Code | None = None
    kind: str | None = None

    @classmethod
    def of_object(cls, number: int, kind: str, colour: tuple[int, int, int] | None = None) -> Label:
        """The label of a single object of a class; colour: of the class."""
        return cls(number, f"{kind} {number}", colour, kind=kind)

    @property
    def is_bare(self) -> bool:
        """Whether its name is its number, as where nobody named it."""
        return self.name == str(self.value)

    @property
    def is_ignored(self) -> bool:
        """Whether voxels of this value are unlabelled: the reader did not label them (nnU-Net's word for it)."""
        return self.name.casefold() == "ignore"

    @property
    def is_background(self) -> bool:
        """Whether it names the background, which has a value of its own where 0 means that nobody looked."""
        return self.name.casefold() == "background"


@dataclass(frozen=True, eq=False)
class Source:
    """The file or files an image came from, and the header that a result on its grid copies."""

    format: str
    paths: tuple[str, ...]
    header: Any = None

    @property
    def is_dicom(self) -> bool:
        """Whether it came from DICOM objects, on which results can be written as DICOM."""
        return self.format == "dicom"


@dataclass(frozen=True, eq=False)
class SlideLevel:
    """One resolution of a slide, over the same field of view as all others.

    pixels: (channels, rows, columns), read region by region
    """

    pixels: Deferred

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return self.pixels.shape[1:]


@dataclass(eq=False)
class HeldFrames:
    """Frames of a clip that is read in order, held as long as those after them may ask for them.

    shape: (*spatial); count: of all frames; reach: as far back as any frame has asked
    """

    read: Reader
    shape: tuple[int, ...]
    count: int
    reach: int = 0
    held: dict[int, Array] = field(default_factory=dict)

    def read_frame(self, number: int) -> Array:
        """(channels, *spatial) of a frame."""
        if number not in self.held:
            region = (slice(None), slice(number, number + 1), *(slice(0, size) for size in self.shape))
            self.held[number] = np.asarray(self.read(region))[:, 0]
        self.held = {n: one for n, one in self.held.items() if n >= number - 2 * self.reach}
        return self.held[number]

    def frame_beside(self, number: int, step: int) -> Array:
        """The frame so many after another one."""
        self.reach = max(self.reach, abs(step))
        return self.read_frame(min(max(number + step, 0), self.count - 1))


@dataclass(frozen=True, eq=False)
class Image:
    """Numbers on a grid.

    pixels:   (channels, *spatial), with time (channels, frames, *spatial); an array, or Deferred
    geometry: of the spatial axes. Volumes with a position are (column, row, slice) as in NIfTI; pictures
              without one are (row, column) as in NumPy and every picture library
    modality: DICOM's word (CT, MR, DX, ...) or "unknown"
    channels: one name a channel
    times:    s from the first frame, where frames are in time and it is known
    padding:  (low, high) values, after rescaling, that are no measurement; kept in `data`, left out of `valid`
    labels:   the meaning of the values, where the image is a label map
    notes:    decisions of the reader and oddities of the file, one sentence each
    facts:    further facts of the file that a later step needs ("unit", "imager_pixel_spacing", "b_values", ...);
              those in which channels differ stand under `OF_CHANNELS`, {channel: {fact: value}}
    levels:   of a slide, the finest first, whose pixels are `pixels`; empty of any other image, and of one with
              other pixels than those of its file
    neighbours: of one frame of a clip, the frame so many further on (negative: before), (channels, *spatial); beyond
              an end that at the end
    """

    pixels: Array | Deferred
    geometry: Geometry
    modality: str = "unknown"
    channels: tuple[str, ...] = ()
    times: tuple[float, ...] | None = None
    padding: tuple[float, float] | None = None
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    facts: FileFacts = field(default_factory=dict)
    source: Source | None = None
    levels: tuple[SlideLevel, ...] = ()
    neighbours: Callable[[int], Array] | None = None

    def __post_init__(self) -> None:
        if self.levels and self.levels[0].pixels is not self.pixels:
            object.__setattr__(self, "levels", ())
        where = self.source.paths[0] if self.source and self.source.paths else "Image"
        extra = len(self.shape) - self.geometry.ndim
        if extra not in (1, 2) or tuple(self.shape[extra:]) != self.geometry.shape:
            raise GeometryError(
                f"voxels of shape {self.shape} on a grid of {self.geometry.shape}", where, "Give (channels, *spatial)"
            )
        if not self.channels:
            object.__setattr__(self, "channels", tuple(str(n) for n in range(self.shape[0])))
        if len(self.channels) != self.shape[0]:
            raise GeometryError(f"{self.shape[0]} channels named {self.channels}", where, "Name each channel once")
        if self.times is not None and len(self.times) != self.frames:
            raise GeometryError(f"{self.frames} frames at {len(self.times)} times", where, "Give one time per frame")
        object.__setattr__(self, "facts", _lock(self.facts))

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels[, frames], *spatial)."""
        return tuple(self.pixels.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the voxels."""
        return self.pixels.dtype

    @property
    def frames(self) -> int | None:
        """Number of frames, None without a frame axis."""
        return self.shape[1] if len(self.shape) == self.geometry.ndim + 2 else None

    def facts_of(self, channel: int) -> FileFacts:
        """The facts of one channel: those of the image, and its own."""
        of_channel = self.facts.get(OF_CHANNELS, {}).get(self.channels[channel], {})
        return {**{name: value for name, value in self.facts.items() if name != OF_CHANNELS}, **of_channel}

    def frame(self, number: int) -> Image:
        """One of its frames as a still image, read when it is asked for."""
        return self._still(HeldFrames(self.pixels.__getitem__, self.geometry.shape, self.frames or 0), number)

    def still_frames(self) -> Iterator[Image]:
        """Each of its frames as a still image, one after the other: of a clip none is decoded twice."""
        held = HeldFrames(self.reader(), self.geometry.shape, self.frames or 0)
        return (self._still(held, number) for number in range(self.frames or 0))

    def _still(self, held: HeldFrames, number: int) -> Image:
        return replace(self, pixels=held.read_frame(number), times=None, neighbours=partial(held.frame_beside, number))

    @property
    def data(self) -> Array:
        """The voxels as a NumPy array, read now if they were not yet."""
        return np.asarray(self.pixels)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """mm between voxel centres per axis; None without physical size."""
        return self.geometry.spacing

    @property
    def is_slide(self) -> bool:
        """Whether it is a slide: a picture in levels, of which no step holds all pixels."""
        return bool(self.levels)

    @property
    def downsamples(self) -> tuple[float, ...]:
        """How many pixels of level 0 lie along a side of a pixel of each level."""
        return tuple(max(self.geometry.shape) / max(level.shape) for level in self.levels)

    def level(self, number: int) -> Image:
        """A slide as the picture that one of its levels is, over the same field of view; read region by region."""
        level = self.levels[number]
        return replace(self, pixels=level.pixels, geometry=self.geometry.reshape(level.shape), levels=())

    def level_within(self, downsample: float) -> int:
        """The coarsest level whose pixels are no longer than so many of level 0, a hundredth aside."""
        return max(n for n, one in enumerate(self.downsamples) if n == 0 or one <= LEVEL_TOLERANCE * downsample)

    def at(self, mm: float) -> Image:
        """A slide as the picture of its coarsest level that shows so many mm a pixel, or finer ones.

        What remains is resampled by whoever needs it exactly, as `preprocessing.spacing` does.
        Raises GeometryError where the file states no size of its pixels.
        """
        return self.level(self.level_within(mm / max(self.stated_spacing)))

    @property
    def stated_spacing(self) -> tuple[float, ...]:
        """mm between voxel centres per axis; GeometryError where the file states none."""
        if self.spacing is None:
            where = self.source.paths[0] if self.source else "Image"
            raise GeometryError("states no size of its pixels in mm", where, "Give it with --mm-per-pixel")
        return self.spacing

    def map_pixels(
        self, change: Callable[[Array], Array], dtype: np.dtype[Any], channels: tuple[str, ...] | None = None
    ) -> Image:
        """The image, all levels of a slide, changed pixel by pixel: (channels, ...) to (channels, ...) of this type.

        What is read part by part is changed when it is read. channels: the names of what the change gives, if others
        """
        names = channels or self.channels
        if not isinstance(self.pixels, Deferred):
            return replace(self, pixels=change(self.pixels), channels=names)
        changed = partial(_change_deferred, change=change, dtype=dtype, count=len(names))
        levels = tuple(SlideLevel(changed(level.pixels)) for level in self.levels)
        pixels = levels[0].pixels if levels else changed(self.pixels)
        return replace(self, pixels=pixels, channels=names, levels=levels)

    def with_mm_per_pixel(self, mm: float) -> Image:
        """The image with this size of a pixel, where it is a picture that states none."""
        if self.geometry.physical or not self.geometry.is_picture:
            return self
        note = f"{mm:g} mm a pixel, as --mm-per-pixel states, since the file does not"
        grid = Geometry.of_spacing(self.geometry.shape, (mm, mm))
        return replace(self, geometry=grid, notes=(*self.notes, note))

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether each voxel of `data` is a finite measurement and no padding."""
        return self.is_measured(self.data)

    def is_measured(self, part: Array) -> NDArray[np.bool_]:
        """Whether each voxel of a part of `data` is a finite measurement and no padding."""
        finite = np.isfinite(part)
        if self.padding is None:
            return finite
        low, high = self.padding
        return finite & ~((part >= low) & (part <= high))

    def reader(self) -> Reader:
        """`data` in parts, best in the order of the last axis; not in memory as a whole where that can be avoided."""
        return reader_of(self.pixels)

    def with_pixels(self, pixels: Array | Deferred, geometry: Geometry | None = None) -> Image:
        """The same image with other voxels, on another grid if one is given."""
        return replace(self, pixels=pixels, geometry=geometry or self.geometry)

    def along(self, orientation: str) -> Image:
        """The image with its axes in these directions, such as "RAS", where it is a volume that states none."""
        if self.geometry.oriented or not self.geometry.is_volume:
            return self
        note = f"its axes grow to {orientation}, {STATED_SIDES}, since the file states no orientation"
        return replace(self, geometry=self.geometry.along(orientation), notes=(*self.notes, note))

    def on_axes_of(self, grid: Geometry) -> Image:
        """The same image with its axes in the order and direction of another grid's, where only these differ.

        On any other grid it stays as it is: nothing is resampled.
        """
        turn = None if self.geometry.equals(grid) else self.geometry.axes_onto(grid)
        if turn is None:
            return self
        extra, (axes, flips) = len(self.shape) - self.geometry.ndim, turn
        voxels = np.transpose(self.data, [*range(extra), *(extra + axis for axis in axes)])
        voxels = np.flip(voxels, tuple(extra + axis for axis, is_turned in enumerate(flips) if is_turned))
        note = f"stored as {self.geometry.orientation}, brought onto the axes of the first image ({grid.orientation})"
        turned = self.with_pixels(np.ascontiguousarray(voxels), self.geometry.permute(axes, flips))
        return replace(turned, notes=(*self.notes, note))

    def with_label_map(self, values: Array | Deferred, labels: Sequence[Label]) -> Image:
        """A label map (*spatial) or (frames, *spatial) on the same grid, with the header of the same source.

        That of a slide is a slide too, whose levels are made of every fourth of its pixels, of every sixteenth...
        """
        levels = label_levels(values) if self.is_slide else ()
        return replace(
            self,
            pixels=levels[0].pixels if levels else one_channel(values),
            levels=levels,
            modality="SEG",
            channels=("label",),
            times=self.times if len(values.shape) > self.geometry.ndim else None,
            padding=None,
            labels=tuple(labels),
            notes=(),
            facts={},
        )

    def with_image_name(self, name: str) -> Image:
        """The same image as one of several of its case, with the image's name in those of its channels."""
        names, facts = names_of_channels(name, self.channels), dict(self.facts)
        if OF_CHANNELS in facts:
            of_channels = facts[OF_CHANNELS]
            facts[OF_CHANNELS] = {new: of_channels.get(old, {}) for new, old in zip(names, self.channels, strict=True)}
        return replace(self, channels=names, facts=facts)

    def __getstate__(self) -> object:
        return {**self.__dict__, "facts": dict(self.facts)}  # a mapping proxy cannot cross processes

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, facts=_lock(state["facts"]))

    def __repr__(self) -> str:
        frames = f", {self.frames} frames" if self.frames else ""
        return f"Image({self.modality}, channels {', '.join(self.channels)}{frames}, {self.dtype}, {self.geometry!r})"


def _change_deferred(whole: Deferred, change: Callable[[Array], Array], dtype: np.dtype[Any], count: int) -> Deferred:
    return Deferred(
        (count, *whole.shape[1:]), dtype, partial(_changed_all, whole, change), partial(_changed_part, whole, change)
    )


def _changed_all(whole: Deferred, change: Callable[[Array], Array]) -> Array:
    return change(whole.load())


def _changed_part(whole: Deferred, change: Callable[[Array], Array], region: tuple[slice, ...]) -> Array:
    return change(whole[(slice(None), *region[1:])])[region[0]]


# Each level of a label map has so many pixels less along each side; the last is no longer than this.
REDUCED, SMALLEST_LEVEL = 4, 1024


def label_levels(values: Array | Deferred) -> tuple[SlideLevel, ...]:
    """The levels of a label map of a slide, (rows, columns): every nth pixel, as a mean of labels means nothing."""
    whole = (
        values
        if isinstance(values, Deferred)
        else Deferred(values.shape, values.dtype, values.view, values.__getitem__)
    )
    levels, step = [SlideLevel(whole.one_channel())], 1
    while max(levels[-1].shape) > SMALLEST_LEVEL:
        step *= REDUCED
        shape = tuple(-(-size // step) for size in whole.shape)
        region = partial(_every_nth, whole, step)
        every = Deferred(shape, whole.dtype, partial(region, (slice(None), slice(None))), region)
        levels.append(SlideLevel(every.one_channel()))
    return tuple(levels)


def _every_nth(whole: Deferred, step: int, region: tuple[slice, ...]) -> Array:
    """A region of every nth row and column of an array, row by row: they may lie far apart in a file."""
    shape = [-(-size // step) for size in whole.shape]
    rows, columns = (range(size)[part] for size, part in zip(shape, region, strict=True))
    wide = slice(columns.start * step, (columns.stop - 1) * step + 1)
    lines = [whole[slice(row * step, row * step + 1), wide][:, ::step] for row in rows]
    return np.concatenate(lines) if lines else np.empty((0, len(columns)), whole.dtype)


def _lock(facts: FileFacts) -> FileFacts:
    return MappingProxyType(dict(facts))


def words_for_fractions(values: Array, rounding: float = 0.0) -> str:
    """Why values are no labels: a few of those between whole numbers, and how many voxels; empty where all are whole.

    rounding: a value so near to a whole number counts as one
    """
    if not np.issubdtype(values.dtype, np.floating):
        return ""
    fractions = values[~(np.abs(values - np.rint(values)) <= rounding)]  # NaN is none either
    if not fractions.size:
        return ""
    named = errors.list_phrase((f"{value:.4g}" for value in np.unique(fractions).tolist()), 3)
    voxels = errors.count_phrase(fractions.size, "voxel")
    return f"holds values between whole numbers ({named}, in {voxels}), so it is not a mask"


def labels_of_regions(regions: Mapping[str, Sequence[int]]) -> tuple[Label, ...]:
    """The label of each value of the label map: its region, without the part of later ones."""
    marks = {values[0] for values in regions.values()}
    names = {values[0]: _without_later(name, regions) for name, values in regions.items()}
    for name, values in regions.items():
        for value in sorted(set(values) - marks):
            names[value] = f"{name} ({value})"  # of the regions that hold it, the last
    return tuple(Label(value, names[value]) for value in sorted(names))


def find_hidden_region(regions: Mapping[str, Sequence[int]]) -> tuple[str, str] | None:
    """(a region whose own mark a later one holds too, that later one); None where all can be separated."""
    names = list(regions)
    pairs = ((one, later) for place, one in enumerate(names) for later in names[place + 1 :])
    return next((pair for pair in pairs if regions[pair[0]][0] in regions[pair[1]]), None)


def _without_later(name: str, regions: Mapping[str, Sequence[int]]) -> str:
    order = list(regions)
    later = {value for other in order[order.index(name) + 1 :] for value in regions[other]}
    return f"{name} (rest)" if set(regions[name]) & later else name


class ReferenceMap(NamedTuple):
    """The label map that a prediction is scored on.

    values: (*spatial) label values, 0 where nothing is known
    voxels: (*spatial) where it is known; None: everywhere
    known:  whether each structure was contoured, in the order of the model's; None: all of them
    """

    values: Array
    voxels: NDArray[np.bool_] | None = None
    known: tuple[bool, ...] | None = None

    def knows(self, index: int) -> bool:
        """Whether the structure at this place was contoured."""
        return self.known is None or self.known[index]
