"""Photographs that EXIF turns: whether what was drawn on them lies on their stored or on their turned pixels.

Cameras store what the sensor saw, and state in EXIF how it was held (EXIF 2.32, orientation). Some tools for drawing
turn the photograph as viewers do, others do not, and masks do not say which. What fits decides for the whole set: the
size, else the edges of what was drawn, which lie where the photograph has edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from isocenter.errors import DatasetError, IsocenterError, UsageError, counted, listed
from isocenter.files import pictures
from isocenter.files.index import entries, suffix_of
from isocenter.files.layouts.layout import CaseFiles, Reading
from isocenter.values import Array, BoundingBoxes, Floats, Geometry, Image, Problem

# What references lie on: pixels as they are stored, or turned upright by EXIF.
Exif = Literal["upright", "stored"]
# Kinds of reference that lie on pixels.
DRAWN = frozenset({"mask", "instances", "boxes"})
# Cases whose headers are looked at, and those of which the pixels decide, drawn evenly from the set.
LOOKED_AT, DECIDING = 256, 12
# What was drawn lies on edges so many times as strong as with the other orientation: of one case, and of several, whose
# mean must also lie two standard errors from no difference.
CLEAR_OF_ONE, CLEAR, ERRORS = 1.5, 1.1, 2.0
OTHERWISE = "See in the report that it fits; otherwise --exif upright or --exif stored says where it lies"
# Pixels a side beyond which edges are looked for in a smaller picture.
LARGEST_SIDE = 512
DEGREES = {3: " (180 degrees)", 6: " (90 degrees clockwise)", 8: " (90 degrees anticlockwise)"}


@dataclass(frozen=True)
class Fit:
    """The fit of an annotation to one photograph: whether it can lie on its turned and on its stored pixels at all.

    is_same: whether both are the same, as of an empty mask
    gain:    logarithm of how much stronger edges are under it if it lies on the stored pixels; None where unknown
    """

    upright: bool
    stored: bool
    is_same: bool = False
    gain: float | None = None


def on_upright_pixels(reading: Reading, as_stored: Callable[[], Reading], asked: str | None, where: Path) -> Reading:
    """The cases with their references on the turned pixels, and the finding that says where they were drawn.

    as_stored: the same cases, with pixels as they are stored
    asked:     where a person says that they lie; None decides by what fits
    Raises UsageError for another word, DatasetError where neither fits clearly.
    """
    if asked is not None and asked not in get_args(Exif):
        raise UsageError(f"there is no {asked!r}", "--exif", f"Choose {' or '.join(get_args(Exif))}")
    drawn = [n for n, case in enumerate(reading.cases) if case.images and any(map(_is_drawn, case.references))]
    chosen = _evenly(drawn, LOOKED_AT)
    turned = {n: turn for n in chosen if (turn := _orientation(reading.cases[n].files)) != 1}
    if asked == "upright" or not (turned or asked):
        return reading
    stored = as_stored()
    count = f"{len(turned)} of {counted(len(chosen), 'image')} {'is' if len(turned) == 1 else 'are'}"
    what = f"{count} turned upright by EXIF orientation {_spelled(turned.values())}"
    place, because = asked, "as --exif says"
    if place is None:
        fits = [_fit(reading.cases[n], stored.cases[n]) for n in _evenly(list(turned), DECIDING)]
        place, because = _decided(fits, what, where)
    pixels = "stored pixels" if place == "stored" else "turned pixels"
    what = f"{what}, and what was drawn on them lies on the {pixels}: {because}"
    if place == "upright":
        note = (Problem("note", what, remedy=OTHERWISE),) if because else ()
        return replace(reading, problems=(*reading.problems, *note))
    why = "a tool that does not read EXIF drew it: it is turned with its image"
    warning = (Problem("warning", what, why=why, remedy=OTHERWISE),) if turned else ()
    cases = (_turned_case(case, other) for case, other in zip(reading.cases, stored.cases, strict=True))
    return replace(reading, cases=tuple(cases), problems=(*reading.problems, *warning))


def _decided(fits: Sequence[Fit], what: str, where: Path) -> tuple[Exif, str]:
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
            times = f"its outlines lie on edges {np.exp(abs(mean)):.2g} times as strong as on the others"
            return ("stored" if mean > 0 else "upright"), times
    problem = f"{what}, and whether their masks or boxes lie on the stored or on the turned pixels is not clear"
    raise DatasetError(problem, str(where), "Look at one, and give --exif stored or --exif upright")


def _fit(case: CaseFiles, stored: CaseFiles) -> Fit:
    """The fit of a case's references to its first image; none where one of them cannot be read."""
    kind = next(kind for kind in case.references if _is_drawn(kind))
    image = _tried(_first(case))
    if image is None:
        return Fit(upright=False, stored=False)
    upright = _map_of(_tried(case.references[kind]), image)
    as_stored = _map_of(_tried(partial(_turned, stored.references[kind], case.files, _first(case))), image)
    if upright is None or as_stored is None:
        return Fit(upright is not None, as_stored is not None)
    if np.array_equal(upright, as_stored):
        return Fit(upright=True, stored=True, is_same=True)
    here, there = _strength(image, upright), _strength(image, as_stored)
    return Fit(upright=True, stored=True, gain=float(np.log(there / here)) if min(here, there) > 0 else None)


def _tried(load: Callable[[], Any]) -> Any:
    """The value that is read, or None: whoever reads the case says why it cannot be."""
    try:
        return load()
    except IsocenterError:
        return None


def _map_of(value: Image | BoundingBoxes | None, image: Image) -> Array | None:
    """(rows, columns) numbers of what was drawn; None where it does not lie on the image's grid."""
    rows, columns = image.geometry.shape[:2]
    match value:
        case Image() if value.geometry.equals(image.geometry):
            return np.asarray(value.data[0])
        case BoundingBoxes() if value.corners.shape[1] == 4:
            drawn = np.zeros((rows, columns), np.uint16)
            for number, (top, left, bottom, right) in enumerate(np.rint(value.corners).astype(int).tolist(), start=1):
                drawn[top:bottom, left:right] = number
            return drawn
        case _:
            return None


def _strength(image: Image, drawn: Array) -> float:
    """Mean gradient of the image under the outlines of what was drawn; 0 where there are none."""
    step = max(1, -(-max(drawn.shape) // LARGEST_SIDE))
    grey = _blocks(image.data[:3].mean(axis=0, dtype=np.float64), step).mean(axis=(1, 3))
    smooth = np.mean([np.roll(grey, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    gradient = np.hypot(*np.gradient(smooth))
    numbers, outline = _blocks(drawn, step).max(axis=(1, 3)), np.zeros(grey.shape, dtype=bool)
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


def _turned_case(case: CaseFiles, stored: CaseFiles) -> CaseFiles:
    """The case with the references that were drawn on stored pixels, turned with its image."""
    drawn = [kind for kind in case.references if _is_drawn(kind)]
    moved = {kind: partial(_turned, stored.references[kind], case.files, _first(case)) for kind in drawn}
    return replace(case, references={**case.references, **moved}, key=f"{case.key}|drawn as stored") if drawn else case


def _turned(load: Callable[[], Any], files: Sequence[Path], image: Callable[[], Image]) -> Any:
    """A reference on the stored pixels as it lies on the turned ones of its image."""
    value, orientation = load(), _orientation(files)
    match value:
        case Image() if orientation != 1:
            turned = pictures.upright(np.moveaxis(value.data, 0, -1), orientation)
            pixels = np.ascontiguousarray(np.moveaxis(turned, -1, 0))
            return replace(value, pixels=pixels, geometry=Geometry.of_pixels(pixels.shape[1:]))
        case BoundingBoxes() if orientation != 1:
            rows, columns = image().geometry.shape[:: -1 if orientation in pictures.SIDEWAYS else 1]
            return replace(value, corners=_turned_corners(value.corners, (rows, columns), orientation))
        case _:
            return value


def _turned_corners(corners: Floats, shape: tuple[int, int], orientation: int) -> Floats:
    """(n, 4) edges of boxes in a picture of this shape as they lie once it is turned, as `pictures.upright` does."""
    (rows, columns), (y, x) = shape, (corners[:, 0::2], corners[:, 1::2])
    x = columns - x if orientation in pictures.MIRRORED else x
    y = rows - y if orientation in pictures.FLIPPED else y
    for _ in range(pictures.QUARTERS.get(orientation, 0)):
        (y, x), (rows, columns) = (columns - x, y), (columns, rows)
    return np.column_stack([y.min(axis=1), x.min(axis=1), y.max(axis=1), x.max(axis=1)])


def _first(case: CaseFiles) -> Callable[[], Image]:
    """The reader of a case's first image."""
    return next(iter(case.images.values()))


def _is_drawn(kind: str) -> bool:
    return kind.partition(":")[0] in DRAWN


def _orientation(files: Sequence[Path]) -> int:
    """The EXIF orientation of the first of a case's files that is turned; 1 where none is."""
    opened = (pictures.orientation_of(path) for path in files if suffix_of(path) in entries()["picture"].suffixes)
    return next((turn for turn in opened if turn != 1), 1)


def _spelled(orientations: Iterable[int]) -> str:
    return listed(f"{one}{DEGREES.get(one, '')}" for one in sorted(set(orientations)))


def _evenly(numbers: Sequence[int], most: int) -> list[int]:
    """Spread at most so many of the numbers evenly over all of them."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[n] for n in places.tolist()]
