"""Coarse masks of what an image shows: windows that lie wholly outside of them need no prediction.

A mask is made from the image alone, a few slices at a time; what a header says of it plays no part but its spacing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import ndimage
from hilum.runtime.preprocessing.image_statistics import BLOCK_VOXELS
from hilum.transforms import COLOUR
from hilum.values import Array, Floats, Image, Region

# What windows lie in that are passed over.
Outside = Literal["air"]
# mm along each side of a coarse voxel, and from what is seen in it to what is left out: skin, and edges that two
# coarse voxels share, are within.
SIDE, AIR_MARGIN = 4.0, 15.0
# HU of air, and what is less than any air was never measured, as beyond a scanner's field of view.
AIR, UNMEASURED = -1000.0, -1100.0
# Two kinds of voxels: from this share of the variance on that lies between them. Noise alone has 0.64, and air with a
# few edges of a body in it 0.75 at the most.
DISTINCT = 0.8
# Percentile from which on nothing is brighter: a few hot spots are no kind of their own.
BRIGHT = 99.0
# Of the largest piece; smaller ones are noise.
SMALLEST = 1e-3
# mm along each side of a coarse pixel of a slide (pixels where no size is known), and from tissue to what is left out.
TISSUE_SIDE, TISSUE_SIDE_PIXELS, TISSUE_MARGIN = 0.016, 32, 0.05
# Saturation between which glass ends and tissue begins: the dye of the palest tissue and the deepest tint of glass.
PALEST, DEEPEST = 0.05, 0.15
# Ink: what is greener than red, which no dye of tissue is, and red that is deeper than blood. Of 255.
GREENER, RED, DEEP = 10, 150, 0.8
# How often the darker kind is parted again, so that a body beside bright fat or hot organs is no air.
ROUNDS = 5
NO_TISSUE = "no tissue is found on the slide"


@dataclass(frozen=True, eq=False)
class CoarseMask:
    """Where an image shows something, with a margin.

    inside: (*spatial) of coarse voxels
    block:  voxels of the image that one is long, per axis
    shown:  share of the image that it is without the margin
    """

    inside: NDArray[np.bool_]
    block: tuple[float, ...]
    shown: float = 1.0

    def touches(self, region: Region) -> bool:
        """Whether a part of the image's grid holds something of it."""
        axes = zip(region, self.block, strict=True)
        return bool(self.inside[tuple(slice(int(one.start // n), math.ceil(one.stop / n)) for one, n in axes)].any())

    def tile_shares(self, steps: Floats, grid: Sequence[int]) -> Floats:
        """(*grid) share of each tile that it covers; steps: voxels of the image that a tile is long, per axis."""
        sums, sizes = self.inside.astype(np.float64), list[Floats]()
        for axis, (step, count, n) in enumerate(zip(steps, grid, self.block, strict=True)):
            edges = np.rint(np.arange(count + 1) * step / n).astype(int).clip(0, self.inside.shape[axis])
            sums = np.diff(np.insert(sums.cumsum(axis), 0, 0.0, axis).take(edges, axis), axis=axis)
            sizes.append(np.diff(edges).astype(np.float64))
        return np.asarray(sums / np.multiply.outer(*sizes).clip(min=1))

    def pieces(self, shape: tuple[int, ...]) -> list[Region]:
        """Boxes on the image's grid that hold all of it and share no voxel: one around each of its pieces."""
        boxed = self.inside
        while True:
            boxes = ndimage.find_objects(ndimage.label(boxed)[0])
            filled = np.zeros_like(boxed)
            for box in boxes:
                filled[box] = True
            if np.array_equal(filled, boxed):
                break
            boxed = filled
        return [
            tuple(
                slice(round(one.start * n), min(round(one.stop * n), size))
                for one, n, size in zip(box, self.block, shape, strict=True)
            )
            for box in boxes
        ]

    def leaves_out(self, labels: Array) -> bool:
        """Whether marks, (*spatial) on the image's grid, lie outside."""
        block = tuple(map(int, self.block))
        return any(
            bool((_coarse(part > 0, block, np.maximum)[0] > 0)[~self.inside[..., layer]].any())
            for layer, part in enumerate(np.split(labels[None], _starts(labels.shape, block)[-1][1:], axis=-1))
        )

    @property
    def air(self) -> float:
        """The share of the image that lies outside."""
        return 1.0 - float(self.inside.mean())


def body_of(image: Image) -> CoarseMask | None:
    """The body in a volume with a size in mm: its large pieces, with their holes, in all channels; None without air.

    Air is what is darker than the lowest of thresholds that each part two distinct kinds of voxels (Otsu, IEEE Trans
    Syst Man Cybern 1979, doi:10.1109/TSMC.1979.4310076).
    """
    geometry = image.geometry
    if image.frames is not None or geometry.ndim != 3 or not geometry.physical or geometry.unit != "mm":
        return None
    block = tuple(max(1, round(SIDE / step)) for step in geometry.steps)
    margin = [math.ceil(AIR_MARGIN / (step * n)) for step, n in zip(geometry.steps, block, strict=True)]
    inside = None
    for channel in _means(image, block):
        if (limit := threshold(channel)) is None:
            return None
        body = _filled(_large(channel >= limit))
        inside = body if inside is None else inside | body
    assert inside is not None  # noqa: S101 - an image has a channel
    for axis, reach in enumerate(margin):
        inside = ndimage.maximum_filter1d(inside, 2 * reach + 1, axis, mode="constant")
    return CoarseMask(inside, block)


def tissue_of(image: Image, margin: float = TISSUE_MARGIN) -> CoarseMask | None:
    """The tissue of a slide in colour: what is dyed, and no ink; None for any other image.

    margin: mm (where no size is known so many of them as are alike) around it that count too

    Dye is saturation above Otsu's threshold, which is held between glass that is tinted and tissue that is pale, so
    that a slide of nothing else is not parted. It is told on a coarse level, about `TISSUE_SIDE` a pixel, so that of a
    large slide little is read. `inside` is empty where there is no tissue; `pieces` are boxes around what there is.
    """
    if not image.is_slide or image.channels != COLOUR:
        return None
    step = None if image.spacing is None else max(image.spacing)
    wanted = TISSUE_SIDE_PIXELS if step is None else TISSUE_SIDE / step
    number = image.level_within(max(wanted, 1.0))
    picture = image.level(number)
    side = max(1, round(wanted / image.downsamples[number]))
    dyed = np.concatenate([_dye(part, side) for part in _strips(picture, side)])
    limit, _ = _parted(dyed.ravel())
    inside = dyed > np.clip(limit, PALEST, DEEPEST)
    block = tuple(size * side / level for size, level in zip(image.geometry.shape, picture.geometry.shape, strict=True))
    reach, shown = margin / TISSUE_SIDE * wanted, float(inside.mean())
    for axis, n in enumerate(block):
        inside = ndimage.maximum_filter1d(inside, 2 * math.ceil(reach / n) + 1, axis, mode="constant")
    return CoarseMask(inside, block, shown)


def _strips(picture: Image, side: int) -> Iterator[Array]:
    """(channels, rows, columns) of whole blocks after whole blocks of rows."""
    rows, columns = picture.geometry.shape
    read, step = picture.reader(), side * max(1, BLOCK_VOXELS // (3 * side * columns))
    for start in range(0, rows, step):
        yield read((slice(None), slice(start, min(start + step, rows)), slice(0, columns)))


def saturation(colours: Array) -> NDArray[np.float32]:
    """(rows, columns) saturation, 0 to 1, of (3, rows, columns) red, green and blue from 0 to 255; ink has none."""
    red, green, blue = (channel.astype(np.float32) for channel in colours)
    most = np.maximum(np.maximum(red, green), blue)
    share = (most - np.minimum(np.minimum(red, green), blue)) / np.maximum(most, 1)
    share[(green > red + GREENER) | ((red > RED) & (red == most) & (share > DEEP))] = 0
    return cast("NDArray[np.float32]", share)


def _dye(part: Array, side: int) -> Floats:
    """(rows, columns) of blocks: their mean saturation, of 0 to 1; ink has none."""
    dye = saturation(part)
    starts = _starts(dye.shape, (side, side))
    sums = np.add.reduceat(np.add.reduceat(dye, starts[0], axis=0), starts[1], axis=1)
    sizes = [np.diff([*first, size]) for first, size in zip(starts, dye.shape, strict=True)]
    return np.asarray(sums / np.multiply.outer(*sizes), dtype=np.float64)


MASKS: Mapping[Outside, Callable[[Image], CoarseMask | None]] = {"air": body_of}


def threshold(values: Floats) -> float | None:
    """A number half-way from the darkest of distinct kinds to where it ends, in square roots; None of one kind.

    What is no number, or has no end, is of no kind.
    """
    measured = values[np.isfinite(values)]
    if not measured.size:
        return None
    lowest, highest = float(measured.min()), np.percentile(measured, BRIGHT)
    scaled = np.sqrt(np.minimum(measured, highest) - lowest)  # so that bright organs do not hide a dim body
    found = None
    for _ in range(ROUNDS):
        limit, between = _parted(scaled)
        if between < DISTINCT:
            break
        found, scaled = limit, scaled[scaled < limit]
    return None if found is None else float(((found + np.median(scaled)) / 2) ** 2 + lowest)


def _parted(values: Floats) -> tuple[float, float]:
    """The number that parts numbers best into two, and the share of their variance that lies between these."""
    counts, edges = np.histogram(values, 256)
    middles = (edges[:-1] + edges[1:]) / 2
    share = counts / len(values)
    below, mean = np.cumsum(share), float(share @ middles)
    spread = float(share @ (middles - mean) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.nan_to_num((mean * below - np.cumsum(share * middles)) ** 2 / (below * (1 - below)), posinf=0.0)
    alike = np.flatnonzero(between >= between.max() * (1 - 1e-6))  # between two kinds there may be nothing
    return float(edges[alike + 1].mean()), float(between.max()) / spread if spread > 0 else 0.0


def _large(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pieces that are no noise: limbs lie beside a trunk."""
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= max(1.0, SMALLEST * sizes.max()))[pieces])


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With what is enclosed in the planes of an axis: lungs that the last slice cuts are open in the others."""
    for axis in range(3):
        plane = np.ones((3, 3, 3), bool)
        plane[tuple(slice(0, 3, 2) if one == axis else slice(None) for one in range(3))] = False
        mask = mask | ndimage.binary_fill_holes(mask, plane)
    return mask


def _means(image: Image, block: tuple[int, ...]) -> Floats:
    """(channels, *coarse) means of blocks; what was not measured counts as air."""
    read, (*plane, depth) = image.reader(), image.geometry.shape
    every, deep = tuple(slice(0, size) for size in plane), block[-1]
    step = deep * max(1, BLOCK_VOXELS // (deep * math.prod(plane) * image.shape[0]))
    layers = []
    for start in range(0, depth, step):
        slab = read((slice(None), *every, slice(start, min(start + step, depth))))
        for part in np.split(slab, range(deep, slab.shape[-1], deep), axis=-1):
            layers.append(_coarse(part, block, np.add) / part.shape[-1])
    sizes = [np.diff([*starts, size]) for starts, size in zip(_starts(tuple(plane), block), plane, strict=False)]
    means = np.stack(layers, axis=-1) / np.multiply.outer(*sizes)[..., None]
    return np.where(means > UNMEASURED, means, AIR)  # of no number too


def _coarse(part: Array, block: tuple[int, ...], join: np.ufunc) -> Floats:
    """(channels, i, j, k) of one layer of blocks as (channels, coarse i, coarse j)."""
    layer = join.reduce(part, axis=-1, dtype=np.float32)
    for axis, starts in enumerate(_starts(part.shape[1:3], block), start=1):
        layer = join.reduceat(layer, starts, axis=axis)
    return np.asarray(layer)


def _starts(shape: tuple[int, ...], block: tuple[int, ...]) -> list[NDArray[np.intp]]:
    """The first voxel of each block, per axis."""
    return [np.arange(0, size, n) for size, n in zip(shape, block, strict=False)]
