"""Photographs that EXIF turns: whether their masks and boxes lie on their stored or on their turned pixels.

Cameras store what the sensor saw, and state in EXIF how it was held (EXIF 2.32, orientation). Some tools for annotation
turn the photograph as viewers do, others do not, and masks do not say which. What fits decides for the whole set: the
size, else the edges of masks and boxes, which lie where the photograph has edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.layouts.cases import cell_loading, opening
from hilum.layouts.cases.opening import ON_PIXELS
from hilum.layouts.layout import DatasetOptions, Reading
from hilum.values import Array, BoundingBoxes, CaseRow, Image, Problem

# What references lie on: pixels as they are stored, or turned upright by EXIF.
Exif = Literal["upright", "stored"]
# Cases whose headers are looked at, and those of which the pixels decide, spread evenly over the set.
LOOKED_AT, DECIDING = 256, 12
# Masks and boxes lie on edges so many times as strong as with the other orientation: of one case, and of several, whose
# mean must also lie two standard errors from no difference.
CLEAR_OF_ONE, CLEAR, ERRORS = 1.5, 1.1, 2.0
OTHERWISE = "See in the report that it fits; otherwise --exif upright or --exif stored says where it lies"
# Pixels a side beyond which edges are looked for in a smaller picture.
LARGEST_SIDE = 512
DEGREES = {3: " (180 degrees)", 6: " (90 degrees clockwise)", 8: " (90 degrees anticlockwise)"}


@dataclass(frozen=True)
class OrientationFit:
    """The fit of an annotation to one photograph: whether it can lie on its turned and on its stored pixels at all.

    is_same: whether both are the same, as of an empty mask
    gain:    logarithm of how much stronger edges are under it if it lies on the stored pixels; None where unknown
    """

    upright: bool
    stored: bool
    is_same: bool = False
    gain: float | None = None


def on_upright_pixels(reading: Reading, options: DatasetOptions, where: Path) -> Reading:
    """The reading that says on which pixels of photographs its references lie, with the finding that says why.

    Raises UsageError for another word than `Exif` has, DatasetError where neither fits clearly.
    """
    asked = options.exif or reading.exif or None
    if asked is not None and asked not in get_args(Exif):
        raise UsageError(f"there is no {asked!r}", "--exif", f"Choose {' or '.join(get_args(Exif))}")
    with_places = [n for n, row in enumerate(reading.rows) if row.images and any(map(_is_placed, row.references))]
    chosen = _evenly(with_places, LOOKED_AT)
    files = {n: opening.files_of_case(reading.rows[n]) for n in chosen}
    turns = {n: turn for n in chosen if (turn := cell_loading.orientation_of_files(files[n])) != 1}
    if asked == "upright" or not (turns or asked):
        return replace(reading, exif=asked or "")
    count = f"{len(turns)} of {errors.count_phrase(len(chosen), 'image')} {'is' if len(turns) == 1 else 'are'}"
    what = f"{count} turned upright by EXIF orientation {_spell(turns.values())}"
    place, because = asked, "as --exif says"
    if place is None:
        fits = [_measure_fit(reading.rows[n], reading, options) for n in _evenly(list(turns), DECIDING)]
        place, because = _decide_pixels(fits, what, where)
    pixels = "stored pixels" if place == "stored" else "turned pixels"
    what = f"{what}, and their masks and boxes lie on the {pixels}: {because}"
    if place == "upright":
        note = (Problem("note", what, remedy=OTHERWISE),) if because else ()
        return replace(reading, exif=place, problems=(*reading.problems, *note))
    why = "a tool that does not read EXIF made them: they are turned with their image"
    warning = (Problem("warning", what, why=why, remedy=OTHERWISE),) if turns else ()
    return replace(reading, exif=place, problems=(*reading.problems, *warning))


def _decide_pixels(fits: Sequence[OrientationFit], what: str, where: Path) -> tuple[Exif, str]:
    """The pixels on which references lie, and why; no reason where it makes no difference. DatasetError if unclear."""
    sizes = {one.stored for one in fits if one.upright != one.stored}
    if len(sizes) == 1:
        return ("stored" if sizes.pop() else "upright"), "only there it has the size of its image"
    gains = [one.gain for one in fits if one.gain is not None]
    if not sizes and all(one.is_same or not one.upright for one in fits):
        return "upright", ""
    if gains and not sizes:
        mean, error = float(np.mean(gains)), float(np.std(gains, ddof=1) / len(gains) ** 0.5) if gains[1:] else 0.0
        least = np.log(CLEAR if gains[1:] else CLEAR_OF_ONE)
        if abs(mean) >= max(least, ERRORS * error):
            times = f"their outlines lie on edges {np.exp(abs(mean)):.2g} times as strong as on the others"
            return ("stored" if mean > 0 else "upright"), times
    problem = f"{what}, and whether their masks or boxes lie on the stored or on the turned pixels is not clear"
    raise DatasetError(problem, str(where), "Look at one, and give --exif stored or --exif upright")


def _measure_fit(row: CaseRow, reading: Reading, options: DatasetOptions) -> OrientationFit:
    """The fit of a case's references to its first image; none where one of them cannot be read."""
    as_upright = opening.case_loaders(row, replace(reading, exif="upright"), options)
    as_stored = opening.case_loaders(row, replace(reading, exif="stored"), options)
    kind = next(kind for kind in as_upright.references if _is_placed(kind))
    image = _try_load(next(iter(as_upright.images.values())))
    if image is None:
        return OrientationFit(upright=False, stored=False)
    upright = _map_of(_try_load(as_upright.references[kind]), image)
    stored = _map_of(_try_load(as_stored.references[kind]), image)
    if upright is None or stored is None:
        return OrientationFit(upright is not None, stored is not None)
    if np.array_equal(upright, stored):
        return OrientationFit(upright=True, stored=True, is_same=True)
    here, there = _strength(image, upright), _strength(image, stored)
    return OrientationFit(upright=True, stored=True, gain=float(np.log(there / here)) if min(here, there) > 0 else None)


def _try_load(load: Callable[[], Any]) -> Any:
    """The value that is read, or None: whoever reads the case says why it cannot be."""
    try:
        return load()
    except HilumError:
        return None


def _map_of(value: Image | BoundingBoxes | None, image: Image) -> Array | None:
    """(rows, columns) numbers of what a reference marks; None where it does not lie on the image's grid."""
    rows, columns = image.geometry.shape[:2]
    match value:
        case Image() if value.geometry.equals(image.geometry):
            return np.asarray(value.data[0])
        case BoundingBoxes() if value.corners.shape[1] == 4:
            marks = np.zeros((rows, columns), np.uint16)
            for number, (top, left, bottom, right) in enumerate(np.rint(value.corners).astype(int).tolist(), start=1):
                marks[top:bottom, left:right] = number
            return marks
        case _:
            return None


def _strength(image: Image, marks: Array) -> float:
    """Mean gradient of the image under the outlines of marks; 0 where there are none."""
    step = max(1, -(-max(marks.shape) // LARGEST_SIDE))
    grey = _blocks(image.data[:3].mean(axis=0, dtype=np.float64), step).mean(axis=(1, 3))
    smooth = np.mean([np.roll(grey, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    gradient = np.hypot(*np.gradient(smooth))
    numbers, outline = _blocks(marks, step).max(axis=(1, 3)), np.zeros(grey.shape, dtype=bool)
    down, across = numbers[1:] != numbers[:-1], numbers[:, 1:] != numbers[:, :-1]
    outline[1:] |= down
    outline[:-1] |= down
    outline[:, 1:] |= across
    outline[:, :-1] |= across
    inner = (slice(2, -2), slice(2, -2))  # at the border there are no neighbours
    return float(gradient[inner][outline[inner]].mean()) if outline[inner].any() else 0.0


def _blocks(plane: Array, step: int) -> Array:
    """(rows, step, columns, step) blocks of so many pixels a side."""
    rows, columns = (size // step for size in plane.shape)
    return plane[: rows * step, : columns * step].reshape(rows, step, columns, step)


def _spell(orientations: Iterable[int]) -> str:
    return errors.list_phrase(f"{one}{DEGREES.get(one, '')}" for one in sorted(set(orientations)))


def _evenly(numbers: Sequence[int], most: int) -> list[int]:
    """Spread at most so many of the numbers evenly over all of them."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[n] for n in places.tolist()]


def _is_placed(kind: str) -> bool:
    return kind.partition(":")[0] in ON_PIXELS
