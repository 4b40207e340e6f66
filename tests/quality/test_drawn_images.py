"""Drawn images in a data set: counted, in the training part alone, never tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import isocenter
import trained
from isocenter.errors import DatasetError
from isocenter.files import file_formats, synthetic_marks
from isocenter.planning.rules import split_rules
from isocenter.quality import drawn_images
from isocenter.reading import ReadingOptions, dataset_reading
from isocenter.values import Dataset, Geometry, Image


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Twenty pictures of two classes, and four drawn ones."""
    data = trained.pictures(tmp_path / "data", count=20)
    for n in range(4):
        pixels = np.random.default_rng(100 + n).integers(0, 255, (1, 24, 24)).astype(np.uint8)
        facts = {synthetic_marks.SYNTHETIC: "abc"}
        image = Image(pixels, Geometry.of_pixels((24, 24)), channels=("0",), facts=facts)
        file_formats.write(image, data / ("bright", "dark")[n % 2] / f"drawn_{n}.png")
    return data


def opened(data: Path) -> tuple[Dataset, frozenset[str]]:
    dataset = dataset_reading.open_dataset(data, ReadingOptions())
    return dataset, drawn_images.training_drawn_images(dataset)


def test_they_train_whatever_the_seed_and_in_every_fold(mixed):
    dataset, drawn = opened(mixed)
    assert len(drawn) == 4
    for seed in range(3):
        parts, decisions = split_rules.split_dataset(dataset, seed=seed, drawn=drawn)
        assert {parts[case] for case in drawn} == {"train"}
        assert sorted(parts) == sorted(case.id for case in dataset)
        assert "4 drawn images more for training, whose model may" in decisions["method"].because
    for parts in split_rules.split_folds(dataset, 3, seed=0, drawn=drawn):
        assert {parts[case] for case in drawn} == {"train"}
        assert len(parts) == len(dataset)


def test_one_that_is_nearly_a_test_image_is_in_no_part(mixed):
    dataset, drawn = opened(mixed)
    tested = next(case for case, part in split_rules.split_dataset(dataset, seed=0)[0].items() if part == "test")
    own = replace(dataset, splits={case.id: "test" if case.id == tested else "train" for case in dataset})
    near = sorted(drawn)[0]
    parts, _ = split_rules.split_dataset(own, seed=0, drawn=drawn, twins=[{near, tested}])
    assert near not in parts
    assert {parts[case] for case in drawn - {near}} == {"train"}


def test_a_set_that_tests_them_is_refused(mixed):
    dataset, drawn = opened(mixed)
    marked = replace(dataset, splits=dict.fromkeys(drawn, "test"))
    with pytest.raises(DatasetError, match="4 drawn images are outside the training part"):
        drawn_images.training_drawn_images(marked)


def test_check_counts_them(mixed):
    found = isocenter.check(mixed)
    [noted] = [one.cases for one in found.problems if "4 drawn images" in one.what]
    assert set(noted) == opened(mixed)[1]


def test_evaluate_refuses_them_whatever_the_model(mixed, classified):
    with pytest.raises(DatasetError, match="4 cases are drawn images"):
        isocenter.evaluate(classified.out, mixed, device="cpu")
