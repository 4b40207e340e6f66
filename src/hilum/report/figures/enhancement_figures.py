"""Pictures of an enhanced image: before, after, and what was taken away or added, all on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hilum.report import display
from hilum.report.figures import drawing, slice_figures
from hilum.report.figures.slice_figures import SLICE_DPI
from hilum.report.page_blocks import Figure
from hilum.values import Image

RESIDUAL, SCALE = "residual", "The residual has the scale of the images; mid-grey is no change."


def stages_with_residual(stages: Sequence[tuple[str, Image]], title: str) -> Figure:
    """Images of one grid side by side in the greys of the first, and then the last of them less the first.

    stages: (words, image), two or more; of a clip the first frame is shown, of several channels the first
    """
    base, *others = (display.view_of(image) for _, image in stages)
    views = [base, *(replace(one, low=base.low, high=base.high, curve=base.curve, falls=base.falls) for one in others)]
    half = (base.high - base.low) / 2
    with np.errstate(invalid="ignore"):  # of two infinite values nobody knows the difference: it is NaN
        residual = np.subtract(views[-1].values, base.values, dtype=np.float64)
    views.append(replace(base, values=residual, low=-half, high=half, curve=None, falls=False))
    size = base.grid.shape
    plane = max(display.screen_planes(base.grid), key=lambda one: size[one.across] * size[one.down])
    at = base.fullest_slice(plane)
    canvas, panels = slice_figures.plane_panels(base.grid, [plane] * len(views))
    for axes, view in zip(panels, views, strict=True):
        slice_figures.put_greys(axes, view, plane, at)
    slice_figures.put_letters(panels[0], plane)
    slice_figures.put_scale_bar(panels[0], base.grid, plane)
    order, place = ", ".join([*(words for words, _ in stages), RESIDUAL]), base.place(plane, at)
    text = " ".join(filter(None, (f"From the left: {order}.", SCALE, f"Shown: {place}." if place else "")))
    return Figure(title, drawing.encode_png(canvas, SLICE_DPI), f"{title}: {order}", text, wide=True)
