"""Label maps: bounding boxes of pieces or objects, the consensus of readers, mean series of regions.

Edges are tight: a box ends where the last voxel does, on the map's own axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import GeometryError
from hilum.lazy import SimpleITK, ndimage
from hilum.values import Array, BoundingBoxes, Floats, Geometry, Image, Region, slabs
from hilum.values.slabs import Extent

# A piece of less than a hundredth of the largest, and of fewer voxels than a cube of 3, is rather a slip of the pen.
SPECK_SHARE = 0.01
SPECK_VOXELS = 27
PIECES = (
    "one around each piece of a structure in the masks, voxels touching at corners too; a piece of fewer than "
    f"{SPECK_VOXELS} voxels and less than {SPECK_SHARE:.0%} of the largest of its structure has none"
)
# So many boxes are made at once, one for each number up to the largest.
MOST_BOXES = 2**16
# Axes of a label map that boxes can lie around.
AXES = (2, 3)
OBJECTS = "one around each numbered object"


def is_speck(sizes: Array) -> Array:
    """(pieces,) whether each is tiny beside the largest; sizes: (pieces,) voxels."""
    return np.asarray(sizes < min(SPECK_VOXELS, SPECK_SHARE * max(sizes, default=0)))


def boxes_of_pieces(mask: Image, structures: Mapping[str, Sequence[int]], where: str) -> BoundingBoxes:
    """A box around each connected piece, corners touching, of each structure; specks have none, and that is noted.

    structures: {name: values of the mask that it is made of}
    Raises GeometryError for a map of one axis or with frames.
    """
    numbers = _one_map(mask, where)
    corners: list[Floats] = [np.zeros((0, 2 * numbers.ndim))]
    names = list[str]()
    left = False
    for name, values in structures.items():
        boxes, specks = _pieces(np.isin(numbers, list(values)))
        corners.append(boxes)
        names += [name] * len(boxes)
        left |= specks
    notes = ("specks in the mask, of a few voxels beside a large piece, have no box",) if left else ()
    return BoundingBoxes(np.concatenate(corners), tuple(names), notes=notes)


def boxes_of_objects(numbers: Image, name: str, where: str) -> BoundingBoxes:
    """A box around all voxels of each number above 0, all of one class.

    Raises GeometryError for a map of one axis or with frames.
    """
    numbers_found, corners = boxes_of_numbers(_one_map(numbers, where))
    return BoundingBoxes(corners, (name,) * len(numbers_found), numbers=numbers_found)


def boxes_of_numbers(values: Array) -> tuple[tuple[int, ...], Floats]:
    """The numbers above 0 in a map, the lowest first, and the (n, 2 * axes) corners of the boxes around them."""
    boxes = boxes_of_labels(values)
    corners = [_corners(one) for one in boxes.values()]
    return tuple(boxes), np.reshape(corners, (-1, 2 * values.ndim)).astype(np.float64)


def boxes_of_labels(labels: Array) -> dict[int, Region]:
    """{value: the box around it} of a map of whole numbers, the lowest first and without 0."""
    around = box_of_content(labels)
    numbers = labels[around] if np.issubdtype(labels.dtype, np.integer) else labels[around].astype(np.int64)
    if not numbers.size:
        return {}
    named: Sequence[int] = range(1, int(numbers.max()) + 1)
    if len(named) > MOST_BOXES or numbers.min() < 0:
        # Numbered without gaps: the boxes are as many as the largest number, and an atlas may have nine digits.
        values, places = np.unique(numbers, return_inverse=True)
        numbers = (np.cumsum(values != 0, dtype=np.int32) * (values != 0))[places.reshape(numbers.shape)]
        named = values[values != 0].tolist()
    found = zip(named, ndimage.find_objects(numbers), strict=True)
    return {value: _shift_box(box, around) for value, box in found if box is not None}


def box_of_content(labels: Array) -> Region:
    """The box around all that is not 0; empty where there is nothing."""
    extent = Extent(slabs.memory_order(labels))
    for _, (part,) in slabs.memory_slabs(labels):
        extent.add(part != 0)
    return tuple(slice(*ends) for ends in extent.box(0) or ((0, 0),) * labels.ndim)


def _shift_box(box: Region, around: Region) -> Region:
    """A box within another one, in the array from which that was cut."""
    return tuple(slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, around, strict=True))


def _one_map(mask: Image, where: str) -> Array:
    """(*spatial) whole numbers."""
    if mask.geometry.ndim not in AXES or mask.frames is not None or len(mask.channels) > 1:
        problem = f"a label map of shape {mask.shape} has no boxes around what it shows"
        raise GeometryError(problem, where, "Give label maps of two or three axes, one an image")
    return np.asarray(mask.data[0])


def _pieces(inside: Array) -> tuple[Floats, bool]:
    """((n, 2 * axes) corners of the pieces, whether specks were left out); inside: (*spatial) truths"""
    pieces, _ = ndimage.label(inside, structure=np.ones((3,) * inside.ndim))
    specks = is_speck(np.bincount(pieces.ravel())[1:])
    corners = [_corners(box) for box, speck in zip(ndimage.find_objects(pieces), specks, strict=True) if not speck]
    return np.reshape(corners, (-1, 2 * inside.ndim)), bool(specks.any())


def _corners(box: Sequence[slice]) -> list[int]:
    return [*(part.start for part in box), *(part.stop for part in box)]


def count_votes(maps: Sequence[Array], labels: int) -> Iterator[NDArray[np.uint8]]:
    """(*spatial) how many of the maps say 0, then 1, and so on up to `labels`."""
    for label in range(labels + 1):
        yield np.sum([one == label for one in maps], axis=0, dtype=np.uint8)


def majority_vote(maps: Sequence[Array], labels: int) -> Array:
    """(*spatial) what most of them say, of equals the highest label; `labels` + 1 where none of 0 to `labels` is said.

    As where labels are resampled: what is half a structure stays one.
    """
    chosen = np.full(maps[0].shape, labels + 1, dtype=np.min_scalar_type(labels + 1))
    most = np.ones(maps[0].shape, dtype=np.uint8)
    for label, count in enumerate(count_votes(maps, labels)):
        wins = count >= most
        chosen[wins] = label
        most[wins] = count[wins]
    return chosen


def staple(maps: Sequence[Array], labels: int) -> Array:
    """(*spatial) what is likeliest once the maps themselves have told how far each reader can be trusted.

    Warfield et al., IEEE Trans Med Imaging 2004, doi:10.1109/TMI.2004.828354; several labels as Rohlfing et al. (2003).
    Where somebody says nothing (`labels` + 1), or nothing is likeliest, most decide.
    """
    otherwise = majority_vote(maps, labels)
    silent = np.any([one > labels for one in maps], axis=0)
    if len(maps) < 2 or not any(((one > 0) & ~silent).any() for one in maps):
        return otherwise
    read = [SimpleITK.GetImageFromArray(np.where(silent, 0, one).astype(np.uint8)) for one in maps]
    likeliest = SimpleITK.GetArrayFromImage(SimpleITK.MultiLabelSTAPLE(read, labels + 1))
    return np.where(silent | (likeliest > labels), otherwise, likeliest).astype(otherwise.dtype)


# Times between which steps differ by less than this share are even.
EVEN = 1e-3
# Of a series, with which a correlation says nothing.
FEWEST_FRAMES = 10


def region_series(image: Image, atlas: Image, where: str) -> Image:
    """(regions, frames): the mean of the measurements in each region at each time; NaN where there is none.

    atlas: a label map on the image's grid; its labels name the channels
    Raises GeometryError for an image without frames or with several channels, for another grid, and for an atlas
    without a region, or of shares such as probabilities.
    """
    if image.frames is None or atlas.frames is not None:
        raise GeometryError("needs frames, and an atlas without", where, "Give a 4D image and one label map")
    if len(image.channels) > 1:
        problem = f"has {len(image.channels)} channels ({errors.list_phrase(image.channels)}), and a series is of one"
        raise GeometryError(problem, where, "Convert the one that is meant to a file of its own")
    image.geometry.refuse_other(atlas.geometry, "lies on another grid than the atlas", where, "Resample the atlas")
    found, places = np.unique(atlas.data[0], return_inverse=True)
    if len(atlas.channels) > 1 or found.min() < 0 or (found % 1 != 0).any():
        remedy = "Give a label map: whole numbers, 0 for what is no region"
        raise GeometryError("the atlas holds probabilities or several maps", where, remedy)
    values = [int(value) for value in found if value != 0]
    if not values:
        raise GeometryError("the atlas holds no region", where, "Give a label map with values above 0")
    names = {label.value: label.name for label in atlas.labels}
    regions = places.reshape(image.geometry.shape) - (len(found) - len(values))  # -1 outside, from 0 on in order
    series = np.stack([_means(still, regions, len(values)) for still in image.still_frames()], axis=1)
    channels = tuple(names.get(value, str(value)) for value in values)
    return Image(series, _axis(image), modality=image.modality, channels=channels, source=image.source)


def region_correlations(series: Image, where: str) -> dict[str, float]:
    """{"connectivity A~B": Pearson's correlation over time} of each pair of regions; NaN where one does not change.

    series: (regions, frames), as of `region_series`
    Raises GeometryError for fewer than two regions, and for too few frames to tell.
    """
    if len(series.channels) < 2 or series.shape[-1] < FEWEST_FRAMES:
        regions, frames = (
            errors.count_phrase(n, unit) for n, unit in ((len(series.channels), "region"), (series.shape[-1], "frame"))
        )
        problem = f"{regions} and {frames}, and a correlation needs 2 and {FEWEST_FRAMES}"
        raise GeometryError(problem, where, "Give an atlas of several regions and a longer series")
    with np.errstate(invalid="ignore", divide="ignore"):  # of a region that does not change
        found = np.atleast_2d(np.corrcoef(np.asarray(series.data, np.float64)))
    return {
        f"connectivity {first}~{second}": float(found[a, b])
        for (a, first), (b, second) in combinations(enumerate(series.channels), 2)
    }


def _means(frame: Image, regions: np.ndarray, count: int) -> np.ndarray:
    """(regions,) of the only channel; regions: the number of each voxel's region, -1 where it is in none."""
    inside = frame.is_measured(frame.data[0]) & (regions >= 0)
    total = np.bincount(regions[inside], frame.data[0][inside].astype(np.float64), count)
    voxels = np.bincount(regions[inside], minlength=count)
    return cast("np.ndarray", np.divide(total, voxels, out=np.full(count, np.nan), where=voxels > 0))


def _axis(image: Image) -> Geometry:
    """The axis of the frames: in s where their times are even, else counted."""
    steps = np.diff(image.times) if image.times is not None else np.empty(0)
    shape = (image.frames or 0,)
    if len(steps) == 0 or steps.min() <= 0 or np.ptp(steps) > EVEN * steps.mean():
        return Geometry.of_pixels(shape)
    assert image.times is not None  # noqa: S101 - there are steps between them
    return Geometry(shape, np.array([[steps.mean(), image.times[0]], [0.0, 1.0]]), oriented=False, unit="s")
