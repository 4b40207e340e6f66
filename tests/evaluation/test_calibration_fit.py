"""Calibrators: what they recover, how they are chosen, and other people's implementations of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression

from hilum.evaluation import calibration_fit
from hilum.evaluation.calibration_fit import SIMPLEST, USUAL_SPREAD, Calibrator, UnseenOutputs

NAMES = ("a", "b", "c", "d", "e")


def unseen(
    count: int, classes: int, *, sure: float = 1.0, scale="classes", seed: int = 0, each: int = 1
) -> UnseenOutputs:
    """Cases whose classes follow probabilities that the network states with so many times their log odds."""
    random = np.random.default_rng(seed)
    logs = calibration_fit.normalise_logs(random.normal(0, 1.5, (count, classes)))
    truth = np.array([random.choice(classes, p=np.exp(one)) for one in logs])
    return UnseenOutputs(logs * sure, truth, (np.arange(count) // each).astype(str), NAMES[:classes], scale)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_temperature_takes_back_what_made_a_network_too_sure(classes):
    [factor] = calibration_fit.fit_calibrator("temperature", unseen(4000, classes, sure=2.5)).parameters["all"]
    assert factor == pytest.approx(1 / 2.5, rel=0.06)


@pytest.mark.parametrize(("classes", "scale"), [(2, "classes"), (4, "classes"), (5, "grades")])
@pytest.mark.parametrize("method", SIMPLEST)
def test_calibrated_probabilities_add_up_to_one_and_are_no_worse_where_they_were_fitted(classes, scale, method):
    own = unseen(600, classes, sure=2.5, scale=scale)
    calibrator = calibration_fit.fit_calibrator(method, own)
    assert_allclose(np.exp(own.apply_calibrator(calibrator)).sum(axis=1), 1)
    if (method, scale) != ("isotonic", "grades"):  # it may leave a grade between two steps next to nothing
        assert own.losses(calibrator).mean() < own.losses(Calibrator()).mean()
    assert Calibrator.from_record(calibrator.settings) == calibrator


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=5), st.sampled_from(["classes", "grades"]))
def test_log_probabilities_come_back_from_their_odds(numbers, scale):
    logs = calibration_fit.normalise_logs(np.array([numbers]))
    assert_allclose(calibration_fit.logs_from_odds(calibration_fit.class_odds(logs, scale), scale), logs, atol=1e-5)


def test_probabilities_next_to_one_stay_apart():
    nearly = np.log([[1e-9, 1 - 1e-9], [1e-12, 1 - 1e-12]])
    rest = Calibrator("temperature", {"all": [0.5]}, 1).classes(nearly, ("no", "yes"))[:, 0]
    assert_allclose(np.exp(rest), [1e-9**0.5, 1e-6], rtol=1e-4)


def test_platt_and_isotonic_are_those_of_scikit_learn():
    random = np.random.default_rng(1)
    odds = random.normal(0, 2, 300)
    positive = (random.random(300) < 1 / (1 + np.exp(0.3 - odds / 2))).astype(float)
    own = UnseenOutputs(odds[:, None], positive[:, None], np.arange(300).astype(str), ("nodule",), "labels")

    def chances(method):
        return 1 / (1 + np.exp(-own.apply_calibrator(calibration_fit.fit_calibrator(method, own))[:, 0]))

    assert_allclose(chances("platt"), _SigmoidCalibration().fit(odds, positive).predict(odds), atol=1e-4)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(odds, positive).predict(odds)
    assert_allclose(chances("isotonic"), theirs.clip(0.5 / 301, 1 - 0.5 / 301), atol=1e-4)


def test_of_few_cases_only_a_temperature_is_fitted():
    assert calibration_fit.choose_calibrator("auto", unseen(29, 2, sure=4.0)).calibrator.method == "temperature"


@pytest.mark.parametrize(("patients", "methods"), [(2, {"temperature"}), (60, {"platt", "beta"})])
def test_few_patients_are_few_cases_however_many_answers_they_have(patients, methods):
    own = unseen(600, 2)
    shifted, owners = own.logs + np.array([0.0, 1.5]), (np.arange(600) % patients).astype(str)
    assert (
        calibration_fit.choose_calibrator(
            "auto", UnseenOutputs(shifted, own.truth, owners, own.names)
        ).calibrator.method
        in methods
    )


def test_steps_follow_a_thousand_patients_and_not_a_thousand_answers():
    own = unseen(1200, 2)
    steps = np.where(own.logs[:, 1] > own.logs[:, 0], 0.9, 0.1)  # what no line through the odds gives
    positive = (np.random.default_rng(0).random(1200) < steps).astype(float)
    odds = (own.logs[:, 1] - own.logs[:, 0])[:, None] ** 3

    def method(each: int) -> str:
        owners = (np.arange(1200) // each).astype(str)
        return calibration_fit.choose_calibrator(
            "auto", UnseenOutputs(odds, positive[:, None], owners, ("a",), "labels")
        ).calibrator.method

    assert method(1) == "isotonic"
    assert method(2) != "isotonic"


@pytest.mark.parametrize(("classes", "scale"), [(2, "classes"), (4, "classes"), (4, "grades")])
def test_each_fifth_of_the_patients_has_its_share_of_every_class(classes, scale):
    own = unseen(200, classes, scale=scale)
    truth = np.minimum(np.arange(200) // 10, classes - 1)  # ten patients of each class but the last
    parts = calibration_fit.deal_into_parts(UnseenOutputs(own.logs, truth, own.patients, own.names, scale))
    assert [np.bincount(parts[truth == one]).tolist() for one in range(classes - 1)] == [[2] * 5] * (classes - 1)


def test_what_is_calibrated_stays_nearly_as_it_is():
    own = unseen(400, 3, sure=1.0)
    calibrator = calibration_fit.choose_calibrator("auto", own).calibrator
    assert (
        np.abs(np.exp(own.apply_calibrator(calibrator)) - np.exp(calibration_fit.normalise_logs(own.logs))).max() < 0.1
    )


def test_a_shift_is_found_where_a_temperature_cannot_help():
    own = unseen(2000, 2)
    shifted = own.logs + np.array([0.0, 1.5])
    chosen = calibration_fit.choose_calibrator("auto", UnseenOutputs(shifted, own.truth, own.patients, own.names))
    assert chosen.calibrator.method in ("platt", "beta")
    assert "log loss" in chosen.because


def test_a_patient_weighs_the_same_however_many_images_there_are_of_it():
    own = unseen(200, 2, sure=2.0)
    first = own.patients == own.patients[0]
    many = np.concatenate([np.arange(200), np.repeat(np.flatnonzero(first), 50)])
    again = UnseenOutputs(own.logs[many], own.truth[many], own.patients[many], own.names)
    once, often = (calibration_fit.fit_calibrator("temperature", one).parameters["all"][0] for one in (own, again))
    assert once == pytest.approx(often, rel=1e-3)


def test_outputs_that_are_no_numbers_or_all_alike_calibrate_nothing():
    own = unseen(60, 2)
    nothing = np.full_like(own.logs, np.nan)
    assert (
        calibration_fit.choose_calibrator(
            "auto", UnseenOutputs(nothing, own.truth, own.patients, own.names)
        ).calibrator.method
        == "none"
    )
    alike = np.full_like(own.logs, np.log(0.5))
    made = calibration_fit.choose_calibrator(
        "auto", UnseenOutputs(alike, own.truth, own.patients, own.names)
    ).calibrator
    assert np.isfinite(made.classes(alike, own.names)).all()


def test_a_class_that_no_case_has_keeps_a_probability():
    own = unseen(200, 3, sure=2.0)
    kept = own.only(own.truth != 2)
    for method in SIMPLEST:
        assert np.isfinite(kept.apply_calibrator(calibration_fit.fit_calibrator(method, kept))).all(), method


def test_cases_that_are_all_told_apart_make_no_network_as_sure_as_can_be():
    odds = np.where(np.arange(24) % 2, 3.0, -3.0)
    logs = np.stack([-np.logaddexp(0, odds), -np.logaddexp(0, -odds)], axis=1)
    people, truth = np.arange(24).astype(str), np.arange(24) % 2
    free, held = (UnseenOutputs(logs, truth, people, ("no", "yes"), spread=spread) for spread in (None, USUAL_SPREAD))
    assert calibration_fit.fit_calibrator("temperature", free).parameters["all"][0] > 3
    assert calibration_fit.fit_calibrator("temperature", held).parameters["all"][0] < 1.5


@pytest.mark.parametrize(
    ("classes", "scale", "method"), [(3, "classes", "vector"), (2, "classes", "vector"), (1, "labels", "platt")]
)
@pytest.mark.parametrize("voxels", [3e2, 3e5])
def test_the_summed_probability_of_a_structure_becomes_its_volume_however_small_it_is(classes, scale, method, voxels):
    """Of ten million voxels a sample near the structure, in which each stands for few, and one of all others."""
    random = np.random.default_rng(0)
    near, far = random.normal(-1.5, 3, (4000, max(1, classes - 1))), np.full((1000, max(1, classes - 1)), -30.0)
    odds = np.concatenate([near, far])
    right = calibration_fit.normalise_logs(np.hstack([np.zeros((len(odds), 1)), odds]))
    truth = (random.random(len(odds))[:, None] > np.exp(right).cumsum(axis=1)[:, :-1]).sum(axis=1)
    logs = 2 * right if scale == "classes" else 2 * odds
    logs[:, -1] += 1.0
    weights = np.repeat([voxels / len(near), 1e7 / len(far)], [len(near), len(far)])
    answers = truth if scale == "classes" else truth[:, None]
    own = UnseenOutputs(
        calibration_fit.normalise_logs(logs) if scale == "classes" else logs,
        answers,
        np.arange(5000) % 8,
        NAMES[:classes],
        scale,
        weights,
    )

    def error(calibrator: Calibrator) -> float:
        """Relative, of the last structure."""
        after = own.apply_calibrator(calibrator)[:, -1]
        chance = np.exp(after) if scale == "classes" else 1 / (1 + np.exp(-after))
        there = truth == truth.max()
        return float(own.counts @ chance / own.counts[there].sum() - 1)

    assert abs(error(Calibrator())) > 0.05
    assert error(calibration_fit.fit_calibrator(method, own)) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("scale", ["classes", "labels"])
@pytest.mark.parametrize("spread", [None, USUAL_SPREAD])
def test_a_temperature_by_sums_of_sites_is_that_of_all_their_patients(scale, spread):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 90)
    logs = rng.normal(0, 2, (90, 3)) + 3 * (truth[:, None] == np.arange(3))
    answers = truth
    if scale == "labels":
        answers = (rng.random((90, 3)) < 0.5).astype(float)
        logs = rng.normal(0, 2, (90, 3)) + 2 * answers
        answers[rng.random((90, 3)) < 0.1] = np.nan
    patients = np.array([f"p{n // 2}" for n in range(90)])  # two samples of each
    every = UnseenOutputs(logs, answers, patients, ("a", "b", "c"), scale, spread=spread)
    sites = [every.only(part) for part in (np.arange(50), np.arange(50, 80), np.arange(80, 90))]

    def slopes(log):
        return tuple(
            sum(pair) for pair in zip(*(calibration_fit.factor_slopes(one, log) for one in sites), strict=True)
        )

    [pooled] = calibration_fit.fit_calibrator("temperature", every).parameters["all"]
    assert calibration_fit.common_factor(slopes, spread) == pytest.approx(pooled, abs=1e-6)
    before, after = (calibration_fit.factor_slopes(every, log)[0] for log in (0.3 - 1e-5, 0.3 + 1e-5))
    losses = [
        every.losses(Calibrator("temperature", {"all": [float(np.exp(log))]})) @ every.counts for log in (0.299, 0.301)
    ]
    first, second = calibration_fit.factor_slopes(every, 0.3)
    assert_allclose([first, second], [(losses[1] - losses[0]) / 0.002, (after - before) / 2e-5], rtol=1e-4)
