from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hilum
import trained
from hilum.errors import DatasetError, PlanError
from hilum.planning import plan_checks
from hilum.planning.rules import painting_rules, split_rules
from hilum.reading import ReadingOptions, dataset_reading, images_of_maps
from hilum.reading.images_of_maps import NO_IMAGE
from hilum.transforms.painting import PaintingRanges
from hilum.values import Label

QUICK = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Path:
    """Label maps without images."""
    root = trained.blobs(tmp_path_factory.mktemp("maps"), 8)
    shutil.rmtree(root / "images")
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return trained.blobs(tmp_path_factory.mktemp("images"), 8)


def test_a_model_is_trained_on_label_maps_alone_and_says_that_it_saw_no_image(maps, tmp_path):
    assignments = {**trained.TWO_STEPS, "network.size": trained.SMALL_UNET}
    run = hilum.train(maps, out=tmp_path / "run", labels=trained.LABELS, assignments=assignments, **QUICK)
    assert not run.rows and str(run.verdict).startswith(NO_IMAGE)
    assert NO_IMAGE in json.loads((run.out / "run.json").read_text())["notes"]
    assert NO_IMAGE.removesuffix(".") in run.report.read_text()
    model = hilum.load(run.out)
    assert "painted from label maps" in (run.out / "plan.yaml").read_text()
    assert model.guard is not None and "modality" not in model.guard.words


def test_a_plan_for_label_maps_alone_paints_every_image_and_tests_nothing(maps):
    made = hilum.plan(maps, labels=trained.LABELS, **QUICK)
    assert made.plan["augmentation.painting"] == 1 and not made.plan["painting.intensities"]
    assert "there are label maps and no images" in made.plan.decision("augmentation.painting").because
    assert "test" not in made.parts.values() and "no test part" in made.plan.decision("split.method").because
    assert made.plan["preprocessing.normalisation"][0]["method"] == "zscore"


def test_any_contrast_paints_what_trains_and_tests_real_images(images):
    made = hilum.plan(images, labels=trained.LABELS, modality="CT", any_contrast=True, **QUICK)
    assert made.plan["augmentation.painting"] == 1 and made.plan["painting.intensities"]
    assert "test" in made.parts.values()
    assert made.plan["preprocessing.normalisation"][0]["method"] == "zscore"
    assert made.plan["inference.skip"] is None
    assert made.plan["painting.thickness"] < 9
    assert plan_checks.checked_settings(made.plan).augmentation.painting == 1


def test_painted_images_are_no_test_cases(maps):
    dataset = dataset_reading.open_for_task(None, [maps], ReadingOptions())
    tested = replace(dataset, splits={dataset.cases[0].id: "test"})
    with pytest.raises(DatasetError, match="1 test case has no image, only a label map"):
        split_rules.split_dataset(tested, seed=0)
    with pytest.raises(PlanError, match="each fold would test images that are painted"):
        split_rules.split_folds(dataset, 2, seed=0)
    with pytest.raises(DatasetError, match="8 labels and no images"):  # as `evaluate` reads it
        dataset_reading.open_dataset(maps, ReadingOptions())


def test_ranges_that_paint_nothing_but_an_outline_are_refused(maps):
    chosen = plan_checks.checked_settings(hilum.plan(maps, labels=trained.LABELS, **QUICK).plan)
    one_label = replace(chosen, task=replace(chosen.task, classes=(Label(1, "ball"),)))
    painting_rules.check_painting(one_label)
    with pytest.raises(PlanError, match="one label on an even background"):
        painting_rules.check_painting(replace(one_label, painting=PaintingRanges(background=1)))
    with pytest.raises(PlanError, match="no mean lies between"):
        painting_rules.check_painting(replace(chosen, painting=PaintingRanges(darkest=1.0)))


def test_a_kind_without_label_maps_cannot_be_painted(tmp_path):
    data = trained.pictures(tmp_path, 12)
    with pytest.raises(PlanError, match="classification has no label maps from which images could be painted"):
        hilum.plan(data, any_contrast=True, **QUICK)


def test_cases_are_painted_anew_on_their_grid_each_time_in_another_contrast(images):
    made = hilum.plan(images, labels=trained.LABELS, any_contrast=True, **QUICK)
    chosen, case = plan_checks.checked_settings(made.plan), made.examination.dataset.cases[0]
    first, second = images_of_maps.repainted_cases(case, chosen.task, chosen.painting, 2)
    [image], [other], [real] = (list(one.images.values()) for one in (first, second, case))
    assert image.geometry.equals(real.geometry) and image.modality == "unknown"
    assert not np.allclose(image.data, other.data)
