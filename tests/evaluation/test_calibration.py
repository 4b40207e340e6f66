"""Errors of probabilities by bins, and what would still make them right."""

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric, CalibrationReduction
from scipy.special import expit, log_softmax, ndtr

from hilum.evaluation import calibration, classification
from hilum.evaluation.calibration import BY_MASS, BY_WIDTH, LARGEST_GAP
from hilum.evaluation.classification import BINS
from matrices import rarely


def people(count: int) -> np.ndarray:
    return np.arange(count).astype(str)


def test_bins_of_equal_mass_see_an_error_that_one_bin_of_equal_width_averages_away():
    chance = np.linspace(0.01, 0.05, 2000)
    happened = np.arange(2000) % 100 < 3
    assert classification.ece(chance, happened) == pytest.approx(0, abs=1e-3)
    assert calibration.ece_of_equal_mass(chance, happened) > 0.008


@pytest.mark.parametrize(
    "error", [classification.ece, calibration.ece_of_equal_mass, classification.largest_calibration_error]
)
def test_errors_of_several_draws_at_once_are_those_of_each_alone(error):
    random = np.random.default_rng(0)
    chance = random.integers(0, 30, 200) / 30
    happened = random.random((7, 200)) < chance
    np.testing.assert_allclose(error(chance, happened), [error(chance, own) for own in happened], rtol=1e-12)


def test_the_largest_error_is_that_of_the_worst_bin():
    chance, happened = np.repeat([0.1, 0.9], 100), np.tile(np.arange(100) < 30, 2)
    assert classification.largest_calibration_error(chance, happened) == pytest.approx(0.6)
    assert classification.ece(chance, happened) == pytest.approx((0.2 + 0.6) / 2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (classification.ece, CalibrationReduction.EXPECTED),
        (classification.largest_calibration_error, CalibrationReduction.MAXIMUM),
    ],
)
def test_errors_by_bins_are_those_of_monai(ours, theirs):
    random = np.random.default_rng(0)
    chance = random.beta(0.7, 0.7, 500).astype(np.float32)
    happened = random.random(500) < chance**1.5
    metric = CalibrationErrorMetric(15, calibration_reduction=theirs)
    metric(torch.from_numpy(chance)[None, None], torch.from_numpy(happened)[None, None].float())
    assert float(ours(chance, happened)) == pytest.approx(float(metric.aggregate()), abs=1e-6)


def test_the_temperature_that_remains_is_the_one_by_which_a_network_was_made_too_sure():
    random = np.random.default_rng(0)
    logs = log_softmax(random.normal(0, 2, (3000, 4)), axis=1)
    truth = np.array([random.choice(4, p=np.exp(one)) for one in logs])
    found = calibration.remaining_temperature(logs * 1.7, truth, people(3000))
    assert found.low < 1.7 < found.high
    assert found.high - found.low < 0.2


def test_copies_of_every_image_make_no_interval_narrower():
    random = np.random.default_rng(1)
    odds = random.normal(0, 1, 300)
    happened = random.random(300) < expit(odds - 0.5)
    once = calibration.slope_and_intercept(odds, happened, people(300))
    often = calibration.slope_and_intercept(np.tile(odds, 4), np.tile(happened, 4), np.tile(people(300), 4))
    for one, other in zip(once, often, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-6)
    slope, intercept = once
    assert slope.low < 1 < slope.high
    assert intercept.low < -0.5 < intercept.high


@pytest.mark.parametrize("apart", [0.7, rarely(1.6)])
@pytest.mark.whole
def test_the_interval_of_a_slope_holds_the_true_one_also_of_few_cases_that_are_almost_parted(apart):
    random, held = np.random.default_rng(1), []
    for _ in range(200):
        ill = random.random(40) < 0.35
        seen = apart * (2 * ill - 1) + random.normal(size=40)
        slope, _ = calibration.slope_and_intercept(2 * apart * seen + np.log(0.35 / 0.65), ill, people(40))
        held += [] if np.isnan(slope.value) else [slope.low <= 1 <= slope.high]
    assert np.mean(held) > 0.92


def test_cases_that_a_line_parts_have_no_slope():
    odds = np.linspace(-3, 3, 40)
    slope, _ = calibration.slope_and_intercept(odds, odds > 0, people(40))
    assert np.isnan(slope.value)
    assert "separate the two outcomes" in slope.method


@pytest.mark.filterwarnings("error")
def test_probabilities_that_are_too_sure_for_any_step_have_no_slope_in_place_of_a_false_one():
    # a line parts these 12 patients, and Newton's steps overshoot until chances are 0 and 1 to the last digit
    odds = [-11.1, -2.4, -12.3, -9.4, 17.5, 7.5, 6.8, -0.2, -3.5, -0.3, -4.3, 5.2]
    slope, _ = calibration.slope_and_intercept(odds, [1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0], range(12))
    assert (slope.low, slope.high) == (None, None)
    _, intercept = calibration.slope_and_intercept(np.linspace(-800, -799, 40), np.arange(40) < 20, range(40))
    assert np.isnan(intercept.value)
    assert "too sure to tell" in intercept.method


def probable(cases: int, classes: int = 4, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(cases, classes) probabilities, and references that are as frequent as their powers say."""
    random = np.random.default_rng(0)
    logs = log_softmax(random.normal(0, 2, (cases, classes)), axis=1)
    truth = np.array([random.choice(classes, p=np.exp(one)) for one in logs])
    return np.exp(log_softmax(power * logs, axis=1)), truth


def test_the_parts_of_the_brier_score_of_several_classes_add_up_to_it():
    chances, truth = probable(4000)
    true = np.eye(4)[truth]
    reliable, resolved, uncertain = calibration.brier_parts(chances, true)
    score = float(((chances - true) ** 2).sum(axis=1).mean())
    assert reliable - resolved + uncertain == pytest.approx(score, abs=0.005)  # within a bin probabilities differ
    assert reliable < 0.005
    assert calibration.brier_parts(probable(4000, power=3.0)[0], true)[0] > 0.02


@pytest.mark.parametrize(("kept", "images"), [(1.0, 1), (0.6, 1), (0.6, 2)])
@pytest.mark.whole
def test_intervals_of_the_parts_of_the_brier_score_hold_what_many_more_images_would_have(kept: float, images: int):
    middles = (1 - 1 / BINS**2) / 12  # the variance of the middles of the bins of uniform probabilities
    truths = ((1 - kept) ** 2 * middles, kept**2 * middles, 0.25)
    held, studies = np.zeros(3), 30
    for number in range(studies):
        random = np.random.default_rng(number)
        chance = np.repeat(random.random(100), images)  # the same for all images of a patient
        true = np.repeat(random.random(100), images) < 0.5 + kept * (chance - 0.5)
        made = calibration.brier_estimates(chance, true, np.arange(100).repeat(images), seed=0)
        held += [one.low - 1e-12 <= truth <= one.high + 1e-12 for one, truth in zip(made, truths, strict=True)]
    assert (held >= 0.85 * studies).all()  # 0.95 less two and a half standard errors


def test_parts_of_the_brier_score_of_several_classes_have_intervals_about_those_of_many_more_images():
    many, all_truth = probable(8000)
    far, held = calibration.brier_parts(many, np.eye(4)[all_truth]), np.zeros(3)
    for start in range(0, 8000, 400):
        own, true = many[start : start + 400], np.eye(4)[all_truth[start : start + 400]]
        made = calibration.brier_estimates(own, true, people(400), seed=0)
        assert tuple(one.value for one in made) == calibration.brier_parts(own, true)
        held += [one.low <= part <= one.high for one, part in zip(made, far, strict=True)]
    assert (held >= 16).all()  # of 20: 0.95 less two and a half standard errors


def test_parts_of_the_brier_score_of_one_patient_or_of_a_model_that_says_the_same_of_all_need_no_law():
    for one in calibration.brier_estimates([0.2, 0.7], [0, 1], ["a", "a"], seed=0):
        assert (one.low, one.method.partition(";")[0]) == (None, "none: one patient")
    *_, uncertainty = calibration.brier_estimates(np.full(6, 0.9), [0, 1] * 3, [0, 0, 1, 1, 2, 2], seed=0)
    assert (uncertainty.value, uncertainty.low) == (0.25, None)
    assert uncertainty.method.startswith("none: all patients have the same share")
    _, resolution, uncertainty = calibration.brier_estimates(np.full(40, 0.3), np.arange(40) < 12, range(40), seed=0)
    assert (resolution.value, resolution.low, resolution.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert uncertainty.low < 0.21 < uncertainty.high <= 0.25


def test_an_error_of_several_classes_is_the_mean_of_theirs_beside_a_perfect_models_and_states_its_bins():
    chances, truth = probable(400)
    found = calibration.calibration_error(chances, np.eye(4)[truth], people(400), seed=0, kind=BY_MASS)
    each = [calibration.ece_of_equal_mass(chances[:, n], truth == n) for n in range(4)]
    assert found.value == pytest.approx(np.mean(each))
    expected = float(found.method.split(" has ")[1].split()[0])
    assert found.value == pytest.approx(expected, abs=0.02)  # these probabilities are right
    assert found.method.endswith("; 15 bins of equal mass")
    few = calibration.calibration_error(chances[:40, 1], truth[:40] == 1, people(40), seed=0, kind=BY_MASS)
    assert few.method.endswith("; 4 bins of equal mass")


def studied(seed: int, power: float, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images,) probabilities, outcomes that they are right of for the power 1, and whose each of two images is."""
    random = np.random.default_rng(seed)
    person, image, luck = random.normal(size=(count, 1)), random.normal(size=(count, 2)), random.random((count, 2))
    true = ndtr((person + image) / 2**0.5).ravel()
    odds = power * (np.log(true) - np.log1p(-true))
    return expit(odds), luck.ravel() < true, np.arange(count).repeat(2)


@pytest.mark.parametrize("kind", [BY_WIDTH, BY_MASS, LARGEST_GAP], ids=["width", "mass", "largest"])
@pytest.mark.parametrize("power", [1.0, 2.5])
def test_intervals_of_errors_by_bins_hold_what_many_more_images_would_have(kind, power):
    """A bootstrap of the error holds none of those of a calibrated model, which are 0."""
    chance, _, _ = studied(0, power, 100_000)
    right = expit((np.log(chance) - np.log1p(-chance)) / power)
    place = kind.shares(chance)
    apart = np.abs((chance - right) @ place)
    true = (apart / place.sum(axis=0)).max() if kind.largest else apart.sum() / len(chance)
    found = [
        calibration.calibration_error(*studied(seed, power, 100), seed=0, kind=kind, draws=2) for seed in range(60)
    ]
    assert np.mean([one.low <= true <= one.high for one in found]) >= 0.93
    if power > 1:
        assert np.mean([one.low for one in found]) > 0.01
    else:
        assert true == pytest.approx(0)
        assert all(one.value > 0 for one in found)


def test_copies_of_an_image_leave_the_interval_of_an_error_by_bins_as_it_is():
    chance, happened, _ = studied(3, 2.0, 60)
    once = calibration.calibration_error(chance, happened, people(120), seed=0)
    often = calibration.calibration_error(*(np.tile(one, 5) for one in (chance, happened, people(120))), seed=0)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.02)
    alone = calibration.calibration_error(chance, happened, np.zeros(120), seed=0)
    assert alone.low is None
    assert alone.method.startswith("none: one patient; a calibrated model has")


def test_a_bin_in_which_nothing_happened_is_no_sure_error():
    """Of 40 images with a probability of 2 % most sets have no event: nothing is shown against the 2 %."""
    found = calibration.calibration_error(np.full(40, 0.02), np.zeros(40), people(40), seed=0)
    assert found.value == pytest.approx(0.02)
    assert found.low == 0
