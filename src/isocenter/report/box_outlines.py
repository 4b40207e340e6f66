"""Boxes as a label map of their edges, which a viewer shows as it shows any other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.values import BoundingBoxes, Geometry, Image, Label

# What marks such a map: a fill of lines would hardly be seen.
EDGES = "edges"


def box_edges(boxes: BoundingBoxes, geometry: Geometry, labels: Sequence[Label], name: str) -> Image:
    """The voxels in which the edges of boxes lie, each with the value of its class; a later box over an earlier one.

    boxes:  on this grid
    labels: names of the classes; a class that is not among them gets a value of its own
    """
    values = {label.name: label.value for label in labels}
    for other in sorted(set(boxes.names) - set(values)):
        values[other] = max(values.values(), default=0) + 1
    drawn = np.zeros(geometry.shape, dtype=np.min_scalar_type(max(values.values(), default=1)))
    for corners, of in zip(boxes.corners.reshape(-1, 2, boxes.axes), boxes.names, strict=True):
        _draw(drawn, np.floor(corners[0]).astype(int), np.ceil(corners[1]).astype(int), values[of])
    others = [Label(value, of) for of, value in list(values.items())[len(labels) :]]
    return Image(drawn[None], geometry, channels=(name,), labels=(*labels, *others), facts={EDGES: True})


def overlay(placed: Image | BoundingBoxes, geometry: Geometry, labels: Sequence[Label], name: str) -> Image:
    """References as a label map for the viewer: a map as it is, boxes as their edges."""
    if isinstance(placed, BoundingBoxes):
        return box_edges(placed, geometry, labels, name)
    return Image(placed.data, placed.geometry, channels=(name,), labels=tuple(labels))


def _draw(drawn: np.ndarray, low: np.ndarray, high: np.ndarray, value: int) -> None:
    """The outermost voxels of one box, as far as they lie in the image."""
    low, high = np.maximum(low, 0), np.minimum(high, drawn.shape)
    whole = tuple(slice(start, end) for start, end in zip(low, high, strict=True))
    inner = tuple(slice(start + 1, end - 1) for start, end in zip(low, high, strict=True))
    if not (high > low).all():
        return
    kept = drawn[inner].copy()
    drawn[whole] = value
    drawn[inner] = kept
