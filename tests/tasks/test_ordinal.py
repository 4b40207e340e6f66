from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose
from sklearn import metrics

from hilum.errors import PlanError
from hilum.tasks import task_catalogue, task_settings
from hilum.tasks.classification import ordinal, scoring
from hilum.tasks.classification.ordinal import BETWEEN, ORDERS
from hilum.tasks.classification.question import Classification
from hilum.values import Case, CaseFacts, Dataset, Fingerprint, Geometry, Image, Label, Prediction, grading

GRID = Geometry.of_pixels((4, 4))
GRADES = ("0", "1", "2", "3", "4")
OUTPUTS = arrays(np.float64, array_shapes(min_dims=1, max_dims=2, max_side=5), elements=st.floats(-60, 60))


def graded(order: str, **settings) -> Classification:
    return task_settings.task_from_settings(
        Classification, {"classes": list(GRADES), "smoothing": 0.0, "order": order, **settings}
    )


def case(name: str, reference: str) -> Case:
    return Case(name, name, {"image": Image(np.zeros((1, 4, 4), np.float32), GRID)}, {"class": reference})


def prediction_of(probabilities) -> Prediction:
    return Prediction(GRID, probabilities=dict(zip(GRADES, map(float, probabilities), strict=True)))


def likely(order: str, outputs: np.ndarray) -> np.ndarray:
    return np.exp(ordinal.log_probabilities(order, outputs))


@pytest.mark.parametrize("order", sorted(BETWEEN))
@given(outputs=OUTPUTS)
def test_the_probabilities_of_any_outputs_sum_to_one(order, outputs):
    probabilities = likely(order, outputs)
    assert probabilities.shape == (*outputs.shape[:-1], outputs.shape[-1] + 1)
    assert (probabilities >= 0).all()
    assert_allclose(probabilities.sum(axis=-1), 1.0, rtol=1e-9)


@pytest.mark.parametrize("order", sorted(BETWEEN))
@given(outputs=OUTPUTS)
def test_to_be_above_a_higher_grade_is_never_likelier(order, outputs):
    above = 1 - np.cumsum(likely(order, outputs), axis=-1)
    assert (np.diff(above, axis=-1) <= 1e-9).all()


@pytest.mark.parametrize("order", sorted(BETWEEN))
@given(outputs=OUTPUTS)
def test_a_higher_first_output_never_makes_the_lowest_grade_likelier(order, outputs):
    higher = outputs.copy()
    higher[..., 0] += 1
    assert (likely(order, higher)[..., 0] <= likely(order, outputs)[..., 0]).all()


def test_corn_multiplies_the_chances_of_going_on():
    # From each grade half go on: 1/2 stay at the first, 1/4 at the second, and what is left is above it.
    assert_allclose(likely("corn", np.zeros(2)), [0.5, 0.25, 0.25])


def test_a_cumulative_link_takes_the_differences_of_its_chances():
    fall = np.log(np.expm1(2.0))  # whose softplus is 2
    above = 1 / (1 + np.exp(-np.array([1.0, -1.0])))
    assert_allclose(likely("cumulative", np.array([1.0, fall])), [1 - above[0], above[0] - above[1], above[1]])


@pytest.mark.parametrize("order", sorted(BETWEEN))
def test_of_two_grades_both_are_one_logistic_regression(order):
    outputs, target = torch.tensor([[0.3], [-1.2], [2.0]]), torch.tensor([1, 0, 0])
    assert_allclose(likely(order, outputs.numpy())[:, 1], outputs.sigmoid()[:, 0], rtol=1e-6)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], target.float())
    assert float(ordinal.ordinal_loss(order, outputs, target)) == pytest.approx(float(plain))


def test_the_loss_of_corn_asks_each_question_only_of_those_that_reach_it():
    outputs, target = torch.tensor([[0.5, -1.0], [0.2, 0.7], [1.0, 2.0]]), torch.tensor([0, 1, 2])
    first = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs[:, 0], torch.tensor([0.0, 1, 1]), reduction="sum"
    )
    second = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs[1:, 1], torch.tensor([0.0, 1]), reduction="sum"
    )
    assert float(ordinal.ordinal_loss("corn", outputs, target)) == pytest.approx(float(first + second) / 5)


def test_the_loss_of_the_cumulative_link_asks_every_question_of_every_case():
    outputs, target = torch.tensor([[0.5, -1.0], [0.2, 0.7]]), torch.tensor([0, 2])
    above = torch.stack([outputs[:, 0], outputs[:, 0] - torch.nn.functional.softplus(outputs[:, 1])], dim=1)
    wanted = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    plain = torch.nn.functional.binary_cross_entropy_with_logits(above, wanted)
    assert float(ordinal.ordinal_loss("cumulative", outputs, target)) == pytest.approx(float(plain))


@pytest.mark.parametrize("order", sorted(BETWEEN))
def test_the_expected_grade_is_that_of_the_probabilities(order):
    outputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = likely(order, outputs.numpy()) @ np.arange(5)
    assert_allclose(ordinal.expected_grade(order, outputs).numpy(), mean, rtol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_what_a_loss_likes_best_are_the_shares_of_the_training_cases_however_they_are_sampled(order, weighted):
    counts = {"a": 50, "b": 30, "c": 20}
    weights = {"b": 2.0, "c": 3.0} if weighted else None
    for sampling in ("natural", "balanced"):
        task = Classification(tuple(counts), counts=counts, weights=weights, order=order)
        task = replace(task, prior_shift=task.under(sampling)["task.prior_shift"].value)
        seen = (5, 3, 2) if sampling == "natural" else (1, 1, 1)
        target = torch.repeat_interleave(torch.arange(3), torch.tensor(seen))
        learnt = torch.zeros(1, ordinal.count_outputs(order, 3), requires_grad=True)
        optimiser = torch.optim.LBFGS([learnt], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

        def cost(task=task, target=target, learnt=learnt, optimiser=optimiser):
            optimiser.zero_grad()
            loss = task.loss({"class": learnt.expand(len(target), -1)}, target)
            loss.backward()
            return loss

        optimiser.step(cost)
        probabilities = task.decode([((), {"class": learnt.detach()[0].numpy()})], GRID).probabilities
        assert list(probabilities.values()) == pytest.approx([0.5, 0.3, 0.2], abs=2e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_a_task_with_an_order_and_costs_comes_back_from_json(order):
    task = graded(order, costs=[[abs(i - j) for j in range(5)] for i in range(5)])
    assert (
        task_catalogue.build_task({"name": "classification", **json.loads(json.dumps(task_settings.settings_of(task)))})
        == task
    )
    assert task.heads["class"].size == (4 if order in BETWEEN else 5)


@pytest.mark.parametrize("order", list(ORDERS)[1:])
def test_grades_are_selected_and_judged_by_the_quadratic_kappa_that_the_summary_states(order):
    rng = np.random.default_rng(0)
    chances, truth = rng.dirichlet(np.ones(5), 60), rng.integers(0, 5, 60)
    task = graded(order)
    chosen = task.selection({"probabilities": torch.from_numpy(chances), "target": torch.from_numpy(truth)})
    table = task.score([prediction_of(row) for row in chances], [case(str(n), GRADES[t]) for n, t in enumerate(truth)])
    rows = {(row.metric, row.label): row.estimate for row in task.summary(table, seed=0)}
    called = (chances @ np.arange(5)).round().astype(int)
    assert table["predicted"].tolist() == [GRADES[one] for one in called]
    kappa = metrics.cohen_kappa_score(truth, called, weights="quadratic")
    assert chosen == pytest.approx(kappa)
    assert rows["quadratic_kappa", "all"].value == pytest.approx(kappa)
    assert rows["quadratic_kappa", "all"].low < kappa < rows["quadratic_kappa", "all"].high
    assert rows["mae", "all"].value == pytest.approx(metrics.mean_absolute_error(truth, called))
    assert rows["mae", "all"].unit == "grades"
    assert rows["expected_cost", "all"].value == pytest.approx(rows["mae", "all"].value)
    assert rows["rps", "all"].value == pytest.approx(table["rps"].mean())
    assert rows["auroc", "all"].value == pytest.approx(metrics.roc_auc_score(truth, chances, multi_class="ovr"))
    assert "by the least expected squared distance" in rows["accuracy", "all"].method
    stated = {row.metric for row in task.summary(table, seed=0)}
    assert {metric for metric in stated if task.metrics.metric_named(metric).may_judge} == task.primaries
    assert task.selects_by == task.under("natural")["evaluation.primary"].value == "quadratic_kappa"


def test_stated_costs_decide_what_is_called_and_what_mistakes_cost():
    dear = [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [9.0, 9.0, 0.0]]
    task = task_settings.task_from_settings(
        Classification, {"classes": ["a", "b", "c"], "smoothing": 0.0, "costs": dear}
    )
    prediction = Prediction(GRID, probabilities={"a": 0.6, "b": 0.2, "c": 0.2})
    assert task.outputs(prediction)["predicted"] == "c"
    table = task.score([prediction] * 4, [case(str(n), name) for n, name in enumerate("aacb")])
    rows = {(row.metric, row.label): row.estimate for row in task.summary(table, seed=0)}
    assert rows["expected_cost", "all"].value == pytest.approx(3 / 4)
    assert "costs as stated" in rows["expected_cost", "all"].method
    assert "by the least expected cost" in rows["accuracy", "all"].method
    assert "quadratic_kappa" not in {row.metric for row in task.summary(table, seed=0)}
    stated = {row.metric for row in task.summary(table, seed=0)}
    assert {metric for metric in stated if task.metrics.metric_named(metric).may_judge} == task.primaries


def test_several_networks_are_averaged_in_their_outputs_and_corrected_once():
    task = graded("corn", prior_shift={"4": -1.0})
    outputs = [np.array([[1.0, 0.0, 2.0, -1.0]]), np.array([[3.0, -2.0, 0.0, 1.0]])]
    mean = task.average([{"class": one} for one in outputs])["class"]
    assert_allclose(mean, sum(outputs) / 2)
    plain = likely("corn", mean[0]) * [1, 1, 1, 1, np.exp(-1.0)]
    assert_allclose(task.probabilities({"class": mean[0]})["class"], plain / plain.sum())


def test_no_output_between_grades_changes_places_in_a_mirror_and_sided_grades_are_not_mirrored():
    assert graded("corn").channels_when_mirrored == (0, 1, 2, 3)
    assert graded("softmax").channels_when_mirrored == (0, 1, 2, 3, 4)
    sided = Classification(("left", "right"), order="cumulative")
    assert sided.channels_when_mirrored is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"order": "rising"}, r"task\.order"),
        ({"order": "corn", "smoothing": 0.1}, r"task\.smoothing"),
        ({"order": "corn", "classes": ["grade 1", "grade 10", "grade 2"]}, r"task\.order"),
        ({"costs": [[0, 1], [1, 0]]}, r"task\.costs"),
        ({"costs": [[0.0] * 5] * 4 + [[1.0] * 5]}, r"task\.costs"),
        ({"costs": [[-abs(i - j) for j in range(5)] for i in range(5)]}, r"task\.costs"),
        ({"costs": [[0, 1], [1]]}, "task"),
        ({"costs": "dear"}, "task"),
    ],
)
def test_an_order_or_costs_that_cannot_be_are_refused_by_name(change, where):
    with pytest.raises(PlanError) as refused:
        task_settings.task_from_settings(Classification, {"classes": list(GRADES), "smoothing": 0.0, **change})
    assert refused.match(where)


def test_smoothing_goes_with_grades_that_have_an_output_each():
    assert graded("softmax", smoothing=0.1).smoothing == 0.1


def planned(*names: str):
    measured = {"min": 0.0, "low": 0.0, "high": 1.0, "median": 0.5, "max": 1.0, "mean": 0.5, "deviation": 0.2}
    cases = [
        CaseFacts(str(n), (8, 8), (1.0, 1.0), False, False, ("0",), "OP", (measured,), references={"class": name})
        for n, name in enumerate(names * 3)
    ]
    declared = {"class": tuple(Label(number, name) for number, name in enumerate(names))}
    return Classification.settings_for(Dataset((), classes=declared), Fingerprint(tuple(cases)))["order"]


def test_numbered_classes_are_proposed_as_grades_and_not_taken_for_them():
    for names in (GRADES, ("grade 1", "grade 2", "grade 3"), ("KL0", "KL1", "KL3")):
        assert planned(*names).value == "none"
        assert "--set task.order=corn" in planned(*names).because
    for names in (("0", "1"), ("benign", "malignant", "normal"), ("T1", "N2", "M3")):
        assert "no order of the classes was stated" in planned(*names).because


def test_names_are_grades_where_they_differ_in_their_numbers_alone():
    assert grading.grades_in_names(["0", "1", "3"]) == (0, 1, 3)
    assert grading.grades_in_names(["Grade 2", "grade_1"]) == (2, 1)
    assert grading.grades_in_names(["1", "grade 2"]) is None
    assert grading.grades_in_names(["01", "1"]) is None
    assert grading.grades_in_names(["mild", "severe"]) is None


def test_the_interval_of_the_kappa_keeps_no_number_of_patients_of_a_grade():
    reference = np.repeat([0, 1, 2], [10, 9, 1])
    found = scoring.quadratic_kappa(np.minimum(reference + np.arange(20) % 2, 2), reference, 3, np.arange(20), seed=0)
    assert found.low is not None and found.method == "patient bootstrap"  # of the grade of one patient it would say so
