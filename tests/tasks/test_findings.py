from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics
from torchvision.ops import sigmoid_focal_loss

from hilum.belief import Certainty, calibration_scores
from hilum.belief.operating_points import OperatingPoint
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import calibration
from hilum.evaluation.calibration import BY_MASS
from hilum.evaluation.calibration_fit import Calibrator
from hilum.evaluation.intervals import Resampling
from hilum.tasks import fitting, task_catalogue, task_settings
from hilum.tasks.findings import losses
from hilum.tasks.findings.losses import LOSSES
from hilum.tasks.findings.question import Findings
from hilum.tasks.fitting import PredictedCases
from hilum.values import (
    BY_HAND,
    Case,
    CaseFacts,
    Dataset,
    Decision,
    Fingerprint,
    Geometry,
    Image,
    Label,
    Prediction,
)

GRID = Geometry.of_pixels((4, 4))
TASK = Findings(("effusion", "nodule", "hernia"))
# Without a calibration, so that thresholds lie on the scale of the probabilities given here.
AS_GIVEN = Certainty("none", Calibrator())


def summarised(predictions, cases):
    return TASK.summary(TASK.score(predictions, cases), seed=0)


def case(name: str, patient: str | None = None, **known: bool) -> Case:
    image = Image(np.zeros((1, 4, 4), np.float32), GRID)
    return Case(name, patient or name, {"image": image}, {"findings": known})


def prediction_of(*probabilities: float) -> Prediction:
    return Prediction(GRID, probabilities=dict(zip(TASK.findings, probabilities, strict=True)))


def simulated(count: int = 80, *, blank: float = 0.2, seed: int = 0):
    """Predictions that know something, and cases of which some findings are not known."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, 3)) < (0.5, 0.3, 0.2)
    known = rng.random((count, 3)) >= blank
    chances = 1 / (1 + np.exp(-(rng.normal(0, 1, (count, 3)) + 2 * truth - 1)))
    cases = [
        case(str(n), **{name: bool(t) for name, t, k in zip(TASK.findings, row, there, strict=True) if k})
        for n, (row, there) in enumerate(zip(truth, known, strict=True))
    ]
    return [prediction_of(*row) for row in chances], cases, chances, truth, known


def test_a_task_comes_back_from_json():
    full = Findings(
        TASK.findings,
        {name: {"present": 3, "absent": 7} for name in TASK.findings},
        "class_balanced",
        OperatingPoint("sensitivity>=0.9", 0.8),
        {"nodule": 0.3},
        {"hernia": 0.01},
    )
    for task in (TASK, full):
        assert (
            task_catalogue.build_task({"name": "findings", **json.loads(json.dumps(task_settings.settings_of(task)))})
            == task
        )


def test_the_target_says_what_is_not_known():
    assert_array_equal(TASK.target(case("a", effusion=True, hernia=False, other=True)).data, [1, np.nan, 0])


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_not_known_has_no_say_in_the_loss_and_no_gradient(name):
    weights = torch.tensor([[0.5, 1.5], [1.0, 1.0]])
    target = torch.tensor([[1.0, float("nan")], [float("nan"), 0.0]])
    for other in (-3.0, 7.0):
        logits = torch.tensor([[0.3, other], [other, -0.4]], requires_grad=True)
        cost = losses.finding_loss(name, logits, target, weights)
        (slope,) = torch.autograd.grad(cost, logits)
        assert float(slope[0, 1]) == float(slope[1, 0]) == 0
        known = [losses.finding_loss(name, logits[:1, :1], target[:1, :1], weights[:1])]
        known.append(losses.finding_loss(name, logits[1:, 1:], target[1:, 1:], weights[1:]))
        assert float(cost.detach()) == pytest.approx(float(sum(known).detach()) / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_which_nothing_is_known_costs_nothing(name):
    logits = torch.zeros(2, 3, requires_grad=True)
    cost = losses.finding_loss(name, logits, torch.full((2, 3), float("nan")))
    cost.backward()
    assert float(cost.detach()) == 0
    assert not logits.grad.any()


def test_the_plain_loss_is_binary_cross_entropy_and_the_focal_one_that_of_torchvision():
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(6, 3, generator=generator), (torch.rand(6, 3, generator=generator) > 0.5).float()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    assert float(losses.finding_loss("bce", logits, truth)) == pytest.approx(float(plain))
    theirs = sigmoid_focal_loss(logits, truth, alpha=-1, gamma=2.0, reduction="mean")
    assert float(losses.finding_loss("focal", logits, truth)) == pytest.approx(float(theirs))


def test_the_asymmetric_loss_worked_out_by_hand():
    p = 0.3
    logits = torch.logit(torch.tensor([[p, p, 0.04]]))
    cost = losses.finding_loss("asymmetric", logits, torch.tensor([[1.0, 0.0, 0.0]]))
    # Present in full; absent by the fourth power beyond the margin of 0.05; below the margin nothing.
    assert float(cost) == pytest.approx((-np.log(p) - 0.25**4 * np.log(0.75)) / 3, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_lower_for_the_truth_than_for_its_contrary(name):
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right, wrong = (4 * (2 * one - 1) for one in (target, 1 - target))
    assert float(losses.finding_loss(name, right, target)) < 0.1 * float(losses.finding_loss(name, wrong, target))


def test_balance_counts_what_few_cases_show_by_the_effective_number_of_cases():
    weights = losses.balance_weights(np.array([99.0, 5.0]), np.array([1.0, 5.0]))
    effective = (1 - 0.999**99) / 0.001
    assert weights[0, 1] / weights[0, 0] == pytest.approx(effective)
    assert_allclose(weights[1], [1, 1])
    assert_allclose(weights.mean(axis=1), 1)


def test_what_the_balanced_loss_likes_best_is_brought_back_to_the_share_of_the_training_cases():
    task = Findings(("rare",), {"rare": {"present": 5, "absent": 95}}, "class_balanced")
    target = torch.tensor([[1.0]] * 5 + [[0.0]] * 95)
    learnt = torch.zeros(1, requires_grad=True)
    for _ in range(300):
        (slope,) = torch.autograd.grad(task.loss({"findings": learnt.expand(100, 1)}, target), learnt)
        learnt = (learnt - 4 * slope).detach().requires_grad_()
    assert float(learnt.detach().sigmoid()) > 0.3
    probabilities = task.decode([((), {"findings": learnt.detach().numpy()})], GRID).probabilities
    assert probabilities["rare"] == pytest.approx(0.05, abs=1e-3)


def test_a_prediction_has_a_column_of_probability_and_of_call_for_each_finding():
    task = Findings(TASK.findings, thresholds={"nodule": 0.2})
    prediction = task.decode([((), {"findings": np.array([0.0, np.log(0.25 / 0.75), -800.0])})], GRID)
    columns = task.outputs(prediction)
    assert list(columns) == [
        *(f"probability_{name}" for name in TASK.findings),
        *(f"called_{n}" for n in TASK.findings),
        *(f"set_{n}" for n in TASK.findings),
    ]
    assert list(columns.values()) == [0.5, pytest.approx(0.25), 0.0, True, True, False, None, None, None]


def test_a_case_has_a_row_for_each_finding_that_is_known():
    table = TASK.score([prediction_of(0.9, 0.2, 0.6)], [case("a", "p", nodule=True, hernia=False)])
    assert table["label"].tolist() == ["nodule", "hernia"]
    assert table["reference"].tolist() == ["present", "absent"]
    assert table["predicted"].tolist() == ["absent", "present"]
    assert table["brier"].tolist() == pytest.approx([0.64, 0.36])


def test_figures_are_those_of_scikit_learn_for_the_cases_in_which_a_finding_is_known():
    predictions, cases, chances, truth, known = simulated()
    rows = {(row.metric, row.label): row.estimate for row in summarised(predictions, cases)}
    for place, name in enumerate(TASK.findings):
        there = known[:, place]
        label, chance = truth[there, place], chances[there, place]
        called = chance >= 0.5
        expected = {
            "auroc": metrics.roc_auc_score(label, chance),
            "average_precision": metrics.average_precision_score(label, chance),
            "sensitivity": metrics.recall_score(label, called),
            "specificity": metrics.recall_score(~label, ~called),
            "ppv": metrics.precision_score(label, called),
            "npv": metrics.precision_score(~label, ~called),
            "f1": metrics.f1_score(label, called),
            "brier": metrics.brier_score_loss(label, chance),
        }
        for metric, value in expected.items():
            assert rows[metric, name].value == pytest.approx(value), (metric, name)
            assert "0.5 on (default)" in rows[metric, name].method or metric in ("auroc", "average_precision", "brier")
        assert rows["auroc", name].n == there.sum()
    for metric in TASK.primaries:
        mean = np.mean([rows[metric, name].value for name in TASK.findings])
        assert rows[metric, "all"].value == pytest.approx(mean), metric
        assert rows[metric, "all"].n == known.any(axis=1).sum()
        assert rows[metric, "all"].low <= rows[metric, "all"].high


def test_the_row_over_all_findings_comes_first_and_every_metric_is_one_that_a_plan_may_name():
    predictions, cases, *_ = simulated()
    rows = summarised(predictions, cases)
    assert (rows[0].metric, rows[0].label) == ("auroc", "all")
    assert {row.metric for row in rows if TASK.metrics.metric_named(row.metric).may_judge} == TASK.primaries


def test_a_finding_that_no_case_has_is_left_out_of_the_mean_which_says_so():
    predictions, cases, *_ = simulated()
    without = [
        Case(one.id, one.patient, one.images, {"findings": {**one.references["findings"], "hernia": False}})
        for one in cases
    ]
    rows = {(row.metric, row.label): row.estimate for row in TASK.summary(TASK.score(predictions, without), seed=0)}
    assert np.isnan(rows["auroc", "hernia"].value)
    others = np.mean([rows["auroc", name].value for name in ("effusion", "nodule")])
    assert rows["auroc", "all"].value == pytest.approx(others)
    assert "mean of 2 of 3 findings" in rows["auroc", "all"].method


def test_a_finding_that_is_called_all_has_figures_of_its_own_beside_those_of_all():
    figures = []
    for name in ("effusion", "all"):
        named = {"effusion": name}
        task = Findings((name, "nodule", "hernia"), {name: {"present": 3, "absent": 7}}, prevalence={name: 0.1})
        predictions, cases, *_ = simulated()
        predictions = [
            Prediction(GRID, probabilities={named.get(key, key): own for key, own in one.probabilities.items()})
            for one in predictions
        ]
        cases = [
            case(one.id, **{named.get(key, key): own for key, own in one.references["findings"].items()})
            for one in cases
        ]
        table = task.score(predictions, cases)
        rows = task.summary(table, seed=0)
        figures.append({(row.metric, row.label): row.estimate.value for row in rows})
        assert len(figures[-1]) == len(rows)
        values = task.case_values(table)
        assert len({(one.metric, one.label) for one in values}) == len(values)
        assert task.guess(table).table["probability"].dropna().unique() == pytest.approx([0.3])
    plain, own = figures
    labels = {"effusion": "all (finding)"}
    assert own == pytest.approx(
        {(metric, labels.get(label, label)): value for (metric, label), value in plain.items()}, nan_ok=True
    )


def test_patients_are_resampled_with_all_their_images():
    predictions, cases, *_ = simulated(blank=0.0)
    once = summarised(predictions, cases)[0].estimate
    # The same images once more of the same patients tell nothing new: the interval stays.
    again = [Case(f"{one.id}+", one.patient, one.images, one.references) for one in cases]
    twice = TASK.summary(TASK.score(predictions * 2, [*cases, *again]), seed=0)[0].estimate
    assert (once.n, twice.n, twice.patients) == (80, 160, 80)
    assert [twice.value, twice.low, twice.high] == pytest.approx([once.value, once.low, once.high], abs=1e-9)


def test_validation_cases_set_a_threshold_for_each_finding_that_enough_of_them_have():
    predictions, cases, chances, truth, known = simulated(120)
    known_of = [{k: v for k, v in one.references["findings"].items() if k != "hernia"} for one in cases]
    few = [case(one.id, **known) for one, known in zip(cases, known_of, strict=True)]
    task, decisions = fitting.with_fitted_calibration(
        Findings(TASK.findings, point=OperatingPoint("sensitivity>=0.9"), certainty=AS_GIVEN),
        PredictedCases(predictions, few),
    )
    assert set(task.thresholds) == {"effusion", "nodule"}
    for place, name in enumerate(("effusion", "nodule")):
        positive = chances[known[:, place] & truth[:, place], place]
        assert np.mean(positive >= task.thresholds[name]) >= 0.9
    assert "sensitivity>=0.9 on average of" in decisions["task.thresholds"].because
    assert fitting.with_fitted_calibration(task, PredictedCases(predictions, few)) == (task, {})


def test_a_finding_that_no_unseen_case_knows_is_named_among_those_without_a_threshold():
    """Its rule is not kept either, and a site that says nothing of it loses the threshold that it had."""
    predictions, cases, *_ = simulated(120, blank=0.0)
    of_two = [case(one.id, **{k: v for k, v in one.references["findings"].items() if k != "hernia"}) for one in cases]
    task = Findings(TASK.findings, point=OperatingPoint("sensitivity>=0.9"), certainty=AS_GIVEN)
    found, decisions = fitting.with_fitted_calibration(task, PredictedCases(predictions, of_two))
    assert set(found.thresholds) == {"effusion", "nodule"}
    because = decisions["task.thresholds"].because
    assert "0 unseen cases of hernia and 0 others are too few for a threshold" in because
    by_hand = {"operating_point": Decision("sensitivity>=0.9", BY_HAND), "thresholds": decisions["task.thresholds"]}
    assert any("could not be kept" in sentence for sentence in task_settings.unkept_rules(task, by_hand))


def test_selection_is_the_mean_area_of_the_summary_and_without_any_the_log_likelihood():
    predictions, cases, chances, truth, known = simulated()
    target = torch.from_numpy(np.where(known, truth, np.nan))
    chosen = TASK.selection({"probabilities": torch.from_numpy(chances), "target": target})
    assert chosen == pytest.approx(summarised(predictions, cases)[0].estimate.value)
    collected = {"probabilities": torch.tensor([[0.25, 0.9, 0.5]]), "target": torch.tensor([[0.0, float("nan"), 1.0]])}
    assert TASK.selection(collected) == pytest.approx((np.log(0.75) + np.log(0.5)) / 2)


def test_cases_are_ranked_by_how_far_all_their_findings_are_missed():
    table = TASK.score(
        [prediction_of(0.9, 0.9, 0.1), prediction_of(0.4, 0.5, 0.5), prediction_of(0.9, 0.1, 0.1)],
        [case(name, effusion=True, nodule=False, hernia=False) for name in ("wrong", "unsure", "right")],
    )
    assert TASK.rank(table) == ["right", "wrong", "unsure"]


def test_cases_cannot_be_sampled_finding_by_finding():
    with pytest.raises(PlanError, match=r"training\.sampling"):
        TASK.under("balanced")


def test_findings_with_a_side_change_places_in_a_mirror():
    assert Findings(("left effusion", "nodule", "right effusion")).channels_when_mirrored == (2, 1, 0)
    assert Findings(("left effusion", "nodule")).channels_when_mirrored is None


def planned(*references: dict[str, bool], declared: tuple[str, ...] = ()):
    measured = {"min": 0.0, "low": 0.0, "high": 1.0, "median": 0.5, "max": 1.0, "mean": 0.5, "deviation": 0.2}
    facts = [
        CaseFacts(str(n), (8, 8), (1.0, 1.0), False, False, ("0",), "DX", (measured,), references={"findings": labels})
        for n, labels in enumerate(references)
    ]
    labels = {"findings": tuple(Label(n, name) for n, name in enumerate(declared))}
    return Findings.settings_for(Dataset((), classes=labels), Fingerprint(tuple(facts)))


def test_a_finding_that_never_or_always_occurs_in_training_is_left_out_and_said():
    decisions = planned(
        {"a": True, "b": False, "c": True}, {"a": False, "b": False, "c": True}, declared=("c", "b", "a", "d")
    )
    assert decisions["findings"].value == ["a"]
    because = decisions["findings"].because
    for words in ("a 1 present and 1 absent", "c (2 present and 0 absent)", "d (0 present and 0 absent)"):
        assert words in because
    assert task_settings.task_from_settings(Findings, {name: one.value for name, one in decisions.items()}).counts == {
        "a": {"present": 1, "absent": 1}
    }


def test_cases_without_any_finding_to_tell_apart_are_refused():
    with pytest.raises(DatasetError, match="no finding is present in some training cases and absent in others"):
        planned({"a": True}, {"a": True, "b": False})


@pytest.mark.parametrize(
    "change",
    [
        {"findings": []},
        {"findings": ["a", "a"]},
        {"findings": 3},
        {"loss": "dice"},
        {"loss": "class_balanced", "counts": None},
        {"counts": {"effusion": {"present": 1}}},
        {"counts": {"other": {"present": 1, "absent": 1}}},
        {"thresholds": {"effusion": 1.5}},
        {"prevalence": {"other": 0.5}},
        {"prevalence": 0.5},
        {"operating_point": "best"},
        {"smoothing": 0.1},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(PlanError):
        task_settings.task_from_settings(Findings, {**task_settings.settings_of(TASK), **change})


def test_the_mean_error_over_bins_of_equal_mass_has_the_interval_of_all_findings_as_one_question():
    predictions, cases, chances, truth, _ = simulated(blank=0.0)
    table = TASK.score(predictions, cases)
    table["uncalibrated"] = table["probability"] ** 2
    few_draws = Resampling(draws=50)  # the interval of gaps needs none of them
    rows = {(row.metric, row.label): row.estimate for row in TASK.summary(table, seed=few_draws)}
    who = np.arange(len(cases))
    for side, stated in (("", chances), ("_uncalibrated", chances**2)):
        of_findings = calibration.calibration_error(stated, truth, who, seed=0, kind=BY_MASS)
        both = np.concatenate([1 - stated, stated], axis=1), np.concatenate([~truth, truth], axis=1)
        of_answers = calibration.calibration_error(*both, who, seed=0, kind=BY_MASS)
        for metric, expected in (("ece_equal_mass", of_findings), ("ace", of_answers)):
            mean = rows[f"{metric}{side}", "all"]
            assert (mean.value, mean.n) == (pytest.approx(expected.value), len(cases)), metric
            assert_allclose((mean.low, mean.high), (expected.low, expected.high), atol=0.01, err_msg=metric)
            assert mean.method.endswith("bins of equal mass; unweighted mean of 3 of 3 findings")
        assert rows[f"ece{side}", "all"].low is not None
    assert rows["mce", "all"].low is None


def test_a_saturated_wrong_call_costs_the_same_whichever_side_it_takes():
    """1 less a probability is 0 from log odds of 37 on, where the probability itself is not."""
    odds = np.array([40.0, -40.0, 1.0, -1.0])
    present = 1 / (1 + np.exp(-odds))
    chances = np.stack([1 - present, present], axis=1)
    patients = np.array([f"p{n}" for n in range(4)])
    for wrong in (0, 1):
        reference = np.array([1, 0, 1, 0])
        reference[wrong] = wrong
        rows = calibration_scores.calibration_rows("mass", chances, reference, patients, uncalibrated=None, seed=0)
        [loss] = [row.estimate.value for row in rows if row.metric == "log_loss"]
        assert loss == pytest.approx((53 * np.log(2) + 2 * np.log1p(np.exp(-1))) / 4)
