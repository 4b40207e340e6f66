from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.testing import assert_allclose
from PIL import Image as Picture
from scipy import ndimage

import real_data
from hilum.errors import GeometryError, UsageError
from hilum.files import file_formats
from hilum.report import Figure, display
from hilum.report.display import PALETTE
from hilum.report.figures import drawing, sheets, slice_figures
from hilum.report.figures.drawing import OWN_COLOURS, PNG_LIMIT
from hilum.report.figures.slice_figures import REFERENCE_LINE
from hilum.values import Geometry, Image, Label

LESION = (Label(0, "background"), Label(1, "lesion", colour=(255, 0, 0)))


def pixels(figure: Figure) -> np.ndarray:
    with Picture.open(io.BytesIO(figure.png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def test_the_outline_lies_half_way_between_the_last_voxel_inside_and_the_first_outside() -> None:
    view = display.view_of(Image(np.zeros((1, 30, 40)), Geometry.of_spacing((30, 40), (2.0, 0.5))))
    (plane,) = display.screen_planes(view.grid)
    _, (axes,) = slice_figures.plane_panels(view.grid, [plane])
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[10:20, 5:12] = 1
    slice_figures.put_outlines(axes, mask, (0.5, 2.0), LESION, REFERENCE_LINE)
    low, high = _extent_of_lines(axes)
    assert_allclose(low, [4.5 * 0.5, 9.5 * 2.0])
    assert_allclose(high, [11.5 * 0.5, 19.5 * 2.0])


def test_a_structure_at_the_border_is_closed() -> None:
    view = display.view_of(Image(np.zeros((1, 8, 8)), Geometry.of_pixels((8, 8))))
    _, (axes,) = slice_figures.plane_panels(view.grid, display.screen_planes(view.grid))
    slice_figures.put_outlines(axes, np.ones((8, 8), dtype=np.uint8), (1.0, 1.0), LESION, REFERENCE_LINE)
    low, high = _extent_of_lines(axes)
    assert_allclose((low, high), [(-0.5, -0.5), (7.5, 7.5)])


def test_on_the_picture_the_outline_runs_around_the_bright_square_that_it_outlines() -> None:
    values = np.zeros((1, 40, 60))
    values[0, 10:25, 30:50] = 1
    shown = pixels(
        slice_figures.contours(Image(values, Geometry.of_pixels((40, 60))), values, None, LESION, "a square")
    )
    red = shown[..., 0] - shown[..., 1] > 150
    picture = red[: round(red.shape[0] * 0.88)]  # the key stands below
    square = (shown.min(axis=2) > 200)[: picture.shape[0]]
    rows, columns = np.nonzero(picture)
    pieces, _ = ndimage.label(square)
    largest = pieces == np.bincount(pieces[pieces > 0]).argmax()
    inner_rows, inner_columns = np.nonzero(largest)
    assert_allclose([rows.min(), rows.max()], [inner_rows.min(), inner_rows.max()], atol=6)
    assert_allclose([columns.min(), columns.max()], [inner_columns.min(), inner_columns.max()], atol=6)
    assert not picture[
        inner_rows.min() + 8 : inner_rows.max() - 8, inner_columns.min() + 8 : inner_columns.max() - 8
    ].any()


def test_each_plane_goes_through_the_slice_with_most_reference(volume: Image) -> None:
    reference = np.zeros(volume.geometry.shape, dtype=np.uint8)
    reference[2:4, 4:6, 1:3] = 1
    reference[5, 7, 1:8] = 1
    reference[5, 3:12, 4] = 1
    view = display.view_of(volume, reference)
    # i runs to the front, j to the feet, k to the right; the screen runs to the left, the back and the feet.
    chosen = {plane.name: view.fullest_slice(plane) for plane in display.screen_planes(view.grid)}
    assert chosen == {"axial": 7, "coronal": 11 - 5, "sagittal": 9 - 4}
    caption = slice_figures.contours(volume, reference, None, LESION, "a case").caption
    assert caption == "Shown: axial, slice 8 of 16; coronal, slice 6 of 12; sagittal, slice 5 of 10."


def test_without_reference_the_prediction_chooses_and_without_both_the_middle(volume: Image) -> None:
    contoured = np.zeros(volume.geometry.shape, dtype=np.uint8)
    contoured[2, 3, 1] = 1
    assert "axial, slice 4 of 16" in slice_figures.contours(volume, None, contoured, LESION, "a case").caption
    empty = slice_figures.contours(volume, contoured * 0, contoured * 0, LESION, "a case").caption
    assert "axial, slice 9 of 16" in empty


def test_the_panels_have_the_proportions_of_the_patient(volume: Image) -> None:
    view = display.view_of(volume)
    shown = display.screen_planes(view.grid)
    canvas, panels = slice_figures.plane_panels(view.grid, shown)
    inches = [panel.get_position().width * canvas.get_figwidth() for panel in panels]
    # 10 voxels of 2 mm to the left, 12 of 1 mm to the back.
    assert_allclose(np.array(inches) / inches[0], [1, 1, 12 / 20])


def test_the_line_of_the_reference_is_solid_and_that_of_the_prediction_has_gaps() -> None:
    values = np.zeros((1, 40, 60))
    values[0, 10:30, 20:40] = 1
    image = Image(values * 0, Geometry.of_pixels((40, 60)))
    reference = slice_figures.contours(image, values, None, LESION, "a square")
    prediction = slice_figures.contours(image, None, values, LESION, "a square")
    solid, dashed = (pixels(figure)[:450, :, 0] > 150 for figure in (reference, prediction))  # above the key
    assert ndimage.label(solid[:, 200:600], np.ones((3, 3)))[1] == 1
    assert ndimage.label(dashed[:, 200:600], np.ones((3, 3)))[1] > 20
    assert "reference" in reference.alt and "prediction" in prediction.alt


def test_a_label_map_may_have_the_channel_axis_that_images_have(volume: Image, box: Image) -> None:
    one, other = (
        slice_figures.contours(volume, given, None, box.labels, "a case") for given in (box.data, box.data[0])
    )
    assert one.png == other.png


def test_a_label_map_of_another_shape_is_refused(volume: Image) -> None:
    with pytest.raises(GeometryError, match="reference"):
        slice_figures.contours(volume, np.zeros((2, 2, 2)), None, LESION, "a case")


def test_colours_stay_colours() -> None:
    values = np.zeros((3, 20, 20), dtype=np.uint8)
    values[1] = 200
    shown = pixels(
        slice_figures.contours(
            Image(values, Geometry.of_pixels((20, 20)), channels=("R", "G", "B")), None, None, (), "green"
        )
    )
    assert_allclose(shown[100, shown.shape[1] // 2], (0, 200, 0), atol=4)


def test_values_that_are_no_numbers_are_black_and_do_no_harm() -> None:
    values = np.random.default_rng(0).random((1, 20, 20))
    values[0, :5] = np.nan
    shown = pixels(slice_figures.contours(Image(values, Geometry.of_pixels((20, 20))), None, None, (), "a hole"))
    assert shown[10, shown.shape[1] // 2].max() == 0
    assert shown.max() > 200


@pytest.mark.whole
def test_noise_of_any_size_makes_a_small_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 1500, 1800), dtype=np.uint8)
    figure = slice_figures.contours(Image(noise, Geometry.of_pixels((1500, 1800))), None, None, (), "noise")
    assert len(figure.png) <= PNG_LIMIT
    assert min(figure.size) > 150


def test_names_are_never_read_as_formulas(volume: Image, box: Image) -> None:
    labels = (Label(1, r"$\frac{$ <b>"), Label(2, "x_1^"))
    assert slice_figures.contours(volume, box.data, None, labels, r"$\bad$").size[0] > 300
    assert sheets.contact_sheet({r"$\frac{$": volume}, "sheet").png


def test_a_contact_sheet_shows_each_image_in_a_cell_of_its_own() -> None:
    images = {
        f"case {n}": Image(np.full((1, 9, 9), n % 2) + np.eye(9)[None], Geometry.of_pixels((9, 9))) for n in range(8)
    }
    sheet = sheets.contact_sheet(images, "all", columns=4)
    width, height = sheet.size
    assert width / height == pytest.approx(4 * 1.5 / (2 * 1.7), rel=0.02)
    shown = pixels(sheet).mean(axis=2)
    for row in range(2):
        for column in range(4):
            cell = shown[row * height // 2 : (row + 1) * height // 2, column * width // 4 : (column + 1) * width // 4]
            assert cell.max() > 200
    assert "case 7" in sheet.alt


def test_images_in_the_greys_of_the_first_show_a_change_of_the_whole_brightness(volume: Image) -> None:
    brighter = volume.with_pixels(volume.data + 0.3 * np.ptp(volume.data))
    own, alike = (
        pixels(sheets.contact_sheet({"before": volume, "after": after}, "sheet")).astype(int)
        for after in (brighter, display.match_greys(brighter, volume))
    )
    halves = np.s_[: own.shape[0] // 2, : own.shape[1] // 2], np.s_[: own.shape[0] // 2, own.shape[1] // 2 :]
    assert abs(own[halves[0]].mean() - own[halves[1]].mean()) < 2
    assert alike[halves[1]].mean() > alike[halves[0]].mean() + 5


def test_an_empty_contact_sheet_is_refused() -> None:
    with pytest.raises(UsageError, match="no image"):
        sheets.contact_sheet({}, "none")


def test_a_real_volume_makes_three_legible_planes(data: Path) -> None:
    image, mask = (
        file_formats.read(data / f"hippocampus/{kind}/hippocampus_001.nii.gz") for kind in ("images", "labels")
    )
    labels = (Label(0, "background"), Label(1, "anterior"), Label(2, "posterior"))
    figure = slice_figures.contours(image, mask.data, np.roll(mask.data, 1, 1), labels, "hippocampus_001")
    best = int(np.count_nonzero(mask.data[0], axis=(0, 1)).argmax()) + 1
    assert f"axial, slice {best} of {mask.shape[3]}" in figure.caption
    assert len(figure.png) < PNG_LIMIT and figure.size[0] > 1000


def _extent_of_lines(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest (across, down) of all outlines, in the unit of the grid."""
    points = np.concatenate([path.vertices for made in axes.collections for path in made.get_paths()])
    return points.min(axis=0), points.max(axis=0)


def test_many_labels_make_a_key_that_stays_inside_the_picture() -> None:
    values = np.arange(400).reshape(1, 20, 20) // 10
    labels = tuple(Label(n, f"structure number {n}") for n in range(40))
    view = display.view_of(Image(values, Geometry.of_pixels((20, 20))), values)
    (plane,) = display.screen_planes(view.grid)
    key = slice_figures._key(view, [(plane, 0)], labels)
    assert [str(line.get_label()) for line in key][-2:] == ["and 15 more", "reference"]
    rows = slice_figures._rows(key, 5.0)
    assert [line for row in rows for line in row] == key
    canvas, _ = slice_figures.plane_panels(view.grid, [plane], key)
    canvas.draw_without_rendering()
    for legend in canvas.legends:
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= canvas.bbox.x1 and box.y0 >= 0


def test_structures_without_names_are_outlined_too() -> None:
    values = np.zeros((1, 20, 20), dtype=np.int32)
    values[0, 2:8, 2:8], values[0, 10:18, 10:18] = 301, 7
    image = Image(values * 0, Geometry.of_pixels((20, 20)))
    shown = pixels(slice_figures.contours(image, values, None, (), "cells"))
    coloured = np.ptp(shown, axis=2) > 60
    assert ndimage.label(ndimage.binary_dilation(coloured, iterations=3))[1] == 2


@pytest.mark.whole
@pytest.mark.parametrize(("folder", "orders"), real_data.facts(shipped=3, corpus=8))
def test_the_same_head_in_several_orders_of_axes_makes_the_same_picture(folder: Path, orders: int) -> None:
    images = [file_formats.read(file) for file in sorted((folder / "nifti").glob("niivue_space_*.nii.gz"))]
    assert len({image.geometry.orientation for image in images}) >= orders
    assert len({slice_figures.contours(image, None, None, (), "a head").png for image in images}) == 1


def test_a_thin_line_keeps_its_colour_on_a_photograph_of_many_colours() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    photograph[150, :40] = PALETTE[2]
    with Picture.open(io.BytesIO(drawing._pack_palette(Picture.fromarray(photograph), OWN_COLOURS[1]))) as packed:
        assert (np.asarray(packed.convert("RGB"))[150, :40] == PALETTE[2]).all()


def test_a_photograph_whose_colours_are_near_to_those_of_outlines_keeps_them() -> None:
    photograph = np.empty((60, 60, 3), dtype=np.uint8)
    photograph[:] = np.array(PALETTE[2]) // 2 + 40
    photograph[20:40] = np.clip(np.array(PALETTE[2]) - 15, 0, 255)
    with Picture.open(io.BytesIO(drawing._pack_palette(Picture.fromarray(photograph), OWN_COLOURS[1]))) as packed:
        assert np.abs(np.asarray(packed.convert("RGB")).astype(int) - photograph).max() <= 4


def test_a_contact_sheet_shows_the_slice_that_it_is_told_to_go_through() -> None:
    volume, mark = np.zeros((1, 12, 12, 9), dtype=np.float32), np.zeros((12, 12, 9), dtype=bool)
    volume[..., 7], mark[3:6, 3:6, 7] = 1.0, True
    image = Image(volume, Geometry((12, 12, 9), np.eye(4)))
    middle, told = (pixels(sheets.contact_sheet({"one": image}, "a sheet", through=at)) for at in (None, mark))
    assert told[:100].mean() > middle[:100].mean() + 100
