"""Pictures of a registration: both images as a checkerboard, the bent grid, and where it grows and shrinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from hilum.report import display
from hilum.report.display import ScreenPlane, UprightView
from hilum.report.figures import drawing, slice_figures
from hilum.report.figures.heat_map import COARSE, COARSE_DPI
from hilum.report.figures.slice_figures import SLICE_DPI
from hilum.report.page_blocks import Figure
from hilum.transforms import spatial_transforms
from hilum.values import Displacement, Floats, Image, SpatialTransform

# Fields of the checkerboard along the longest side, and lines of the grid.
FIELDS, LINES = 8, 20
# Points on a line of the grid, so that it bends smoothly.
ON_A_LINE = 80
GRID_COLOUR = "#ffd24d"
# log2 of the determinant at the ends of the colours: half and twice the size.
STRONGEST = 1.0

Draw = Callable[[Axes, UprightView, ScreenPlane, int], None]


def checkerboard(fixed: Image, moved: Image, title: str, *, near: ArrayLike | None = None) -> Figure:
    """Fields of the fixed and the moved image in turn: structures must go on across their edges.

    near: (*spatial) of the fixed image, what the slices go through
    """
    ours, theirs = display.view_of(fixed, near), display.view_of(moved)
    both = [_in_window(one) for one in (ours, theirs)]
    both = [one.mean(axis=-1) if one.ndim > ours.grid.ndim else one for one in both]
    side = max(size * step for size, step in zip(ours.grid.shape, ours.grid.steps, strict=True)) / FIELDS
    fields = sum(
        np.floor(np.arange(size) * step / side)
        .astype(int)
        .reshape([-1 if a == axis else 1 for a in range(ours.grid.ndim)])
        for axis, (size, step) in enumerate(zip(ours.grid.shape, ours.grid.steps, strict=True))
    )
    mixed = replace(ours, values=np.where(np.asarray(fields) % 2 == 0, both[0], both[1]), low=0.0, high=1.0)

    def draw(axes: Axes, view: UprightView, plane: ScreenPlane, at: int) -> None:
        """Greys alone."""

    return _draw_panels(
        mixed, draw, title, "Fields of the fixed and the moved image in turn; edges should go on.", fixed
    )


def _in_window(view: UprightView) -> NDArray[np.float32]:
    """The values from 0 to 1, in 32 bits and in place: a large volume is not held several times."""
    values = view.values.astype(np.float32)
    values -= np.float32(view.low)
    values /= np.float32(max(view.high - view.low, 1e-12))
    return np.clip(values, 0, 1, out=values)


def bent_grid(fixed: Image, transform: SpatialTransform, title: str, *, near: ArrayLike | None = None) -> Figure:
    """The regular grid of the fixed image as its fields bend it; the linear part is left out."""
    fields = tuple(part for part in transform.parts if isinstance(part, Displacement))
    bending = SpatialTransform(fields, transform.fixed, transform.fixed)

    def draw(axes: Axes, view: UprightView, plane: ScreenPlane, at: int) -> None:
        """Lines along both axes of the plane."""
        limits = axes.axis()
        sides = [(size - 1) for size in (view.grid.shape[plane.across], view.grid.shape[plane.down])]
        apart = max(side * step for side, step in zip(sides, view.steps(plane), strict=True)) / LINES
        for moves, (side, step) in enumerate(zip(sides, view.steps(plane), strict=True)):
            for position in np.arange(0, side * step + 1e-9, apart) / step:
                line = [np.full(ON_A_LINE, position), np.linspace(0, sides[1 - moves], ON_A_LINE)]
                across, down = line if moves == 0 else line[::-1]
                _put_line(axes, view, plane, at, across, down, bending)
        axes.axis(limits)

    return _draw_panels(display.view_of(fixed, near), draw, title, "Where points of a regular grid come to lie.", fixed)


def _put_line(
    axes: Axes, view: UprightView, plane: ScreenPlane, at: int, across: Floats, down: Floats, bending: SpatialTransform
) -> None:
    index = np.zeros((len(across), view.grid.ndim))
    index[:, plane.across], index[:, plane.down] = across, down
    if plane.through is not None:
        index[:, plane.through] = at
    moved = view.grid.to_index(spatial_transforms.carry_points(bending, view.grid.to_world(index)))
    steps = view.steps(plane)
    axes.plot(moved[:, plane.across] * steps[0], moved[:, plane.down] * steps[1], color=GRID_COLOUR, linewidth=0.6)


def jacobian_map(
    fixed: Image, determinant: NDArray[np.float32], title: str, *, near: ArrayLike | None = None
) -> Figure:
    """Map of where the moving image's region is larger (red) or smaller (blue) than the fixed one; black: it folds."""
    axes_order, flips = display.screen_order(fixed.geometry)
    shown = display.turn_upright(determinant, axes_order, flips)

    def draw(axes: Axes, view: UprightView, plane: ScreenPlane, at: int) -> None:
        """Colours by log2, as strong as it is far from 0."""
        part = display.cut_slice(shown, plane, at)
        change = np.log2(np.maximum(part, 1e-6)) / STRONGEST
        strength = np.clip(np.abs(change), 0, 1)
        colour = np.where(change[..., None] > 0, [0.86, 0.2, 0.18], [0.16, 0.42, 0.9])
        colour = np.where((part <= 0)[..., None], [0.0, 0.0, 0.0], colour)
        picture = np.concatenate([colour, np.where(part <= 0, 1.0, 0.75 * strength)[..., None]], axis=-1)
        across, down = view.steps(plane)
        extent = (-across / 2, (part.shape[1] - 0.5) * across, (part.shape[0] - 0.5) * down, -down / 2)
        axes.imshow(picture, extent=extent, interpolation="nearest")

    caption = "Red: larger in the moving image, full at twice the size; blue: smaller, full at half; black: folded."
    return _draw_panels(display.view_of(fixed, near), draw, title, caption, fixed)


def _draw_panels(view: UprightView, draw: Draw, title: str, caption: str, fixed: Image) -> Figure:
    """A panel a plane, with a picture over its greys."""
    shown: Sequence[tuple[ScreenPlane, int]] = [
        (plane, view.fullest_slice(plane)) for plane in display.screen_planes(view.grid)
    ]
    canvas, panels = slice_figures.plane_panels(view.grid, [plane for plane, _ in shown])
    for axes, (plane, at) in zip(panels, shown, strict=True):
        slice_figures.put_greys(axes, view, plane, at)
        draw(axes, view, plane, at)
        slice_figures.put_letters(axes, plane)
    slice_figures.put_scale_bar(panels[0], view.grid, shown[0][0])
    places = "; ".join(filter(None, (view.place(plane, at) for plane, at in shown)))
    text = f"{caption} Shown: {places}." if places else caption
    dpi = SLICE_DPI if max(view.grid.shape) > COARSE else max(COARSE_DPI, 130)
    return Figure(
        title,
        drawing.encode_png(canvas, dpi),
        f"{title} of {' x '.join(map(str, fixed.geometry.shape))} voxels",
        text,
        wide=len(shown) > 1,
    )
