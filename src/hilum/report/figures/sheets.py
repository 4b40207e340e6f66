"""Many images on one sheet: one slice of each, with its reference, or two side by side."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from PIL import Image as Picture

from hilum.errors import UsageError
from hilum.report import display
from hilum.report.figures import box_figures, drawing, slice_figures
from hilum.report.figures.drawing import Canvas
from hilum.report.figures.slice_figures import GROUND, LETTERS, MARK, REFERENCE_LINE, SLICE_DPI
from hilum.report.page_blocks import Figure
from hilum.values import Array, BoundingBoxes, Image, Label

# A line on a picture of an inch is thinner than on one that fills a page.
THIN = 0.8


def contact_sheet(
    images: Mapping[str, Image],
    title: str,
    *,
    caption: str = "",
    columns: int = 6,
    references: Mapping[str, Image | BoundingBoxes | None] | None = None,
    labels: Sequence[Label] = (),
    marked: Collection[str] = (),
    classes: Mapping[str, str] | None = None,
    through: Array | None = None,
) -> Figure:
    """One slice of each image, all at one size, with name and class: that of the most reference, else the middle.

    references: {name: label map or boxes on the image's grid}, drawn as outlines; like images, read one by one
    marked:     names that stand out
    classes:    {name: what the case is}, in a second line under it
    through:    (*spatial) mark on the grid of all images; the slice with most of it is shown, in place of the middle
    Raises UsageError where there is no image.
    """
    if not images:
        raise UsageError("no image to show", title, "Give at least one")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    canvas = Canvas(figsize=(1.5 * columns, 1.7 * rows), facecolor=GROUND)
    for index, (name, image) in enumerate(images.items()):
        row, column = divmod(index, columns)
        left, bottom = column / columns, 1 - (row + 1) / rows
        # 0.2 of the 1.7 inches of a cell are for the name.
        axes = canvas.add_axes((left + 0.01 / columns, bottom + 0.14 / rows, 0.98 / columns, 0.85 / rows))
        axes.set_axis_off()
        _put_small(axes, image, (references or {}).get(name), labels, through)
        colour = MARK if name in marked else LETTERS
        middle = left + 0.5 / columns
        for line, text in enumerate(filter(None, ((classes or {}).get(name, ""), name))):
            high = bottom + (0.01 + 0.065 * line + (0.03 if not (classes or {}).get(name) else 0)) / rows
            canvas.text(middle, high, drawing.short_name(text), size=6.5, color=colour, ha="center", parse_math=False)
    named = [f"{name} ({(classes or {})[name]})" if (classes or {}).get(name) else name for name in images]
    alt = f"Contact sheet of {len(images)} images: {', '.join(named[:12])}"
    return Figure(title, drawing.encode_png(canvas, SLICE_DPI), alt, caption, wide=True)


def pair_sheet(pairs: Sequence[tuple[str, Image, str, Image, str]], title: str, *, caption: str = "") -> Figure:
    """Two images side by side, two such pairs a row. pairs: name and image of both, and a line of text.

    Raises UsageError where there is no pair.
    """
    if not pairs:
        raise UsageError("no pair to show", title, "Give at least one")
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    width, height = 3.9, 2.3  # inches of a pair: two pictures, their names and a line under them
    canvas = Canvas(figsize=(width * columns, height * rows), facecolor=GROUND)
    for index, (first, image, second, other, words) in enumerate(pairs):
        row, column = divmod(index, columns)
        left, bottom = column / columns, 1 - (row + 1) / rows
        for side, (name, shown) in enumerate(((first, image), (second, other))):
            start = left + (0.02 + 0.48 * side) / columns
            axes = canvas.add_axes((start, bottom + 0.2 / rows, 0.46 / columns, 0.78 / rows))
            axes.set_axis_off()
            _put_small(axes, shown)
            middle = start + 0.23 / columns
            written = drawing.short_name(name, 28)
            canvas.text(middle, bottom + 0.12 / rows, written, size=6.5, color=LETTERS, ha="center", parse_math=False)
        centre = left + 0.5 / columns
        canvas.text(centre, bottom + 0.03 / rows, words, size=6.5, color=MARK, ha="center", parse_math=False)
    alt = (
        f"{len(pairs)} pairs: {'; '.join(f'{first} and {second}, {words}' for first, _, second, _, words in pairs[:6])}"
    )
    return Figure(title, drawing.encode_png(canvas, SLICE_DPI), alt, caption, wide=True)


def stack_pictures(figures: Sequence[Figure]) -> bytes:
    """PNG of pictures, the first at the top; a single one as it is."""
    if len(figures) == 1:
        return figures[0].png
    pictures = [Picture.open(io.BytesIO(one.png)).convert("RGB") for one in figures]
    sheet = Picture.new("RGB", (max(one.width for one in pictures), sum(one.height for one in pictures)), GROUND)
    top, out = 0, io.BytesIO()
    for picture in pictures:
        sheet.paste(picture, ((sheet.width - picture.width) // 2, top))
        top += picture.height
    sheet.save(out, format="PNG")
    return out.getvalue()


def _put_small(
    axes: Axes,
    image: Image,
    reference: Image | BoundingBoxes | None = None,
    labels: Sequence[Label] = (),
    through: Array | None = None,
) -> None:
    """The slice with the most of the reference, else the middle one, and its outlines; a series' first channel."""
    if image.geometry.is_series:
        slice_figures.put_trace(axes, image.geometry, image.data[0], LETTERS, width=0.5)
        return
    if isinstance(reference, BoundingBoxes):
        view, reference_boxes = display.view_of(image), box_figures.upright_boxes(image, reference)
        plane = display.finest_plane(view.grid)
        at = box_figures.middle_slice(view, plane, [reference_boxes])
        slice_figures.put_greys(axes, view, plane, at)
        box_figures.put_boxes(axes, view, plane, at, reference_boxes, labels, REFERENCE_LINE, scores=False, width=THIN)
        return
    view = display.view_of(image, None if reference is None else reference.data)
    plane = display.finest_plane(view.grid)
    at = (view if through is None else display.view_of(image, through.astype(np.uint8))).fullest_slice(plane)
    slice_figures.put_greys(axes, view, plane, at)
    if view.reference is not None:
        slice_figures.put_outlines(
            axes, display.cut_slice(view.reference, plane, at), view.steps(plane), labels, REFERENCE_LINE, width=THIN
        )
