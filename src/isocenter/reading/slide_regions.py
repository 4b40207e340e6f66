"""Regions of slides that somebody drew in, as cases of their own: a picture each, of one patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter import errors
from isocenter.errors import GeometryError
from isocenter.files.slides import slide_files
from isocenter.lazy import ndimage
from isocenter.runtime.preprocessing.coarse_mask import CoarseMask
from isocenter.values import (
    Array,
    BoundingBoxes,
    Case,
    Dataset,
    Deferred,
    Image,
    LazyMapping,
    Problem,
    Region,
    voxel_images,
)

# Kinds of reference that are drawn on pixels.
DRAWN = ("mask", "instances", "boxes")
# Pixels along a side of the blocks in which drawings are looked for: those nearer to each other are one region, and so
# much is shown around them.
BLOCK = 64


def with_regions(dataset: Dataset) -> Dataset:
    """The data set in which each slide with drawings is replaced by the regions in which these lie.

    What lies in a region and is not drawn is background. Other cases stay as they are. Raises GeometryError where a
    label map is not of the size of its slide.
    """
    slides = {case.id for case in dataset if _is_drawn_slide(case)}
    if not slides:
        return dataset
    made = {case.id: _region_cases(case) for case in dataset if case.id in slides}
    cases = tuple(one for case in dataset for one in (made[case.id] if case.id in slides else [case]))
    splits = {one.id: dataset.splits[case] for case, own in made.items() if case in dataset.splits for one in own}
    what = f"{errors.count_phrase(len(slides), 'slide is', 'slides are')} {errors.count_phrase(len(cases), 'region')}"
    note = Problem("note", f"{what} around what is drawn, a picture each", (), "what is not drawn there is background")
    return replace(
        dataset,
        cases=cases,
        splits={**{name: part for name, part in dataset.splits.items() if name not in slides}, **splits},
        problems=(*dataset.problems, note),
    )


def _is_drawn_slide(case: Case) -> bool:
    """Whether a case is one slide on which something is drawn, by its file alone."""
    is_drawn = any(kind.partition(":")[0] in DRAWN for kind in case.references)
    return is_drawn and len(case.images) == 1 and bool(case.files) and slide_files.is_slide(case.files[0])


@dataclass(frozen=True, eq=False)
class _DrawnSlide:
    """The references of a slide, each read once by each process."""

    references: Mapping[str, Any]

    def value(self, kind: str) -> Any:
        """The reference of a kind, on the grid of the slide."""
        return _value_once(self, kind)


@cache
def _value_once(drawn: _DrawnSlide, kind: str) -> Any:
    return drawn.references[kind]


def _region_cases(case: Case) -> list[Case]:
    [name] = case.images
    drawn, shape = _DrawnSlide(case.references), case.images[name].geometry.shape
    kinds = [kind for kind in case.references if kind.partition(":")[0] in DRAWN]
    marked = np.zeros([-(-size // BLOCK) for size in shape], bool)
    for kind in kinds:
        marked |= _marked_blocks(drawn.value(kind), shape, case.id)
    around = ndimage.binary_dilation(marked, np.ones((3, 3), bool))
    pieces = CoarseMask(around, (BLOCK,) * 2).pieces(shape)
    return [_region_case(case, name, drawn, region, number) for number, region in enumerate(pieces, start=1)]


def _marked_blocks(value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.bool_]:
    """The blocks of a slide in which something is drawn."""
    marked = np.zeros([-(-size // BLOCK) for size in shape], bool)
    if isinstance(value, BoundingBoxes):
        for low, high in zip(value.low / BLOCK, np.ceil(value.high / BLOCK), strict=True):
            marked[tuple(slice(int(start), int(end)) for start, end in zip(low, high, strict=True))] = True
        return marked
    if value.geometry.shape != shape:
        problem = f"the label map has {value.geometry.shape} pixels and its slide {shape}"
        raise GeometryError(problem, where, "Give the map that was drawn on this slide")
    labels = value.pixels if isinstance(value.pixels, Deferred) else value.pixels[0]
    read = voxel_images.reader_of(labels)
    for row in range(marked.shape[0]):
        rows, columns = slice(row * BLOCK, min((row + 1) * BLOCK, shape[0])), slice(0, shape[1])
        strip = read((slice(0, 1), rows, columns))[0] if isinstance(labels, Deferred) else read((rows, columns))
        marked[row] = np.logical_or.reduceat((strip != 0).any(axis=0), np.arange(0, shape[1], BLOCK))
    return marked


def _region_case(case: Case, name: str, drawn: _DrawnSlide, region: Region, number: int) -> Case:
    rows, columns = region
    references = {kind: partial(_cut_reference, drawn, kind, region) for kind in case.references}
    return replace(
        case,
        id=f"{case.id}_r{number}",
        images=LazyMapping({name: partial(_cut_named, case.images, name, region)}),
        references=LazyMapping(references),
        key=f"{case.key}region {rows.start}:{rows.stop},{columns.start}:{columns.stop}",
    )


def _cut_named(images: Mapping[str, Image], name: str, region: Region) -> Image:
    return cut_image(images[name], region)


def _cut_reference(drawn: _DrawnSlide, kind: str, region: Region) -> Any:
    """The part of a reference that lies in a region; what is no drawing stays as it is."""
    value = drawn.value(kind)
    if isinstance(value, Image):
        return cut_image(value, region)
    if not isinstance(value, BoundingBoxes):
        return value
    corner = np.array([part.start for part in region], float)
    within = (value.low >= corner).all(axis=1) & (value.high <= [part.stop for part in region]).all(axis=1)
    inside = value.at(np.asarray(within))
    return replace(inside, corners=inside.corners - np.tile(corner, 2))


def cut_image(image: Image, region: Region) -> Image:
    """A region of a picture as a picture of its own, read when it is asked for."""
    shape = tuple(part.stop - part.start for part in region)
    whole: Array | Deferred = image.pixels
    if isinstance(whole, Deferred):
        cut = partial(_cut_pixels, whole, region)
        every = (slice(None), *(slice(0, size) for size in shape))
        return image.with_pixels(
            Deferred((whole.shape[0], *shape), whole.dtype, partial(cut, every), cut), image.geometry.crop(region)
        )
    return image.with_pixels(whole[(slice(None), *region)].copy(), image.geometry.crop(region))


def _cut_pixels(whole: Deferred, region: Region, part: tuple[slice, ...]) -> Array:
    channels, *axes = part
    inner = [slice(*one.indices(own.stop - own.start)[:2]) for one, own in zip(axes, region, strict=True)]
    moved = (slice(a.start + own.start, a.stop + own.start) for a, own in zip(inner, region, strict=True))
    return whole[(channels, *moved)]
