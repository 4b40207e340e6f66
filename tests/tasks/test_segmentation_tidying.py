from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hilum.tasks import fitting, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.segmentation.mask_postprocessing import Tidying
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Case, Geometry, Image, Label, Prediction

GRID = Geometry((16, 16, 8), np.diag([1.0, 1.0, 2.0, 1.0]))
TASK = Segmentation((Label(1, "organ"), Label(4, "lesion")))


def case(name: str, mask: np.ndarray, patient: str | None = None) -> Case:
    image = Image(np.zeros((1, *GRID.shape), np.float32), GRID)
    return Case(name, patient or name, {"image": image}, {"mask": Image(mask[None], GRID)})


def organ() -> np.ndarray:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[2:9, 2:9, 1:6] = 1
    return mask


def tuned(pairs: list[tuple[np.ndarray, np.ndarray]], patients: Sequence[str] = ()):
    predictions = [Prediction(GRID, data=predicted, labels=TASK.classes) for predicted, _ in pairs]
    owners = patients or [str(n) for n in range(len(pairs))]
    cases = [case(str(n), truth, owner) for n, ((_, truth), owner) in enumerate(zip(pairs, owners, strict=True))]
    return fitting.with_fitted_calibration(TASK, PredictedCases(predictions, cases))


def with_speck(size: int) -> np.ndarray:
    mask = organ()
    mask[12 : 12 + size, 12:14, 3:5] = 1
    return mask


def test_a_second_piece_in_most_cases_is_taken_away():
    task, decisions = tuned([(with_speck(2), organ()) for _ in range(6)])
    assert list(decisions) == ["task.postprocessing"]
    decision = decisions["task.postprocessing"]
    assert decision.value == {name: vars(rule) for name, rule in task.postprocessing.items()}
    assert "6 of 6 changed cases better" in decision.because
    cleaned = task.decode([(tuple(slice(0, n) for n in GRID.shape), {"mask": outputs(with_speck(2))})], GRID)
    np.testing.assert_array_equal(np.asarray(cleaned.data), organ())


def test_the_largest_piece_alone_is_never_kept_where_training_references_have_several_more_than_rarely():
    """Ten validation cases with one lesion each say little where one patient in ten has two."""
    pairs = [(with_speck(2), organ()) for _ in range(10)]
    rare, common = (
        fitting.with_fitted_calibration(
            replace(TASK, several={"organ": share}),
            PredictedCases(
                [Prediction(GRID, data=predicted, labels=TASK.classes) for predicted, _ in pairs],
                [case(str(n), truth) for n, (_, truth) in enumerate(pairs)],
            ),
        )[0]
        for share in (0.01, 0.1)
    )
    assert rare.postprocessing["organ"].largest or rare.postprocessing["organ"].smallest
    assert not common.postprocessing.get("organ", Tidying()).largest


def test_the_largest_piece_alone_is_kept_only_where_the_gain_is_sure():
    """Of ten cases two gain: in one of nine draws none of them would be there."""
    true = organ()
    large = with_speck(2)
    large[12:16, 10:16, 1:7] = 1
    task, decisions = tuned([(large, true)] * 2 + [(true, true)] * 8)
    assert not task.postprocessing.get("organ", Tidying()).largest, decisions
    task, _ = tuned([(large, true)] * 6 + [(true, true)] * 4)
    assert task.postprocessing["organ"].largest


def test_several_slices_of_one_patient_are_no_several_gains():
    """Six slices that gain, all of one patient of five: in one of three draws this patient would not be there."""
    large = with_speck(2)
    large[12:16, 10:16, 1:7] = 1
    pairs = [(large, organ())] * 6 + [(organ(), organ())] * 4
    assert tuned(pairs)[0].postprocessing["organ"].largest
    of_five = tuned(pairs, ["a"] * 6 + ["b", "c", "d", "e"])[0]
    assert not of_five.postprocessing.get("organ", Tidying()).largest
    few, decisions = tuned(pairs, ["a"] * 5 + ["b"] * 5)
    assert few.postprocessing == {}
    assert "10 validation cases of 2 patients are too few" in decisions["task.postprocessing"].because


def outputs(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask == value for value in (0, 1, 4)]).astype(np.float32)


def test_small_pieces_go_where_experts_mark_none_so_small():
    lesion = np.zeros(GRID.shape, np.uint8)
    lesion[2:5, 2:5, 1:4] = lesion[10:13, 2:5, 1:4] = 4  # two of 27 voxels, 54 mm3 each: no largest-only here
    predicted = lesion.copy()
    predicted[6, 12, 6] = 4
    predicted[2, 14, 1] = 4
    task, decisions = tuned([(predicted, lesion) for _ in range(5)])
    assert task.postprocessing == {"lesion": Tidying(smallest=27.0)}
    assert "small pieces removed" in decisions["task.postprocessing"].because


def test_what_is_wrongly_marked_in_an_empty_case_is_a_gain_when_removed():
    none = np.zeros(GRID.shape, np.uint8)
    pairs = [(organ(), organ()) for _ in range(4)]
    speck = none.copy()
    speck[0, 0, 0] = 1
    task, _ = tuned([*pairs, (speck, none)])
    assert task.postprocessing["organ"].smallest > 0


def test_holes_are_filled_where_experts_leave_none():
    holed = organ()
    holed[4:7, 4:7, 3:5] = 0
    task, _ = tuned([(holed, organ()) for _ in range(5)])
    assert task.postprocessing == {"organ": Tidying(holes=True)}


def test_it_is_off_where_it_does_not_help_where_few_gain_and_where_cases_are_few():
    task, decisions = tuned([(organ(), organ()) for _ in range(5)])
    assert task.postprocessing == {}
    assert decisions["task.postprocessing"].because.startswith("off")
    two = organ()
    two[11:15, 11:15, 1:6] = 1  # really two pieces: the largest alone would be worse
    assert tuned([(two, two) for _ in range(5)])[0].postprocessing == {}
    task, decisions = tuned([(with_speck(2), organ())] * 4)
    assert task.postprocessing == {}
    assert "too few" in decisions["task.postprocessing"].because


def test_what_a_person_set_stays():
    by_hand = Segmentation(TASK.classes, postprocessing={})
    predictions = [Prediction(GRID, data=with_speck(2), labels=TASK.classes)] * 6
    task, decisions = fitting.with_fitted_calibration(
        by_hand, PredictedCases(predictions, [case(str(n), organ()) for n in range(6)])
    )
    assert (task, decisions) == (by_hand, {})


def test_a_smallest_size_that_was_found_in_voxels_counts_voxels_in_images_of_known_size_too():
    """Half of a square of 36 pixels: in mm² no piece of less than 1800 of these finer pixels would stay."""
    grid = Geometry.of_pixels((32, 32))
    lesion = np.zeros(grid.shape, np.uint8)
    lesion[2:8, 2:8] = lesion[20:26, 20:26] = 4
    marked = lesion.copy()
    marked[12:14, 12:14] = 4
    image = Image(np.zeros((1, *grid.shape), np.float32), grid)
    cases = [Case(str(n), str(n), {"image": image}, {"mask": Image(lesion[None], grid)}) for n in range(5)]
    task, decisions = fitting.with_fitted_calibration(
        TASK, PredictedCases([Prediction(grid, data=marked, labels=TASK.classes)] * 5, cases)
    )
    assert task.postprocessing == {"lesion": Tidying(smallest=18.0, in_voxels=True)}
    rules = decisions["task.postprocessing"].value
    assert (
        task_settings.task_from_settings(Segmentation, {**task_settings.settings_of(task), "postprocessing": rules})
        == task
    )
    fine = Geometry.of_spacing(grid.shape, (0.1, 0.1))
    for geometry in (grid, fine):
        made = task.decode([(tuple(slice(0, n) for n in grid.shape), {"mask": outputs(marked)})], geometry)
        np.testing.assert_array_equal(np.asarray(made.data), lesion)
