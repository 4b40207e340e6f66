"""Places of text in a picture, by the detector of RapidOCR (PP-OCRv6, Apache-2.0) and by pieces like letters.

Of that package the model alone is used, which lies in its wheel: nothing of it runs, and nothing is downloaded. Liao et
al., Real-time Scene Text Detection with Differentiable Binarization, AAAI 2020, for the map that it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import ResourceError
from isocenter.lazy import cv2, ndimage, onnxruntime
from isocenter.quality import image_quality
from isocenter.values import Floats

MODEL = Path("models", "PP-OCRv6_det_small.onnx")
EXTRA = "pip install 'isocenter[deidentify]'"
# Sides to which a picture is brought for it: the model was made for 736, and small pictures gain by a larger scale.
SHORT_SIDE, LARGEST_SCALE, STRIDE = 736, 3.0, 32
TILE, OVERLAP = 1472, 96  # pixels; larger pictures are looked at in parts, so that memory has a bound
# Probability of a pixel within a place; of a place on average, so that it is looked at a second time; and the mean of
# both looks. Text that people read has above 0.8 in both, anatomy is mostly not seen again.
SEEN, CANDIDATE, UNSURE, SURE = 0.3, 0.5, 0.7, 0.8
AROUND, SECOND_HEIGHT, SECOND_SCALES = 1.5, 40, (0.5, 4.0)  # of the second look, in heights of the line and in pixels
# What is hardly longer than high is a single sign, as the marker of a side; names and numbers are longer. A tall place
# is a line that was turned, or a sign.
LEAST_WIDTH, LEAST_HEIGHT = 1.3, 2.2
SMALLEST = 4  # pixels of a place's shorter side in the scaled picture
# A line is no higher than this share of the picture's shorter side, or these pixels where they are the smaller share.
HIGHEST, HIGH_ENOUGH, HIGHEST_OF_SMALL = 0.1, 48, 0.2
MOST_OF_PICTURE = 0.4  # of the shorter side, which no line of text takes with its margins
LEVELS = (SEEN, 0.6, 0.9)  # of probability: what is too high at one is taken apart at the next
MARGIN, ALONG = 0.6, 2.0  # of its height: the model states the core of a line, whose ends are the least sure

Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class TextPlace:
    """A place with text, or with what may be text.

    box: first and last row, first and last column, each last one outside
    """

    box: tuple[int, int, int, int]
    certainty: float

    @property
    def is_sure(self) -> bool:
        """Whether nobody has to look."""
        return self.certainty >= SURE

    @property
    def height(self) -> int:
        """Pixels of its shorter side."""
        top, bottom, left, right = self.box
        return min(bottom - top, right - left)

    @property
    def region(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        top, bottom, left, right = self.box
        return slice(top, bottom), slice(left, right)


def find_text(plane: Plane) -> list[TextPlace]:
    """Places in a picture of (rows, columns) or (rows, columns, 3), from 0 to 255.

    Raises ResourceError where the detector is not installed.
    """
    rows, columns = plane.shape[:2]
    scale = min(max(SHORT_SIDE / min(rows, columns), 1.0), LARGEST_SCALE)
    side = min(rows, columns)
    highest = max(HIGHEST * side, min(HIGH_ENOUGH, HIGHEST_OF_SMALL * side))
    places = list(_places(_probability(plane, scale), scale, (rows, columns), highest))
    grey: NDArray[Any] = plane if plane.ndim == 2 else plane.max(axis=2)
    letters = image_quality.find_letters(grey)
    further = [] if letters is None else _further(letters, places)
    seen_twice = (_look_again(plane, place) for place in (*places, *further))
    return [one for one in seen_twice if one.certainty >= UNSURE and one.height <= MOST_OF_PICTURE * side]


def _look_again(plane: Plane, place: TextPlace) -> TextPlace:
    """The place as the detector sees it by itself, at a scale at which it is a line of the usual height."""
    top, bottom, left, right = place.box
    height = place.height
    margin = int(AROUND * height)
    first, start = max(top - margin, 0), max(left - margin, 0)
    crop = plane[first : bottom + margin, start : right + margin]
    scale = float(np.clip(SECOND_HEIGHT / height, *SECOND_SCALES))
    again = list(_places(_probability(crop, scale), scale, (crop.shape[0], crop.shape[1]), 2 * height))
    if not again:
        return TextPlace(place.box, 0.0)
    boxes = np.array([place.box, *(np.add(one.box, (first, first, start, start)) for one in again)])
    box = (*boxes[:, 0:1].min(0), *boxes[:, 1:2].max(0), *boxes[:, 2:3].min(0), *boxes[:, 3:4].max(0))
    certainty = (place.certainty + max(one.certainty for one in again)) / 2
    return TextPlace(tuple(map(int, box)), certainty)  # type: ignore[arg-type]


def _places(probability: Floats, scale: float, shape: tuple[int, int], highest: float) -> Iterator[TextPlace]:
    for where, certainty in _lines(probability, LEVELS, highest * scale):
        height, width = (part.stop - part.start for part in where)
        is_line = width >= LEAST_WIDTH * height or height >= LEAST_HEIGHT * width
        if certainty < CANDIDATE or not is_line or min(height, width) < SMALLEST:
            continue
        across = MARGIN * min(height, width) + 1
        margins = (across, ALONG * across) if width > height else (ALONG * across, across)
        edges = [((one.start - by) / scale, (one.stop + by) / scale) for one, by in zip(where, margins, strict=True)]
        ends = [(max(int(a), 0), min(int(np.ceil(b)), size)) for (a, b), size in zip(edges, shape, strict=True)]
        yield TextPlace((*ends[0], *ends[1]), certainty)


def _lines(
    probability: Floats, levels: Sequence[float], highest: float, offset: tuple[int, int] = (0, 0)
) -> Iterator[tuple[tuple[slice, slice], float]]:
    """(rows and columns, mean probability) of each piece that is no higher than a line."""
    pieces, _ = ndimage.label(probability > levels[0])
    for number, where in enumerate(ndimage.find_objects(pieces), start=1):
        inside = np.where(pieces[where] == number, probability[where], 0)
        top, left = (part.start + start for part, start in zip(where, offset, strict=True))
        if min(inside.shape) <= highest:
            rows, columns = inside.shape
            # What was taken apart may be a part of anything: the second look alone speaks for it.
            certainty = float(inside[inside > 0].mean()) if levels is LEVELS else CANDIDATE
            yield (slice(top, top + rows), slice(left, left + columns)), certainty
        elif levels[1:]:
            yield from _lines(inside, levels[1:], highest, (top, left))


def _further(letters: NDArray[np.bool_], places: list[TextPlace]) -> Iterator[TextPlace]:
    """Letters in a row where the detector sees nothing at first."""
    known = np.zeros(letters.shape, dtype=bool)
    for place in places:
        known[place.region] = True
    pieces, _ = ndimage.label(ndimage.binary_dilation(letters & ~known, iterations=6))
    for where in ndimage.find_objects(pieces):
        if (letters & ~known)[where].any():
            yield TextPlace((where[0].start, where[0].stop, where[1].start, where[1].stop), CANDIDATE)


def _probability(plane: Plane, scale: float) -> Floats:
    """(rows, columns) of the scaled picture: the probability of text, computed in tiles."""
    colour: NDArray[Any] = plane if plane.ndim == 3 else np.repeat(plane[..., None], 3, axis=2)
    if scale != 1:
        colour = cv2.resize(colour, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    rows, columns = colour.shape[:2]
    whole = np.zeros((rows, columns), np.float32)
    for top in range(0, max(rows - OVERLAP, 1), TILE - OVERLAP):
        for left in range(0, max(columns - OVERLAP, 1), TILE - OVERLAP):
            part = slice(top, top + TILE), slice(left, left + TILE)
            np.maximum(whole[part], _infer(colour[part]), out=whole[part])
    return whole


def _infer(tile: NDArray[np.uint8]) -> Floats:
    rows, columns = tile.shape[:2]
    padding = (0, -rows % STRIDE), (0, -columns % STRIDE), (0, 0)
    image = np.pad(tile, padding, mode="edge").astype(np.float32) / 127.5 - 1
    session = _session()
    [answer] = session.run(None, {session.get_inputs()[0].name: image.transpose(2, 0, 1)[None]})
    return cast("Floats", answer[0, 0, :rows, :columns])


@cache
def _session() -> Any:
    spec = find_spec("rapidocr")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / MODEL
    if path is None or not path.is_file():
        raise ResourceError("the detector of text in images is not installed", "clean-pixels", f"Install it: {EXTRA}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
