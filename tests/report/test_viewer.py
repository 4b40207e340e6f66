from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from isocenter.errors import FormatError, GeometryError
from isocenter.report import viewer
from isocenter.values import Geometry, Image, Label

HOSTILE = "</script><script>alert(1)</script>"
VOXELS = [(0, 0, 0), (11, 15, 9), (4, 6, 3), (9, 12, 8)]


@pytest.mark.parametrize("voxel", VOXELS)
def test_the_page_shows_the_value_that_the_file_holds_at_the_voxel(
    volume: Image, box: Image, browser: Any, voxel: tuple[int, int, int]
) -> None:
    seen = browser.read(viewer(volume, [box], "a volume"), fragment=f"voxel={','.join(map(str, voxel))}")
    assert seen.complaints == []
    assert seen.state["ready"] == "yes"
    assert seen.state["voxel"] == ",".join(map(str, voxel))
    assert float(seen.state["value"]) == volume.data[(0, *voxel)]
    assert int(seen.state["labels"]) == box.data[(0, *voxel)]
    world = [float(number) for number in seen.state["world"].split(",")]
    assert_allclose(world, volume.geometry.to_world(voxel), atol=1e-9)


def test_values_that_are_no_whole_numbers_come_within_the_stated_step(volume: Image, browser: Any) -> None:
    rough = replace(volume, pixels=np.random.default_rng(0).normal(0, 7, volume.shape).astype(np.float32))
    html = viewer(rough, [], "a volume")
    step = float(re.search(r"rounded to steps of ([0-9.e-]+)", html).group(1))
    seen = browser.read(html, fragment="voxel=3,4,5")
    assert abs(float(seen.state["value"]) - rough.data[0, 3, 4, 5]) <= step
    assert step < 0.01


def test_frames_of_a_colour_picture_each_have_their_values(browser: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 9), dtype=np.uint8)
    image = Image(pixels, Geometry.of_pixels((6, 9)), channels=("R", "G", "B"), times=(0.0, 0.1, 0.2, 0.3))
    seen = browser.read(viewer(image, [], "a film"), fragment="voxel=5,2&frame=3")
    assert seen.complaints == []
    assert [float(v) for v in seen.state["value"].split(",")] == pixels[:, 3, 5, 2].tolist()
    assert seen.state["frame"] == "3"


def test_the_picture_on_the_screen_is_the_slice_with_the_patients_right_at_the_left(browser: Any) -> None:
    # Bright where the patient's right front is; index (0, 0) is the left back corner of RAS+.
    values = np.zeros((1, 20, 20, 1), dtype=np.uint8)
    values[0, 10:, 10:] = 200
    geometry = Geometry((20, 20, 1), np.eye(4))
    grey = browser.look(viewer(Image(values, geometry), [], "a slice"), size=(1200, 800)).mean(axis=2)[60:740, 30:800]
    low, high = grey.shape[0] // 2, grey.shape[1] // 2
    quarters = [grey[:low, :high], grey[:low, high:], grey[low:, :high], grey[low:, high:]]
    assert int(np.argmax([quarter.mean() for quarter in quarters])) == 0


def test_a_label_covers_its_voxels_and_no_other(browser: Any) -> None:
    values = np.zeros((1, 10, 10), dtype=np.uint8)
    drawn = values.copy()
    drawn[0, 2:5, 6:9] = 1  # rows 2 to 4, columns 6 to 8
    geometry = Geometry.of_pixels((10, 10))
    overlay = Image(drawn, geometry, channels=("mask",), labels=(Label(1, "lesion", colour=(255, 0, 0)),))
    html = viewer(Image(values, geometry), [overlay], "a picture")
    seen = browser.look(html, fragment="voxel=9,0", size=(1200, 800))[:, :840]  # the pane is left of the controls
    rows, columns = np.nonzero(seen[..., 0] - seen[..., 1] > 60)
    black = np.nonzero(seen.max(axis=2) == 0)
    side = (black[0].max() - black[0].min() + 1) / 10  # the picture fills the pane's height
    top = black[0].min()
    assert_allclose([rows.min(), rows.max() + 1], [top + 2 * side, top + 5 * side], atol=2)
    assert_allclose(np.ptp(columns) + 1, 3 * side, atol=2)


def test_a_large_image_is_thinned_says_so_and_keeps_its_values(volume: Image, box: Image, browser: Any) -> None:
    html = viewer(volume, [box], "a volume", limit=300)
    assert "too large for one page" in html
    seen = browser.read(html, fragment="voxel=7,3,8")
    assert max(_facts(html)["file"]["every"]) > 1 and np.prod(_facts(html)["shape"]) <= 300
    at = tuple(int(index) for index in seen.state["voxel"].split(","))
    assert np.abs(np.subtract(at, (7, 3, 8))).max() <= max(_facts(html)["file"]["every"]) / 2 + 1
    assert float(seen.state["value"]) == volume.data[(0, *at)]
    world = [float(number) for number in seen.state["world"].split(",")]
    assert_allclose(world, volume.geometry.to_world(at), atol=1e-9)


def test_names_cannot_end_the_script_that_holds_them(volume: Image, box: Image, browser: Any, outline: Any) -> None:
    hostile = replace(box, channels=(HOSTILE,), labels=(Label(1, HOSTILE),))
    html = viewer(replace(volume, channels=(HOSTILE,)), [hostile], HOSTILE)
    assert len(outline(html).all("script")) == 2
    seen = browser.read(html)
    assert seen.complaints == [] and seen.state["ready"] == "yes"


def test_nothing_is_asked_for_from_elsewhere(volume: Image, box: Image, outline: Any) -> None:
    seen = outline(viewer(volume, [box], "a volume"))
    assert seen.faults == []
    assert seen.addresses == ["data:,"]


def test_it_opens_amid_what_is_drawn(volume: Image, box: Image, browser: Any) -> None:
    seen = browser.read(viewer(volume, [box], "a volume"))
    assert seen.state["labels"] == "1"


def test_a_dark_room_sees_a_dark_page_and_a_light_one_a_light(volume: Image, browser: Any) -> None:
    html = viewer(volume, [], "a volume")
    assert browser.look(html, size=(390, 844), dark=True)[2, 2].mean() < 60
    assert browser.look(html, size=(390, 844))[2, 2].mean() > 200


def test_what_is_not_known_is_said(browser: Any) -> None:
    image = Image(np.zeros((1, 4, 5, 6)), Geometry.of_pixels((4, 5, 6)))
    html = viewer(image, [], "a volume")
    assert "Left and right are not known" in html and "lengths are in pixels" in html
    assert "R" not in [plane["edges"] for plane in _facts(html)["planes"]]


def test_labels_on_another_grid_are_refused(volume: Image, box: Image) -> None:
    elsewhere = replace(box, geometry=Geometry(box.geometry.shape, np.eye(4)))
    with pytest.raises(GeometryError, match="grid"):
        viewer(volume, [elsewhere], "a volume")


def test_probabilities_are_no_labels(volume: Image, box: Image) -> None:
    with pytest.raises(FormatError, match="whole numbers"):
        viewer(volume, [box.with_pixels(box.data * 0.5)], "a volume")


def _facts(html: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="facts">(.*?)</script>', html, re.DOTALL).group(1))
