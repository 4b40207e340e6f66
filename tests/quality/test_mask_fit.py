"""Cases whose mask does not fit their image are named, with what would fit; right sets are left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hilum.quality import axis_words, dataset_examination, outlier_limits
from hilum.values import Case, Dataset, Geometry, Image, Problem

SIDE, CASES, SPOILT = 26, 12, 5
Pair = tuple[np.ndarray, np.ndarray]


def organ_pair(number: int, *, contrast: float = 1.0, share_with_second: float = 1.0) -> Pair:
    """A body with a large structure (1) and a smaller one (2) in front of it, and noise; no two cases are alike."""
    rng = np.random.default_rng(number)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 3, indexing="ij")

    def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        a, b, c = np.array(centre) + rng.normal(0, 0.04, 3)
        p, q, r = np.array(radii) * np.exp(rng.normal(0, 0.08, 3))
        return ((x - a) / p) ** 2 + ((y - b) / q) ** 2 + ((z - c) / r) ** 2 < 1

    image = 20.0 + 5 * x + rng.normal(0, 4, x.shape)
    labels = np.zeros(x.shape, dtype=np.uint8)
    structures = [(1, (0.25, -0.2, 0.15), (0.35, 0.3, 0.45), 60.0)]
    if rng.random() < share_with_second:
        structures.append((2, (0.1, 0.45, -0.1), (0.2, 0.2, 0.3), 40.0))
    for value, centre, radii, brighter in structures:
        inside = ellipsoid(centre, radii)
        image[inside] += contrast * brighter
        labels[inside] = value
    return image, labels


def dataset_of(pairs: list[Pair], steps: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Dataset:
    """Cases in memory; axes run to the right, to the front and up."""
    grid = Geometry(pairs[0][0].shape, np.diag([*steps, 1.0]))
    cases = []
    for number, (image, labels) in enumerate(pairs):
        images = {"image": Image(image[None].astype(np.float32), grid, "MR")}
        cases.append(Case(f"case {number}", f"patient {number}", images, {"mask": Image(labels[None], grid)}))
    return Dataset(tuple(cases), patients_known=True)


def warnings_on(dataset: Dataset) -> list[Problem]:
    """Warnings about mask and image of single cases."""
    problems = dataset_examination.examine(dataset).problems
    return [problem for problem in problems if problem.severity == "warning" and problem.cases]


def move_back(image: np.ndarray, labels: np.ndarray) -> Pair:
    return image, np.roll(labels, 3, axis=1)


def mirror(image: np.ndarray, labels: np.ndarray) -> Pair:
    return image, labels[::-1].copy()


def reverse_image(image: np.ndarray, labels: np.ndarray) -> Pair:
    return image[:, :, ::-1].copy(), labels


def exchange_values(image: np.ndarray, labels: np.ndarray) -> Pair:
    return image, np.where(labels == 1, 2, np.where(labels == 2, 1, 0)).astype(np.uint8)


def invert(image: np.ndarray, labels: np.ndarray) -> Pair:
    return image.max() - image, labels


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (move_back, "the mask fits the image better 3.0 mm further back"),
        (mirror, "the mask fits the image mirrored left to right"),
        (reverse_image, "the mask fits the image mirrored top to bottom"),
        (exchange_values, "1 and 2 seem to be exchanged"),
        (invert, "structures are darker than what lies around them"),
    ],
)
def test_a_spoilt_case_is_named_with_the_cause(spoil: Callable[..., Pair], words: str) -> None:
    pairs = [organ_pair(number) for number in range(CASES)]
    pairs[SPOILT] = spoil(*pairs[SPOILT])
    found = warnings_on(dataset_of(pairs))
    assert any(words in problem.what for problem in found), found
    assert {case for problem in found for case in problem.cases} == {f"case {SPOILT}"}


def test_two_masks_that_are_exchanged_name_each_other() -> None:
    pairs = [organ_pair(number) for number in range(2 * CASES)]
    (first, at_first), (second, at_second) = pairs[3], pairs[7]
    moved = np.roll(at_second, 6, axis=2), np.roll(second, 6, axis=2)
    pairs[3], pairs[7] = (first, moved[0]), (moved[1], at_first)
    found = {problem.cases: problem.what for problem in warnings_on(dataset_of(pairs)) if "mask" in problem.what}
    assert found[("case 3",)].endswith("that of case 7 does")
    assert found[("case 7",)].endswith("that of case 3 does")


def test_right_sets_are_left_alone() -> None:
    assert not warnings_on(dataset_of([organ_pair(number) for number in range(CASES)]))


def test_two_scanners_of_opposite_contrast_are_no_finding() -> None:
    pairs = [organ_pair(number, contrast=1.0 if number % 2 else -0.5) for number in range(CASES)]
    assert not warnings_on(dataset_of(pairs))


def test_a_structure_that_a_third_lacks_is_no_finding() -> None:
    pairs = [organ_pair(number, share_with_second=0.67) for number in range(CASES)]
    assert not [problem for problem in warnings_on(dataset_of(pairs)) if "fit" in problem.what]


def test_masks_that_are_all_larger_than_the_organ_are_no_finding() -> None:
    pairs = []
    for number in range(CASES):
        image, labels = organ_pair(number)
        larger = labels.copy()
        for axis in range(3):
            for step in (-2, 2):
                larger = np.maximum(larger, np.roll(labels, step, axis))
        pairs.append((image, larger))
    assert not warnings_on(dataset_of(pairs))


def test_slices_of_five_millimetres_are_no_finding_and_a_shift_is_in_millimetres() -> None:
    pairs = [(image[:, :, ::3].copy(), labels[:, :, ::3].copy()) for image, labels in map(organ_pair, range(CASES))]
    assert not warnings_on(dataset_of(pairs, (1.0, 1.0, 5.0)))
    pairs[SPOILT] = pairs[SPOILT][0], np.roll(pairs[SPOILT][1], 2, axis=2)
    [found] = warnings_on(dataset_of(pairs, (1.0, 1.0, 5.0)))
    assert "10.0 mm further down" in found.what


def test_of_five_cases_none_is_called_unusual() -> None:
    pairs = [organ_pair(number) for number in range(5)]
    pairs[2] = mirror(*pairs[2])
    assert not warnings_on(dataset_of(pairs))


def test_where_most_cases_are_wrong_none_is_called_unusual_and_it_is_said() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(CASES):
        image, labels = organ_pair(number)
        pairs.append((image, np.roll(labels, tuple(rng.integers(4, 20, 3)), (0, 1, 2))))
    dataset = dataset_of(pairs)
    assert not [problem for problem in warnings_on(dataset) if "the mask fits" in problem.what]
    notes = [problem.why for problem in dataset_examination.examine(dataset).problems]
    assert "the cases disagree: no mask can be called unusual" in notes


@pytest.mark.parametrize("cases", [10, 20, 60])
def test_of_sets_without_a_fault_at_most_one_in_twenty_has_a_case_named(cases: int) -> None:
    rng = np.random.default_rng(cases)
    limit = outlier_limits.threshold(cases, 2, 0.05)
    named = 0
    for _ in range(200):
        # Tails heavier than those of a normal distribution: of Student's t with ten degrees of freedom.
        measures = rng.standard_t(10, (2, cases))
        named += any(outlier_limits.upper_deviations(values, 0.0).max() > limit for values in measures)
    assert named / 200 <= 0.05 + 1.96 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda image: np.roll(image, SIDE // 2, axis=0), "rolled by half of axis 1"),
        (lambda image: image[::-1].copy(), "the image looks mirrored left to right"),
        (lambda image: np.where(np.arange(SIDE) // 7 == 1, 0.0, image), "slices of one value lie within the image"),
    ],
)
def test_an_image_that_is_unlike_the_others_is_named(spoil: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    pairs = [organ_pair(number) for number in range(CASES)]
    pairs[SPOILT] = spoil(pairs[SPOILT][0]), pairs[SPOILT][1]
    found = [problem for problem in warnings_on(dataset_of(pairs)) if words in problem.what]
    assert [problem.cases for problem in found] == [(f"case {SPOILT}",)]


def test_axes_are_named_where_they_have_a_side_and_else_numbered() -> None:
    assert axis_words.mirror_words(2, oriented=False) == ("top to bottom", "left to right")
    assert axis_words.mirror_words(3, oriented=True)[0] == "left to right"
    assert axis_words.mirror_words(3, oriented=False)[2] == "along axis 3"
    assert axis_words.mirror_words(1, oriented=True) == ("along axis 1",)  # a series has no left and right
    assert axis_words.direction_words(3, oriented=False)[1] == ("down axis 2", "up axis 2")
