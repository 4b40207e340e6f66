"""Slices of images with the outlines of what is drawn on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from isocenter.errors import GeometryError, UsageError
from isocenter.report.display import (
    Plane,
    colours,
    foreground,
    is_colour,
    planes,
    turned,
    unit_of,
    upright,
    window,
)
from isocenter.report.figures.drawing import Canvas, png, short
from isocenter.report.figures.figure import Figure
from isocenter.values import Array, Geometry, Image, Label

GROUND, LETTERS = "#000000", "#e8edf2"
Dashes = tuple[float, Sequence[float]]  # offset; lengths of line and gap in line widths
REFERENCE_LINE: Dashes = (0, ())
PREDICTION_LINE: Dashes = (0, (2.2, 1.4))
SLICE_DPI = 150


@dataclass(frozen=True, eq=False)
class _View:
    """An image and its label maps in the order of the screen.

    grid:   the upright grid; pixels are (*spatial) greys or (*spatial, 3) colours in 0..1
    counts: per axis of the screen, whether the file counts its slices the other way
    """

    grid: Geometry
    greys: Array
    flips: tuple[bool, ...]
    reference: Array | None
    prediction: Array | None


def contours(
    image: Image,
    reference: ArrayLike | None,
    prediction: ArrayLike | None,
    labels: Sequence[Label],
    title: str,
    *,
    caption: str = "",
    channel: int = 0,
    frame: int = 0,
) -> Figure:
    """An image with the outlines of reference (solid) and prediction (dashed), through the most reference.

    reference, prediction: (*spatial) or (1, *spatial) label values on the image's grid; None where there is none
    labels:                what the values mean; 0 is background
    A volume is shown in three planes, to scale; the patient's right is at the left of the screen.
    Raises GeometryError where a label map does not have the image's shape.
    """
    view = _view(image, reference, prediction, channel, frame)
    shown = planes(view.grid)
    at = {plane.name: _fullest_slice(view, plane) for plane in shown}
    canvas, panels = _panels(view.grid, shown)
    for axes, plane in zip(panels, shown, strict=True):
        _draw_plane(axes, view, plane, at[plane.name], labels)
    _scale_bar(panels[0], view.grid, shown[0])  # all panels have one scale
    _key(canvas, labels, reference is not None, prediction is not None)
    places = "; ".join(filter(None, (_place(view, plane, at[plane.name]) for plane in shown)))
    text = " ".join(part for part in (caption, f"Shown: {places}." if places else "") if part)
    alt = _alt(image, shown, labels, reference, prediction)
    return Figure(title, png(canvas, SLICE_DPI), alt, text, wide=len(shown) > 1)


def contact_sheet(images: Mapping[str, Image], title: str, *, caption: str = "", columns: int = 6) -> Figure:
    """The middle slice of each image with its name under it, all at the same size.

    Raises UsageError where there is no image.
    """
    if not images:
        raise UsageError("no image to show", title, "Give at least one")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    canvas = Canvas(figsize=(1.5 * columns, 1.7 * rows), facecolor=GROUND)
    for place, (name, image) in enumerate(images.items()):
        row, column = divmod(place, columns)
        left, bottom = column / columns, 1 - (row + 1) / rows
        # 0.2 of the 1.7 inches of a cell are for the name.
        axes = canvas.add_axes((left + 0.01 / columns, bottom + 0.13 / rows, 0.98 / columns, 0.86 / rows))
        axes.set_axis_off()
        view = _view(image, None, None, 0, 0)
        plane = planes(view.grid)[0]
        _draw_greys(axes, view, plane, _fullest_slice(view, plane))
        middle = left + 0.5 / columns
        canvas.text(middle, bottom + 0.04 / rows, short(name), size=6.5, color=LETTERS, ha="center", parse_math=False)
    alt = f"Contact sheet of {len(images)} images: {', '.join(list(images)[:12])}"
    return Figure(title, png(canvas, SLICE_DPI), alt, caption, wide=True)


def _view(image: Image, reference: ArrayLike | None, prediction: ArrayLike | None, channel: int, frame: int) -> _View:
    image = image.with_pixels(image.data)  # read once
    axes, flips = upright(image.geometry)
    grid = image.geometry.permuted(axes, flips)
    maps = [
        None if given is None else turned(_label_map(given, image.geometry, name), axes, flips)
        for given, name in ((reference, "reference"), (prediction, "prediction"))
    ]
    greys = turned(_greys(image, channel, frame), axes, flips)
    if is_colour(image):
        greys = np.moveaxis(greys, 0, -1)
    return _View(grid, greys, flips, *maps)


def _label_map(given: ArrayLike, geometry: Geometry, name: str) -> Array:
    array = np.asarray(given)
    if array.shape == (1, *geometry.shape):
        array = array[0]
    if array.shape != geometry.shape:
        raise GeometryError(
            f"shape {array.shape} on an image of {geometry.shape}", name, "Give label values on the image's own grid"
        )
    return array


def _greys(image: Image, channel: int, frame: int) -> Array:
    """(*spatial) greys of one channel, or (3, *spatial) colours, in 0..1."""
    pick = slice(3) if is_colour(image) else channel
    values, valid = (array[pick] if image.frames is None else array[pick, frame] for array in (image.data, image.valid))
    if is_colour(image) and values.dtype == np.uint8:
        return values / 255.0
    low, high = window(image, values[valid])
    return np.nan_to_num(np.clip((values - low) / (high - low), 0.0, 1.0))


def _fullest_slice(view: _View, plane: Plane) -> int:
    """Where the plane cuts the most reference; without one the most prediction; else the middle."""
    if plane.through is None:
        return 0
    others = tuple(axis for axis in range(view.grid.ndim) if axis != plane.through)
    for drawn in (view.reference, view.prediction):
        if drawn is not None and (areas := np.count_nonzero(drawn, axis=others)).any():
            return int(areas.argmax())
    return view.grid.shape[plane.through] // 2


def _cut(array: Array, plane: Plane, at: int) -> Array:
    """(down, across) of one slice."""
    if plane.through is not None:
        array = array.take(at, axis=plane.through)
    return array.swapaxes(0, 1) if plane.across < plane.down else array


def _panels(grid: Geometry, shown: Sequence[Plane]) -> tuple[Canvas, list[Axes]]:
    """One panel a plane side by side, all to the same scale."""
    sizes = np.array([[grid.shape[a] * grid.steps[a] for a in (p.across, p.down)] for p in shown])
    gap, key, widest = 0.06, 0.34, (8.6 if len(shown) > 1 else 5.2)
    scale = min((widest - gap * (len(shown) - 1)) / sizes[:, 0].sum(), 5.0 / sizes[:, 1].max())
    widths, height = sizes[:, 0] * scale, max(0.8, sizes[:, 1].max() * scale)
    width = max(3.2, widths.sum() + gap * (len(shown) - 1))
    canvas = Canvas(figsize=(width, height + key), facecolor=GROUND)
    left = (width - widths.sum() - gap * (len(shown) - 1)) / 2
    panels = []
    for panel in widths:
        axes = canvas.add_axes((left / width, key / (height + key), panel / width, height / (height + key)))
        axes.set_axis_off()
        panels.append(axes)
        left += panel + gap
    return canvas, panels


def _draw_plane(axes: Axes, view: _View, plane: Plane, at: int, labels: Sequence[Label]) -> None:
    _draw_greys(axes, view, plane, at)
    for drawn, style in ((view.reference, REFERENCE_LINE), (view.prediction, PREDICTION_LINE)):
        if drawn is not None:
            _outline(axes, _cut(drawn, plane, at), _steps(view, plane), labels, style)
    _letters(axes, plane)


def _draw_greys(axes: Axes, view: _View, plane: Plane, at: int) -> None:
    picture = _cut(view.greys, plane, at)
    across, down = _steps(view, plane)
    # Voxel centres at whole steps, so the outer edges lie half a step outside.
    extent = (-across / 2, (picture.shape[1] - 0.5) * across, (picture.shape[0] - 0.5) * down, -down / 2)
    # Voxels larger than a pixel of the screen are shown as they are; smaller ones are averaged, never dropped.
    large = axes.get_window_extent().width * SLICE_DPI / axes.figure.dpi >= picture.shape[1]
    smooth: Literal["nearest", "hanning"] = "nearest" if large else "hanning"
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation=smooth)


def _outline(axes: Axes, drawn: Array, steps: tuple[float, float], labels: Sequence[Label], style: Dashes) -> None:
    """Lines half-way between the last voxel inside and the first outside, which is where the voxels' edges lie."""
    framed = np.pad(drawn, 1)  # so that a structure that touches the border is closed
    across = (np.arange(framed.shape[1]) - 1) * steps[0]
    down = (np.arange(framed.shape[0]) - 1) * steps[1]
    limits = axes.axis()
    for value, colour in colours(labels).items():
        mask = framed == value
        if mask.any():
            made = axes.contour(across, down, mask, [0.5], colors=[_hex(colour)], linewidths=1.3, linestyles=[style])
            made.set_path_effects([withStroke(linewidth=2.4, foreground="#000000b0")])
    axes.axis(limits)


def _steps(view: _View, plane: Plane) -> tuple[float, float]:
    return view.grid.steps[plane.across], view.grid.steps[plane.down]


def _letters(axes: Axes, plane: Plane) -> None:
    """R, L, A, P, S, I at the edges, where sides are known."""
    spots = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    )
    for letter, (x, y, across, down) in zip(plane.edges or (), spots, strict=False):
        _write(axes, x, y, letter, ha=across, va=down, weight="bold")


def _scale_bar(axes: Axes, grid: Geometry, plane: Plane) -> None:
    """A bar of a round length, about a quarter of the panel."""
    width = grid.shape[plane.across] * grid.steps[plane.across]
    power = 10.0 ** np.floor(np.log10(width / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width / 4)
    axes.plot([0.03, 0.03 + length / width], [0.03, 0.03], transform=axes.transAxes, color=LETTERS, linewidth=1.6)
    _write(axes, 0.03, 0.045, f"{length:g} {unit_of(grid)}", ha="left", va="bottom")


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    halo = [withStroke(linewidth=2, foreground="#000000c0")]
    axes.text(x, y, text, transform=axes.transAxes, color=LETTERS, fontsize=8, path_effects=halo, **style)


def _key(canvas: Canvas, labels: Sequence[Label], reference: bool, prediction: bool) -> None:
    """Which colour is which label, which line is whose."""
    lines = [
        Line2D([], [], color=_hex(colours(labels)[label.value]), linewidth=3, label=short(label.name))
        for label in foreground(labels)
    ]
    for drawn, style, name in ((reference, REFERENCE_LINE, "reference"), (prediction, PREDICTION_LINE, "prediction")):
        if drawn:
            lines.append(Line2D([], [], color=LETTERS, linewidth=1.3, linestyle=style, label=name))
    if not lines:
        return
    made = canvas.legend(
        handles=lines, loc="lower center", ncols=len(lines), frameon=False, fontsize=8, labelcolor=LETTERS
    )
    for text in made.get_texts():
        text.set_parse_math(False)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _place(view: _View, plane: Plane, at: int) -> str:
    """ "axial, slice 18 of 36", counted as the file counts; empty for a picture."""
    if plane.through is None:
        return ""
    size = view.grid.shape[plane.through]
    return f"{plane.name}, slice {size - at if view.flips[plane.through] else at + 1} of {size}"


def _alt(
    image: Image,
    shown: Sequence[Plane],
    labels: Sequence[Label],
    reference: ArrayLike | None,
    prediction: ArrayLike | None,
) -> str:
    drawn = [name for name, given in (("reference", reference), ("prediction", prediction)) if given is not None]
    kind = "Image" if image.modality == "unknown" else f"{image.modality} image"
    what = f"{kind}, {' and '.join(plane.name for plane in shown)}"
    if not drawn:
        return what
    return f"{what}, with outlines of {', '.join(label.name for label in foreground(labels))}: {' and '.join(drawn)}"
