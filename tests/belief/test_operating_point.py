from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hilum.belief import operating_points
from hilum.belief.operating_points import OperatingPoint
from hilum.errors import PlanError, UsageError
from hilum.tasks import task_catalogue, task_settings
from hilum.values import BY_HAND, Decision

YOUDEN = OperatingPoint("youden")
CASES = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=4, max_size=60).filter(
    lambda cases: len({truth for _, truth in cases}) == 2
)


def split(cases: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score / 20 for score, _ in cases]), np.array([truth for _, truth in cases])


def at(level: float, chances: np.ndarray, truths: np.ndarray) -> tuple[float, float]:
    called = chances >= level
    return float(called[truths].mean()), float((~called[~truths]).mean())


@settings(max_examples=20, deadline=None)
@given(CASES)
def test_youden_is_the_largest_sum_that_any_threshold_reaches(cases):
    chances, truths = split(cases)
    best = max(sum(at(level, chances, truths)) for level in np.arange(-0.5, 22) / 20)
    assert sum(at(operating_points.choose_threshold(YOUDEN, chances, truths), chances, truths)) == pytest.approx(best)


@pytest.mark.parametrize(("ill", "rule", "confidence", "place"), [
    (19, "sensitivity>=0.95", None, 1),
    (38, "sensitivity>=0.95", None, 1),
    (39, "sensitivity>=0.95", None, 2),
    (10, "specificity>=0.9", None, 1),
    (200, "specificity>=0.95", None, 10),
    (45, "sensitivity>=0.95", 0.9, 1),
    (93, "sensitivity>=.95", 0.95, 2),  # of tables of tolerance limits
    (59, "specificity>=.95", 0.95, 1),
])  # fmt: skip
def test_a_named_figure_is_an_order_statistic_of_those_whom_it_names(ill, rule, confidence, place):
    point, high = OperatingPoint(rule, confidence), rule.startswith("specificity")
    chances = np.random.default_rng(ill).random(ill + 30)
    named = np.arange(ill + 30) < ill
    level = operating_points.choose_threshold(point, chances, ~named if high else named)
    missed = chances[named] >= level if high else chances[named] < level
    assert missed.sum() == place - 1
    given = {"ill": (chances, ~named if high else named, np.arange(ill + 30))}
    because = operating_points.chosen_thresholds(point, given, "")[1].because
    assert f"{point} of" in because
    assert f"place {place} of {ill} from {'above' if high else 'below'}" in because


@settings(max_examples=20, deadline=None)
@given(CASES, st.sampled_from(["0.5", "0.8"]))
def test_a_named_sensitivity_or_specificity_is_kept_and_the_other_is_as_high_as_it_can_be(cases, asked):
    chances, truths = split(cases)
    possible = [at(level, chances, truths) for level in np.arange(-0.5, 22) / 20]
    for which, rule in enumerate((f"sensitivity>={asked}", f"specificity>={asked}")):
        n = int(truths.sum()) if which == 0 else int((~truths).sum())
        if n < 1 / (1 - float(asked)) - 1 - 1e-9:
            with pytest.raises(UsageError, match=r"Give 10 or more"):
                operating_points.choose_threshold(OperatingPoint(rule), chances, truths)
            continue
        least = 1 - (int((n + 1) * (1 - float(asked)) + 1e-9) - 1) / n
        rates = at(operating_points.choose_threshold(OperatingPoint(rule), chances, truths), chances, truths)
        assert rates[which] >= least - 1e-9
        assert rates[1 - which] == pytest.approx(max(one[1 - which] for one in possible if one[which] >= least - 1e-9))


def test_scores_that_are_equal_are_called_together_and_nobody_is_missed_for_it():
    chances, truths = np.repeat([0.2, 0.4, 0.6], 20), np.arange(60) % 2 == 0
    for rule, at_least in (("sensitivity>=0.9", 1.0), ("specificity>=0.9", 1.0)):
        level = operating_points.choose_threshold(OperatingPoint(rule), chances, truths)
        assert at(level, chances, truths)[rule.startswith("spec")] == at_least
    assert operating_points.choose_threshold(OperatingPoint("sensitivity>=0.6"), chances, truths) == pytest.approx(0.3)


def test_a_rule_names_the_patients_that_it_needs_where_there_are_fewer():
    people = np.repeat(np.arange(40), 3)  # 18 ill
    given = {"ill": (np.linspace(0, 1, 120), people < 18, people)}
    levels, decision = operating_points.chosen_thresholds(OperatingPoint("sensitivity>=0.95"), given, "0.5")
    assert levels == {}
    assert "for sensitivity>=0.95 on average 19 patients with ill, of whom there are 18): 0.5" in decision.because
    decision = operating_points.chosen_thresholds(OperatingPoint("specificity>=0.95", 0.9), given, "0.5")[1]
    assert "for specificity>=0.95 in 90 % of trainings 45 patients without ill" in decision.because


def test_the_threshold_lies_midway_between_the_cases_that_it_parts():
    assert operating_points.choose_threshold(YOUDEN, [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == pytest.approx(0.5)


@given(st.integers(0, 30), st.sampled_from([1e-8, 1.0]), st.booleans())
def test_a_stored_threshold_parts_what_the_rule_parts_near_0_and_near_1(seed, scale, near_1):
    random, truths = np.random.default_rng(seed), np.arange(60) % 3 == 0
    chances = scale * (random.random(60) + truths) / 2
    chances = 1 - chances if near_1 else chances
    [level] = operating_points.chosen_thresholds(YOUDEN, {"ill": (chances, truths, np.arange(60))}, "0.5")[0].values()
    assert at(level, chances, truths) == at(operating_points.choose_threshold(YOUDEN, chances, truths), chances, truths)
    best = max(sum(at(one, chances, truths)) for one in chances)
    assert sum(at(level, chances, truths)) == pytest.approx(best)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_level_between_two_scores_calls_the_upper_one_alone_and_has_few_decimals_where_these_do(one, other):
    lower, upper = sorted((one, other))
    assume(lower < upper)
    level = operating_points.level_between(upper, lower)
    assert lower < level <= upper
    assert upper - lower < 1e-5 or level == round(level, 6)
    assert operating_points.level_between(np.nextafter(lower, 2), lower) == np.nextafter(lower, 2)


@pytest.mark.parametrize("rule", ["youden", "sensitivity>=0.6", "sensitivity>=0.8", "specificity>=0.6"])
@given(CASES, st.data())
def test_a_patient_decides_as_much_as_another_however_many_images_there_are_of_it(rule, cases, data):
    chances, truths = split(cases)
    images = data.draw(st.lists(st.integers(1, 9), min_size=len(cases), max_size=len(cases)))
    owners, point = np.repeat(np.arange(len(cases)), images), OperatingPoint(rule)
    assume(min(truths.sum(), (~truths).sum()) > 3)
    assert operating_points.choose_threshold(
        point, chances[owners], truths[owners], owners
    ) == operating_points.choose_threshold(point, chances, truths)


def test_three_images_of_a_patient_do_not_outweigh_two_others():
    chances, truths = [0.1, 0.4, 0.4, 0.4, 0.3, 0.3, 0.9], [0, 0, 0, 0, 1, 1, 1]
    assert operating_points.choose_threshold(YOUDEN, chances, truths) == pytest.approx(
        0.65
    )  # 1/3 found, none called wrongly
    assert operating_points.choose_threshold(YOUDEN, chances, truths, list("abbbcde")) == pytest.approx(
        0.2
    )  # all found, 1 of 2 spared


@pytest.mark.parametrize("rule", ["youden", "sensitivity>=0.95", "specificity>=.9", "sensitivity>=.05"])
def test_a_rule_is_taken_as_it_is_written(rule):
    assert OperatingPoint(rule).words == rule


@pytest.mark.parametrize("rule", ["Youden", "sensitivity", "sensitivity>0.9", "specificity>=90", "ppv>=0.5", 0.5, None,
    "sensitivity>=1", "sensitivity>=0.0"])  # fmt: skip
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(PlanError, match="not an operating-point rule"):
        OperatingPoint(rule)


@pytest.mark.parametrize(("rule", "confidence"), [("youden", 0.9), ("sensitivity>=.9", 1.0), ("sensitivity>=.9", 0.0)])
def test_a_confidence_is_that_of_a_named_figure(rule, confidence):
    with pytest.raises(PlanError, match=r"task\.operating_confidence: a confidence of .* Give a share such as 0\.9"):
        OperatingPoint(rule, confidence)


KIND = task_catalogue.task_class("classification")
PREREGISTERED = {"operating_point": Decision("sensitivity>=0.95", BY_HAND)}


def test_a_preregistered_rule_is_a_warning_where_no_case_was_left_to_choose_its_threshold():
    [warning] = task_settings.unkept_rules(
        KIND, {**PREREGISTERED, "thresholds": Decision(None, "they are found after training")}
    )
    assert warning.startswith("The rule sensitivity>=0.95 could not be kept: no case was left that did not train")
    assert "after training" not in warning
    nothing_known = operating_points.chosen_thresholds(OperatingPoint("sensitivity>=0.95"), {}, "0.5")[1]
    assert task_settings.unkept_rules(KIND, {**PREREGISTERED, "thresholds": nothing_known})


def test_a_rule_that_has_its_threshold_or_that_nobody_preregistered_is_no_warning():
    truths = np.arange(40) % 2 > 0
    kept = operating_points.chosen_thresholds(
        OperatingPoint("sensitivity>=0.95"), {"ill": (truths * 0.8, truths, np.arange(40))}, "0.5"
    )[1]
    assert task_settings.unkept_rules(KIND, {**PREREGISTERED, "thresholds": kept}) == []
    by_rule = {"operating_point": Decision("youden", "no rule was asked for")}
    assert (
        task_settings.unkept_rules(KIND, {**by_rule, "thresholds": Decision(None, "they are found after training")})
        == []
    )


def test_a_rule_of_a_part_that_could_not_be_kept_names_the_part():
    classes = task_catalogue.build_task(
        {"name": "classification", "classes": ["benign", "malignant"], "smoothing": 0.0}
    )
    findings = task_catalogue.build_task({"name": "findings", "findings": ["effusion"]})
    own = {
        f"{one.name}.{key}": value
        for one in (classes, findings)
        for key, value in task_settings.settings_of(one).items()
    }
    joint = task_catalogue.build_task({"name": "classification+findings", "weighting": "fixed", **own})
    thresholds = Decision(None, "they are found after training")
    given = {f"findings.{name}": one for name, one in {**PREREGISTERED, "thresholds": thresholds}.items()}
    [warning] = task_settings.unkept_rules(joint, given)
    assert warning.startswith("The rule sensitivity>=0.95 of findings could not be kept: no case was left")
