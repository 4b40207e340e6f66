from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from hilum.evaluation import case_tables
from hilum.tasks.regression import scoring
from hilum.tasks.regression.question import Regression
from hilum.values import Case, Confidence, Geometry, Image, Prediction

GRID = Geometry.of_pixels((4, 4))
NAMES = ("volume", "age")
DEVIATION = {"volume": 0.5, "age": 10.0}
UNITS = {"volume": "ml", "age": "years"}
TASK = Regression(NAMES, UNITS, {"volume": 3.0, "age": 50.0}, DEVIATION, noise="gaussian")


def table(n: int = 60, patients: int | None = None, without: int = 0, names: tuple[str, ...] = NAMES):
    """Cases whose values are predicted with an error of a fifth of their deviation; `without` of them have no age."""
    rng = np.random.default_rng(0)
    truth = {name: rng.normal(TASK.mean[name], DEVIATION[name], n) for name in names}
    image = Image(np.zeros((1, 4, 4), np.float32), GRID)
    cases, predictions = [], []
    for k in range(n):
        known = {name: float(truth[name][k]) for name in names if not (name == "age" and k < without)}
        cases.append(Case(f"c{k}", f"p{k % (patients or n)}", {"image": image}, {"value": known}))
        values = {name: float(truth[name][k] + rng.normal(0, 0.2 * DEVIATION[name])) for name in names}
        predictions.append(
            Prediction(
                GRID, values=values, confidence=Confidence(deviations=np.array([0.2 * DEVIATION[x] for x in names]))
            )
        )
    task = TASK if names == NAMES else Regression(names, UNITS, TASK.mean, DEVIATION, noise="gaussian")
    return task, task.score(predictions, cases)


def by_name(rows):
    return {(row.metric, row.label): row.estimate for row in rows}


def test_figures_of_the_summary_are_those_of_scikit_learn_in_the_unit_of_the_target():
    task, scores = table()
    rows = by_name(task.summary(scores, seed=0))
    own = scores[scores["label"] == "volume"]
    assert rows["mae", "volume"].value == pytest.approx(metrics.mean_absolute_error(own["reference"], own["predicted"]))
    assert rows["median_absolute_error", "volume"].value == pytest.approx(own["difference"].abs().median())
    assert rows["r2", "volume"].value == pytest.approx(metrics.r2_score(own["reference"], own["predicted"]))
    assert rows["bias", "volume"].value == pytest.approx(own["difference"].mean())
    assert [rows[metric, "volume"].unit for metric in ("mae", "bias", "loa_lower", "r2")] == ["ml", "ml", "ml", ""]
    assert rows["mae", "age"].unit == "years"


def test_every_figure_has_an_interval_around_it_and_limits_of_agreement_enclose_the_bias():
    task, scores = table()
    rows = by_name(task.summary(scores, seed=0))
    for (metric, label), estimate in rows.items():
        assert estimate.low < estimate.high, (metric, label)
        assert estimate.low <= estimate.value <= estimate.high, (metric, label)
    assert rows["loa_lower", "age"].value < rows["bias", "age"].value < rows["loa_upper", "age"].value


def test_of_several_targets_their_standardised_mean_comes_first():
    task, scores = table()
    rows = task.summary(scores, seed=0)
    assert (rows[0].metric, rows[0].label, rows[0].estimate.unit) == ("mae", "all", "SD")
    each = by_name(rows)
    mean = np.mean([each["mae", name].value / DEVIATION[name] for name in NAMES])
    assert each["mae", "all"].value == pytest.approx(mean)
    assert each["r2", "all"].value == pytest.approx(np.mean([each["r2", name].value for name in NAMES]))
    assert "standard deviations of its training cases" in each["mae", "all"].method


def test_a_target_that_is_called_all_has_figures_of_its_own_beside_those_of_all():
    figures = []
    for name in ("volume", "all"):
        of = {"volume": name, "age": "age"}
        units, mean, deviation = ({of[key]: own for key, own in one.items()} for one in (UNITS, TASK.mean, DEVIATION))
        task, scores = Regression((name, "age"), units, mean, deviation, noise="gaussian"), table()[1]
        scores = scores.assign(label=scores["label"].replace("volume", case_tables.figure_label(name, "target")))
        figures.append(by_name(task.summary(scores, seed=0)))
        assert len(figures[-1]) == len(task.summary(scores, seed=0))
        values = task.case_values(scores)
        assert len({(one.metric, one.label) for one in values}) == len(values)
        assert task.guess(scores).table["predicted"].notna().all()
        assert len(task.overview(scores)) == 4
    plain, own = figures
    assert {key: one.value for key, one in own.items()} == pytest.approx(
        {(metric, "all (target)" if label == "volume" else label): one.value for (metric, label), one in plain.items()}
    )


def test_one_target_alone_has_no_row_over_all():
    task, scores = table(names=("volume",))
    assert {row.label for row in task.summary(scores, seed=0)} == {"volume"}


def test_a_missing_value_is_in_no_figure_and_not_in_its_n():
    task, scores = table(without=25)
    rows = by_name(task.summary(scores, seed=0))
    assert (rows["mae", "volume"].n, rows["mae", "age"].n, rows["mae", "all"].n) == (60, 35, 60)
    ages = scores[scores["label"] == "age"]
    assert rows["mae", "age"].value == pytest.approx(ages["difference"].abs().mean())


def test_a_mean_over_targets_is_marked_where_few_have_one_of_them():
    task, scores = table(without=58)
    rows = by_name(task.summary(scores, seed=0))
    assert "unreliable: 2 patients with age" in rows["mae", "all"].method
    assert "unreliable" not in rows["mae", "volume"].method


def test_a_target_that_no_case_has_has_no_row():
    task, scores = table(without=60)
    assert {row.label for row in task.summary(scores, seed=0)} == {"volume"}


def test_patients_are_resampled_and_not_cases():
    """Each case five times: the same figure, whose interval knows that there are no more people."""
    task, scores = table(40)
    copies = scores.loc[scores.index.repeat(5)].assign(case=[f"c{n}" for n in range(5 * len(scores))])
    once, often = (by_name(task.summary(one, seed=0))["rmse", "volume"] for one in (scores, copies))
    assert often.value == pytest.approx(once.value)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.15)
    assert (often.n, often.patients) == (200, 40)


def test_every_row_is_of_a_metric_that_a_plan_may_name_and_the_other_way_round():
    task, scores = table()
    assert {row.metric for row in task.summary(scores, seed=0)} == task.metrics.primaries == task.primaries


def test_without_error_bars_nothing_is_said_of_them():
    _, scores = table()
    rows = scoring.value_summary_rows(
        scoring.measured_targets(scores.drop(columns="error_bar"), NAMES), UNITS, DEVIATION, seed=0
    )
    assert {row.metric for row in rows} == TASK.metrics.primaries - {"interval_coverage", "nll"}


@pytest.mark.whole
def test_error_bars_that_are_as_large_as_the_errors_cover_95_percent():
    task, scores = table(300)
    coverage = by_name(task.summary(scores, seed=0))["interval_coverage", "volume"]
    assert coverage.low < 0.95 < coverage.high
