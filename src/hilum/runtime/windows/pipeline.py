"""The pipeline of a prediction: prepare an image, run the network window by window, restore its grid and decode."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.runtime.cascade import StackedSource
from hilum.runtime.preprocessing import coarse_mask
from hilum.runtime.preprocessing.coarse_mask import MASKS, NO_TISSUE, CoarseMask, Outside
from hilum.runtime.preprocessing.slide_tiles import Bag
from hilum.runtime.prompting import PromptSource
from hilum.runtime.windows import averaging, slide
from hilum.runtime.windows.averaging import FiniteNetwork
from hilum.runtime.windows.bags import BaggedSlide
from hilum.runtime.windows.fixed_views import FixedViews
from hilum.runtime.windows.slide import Network, Progress, Skipping
from hilum.tasks import properties
from hilum.tasks.shared.averages import BETWEEN, OUTPUT, WITHIN
from hilum.values import Array, Geometry, Image, Merge, Prediction, Region, Slabs
from hilum.values.voxel_images import STATED_SIDES
from hilum.work_state import log

if TYPE_CHECKING:
    from hilum.runtime.preprocessing.protocol import GridTrace, ImageSteps, RegionSource, VolumePart
    from hilum.runtime.prompting import ImagePrompts
    from hilum.runtime.uncertainty.disagreement import Disagreement
    from hilum.runtime.windows.slide import Network
    from hilum.tasks import Task


# Takes a part of a grid, and {head: (classes, *region) or (classes,)} its probabilities; under the head's name with an
# end also the outputs that they were made of, and what several views say of uncertainty.
Receiver = Callable[[Region, Mapping[str, Array]], None]
# Why no model answers an image in which there is nothing to see.
BLANK = "it is one value everywhere once it is normalised"
# Shares of a window that the next window covers too, tried in this order where the time is limited.
OVERLAPS = (0.5, 0.375, 0.25, 0.125, 0.0)
# Of the seconds that an image may take, the share after which it is known how long all of its windows will take.
TIMED_SHARE = 0.05


@dataclass(frozen=True)
class WindowSettings:
    """The windows in which a network sees an image.

    patch:      voxels of a window, per axis
    overlap:    share of a window that the next window covers too
    batch:      windows that pass the network together
    flips:      axes of the window along which the network also sees it mirrored
    left_right: axis of the network's grid between left and right, as the model was planned; None where unknown
    seconds:    time limit for all windows of an image: the overlap shrinks where it has to; None without a limit
    differ, plain: of mirrored views, as in `MirroredNetwork`
    at_most:    s that all windows of an image may take: it is refused once they are known to take longer
    skip:       windows that lie wholly in this are background, without a look; None where all are seen
    views:      further views of each window
    """

    patch: tuple[int, ...]
    overlap: float
    batch: int
    flips: tuple[int, ...] = ()
    left_right: int | None = None
    seconds: float | None = None
    differ: Disagreement | None = None
    plain: bool = False
    at_most: float | None = None
    skip: Outside | None = None
    views: FixedViews = field(default_factory=FixedViews)


@dataclass
class WindowsDone:
    """Progress of the windows of one part after the other, reported as progress of all; count: how many there are.

    where, at_most: the image, and the s that its windows may take; None without a limit
    """

    progress: Progress | None
    count: int
    where: str = ""
    at_most: float | None = None
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def of_part(self) -> Progress | None:
        """Progress of one part; parts of several networks may advance in turn."""
        if self.progress is None and self.at_most is None:
            return None
        earlier = 0

        def report(done: int, _: int) -> None:
            """Report how many of all windows are done."""
            nonlocal earlier
            self.done, earlier = self.done + done - earlier, done
            self._refuse_long()
            self.again()

        return report

    def _refuse_long(self) -> None:
        """Raise DatasetError once it is known that all windows would take longer than they may."""
        elapsed = time.monotonic() - self.began
        if self.at_most is None or elapsed < TIMED_SHARE * self.at_most:
            return
        if (needed := elapsed * self.count / self.done) > self.at_most:
            problem = f"{self.count:,} windows would take about {needed:,.0f} s, and {self.at_most:,.0f} s are allowed"
            raise DatasetError(problem, self.where, "See whether its spacing is right; crop it, or allow more time")

    def again(self) -> None:
        """Report the same once more, because a part of the result is back on the image's grid."""
        if self.progress is not None:
            self.progress(self.done, self.count)


@dataclass(frozen=True, eq=False)
class WindowedImage:
    """An image as one network sees it, window by window, with the way of the outputs back onto the image's grid.

    image, where: the image, and its name for error messages
    task:    whose heads the network has
    data:    (channels, *spatial) of the network's grid
    network: with mirrored views
    tissue:  of a slide, beside which nothing is predicted; None of other images
    """

    image: Image
    where: str
    task: Task
    preprocessing: ImageSteps
    windows: WindowSettings
    data: RegionSource
    trace: GridTrace
    network: Network
    skipping: Skipping | None
    tissue: CoarseMask | None = None

    def parts(self, region: Region | None) -> Sequence[VolumePart]:
        """The parts in which a region of the image's grid, or all of it, is predicted.

        Of a slide a map is made of the boxes around its tissue alone: where no slab is, there is background.
        """
        channels = properties.kept_channel_count(self.task)
        wanted: list[Region | None] = [region]
        if self.tissue is not None and channels:
            pieces = self.tissue.pieces(self.image.geometry.shape)
            wanted = [*pieces] if region is None else [both for one in pieces if (both := _common(one, region))]
        patch = self.windows.patch
        return [part for one in wanted for part in self.preprocessing.parts(self.trace, one, patch, channels)]

    def window_count(self, region: Region | None, overlap: float | None = None) -> int:
        """The windows of a region, or of all, with an overlap; None: as planned."""
        shape, patch, merge = self.data.shape[1:], self.windows.patch, self.task.merge
        share = self.windows.overlap if overlap is None else overlap
        needed = [part.needed for part in self.parts(region)]
        return sum(slide.window_count(shape, patch, share, one, merge, self.skipping) for one in needed)

    def in_time(self, region: Region | None) -> WindowedImage:
        """The same with the overlap by which the windows of a region take no longer than they may."""
        if self.windows.seconds is None:
            return self
        count = partial(self.window_count, region)
        within = overlap_within(
            self.windows.seconds, self.windows.overlap, self.network, self.data, self.windows.patch, count
        )
        return replace(self, windows=replace(self.windows, overlap=within))

    def slabs(self, region: Region | None, done: WindowsDone) -> Slabs:
        """The outputs of a region, or of all, part by part on the image's own grid."""
        for part in self.parts(region):
            slabs = slide.slide_windows(
                self.network,
                self.data,
                self.windows.patch,
                overlap=self.windows.overlap,
                batch=self.windows.batch,
                merge=self.task.merge,
                progress=done.of_part(),
                wanted=part.needed,
                slice_order=part.slice_order,
                skipping=self.skipping,
            )
            for slab in _with_axes(self.preprocessing.restore(slabs, self.trace, part.kept), self.task, self.trace):
                yield slab
                if slab[0]:  # on a large grid a part takes as long as many windows, none of which passes in it
                    done.again()

    @property
    def is_blank(self) -> bool:
        """Whether the network sees one value everywhere; False for a large volume, which is never held."""
        return _is_blank(self.data, self.preprocessing.marks)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of how the image was seen."""
        notes_of_sides = (note for note in self.image.notes if STATED_SIDES in note)
        return (*notes_of_sides, *_in_parts(self.task, self.data.shape[1:], self.windows.patch))


@dataclass(frozen=True, eq=False)
class SlicedImage:
    """A volume as a network of pictures sees it: slice by slice along its last axis, each as (row, column).

    opened:  of a slice and its prompts, that as the network sees it
    is_seen: of each slice that has passed, whether it shows more than one value
    """

    image: Image
    where: str
    opened: Callable[..., WindowedImage | BaggedSlide]
    prompts: ImagePrompts | None
    is_seen: list[bool] = field(default_factory=list)
    tissue: ClassVar[CoarseMask | None] = None

    def _slices(self, region: Region | None) -> list[int]:
        every = range(self.image.geometry.shape[2]) if self.prompts is None else self.prompts.slices(self.where)
        return [k for k in every if region is None or region[2].start <= k < region[2].stop]

    def window_count(self, region: Region | None) -> int:
        """The slices of a region, or of all that is pointed at: each passes as a whole."""
        return len(self._slices(region))

    def in_time(self, region: Region | None) -> SlicedImage:
        """The same: nothing overlaps."""
        return self

    def slabs(self, region: Region | None, done: WindowsDone) -> Slabs:
        """The outputs of each slice, at its place in the volume."""
        read = self.image.reader()
        for k in self._slices(region):
            here = (*[slice(None)] * 3, slice(k, k + 1))
            pixels = np.ascontiguousarray(np.asarray(read(here))[..., 0].swapaxes(1, 2))
            still = replace(self.image, pixels=pixels, geometry=Geometry.of_pixels(pixels.shape[1:]))
            seen = self.opened(still, prompts=None if self.prompts is None else self.prompts.in_slice(k))
            for (rows, columns), arrays in seen.slabs(None, done):
                lifted = {name: np.asarray(one).swapaxes(1, 2)[..., None] for name, one in arrays.items()}
                yield (columns, rows, slice(k, k + 1)), lifted
            self.is_seen.append(not seen.is_blank)

    @property
    def is_blank(self) -> bool:
        """Whether no slice that has passed shows more than one value."""
        return bool(self.is_seen) and not any(self.is_seen)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of how the image was seen."""
        return tuple(note for note in self.image.notes if STATED_SIDES in note)


# An image as a network sees it: window by window or as a bag of tiles, and slice by slice.
OpenedImage = WindowedImage | BaggedSlide
SeenImage = OpenedImage | SlicedImage


def open_image(
    image: Image,
    where: str,
    *,
    task: Task,
    preprocessing: ImageSteps,
    network: Network,
    windows: WindowSettings,
    prompts: ImagePrompts | None = None,
) -> OpenedImage:
    """The image as a network sees it; arguments as of `run_pipeline`."""
    if task.takes_prompts and prompts is None:
        raise UsageError("the model marks what is pointed at, and no prompt is given", where, "Give a box or a point")
    properties.refuse_unknown_sides(task, image.geometry, where)
    data, trace = preprocessing.open_image(image, where)
    if isinstance(data, Bag):
        return BaggedSlide(image, where, task, windows, data, network)
    tissue = coarse_mask.tissue_of(image) if preprocessing.tissue == "otsu" else None
    mask = tissue if tissue is not None or windows.skip is None else MASKS[windows.skip](image)
    skipping = None if mask is None else _skipping(mask, task, trace)
    if prompts is not None and prompts.as_channels:
        data, shows = follow_objects(prompts, data, trace, network, windows, task.merge)
        skipping = None if shows is None else Skipping(shows, partial(_background_outputs, task))
    views = averaging.mirror_views(
        FiniteNetwork(network if prompts is None else prompts.bind(network, trace), where),
        task,
        windows.flips,
        trace,
        windows.left_right,
        labelled=preprocessing.cascade is not None,
        differ=windows.differ,
        plain=windows.plain,
        views=windows.views,
    )
    return WindowedImage(image, where, task, preprocessing, windows, data, trace, views, skipping, tissue)


def run_pipeline(
    image: Image,
    where: str,
    *,
    task: Task,
    preprocessing: ImageSteps,
    network: Network,
    windows: WindowSettings,
    progress: Progress | None = None,
    receiver: Receiver | None = None,
    region: Region | None = None,
    prompts: ImagePrompts | None = None,
) -> Prediction:
    """Return the result on the image's own grid. This file needs NumPy only: a copy of it travels with a model.

    receiver: takes the probabilities of each finished part
    region:   of the image's grid: windows that do not touch it are skipped, and the rest of the grid has no result
    prompts:  what a person points at, for a task that takes it
    What is one value everywhere has a result too, and `abstained` states it. Raises OutputError where outputs of the
    network are not finite, UsageError for a task that takes prompts and gets none.
    """
    opened = partial(open_image, where=where, task=task, preprocessing=preprocessing, network=network, windows=windows)
    by_slice = preprocessing.slicewise and image.geometry.is_volume
    seen: SeenImage = SlicedImage(image, where, opened, prompts) if by_slice else opened(image, prompts=prompts)
    seen = seen.in_time(region)
    done = WindowsDone(progress, seen.window_count(region), where, windows.at_most)
    prediction = decode_slabs(seen.slabs(region, done), task, [seen], receiver, region)
    return replace(prediction, tiles=seen.attended[0]) if isinstance(seen, BaggedSlide) else prediction


def decode_slabs(
    slabs: Slabs,
    task: Task,
    seen: Sequence[SeenImage],
    receiver: Receiver | None,
    region: Region | None,
) -> Prediction:
    """The result of slabs on the image's grid; seen: the image, as each of the networks sees it."""
    wanted = slabs if region is None else _within(slabs, region)
    prediction = task.decode(wanted if receiver is None else _sent(wanted, task, receiver), seen[0].image.geometry)
    notes = dict.fromkeys((*prediction.notes, *(note for one in seen for note in one.notes)))
    tissue = seen[0].tissue
    blank = NO_TISSUE if tissue is not None and not tissue.inside.any() else BLANK if seen[0].is_blank else None
    return replace(prediction, notes=tuple(notes), abstained=blank)


def _skipping(mask: CoarseMask, task: Task, trace: GridTrace) -> Skipping | None:
    """The windows that show nothing but what is passed over; None where no outputs would stand for a voxel of them."""
    if properties.kept_channel_count(task) and not task.background_outputs:
        return None
    return Skipping(lambda window: mask.touches(trace.shown(window)), partial(_background_outputs, task))


def _background_outputs(task: Task, name: str, channels: int) -> Array:
    """Outputs of the background, for each of several networks alike, which are sure of it."""
    values = [0.0] if name.endswith((WITHIN, BETWEEN)) else task.background_outputs[name.partition(":")[0]]
    return np.resize(np.asarray(values, dtype=np.float32), channels)


def overlap_within(
    seconds: float,
    planned: float,
    network: Network,
    image: RegionSource,
    patch: Sequence[int],
    count: Callable[[float], int],
) -> float:
    """Return the largest overlap, at most the planned one, with which an image's windows take about so many seconds.

    count: number of windows with an overlap
    One window from the middle of the image is timed. Where even windows without overlap take longer, the result is 0.
    """
    inner = [min(length, size) for length, size in zip(patch, image.shape[1:], strict=True)]
    starts = [(size - length) // 2 for size, length in zip(image.shape[1:], inner, strict=True)]
    window = image[(slice(None), *(slice(start, start + n) for start, n in zip(starts, inner, strict=True)))]
    window = np.pad(window, [(0, 0), *((0, n - size) for n, size in zip(patch, inner, strict=True))], mode="edge")
    batch = np.ascontiguousarray(window[None], dtype=np.float32)
    network(batch)  # the first call prepares more than later ones
    started = time.perf_counter()
    network(batch)
    seconds_each = time.perf_counter() - started
    steps = [planned, *(share for share in OVERLAPS if share < planned)]
    chosen = next((share for share in steps if count(share) * seconds_each <= seconds), 0.0)
    windows = count(chosen)
    log.info(
        "overlap %g: %s of %.3g s, about %.3g s",
        chosen,
        errors.count_phrase(windows, "window"),
        seconds_each,
        windows * seconds_each,
    )
    return chosen


def _is_blank(data: RegionSource, marks: int) -> bool:
    """Whether the network sees one value everywhere; False for a large volume, which is never held.

    marks: how many of the last channels are not of the image
    """
    return isinstance(data, np.ndarray) and not any(np.ptp(channel) for channel in data[: len(data) - marks])


def _in_parts(task: Task, spatial: tuple[int, ...], patch: tuple[int, ...]) -> list[str]:
    """A note where a number, which may be a size, is the mean over windows none of which shows the whole image."""
    sized = any(head.holds_numbers for head in task.heads.values())
    if not sized or all(size <= n for size, n in zip(spatial, patch, strict=True)):
        return []
    extent, held = (" x ".join(map(str, sizes)) for sizes in (spatial, patch))
    return [
        f"the image has {extent} voxels at the model's spacing and the network sees {held} of them at once: the result "
        "is a mean over windows, which is wrong for what the size of something decides. Cut the image to the part that "
        "the model was trained on"
    ]


def _with_axes(slabs: Slabs, task: Task, trace: GridTrace) -> Slabs:
    """Slabs on the source's grid, with lengths and offsets along the source's axes."""
    turning = {name: head for name, head in task.heads.items() if head.turns}
    if not turning:
        yield from slabs
        return
    for region, arrays in slabs:
        yield region, {**arrays, **{name: head.turn_to_axes(arrays[name], trace) for name, head in turning.items()}}


def _common(first: Region, other: Region) -> Region | None:
    """What two regions of a grid share; None where that is nothing."""
    pairs = zip(first, other, strict=bool(first))
    both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)
    return both if all(part.start < part.stop for part in both) else None


def _within(slabs: Slabs, region: Region) -> Slabs:
    """The parts of slabs that lie in a region of the same grid."""
    for region_of_slab, arrays in slabs:
        if (both := _common(region_of_slab, region)) is not None:
            inside = [
                slice(part.start - a.start, part.stop - a.start)
                for part, a in zip(both, region_of_slab, strict=bool(region_of_slab))
            ]
            yield both, {name: array[(slice(None), *inside)] for name, array in arrays.items()}


def _sent(slabs: Slabs, task: Task, receiver: Receiver) -> Slabs:
    """The same slabs, whose probabilities the receiver gets on the way."""
    for region, arrays in slabs:
        made = {name: np.asarray(array) for name, array in arrays.items()}
        further = {name: array for name, array in made.items() if name.endswith((WITHIN, BETWEEN))}
        outputs = {f"{name}{OUTPUT}": made[name] for name in task.heads if name in made}
        receiver(region, {**task.probabilities(made), **further, **outputs})
        yield region, made


# The windows of a large image that a network sees where somebody points: those with a prompt, then their neighbours.
#
# A neighbour is seen as long as the object reaches the edge towards it. It travels with a model.


def follow_objects(
    prompts: ImagePrompts, data: RegionSource, trace: GridTrace, network: Network, windows: WindowSettings, merge: Merge
) -> tuple[RegionSource, Callable[[Region], bool] | None]:
    """What the network sees, with what a first look marked as the earlier mask, and whether a window is to be seen.

    data:    with channels of the prompts after those of the image
    network: of the image with the channels of one label
    An image that is seen whole stays as it is, and all of it is seen.
    """
    axes, overlap = zip(trace.padded_shape, windows.patch, strict=True), windows.overlap
    grid = [[slice(k, k + n) for k in slide.window_starts(size, n, overlap, merge)] for size, n in axes]
    if all(len(places) == 1 for places in grid):
        return data, None
    source = PromptSource(prompts.placed, trace)
    image = data.image if isinstance(data, StackedSource) else np.asarray(data)[: -source.shape[0]]
    for n, one in enumerate(prompts.placed):
        if one is not None:
            source.reached[n] = _follow_label(PromptSource((one,), trace), image, network, grid)
    stacked = StackedSource(image, source)
    return (stacked if isinstance(data, StackedSource) else stacked.whole), source.shows


def _follow_label(
    source: PromptSource, image: RegionSource, network: Network, grid: Sequence[Sequence[slice]]
) -> NDArray[np.bool_]:
    """(*padded) what a first look marks of one label, window after window."""
    every = {
        place: tuple(axis[n] for axis, n in zip(grid, place, strict=True)) for place in np.ndindex(*map(len, grid))
    }
    pointed = [place for place, region in every.items() if source.shows(region)]
    found = source.reached[0] = source.earlier_mask(0, tuple(slice(0, size) for size in source.trace.padded_shape)) > 0
    waiting, known = deque(pointed), set(pointed)
    while waiting:
        place = waiting.popleft()
        region = every[place]
        [answer] = network(StackedSource(image, source)[(slice(None), *region)][None]).values()
        inside = np.asarray(answer)[0, 1] > np.asarray(answer)[0, 0]
        found[region] = inside if place in pointed else inside | found[region]
        for axis, step in product(range(inside.ndim), (-1, 1)):
            neighbour = (*place[:axis], place[axis] + step, *place[axis + 1 :])
            if neighbour in every and neighbour not in known and inside.take(-(step > 0), axis=axis).any():
                known.add(neighbour)
                waiting.append(neighbour)
    return found
