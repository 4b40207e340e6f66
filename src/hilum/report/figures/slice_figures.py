"""Slices of images, and series as lines, with of labels or of single objects, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from hilum import errors
from hilum.lazy import ndimage
from hilum.report import display
from hilum.report.display import PALETTE, Ink, ScreenPlane, UprightView
from hilum.report.figures import drawing
from hilum.report.figures.drawing import Canvas
from hilum.report.page_blocks import Figure
from hilum.values import Array, Geometry, Image, Label

GROUND, LETTERS, MARK = "#000000", "#e8edf2", "#f0b040"
Dashes = tuple[float, Sequence[float]]  # offset; lengths of line and gap in line widths
REFERENCE_LINE: Dashes = (0, ())
PREDICTION_LINE: Dashes = (0, (2.2, 1.4))
SLICE_DPI = 150
KEY_ROW = 0.24  # inches
KEY_LABELS = len(PALETTE)  # more names than these have colours that stand for several
THIN = 0.9
OWNERS = ("reference", "prediction")  # of the outlines, as the key names them


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
    owners: tuple[str, str] = OWNERS,
) -> Figure:
    """An image with the outlines of reference (solid) and prediction (dashed), through the most reference.

    reference, prediction: (*spatial) or (1, *spatial) label values on the image's grid; None where there is none
    labels:                what the values mean; 0 is background
    owners:                the words for both in the key
    A volume is shown in three planes, to scale; the patient's right is at the left of the screen. A series is drawn as
    lines.
    Raises GeometryError where a label map does not have the image's shape.
    """
    if image.geometry.is_series:
        marks = zip(owners, (reference, prediction), strict=True)
        return trace_plot(
            image, [(name, one, labels) for name, one in marks if one is not None], title, caption=caption
        )
    view = display.view_of(image, reference, prediction, channel=channel, frame=frame)
    shown = [(plane, view.fullest_slice(plane)) for plane in display.screen_planes(view.grid)]
    canvas, panels = plane_panels(view.grid, [plane for plane, _ in shown], _key(view, shown, labels, owners))
    for axes, (plane, at) in zip(panels, shown, strict=True):
        _draw_plane(axes, view, plane, at, labels)
    put_scale_bar(panels[0], view.grid, shown[0][0])  # all panels have one scale
    places = "; ".join(filter(None, (view.place(plane, at) for plane, at in shown)))
    sentences = (f"{caption.rstrip('.')}." * bool(caption), f"Shown: {places}." if places else "")
    text = " ".join(filter(None, (*sentences, _shared_colours(view, shown, labels))))
    owners_shown = [name for name, one in zip(owners, (reference, prediction), strict=True) if one is not None]
    alt = _alt(image, [plane for plane, _ in shown], labels, owners_shown)
    return Figure(title, drawing.encode_png(canvas, SLICE_DPI), alt, text, wide=len(shown) > 1)


def plane_panels(grid: Geometry, shown: Sequence[ScreenPlane], key: Sequence[Line2D] = ()) -> tuple[Canvas, list[Axes]]:
    """One panel a plane side by side, all to the same scale, and the key under them."""
    sizes = np.array([[grid.shape[a] * grid.steps[a] for a in (p.across, p.down)] for p in shown])
    gap, widest = 0.06, (8.6 if len(shown) > 1 else 5.2)
    scale = min((widest - gap * (len(shown) - 1)) / sizes[:, 0].sum(), 5.0 / sizes[:, 1].max())
    widths, height = sizes[:, 0] * scale, max(0.8, sizes[:, 1].max() * scale)
    width = max(3.2, widths.sum() + gap * (len(shown) - 1))
    rows = _rows(key, width)
    below = KEY_ROW * len(rows) + (0.08 if rows else 0)
    canvas = Canvas(figsize=(width, height + below), facecolor=GROUND)
    left = (width - widths.sum() - gap * (len(shown) - 1)) / 2
    panels = []
    for panel in widths:
        axes = canvas.add_axes((left / width, below / (height + below), panel / width, height / (height + below)))
        axes.set_axis_off()
        panels.append(axes)
        left += panel + gap
    for index, row in enumerate(rows):
        _put_row(canvas, row, (below - KEY_ROW * (index + 0.5)) / (height + below))
    return canvas, panels


def _draw_plane(axes: Axes, view: UprightView, plane: ScreenPlane, at: int, labels: Sequence[Label]) -> None:
    put_greys(axes, view, plane, at)
    for label_map, style in ((view.reference, REFERENCE_LINE), (view.prediction, PREDICTION_LINE)):
        if label_map is not None:
            put_outlines(axes, display.cut_slice(label_map, plane, at), view.steps(plane), labels, style)
    put_letters(axes, plane)


def put_greys(axes: Axes, view: UprightView, plane: ScreenPlane, at: int) -> None:
    """Draw the image itself, in lengths, so that planes with unlike voxels keep their proportions."""
    picture = view.greys(plane, at)
    across, down = view.steps(plane)
    # Voxel centres at whole steps, so the outer edges lie half a step outside.
    extent = (-across / 2, (picture.shape[1] - 0.5) * across, (picture.shape[0] - 0.5) * down, -down / 2)
    # Voxels larger than a pixel of the screen are shown as they are; smaller ones are averaged, never dropped.
    large = axes.get_window_extent().width * SLICE_DPI / axes.figure.dpi >= picture.shape[1]
    smooth: Literal["nearest", "hanning"] = "nearest" if large else "hanning"
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation=smooth)


def put_outlines(
    axes: Axes, label_map: Array, steps: tuple[float, float], labels: Sequence[Label], style: Dashes, width: float = 1.3
) -> None:
    """Lines half-way between the last voxel inside and the first outside, which is where the voxels' edges lie."""
    limits = axes.axis()
    named = display.label_colours(labels)
    values, places = np.unique(label_map, return_inverse=True)
    boxes = ndimage.find_objects(places.reshape(label_map.shape).astype(np.int32) + 1)
    for value, (rows, columns) in zip(values.tolist(), boxes, strict=True):
        if value == 0:
            continue
        framed = np.pad(label_map[rows, columns] == value, 1)  # so that a structure that touches the border is closed
        across = (np.arange(framed.shape[1]) - 1 + columns.start) * steps[0]
        down = (np.arange(framed.shape[0]) - 1 + rows.start) * steps[1]
        colour = hex_colour(named.get(value, PALETTE[int(value) % len(PALETTE)]))  # instances have numbers, not names
        lines_made = axes.contour(across, down, framed, [0.5], colors=colour, linewidths=width, linestyles=[style])
        lines_made.set_path_effects([withStroke(linewidth=width + 1.1, foreground="#000000b0")])
    axes.axis(limits)


def put_letters(axes: Axes, plane: ScreenPlane) -> None:
    """R, L, A, P, S, I at the edges, where sides are known."""
    spots = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    )
    for letter, (x, y, across, down) in zip(plane.edges or (), spots, strict=False):
        _write(axes, x, y, letter, ha=across, va=down, weight="bold")


def put_scale_bar(axes: Axes, grid: Geometry, plane: ScreenPlane) -> None:
    """A bar of a round length, about a quarter of the panel."""
    width = grid.shape[plane.across] * grid.steps[plane.across]
    power = 10.0 ** np.floor(np.log10(width / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width / 4)
    axes.plot([0.03, 0.03 + length / width], [0.03, 0.03], transform=axes.transAxes, color=LETTERS, linewidth=1.6)
    _write(axes, 0.03, 0.045, f"{length:g} {display.length_unit(grid)}", ha="left", va="bottom")


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    halo = [withStroke(linewidth=2, foreground="#000000c0")]
    axes.text(x, y, text, transform=axes.transAxes, color=LETTERS, fontsize=8, path_effects=halo, **style)


def _key(
    view: UprightView,
    shown: Sequence[tuple[ScreenPlane, int]],
    labels: Sequence[Label],
    owners: tuple[str, str] = OWNERS,
) -> list[Line2D]:
    """The key: the colour of each label that is seen, and whose each line is."""
    named = display.label_colours(labels)
    lines = [
        Line2D([], [], color=hex_colour(named[label.value]), linewidth=3, label=drawing.short_name(label.name))
        for label in _visible_labels(view, shown, labels)
    ]
    if len(lines) > KEY_LABELS:
        more = f"and {len(lines) - KEY_LABELS} more"
        lines = [*lines[:KEY_LABELS], Line2D([], [], linestyle="none", label=more)]
    lines_of = ((view.reference, REFERENCE_LINE), (view.prediction, PREDICTION_LINE))
    for (label_map, style), name in zip(lines_of, owners, strict=True):
        if label_map is not None:
            lines.append(Line2D([], [], color=LETTERS, linewidth=1.3, linestyle=style, label=name))
    return lines


def _visible_labels(
    view: UprightView, shown: Sequence[tuple[ScreenPlane, int]], labels: Sequence[Label]
) -> list[Label]:
    """The labels of which these slices show something."""
    values = {
        int(v)
        for label_map in view.maps
        for plane, at in shown
        for v in np.unique(display.cut_slice(label_map, plane, at))
    }
    return [label for label in display.foreground_labels(labels) if label.value in values]


def _shared_colours(view: UprightView, shown: Sequence[tuple[ScreenPlane, int]], labels: Sequence[Label]) -> str:
    """A note that a colour stands for several labels, where these slices show them."""
    named = display.label_colours(labels)
    colours_of_labels = [named[label.value] for label in _visible_labels(view, shown, labels)]
    return (
        "Colours repeat: some stand for several labels." if len(set(colours_of_labels)) < len(colours_of_labels) else ""
    )


def _rows(lines: Sequence[Line2D], width: float) -> list[list[Line2D]]:
    """The key's entries in rows that are no wider than the picture, in inches."""
    rows: list[list[Line2D]] = []
    room = 0.0
    for line in lines:
        needs = 0.6 + 0.075 * len(str(line.get_label()))  # the line and the gap; a letter of 8 points
        if not rows or needs > room:
            rows.append([])
            room = width
        rows[-1].append(line)
        room -= needs
    return rows


def _put_row(canvas: Canvas, row: Sequence[Line2D], height: float) -> None:
    box = canvas.legend(
        handles=row,
        loc="center",
        bbox_to_anchor=(0.5, height),
        ncols=len(row),
        frameon=False,
        fontsize=8,
        labelcolor=LETTERS,
        borderpad=0,
    )
    for text in box.get_texts():
        text.set_parse_math(False)


def hex_colour(colour: tuple[int, int, int]) -> str:
    """The colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _alt(image: Image, shown: Sequence[ScreenPlane], labels: Sequence[Label], owners_shown: Sequence[str]) -> str:
    kind = "Image" if image.modality == "unknown" else f"{image.modality} image"
    what = f"{kind}, {' and '.join(plane.name for plane in shown)}"
    if not owners_shown:
        return what
    structures = ", ".join(label.name for label in display.foreground_labels(labels))
    return f"{what}, with outlines of {structures}: {' and '.join(owners_shown)}"


def object_outlines(
    image: Image,
    reference: ArrayLike | None,
    prediction: ArrayLike | None,
    title: str,
    *,
    labels: tuple[Sequence[Label], Sequence[Label]] = ((), ()),
    caption: str = "",
) -> Figure:
    """The objects of reference and prediction side by side, in the slice that shows most of the reference.

    reference, prediction: (*spatial) or (1, *spatial) numbers of objects on the image's grid; None where there is none
    labels: of the objects of both where they have classes, whose colours they bear
    Raises GeometryError where a map does not have the image's shape.
    """
    view = display.view_of(image, reference, prediction)
    plane = display.finest_plane(view.grid)
    at = view.fullest_slice(plane)
    both = zip(OWNERS, (view.reference, view.prediction), labels, strict=True)
    sides = [(name, one, own) for name, one, own in both if one is not None]
    classes = {label.kind: label.colour for own in labels for label in own if label.kind and label.colour}
    key = [
        Line2D([], [], color=hex_colour(colour), linewidth=3, label=drawing.short_name(kind))
        for kind, colour in sorted(classes.items())
    ]
    canvas, panels = plane_panels(view.grid, [plane] * max(1, len(sides)), key)
    for axes in panels:
        put_greys(axes, view, plane, at)
        put_letters(axes, plane)
    counts = []
    for axes, (name, numbered, own) in zip(panels, sides, strict=False):
        put_outlines(axes, display.cut_slice(numbered, plane, at), view.steps(plane), own, REFERENCE_LINE, width=THIN)
        counts.append(f"{name}, {errors.count_phrase(len(np.setdiff1d(numbered, 0)), 'object')}")
    put_scale_bar(panels[0], view.grid, plane)
    region = view.place(plane, at)
    sentences = [
        caption,
        f"From the left: {'; '.join(counts)}." if counts else "",
        f"Shown: {region}." if region else "",
    ]
    alt = f"Image with outlines of objects: {'; '.join(counts)}"
    return Figure(
        title, drawing.encode_png(canvas, SLICE_DPI), alt, " ".join(filter(None, sentences)), wide=len(panels) > 1
    )


# More panels than these nobody reads, and a screen has no more points across.
MOST_PANELS, MOST_POINTS = 12, 2000
# What a row of bars is called, its label values, and what they mean.
Marks = tuple[str, ArrayLike, Sequence[Label]]


def trace_plot(image: Image, marks: Sequence[Marks], title: str, *, caption: str = "") -> Figure:
    """(channels, samples) as lines; under each the marks as bars, one row below the other.

    marks: what each row of bars is called, its label values (samples,) or (1, samples), and what they mean
    """
    data = image.data[:MOST_PANELS]
    left = len(image.data) - len(data)
    sentences = [caption, f"Bars: {' above '.join(name for name, _, _ in marks)}." if marks else ""]
    sentences += [_trace_key(marks), f"{left} more channels are not shown." if left else ""]

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A panel a channel, with the labels as bars."""
        panels = np.atleast_1d(canvas.subplots(len(data), 1, sharex=True))
        for axes, name, values in zip(panels, image.channels, data, strict=False):
            drawing.plain_axes(axes, ink)
            put_trace(axes, image.geometry, values, drawing.cycle_colours(ink, 1)[0])
            axes.set_ylabel(drawing.short_name(name, 14))
            for row, (_, marked, labels) in enumerate(reversed(marks)):
                _bars(axes, image.geometry, np.ravel(marked), labels, row)
        panels[-1].set_xlabel(display.length_unit(image.geometry))

    what = f"Series of {len(image.data)} channels over {image.geometry.shape[0]} samples"
    words_of_marks = f", with {' and '.join(name for name, _, _ in marks)}" if marks else ""
    size = (7.2, 1.0 + 1.3 * len(data))
    return drawing.draw_chart(
        draw, title=title, caption=" ".join(filter(None, sentences)), alt=what + words_of_marks, size=size, is_file=True
    )


def put_trace(axes: Axes, grid: Geometry, values: Array, colour: str, width: float = 0.9) -> None:
    """(samples,) as a line; of more samples than a screen has points, the lowest and highest of each."""
    places = grid.to_world(np.arange(grid.shape[0])[:, None])[:, 0]
    every = -(-len(values) // MOST_POINTS)
    if every > 1:
        starts = np.arange(0, len(values), every)
        low, high = (bound.reduceat(values, starts) for bound in (np.fmin, np.fmax))
        places, values = np.repeat(places[starts], 2), np.stack([low, high], axis=1).ravel()
    axes.plot(places, values, color=colour, linewidth=width)


def _bars(axes: Axes, grid: Geometry, marked: Array, labels: Sequence[Label], row: int) -> None:
    """Along the bottom of a panel, in a row of those that lie one above the other; row: from the bottom"""
    named, step = display.label_colours(labels), grid.steps[0]
    begins = np.flatnonzero(np.diff(marked, prepend=marked[:1] - 1.0)).tolist()
    for start, stop in zip(begins, [*begins[1:], len(marked)], strict=True):
        colour = named.get(int(marked[start]))
        if colour is not None:
            first, last = sorted(grid.to_world([[start], [stop - 1]])[:, 0].tolist())
            shade = tuple(part / 255 for part in colour)
            axes.axvspan(first - step / 2, last + step / 2, 0.06 * row, 0.06 * row + 0.05, color=shade)


def _trace_key(marks: Sequence[Marks]) -> str:
    names = dict.fromkeys(label.name for _, _, labels in marks for label in display.foreground_labels(labels))
    return f"Marked: {', '.join(names)}." if names else ""
