"""Regions of slides that somebody annotated, as cases of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import simulated_slides
from hilum.errors import DatasetError, HilumError
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.reading import ReadingOptions, dataset_reading
from hilum.values import Label

SIZE = 1024
PIXELS = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
ANNOTATED = np.s_[200:260, 300:420], np.s_[700:790, 690:720]


def slide_in(folder, name="a"):
    folder.mkdir(exist_ok=True)
    return simulated_slides.write_tiff(folder / f"{name}.tif", simulated_slides.levels_of(PIXELS, 2))


def feature(box, name):
    rows, columns = box
    corners = [(columns.start, rows.start), (columns.stop, rows.start), (columns.stop, rows.stop)]
    ring = [*corners, (columns.start, rows.stop), corners[0]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": name}}}


def annotate_by_mask(folder):
    image = file_formats.read_image(slide_in(folder), ReadOptions())
    values = np.zeros((SIZE, SIZE), np.uint8)
    values[ANNOTATED[0]], values[ANNOTATED[1]] = 1, 2
    file_formats.write(image.with_label_map(values, [Label(1, "tumour"), Label(2, "stroma")]), folder / "a_mask.tif")


def annotate_by_qupath(folder):
    slide_in(folder)
    features = [feature(box, name) for box, name in zip(ANNOTATED, ("tumour", "stroma"), strict=True)]
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def opened(folder, needs=("mask",)):
    return dataset_reading.open_dataset(folder, ReadingOptions(), needs=needs)


@pytest.mark.parametrize("annotate", [annotate_by_mask, annotate_by_qupath])
def test_each_region_with_an_annotation_is_a_picture_of_one_patient(tmp_path, annotate):
    annotate(tmp_path / "set")
    dataset = opened(tmp_path / "set")
    cases = list(dataset)
    assert len(cases) == 2
    assert len({case.patient for case in cases}) == 1
    assert len({case.id for case in cases}) == 2
    names = set()
    for case in cases:
        [image], mask = case.images.values(), case.references["mask"]
        assert not image.is_slide
        assert image.geometry.shape == mask.geometry.shape
        assert max(image.geometry.shape) <= 320
        corner = next(
            (row, column)
            for row in range(0, SIZE, 64)
            for column in range(0, SIZE, 64)
            if np.array_equal(PIXELS[row, column], image.data[:, 0, 0])
        )
        place = tuple(slice(start, start + n) for start, n in zip(corner, image.geometry.shape, strict=True))
        assert_array_equal(image.data, np.moveaxis(PIXELS[place], -1, 0))
        expected = np.zeros((SIZE, SIZE), np.uint8)
        labels = {label.name: label.value for label in mask.labels or dataset.classes["mask"]}
        expected[ANNOTATED[0]], expected[ANNOTATED[1]] = labels["tumour"], labels["stroma"]
        assert_array_equal(mask.data[0], expected[place])
        names |= {name for name, value in labels.items() if (mask.data == value).any()}
    assert names == {"tumour", "stroma"}
    assert any("1 slide is 2 regions" in problem.what for problem in dataset.problems)


def test_boxes_of_a_slide_are_counted_from_the_corner_of_their_region(tmp_path):
    annotate_by_qupath(tmp_path / "set")
    cases = list(opened(tmp_path / "set", ("boxes",)))
    found = [case.references["boxes"] for case in cases]
    assert [len(one) for one in found] == [1, 1]
    assert {one.names[0] for one in found} == {"tumour", "stroma"}
    sizes = sorted(tuple(one.lengths[0].astype(int).tolist()) for one in found)
    assert sizes == [(60, 120), (90, 30)]


def test_a_mask_of_another_size_than_its_slide_is_refused(tmp_path):
    annotate_by_mask(tmp_path / "set")
    smaller = PIXELS[:512, :512]
    simulated_slides.write_tiff(tmp_path / "set" / "a.tif", simulated_slides.levels_of(smaller, 2))
    with pytest.raises(HilumError, match="pixels and its slide"):
        list(opened(tmp_path / "set"))


def test_an_annotation_outside_of_its_slide_is_refused_by_the_file(tmp_path):
    annotate_by_qupath(tmp_path / "set")
    box = np.s_[2000:2100, 10:90]
    (tmp_path / "set" / "a.geojson").write_text(json.dumps(feature(box, "tumour")))
    with pytest.raises(DatasetError, match=r"a\.geojson"):
        list(opened(tmp_path / "set"))


def test_a_damaged_geojson_is_refused_by_the_feature(tmp_path):
    annotate_by_qupath(tmp_path / "set")
    broken = {"type": "Feature", "geometry": {"type": "Curve", "coordinates": []}}
    (tmp_path / "set" / "a.geojson").write_text(json.dumps([broken]))
    with pytest.raises(DatasetError, match="feature 1: a shape of the kind 'Curve'"):
        opened(tmp_path / "set")


def test_an_annotation_of_another_slide_is_named_and_marks_nothing(tmp_path):
    annotate_by_qupath(tmp_path / "set")
    (tmp_path / "set" / "b.geojson").write_text(json.dumps(feature(np.s_[0:90, 0:90], "tumour")))
    dataset = opened(tmp_path / "set")
    assert len(dataset) == 2
    assert any(problem.what == "1 label has no image" and problem.cases == ("b",) for problem in dataset.problems)
