from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from numpy.testing import assert_allclose
from PIL import Image as Picture

from hilum.report import Figure, display
from hilum.report.figures import box_figures, slice_figures
from hilum.report.figures.drawing import PNG_LIMIT
from hilum.report.figures.slice_figures import REFERENCE_LINE
from hilum.values import BoundingBoxes, Geometry, Image, Label

CELL = (Label(1, "cell", colour=(255, 0, 0)), Label(2, "clump"))


def boxes(*corners: tuple[float, ...], scores=None) -> BoundingBoxes:
    return BoundingBoxes(np.array(corners, dtype=float), ("cell",) * len(corners), scores)


def pixels(figure: Figure) -> np.ndarray:
    with Picture.open(io.BytesIO(figure.png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def drawn(image: Image, given: BoundingBoxes, number: int = 0) -> list[tuple[float, float, float, float]]:
    """(x, y, width, height) of the rectangles on one plane."""
    view = display.view_of(image)
    shown = display.screen_planes(view.grid)
    _, panels = slice_figures.plane_panels(view.grid, shown)
    turned = box_figures.upright_boxes(image, given)
    at = box_figures.middle_slice(view, shown[number], [turned])
    box_figures.put_boxes(panels[number], view, shown[number], at, turned, CELL, REFERENCE_LINE, scores=False)
    rectangles = [one for one in panels[number].patches if isinstance(one, Rectangle)]
    return [(*one.get_xy(), one.get_width(), one.get_height()) for one in rectangles]


def test_a_box_runs_along_the_outer_edges_of_its_voxels():
    image = Image(np.zeros((1, 30, 40)), Geometry.of_spacing((30, 40), (2.0, 0.5)))
    # Voxel centres are drawn at whole steps: row 10 is at 20 mm, its upper edge at 19.
    assert_allclose(drawn(image, boxes((10, 5, 20, 12))), [(4.5 * 0.5, 9.5 * 2.0, 7 * 0.5, 10 * 2.0)])


def test_on_the_picture_the_box_runs_around_the_bright_square_that_it_is_drawn_about():
    values = np.zeros((1, 40, 60))
    values[0, 10:25, 30:50] = 1
    image = Image(values, Geometry.of_pixels((40, 60)))
    shown = pixels(box_figures.box_overlay(image, boxes((10, 30, 25, 50)), None, CELL, "a square"))
    red = (shown[..., 0] - shown[..., 1] > 150)[: round(shown.shape[0] * 0.85)]  # the key stands below
    rows, columns = np.nonzero(red)
    white = (shown.min(axis=2) > 200)[: red.shape[0]]
    white[: rows.min()] = white[rows.max() :] = False
    bright_rows, bright_columns = np.nonzero(white[:, columns.min() : columns.max()])
    assert_allclose([rows.min(), rows.max()], [bright_rows.min(), bright_rows.max()], atol=6)
    assert_allclose(columns.max() - columns.min(), bright_columns.max() - bright_columns.min(), atol=12)


def test_boxes_of_a_volume_are_turned_as_the_image_is_and_cut_by_the_slice(volume):
    # i runs to the front, j to the feet, k to the right; the axial plane shows the left at the right, the back below.
    given = boxes((2, 4, 1, 5, 10, 3))
    [(x, y, width, height)] = drawn(volume, given)
    steps = display.view_of(volume).grid.steps
    assert_allclose((width, height), (2 * steps[0], 3 * steps[1]))
    # k 1..3 of 10 from the right of the patient, which is at the left of the screen, counted from the other end.
    assert_allclose(x, (10 - 3 - 0.5) * steps[0])
    assert_allclose(y, (12 - 5 - 0.5) * steps[1])
    caption = box_figures.box_overlay(volume, given, None, CELL, "a case").caption
    assert caption.startswith("Boxes: 1 of the reference. Shown: axial, slice 8 of 16;")


def test_what_lies_in_other_slices_is_not_drawn(volume):
    assert len(drawn(volume, boxes((2, 4, 1, 5, 10, 3), (2, 12, 1, 3, 14, 2)))) == 1


@pytest.mark.whole
def test_a_page_can_hold_many_boxes_and_curves_are_drawn():
    rng = np.random.default_rng(0)
    image = Image(
        rng.integers(0, 255, (3, 120, 160)).astype(np.uint8), Geometry.of_pixels((120, 160)), channels=("R", "G", "B")
    )
    low = rng.uniform(0, 100, (40, 2))
    many = BoundingBoxes(np.concatenate([low, low + 12], axis=1), ("clump",) * 40, rng.random(40))
    figure = box_figures.box_overlay(image, many, many, CELL, "many")
    assert len(figure.png) <= PNG_LIMIT
    assert "40 of the reference, 40 of the prediction" in figure.caption
    curve = (np.array([0.5, 1.0]), np.array([1.0, 0.8]))
    for made in (
        box_figures.froc({"cell": curve, "none": (np.zeros(0), np.zeros(0))}, "froc"),
        box_figures.box_precision_recall({"cell": curve, "none": (np.zeros(0), np.zeros(0))}, "pr"),
    ):
        assert made.svg
        assert "cell" in made.alt
        assert "none" not in made.alt
    assert made.caption.endswith("there was nothing to find: none.")


def test_an_image_without_any_box_is_shown_all_the_same():
    image = Image(np.zeros((1, 30, 40)), Geometry.of_pixels((30, 40)))
    figure = box_figures.box_overlay(image, BoundingBoxes.none(2), BoundingBoxes.none(2, scored=True), CELL, "empty")
    assert "0 of the reference, 0 of the prediction" in figure.caption


@pytest.mark.parametrize("score", [0.25])
def test_the_score_of_a_prediction_is_written_beside_it_in_its_colour(score):
    image = Image(np.zeros((1, 60, 80)), Geometry.of_pixels((60, 80)))
    with_score = box_figures.box_overlay(image, None, boxes((20, 20, 40, 50), scores=np.array([score])), CELL, "a")
    other = box_figures.box_overlay(image, None, boxes((20, 20, 40, 50), scores=np.array([0.75])), CELL, "a")
    assert (pixels(with_score) != pixels(other)).any()


def test_scores_lie_within_the_picture_and_are_as_large_as_its_letters():
    image = Image(np.zeros((1, 60, 80)), Geometry.of_pixels((60, 80)))
    view, [plane] = display.view_of(image), display.screen_planes(display.view_of(image).grid)
    canvas, [axes] = slice_figures.plane_panels(view.grid, [plane])
    slice_figures.put_greys(axes, view, plane, 0)
    corners = boxes((0, 0, 20, 20), (30, 72, 40, 80), (-5, -5, 9, 9), scores=np.array([0.9, 0.8, 0.7]))
    box_figures.put_boxes(axes, view, plane, 0, corners, CELL, REFERENCE_LINE, scores=True)
    inside = axes.get_window_extent()
    for text in axes.texts:
        place = text.get_window_extent(FigureCanvasAgg(canvas).get_renderer())
        assert inside.x0 - 1 <= place.x0 and place.x1 <= inside.x1 + 1, text
        assert inside.y0 - 1 <= place.y0 and place.y1 <= inside.y1 + 1, text
        assert text.get_fontsize() >= 8
    assert [text.get_text() for text in axes.texts] == ["0.90", "0.80", "0.70"]
