"""Small marks in a picture, such as letters and clips: where a bright, dark or even patch predicts an outcome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hilum.lazy import ndimage, stats
from hilum.values import Array, Floats

# A mark of 6 pixels has 2 left in a radiograph of 2300.
LONGEST_SIDE = 768
# Patches of 3 pixels, and of twice, four and eight times as many: larger ones are seen in the small image.
SIZES, PATCH = 4, 3
# From the middle of a patch to the middle of what lies on each of its sides: marks of up to 5 pixels lie between.
APART = 4
# Smaller pictures have no room for a patch with four sides.
SMALLEST_SIDE = 12
# Places along each side of the picture. Each overlaps half of the next, so that a mark between two is seen whole.
PLACES = 32
KINDS = ("bright", "dark", "even")
# A patch with so much of the picture's median local deviation, at least FLAT, is half as even as a painted square.
EVEN, FLAT = 0.25, 0.01
# Of the picture's range of intensities; below it is JPEG noise.
FAINTEST = 0.03
# So many places away nothing belongs to the same mark.
AWAY = 8
# By so much a mark must separate the outcomes better than any patch elsewhere, in standard deviations of two normal
# distributions (as d' of signal detection): radiographs of ill and well differ by up to 0.46 without a mark.
BEYOND = 0.5


# (rows, columns): whether pixels are counted from the last.
CORNERS = {
    "top left": (False, False), "top right": (False, True), "bottom left": (True, False), "bottom right": (True, True),
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """A place where patches predict an outcome, as shares of the (typical) picture's height and width.

    strength: how far it separates the outcomes, as d'
    corner:   from which it is equally many pixels away in pictures of several sizes; empty where the shares are equal
    """

    kind: str
    place: tuple[float, float]
    strength: float
    corner: str = ""

    def __str__(self) -> str:
        down, right = (f"{100 * share:.0f} %" for share in self.place)
        fixed = f", as many pixels from the {self.corner} corner in each picture" if self.corner else ""
        return f"{self.kind}, {right} from the left and {down} from the top{fixed}"


def patch_contrast(picture: Floats) -> Array | None:
    """The contrast of the brightest and darkest patch at each place against all four sides, and how even one is.

    picture: intensities between 0 and 1, what lies far outside apart; rows first
    Returns (SIZES * KINDS, PLACES, PLACES) in 1/255; None for a picture without room.
    """
    if min(picture.shape) < SMALLEST_SIDE:
        return None
    step = -(-max(picture.shape) // LONGEST_SIDE)
    picture = _reduce(picture.astype(np.float32), step)
    marks = np.zeros((SIZES, len(KINDS), PLACES, PLACES), dtype=np.uint8)
    for size in range(SIZES):
        if min(picture.shape) < SMALLEST_SIDE:
            break
        mean = ndimage.uniform_filter(picture, PATCH, mode="nearest")
        bright = mean - np.maximum.reduce(list(_sides(mean, -np.inf)))
        dark = np.minimum.reduce(list(_sides(mean, np.inf))) - mean
        square = ndimage.uniform_filter(picture**2, PATCH, mode="nearest")
        rough = np.sqrt((square - mean**2).clip(0))
        usual = EVEN * max(float(np.median(rough)), FLAT)  # a mark changes the range, and with it all intensities
        even = usual / (usual + rough)
        for kind, response in enumerate((bright, dark, even)):
            marks[size, kind] = np.rint(255 * _by_place(response).clip(0, 1))
        picture = _reduce(picture, 2)
    return marks.reshape(-1, PLACES, PLACES)


def _reduce(picture: Floats, step: int) -> Floats:
    """Means of blocks of `step` by `step`; what is left over at the end is cut off."""
    rows, columns = (size // step * step for size in picture.shape)
    tall = np.add.reduce([picture[first:rows:step, :columns] for first in range(step)])
    return np.asarray(np.add.reduce([tall[:, first::step] for first in range(step)]) / step**2)


def _sides(mean: Floats, outside: float) -> Iterator[Floats]:
    """The values above, below, left and right of each pixel; those outside the picture never count."""
    padded = np.pad(mean, APART, constant_values=outside)
    rows, columns = mean.shape
    for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
        yield padded[APART * down : APART * down + rows, APART * right : APART * right + columns]


def _by_place(response: Floats) -> Floats:
    """(PLACES, PLACES): the highest response at each place."""
    for axis in (0, 1):
        starts = np.arange(PLACES + 1) * response.shape[axis] // (PLACES + 1)
        # Of a small picture places share pixels, where `reduceat` takes the one at each start.
        parts = np.maximum.reduceat(response, starts, axis=axis)
        response = np.maximum(parts.take(range(PLACES), axis), parts.take(range(1, PLACES + 1), axis))
    return response


def anchor_patches(marks: Array, shapes: Sequence[Sequence[int]], corner: str) -> Array:
    """The patches of pictures of several sizes at places that are equally many pixels from a corner.

    marks: (cases, SIZES * KINDS, PLACES, PLACES); shapes: pixels of each. Places are those of the median picture.
    """
    typical, share = np.median(shapes, axis=0), np.arange(1, PLACES + 1) / (PLACES + 1)
    moved = np.zeros_like(marks)
    for mark, target, shape in zip(marks, moved, shapes, strict=True):
        chosen = []
        for size, usual, last in zip(shape, typical, CORNERS[corner], strict=True):
            position = 1 - (1 - share) * usual / size if last else share * usual / size
            chosen.append(np.rint(position * (PLACES + 1) - 1).astype(int))
        is_inside = [(one >= 0) & (one < PLACES) for one in chosen]
        target[:, *np.ix_(*is_inside)] = mark[
            :, *np.ix_(*(one[inside] for one, inside in zip(chosen, is_inside, strict=True)))
        ]
    return moved


def rank_patches(marks: Array) -> Floats:
    """(cases, numbers) standardised ranks of each size and place over the cases; 0 where nothing stands out."""
    flat = marks.reshape(len(marks), -1)
    is_bright = flat.max(axis=0) > 255 * FAINTEST
    ranks = np.zeros(flat.shape, dtype=np.float32)
    ranks[:, is_bright] = stats.rankdata(flat[:, is_bright], axis=0)
    ranks[:, is_bright] -= ranks[:, is_bright].mean(axis=0)
    spread = ranks.std(axis=0)
    return np.asarray(ranks / np.where(spread > 0, spread, 1))


def predicted_by_best(ranks: Floats, truth: Floats, fold: Array) -> Floats:
    """(shuffles, cases, columns) by the one place that predicts most in the other folds, for each shuffle and column.

    ranks: as of `ranked`; truth: (shuffles, cases, columns)
    """
    flat = truth.transpose(0, 2, 1).reshape(-1, len(ranks)).astype(np.float32)
    scores = np.empty_like(flat)
    for held in np.unique(fold):
        is_held_out, rest = fold == held, fold != held
        alike = _correlation(ranks[rest], flat[:, rest])
        best = np.abs(alike).argmax(axis=1)
        scores[:, is_held_out] = (ranks[np.ix_(is_held_out, best)] * np.sign(alike[np.arange(len(best)), best])).T
    return scores.reshape(truth.shape[0], truth.shape[2], -1).transpose(0, 2, 1).astype(np.float64)


def separating_mark(ranks: Floats, truth: Floats) -> Mark | None:
    """The mark that separates the outcomes far better than any patch elsewhere; None where there is none.

    ranks: as of `ranked`; truth: (cases, columns), for each column numbers to be predicted
    A disease changes patches in many places, a mark in one.
    """
    apart = np.stack([_separation(ranks, column) for column in truth.T])
    apart = apart.reshape(-1, SIZES, len(KINDS), PLACES, PLACES)
    strength = np.abs(apart)
    # A mark shows at neighbouring places and in several sizes: the smallest says best where it is.
    column, size, kind, row, right = np.argwhere(strength > strength.max() - 1e-3)[0]
    rows, columns = np.indices((PLACES, PLACES))
    away = np.maximum(np.abs(rows - row), np.abs(columns - right)) > AWAY
    # Beside a bright patch others stand out less: what differs in the other direction belongs to it.
    same = np.where(apart[column] * apart[column, size, kind, row, right] > 0, strength[column], 0.0)
    if strength.max() - same[:, :, away].max() < BEYOND:
        return None
    alike = ~away & (strength[column, size, kind] > strength.max() - 1e-3)
    down, across = (float(places[alike].mean() + 1) / (PLACES + 1) for places in (rows, columns))
    return Mark(KINDS[kind], (down, across), float(strength.max()))


def _separation(ranks: Floats, column: Floats) -> Floats:
    """d' of each number: what two normal distributions with the same concordance would be apart."""
    ordered = np.arange(len(column)) - (len(column) - 1) / 2
    perfect = float(np.corrcoef(ordered, np.sort(column))[0, 1])
    share = 0.5 + 0.5 * _correlation(ranks, column[None])[0] / perfect
    # Of few cases none is so well separated that it would be infinite.
    few = 0.5 / max(1.0, min((column > column.mean()).sum(), (column <= column.mean()).sum()))
    return np.asarray(np.sqrt(2) * stats.norm.ppf(share.clip(few, 1 - few)))


def _correlation(ranks: Floats, columns: Floats) -> Floats:
    """(rows of `columns`, numbers) Pearson's correlation."""
    # Scaled before they are multiplied: the product has a row for each shuffle, and is what takes long.
    deviation = np.maximum(columns.std(axis=1, keepdims=True), 1e-9)
    centred = (columns - columns.mean(axis=1, keepdims=True)) / deviation / len(ranks)
    return np.asarray(centred.astype(ranks.dtype) @ (ranks / np.maximum(ranks.std(axis=0), 1e-3)))
