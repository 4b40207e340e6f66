"""Several images of a case as the channels of a single image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from hilum.errors import DatasetError, GeometryError
from hilum.values import Array, Deferred, Image, voxel_images
from hilum.values.voxel_images import OF_CHANNELS, FileFacts, Reader

# Images of one case that together take no more are joined in memory.
JOINED_BYTES = 2**28

# Luma of ITU-R BT.601, which is also what JPEG calls Y.
LUMA = (0.299, 0.587, 0.114)
# Of a channel's number, as the files of nnU-Net end in it.
DIGITS = 4
# As the readers of pictures name them.
GREY = ("0",)
COLOUR = ("R", "G", "B")
ALPHA = "A"


def stack_images(images: Mapping[str, Image], where: str) -> Image:
    """All images of a case as one, channels in the given order; one image alone keeps its own channel names.

    Raises GeometryError where grids or numbers of frames differ, DatasetError for a case without images.
    """
    if not images:
        raise DatasetError("has no image", where, "Name its file, or remove the case")
    images = dict(images)  # once: a mapping that loads on demand would read each file anew for every look below
    first = next(iter(images.values()))
    if len(images) == 1:
        return first
    for name, image in images.items():
        image.geometry.refuse_other(
            first.geometry,
            f"{name!r} lies on another grid than the first image",
            where,
            "Bring them there with --align world or --align register, or, views that share no place, --align apart",
        )
        if image.frames != first.frames:
            problem = f"{name!r} has {image.frames or 'no'} frames, the first image {first.frames or 'none'}"
            raise GeometryError(problem, where, "Give images of the same moments")
    names = tuple(one for name, image in images.items() for one in voxel_images.names_of_channels(name, image.channels))
    notes = tuple(dict.fromkeys([*(note for image in images.values() for note in image.notes), *_deviations(images)]))
    first = replace(first, notes=notes, facts=_facts_of_all(names, list(images.values())))
    if all(image.padding == first.padding for image in images.values()):
        return replace(first, pixels=_join(list(images.values())), channels=names)
    # One image's padding value is another's measurement; what is no number is no measurement in any.
    pixels = [np.where(image.valid, image.data.astype(np.float32), np.nan) for image in images.values()]
    return replace(first, pixels=np.concatenate(pixels), channels=names, padding=None)


def _deviations(images: Mapping[str, Image]) -> list[str]:
    """Notes on images whose grids count as the first one's but lie a little off it."""
    (first, grid), *others = ((name, image.geometry) for name, image in images.items())
    off = [(name, grid.deviation(other)) for name, other in others]
    return [
        f"{name!r} lies a little off the grid of {first!r} ({apart}), which is used" for name, apart in off if apart
    ]


def _facts_of_all(names: Sequence[str], images: Sequence[Image]) -> FileFacts:
    """The facts that all channels share, and under each channel's name those in which they differ.

    A window or a unit of one image would be wrong for another.
    """
    facts_of_channels = [image.facts_of(channel) for image in images for channel in range(image.shape[0])]
    common = {
        fact: value
        for fact, value in facts_of_channels[0].items()
        if all(fact in other and _are_alike(value, other[fact]) for other in facts_of_channels[1:])
    }
    further_facts = [
        {fact: value for fact, value in facts.items() if fact not in common} for facts in facts_of_channels
    ]
    return {**common, OF_CHANNELS: dict(zip(names, further_facts, strict=True))} if any(further_facts) else common


def _are_alike(first: Any, other: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(first, other))
    return bool(first == other)


def _join(images: Sequence[Image]) -> Array | Deferred:
    """The channels of all images in order; large ones are read part by part."""
    channels = sum(image.shape[0] for image in images)
    spatial = images[0].shape[1:]
    kind = np.result_type(*(image.dtype for image in images))
    joined = _Joined(tuple(images))
    if channels * math.prod(spatial) * kind.itemsize <= JOINED_BYTES:
        return joined()
    return Deferred((channels, *spatial), kind, joined, joined.part, joined.reader)


@dataclass(frozen=True, eq=False)
class _Joined:
    """The channels of several images as those of one; made anew for whoever reads parts in order."""

    images: tuple[Image, ...]

    def __call__(self) -> Array:
        return np.concatenate([image.data for image in self.images])

    def part(self, region: tuple[slice, ...]) -> Array:
        """The voxels of a region, (channels, *spatial)."""
        return self.reader()(region)

    def reader(self) -> Reader:
        """A reader of regions that keeps the readers of all images open."""
        readers = [image.reader() for image in self.images]
        every = slice(None)
        return lambda region: np.concatenate([read((every, *region[1:])) for read in readers])[region[0]]


def channel_places(names: Sequence[str], expected: Sequence[str]) -> tuple[int, ...] | None:
    """Index of each name among the expected channels: by name, or by the four digits of nnU-Net.

    None where that is not certain, as for a grey picture and a model of several images.
    """
    if tuple(names) == tuple(expected):
        return tuple(range(len(expected)))
    if tuple(names) == GREY:
        return None
    places = [_place(name, expected) for name in names]
    places_known = tuple(place for place in places if place is not None)
    return places_known if len(places_known) == len(names) == len(set(places_known)) else None


def all_channels(lists: Iterable[Sequence[str]]) -> list[str]:
    """All channels that any case has: in the order of those that have most, numbers by their value."""
    every = [name for channels in sorted(lists, key=len, reverse=True) for name in channels]
    names = list(dict.fromkeys(str(int(one)) if one.isdigit() else one for one in every))
    return sorted(names, key=int) if all(one.isdigit() for one in names) else names


def _place(name: str, expected: Sequence[str]) -> int | None:
    if name in expected:
        return list(expected).index(name)
    numbered = len(name) == DIGITS and name.isdigit() and int(name) < len(expected)
    return int(name) if numbered else None


def images_of_channels(channels: Sequence[str]) -> tuple[int, ...]:
    """(channels,) index of the image that each channel belongs to; one of several is called IMAGE:CHANNEL."""
    names = [name.partition(":")[0] for name in channels]
    return tuple(list(dict.fromkeys(names)).index(name) for name in names)


def without_alpha(channels: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a picture's channels but alpha, which says how to show a pixel and not what was measured."""
    return channels[:-1] if channels in ((*GREY, ALPHA), (*COLOUR, ALPHA)) else channels


def match_colours(image: Image, channels: tuple[str, ...]) -> Image:
    """A picture as grey or as R, G, B, whichever `channels` asks for, without alpha; other images as they are."""
    if image.channels == channels:
        return image
    colour_channels = without_alpha(image.channels)
    if colour_channels == image.channels and {len(colour_channels), len(channels)} != {1, 3}:
        return image  # nothing of it has to be read for that
    count = len(colour_channels)
    if colour_channels == COLOUR and len(channels) == 1:
        return image.map_pixels(luma, np.dtype(np.float32), channels)
    if len(colour_channels) == 1 and channels == COLOUR:
        return image.map_pixels(partial(_first_channels, count=1, times=3), image.dtype, COLOUR)
    if colour_channels == image.channels:
        return image
    return image.map_pixels(partial(_first_channels, count=count), image.dtype, colour_channels)


def _first_channels(channels: Array, count: int, times: int = 1) -> Array:
    """So many of the channels, each so many times."""
    return np.repeat(channels[:count], times, axis=0) if times > 1 else channels[:count]


def luma(colours: Array) -> Array:
    """(channels, ...) red, green, blue, whatever follows them, to (1, ...) grey."""
    return np.tensordot(np.asarray(LUMA, dtype=np.float32), colours[: len(LUMA)].astype(np.float32), axes=1)[None]
