"""Strokes of a person on a label map, checked and applied one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import TypedDict

from hilum.errors import DatasetError
from hilum.values import Array, Label

MOST_RUNS = 200_000  # of a stroke; a brush over a whole slice of 512 rows has 512
ERASED = 0


class BoxDraft(TypedDict, total=False):
    """The draft of a box; box: the number of the one that it changes, which goes where it has no label."""

    box: int | None
    label: str | None
    corners: list[float]


class StrokeMark(TypedDict, total=False):
    """A draft in the records: the voxels of a stroke as runs of (start, length), or a box; of an image of several."""

    label: int
    runs: Sequence[Sequence[int]]
    box: BoxDraft
    image: int


class StrokeDraft(StrokeMark):
    """A draft with the name that the page gives it."""

    stroke: str


@dataclass(frozen=True)
class Stroke:
    """A stroke, by the name that the page gives it: voxels of the source's array, or a box.

    label: that the voxels get, 0 for none
    runs:  (start, length) of neighbours in C order
    box:   {"corners", "label"} of a new box, with "box" in place of that one; without a label there is no such box
    image: of a series of several
    """

    stroke: str
    label: int = ERASED
    runs: tuple[tuple[int, int], ...] = ()
    box: BoxDraft | None = None
    image: int = 0

    @property
    def mark(self) -> StrokeMark:
        """Entry in the records."""
        mark: StrokeMark = {"label": self.label, "runs": self.runs} if self.box is None else {"box": self.box}
        return {**mark, "image": self.image} if self.image else mark

    @classmethod
    def from_record(cls, stroke: str, mark: StrokeMark) -> Stroke:
        """Read a draft from the records."""
        runs = tuple((int(start), int(length)) for start, length in mark.get("runs", ()))
        return cls(stroke, mark.get("label", ERASED), runs, mark.get("box"), mark.get("image", 0))


def check_stroke(stroke: Stroke, shape: Sequence[int], labels: Sequence[Label]) -> None:
    """Refuse voxels outside a grid, and a label that its map does not have. Raises DatasetError."""
    size = int(np.prod(shape, dtype=np.int64))
    if any(start < 0 or length < 1 or start + length > size for start, length in stroke.runs):
        words = " x ".join(map(str, shape))
        raise DatasetError(f"a stroke lies outside the grid of {words} voxels", "runs", "Stay on the result's own grid")
    if stroke.label != ERASED and stroke.label not in {one.value for one in labels}:
        names = ", ".join(f"{one.value} {one.name}" for one in labels)
        raise DatasetError(f"the label map has no label {stroke.label}", "label", f"Choose one of {names or 'none'}")


def apply_strokes(mask: Array, strokes: Sequence[Stroke]) -> Array:
    """A copy of a label map, (*source), with strokes one after the other."""
    flat = np.array(mask, order="C").reshape(-1)
    for stroke in strokes:
        for start, length in stroke.runs:
            flat[start : start + length] = stroke.label
    return flat.reshape(mask.shape)
