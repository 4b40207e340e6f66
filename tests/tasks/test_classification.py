from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics

from hilum.belief import Certainty
from hilum.belief.operating_points import OperatingPoint
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import case_tables
from hilum.evaluation.calibration_fit import Calibrator
from hilum.tasks import fitting, task_catalogue, task_settings
from hilum.tasks.classification.question import Classification
from hilum.tasks.fitting import PredictedCases
from hilum.values import Case, CaseFacts, Confidence, Dataset, Fingerprint, Geometry, Image, Prediction

GRID = Geometry.of_pixels((4, 4))
TASK = Classification(("benign", "malignant", "normal"))


def case(name: str, reference: str, patient: str | None = None) -> Case:
    image = Image(np.zeros((1, 4, 4), np.float32), GRID)
    return Case(name, patient or name, {"image": image}, {"class": reference})


def prediction_of(*probabilities: float) -> Prediction:
    return Prediction(GRID, probabilities=dict(zip(TASK.classes, probabilities, strict=True)))


def test_a_task_comes_back_from_its_settings():
    assert task_catalogue.build_task({"name": "classification", **task_settings.settings_of(TASK)}) == TASK


def test_every_setting_comes_back_from_json():
    full = Classification(
        TASK.classes,
        smoothing=0.1,
        point=OperatingPoint("sensitivity>=0.95", 0.9),
        counts={"benign": 5, "malignant": 3, "normal": 0},
        weights={"malignant": 2.0},
        prior_shift={"benign": -0.5, "malignant": -1.0, "normal": 0.0},
        thresholds={"malignant": 0.2},
        prevalence={"malignant": 0.01},
    )
    assert (
        task_catalogue.build_task({"name": "classification", **json.loads(json.dumps(task_settings.settings_of(full)))})
        == full
    )


def test_one_number_as_the_prevalence_of_yes_and_no_is_that_of_yes():
    task = task_settings.task_from_settings(
        Classification, {"classes": ["no", "yes"], "smoothing": 0.0, "prevalence": 0.2}
    )
    assert task.prevalence == pytest.approx({"no": 0.8, "yes": 0.2})


@pytest.mark.parametrize("given", [{"yes": 0.2}, {"no": 0.8}, {"no": 0.8, "yes": 0.2}])
def test_the_prevalence_of_one_of_two_classes_is_that_of_the_other_too(given):
    task = task_settings.task_from_settings(
        Classification, {"classes": ["no", "yes"], "smoothing": 0.0, "prevalence": given}
    )
    assert task.prevalence == pytest.approx({"no": 0.8, "yes": 0.2})


def test_the_target_is_the_classs_place_and_an_unknown_class_is_refused():
    assert TASK.target(case("a", "malignant")).data == 1
    with pytest.raises(DatasetError, match="strange"):
        TASK.target(case("a", "strange"))


def test_the_loss_of_knowing_nothing_is_the_entropy_and_of_knowing_all_nothing():
    target = torch.tensor([0, 1, 2])
    assert float(TASK.loss({"class": torch.zeros(3, 3)}, target)) == pytest.approx(np.log(3))
    assert float(TASK.loss({"class": 50 * torch.eye(3)}, target)) == pytest.approx(0.0, abs=1e-6)


def test_smoothing_spreads_its_share_over_all_classes():
    smooth = Classification(TASK.classes, smoothing=0.3)
    logits, target = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([0])
    logs = torch.log_softmax(logits, dim=1)[0]
    assert float(smooth.loss({"class": logits}, target)) == pytest.approx(float(-0.7 * logs[0] - 0.1 * logs.sum()))


def test_decoding_is_the_softmax_by_class():
    prediction = TASK.decode([((), {"class": np.log(np.array([0.2, 0.5, 0.3], np.float32))})], GRID)
    assert list(prediction.probabilities) == list(TASK.classes)
    assert list(prediction.probabilities.values()) == pytest.approx([0.2, 0.5, 0.3])
    assert TASK.outputs(prediction)["predicted"] == "malignant"


def test_the_selection_is_the_area_that_the_summary_states():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 60)
    reference = rng.integers(0, 3, 60)
    chosen = TASK.selection({"probabilities": torch.from_numpy(probabilities), "target": torch.from_numpy(reference)})
    table = TASK.score(
        [prediction_of(*row) for row in probabilities], [case(str(n), TASK.classes[r]) for n, r in enumerate(reference)]
    )
    [area] = [row for row in TASK.summary(table, seed=0) if (row.metric, row.label) == ("auroc", "all")]
    assert chosen == pytest.approx(area.estimate.value)


def test_where_a_class_is_missing_the_selection_is_the_log_likelihood():
    collected = {"probabilities": torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]]), "target": torch.tensor([0, 0])}
    assert TASK.selection(collected) == pytest.approx(np.log(0.5))


def test_a_row_names_the_classes_as_its_columns_do():
    table = TASK.score([prediction_of(0.1, 0.7, 0.2)], [case("a", "normal", "p1")])
    assert list(table.columns) == [
        "case",
        "patient",
        "label",
        "reference",
        "predicted",
        "probability_benign",
        "probability_malignant",
        "probability_normal",
        "set",
        "brier",
    ]
    assert table.iloc[0].tolist()[:5] == ["a", "p1", "all", "normal", "malignant"]
    assert table["brier"].iloc[0] == pytest.approx(0.1**2 + 0.7**2 + 0.8**2)


def test_the_summary_of_answers_that_are_all_right_is_perfect_and_the_row_over_all_comes_first():
    names = ["benign", "malignant", "normal"] * 6
    table = TASK.score(
        [prediction_of(*(0.8 if name == one else 0.1 for one in TASK.classes)) for name in names],
        [case(str(n), name) for n, name in enumerate(names)],
    )
    rows = TASK.summary(table, seed=0)
    assert (rows[0].metric, rows[0].label) == ("auroc", "all")
    for row in rows:
        if row.metric in ("auroc", "accuracy", "balanced_accuracy", "mcc", "sensitivity", "specificity"):
            assert row.estimate.value == pytest.approx(1.0), row
    assert {row.label for row in rows} == {"all", *TASK.classes}
    assert all(row.estimate.n for row in rows)


def test_cases_are_ranked_from_the_surest_right_to_the_surest_wrong():
    table = TASK.score(
        [prediction_of(0.1, 0.8, 0.1), prediction_of(0.9, 0.05, 0.05), prediction_of(0.4, 0.3, 0.3)],
        [case("wrong", "benign"), case("right", "benign"), case("unsure", "benign")],
    )
    assert TASK.rank(table) == ["right", "unsure", "wrong"]


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["one"]},
        {"classes": ["a", "a"]},
        {"smoothing": 1.0},
        {"smoothing": "much"},
        {"classes": 3},
        {"operating_point": "sensitivity"},
        {"operating_point": "sensitivity>=95"},
        {"operating_point": 0.5},
        {"thresholds": {"benign": 1.5}},
        {"thresholds": {"unknown": 0.5}},
        {"weights": {"benign": -1}},
        {"weights": [1, 2, 3]},
        {"prevalence": {"benign": "often"}},
        {"prevalence": {"benign": 0.7, "malignant": 0.7}},
        {"prevalence": {"benign": 0.5, "malignant": 0.2, "normal": 0.2}},
        {"prior_shift": {"benign": float("nan")}},
        {"prevalance": 0.1},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(PlanError):
        task_settings.task_from_settings(Classification, {**task_settings.settings_of(TASK), **change})


def counted(counts: dict[str, int]) -> Fingerprint:
    measured = {"min": 0.0, "low": 0.0, "high": 1.0, "median": 0.5, "max": 1.0, "mean": 0.5, "deviation": 0.2}
    cases = [
        CaseFacts(str(n), (8, 8), (1.0, 1.0), False, False, ("grey",), "CR", (measured,), references={"class": name})
        for n, name in enumerate(name for name, count in counts.items() for _ in range(count))
    ]
    return Fingerprint(tuple(cases))


def planned(counts: dict[str, int]):
    fingerprint = counted(counts)
    decisions = Classification.settings_for(Dataset(()), fingerprint)
    task = task_settings.task_from_settings(
        Classification, {name: decision.value for name, decision in decisions.items()}
    )
    return task, {**decisions, **task.decisions(fingerprint)}


def test_classes_in_fair_shares_are_sampled_as_they_come_and_nothing_is_corrected():
    task, decisions = planned({"no": 30, "yes": 70})
    assert decisions["training.sampling"].value == "natural"
    assert "no has 30 of 100 training cases (30.0 %)" in decisions["training.sampling"].because
    assert task.prior_shift is None


def test_a_scarce_class_is_sampled_as_often_and_its_probability_brought_back_to_its_share():
    task, decisions = planned({"no": 95, "yes": 5})
    assert decisions["training.sampling"].value == "balanced"
    assert task.prior_shift["yes"] - task.prior_shift["no"] == pytest.approx(np.log(5 / 95), abs=1e-5)
    # A case that tells nothing has the training share as its probability, not one half.
    knows_nothing = task.decode([((), {"class": np.zeros(2)})], GRID)
    assert knows_nothing.probabilities["yes"] == pytest.approx(0.05, abs=1e-6)


def test_what_is_corrected_is_what_the_loss_and_the_sampling_changed():
    """The best answer under a weighted loss on balanced cases, corrected, is the share of the training cases."""
    counts, weights = {"a": 60, "b": 30, "c": 10}, {"b": 2.0, "c": 5.0}
    for sampling in ("natural", "balanced"):
        task = Classification(tuple(counts), counts=counts, weights=weights)
        shift = task.under(sampling)["task.prior_shift"].value
        task = replace(task, prior_shift=shift)
        shares = np.array([60, 30, 10]) / 100 if sampling == "natural" else np.full(3, 1 / 3)
        learnt = torch.zeros(3, requires_grad=True)
        for _ in range(400):  # the constant that the loss likes best
            targets = torch.arange(3)
            logits = learnt.expand(3, 3)
            each = torch.stack([task.loss({"class": logits[n : n + 1]}, targets[n : n + 1]) for n in range(3)])
            # one case alone is divided by its own weight: multiplied back here, as in a large batch
            costs = each * torch.tensor([1.0, 2.0, 5.0]) * torch.tensor(shares, dtype=torch.float32)
            (slope,) = torch.autograd.grad(costs.sum(), learnt)
            learnt = (learnt - slope).detach().requires_grad_()
        probabilities = task.decode([((), {"class": learnt.detach().numpy()})], GRID).probabilities
        assert list(probabilities.values()) == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)


def test_selection_looks_at_the_corrected_probabilities():
    task = Classification(("no", "yes"), prior_shift={"no": 0.0, "yes": float(np.log(1 / 9))})
    probabilities = task.quality({"class": torch.zeros(1, 2)}, torch.tensor([1]))["probabilities"]
    assert probabilities[0].tolist() == pytest.approx([0.9, 0.1])


def test_averaging_two_networks_averages_their_probabilities_and_corrects_once():
    task = Classification(("no", "yes"), prior_shift={"no": 0.0, "yes": -1.0})
    mean = task.average([{"class": np.log([[0.2, 0.8]])}, {"class": np.log([[0.6, 0.4]])}])
    probabilities = task.decode([((), {"class": mean["class"][0]})], GRID).probabilities
    raised = np.array([0.4, 0.6 * np.exp(-1)])
    assert list(probabilities.values()) == pytest.approx((raised / raised.sum()).tolist())


# Without a calibration, so that thresholds lie on the scale of the probabilities given here.
AS_GIVEN = Certainty("none", Calibrator())
TWO = Classification(("no", "yes"), point=OperatingPoint("sensitivity>=0.95"), certainty=AS_GIVEN)


def answers(chances, truths, task=TWO):
    predictions = [Prediction(GRID, probabilities={"no": 1 - p, "yes": p}) for p in chances]
    return predictions, [case(str(n), task.classes[t]) for n, t in enumerate(truths)]


def test_validation_cases_set_the_threshold_by_the_rule_and_the_summary_names_both():
    rng = np.random.default_rng(0)
    truths = np.arange(200) % 2
    chances = (1 / (1 + np.exp(-(rng.normal(0, 1, 200) + 2 * truths - 1)))).round(6)
    predictions, cases = answers(chances, truths)
    task, decisions = fitting.with_fitted_calibration(TWO, PredictedCases(predictions, cases))
    level = task.thresholds["yes"]
    assert decisions["task.thresholds"].value == {"yes": level}
    assert np.mean(chances[truths == 1] >= level) >= 0.95
    assert np.mean(chances[truths == 1] >= level + 0.05) < 0.95
    rows = {(row.metric, row.label): row.estimate for row in task.summary(task.score(predictions, cases), seed=0)}
    assert rows["sensitivity", "yes"].value == pytest.approx(np.mean(chances[truths == 1] >= level))
    assert rows["specificity", "yes"].value == pytest.approx(np.mean(chances[truths == 0] < level))
    assert rows["sensitivity", "no"].value == rows["specificity", "yes"].value
    assert f"yes from {level:.3g} on (sensitivity>=0.95 on average, unseen cases)" in rows["sensitivity", "yes"].method
    assert rows["accuracy", "all"].value == pytest.approx(np.mean((chances > 0.5) == truths))
    assert fitting.with_fitted_calibration(task, PredictedCases(predictions, cases)) == (task, {})


def test_too_few_validation_cases_leave_one_half_and_say_so():
    predictions, cases = answers(np.linspace(0.1, 0.9, 12), [0] * 6 + [1] * 6)
    task, decisions = fitting.with_fitted_calibration(TWO, PredictedCases(predictions, cases))
    assert task.thresholds == {}
    assert "too few" in decisions["task.thresholds"].because
    rows = {(row.metric, row.label): row.estimate for row in task.summary(task.score(predictions, cases), seed=0)}
    assert "yes from 0.5 on (default)" in rows["sensitivity", "yes"].method


def test_figures_of_the_summary_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    chances = rng.dirichlet(np.ones(3), 90)
    reference = np.array([rng.choice(3, p=0.6 * row + 0.4 / 3) for row in chances])
    table = TASK.score(
        [prediction_of(*row) for row in chances], [case(str(n), TASK.classes[r]) for n, r in enumerate(reference)]
    )
    rows = {(row.metric, row.label): row.estimate.value for row in TASK.summary(table, seed=0)}
    top = chances.argmax(axis=1)
    assert rows["auroc", "all"] == pytest.approx(metrics.roc_auc_score(reference, chances, multi_class="ovr"))
    assert rows["f1", "all"] == pytest.approx(metrics.f1_score(reference, top, average="macro"))
    assert rows["mcc", "all"] == pytest.approx(metrics.matthews_corrcoef(reference, top))
    assert rows["kappa", "all"] == pytest.approx(metrics.cohen_kappa_score(reference, top))
    assert rows["balanced_accuracy", "all"] == pytest.approx(metrics.balanced_accuracy_score(reference, top))
    for index, name in enumerate(TASK.classes):
        classes = (reference == index, top == index)
        assert rows["sensitivity", name] == pytest.approx(metrics.recall_score(*classes))
        assert rows["kappa", name] == pytest.approx(metrics.cohen_kappa_score(*classes))
        assert rows["ppv", name] == pytest.approx(metrics.precision_score(*classes))
        assert rows["npv", name] == pytest.approx(metrics.precision_score(~classes[0], ~classes[1]))
        assert rows["f1", name] == pytest.approx(metrics.f1_score(*classes))
        assert rows["average_precision", name] == pytest.approx(
            metrics.average_precision_score(classes[0], chances[:, index])
        )


def test_every_row_is_of_a_metric_that_a_plan_may_name_and_the_other_way_round():
    predictions, cases = answers(np.linspace(0.1, 0.9, 12), [0, 1] * 6)
    rows = TWO.summary(TWO.score(predictions, cases), seed=0)
    assert {row.metric for row in rows if TWO.metrics.metric_named(row.metric).may_judge} == {*TWO.primaries}


def test_predictive_values_are_stated_at_the_prevalence_that_is_stated():
    predictions, cases = answers([0.1] * 40 + [0.9] * 10 + [0.1] * 10 + [0.9] * 40, [0] * 50 + [1] * 50)
    of_these, stated = TWO, replace(TWO, prevalence={"no": 0.9, "yes": 0.1})
    estimates = [
        {row.metric: row.estimate for row in task.summary(task.score(predictions, cases), seed=0) if row.label == "yes"}
        for task in (of_these, stated)
    ]
    assert estimates[0]["ppv"].value == pytest.approx(0.8)
    assert "at a prevalence of 0.5, that of these cases" in estimates[0]["ppv"].method
    assert estimates[1]["ppv"].value == pytest.approx(0.8 * 0.1 / (0.8 * 0.1 + 0.2 * 0.9))
    assert estimates[1]["npv"].value == pytest.approx(0.8 * 0.9 / (0.8 * 0.9 + 0.2 * 0.1))
    assert "at a stated prevalence of 0.1" in estimates[1]["ppv"].method
    assert estimates[1]["ppv"].low < estimates[1]["ppv"].value < estimates[1]["ppv"].high


def test_a_threshold_of_the_first_of_two_classes_parts_them():
    predictions, cases = answers(np.linspace(0.05, 0.95, 20), [0, 1] * 10)
    first, second = replace(TWO, thresholds={"no": 0.68}), replace(TWO, thresholds={"yes": 0.32})
    made = [
        {(row.metric, row.label): row.estimate.value for row in task.summary(task.score(predictions, cases), seed=0)}
        for task in (first, second, TWO)
    ]
    assert made[0] == pytest.approx(made[1], nan_ok=True)
    assert made[0]["sensitivity", "yes"] > made[2]["sensitivity", "yes"]


def test_the_rows_out_of_fold_rank_cases_within_their_fold_alone():
    """Two folds of which the second calls everything more malignant: each tells all cases apart, in its own order."""
    rows = []
    for n in range(40):
        fold, truth = n % 2, n % 4 < 2
        malignant = 0.1 + 0.1 * truth + 0.6 * fold
        predicted = prediction_of(1 - malignant, malignant, 0.0)
        scored = TASK.score([predicted], [case(str(n), "malignant" if truth else "benign")])
        rows += scored.assign(split="test", fold=str(fold)).to_dict("records")
    task = replace(TASK, classes=TASK.classes[:2])
    table = case_tables.case_table(rows).drop(columns="probability_normal")
    apart = {
        (row.metric, row.label): row.estimate
        for row in task.summary(table, seed=case_tables.resampling_of_table(table, 0))
    }
    pooled = {(row.metric, row.label): row.estimate for row in task.summary(table, seed=0)}
    assert apart["auroc", "all"].value == apart["auroc", "malignant"].value == 1
    assert pooled["auroc", "all"].value == 0.75
    assert apart["accuracy", "all"] == pooled["accuracy", "all"]
    assert apart["brier", "all"] == pooled["brier", "all"]


def test_a_class_that_is_called_all_has_figures_of_its_own_beside_those_of_all_classes():
    """As in C-NMC, whose classes are all (acute lymphoblastic leukaemia) and hem."""
    figures = []
    for names in (("no", "yes"), ("all", "hem")):
        task = replace(TWO, classes=names)
        chances = [dict(zip(names, (1 - p, p), strict=True)) for p in np.linspace(0.1, 0.9, 12).tolist()]
        predictions = [Prediction(GRID, probabilities=one) for one in chances]
        cases = [case(str(n), names[n % 3 == 0]) for n in range(12)]
        rows = task.summary(task.score(predictions, cases), seed=0)
        figures.append({(row.metric, row.label): row.estimate.value for row in rows})
        assert len(figures[-1]) == len(rows)
    plain, own = figures
    labels = {"no": "all (class)", "yes": "hem"}
    assert own == pytest.approx(
        {(metric, labels.get(label, label)): value for (metric, label), value in plain.items()}, nan_ok=True
    )


def test_rows_state_how_far_probabilities_were_right_before_and_after_calibration():
    random = np.random.default_rng(3)
    odds = random.normal(0, 1.5, 400)
    truths = (random.random(400) < 1 / (1 + np.exp(-odds))).astype(int)
    sure = 1 / (1 + np.exp(-3 * odds))
    predictions, cases = answers(sure, truths)
    task, made = fitting.with_fitted_calibration(Classification(("no", "yes")), PredictedCases(predictions, cases))
    assert made["task.calibration"].value["method"] == task.certainty.calibrator.method != "none"
    made = np.exp(task.certainty.calibrator.classes(np.log(np.stack([1 - sure, sure], axis=1)), task.classes))
    after = [
        replace(one, probabilities=dict(zip(task.classes, new, strict=True)), confidence=Confidence(uncalibrated=given))
        for one, given, new in zip(predictions, (one.probabilities for one in predictions), made.tolist(), strict=True)
    ]
    table = task.score(after, cases)
    assert table["uncalibrated_yes"].tolist() == sure.tolist()
    rows = {row.metric: row.estimate for row in task.summary(table, seed=0) if row.label == "all"}
    assert rows["temperature_uncalibrated"].low < 3 < rows["temperature_uncalibrated"].high
    assert rows["temperature"].low < 1 < rows["temperature"].high
    assert rows["calibration_slope_uncalibrated"].value == pytest.approx(1 / 3, abs=0.1)
    for metric in ("log_loss", "ece", "ece_equal_mass", "brier", "mce", "ace", "brier_reliability"):
        assert rows[metric].value < rows[f"{metric}_uncalibrated"].value, metric
    for side in ("", "_uncalibrated"):
        off, apart, base = (rows[f"brier_{part}{side}"].value for part in ("reliability", "resolution", "uncertainty"))
        assert off - apart + base == pytest.approx(rows[f"brier{side}"].value, abs=0.01)
    assert all(
        TWO.metrics.metric_named(metric).is_of_belief for metric in rows if metric.startswith(("mce", "ace", "brier"))
    )


@pytest.mark.whole
def test_of_several_classes_each_has_a_slope_and_an_intercept_and_the_parts_of_the_brier_score_are_their_sum():
    random = np.random.default_rng(0)
    logs = np.log(random.dirichlet([1.0, 1.0, 1.0], size=1500))
    truth = np.array([random.choice(3, p=np.exp(one)) for one in logs])
    sure = np.exp(2 * logs) / np.exp(2 * logs).sum(axis=1, keepdims=True)
    task = Classification(("low", "middle", "high"))
    cases = [case(str(number), task.classes[true]) for number, true in enumerate(truth)]
    right, wrong = (
        {(row.metric, row.label): row.estimate for row in summary_of(task, cases, chances)}
        for chances in (np.exp(logs), sure)
    )
    for name in task.classes:
        assert right["calibration_slope", name].value == pytest.approx(1, abs=0.15)
        assert wrong["calibration_slope", name].high < 0.75
        assert right["calibration_intercept", name].low < 0 < right["calibration_intercept", name].high
    for given in (right, wrong):
        reliable, resolved, uncertain = (
            given[f"brier_{part}", "all"].value for part in ("reliability", "resolution", "uncertainty")
        )
        assert reliable - resolved + uncertain == pytest.approx(given["brier", "all"].value, abs=0.01)
    assert wrong["brier_reliability", "all"].value > 5 * right["brier_reliability", "all"].value
    for metric, kind in (("ece", "width"), ("mce", "width"), ("ece_equal_mass", "mass"), ("ace", "mass")):
        assert right[metric, "all"].method.endswith(f"15 bins of equal {kind}"), metric
        assert "a calibrated model has" in right[metric, "all"].method


def summary_of(task: Classification, cases: list[Case], chances: np.ndarray):
    made = [Prediction(GRID, probabilities=dict(zip(task.classes, one, strict=True))) for one in chances.tolist()]
    return task.summary(task.score(made, cases), seed=0)
