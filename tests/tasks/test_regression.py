from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hilum.errors import DatasetError, PlanError
from hilum.report import Figure
from hilum.tasks import fitting, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.regression.question import Regression
from hilum.values import Case, Confidence, Geometry, Image, Prediction, Target, Vector

GRID = Geometry.of_pixels((4, 4))
TASK = Regression(
    ("volume", "age"), {"volume": "ml", "age": ""}, {"volume": 3.0, "age": 50.0}, {"volume": 0.5, "age": 10.0}
)
NOISY = replace(TASK, noise="gaussian")
VOLUME = Regression(("volume",), {"volume": "ml"}, {"volume": 3.0}, {"volume": 0.5})


def case(name: str, patient: str | None = None, **values: float) -> Case:
    image = Image(np.zeros((1, 4, 4), np.float32), GRID)
    return Case(name, patient or name, {"image": image}, {"value": values})


def decoded(task: Regression, *outputs: float) -> Prediction:
    return task.decode([((), {"value": np.array(outputs, np.float32)})], GRID)


def prediction_of(*errors: float, **values: float) -> Prediction:
    return Prediction(GRID, values=values, confidence=Confidence(deviations=np.array(errors) if errors else None))


def cohort(n: int = 40, noise: float = 0.2) -> tuple[list[Prediction], list[Case]]:
    """Cases of one target and predictions that err by `noise`, with error bars that say so."""
    rng = np.random.default_rng(0)
    truth = rng.normal(3, 0.5, n)
    cases = [case(f"c{k}", volume=float(value)) for k, value in enumerate(truth)]
    return [prediction_of(noise, volume=float(value + rng.normal(0, noise))) for value in truth], cases


def test_a_task_comes_back_from_its_settings_through_json():
    full = replace(NOISY, loss_name="mae", error_factor={"age": 1.4})
    for task in (TASK, NOISY, full):
        assert (
            task_catalogue.build_task({"name": "regression", **json.loads(json.dumps(task_settings.settings_of(task)))})
            == task
        )


def test_the_target_is_how_many_deviations_a_value_lies_from_the_mean_and_a_hole_stays_one():
    target = TASK.target(case("a", volume=4.0))
    assert isinstance(target, Target)
    assert target.head == Vector(2, holds="numbers")
    np.testing.assert_array_equal(target.data, np.array([2.0, np.nan], np.float32))


@pytest.mark.parametrize("values", [{}, {"weight": 70.0}, {"volume": float("inf"), "age": 3.0}])
def test_a_case_without_a_number_of_any_target_is_refused_by_name(values):
    with pytest.raises(DatasetError, match=r"c7.*no value of volume, age"):
        TASK.target(case("c7", **values))


@pytest.mark.parametrize(("loss", "costs"), [("mse", (4.0, 0.25)), ("mae", (2.0, 0.5)), ("huber", (1.5, 0.125))])
def test_losses_are_what_their_names_say(loss, costs):
    task, outputs = replace(TASK, loss_name=loss), torch.tensor([[2.0, 0.5]])
    assert float(task.loss({"value": outputs}, torch.zeros(1, 2))) == pytest.approx(sum(costs) / 2)


@pytest.mark.parametrize("task", [TASK, NOISY])
def test_a_missing_target_costs_nothing_and_leaves_no_trace_in_the_gradients(task):
    size = task.heads["value"].size
    outputs = torch.ones(2, size, requires_grad=True)
    target = torch.tensor([[0.5, float("nan")], [float("nan"), float("nan")]])
    loss = task.loss({"value": outputs}, target)
    single = replace(task, targets=("volume",)).loss({"value": outputs[:1, ::2]}, target[:1, :1])
    assert loss.item() == pytest.approx(single.item())
    (slope,) = torch.autograd.grad(loss, outputs)
    assert slope.isfinite().all()
    assert slope[0, 0] != 0
    assert (slope[1] == 0).all() and slope[0, 1] == 0
    nothing = task.loss({"value": outputs}, torch.full((2, 2), float("nan")))
    assert nothing.item() == 0


@pytest.mark.whole
def test_the_likelihood_is_least_where_the_error_bar_is_the_error():
    """For one residual of 0.3 deviations the best variance is its square, whatever the weight."""
    task, truth = replace(VOLUME, noise="gaussian"), torch.zeros(1, 1)
    logs = torch.tensor(0.0, requires_grad=True)
    for _ in range(3000):
        loss = task.loss({"value": torch.stack([torch.tensor(0.3), logs])[None]}, truth)
        (slope,) = torch.autograd.grad(loss, logs)
        logs = (logs - 0.1 * slope).detach().requires_grad_()
    assert float(logs.detach().exp()) == pytest.approx(0.09, rel=0.02)


def test_decoding_gives_values_and_error_bars_in_their_units():
    plain = decoded(TASK, 1.0, -0.5)
    assert plain.values == pytest.approx({"volume": 3.5, "age": 45.0})
    assert plain.confidence.deviations is None
    noisy = decoded(replace(NOISY, error_factor={"age": 2.0}), 1.0, -0.5, np.log(0.04), np.log(0.25))
    assert noisy.values == pytest.approx(plain.values)
    assert noisy.confidence.deviations.tolist() == pytest.approx([0.2 * 0.5, 0.5 * 10 * 2])
    columns = NOISY.outputs(noisy)
    assert list(columns) == [f"{kind}_{name}" for kind in ("value", "error", "low", "high") for name in TASK.targets]
    assert columns["error_age"] == pytest.approx(10.0)


def test_what_was_standardised_comes_back():
    values = {"volume": 2.25, "age": 61.0}
    target = TASK.target(case("a", **values)).data
    assert decoded(TASK, *target).values == pytest.approx(values)


def test_a_report_states_each_value_with_its_unit():
    findings = TASK.results(decoded(TASK, 0.0, 0.0))
    assert [(one.concept, one.value, one.unit) for one in findings] == [("volume", 3.0, "ml"), ("age", 50.0, "")]


def test_selection_is_the_mean_of_the_coefficients_of_determination_against_the_training_cases():
    truth, outputs = torch.tensor([[-1.0, 0.0], [0.0, float("nan")], [1.0, 2.0]]), torch.zeros(3, 2)
    collected = TASK.quality({"value": outputs}, truth)
    # squared errors of volume 1, 0, 1 and of age 0, 4, in deviations of the training cases
    assert TASK.selection(collected) == pytest.approx(((1 - 2 / 3) + (1 - 2)) / 2)
    perfect = TASK.quality({"value": truth.nan_to_num(9.0)}, truth)
    assert TASK.selection(perfect) == pytest.approx(1.0)


def test_a_target_that_hardly_varies_among_the_validation_cases_does_not_decide_alone():
    truth = torch.tensor([[1.0, -2.0], [1.0, 2.0]])
    near, far = (TASK.quality({"value": truth + torch.tensor(off)}, truth) for off in ([0.5, 0.0], [0.0, 1.5]))
    assert TASK.selection(near) == pytest.approx(1 - 0.125)
    assert TASK.selection(near) > TASK.selection(far)


def test_a_target_that_no_validation_case_has_is_left_out_of_the_selection():
    truth = torch.tensor([[1.0, float("nan")]])
    assert TASK.selection(TASK.quality({"value": torch.ones(1, 2)}, truth)) == pytest.approx(1.0)


def test_a_table_has_a_row_for_each_value_that_is_known():
    predictions = [prediction_of(volume=3.5, age=40.0), prediction_of(volume=2.0, age=55.0)]
    table = TASK.score(predictions, [case("a", "p", volume=3.0), case("b", volume=2.0, age=50.0)])
    assert list(table.columns) == [
        "case", "patient", "label", "difference", "standardised_difference", "low", "high", "reference",
        "predicted",
    ]  # fmt: skip
    assert table[["case", "label"]].to_numpy().tolist() == [["a", "volume"], ["b", "volume"], ["b", "age"]]
    assert table["difference"].tolist() == [0.5, 0.0, 5.0]
    assert table["standardised_difference"].tolist() == [1.0, 0.0, 0.5]
    assert TASK.rank(table) == ["b", "a"]


def test_a_side_becomes_its_counterpart_in_a_mirror_and_a_value_without_a_side_stays():
    names = ("kidney left", "volume", "kidney right")
    numbers = dict.fromkeys(names, 1.0)
    task = Regression(names, dict.fromkeys(names, ""), numbers, numbers)
    assert task.channels_when_mirrored == (2, 1, 0)
    assert replace(task, noise="gaussian").channels_when_mirrored == (2, 1, 0, 5, 4, 3)
    assert TASK.channels_when_mirrored == (0, 1)
    single = Regression(names[:1], {"kidney left": ""}, {"kidney left": 1.0}, {"kidney left": 1.0})
    assert single.channels_when_mirrored is None


def test_several_networks_are_their_mean():
    low, high = (NOISY.average([{"value": np.full((1, 4), value)}])["value"] for value in (1.0, 3.0))
    assert NOISY.average([{"value": low}, {"value": high}])["value"].tolist() == [[2.0] * 4]


def test_error_bars_that_are_too_small_get_a_factor_and_right_ones_none():
    task = replace(VOLUME, noise="gaussian")
    predictions, cases = cohort()
    right, decisions = fitting.with_fitted_calibration(task, PredictedCases(predictions, cases))
    assert right.error_factor == {}
    assert "as chance explains" in decisions["task.error_factor"].because
    small = [replace(one, confidence=Confidence(deviations=one.confidence.deviations / 3)) for one in predictions]
    wider, decisions = fitting.with_fitted_calibration(task, PredictedCases(small, cases))
    assert wider.error_factor["volume"] == pytest.approx(3, rel=0.35)
    assert decisions["task.error_factor"].value == wider.error_factor
    assert fitting.with_fitted_calibration(wider, PredictedCases(small, cases)) == (wider, {})
    assert fitting.with_fitted_calibration(VOLUME, PredictedCases(small, cases)) == (VOLUME, {})


def test_many_images_of_a_patient_whose_value_is_far_off_change_no_factor():
    task = replace(VOLUME, noise="gaussian")
    predictions, cases = cohort()
    small = [replace(one, confidence=Confidence(deviations=one.confidence.deviations / 3)) for one in predictions]
    worst = int(np.argmax([abs(r["predicted"] - r["reference"]) for r in task.score(small, cases).to_dict("records")]))
    factors = [
        fitting.with_fitted_calibration(
            task, PredictedCases([*small, *[small[worst]] * more], [*cases, *[cases[worst]] * more])
        )[0].error_factor["volume"]
        for more in (0, 30)
    ]
    assert factors[0] == factors[1]


def test_with_its_factor_an_error_bar_is_as_large_as_the_errors():
    task = replace(VOLUME, noise="gaussian")
    predictions, cases = cohort(400)
    tuned, _ = fitting.with_fitted_calibration(
        task,
        PredictedCases(
            [replace(one, confidence=Confidence(deviations=one.confidence.deviations * 4)) for one in predictions],
            cases,
        ),
    )
    outputs = np.array([0.0, 2 * np.log(4 * 0.2 / 0.5)])  # an error bar of 0.8 ml
    assert decoded(tuned, *outputs).confidence.deviations.tolist() == pytest.approx([0.2], rel=0.1)


def test_too_few_validation_cases_leave_error_bars_as_they_are_and_say_so():
    predictions, cases = cohort(9)
    task, decisions = fitting.with_fitted_calibration(
        replace(VOLUME, noise="gaussian"), PredictedCases(predictions, cases)
    )
    assert task.error_factor == {}
    assert "9 unseen cases are too few" in decisions["task.error_factor"].because


@pytest.mark.parametrize(
    "change",
    [
        {"targets": []},
        {"targets": ["volume", "volume"]},
        {"mean": {"volume": 3.0}},
        {"mean": {"volume": float("nan"), "age": 1.0}},
        {"deviation": {"volume": 0.0, "age": 1.0}},
        {"deviation": "large"},
        {"noise": "laplace"},
        {"loss": "l1"},
        {"error_factor": {"weight": 2.0}},
        {"error_factor": {"age": -1.0}},
        {"los": "mae"},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(PlanError):
        task_settings.task_from_settings(Regression, {**task_settings.settings_of(TASK), **change})


def test_a_heat_map_explains_the_values_and_not_their_error_bars():
    outputs = {"value": torch.tensor([[1.0, 3.0, 100.0, 100.0]])}
    assert NOISY.saliency(outputs).tolist() == [2.0]


def test_the_report_has_a_picture_of_agreement_and_of_differences_and_names_what_was_measured():
    task = replace(VOLUME, noise="gaussian")
    predictions, cases = cohort()
    charts = task.overview(task.score(predictions, cases))
    assert [one.title for one in charts] == ["volume: predicted and reference", "volume: differences"]
    assert all(isinstance(one, Figure) and one.svg for one in charts)
    [picture] = task.figures(prediction_of(0.25, volume=3.125), case("a", volume=3.0))
    assert "volume 3.125 \N{PLUS-MINUS SIGN} 0.250 ml (reference 3.000)" in picture.caption


def test_the_cost_of_quantiles_is_lowest_at_those_of_the_cases():
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.exponential(size=4000)).float()[:, None]
    low, middle, high = np.quantile(truth, [0.05, 0.5, 0.95])

    def cost(down: float, value: float, up: float) -> float:
        ends = torch.tensor([value, 2 * np.log(down), 2 * np.log(up)]).float().expand(4000, 3)
        return float(replace(VOLUME, noise="quantiles").loss({"value": ends}, truth))

    best = cost(middle - low, middle, high - middle)
    for change in ((1.3, 1.0, 1.0), (0.7, 1.0, 1.0), (1.0, 1.0, 1.3), (1.0, 1.0, 0.7)):
        down, value, up = change
        assert best < cost(down * (middle - low), value * middle, up * (high - middle))


def test_a_mirrored_image_exchanges_the_quantiles_of_sides_too():
    sides = Regression(
        ("left size", "right size"), {}, {"left size": 1.0, "right size": 1.0}, {"left size": 1.0, "right size": 1.0}
    )
    assert replace(sides, noise="quantiles").channels_when_mirrored == (1, 0, 3, 2, 5, 4)
    assert replace(sides, noise="gaussian").channels_when_mirrored == (1, 0, 3, 2)
