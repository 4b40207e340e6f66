"""The files and the row of a slide whose cells were planted."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import simulated_slides
from hilum.evaluation import box_matching
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.prediction import case_prediction, slide_results
from hilum.prediction.case_prediction import CaseRequest
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.tasks.detection import answering
from hilum.transforms import COLOUR
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Case, Geometry, Image, Prediction

SIDE, MM = 512, 0.002
BROWN, BLUE, PINK = (120, 70, 40), (90, 70, 160), (225, 170, 205)
POSITIVE, CELLS = 40, 120
SCORE = {"positive": ["brown"], "among": ["brown", "blue"]}


def stained(batch: Array) -> dict[str, Array]:
    """A centre where a planted pixel has the colour of its class."""
    seen = 255 * batch
    outputs = [
        np.where(sum(np.abs(seen[:, n] - colour[n]) for n in range(3)) < 6, 9.0, -9.0) for colour in (BROWN, BLUE)
    ]
    sizes = [np.full(seen.shape[0:1] + seen.shape[2:], value) for value in (1.0, 1.0, 0.0, 0.0)]
    return {"boxes": np.stack([*outputs, *sizes], axis=1).astype(np.float32)}


def detecting(**settings) -> Model:
    plain = {"name": "detection", "classes": ["brown", "blue"], "axes": 2, "typical": 5.0, "threshold": 0.5}
    task = task_catalogue.build_task(plain | settings)
    scales = (Normalisation("range", 0, 255),) * 3
    networks = Networks(stained, {"name": "none", "channels": 3})
    return Model(task, Preprocessing(2, COLOUR, scales), Inference((128, 128), 0.5, batch=4), networks)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    pixels = np.full((SIDE, SIDE, 3), simulated_slides.GLASS, np.uint8)
    pixels[40:480, 40:480] = PINK
    grid = [(60 + 34 * row, 60 + 34 * column) for row in range(12) for column in range(12)][:CELLS]
    for number, place in enumerate(grid):
        pixels[place] = BROWN if number < POSITIVE else BLUE
    path = simulated_slides.write_tiff(
        tmp_path_factory.mktemp("slide") / "a.tif", simulated_slides.levels_of(pixels, 2), mm=MM
    )
    return file_formats.read_image(path, ReadOptions()), grid


def predicted(model, image, folder):
    return case_prediction.compute_case(model, Case("a", "a", {"image": image}), image, CaseRequest(folder))()


def test_cells_are_stated_once_each_with_place_class_and_area(slide, tmp_path):
    image, grid = slide
    outcome = predicted(detecting(), image, tmp_path)
    rows = list(csv.DictReader((tmp_path / "a_cells.csv").open()))
    found = {(round(float(one["y"])), round(float(one["x"]))): one for one in rows}
    assert set(found) == set(grid)
    assert len(rows) == CELLS
    assert {one["label"] for place, one in found.items() if place in grid[:POSITIVE]} == {"brown"}
    assert float(rows[0]["area_um2"]) == pytest.approx(25 * (1000 * MM) ** 2)
    [row] = outcome.rows
    assert (row["cells_brown"], row["cells_blue"]) == (POSITIVE, CELLS - POSITIVE)
    tissue = (440 * MM) ** 2
    assert row["per_mm2_brown"] == pytest.approx(POSITIVE / tissue, rel=0.15)
    assert row["tiles"] > 0
    assert "label" not in row


def test_cells_are_written_as_qupath_shows_them(slide, tmp_path):
    image, grid = slide
    predicted(detecting(), image, tmp_path)
    record = json.loads((tmp_path / "a.geojson").read_text())
    assert record["type"] == "FeatureCollection"
    assert len(record["features"]) == CELLS
    ring = np.array(record["features"][0]["geometry"]["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    middle = tuple((ring[:-1].mean(axis=0)[::-1] - 0.5).round().astype(int).tolist())
    assert middle in grid
    assert record["features"][0]["properties"]["classification"]["name"] in ("brown", "blue")


def test_regions_of_a_label_map_are_outlined_with_their_holes(tmp_path):
    marked = np.zeros((300, 200), np.uint8)
    marked[20:90, 30:80], marked[40:60, 50:60], marked[200:230, 10:190] = 1, 0, 2
    labels = [{"value": 1, "name": "tumour"}, {"value": 2, "name": "stroma"}]
    tissue = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 1.0})
    blank = Image(np.zeros((3, 300, 200), np.uint8), Geometry.of_pixels((300, 200)), channels=COLOUR)
    answer = Prediction(blank.geometry, data=marked, labels=tissue.labels)
    [path] = slide_results.write_slide_files(answer, tissue, blank, tmp_path, "a")
    tumour, stroma = json.loads(path.read_text())["features"]
    assert [one["properties"]["classification"]["name"] for one in (tumour, stroma)] == ["tumour", "stroma"]
    assert {one["properties"]["objectType"] for one in (tumour, stroma)} == {"annotation"}
    assert tumour["geometry"]["coordinates"] == [
        [[30, 20], [80, 20], [80, 90], [30, 90], [30, 20]],
        [[50, 40], [60, 40], [60, 60], [50, 60], [50, 40]],
    ]
    assert stroma["geometry"]["coordinates"] == [[[10, 200], [190, 200], [190, 230], [10, 230], [10, 200]]]


def test_the_percent_of_positive_cells_stands_in_the_row_with_its_interval(slide, tmp_path):
    image, _ = slide
    [row] = predicted(detecting(positive_percent=SCORE), image, tmp_path).rows
    assert row["score"] == pytest.approx(100 * POSITIVE / CELLS, abs=1e-4)
    assert row["score_low"] is None or row["score_low"] <= row["score"] <= row["score_high"]


def test_a_class_that_the_score_does_not_have_is_refused():
    with pytest.raises(Exception, match="there is no class 'green'"):
        detecting(positive_percent={"positive": ["green"], "among": ["blue"]})


def test_overlapping_boxes_are_dropped_as_if_each_were_compared_with_all_stronger_ones():
    generator = np.random.default_rng(3)
    low = generator.uniform(0, 60, (300, 2))
    corners = np.concatenate([low, low + generator.uniform(1, 9, (300, 2))], axis=1)
    kinds, scores = generator.integers(0, 2, 300), generator.random(300)
    kept: list[int] = []
    for number in np.argsort(-scores).tolist():
        same = [one for one in kept if kinds[one] == kinds[number]]
        if not same or box_matching.box_iou(corners[[number]], corners[same]).max() < 0.3:
            kept.append(number)
    assert answering.suppress_overlapping(corners, kinds, scores, 0.3, 500).tolist() == kept
    assert answering.suppress_overlapping(corners, kinds, scores, 0.3, 20).tolist() == kept[:20]
