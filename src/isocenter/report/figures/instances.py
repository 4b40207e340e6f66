"""Objects on an image, each outlined in a colour of its own, so that neighbours can be told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import counted
from isocenter.report.display import main_plane
from isocenter.report.figures.drawing import png
from isocenter.report.figures.figure import Figure
from isocenter.report.figures.slices import (
    REFERENCE_LINE,
    SLICE_DPI,
    panels_of,
    put_greys,
    put_letters,
    put_outlines,
    put_scale_bar,
)
from isocenter.report.figures.view import cut, view_of
from isocenter.values import Array, Image

THIN = 0.9


def objects(
    image: Image, reference: ArrayLike | None, prediction: ArrayLike | None, title: str, *, caption: str = ""
) -> Figure:
    """The objects of reference and prediction side by side, in the slice that shows most of the reference.

    reference, prediction: (*spatial) or (1, *spatial) numbers of objects on the image's grid; None where there is none
    Raises GeometryError where a map does not have the image's shape.
    """
    view = view_of(image, reference, prediction)
    plane = main_plane(view.grid)
    at = view.fullest_slice(plane)
    sides = [
        (name, one) for name, one in (("reference", view.reference), ("prediction", view.prediction)) if one is not None
    ]
    canvas, panels = panels_of(view.grid, [plane] * max(1, len(sides)))
    for axes in panels:
        put_greys(axes, view, plane, at)
        put_letters(axes, plane)
    counts = []
    for axes, (name, drawn) in zip(panels, sides, strict=False):
        put_outlines(axes, cut(drawn, plane, at), view.steps(plane), (), REFERENCE_LINE, width=THIN)
        counts.append(f"{name}, {_count(drawn)}")
    put_scale_bar(panels[0], view.grid, plane)
    place = view.place(plane, at)
    sentences = [caption, f"From the left: {'; '.join(counts)}." if counts else "", f"Shown: {place}." if place else ""]
    alt = f"Image with outlines of objects: {'; '.join(counts)}"
    return Figure(title, png(canvas, SLICE_DPI), alt, " ".join(filter(None, sentences)), wide=len(panels) > 1)


def _count(drawn: Array) -> str:
    return counted(len(np.setdiff1d(drawn, 0)), "object")
