from __future__ import annotations

import numpy as np
import pytest

from hilum.quality import dataset_examination
from hilum.values import BoundingBoxes, Case, Dataset, Geometry, Image, Label

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


@pytest.mark.parametrize(("splits", "where"), [({}, "every list of boxes is empty"), ({"c2": "test"}, "training part")])
def test_nothing_to_find_in_all_that_would_train_forbids_going_on(splits, where):
    none = BoundingBoxes.none(2)
    found = dataset_examination.examine(dataset(none, none, ONE if splits else none, splits=splits))
    assert [where in problem.what for problem in found.fatal] == [True]
    assert any(problem.what == "boxes is empty" for problem in found.problems)


def test_a_declared_class_of_which_no_box_is_annotated_is_named():
    found = dataset_examination.examine(dataset(ONE, ONE, classes=("cell", "clump")))
    assert any("nowhere annotated in the cases that train: clump" in problem.what for problem in found.problems)
