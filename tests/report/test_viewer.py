from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.errors import FormatError, GeometryError
from hilum.report import slice_viewer
from hilum.values import Geometry, Image, Label

HOSTILE = "</script><script>alert(1)</script>"
VOXELS = [(0, 0, 0), (11, 15, 9), (4, 6, 3), (9, 12, 8)]


def test_overlays_of_a_series_are_called_by_their_names_and_all_of_them_are_drawn() -> None:
    grid = Geometry((8,), np.eye(2))
    series = Image(np.arange(8.0)[None], grid, channels=("ECG",))
    beats = Image(np.array([[0, 1, 1, 0, 0, 2, 2, 0]]), grid)
    pair = Image(np.array([[1, 0] * 4, [0, 1] * 4]), grid, channels=("noise", "pause"), labels=(Label(1, "here"),))
    page = slice_viewer.viewer_html(series, [beats, pair], "a series")
    assert "Bars: overlay 1 above noise above pause." in page
    assert "Marked: 1, 2, here." in page
    assert "reference" not in page and "prediction" not in page
    assert page != slice_viewer.viewer_html(series, [beats], "a series")


@pytest.mark.parametrize("voxel", VOXELS)
def test_the_page_shows_the_value_that_the_file_holds_at_the_voxel(
    volume: Image, box: Image, browser: Any, voxel: tuple[int, int, int]
) -> None:
    seen = browser.read(
        slice_viewer.viewer_html(volume, [box], "a volume"), fragment=f"voxel={','.join(map(str, voxel))}"
    )
    assert seen.complaints == []
    assert seen.state["ready"] == "yes"
    assert seen.state["voxel"] == ",".join(map(str, voxel))
    assert float(seen.state["value"]) == volume.data[(0, *voxel)]
    assert int(seen.state["labels"]) == box.data[(0, *voxel)]
    world = [float(number) for number in seen.state["world"].split(",")]
    assert_allclose(world, volume.geometry.to_world(voxel), atol=1e-9)


@pytest.mark.whole
def test_values_that_are_no_whole_numbers_come_within_the_stated_step(volume: Image, browser: Any) -> None:
    rough = replace(volume, pixels=np.random.default_rng(0).normal(0, 7, volume.shape).astype(np.float32))
    html = slice_viewer.viewer_html(rough, [], "a volume")
    step = float(re.search(r"rounded to steps of ([0-9.e-]+[0-9])", html).group(1))
    seen = browser.read(html, fragment="voxel=3,4,5")
    assert abs(float(seen.state["value"]) - rough.data[0, 3, 4, 5]) <= step
    assert step < 0.01


def test_the_page_names_a_channel_where_there_are_several_and_counts_voxels_of_unknown_size() -> None:
    rough = np.random.default_rng(0).normal(0, 7, (2, 8, 9, 10)).astype(np.float32)
    grid = Geometry((8, 9, 10), np.eye(4), physical=False, oriented=False)
    assert re.search(
        r"rounded to steps of [0-9.e-]*[0-9]\.(?![0-9])", slice_viewer.viewer_html(Image(rough[:1], grid), [], "one")
    )
    several = slice_viewer.viewer_html(Image(rough, grid, channels=("T1", "T2")), [], "two")
    assert re.search(r"rounded to steps of [0-9.e-]+ \(T1\), [0-9.e-]+ \(T2\)\.", several)
    assert "The size of a voxel in mm is not known: lengths are in voxels." in several


@pytest.mark.whole
def test_frames_of_a_colour_picture_each_have_their_values(browser: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 9), dtype=np.uint8)
    image = Image(pixels, Geometry.of_pixels((6, 9)), channels=("R", "G", "B"), times=(0.0, 0.1, 0.2, 0.3))
    seen = browser.read(slice_viewer.viewer_html(image, [], "a clip"), fragment="voxel=5,2&frame=3")
    assert seen.complaints == []
    assert [float(v) for v in seen.state["value"].split(",")] == pixels[:, 3, 5, 2].tolist()
    assert seen.state["frame"] == "3"


def test_the_picture_on_the_screen_is_the_slice_with_the_patients_right_at_the_left(browser: Any) -> None:
    # Bright where the patient's right front is; index (0, 0) is the left back corner of RAS+.
    values = np.zeros((1, 20, 20, 1), dtype=np.uint8)
    values[0, 10:, 10:] = 200
    geometry = Geometry((20, 20, 1), np.eye(4))
    grey = browser.look(slice_viewer.viewer_html(Image(values, geometry), [], "a slice"), size=(1200, 800)).mean(
        axis=2
    )[60:740, 30:800]
    low, high = grey.shape[0] // 2, grey.shape[1] // 2
    quarters = [grey[:low, :high], grey[:low, high:], grey[low:, :high], grey[low:, high:]]
    assert int(np.argmax([quarter.mean() for quarter in quarters])) == 0


def test_a_label_covers_its_voxels_and_no_other(browser: Any) -> None:
    values = np.zeros((1, 10, 10), dtype=np.uint8)
    labels = values.copy()
    labels[0, 2:5, 6:9] = 1  # rows 2 to 4, columns 6 to 8
    geometry = Geometry.of_pixels((10, 10))
    overlay = Image(labels, geometry, channels=("mask",), labels=(Label(1, "lesion", colour=(255, 0, 0)),))
    html = slice_viewer.viewer_html(Image(values, geometry), [overlay], "a picture")
    seen = browser.look(html, fragment="voxel=9,0", size=(1200, 800))[:, :840]  # the pane is left of the controls
    rows, columns = np.nonzero(seen[..., 0] - seen[..., 1] > 60)
    black = np.nonzero(seen.max(axis=2) == 0)
    side = (black[0].max() - black[0].min() + 1) / 10  # the picture fills the pane's height
    top = black[0].min()
    assert_allclose([rows.min(), rows.max() + 1], [top + 2 * side, top + 5 * side], atol=2)
    assert_allclose(np.ptp(columns) + 1, 3 * side, atol=2)


@pytest.mark.whole
def test_a_large_image_is_thinned_says_so_and_keeps_its_values(volume: Image, box: Image, browser: Any) -> None:
    html = slice_viewer.viewer_html(volume, [box], "a volume", limit=300)
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
    html = slice_viewer.viewer_html(replace(volume, channels=(HOSTILE,)), [hostile], HOSTILE)
    assert len(outline(html).all("script")) == 2
    seen = browser.read(html)
    assert seen.complaints == [] and seen.state["ready"] == "yes"


def test_nothing_is_asked_for_from_elsewhere(volume: Image, box: Image, outline: Any) -> None:
    seen = outline(slice_viewer.viewer_html(volume, [box], "a volume"))
    assert seen.faults == []
    assert seen.addresses == ["data:,"]


@pytest.mark.whole
def test_it_opens_amid_what_is_marked(volume: Image, box: Image, browser: Any) -> None:
    seen = browser.read(slice_viewer.viewer_html(volume, [box], "a volume"))
    assert seen.state["labels"] == "1"


@pytest.mark.whole
def test_a_dark_room_sees_a_dark_page_and_a_light_one_a_light(volume: Image, browser: Any) -> None:
    html = slice_viewer.viewer_html(volume, [], "a volume")
    assert browser.look(html, size=(390, 844), dark=True)[2, 2].mean() < 60
    assert browser.look(html, size=(390, 844))[2, 2].mean() > 200


@pytest.mark.whole
def test_what_is_not_known_is_said(browser: Any) -> None:
    image = Image(np.zeros((1, 4, 5, 6)), Geometry.of_pixels((4, 5, 6)))
    html = slice_viewer.viewer_html(image, [], "a volume")
    assert "Left and right are not known" in html and "lengths are in voxels" in html
    assert "R" not in [plane["edges"] for plane in _facts(html)["planes"]]


def test_an_oblique_image_says_how_far_its_letters_are_off_and_a_straight_one_nothing() -> None:
    turn = np.radians(20)
    pitched = np.eye(4)
    pitched[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    for affine, names in (
        (pitched, ["oblique axial", "oblique coronal", "sagittal"]),
        (np.eye(4), ["axial", "coronal"]),
    ):
        facts = _facts(
            slice_viewer.viewer_html(Image(np.zeros((1, 4, 5, 6)), Geometry((4, 5, 6), affine)), [], "a volume")
        )
        assert [plane["name"] for plane in facts["planes"]][: len(names)] == names
        assert any("up to 20° oblique" in one for one in facts["accuracy"]) == (affine is pitched)


def test_planes_across_the_slices_of_a_tilted_gantry_are_said_not_to_be_true() -> None:
    tilted = np.eye(4)
    tilted[1, 2] = 0.3
    html = slice_viewer.viewer_html(Image(np.zeros((1, 4, 5, 6)), Geometry((4, 5, 6), tilted)), [], "a volume")
    assert "not at right angles, as of a tilted gantry" in html


def test_labels_on_another_grid_are_refused(volume: Image, box: Image) -> None:
    elsewhere = replace(box, geometry=Geometry(box.geometry.shape, np.eye(4)))
    with pytest.raises(GeometryError, match="mask and image lie on different grids"):
        slice_viewer.viewer_html(volume, [elsewhere], "a volume")


def test_structures_that_overlap_are_switched_each_by_itself(volume: Image, box: Image, browser: Any) -> None:
    both = np.concatenate([box.data == 1, (box.data == 1) * 2]).astype(np.uint8)
    seen = browser.read(
        slice_viewer.viewer_html(volume, [replace(box, pixels=both, channels=("anterior", "posterior"))], "a volume")
    )
    assert seen.complaints == []
    assert seen.state["labels"] == "1,2"


def test_probabilities_are_no_labels(volume: Image, box: Image) -> None:
    with pytest.raises(FormatError, match=r"holds values between whole numbers \(0.5, in .* not a mask"):
        slice_viewer.viewer_html(volume, [box.with_pixels(box.data * 0.5)], "a volume")


def test_more_labels_than_codes_are_refused() -> None:
    geometry = Geometry.of_pixels((256, 300))
    every = Image(np.arange(256 * 300).reshape(1, 256, 300), geometry)
    with pytest.raises(FormatError, match="76800 labels"):
        slice_viewer.viewer_html(every, [every], "a picture")


def _facts(html: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="facts">(.*?)</script>', html, re.DOTALL).group(1))


def test_the_sides_of_the_patient_stand_at_the_edges_of_each_plane(volume: Image, browser: Any) -> None:
    spy = """const real = CanvasRenderingContext2D.prototype.fillText, written = [];
        CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
          if (text.length === 1) {
            const across = (2 * x) / this.canvas.clientWidth - 1, down = (2 * y) / this.canvas.clientHeight - 1;
            const [less, more] = Math.abs(across) > Math.abs(down) ? ["left", "right"] : ["top", "bottom"];
            written.push(text + " " + (across + down < 0 ? less : more));
            document.documentElement.dataset.written = written.slice(0, 12).join(", ");
          }
          return real.call(this, text, x, y);
        };"""
    html = slice_viewer.viewer_html(volume, [], "a volume").replace("</head>", f"<script>{spy}</script></head>")
    # The voxels are thickest from right to left, so the sagittal plane comes first.
    sagittal = "A left, P right, S top, I bottom"
    axial, coronal = (f"R left, L right, {ends}" for ends in ("A top, P bottom", "S top, I bottom"))
    assert f'data-written="{sagittal}, {axial}, {coronal}"' in browser.read(html).dom


def test_arrow_down_goes_one_slice_towards_the_feet(volume: Image, browser: Any) -> None:
    html = _after(
        slice_viewer.viewer_html(volume, [], "a volume"),
        """const axial = document.querySelector("canvas[aria-label^=axial]");
        for (const key of ["ArrowDown", "ArrowDown", "ArrowUp"])
          axial.dispatchEvent(new KeyboardEvent("keydown", { key }));""",
    )
    seen = browser.read(html, fragment="voxel=4,6,3")
    assert seen.complaints == []
    assert seen.state["voxel"] == "4,7,3"  # j runs to the feet


@pytest.mark.whole
def test_the_wheel_scrolls_and_stops_at_the_last_slice(volume: Image, browser: Any) -> None:
    html = _after(
        slice_viewer.viewer_html(volume, [], "a volume"),
        """const sagittal = document.querySelector("canvas[aria-label^=sagittal]");
        for (let n = 0; n < 30; n++) sagittal.dispatchEvent(new WheelEvent("wheel", { deltaY: 100 }));""",
    )
    # The screen scrolls to the patient's left, k runs to the right.
    assert browser.read(html, fragment="voxel=4,6,3").state["voxel"] == "4,6,0"


def test_the_planes_are_linked(volume: Image, browser: Any) -> None:
    html = _after(
        slice_viewer.viewer_html(volume, [], "a volume"),
        """const slider = document.querySelector("input[aria-label='coronal slice']");
        slider.value = 2;
        slider.dispatchEvent(new Event("input"));""",
    )
    seen = browser.read(html, fragment="voxel=4,6,3")
    # The third slice of twelve from the front; i runs to the front.
    assert seen.state["voxel"] == "9,6,3"
    assert "coronal, slice 10 of 12" in seen.dom and "axial, slice 7 of 16" in seen.dom


@pytest.mark.whole
def test_the_value_under_the_cursor_is_that_of_the_pixel_there(browser: Any) -> None:
    values = np.arange(48, dtype=np.int16).reshape(1, 6, 8) * 10
    html = _after(
        slice_viewer.viewer_html(Image(values, Geometry.of_pixels((6, 8))), [], "a picture"),
        """const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
        const side = Math.min(box.width / 8, box.height / 6);
        const x = box.left + box.width / 2 + (6 - 4 + 0.5) * side, y = box.top + box.height / 2 + (1 - 3 + 0.5) * side;
        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y }));""",
    )
    readout = re.search(r'id="readout">(.*?)</dl>', browser.read(html).dom, re.DOTALL).group(1)
    assert re.sub(r"<[^>]+>", " ", readout).split() == ["value", "140", "row,", "column", "1,", "6"]


@pytest.mark.whole
def test_a_label_that_is_switched_off_is_not_painted(box: Image, volume: Image, browser: Any) -> None:
    html = slice_viewer.viewer_html(volume.with_pixels(volume.data * 0), [box], "a volume")
    off = """[...document.querySelectorAll("li label")].find((l) => l.textContent === "anterior").click();"""
    # The upper left is the axial slice alone, without the sliders, which are blue too.
    shown, hidden = (browser.look(_after(html, script))[100:700, :380] for script in ("", off))
    assert np.count_nonzero(shown[..., 2] - shown[..., 0] > 40) > 1000
    assert np.count_nonzero(hidden[..., 2] - hidden[..., 0] > 40) == 0


@pytest.mark.whole
def test_going_to_a_label_sets_the_crosshair_on_it(box: Image, volume: Image, browser: Any) -> None:
    script = """document.querySelector("[aria-label='go to posterior']").click();"""
    seen = browser.read(_after(slice_viewer.viewer_html(volume, [box], "a volume"), script))
    assert (seen.state["labels"], seen.state["voxel"]) == ("2", "9,12,8")


def test_the_window_decides_which_values_are_black_and_white(browser: Any) -> None:
    values = np.repeat(np.array([-1000, 0, 40, 80, 1000], dtype=np.int16), 10).reshape(1, 5, 10)
    image = Image(values, Geometry.of_pixels((5, 10)), modality="CT")
    script = """[...document.querySelectorAll("button")].find((b) => b.textContent === "brain").click();"""
    seen = browser.look(_after(slice_viewer.viewer_html(image, [], "a picture"), script), fragment="voxel=4,0")[
        100:, 400, 0
    ]
    grey, white = (np.count_nonzero(np.abs(seen - level) <= 1) for level in (127, 255))
    # 40 is the centre; 80 and all above are white, the rest black as the screen around the picture.
    assert grey > 50
    assert white == pytest.approx(2 * grey, abs=4)
    assert grey + white + np.count_nonzero(seen == 0) > 0.95 * seen.size


def test_the_curve_that_a_file_asks_for_is_shown_until_a_window_is_set(browser: Any) -> None:
    values = np.repeat(np.array([0, 50, 100], dtype=np.int16), 10)[:, None].repeat(30, axis=1)
    valley = ((0.0, 1.0), (50.0, 0.0), (100.0, 0.5))
    facts = {"window": (50.0, 100.0, "LINEAR_EXACT", valley)}
    image = Image(values[None], Geometry.of_pixels(values.shape), facts=facts)
    html = slice_viewer.viewer_html(image, [], "a picture")
    to_line = """[...document.querySelectorAll("button")].find((b) => b.textContent === "all values").click();"""
    # The curve ends darker than it begins, so the line in its place falls too.
    for clicks, levels in (("", (255, 0, 128)), (to_line, (255, 128, 0))):
        seen = browser.look(_after(html, clicks), fragment="voxel=29,0")
        assert_allclose([seen[row, 400, 0] for row in (200, 450, 700)], levels, atol=1)
    assert "the curve that the file asks for" in browser.read(html).dom
    assert "a line, not the curve of the file" in browser.read(_after(html, to_line)).dom


@pytest.mark.whole
def test_all_values_are_grey_also_where_the_highest_is_0(browser: Any) -> None:
    values = np.repeat(np.array([-1000, -500, 0], dtype=np.int16), 10).reshape(1, 3, 10)
    script = """[...document.querySelectorAll("button")].find((b) => b.textContent === "all values").click();"""
    html = _after(slice_viewer.viewer_html(Image(values, Geometry.of_pixels((3, 10))), [], "a picture"), script)
    seen = browser.look(html, fragment="voxel=0,0")[100:, 400, 0]
    grey, white = (np.count_nonzero(np.abs(seen - level) <= 1) for level in (127, 255))
    assert grey > 50
    assert white == pytest.approx(grey, abs=4)


def _after(html: str, script: str) -> str:
    """The page, with something done to it once it is ready."""
    wait = """while (!document.body.dataset.ready) await new Promise((done) => setTimeout(done, 5));"""
    return html.replace("</body>", f"<script>(async () => {{ {wait} {script} }})();</script></body>")


def test_a_label_below_0_is_one_and_the_background_none(volume: Image) -> None:
    values = np.zeros(volume.shape, np.int16)
    values[0, 1:3, 1, 1], values[0, 4, 4, 4] = 5, -1
    overlay = Image(values, volume.geometry, channels=("map",))
    [drawn] = _facts(slice_viewer.viewer_html(volume, [overlay], "a volume"))["overlays"]
    assert [label["value"] for label in drawn["labels"]] == [-1, 5]
    codes = np.frombuffer(gzip.decompress(base64.b64decode(drawn["data"])), np.uint8)
    assert np.bincount(codes).tolist() == [values.size - 3, 1, 2]
