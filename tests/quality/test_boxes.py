from __future__ import annotations

import numpy as np
import pytest

from hilum.quality import dataset_examination
from hilum.quality.references import boxes as references_boxes
from hilum.values import BoundingBoxes, Case, Cohort, Dataset, Geometry, Image, Label

ONE = BoundingBoxes(np.array([[0, 0, 3, 4]]), ("cell",))


def dataset(*references: BoundingBoxes, splits=None, classes: tuple[str, ...] = ("cell",)) -> Dataset:
    cases = []
    for n, boxes in enumerate(references):
        pixels = np.random.default_rng(n).integers(0, 255, (1, 24, 24)).astype(np.uint8)
        image = Image(pixels, Geometry.of_pixels((24, 24)))
        cases.append(Case(f"c{n}", f"p{n}", {"image": image}, {"boxes": boxes}))
    labels = tuple(Label(n, name) for n, name in enumerate(classes))
    return Dataset(tuple(cases), splits=splits or {}, classes={"boxes": labels})


def test_what_was_odd_about_a_box_is_said_with_its_case():
    odd = BoundingBoxes(ONE.corners, ONE.names, notes=("object 3 (cell) has no extent, and is left out",))
    found = dataset_examination.examine(dataset(ONE, odd, ONE))
    [problem] = [one for one in found.problems if "object 3" in one.what]
    assert (problem.severity, problem.cases) == ("warning", ("c1",))
    assert found.fatal == ()


def test_boxes_are_counted_from_the_facts_of_their_cases():
    found = dataset_examination.examine(dataset(ONE, ONE))
    assert [len(case.references["boxes"]) for case in found.fingerprint.cases] == [1, 1]


def test_boxes_to_be_ignored_are_counted_apart_and_teach_nothing():
    unknown = BoundingBoxes(np.tile(ONE.corners, (2, 1)), ("cell", "clump"), ignored=np.array([False, True]))
    found = dataset_examination.examine(dataset(ONE, unknown, classes=("cell", "clump")))
    lines = references_boxes.BOXES.words.lines(Cohort(found.dataset, found.fingerprint))
    assert lines["boxes"] == "cell 2 in 2 cases; 1 box is to be ignored"
    assert any("nowhere annotated in the cases that train: clump" in problem.what for problem in found.problems)
    alone = BoundingBoxes(ONE.corners, ONE.names, ignored=np.array([True]))
    assert any("is empty" in problem.what for problem in dataset_examination.examine(dataset(alone, alone)).fatal)


@pytest.mark.parametrize(("splits", "where"), [({}, "every list of boxes is empty"), ({"c2": "test"}, "training part")])
def test_nothing_to_find_in_all_that_would_train_forbids_going_on(splits, where):
    none = BoundingBoxes.none(2)
    found = dataset_examination.examine(dataset(none, none, ONE if splits else none, splits=splits))
    assert [where in problem.what for problem in found.fatal] == [True]
    assert any(problem.what == "boxes is empty" for problem in found.problems)


def test_a_declared_class_of_which_no_box_is_annotated_is_named():
    found = dataset_examination.examine(dataset(ONE, ONE, classes=("cell", "clump")))
    assert any("nowhere annotated in the cases that train: clump" in problem.what for problem in found.problems)
