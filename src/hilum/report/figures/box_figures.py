"""Figures of boxes: on the image, as precision-recall and as free-response curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hilum import errors
from hilum.report import display
from hilum.report.display import Ink, ScreenPlane, UprightView
from hilum.report.figures import drawing, slice_figures
from hilum.report.figures.drawing import Canvas
from hilum.report.figures.slice_figures import LETTERS, PREDICTION_LINE, REFERENCE_LINE, SLICE_DPI
from hilum.report.page_blocks import Figure
from hilum.values import BoundingBoxes, Floats, Image, Label

# Boxes of an image up to this number are drawn with their scores: more would hide the image. Points, of a picture of
# which a page shows several in a row.
MOST_SCORES, SCORE_SIZE = 20, 10
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def box_overlay(
    image: Image,
    reference: BoundingBoxes | None,
    prediction: BoundingBoxes | None,
    labels: Sequence[Label],
    title: str,
    *,
    caption: str = "",
) -> Figure:
    """An image with the boxes of reference (solid) and prediction (dashed, with its score), one colour a class.

    Boxes are on the image's own grid. A volume is shown in three planes through the middle of the largest reference,
    else of the surest prediction, with all boxes that reach into them.
    """
    view = display.view_of(image)
    layers = [
        (upright_boxes(image, one), style, own)
        for one, style, own in ((reference, REFERENCE_LINE, True), (prediction, PREDICTION_LINE, False))
        if one is not None
    ]
    shown = [
        (plane, middle_slice(view, plane, [one for one, _, _ in layers])) for plane in display.screen_planes(view.grid)
    ]
    canvas, panels = slice_figures.plane_panels(view.grid, [plane for plane, _ in shown], _key(layers, labels))
    for axes, (plane, at) in zip(panels, shown, strict=True):
        slice_figures.put_greys(axes, view, plane, at)
        for boxes_of_layer, style, is_own in layers:
            put_boxes(axes, view, plane, at, boxes_of_layer, labels, style, scores=not is_own)
        slice_figures.put_letters(axes, plane)
    slice_figures.put_scale_bar(panels[0], view.grid, shown[0][0])
    counts = [f"{len(one)} of {'the reference' if own else 'the prediction'}" for one, _, own in layers]
    places = "; ".join(filter(None, (view.place(plane, at) for plane, at in shown)))
    text = " ".join(part for part in (caption, f"Boxes: {', '.join(counts)}." if counts else "") if part)
    text = f"{text} Shown: {places}." if places else text
    return Figure(
        title,
        drawing.encode_png(canvas, SLICE_DPI),
        f"Image with boxes, {', '.join(counts)}",
        text,
        wide=len(shown) > 1,
    )


def box_precision_recall(curves: Mapping[str, tuple[Floats, Floats]], title: str, *, caption: str = "") -> Figure:
    """Precision against recall as boxes of ever lower score are called.

    curves: {class: (recall, precision)} from the highest score down; a class without any is named in the caption
    """
    with_points = {name: points for name, points in curves.items() if len(points[0])}

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A stepped curve a class."""
        axes = canvas.subplots()
        for colour, (name, (recall, precision)) in zip(
            drawing.cycle_colours(ink, len(with_points)), with_points.items(), strict=True
        ):
            across, up = np.append(0.0, recall), np.append(precision[:1], precision)
            axes.step(across, up, where="pre", color=colour, linewidth=1.8, label=drawing.short_name(name))
        axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.set_aspect("equal")
        drawing.plain_axes(axes, ink)
        if with_points:
            drawing.draw_legend(axes, ink)

    summary = "; ".join(f"{name}: recall up to {recall[-1]:.3f}" for name, (recall, _) in with_points.items())
    text = caption or "Each precision is the best of its recall and beyond, as average precision takes it."
    text = f"{text} {drawing.caption_unnamed(len(with_points))}".strip()
    if without := [name for name in curves if name not in with_points]:
        text += f" No curve, because nothing was found or there was nothing to find: {errors.list_phrase(without)}."
    return drawing.draw_chart(
        draw, title=title, caption=text, alt=f"Precision-recall curves of boxes. {summary}", size=(4.4, 4.0)
    )


def froc(curves: Mapping[str, tuple[Floats, Floats]], title: str, *, caption: str = "") -> Figure:
    """Sensitivity against false boxes an image, whose axis doubles from step to step.

    curves: {class: (false boxes an image, sensitivity)} from the highest score down
    The marks are where the mean of LUNA16 is taken, doi:10.1016/j.media.2017.06.015
    """
    with_points = {name: points for name, points in curves.items() if len(points[0])}

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A stepped curve a class, with the marks of its mean."""
        axes = canvas.subplots()
        for colour, (name, (false, hits)) in zip(
            drawing.cycle_colours(ink, len(with_points)), with_points.items(), strict=True
        ):
            at = np.array([hits[false <= rate][-1] if (false <= rate).any() else 0.0 for rate in RATES])
            across, up = np.append(np.maximum(false, RATES[0] / 2), 2 * RATES[-1]), np.append(hits, hits[-1])
            axes.step(
                across,
                up,
                where="post",
                color=colour,
                linewidth=1.8,
                label=f"{drawing.short_name(name)}  {at.mean():.3f}",
            )
            axes.plot(RATES, at, "o", markersize=4, color=colour)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="false boxes an image", ylabel="sensitivity", xlim=(RATES[0] / 1.4, RATES[-1] * 1.4))
        axes.set_ylim(-0.01, 1.01)
        axes.xaxis.set_major_locator(FixedLocator(RATES))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"1/{1 / rate:g}" if rate < 1 else f"{rate:g}"))
        drawing.plain_axes(axes, ink)
        if with_points:
            drawing.draw_legend(axes, ink, "lower right")

    summary = "; ".join(f"{name}: up to {found[-1]:.3f}" for name, (_, found) in with_points.items())
    text = (
        caption or "After each name: the mean of the seven marks. A box is a hit if its centre lies in the reference."
    )
    text = f"{text} {drawing.caption_unnamed(len(with_points))}".strip()
    return drawing.draw_chart(draw, title=title, caption=text, alt=f"Free-response curves. {summary}", size=(4.8, 3.6))


def upright_boxes(image: Image, bounding_boxes: BoundingBoxes) -> BoundingBoxes:
    """Boxes on the grid as a screen shows it."""
    order, flips = display.screen_order(image.geometry)
    sizes = np.array(image.geometry.shape, dtype=float)[list(order)]
    low, high = bounding_boxes.low[:, list(order)], bounding_boxes.high[:, list(order)]
    edges = np.where(flips, sizes - high, low), np.where(flips, sizes - low, high)
    return BoundingBoxes(
        np.concatenate(edges, axis=1), bounding_boxes.names, bounding_boxes.scores, bounding_boxes.ignored
    )


def middle_slice(view: UprightView, plane: ScreenPlane, all_boxes: Sequence[BoundingBoxes]) -> int:
    """Through the middle of the largest reference, else of the surest box, else of the volume."""
    if plane.through is None:
        return 0
    for some_boxes in all_boxes:
        if len(some_boxes):
            best = int((some_boxes.lengths.prod(axis=1) if some_boxes.scores is None else some_boxes.scores).argmax())
            return int(np.clip(some_boxes.centres[best, plane.through], 0, view.grid.shape[plane.through] - 1))
    return view.grid.shape[plane.through] // 2


def put_boxes(
    axes: Axes,
    view: UprightView,
    plane: ScreenPlane,
    at: int,
    bounding_boxes: BoundingBoxes,
    labels: Sequence[Label],
    style: tuple[float, Sequence[float]],
    *,
    scores: bool,
    width: float = 1.3,
) -> None:
    """Draw the boxes that reach into the slice; ignored ones are drawn thin."""
    across, down = view.steps(plane)
    if plane.through is not None:
        bounding_boxes = bounding_boxes.at(
            (bounding_boxes.low[:, plane.through] < at + 1) & (bounding_boxes.high[:, plane.through] > at)
        )
    named = {label.name: display.label_colours(labels)[label.value] for label in display.foreground_labels(labels)}
    limits = axes.axis()
    for number, (low, high) in enumerate(zip(bounding_boxes.low, bounding_boxes.high, strict=True)):
        # Voxel centres are drawn at whole steps: edges lie half a step before.
        x, y = (low[plane.across] - 0.5) * across, (low[plane.down] - 0.5) * down
        size = ((high - low)[plane.across] * across, (high - low)[plane.down] * down)
        colour = slice_figures.hex_colour(named.get(bounding_boxes.names[number], (232, 237, 242)))
        line = min(0.7, width) if bounding_boxes.ignored[number] else width
        patch = Rectangle((x, y), *size, fill=False, edgecolor=colour, linewidth=line, linestyle=style)
        patch.set_path_effects([withStroke(linewidth=line + 1.1, foreground="#000000b0")])
        axes.add_patch(patch)
        if scores and bounding_boxes.scores is not None and len(bounding_boxes) <= MOST_SCORES:
            _put_score(axes, limits, (x, y), bounding_boxes.scores[number], colour)
    axes.axis(limits)


def _put_score(axes: Axes, limits: tuple[float, ...], corner: tuple[float, float], score: float, colour: str) -> None:
    """Write a score on its own ground above the corner of its box, or inside where the picture ends."""
    left, right, bottom, top = limits
    inches = axes.get_window_extent().height / axes.figure.dpi
    letter = SCORE_SIZE / 72 / inches * abs(bottom - top)
    x, y = min(max(corner[0], left), right - 3 * letter), max(corner[1], top)
    ground = {"facecolor": "#000000b0", "edgecolor": "none", "pad": 0.8}
    va = "bottom" if y - 1.5 * letter >= top else "top"
    axes.text(x, y, f"{score:.2f}", color=colour, fontsize=SCORE_SIZE, va=va, bbox=ground, clip_on=True)


def _key(
    layers: Sequence[tuple[BoundingBoxes, tuple[float, Sequence[float]], bool]], labels: Sequence[Label]
) -> list[Line2D]:
    """The key: the colour of each class that is seen, and whose each line is."""
    names = {name for one, _, _ in layers for name in one.names}
    named = display.label_colours(labels)
    lines = [
        Line2D(
            [],
            [],
            color=slice_figures.hex_colour(named[label.value]),
            linewidth=3,
            label=drawing.short_name(label.name),
        )
        for label in display.foreground_labels(labels)
        if label.name in names
    ]
    for _, style, is_own in layers:
        whose = "reference" if is_own else "prediction"
        lines.append(Line2D([], [], color=LETTERS, linewidth=1.3, linestyle=style, label=whose))
    return lines
