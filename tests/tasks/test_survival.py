from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torchsurv.loss.cox import neg_partial_log_likelihood
from torchsurv.loss.weibull import neg_log_likelihood_weibull, survival_function_weibull

from hilum.errors import DatasetError, PlanError
from hilum.evaluation import classification
from hilum.evaluation import intervals as evaluation_intervals
from hilum.evaluation import survival as evaluation_survival
from hilum.evaluation.intervals import Resampling
from hilum.evaluation.survival import Steps
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.survival import hazard_models, question, scoring
from hilum.tasks.survival.hazard_models import HazardConstants
from hilum.tasks.survival.question import Survival
from hilum.values import Case, CaseFacts, Dataset, Fingerprint, Geometry, Image, Prediction

warnings.filterwarnings("ignore", message="Ties in")
GRID = Geometry.of_pixels((4, 4))
ALL_FOLLOWED = {"time": [], "share": []}
COX = Survival("cox", (5.0, 10.0), 6.0, (2.0, 5.0, 20.0), 20.0, ALL_FOLLOWED)
KNOWN = replace(COX, baseline={"time": [1.0, 4.0, 9.0], "hazard": [0.1, 0.3, 0.6]})
HAZARDS, WEIBULL = replace(COX, model="hazards"), replace(COX, model="weibull")


def case(name: str, time: float, happened: bool, patient: str | None = None) -> Case:
    image = Image(np.zeros((1, 4, 4), np.float32), GRID)
    return Case(name, patient or name, {"image": image}, {"event": (time, happened)})


def decoded(task: Survival, *outputs: float) -> Prediction:
    return task.decode([((), {"event": np.array(outputs, np.float32)})], GRID)


def fingerprint(times, happened) -> Fingerprint:
    measured = {"min": 0.0, "low": 0.0, "high": 1.0, "median": 0.5, "max": 1.0, "mean": 0.5, "deviation": 0.2}
    cases = [
        CaseFacts(str(n), (8, 8), (1.0, 1.0), False, False, ("grey",), "CR", (measured,), references={"event": one})
        for n, one in enumerate(zip(times, happened, strict=True))
    ]
    return Fingerprint(tuple(cases))


def planned(times, happened) -> Survival:
    decisions = Survival.settings_for(Dataset(()), fingerprint(times, happened))
    return task_settings.task_from_settings(Survival, {name: decision.value for name, decision in decisions.items()})


@pytest.mark.parametrize("task", [COX, replace(KNOWN, unit="days", median_risk=-0.5), HAZARDS, WEIBULL])
def test_every_setting_comes_back_from_json(task):
    assert (
        task_catalogue.build_task({"name": "survival", **json.loads(json.dumps(task_settings.settings_of(task)))})
        == task
    )


def test_the_target_is_the_time_and_whether_the_event_happened():
    assert COX.target(case("a", 7.5, True)).data.tolist() == [7.5, 1.0]
    for time in (0.0, -3.0, float("nan"), float("inf")):
        with pytest.raises(DatasetError, match=r"ill.*correct it"):
            COX.target(case("ill", time, True))


def test_the_partial_likelihood_of_three_worked_out_by_hand():
    # Events at 1 and 2, censored at 3; ratios 0, log 2, log 3: 1 of 6, then 2 of 5.
    outputs = {"event": torch.log(torch.tensor([[1.0], [2.0], [3.0]]))}
    target = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 0.0]])
    assert float(COX.loss(outputs, target)) == pytest.approx(-(np.log(1 / 6) + np.log(2 / 5)) / 2)


def test_ties_are_efrons_and_large_ratios_overflow_nothing():
    # Two events at 1 among 1, 2 and 3: 1 * 2 / (6 * (6 - 1.5))
    outputs = torch.log(torch.tensor([[1.0], [2.0], [3.0]]))
    target = torch.tensor([[1.0, 1.0], [1.0, 1.0], [3.0, 0.0]])
    expected = -np.log(2 / (6 * 4.5)) / 2
    assert float(COX.loss({"event": outputs}, target)) == pytest.approx(expected, rel=1e-5)
    assert float(COX.loss({"event": outputs + 500}, target)) == pytest.approx(expected, rel=1e-4)


def test_who_is_censored_at_the_time_of_an_event_is_at_risk_wherever_he_stands_in_the_batch():
    # An event at 2 beside a censoring at 2 and one at 3: 1 of 1 + 2 + 3
    outputs, target = torch.log(torch.tensor([[1.0], [2.0], [3.0]])), torch.tensor([[2.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        assert float(COX.loss({"event": outputs[order]}, target[order])) == pytest.approx(np.log(6))


@pytest.mark.parametrize("task", [COX, HAZARDS, WEIBULL])
def test_a_batch_without_an_event_and_a_single_case_teach_without_failing(task):
    for target in ([[1.0, 0.0], [2.0, 0.0]], [[1.0, 1.0]]):
        outputs = torch.zeros(len(target), len(task.labels), requires_grad=True)
        loss = task.loss({"event": outputs}, torch.tensor(target))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(outputs.grad).all()
        if task is COX:
            assert float(loss.detach()) == 0
            assert not outputs.grad.any()


def test_what_is_no_number_stays_none_for_the_training_to_see():
    target = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    assert torch.isnan(COX.loss({"event": torch.tensor([[float("nan")], [0.0]])}, target))


def test_the_losses_are_those_of_torchsurv():
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(30, 2, generator=random)
    times = torch.rand(30, generator=random) * 9 + 1
    events = torch.rand(30, generator=random) < 0.6
    target = torch.stack([times, events.float()], dim=1)
    sure = neg_partial_log_likelihood(outputs[:, 0], events, times)
    assert float(COX.loss({"event": outputs[:, :1]}, target)) == pytest.approx(float(sure), rel=1e-5)
    sure = neg_log_likelihood_weibull(outputs, events, times / 6)
    assert float(WEIBULL.loss({"event": outputs}, target)) == pytest.approx(float(sure), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Ties in")
@pytest.mark.parametrize("seed", range(5))
def test_many_ties_cost_what_torchsurv_says_and_pull_the_weights_as_it_does(seed):
    random = torch.Generator().manual_seed(seed)
    times = torch.randint(1, 6, (40,), generator=random).float()
    events = torch.rand(40, generator=random) < 0.6
    ours, theirs = (torch.linspace(-3, 3, 40).requires_grad_() for _ in range(2))
    loss = COX.loss({"event": ours[:, None]}, torch.stack([times, events.float()], dim=1))
    # torchsurv goes by the order of the batch where a censoring and an event meet: here events come first.
    sure = neg_partial_log_likelihood(theirs, events, 2 * times + (~events).float(), "efron", "sum") / events.sum()
    assert float(loss.detach()) == pytest.approx(float(sure.detach()), rel=1e-5)
    loss.backward()
    sure.backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_a_risk_far_below_the_largest_is_still_compared():
    # The event at 2 is against one at 3 as improbable as it; the case at 1, gone by then, weighs e^200 times as much.
    outputs, target = torch.tensor([[200.0], [0.0], [0.0]]), torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    assert float(COX.loss({"event": outputs}, target)) == pytest.approx(np.log(2))


def test_the_likelihood_of_intervals_worked_out_by_hand():
    # Intervals end at 2, 5 and 20; each hazard is 1/2 (logit 0). Event at 4: one survived, one had it. Censored at 3.4:
    # one survived; at 3.6, after the middle of 2..5: two. An event after the last edge: three survived.
    for time, event, intervals in ((4.0, 1, 2), (2.0, 1, 1), (3.4, 0, 1), (3.6, 0, 2), (25.0, 1, 3), (0.5, 0, 0)):
        cost = HAZARDS.loss({"event": torch.zeros(1, 3)}, torch.tensor([[time, float(event)]]))
        assert float(cost) == pytest.approx(intervals * np.log(2)), (time, event)


def test_the_curve_of_intervals_is_their_product_and_its_loss_is_lowest_at_the_observed_hazards():
    values = decoded(HAZARDS, 0.0, 0.0, 0.0).values
    assert values["survival_5"] == pytest.approx(0.25)
    # Five of the fifteen units of the last interval, at a constant hazard
    assert values["survival_10"] == pytest.approx(0.25 * 0.5 ** (1 / 3))
    assert values["median_survival"] == pytest.approx(2.0)
    times, events = np.array([1, 1, 3, 3, 3, 9, 9, 20.0]), np.ones(8)
    target = torch.tensor(np.stack([times, events], axis=1), dtype=torch.float32)
    best = torch.logit(torch.tensor([2 / 8, 3 / 6, 1 - 1e-6]))
    costs = [float(HAZARDS.loss({"event": (best + shift).expand(8, 3)}, target)) for shift in (-0.3, 0.0, 0.3)]
    assert costs[1] == min(costs)


def test_the_curve_of_weibull_is_that_of_torchsurv_in_the_datas_own_unit():
    outputs = [0.3, -0.2]
    values = decoded(WEIBULL, *outputs).values
    sure = survival_function_weibull(torch.tensor([outputs]), torch.tensor([5.0, 10.0]) / 6)[0]
    assert [values["survival_5"], values["survival_10"]] == pytest.approx(sure.tolist(), rel=1e-4)
    exact = 6 * np.exp(0.3) * np.log(2) ** np.exp(0.2)
    assert values["median_survival"] == pytest.approx(exact, rel=1e-5)


def test_with_the_baseline_the_mean_survival_is_that_of_everybody():
    shares, ratio = Steps(np.array([2.0, 5.0, 9.0]), np.array([0.9, 0.4, 0.0])), np.array([-2.0, 0.0, 1.0, 3.0])
    hazard = question.fit_baseline(shares, ratio)
    mean = np.exp(-hazard.values[:, None] * np.exp(ratio)).mean(axis=1)
    assert_allclose(mean, [0.9, 0.4, 0.2], atol=1e-9)  # of nobody left, half of those before
    assert_allclose(question.fit_baseline(shares, np.zeros(4)).values, -np.log([0.9, 0.4, 0.2]), atol=1e-9)


@pytest.mark.whole
def test_log_hazard_ratios_that_are_too_extreme_are_brought_back_by_cases_that_did_not_train():
    """What a network has learnt by heart it states too surely: here as twice of what little it knows, and noise."""
    random = np.random.default_rng(0)
    truth, errors = random.normal(size=(2, 900))
    times = random.exponential(np.exp(-truth) * 8)
    cases = [case(str(n), float(time), True) for n, time in enumerate(times)]
    told = 2 * (0.6 * truth + 0.8 * errors)
    task, decisions = fitting.with_fitted_calibration(
        COX, PredictedCases([decoded(COX, one) for one in told[:300]], cases[:300])
    )
    assert 0.1 < task.slope < 0.3  # 0.3 of what it says is true
    assert "300 cases" in decisions["task.slope"].because
    predictions = [decoded(task, one) for one in told[300:]]
    table = task.score(predictions, cases[300:])
    rows = {row.metric: row.estimate for row in task.summary(table, seed=0) if row.label in ("all", "10")}
    assert rows["calibration_slope"].low < 1 < rows["calibration_slope"].high
    assert rows["expected_over_observed"].value == pytest.approx(1, abs=0.1)
    by_heart = replace(task, slope=1.0)
    sure = by_heart.score([decoded(by_heart, one) for one in told[300:]], cases[300:])
    assert table["brier"].mean() < sure["brier"].mean() - 0.02
    single, _ = fitting.with_fitted_calibration(COX, PredictedCases([decoded(COX, 0.7)], cases[:1]))
    assert single.slope == 1.0


def test_the_curve_of_cox_is_the_baseline_to_the_power_of_the_ratio():
    values = decoded(KNOWN, np.log(2)).values
    assert values["survival_5"] == pytest.approx(np.exp(-2 * 0.3), rel=1e-6)
    assert values["survival_10"] == pytest.approx(np.exp(-2 * 0.6), rel=1e-6)
    assert values["risk"] == pytest.approx(np.log(2 * 0.6), rel=1e-6)
    assert values["median_survival"] == pytest.approx(9.0)  # where it falls from 0.55 to 0.30
    assert "median_survival" not in decoded(KNOWN, -1.0).values  # it never falls below one half
    assert KNOWN.outputs(decoded(KNOWN, -1.0))["median_survival"] is None


def test_risks_differ_by_a_horizon_before_the_first_event_too():
    early = replace(KNOWN, horizons=(0.5,))
    values = [decoded(early, one).values for one in (-1.0, 1.0)]
    assert values[1]["risk"] - values[0]["risk"] == pytest.approx(2.0)
    assert values[1]["survival_0.5"] == 1.0


def test_before_its_baseline_is_known_cox_says_how_risks_compare_and_no_probability():
    prediction = decoded(COX, 0.7)
    assert prediction.values == {"risk": pytest.approx(0.7)}
    table = COX.score([prediction] * 2, [case("a", 3.0, True), case("b", 4.0, False)])
    assert table["brier"].isna().all()
    assert {row.metric for row in COX.summary(table, seed=0)} >= {"uno_c", "harrell_c"}


def test_cases_tell_slope_baseline_and_median_risk_anew_for_each_network():
    random = np.random.default_rng(0)
    ratio = random.normal(size=400)
    times = random.exponential(np.exp(-ratio) * 8)
    cases = [case(str(n), float(time), True) for n, time in enumerate(times)]
    predictions = [decoded(COX, one) for one in ratio]
    task, decisions = fitting.with_fitted_calibration(COX, PredictedCases(predictions, cases))
    assert set(decisions) == {"task.baseline", "task.slope", "task.median_risk"}
    assert task.slope == pytest.approx(1, abs=0.1)
    # Found anew from what it says itself, and from other numbers of the same order.
    again, _ = fitting.with_fitted_calibration(task, PredictedCases([decoded(task, one) for one in ratio], cases))
    shifted, _ = fitting.with_fitted_calibration(task, PredictedCases([decoded(task, one + 3) for one in ratio], cases))
    assert_allclose(again.baseline["hazard"], task.baseline["hazard"], rtol=1e-3)
    by_slope = np.exp(3 * task.slope)
    assert_allclose(shifted.baseline["hazard"], np.array(task.baseline["hazard"]) / by_slope, rtol=1e-3)
    assert shifted.median_risk == pytest.approx(task.median_risk, abs=1e-3)
    # The hazard is 1/8 whatever the ratio: the cumulative baseline at 10 is 10/8.
    assert decoded(task, 0.0).values["survival_10"] == pytest.approx(np.exp(-10 / 8), abs=0.05)
    assert task.median_risk == pytest.approx(np.median([decoded(task, one).values["risk"] for one in ratio]), abs=1e-4)
    assert len(task.baseline["time"]) == 100
    assert (
        task_catalogue.build_task({"name": "survival", **json.loads(json.dumps(task_settings.settings_of(task)))})
        == task
    )
    assert task.tuned_on == ("val", "train")


def test_ratios_of_another_network_get_the_zero_of_the_models_before_and_after_calibration():
    ratios, known = np.array([-1.0, 0.2, 0.9, 2.0]), replace(KNOWN, slope=0.5)
    ours, theirs = ([decoded(known, one + zero) for one in ratios] for zero in (0.0, 2.5))
    made = known.align_zero(theirs[2:], theirs[:2], ours[:2])
    assert [one.values["risk"] for one in made] == pytest.approx([one.values["risk"] for one in ours[2:]], abs=1e-6)
    assert [one.confidence.uncalibrated["risk"] for one in made] == pytest.approx(ratios[2:], abs=1e-6)
    assert HAZARDS.has_own_zero  # its risks are logarithms of hazards, whose zero is the same for all


def distances(random: np.random.Generator) -> list[float]:
    """How far curves lie from the true ones: by validation cases, by cross-fitted ones, and by those not aligned.

    The hazard is e^x / 8. Every network says 2x with noise, from a zero of its own: the model of 15 validation cases,
    three others of those and of 20 training cases each.
    """
    x, zeros = random.normal(size=75), [0.0, *random.normal(0, 2, size=3)]
    times = random.exponential(8 * np.exp(-x))
    cases = [case(str(n), float(time), True) for n, time in enumerate(times)]
    networks = [[decoded(COX, one) for one in 2 * (x + random.normal(0, 0.2, size=75)) + zero] for zero in zeros]
    ours, parts = networks[0][:15], [range(first, first + 20) for first in (15, 35, 55)]
    raw = [[network[n] for n in part] for network, part in zip(networks[1:], parts, strict=True)]
    aligned = [COX.align_zero(own, other[:15], ours) for own, other in zip(raw, networks[1:], strict=True)]
    free = question.curve_to_plain(evaluation_survival.kaplan_meier(times[15:], np.ones(60)), "share")
    when, truth = np.array([2.0, 5.0, 10.0]), np.linspace(-2, 2, 9)
    survival, apart = np.exp(-when / 8 * np.exp(truth)[:, None]), []
    for each in (ours, sum(aligned, ours), sum(raw, ours)):
        task, _ = fitting.with_fitted_calibration(
            replace(COX, event_free=free), PredictedCases(each, cases[: len(each)])
        )
        curves = [
            np.exp(-hazard_models.proportional_hazard(np.array([2 * one]), when, task._constants)) for one in truth
        ]
        apart.append(float(((curves - survival) ** 2).mean()))
    return apart


def test_slope_and_baseline_of_cross_fitted_cases_are_nearer_the_truth_than_those_of_few_validation_cases():
    random = np.random.default_rng(0)
    validation, crossed, unaligned = np.mean([distances(random) for _ in range(12)], axis=0)
    assert crossed < 0.6 * validation
    assert crossed < 0.6 * unaligned


def test_cases_that_trained_decide_no_slope_because_a_network_knows_their_times_too_well():
    random = np.random.default_rng(0)
    truth = random.normal(size=300)
    times = random.exponential(np.exp(-truth) * 8)
    cases = [case(str(n), float(time), True) for n, time in enumerate(times)]
    learnt_by_heart = -np.log(times)  # the time itself, of which a slope that fits makes still more
    predictions = [decoded(COX, one) for one in learnt_by_heart]
    assert fitting.with_fitted_calibration(COX, PredictedCases(predictions, cases))[0].slope > 1
    task, decisions = fitting.with_fitted_calibration(COX, PredictedCases(predictions, cases), "training")
    assert task.slope == 1.0
    assert "every case trains" in decisions["task.slope"].because
    assert "at a slope of 1" in decisions["task.baseline"].because
    mean = np.mean([decoded(task, one).values["survival_5"] for one in learnt_by_heart])
    assert mean == pytest.approx((times > 5).mean(), abs=0.02)


@pytest.mark.parametrize("hazard", [0.5, 2.0])
def test_at_a_site_where_people_have_the_event_more_or_less_often_the_baseline_is_theirs(hazard):
    random = np.random.default_rng(0)
    ratio = random.normal(size=1000)
    times = random.exponential(8 * np.exp(-ratio)) / np.where(np.arange(1000) < 400, 1, hazard)
    last = np.where(np.arange(1000) < 400, 40, random.uniform(2, 12, 1000))
    cases = [case(str(n), float(min(a, b)), bool(a <= b)) for n, (a, b) in enumerate(zip(times, last, strict=True))]
    free = question.curve_to_plain(
        evaluation_survival.kaplan_meier(np.minimum(times, last)[:400], (times <= last)[:400]), "share"
    )
    task, site = replace(COX, event_free=free), slice(400, 700)
    made, decisions = fitting.with_fitted_calibration(
        task, PredictedCases([decoded(task, one) for one in ratio[site]], cases[site]), "site"
    )
    survival = [decoded(made, one).values["survival_10"] for one in (-1.0, 0.0, 1.0)]
    assert_allclose(survival, np.exp(-10 / 8 * hazard * np.exp([-1, 0, 1])), atol=0.06)
    assert "times" in decisions["task.baseline"].because
    assert fitting.with_fitted_calibration(
        task, PredictedCases([decoded(task, 0.0)], [case("a", 3.0, False)]), "site"
    ) == (
        task,
        {},
    )  # too few to say less often


WIDTHS = np.diff([0.0, *HAZARDS.edges])


@pytest.mark.parametrize("hazard", [0.5, 2.0])
@pytest.mark.parametrize(
    ("task", "outputs"), [(HAZARDS, np.log(np.expm1(WIDTHS / 8))), (WEIBULL, [np.log(8 / 6), 0.0])]
)
def test_curves_of_a_model_without_a_baseline_are_those_of_the_site_too(task, outputs, hazard):
    """At training the hazard was 1/8."""
    random = np.random.default_rng(0)
    times, last = random.exponential(8 / hazard, 600), random.uniform(2, 14, 600)
    cases = [case(str(n), float(min(a, b)), bool(a <= b)) for n, (a, b) in enumerate(zip(times, last, strict=True))]
    before = decoded(task, *outputs)
    made, decisions = fitting.with_fitted_calibration(task, PredictedCases([before] * 600, cases), "site")
    assert set(decisions) == {"task.hazard_factor", "task.median_risk"}
    assert made.hazard_factor == pytest.approx(hazard, rel=0.15)
    after = decoded(made, *outputs)
    assert after.values["survival_10"] == pytest.approx(np.exp(-10 / 8 * made.hazard_factor), rel=1e-4)
    assert after.values["median_survival"] == pytest.approx(8 * np.log(2) / made.hazard_factor, rel=1e-3)
    assert after.values["risk"] == pytest.approx(made.median_risk, abs=1e-5)
    assert after.confidence.uncalibrated == before.confidence.uncalibrated
    again, _ = fitting.with_fitted_calibration(made, PredictedCases([after] * 600, cases), "site")
    assert again.hazard_factor == pytest.approx(made.hazard_factor, rel=0.02)
    assert (
        task_catalogue.build_task({"name": "survival", **json.loads(json.dumps(task_settings.settings_of(made)))})
        == made
    )
    assert fitting.with_fitted_calibration(task, PredictedCases([before], [case("a", 3.0, False)]), "site") == (
        task,
        {},
    )  # nobody had the event


def test_a_batch_of_cox_has_four_events_on_average_however_few_minutes_there_are():
    cases = [case(str(n), 1.0 + n, n % 4 == 0) for n in range(40)]
    assert [properties.fewest_samples(task, cases) for task in (COX, HAZARDS, WEIBULL)] == [16, 1, 1]


def test_cases_of_whom_nobody_had_the_event_decide_nothing():
    assert fitting.with_fitted_calibration(COX, PredictedCases([decoded(COX, 0.1)], [case("a", 3.0, False)])) == (
        COX,
        {},
    )


def test_a_single_case_decides_what_it_can_and_a_kind_that_says_nothing_is_tuned_on_validation_cases():
    task, decisions = fitting.with_fitted_calibration(COX, PredictedCases([decoded(COX, 0.7)], [case("a", 3.0, True)]))
    assert task.baseline == {"time": [3.0], "hazard": [pytest.approx(np.log(2) * np.exp(-0.7), rel=1e-4)]}
    assert set(decisions) == {"task.baseline", "task.slope", "task.median_risk"}
    assert task_catalogue.build_task({"name": "classification", "classes": ["a", "b"], "smoothing": 0.0}).tuned_on == (
        "val",
    )


def test_the_pictures_part_the_cases_at_the_median_risk_of_the_training_cases():
    random = np.random.default_rng(0)
    ratio = random.normal(size=60)
    times, limits = random.exponential(9 * np.exp(-ratio)), random.exponential(20, 60)
    task = replace(KNOWN, median_risk=float(np.log(0.6)), unit="days")
    table = scored(task, ratio, np.minimum(times, limits), times <= limits)
    curves, calibration = task.overview(table)
    assert "lower risk" in curves.alt
    assert "higher risk" in curves.alt
    assert "Log-rank test: p < 0.001" in curves.caption
    assert calibration.alt.count("predicted") == 5
    [chart] = COX.overview(scored(COX, ratio[:12], times[:12], limits[:12] > 0))
    assert "one group" in chart.caption
    [twice, _] = task.overview(table.assign(patient=["one", "one", *table["patient"][2:]]))
    assert "Log-rank" not in twice.caption
    assert "Several cases, with times of their own, are of one patient" in twice.caption


def test_a_patient_with_several_images_counts_once_in_the_curves_by_the_mean_of_their_risks():
    random = np.random.default_rng(0)
    ratio = random.normal(size=60)
    times = random.exponential(9 * np.exp(-ratio))
    task = replace(KNOWN, median_risk=float(np.log(0.6)), unit="days")
    once = scored(task, ratio, times, times < 8)
    shift = np.tile([0.1, 0.0, -0.1], 60)
    thrice = scored(task, np.repeat(ratio, 3) + shift, np.repeat(times, 3), np.repeat(times < 8, 3))
    curves, calibration = task.overview(once)
    images, images_calibration = task.overview(thrice.assign(patient=np.repeat(once["patient"], 3).tolist()))
    assert "A patient with several images counts once" in images.caption
    assert images.caption.endswith(curves.caption.rpartition("Log-rank")[2])
    assert images.svg == curves.svg
    assert calibration.alt.count("predicted") == images_calibration.alt.count("predicted")


def scored(task: Survival, outputs, times, events):
    cases = [case(f"c{n}", float(time), bool(had)) for n, (time, had) in enumerate(zip(times, events, strict=True))]
    return task.score([decoded(task, *np.atleast_1d(one)) for one in outputs], cases)


def test_every_row_is_of_a_metric_that_a_plan_may_name_and_the_other_way_round():
    random = np.random.default_rng(0)
    ratio = random.normal(size=60)
    times, limits = random.exponential(9 * np.exp(-ratio)), random.exponential(20, 60)
    table = scored(KNOWN, ratio, np.minimum(times, limits), times <= limits)
    rows = KNOWN.summary(table, seed=0)
    assert (rows[0].metric, rows[0].label) == ("uno_c", "all")
    [spread] = [row for row in rows if row.metric == "d_calibration"]
    assert 0.001 < spread.estimate.value <= 1 and "tenths of predicted survival, until 10" in spread.estimate.method
    rows.remove(spread)  # a p-value is none by which a model is judged
    assert {row.metric for row in rows} == KNOWN.primaries
    assert {row.label for row in rows} == {"all", "5", "10"}
    assert all(row.estimate.low < row.estimate.value < row.estimate.high for row in rows)
    [area] = [row for row in rows if (row.metric, row.label) == ("dynamic_auc", "5")]
    assert "censored before" in area.estimate.method
    assert rows[0].estimate.patients == 60


def estimates_of(ratio, times, events, task: Survival = KNOWN):
    rows = task.summary(scored(task, ratio, times, events), seed=Resampling(draws=500))
    return {(row.metric, row.label): row.estimate for row in rows}


def test_two_censored_cases_of_thirty_leave_the_interval_of_a_concordance_what_it_is_without_them():
    random = np.random.default_rng(0)
    ratio = random.normal(size=30)
    times = random.exponential(9 * np.exp(-0.5 * ratio)) + 0.1
    few, none = (estimates_of(ratio, times, np.arange(30) >= censored) for censored in (2, 0))
    for metric in ("uno_c", "harrell_c", "calibration_slope"):
        widths = [one[metric, "all"].high - one[metric, "all"].low for one in (few, none)]
        assert widths[0] == pytest.approx(widths[1], rel=0.3), metric
        assert "unreliable" not in few[metric, "all"].method


def test_few_events_are_what_the_interval_of_a_concordance_rests_on():
    random = np.random.default_rng(0)
    times, events = random.exponential(9, 30) + 0.1, np.arange(30) < 5
    made = estimates_of(random.normal(size=30), np.where(events, 2 + times / 100, times), events)
    for metric in ("uno_c", "harrell_c"):
        assert "unreliable: 5 patients in the smallest group" in made[metric, "all"].method


def test_the_area_by_a_horizon_has_the_interval_of_its_two_sides_and_not_of_those_who_are_censored():
    random = np.random.default_rng(0)
    had, ratio = np.arange(30) < 9, random.normal(size=30)
    times = np.where(had, 1 + random.random(30) * 4, 6 + random.random(30) * 10)
    made = estimates_of(ratio + had, times, np.arange(30) < 28)["dynamic_auc", "5"]
    plain = evaluation_intervals.bootstrap_statistic(
        partial(classification.auroc, ratio + had, had),
        [f"c{n}" for n in range(30)],
        strata=had,
        seed=0,
        draws=500,
        compares=True,
    )
    assert (made.value, made.low, made.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert "unreliable: 9 patients in the smallest group" in made.method
    # Of 4 who are followed beyond the horizon it is known to be as little, though 17 are censored before.
    censored = np.where(np.arange(30) < 26, np.minimum(times, 4.9), times)
    assert "unreliable: 4 patients in the" in estimates_of(ratio, censored, had)["dynamic_auc", "5"].method


def test_calibration_in_the_large_is_as_uncertain_as_the_frequency_of_the_event():
    events = np.arange(40) < 12
    made = estimates_of(np.zeros(40), np.where(events, 4.0, 5.5), events)["expected_over_observed", "5"]
    seen = evaluation_intervals.bootstrap(events, [f"c{n}" for n in range(40)], seed=0, draws=500)
    expected = made.value * seen.value
    assert (made.low, made.high) == pytest.approx((expected / seen.high, expected / seen.low), rel=1e-3)


def test_errors_and_frequencies_by_a_time_that_no_case_was_followed_for_have_no_value():
    random = np.random.default_rng(0)
    ratio = random.normal(size=60)
    times = random.exponential(9 * np.exp(-ratio)) + 0.01
    task = replace(KNOWN, censoring={"time": [2.0, 30.0], "share": [0.9, 0.3]})
    for last, is_known in ((40.0, True), (4.0, False)):
        limits = random.uniform(0.9 * last, last, 60)
        table = scored(task, ratio, np.minimum(times, limits), times <= limits)
        made = {(row.metric, row.label): row.estimate for row in task.summary(table, seed=Resampling(draws=20))}
        for figure in (("brier", "10"), ("integrated_brier", "all"), ("expected_over_observed", "10")):
            assert np.isfinite(made[figure].value) == (made[figure].low is not None) == is_known, figure
        assert ("no case was followed beyond 10" in made["brier", "10"].method) != is_known
        assert [one.metric for one in task.case_values(table)] == ["integrated_brier"] * is_known  # for `compare`
    assert len(task.overview(table)) == 1


def test_an_error_whose_weights_do_not_make_up_for_the_censoring_says_so_or_has_no_value():
    def error(times, events):
        rows = KNOWN.summary(scored(KNOWN, np.zeros(len(times)), times, events), seed=Resampling(draws=20))
        [made] = [row.estimate for row in rows if (row.metric, row.label) == ("brier", "10")]
        return made

    times, events = np.append(np.linspace(0.1, 9, 25), np.full(25, 11.0)), np.arange(50) < 25
    whole = error(times, events)
    assert "add up" not in whole.method
    few = error(times, events & (np.arange(50) % 2 > 0))
    assert "training cases add up to 74 % of these cases" in few.method
    assert 0.5 * whole.value < few.value < whole.value
    none = error(np.append(times, np.full(20, 0.2)), np.append(events & (np.arange(50) > 20), np.zeros(20)) > 0)
    assert "none: the censoring weights of the training cases add up to 41 %" in none.method


def test_the_selection_is_the_concordance_that_the_summary_states_and_without_pairs_minus_the_loss():
    random = np.random.default_rng(0)
    for task in (COX, HAZARDS, WEIBULL):
        outputs = random.normal(size=(12, len(task.labels))).astype(np.float32)
        times, events = random.random(12) * 9 + 1, random.random(12) < 0.7
        target = torch.tensor(np.stack([times, events], axis=1), dtype=torch.float32)
        chosen = task.selection(task.quality({"event": torch.from_numpy(outputs)}, target))
        [row] = [one for one in task.summary(scored(task, outputs, times, events), seed=0) if one.metric == "harrell_c"]
        assert chosen == pytest.approx(row.estimate.value)
    single = torch.tensor([[3.0, 0.0]])
    assert WEIBULL.selection({"outputs": torch.zeros(1, 2), "target": single}) == pytest.approx(-0.5)


def test_the_probabilities_have_the_shape_of_the_outputs_and_follow_the_curve():
    assert COX.probabilities({"event": np.zeros(1)})["event"].tolist() == pytest.approx([1 - np.exp(-1)])
    assert KNOWN.probabilities({"event": np.zeros(1)})["event"].tolist() == pytest.approx([1 - np.exp(-0.6)])
    assert HAZARDS.probabilities({"event": np.zeros(3)})["event"].tolist() == pytest.approx([0.5] * 3)
    chances = WEIBULL.probabilities({"event": np.array([0.3, -0.2])})["event"]
    values = decoded(WEIBULL, 0.3, -0.2).values
    assert chances.tolist() == pytest.approx([1 - values["survival_5"], 1 - values["survival_10"]], abs=1e-6)


def test_averaging_two_networks_averages_their_outputs():
    mean = COX.average([{"event": np.array([[1.0], [2.0]])}, {"event": np.array([[3.0], [2.0]])}])
    assert mean["event"].tolist() == [[2.0], [2.0]]


def test_the_plan_takes_its_times_from_the_training_cases():
    random = np.random.default_rng(0)
    times = np.round(random.exponential(500, 200) + 1)
    task = planned(times, np.arange(200) % 4 > 0)
    had = np.sort(times[np.arange(200) % 4 > 0])
    assert [float((had <= one).mean()) for one in task.horizons] == pytest.approx([0.25, 0.5, 0.75], abs=0.03)
    assert task.edges[-1] == had[-1]
    assert len(task.edges) == 10
    counts = np.diff([0, *(int((had <= edge).sum()) for edge in task.edges)])
    assert counts.min() >= 13
    followed = evaluation_survival.censoring_curve(times, np.arange(200) % 4 > 0)
    ours = Steps(*(np.array(task.censoring[key]) for key in ("time", "share")))
    assert_allclose(ours.at(task.horizons), followed.at(task.horizons), atol=0.02)


def test_a_batch_of_cox_holds_events_and_other_models_take_what_is_usual():
    often, seldom = fingerprint([1.0] * 400, [True] * 400), fingerprint([1.0] * 400, [True] * 100 + [False] * 300)
    assert question.decide_batch(often).value == 24
    assert question.decide_batch(seldom).value == 96
    assert "about 24" in question.decide_batch(seldom).because
    few = fingerprint([1.0] * 10, [True] * 5 + [False] * 5)
    assert question.decide_batch(few).value == 10
    assert "fewer than the 24" in question.decide_batch(few).because
    assert "training.batch" in COX.decisions(often)
    assert "training.batch" not in WEIBULL.decisions(often)


def test_times_close_together_and_few_events_have_horizons_within_the_follow_up():
    had = np.array([1001.0, 1002.0, 1003.0, 1004.0])
    assert question.choose_horizons(had, Steps(np.zeros(0), np.zeros(0))) == [1001.0, 1002.0, 1003.0]
    assert question.interval_edges(np.array([3.0, 3.0, 8.0])) == [3.0, 8.0]
    assert planned([3.0, 8.0, 9.0], [True, True, False]).horizons == (3.0, 8.0)


@pytest.mark.parametrize("happened", [[False] * 6, [True, *[False] * 5]])
def test_fewer_than_two_events_are_refused(happened):
    with pytest.raises(DatasetError, match="at least two"):
        planned([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], happened)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": "aalen"}, "task.model"),
        ({"horizons": [5, 30]}, "task.horizons"),
        ({"horizons": [10, 5]}, "task.horizons"),
        ({"horizons": []}, "task.horizons"),
        ({"horizons": [0]}, "task.horizons"),
        ({"horizons": "soon"}, "task"),
        ({"model": "hazards", "edges": [2, 5]}, "task.horizons"),
        ({"edges": [5, 2]}, "task.edges"),
        ({"scale": 0}, "task.scale"),
        ({"censoring": {"time": [1.0], "share": [1.5, 2.0]}}, "task.censoring"),
        ({"censoring": {"time": [4.0], "share": [0.0]}}, "task.horizons"),
        ({"censoring": None}, "task.censoring"),
        ({"baseline": {"time": [1.0, 2.0], "hazard": [0.2, 0.1]}}, "task.baseline"),
        ({"median_risk": "high"}, "task"),
        ({"horizon": [5]}, "task.horizon"),
    ],
)
def test_impossible_settings_are_refused(change, where):
    with pytest.raises(PlanError) as refused:
        task_settings.task_from_settings(Survival, {**task_settings.settings_of(COX), **change})
    assert refused.value.where == where


def test_a_horizon_beyond_the_last_time_is_refused_with_the_time_that_could_be():
    with pytest.raises(PlanError, match=r"no training case was followed for 30.*up to 20"):
        task_settings.task_from_settings(Survival, {**task_settings.settings_of(COX), "horizons": [30.0]})


def test_cases_with_a_time_have_no_classes_to_be_sampled_by():
    assert COX.under("natural") == {}
    with pytest.raises(PlanError, match="balanced"):
        COX.under("balanced")


def test_cases_are_ranked_by_their_curves_and_those_of_whom_little_is_known_lie_between():
    table = scored(KNOWN, [3.0, -3.0, 0.0, 3.0], [1.0, 1.0, 2.0, 10.0], [True, True, False, False])
    assert KNOWN.rank(table)[:2] == ["c0", "c2"]
    assert set(KNOWN.rank(table)[2:]) == {"c1", "c3"}


def test_a_report_states_the_chances_with_their_times():
    results = replace(KNOWN, unit="days").results(decoded(KNOWN, np.log(2)))
    stated = {one.concept: (one.value, one.unit, one.probability) for one in results}
    assert stated["Event by 10 days"][2] == pytest.approx(1 - np.exp(-1.2), rel=1e-6)
    assert stated["Median survival"][:2] == (pytest.approx(9.0), "days")
    probable = [one.concept for one in results if one.probability is not None]
    assert replace(KNOWN, unit="days").probable_findings == tuple(probable)
    assert replace(KNOWN, baseline=None).probable_findings == ()


def test_where_nobody_or_everybody_had_the_event_its_frequency_has_an_exact_interval():
    times = np.arange(1.0, 11.0)
    assert scoring._frequency(times, np.zeros(10, bool), 0.5) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert scoring._frequency(times, np.ones(10, bool), 10.0) == (1.0, pytest.approx(0.025 ** (1 / 10)), 1.0)
    observed, low, high = scoring._frequency(times, np.ones(10, bool), 4.0)
    assert observed == pytest.approx(0.4)
    assert low < observed < high


@pytest.mark.parametrize("task", [COX, HAZARDS, WEIBULL])
def test_what_an_explanation_explains_rises_with_the_risk(task):
    outputs = torch.randn(20, len(task.labels), generator=torch.Generator().manual_seed(1))
    if task.model == "weibull":
        outputs[:, 1] = 0.0
    risk = [decoded(task, *one.tolist()).values["risk"] for one in outputs]
    explained = task.saliency({"event": outputs})
    if task.model == "hazards":  # the risk is that of the last horizon, half-way through the last interval
        outputs[:, 2] = -20.0
        risk = [decoded(task, *one.tolist()).values["risk"] for one in outputs]
        explained = task.saliency({"event": outputs})
    assert np.argsort(risk).tolist() == torch.argsort(explained).tolist()


def test_the_uncertainty_of_a_time_is_how_far_hazards_at_the_event_vary_when_any_of_several_views_is_true():
    random = np.random.default_rng(0)
    scales, shape = np.array([-0.4, 0.1, 0.6]), 1.6
    risks = [decoded(WEIBULL, one, np.log(shape)).values["risk"] for one in scales]
    mean = [np.mean(scales), np.log(shape)]
    outputs = {"event": np.array(mean), "event:between": np.array([np.var(risks)])}
    stated = WEIBULL.decode([((), outputs)], GRID).confidence
    times = WEIBULL.scale * np.exp(random.choice(scales, 20000)) * random.exponential(size=20000) ** (1 / shape)
    hazards = hazard_models.weibull_hazard(np.array(mean), times, HazardConstants(scale=WEIBULL.scale))
    assert stated.total == pytest.approx(np.var(np.log(hazards)), rel=0.05)
    assert stated.total == stated.aleatoric + stated.epistemic
