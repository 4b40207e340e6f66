"""Synthetic images in a data set: counted, in the training part alone, never tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hilum
import trained
from hilum.errors import DatasetError
from hilum.files import file_formats, synthetic_marks
from hilum.planning.rules import split_rules
from hilum.quality import dataset_examination, synthetic_images
from hilum.reading import ReadingOptions, dataset_reading
from hilum.runs import plan_request
from hilum.runs.plan_request import PlanRequest
from hilum.values import Dataset, Decision, Geometry, Image


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Twenty pictures of two classes, and four synthetic ones."""
    data = trained.pictures(tmp_path / "data", count=20)
    for n in range(4):
        pixels = np.random.default_rng(100 + n).integers(0, 255, (1, 24, 24)).astype(np.uint8)
        facts = {synthetic_marks.SYNTHETIC: "abc"}
        image = Image(pixels, Geometry.of_pixels((24, 24)), channels=("0",), facts=facts)
        file_formats.write(image, data / ("bright", "dark")[n % 2] / f"synthetic_{n}.png")
    return data


def opened(data: Path) -> tuple[Dataset, frozenset[str]]:
    dataset = dataset_reading.open_dataset(data, ReadingOptions())
    return dataset, synthetic_images.synthetic_training_images(dataset)


def asked(data: Path, **flags: Any) -> tuple[tuple[Mapping[str, str], ...], str]:
    """The parts of each fold as a training has them, and how they were made."""
    dataset, _ = opened(data)
    examination = dataset_examination.examine(dataset, threads=1)
    splits, decisions = plan_request.split_cases(examination, PlanRequest(**flags))
    return splits, decisions["method"].because


def test_they_train_whatever_the_seed_and_in_every_fold(mixed):
    dataset, synthetic = opened(mixed)
    assert len(synthetic) == 4
    for flags in ({"seed": 0}, {"seed": 1}, {"folds": 3}):
        splits, because = asked(mixed, **flags)
        assert "4 synthetic images more for training, whose model may" in because
        for parts in splits:
            assert {parts[case] for case in synthetic} == {"train"}
            assert sorted(parts) == sorted(case.id for case in dataset)


def test_one_that_is_nearly_a_test_image_is_in_no_part():
    method, real = Decision("own", "because"), {"a": "train", "b": "test"}
    (parts,), changed = split_rules.with_synthetic_images([real], method, {"x", "y"}, [{"x", "b"}])
    assert parts == {"a": "train", "b": "test", "y": "train"}
    assert changed.because == "because; 2 synthetic images more for training"


def test_a_set_that_tests_them_is_refused(mixed):
    dataset, synthetic = opened(mixed)
    marked = replace(dataset, splits=dict.fromkeys(synthetic, "test"))
    with pytest.raises(DatasetError, match="4 synthetic images are outside the training part"):
        synthetic_images.synthetic_training_images(marked)


def test_check_counts_them(mixed):
    found = hilum.check(mixed)
    [noted] = [one.cases for one in found.problems if "4 synthetic images" in one.what]
    assert set(noted) == opened(mixed)[1]


def test_evaluate_refuses_them_whatever_the_model(mixed, classified):
    with pytest.raises(DatasetError, match="4 cases are synthetic images"):
        hilum.evaluate(classified.out, mixed, device="cpu")


def test_a_set_of_nothing_else_is_divided_as_any_other_and_check_warns_that_it_is_simulated(mixed):
    for real in [path for path in mixed.rglob("*.png") if not synthetic_marks.read_mark(path)]:
        pixels = file_formats.read(real)
        file_formats.write(replace(pixels, facts={synthetic_marks.SYNTHETIC: "abc"}), real, overwrite=True)
    dataset, in_training_alone = opened(mixed)
    assert synthetic_images.is_simulated(dataset)
    assert in_training_alone == frozenset()
    [parts], _ = asked(mixed)
    assert set(parts.values()) == {"train", "val", "test"}
    [problem] = [one for one in hilum.check(mixed).problems if "every image is synthetic" in one.what]
    assert problem.severity == "warning"


def test_a_set_with_real_images_is_not_simulated(mixed):
    assert not synthetic_images.is_simulated(opened(mixed)[0])
    assert not synthetic_images.is_simulated(Dataset(()))
