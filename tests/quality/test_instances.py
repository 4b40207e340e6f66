"""Maps that number objects, as they should not be."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.quality import dataset_examination
from hilum.quality.references import instances
from hilum.values import Case, Dataset, Geometry, Image


def grid_of_squares(count: int, size: int = 160) -> np.ndarray:
    """(size, size) squares of 3 x 3 voxels, numbered from the first row on."""
    numbers = np.zeros((size, size), dtype=np.int64)
    a_row = size // 6
    for n in range(count):
        down, across = 6 * (n // a_row), 6 * (n % a_row)
        numbers[down : down + 3, across : across + 3] = n + 1
    return numbers


def dataset(*maps: np.ndarray, splits=None, notes: tuple[str, ...] = ()) -> Dataset:
    cases = []
    for n, numbers in enumerate(maps):
        pixels = np.random.default_rng(n).integers(0, 255, (1, *numbers.shape)).astype(np.uint8)
        geometry = Geometry.of_pixels(numbers.shape)
        reference = Image(numbers[None], geometry, notes=notes)
        cases.append(Case(f"c{n}", f"p{n}", {"image": Image(pixels, geometry)}, {"instances": reference}))
    return Dataset(tuple(cases), splits=splits or {})


def findings(found, severity: str) -> list[str]:
    return [problem.what for problem in found.problems if problem.severity == severity and "instances" in problem.what]


def test_a_case_whose_numbers_wrapped_in_8_bits_is_left_out():
    numbers = grid_of_squares(270)
    found = dataset_examination.examine(dataset(numbers % 256, grid_of_squares(270)))
    [problem] = [one for one in found.problems if "wrapped" in one.what]
    assert (problem.severity, problem.cases) == ("error", ("c0",))
    assert "14 numbers are in pieces far apart" in problem.what
    assert "16 bits" in problem.remedy
    assert [case.id for case in found.dataset] == ["c1"]


def test_just_255_objects_are_no_reason_for_suspicion():
    assert findings(dataset_examination.examine(dataset(grid_of_squares(255))), "error") == []


def test_a_number_in_two_pieces_far_apart_is_pointed_at_and_one_in_two_near_pieces_is_not():
    numbers = np.zeros((40, 40), dtype=np.int64)
    numbers[2:6, 2:6], numbers[30:34, 30:34] = 1, 1
    numbers[2:6, 20:24], numbers[2:6, 26:30] = 2, 2
    assert instances.torn_objects(numbers) == [1]
    assert any(
        "1 number is in pieces far apart (1)" in what
        for what in findings(dataset_examination.examine(dataset(numbers)), "warning")
    )


def test_numbers_may_be_as_large_as_they_like():
    numbers = grid_of_squares(3) * 1_000_000_000
    found = dataset_examination.examine(dataset(numbers))
    assert found.fingerprint.cases[0].references["instances"][3_000_000_000] == 9
    assert found.fingerprint.cases[0].components == dict.fromkeys((10**9, 2 * 10**9, 3 * 10**9), 1)


def test_what_reading_had_to_decide_about_overlaps_is_said_with_the_case():
    found = dataset_examination.examine(dataset(grid_of_squares(4), notes=("masks of objects overlap in 3 voxels",)))
    assert findings(found, "warning") == ["instances: masks of objects overlap in 3 voxels"]


def test_one_object_that_fills_the_image_is_pointed_at():
    found = dataset_examination.examine(dataset(np.ones((30, 30), dtype=np.int64), grid_of_squares(4)))
    [problem] = [one for one in found.problems if "fills the whole image" in one.what]
    assert problem.cases == ("c0",)


def test_an_image_without_objects_is_legal_and_noted():
    found = dataset_examination.examine(dataset(np.zeros((60, 60), dtype=np.int64), grid_of_squares(4, 60)))
    assert found.fatal == ()
    assert [problem.cases for problem in found.problems if problem.what == "instances is empty"] == [("c0",)]


@pytest.mark.parametrize(("splits", "count"), [({}, 3), ({"c2": "test"}, 2)])
def test_no_object_in_all_that_would_train_forbids_going_on(splits, count):
    empty = np.zeros((60, 60), dtype=np.int64)
    found = dataset_examination.examine(
        dataset(empty, empty, grid_of_squares(4, 60) if splits else empty, splits=splits)
    )
    assert [f"all {count} are background" in problem.what for problem in found.fatal] == [True]


def test_maps_in_which_every_object_has_the_number_1_forbid_going_on():
    found = dataset_examination.examine(dataset(*[(grid_of_squares(n) > 0).astype(np.int64) for n in (5, 9, 12)]))
    [problem] = found.fatal
    assert "holds one number, in several pieces" in problem.what
    assert "--task segmentation" in problem.remedy


def test_one_object_an_image_is_legal():
    assert dataset_examination.examine(dataset(*[grid_of_squares(1, size) for size in (40, 50, 60)])).fatal == ()
