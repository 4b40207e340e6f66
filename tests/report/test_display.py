from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist

from hilum.report import display
from hilum.report.display import DARK, LIGHT, PALETTE
from hilum.values import Geometry, Image, Label


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_upright_axes_run_to_the_patients_left_back_and_feet(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * (0.7, 1.1, 3.0)
    geometry = Geometry((3, 4, 5), affine)
    on_screen = geometry.permute(*display.screen_order(geometry))
    assert on_screen.orientation == "LPI"
    voxels = np.arange(60).reshape(1, 3, 4, 5)
    shown = display.turn_upright(voxels, *display.screen_order(geometry))
    # The same voxel is at the same place in the patient.
    at = (1, 2, 0)
    source = np.rint(geometry.to_index(on_screen.to_world(at))).astype(int)
    assert shown[(0, *at)] == voxels[(0, *source)]
    assert_allclose(geometry.to_world(source), on_screen.to_world(at), atol=1e-9)


def test_the_patients_right_is_at_the_left_of_the_screen_and_the_nose_at_the_top() -> None:
    axial, coronal, sagittal = display.screen_planes(Geometry((3, 4, 5), np.eye(4)))
    assert (axial.edges, coronal.edges, sagittal.edges) == (
        ("R", "L", "A", "P"),
        ("R", "L", "S", "I"),
        ("A", "P", "S", "I"),
    )


def test_where_sides_are_not_known_nothing_is_turned_and_no_side_is_named() -> None:
    geometry = Geometry.of_spacing((3, 4, 5), (1, 1, 1))
    assert display.screen_order(geometry) == ((0, 1, 2), (False, False, False))
    assert all(plane.edges is None for plane in display.screen_planes(geometry))


def test_a_single_slice_is_shown_only_from_where_it_is_more_than_a_line() -> None:
    assert [plane.name for plane in display.screen_planes(Geometry((30, 40, 1), np.eye(4)))] == ["axial"]


def test_the_main_plane_is_the_acquired_one_and_the_axial_where_all_are_alike() -> None:
    assert display.finest_plane(Geometry((30, 40, 20), np.diag([1, 5.0, 1, 1]))).name == "coronal"
    assert display.finest_plane(Geometry((30, 40, 20), np.diag([1, 1.05, 1, 1]))).name == "axial"
    assert display.finest_plane(Geometry.of_pixels((5, 7))).name == "picture"


def test_a_picture_lies_as_it_is_stored_rows_down_and_columns_across() -> None:
    (plane,) = display.screen_planes(Geometry.of_pixels((5, 7)))
    assert (plane.across, plane.down, plane.through) == (1, 0, None)


def test_a_hot_pixel_does_not_decide_the_greys() -> None:
    values = np.linspace(0, 100, 10_000)
    values[0] = 1e9
    low, high = display.grey_window(_image(values), values)
    assert 0 <= low < 2 and 98 < high <= 101


def test_the_window_that_a_file_asks_for_is_used() -> None:
    values = np.linspace(-1000, 3000, 100)
    assert display.grey_window(_image(values, window=(40.0, 400.0, "LINEAR")), values) == (-160.0, 240.0)


def test_each_channel_is_shown_in_its_own_window_and_one_without_in_that_of_its_values() -> None:
    own = {"CT": {"window": (40.0, 400.0, "LINEAR")}, "PT": {"window": (5.0, 10.0, "LINEAR_EXACT")}}
    values = np.linspace(-2, 2, 1000)
    image = Image(np.tile(values, (3, 1, 1)), Geometry.of_pixels((1, 1000)), channels=("CT", "PT", "T1"),
                  facts={"of_channels": own})  # fmt: skip
    assert [display.grey_window(image, values, channel) for channel in (0, 1)] == [(-160.0, 240.0), (0.0, 10.0)]
    assert np.allclose(display.grey_window(image, values, 2), np.percentile(values, (0.5, 99.5)))
    assert display.view_of(image, channel=1).high == 10.0


def test_padding_and_gaps_do_not_decide_the_greys() -> None:
    values = np.concatenate([np.full(500, -2000.0), np.full(10, np.nan), np.linspace(0, 100, 1000)])
    low, high = display.grey_window(replace(_image(values), padding=(-2000.0, -1500.0)), values)
    assert 0 <= low < 2 and 98 < high <= 100


@pytest.mark.parametrize("values", [np.zeros(0), np.full(9, 7.0)])
def test_an_image_of_one_value_has_a_window_all_the_same(values: np.ndarray) -> None:
    low, high = display.grey_window(_image(np.zeros(4)), values)
    assert low < high


def test_labels_keep_their_own_colours_and_background_has_none() -> None:
    labels = (Label(0, "background"), Label(3, "a", colour=(1, 2, 3)), Label(5, "b"))
    assert display.label_colours(labels) == {3: (1, 2, 3), 5: PALETTE[1]}


def _oklab(colours: np.ndarray) -> np.ndarray:
    """Ottosson 2020, A perceptual color space for image processing."""
    parts = np.asarray(colours) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]]).T
    return np.cbrt(cones) @ np.array([[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]).T


def test_no_two_of_twenty_colours_are_nearer_than_the_nearest_of_those_that_anybody_tells_apart() -> None:
    series = [[[int(one[n : n + 2], 16) for n in (1, 3, 5)] for one in ink.series] for ink in (LIGHT, DARK)]
    for every, safe in ((list(PALETTE), 7), (series[0], 5), (series[1], 5)):
        assert len(every) >= 20
        apart = cdist(_oklab(np.array(every)), _oklab(np.array(every))) + 9 * np.eye(len(every))
        assert apart.min() > 0.8 * apart[:safe, :safe].min()


def test_three_measurements_are_no_colours() -> None:
    pixels = np.zeros((3, 2, 2), dtype=np.uint8)
    assert display.is_colour(Image(pixels, Geometry.of_pixels((2, 2)), channels=("R", "G", "B")))
    assert not display.is_colour(Image(pixels, Geometry.of_pixels((2, 2)), channels=("T1", "FLAIR", "T2")))


def _image(values: np.ndarray, **facts: object) -> Image:
    return Image(values.reshape(1, 1, -1), Geometry.of_pixels((1, values.size)), facts=facts)
