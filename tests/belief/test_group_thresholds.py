"""Thresholds of probability by groups of people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fairlearn.metrics import equalized_odds_difference, true_positive_rate

from hilum.belief import Certainty, operating_points
from hilum.belief.operating_points import GroupThresholds
from hilum.errors import PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.tasks import fitting, properties, task_settings
from hilum.tasks.classification.question import Classification
from hilum.tasks.findings.question import Findings
from hilum.tasks.fitting import PredictedCases
from hilum.values import Case, Confidence, Geometry, Prediction

GRID = Geometry((8, 8), np.eye(3))
AS_GIVEN = Certainty("none", Calibrator())
FINE_ILL = Classification(("fine", "ill"), certainty=AS_GIVEN, grouped=GroupThresholds("sex"))


def simulated(task: Classification | Findings, count: int = 400):
    """Cases of two sexes, of whom a network gives women lower probabilities, and predictions of them."""
    random = np.random.default_rng(0)
    sex, ill = np.where(random.random(count) < 0.5, "F", "M"), random.random(count) < 0.5
    chances = 1 / (1 + np.exp(-(random.normal(size=count) + 3 * ill - 1.5 - 1.5 * (sex == "F"))))
    one_of = isinstance(task, Classification)
    cases = [
        Case(
            id=f"c{n}",
            patient=f"p{n}",
            images={},
            references={"class": ("fine", "ill")[int(truth)]} if one_of else {"findings": {"ill": bool(truth)}},
            covariates={"sex": one, "age": 20 + n % 60},
        )
        for n, (one, truth) in enumerate(zip(sex, ill, strict=True))
    ]
    each = [{"fine": 1 - chance, "ill": chance} if one_of else {"ill": chance} for chance in chances.tolist()]
    predictions = [Prediction(GRID, probabilities=own, confidence=Confidence(uncalibrated=own)) for own in each]
    return predictions, cases, sex, ill, chances


def called(task, predictions, cases):
    each = [
        properties.covariate_adjustment(task)(one, case.covariates)
        for one, case in zip(predictions, cases, strict=True)
    ]
    table = task.score(each, cases)
    return (table["predicted"].isin(["ill", "present"])).to_numpy(), table


def test_a_group_gets_the_threshold_that_comes_nearest_to_the_common_sensitivity():
    chances, positive = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([False, True, False, True, True, True])
    # 3 of 4 are found from 0.4 on, and the next lower probability is 0.3.
    assert operating_points.group_threshold("equal_opportunity", chances, positive, 0.8, 0.0) == pytest.approx(0.35)
    # Both errors at once: from 0.2 on nobody is missed, but a half of the others is called.
    assert operating_points.group_threshold("equalised_odds", chances, positive, 1.0, 0.0) == pytest.approx(0.35)
    assert operating_points.group_threshold("equal_opportunity", chances, positive, 1.0, 0.0) == pytest.approx(0.15)


@pytest.mark.parametrize("criterion", ["equal_opportunity", "equalised_odds"])
def test_a_patient_of_a_group_decides_as_much_as_another_however_many_images_there_are_of_it(criterion):
    chances, positive = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([False, True, False, True, True, True])
    owners = np.repeat(np.arange(6), [3, 7, 1, 1, 1, 1])
    many = operating_points.group_threshold(criterion, chances[owners], positive[owners], 0.8, 0.0, owners)
    assert many == operating_points.group_threshold(criterion, chances, positive, 0.8, 0.0)
    assert many != operating_points.group_threshold(criterion, chances[owners], positive[owners], 0.8, 0.0)


@pytest.mark.parametrize("task", [FINE_ILL, Findings(("ill",), certainty=AS_GIVEN)])
def test_many_images_of_a_patient_move_no_threshold(task):
    task = replace(task, grouped=GroupThresholds("sex"))
    predictions, cases, *_ = simulated(task)
    again = [0, *[0] * 40, *range(1, len(cases)), *[1] * 40]
    once, often = (
        fitting.with_fitted_calibration(task, PredictedCases([predictions[n] for n in own], [cases[n] for n in own]))[0]
        for own in (range(len(cases)), again)
    )
    assert often.thresholds == once.thresholds
    assert often.grouped == once.grouped


@pytest.mark.parametrize("task", [FINE_ILL, Findings(("ill",), certainty=AS_GIVEN, grouped=GroupThresholds("sex"))])
def test_unseen_cases_of_each_group_find_its_threshold_and_the_sick_are_then_found_as_often(task):
    predictions, cases, sex, ill, chances = simulated(task)
    tuned, decisions = fitting.with_fitted_calibration(task, PredictedCases(predictions, cases))
    decision = decisions["task.thresholds_by_group"]
    assert decision.value == tuned.grouped.levels and set(decision.value) == {"f", "m"}
    assert decision.value["f"]["ill"] < tuned.thresholds["ill"] < decision.value["m"]["ill"]
    assert "sensitivity of the common threshold" in decision.because and "f: " in decision.because
    assert fitting.with_fitted_calibration(tuned, PredictedCases(predictions, cases)) == (tuned, {})
    assert task_settings.task_from_settings(type(task), task_settings.settings_of(tuned)) == tuned
    by_group, table = called(tuned, predictions, cases)
    common = chances >= tuned.thresholds["ill"]
    rates = {
        name: [true_positive_rate(ill[sex == one], own[sex == one]) for one in "FM"]
        for name, own in {"before": common, "after": by_group}.items()
    }
    assert abs(np.diff(rates["before"])) > 0.15 and abs(np.diff(rates["after"])) < 0.02
    column = table["threshold" if "threshold" in table else "threshold_ill"]
    assert column[sex == "F"].unique().tolist() == [decision.value["f"]["ill"]]


def test_thresholds_of_rare_findings_are_not_rounded_to_0():
    task = Findings(("ill",), certainty=AS_GIVEN, grouped=GroupThresholds("sex"))
    predictions, cases, *_ = simulated(task)
    rare = []
    for one in predictions:
        own = {"ill": 1e-8 * one.probabilities["ill"]}
        rare.append(replace(one, probabilities=own, confidence=Confidence(uncalibrated=own)))
    found, usual = (
        fitting.with_fitted_calibration(task, PredictedCases(own, cases))[0].grouped.levels
        for own in (rare, predictions)
    )
    for sex in "fm":
        assert found[sex]["ill"] == pytest.approx(1e-8 * usual[sex]["ill"], rel=1e-3)


def test_equalised_odds_count_false_alarms_too():
    task = replace(FINE_ILL, grouped=GroupThresholds("sex", "equalised_odds"))
    predictions, cases, sex, ill, chances = simulated(task)
    tuned, _ = fitting.with_fitted_calibration(task, PredictedCases(predictions, cases))
    by_group, _ = called(tuned, predictions, cases)
    common = chances >= tuned.thresholds["ill"]
    before, after = (equalized_odds_difference(ill, own, sensitive_features=sex) for own in (common, by_group))
    assert after < before / 2


def test_a_case_of_an_unknown_group_gets_the_common_threshold_and_its_result_says_so():
    predictions, cases, *_ = simulated(FINE_ILL)
    tuned, _ = fitting.with_fitted_calibration(FINE_ILL, PredictedCases(predictions, cases))
    chance = (tuned.thresholds["ill"] + tuned.grouped.levels["f"]["ill"]) / 2
    own = Prediction(GRID, probabilities={"fine": 1 - chance, "ill": chance})
    made = {sex: properties.covariate_adjustment(tuned)(own, {"sex": sex}) for sex in ("f", "D", "")}
    assert {sex: tuned.outputs(one)["predicted"] for sex, one in made.items()} == {
        "f": "ill",
        "D": "fine",
        "": "fine",
    }
    assert not made["f"].notes
    for stated in (made["D"], made[""], properties.covariate_adjustment(tuned)(own, {})):
        assert "the common threshold holds" in stated.notes[0]


def test_where_no_unseen_case_is_sick_a_threshold_that_is_set_holds_for_all():
    predictions, cases, _, ill, _ = simulated(FINE_ILL)
    well = np.flatnonzero(~ill)
    task = replace(FINE_ILL, thresholds={"ill": 0.5})
    tuned, decisions = fitting.with_fitted_calibration(
        task, PredictedCases([predictions[n] for n in well], [cases[n] for n in well])
    )
    assert tuned.grouped.levels == {}
    assert "too few, the common threshold holds" in decisions["task.thresholds_by_group"].because


def test_groups_of_too_few_unseen_cases_change_nothing():
    task = replace(FINE_ILL, grouped=GroupThresholds("age:22"))
    predictions, cases, *_ = simulated(task)
    tuned, decisions = fitting.with_fitted_calibration(task, PredictedCases(predictions[:60], cases[:60]))
    assert "<22: " in decisions["task.thresholds_by_group"].because
    assert "are too few, the common threshold holds" in decisions["task.thresholds_by_group"].because
    assert set(tuned.grouped.levels) == {">=22"}
    few, _ = fitting.with_fitted_calibration(task, PredictedCases(predictions[:15], cases[:15]))
    assert few.grouped.levels == {} and properties.covariate_adjustment(few) is None


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"classes": ["a", "b", "c"], "group_thresholds": "sex"}, "only for two classes"),
        ({"order": "softmax", "group_thresholds": "sex"}, "only for two classes"),
        ({"costs": [[0, 1], [5, 0]], "group_thresholds": "sex"}, "only for two classes"),
        ({"group_thresholds": True}, "True names no groups"),
        ({"group_thresholds": "sex,age:60"}, "names no groups"),
        ({"group_thresholds": "sex", "group_criterion": "demographic_parity"}, "there is no criterion"),
        ({"group_thresholds": "sex", "thresholds_by_group": {"f": {"worse": 0.4}}}, "there is no class 'worse'"),
        ({"group_thresholds": "sex", "thresholds_by_group": {"f": {"b": 4}}}, "4.0 for b"),
    ],
)
def test_thresholds_of_groups_that_cannot_be_are_refused(settings, match):
    with pytest.raises(PlanError, match=match):
        task_settings.task_from_settings(Classification, {"classes": ["a", "b"], "smoothing": 0.0, **settings})
