from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import DatasetError, UsageError
from hilum.evaluation import classification
from hilum.monitoring import performance_figures


def world(random, cases, shift=0.0):
    """(probabilities, outcomes) of calibrated cases; `shift` moves the mix of cases."""
    odds = random.normal(-2 + shift, 2, cases)
    p = 1 / (1 + np.exp(-odds))
    return p, random.random(cases) < p


def test_expected_performance_is_that_of_labels_under_another_mix_of_cases():
    p, truth = world(np.random.default_rng(0), 20_000, shift=1.5)
    called = p >= 0.5
    assert performance_figures.expected_performance(p, "auroc").value == pytest.approx(
        float(classification.auroc(p, truth)), abs=0.01
    )
    assert performance_figures.expected_performance(p, "sensitivity", 0.5).value == pytest.approx(
        called[truth].mean(), abs=0.01
    )
    assert performance_figures.expected_performance(p, "ppv", 0.5).value == pytest.approx(
        truth[called].mean(), abs=0.01
    )
    assert performance_figures.expected_performance(p, "brier").value == pytest.approx(
        np.mean((p - truth) ** 2), abs=0.01
    )


def test_expected_area_counts_ties_as_a_half():
    # Pairs: .5 x .8 above .2 x .5 and so on, by hand.
    p = np.array([0.2, 0.2, 0.8])
    ill, well = p, 1 - p
    pairs = sum(
        ill[i] * well[j] * (1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0) for i in range(3) for j in range(3)
    )
    assert performance_figures.expected_performance(p, "auroc").value == pytest.approx(pairs / (ill.sum() * well.sum()))


def test_audited_sensitivity_is_right_where_called_studies_are_read_more_often():
    p, truth = world(np.random.default_rng(1), 40_000)
    called, random = p >= 0.5, np.random.default_rng(2)
    chance = np.where(called, 0.5, 0.05)
    read = random.random(len(p)) < chance
    audited = performance_figures.audited_performance(called, np.where(read, truth, np.nan), chance, "sensitivity")
    naive = called[read & truth].mean()
    assert audited.low <= called[truth].mean() <= audited.high
    assert audited.value == pytest.approx(called[truth].mean(), abs=0.05)
    assert naive - called[truth].mean() > 0.15


def test_probabilities_narrow_the_interval_and_wrong_ones_do_not_bias_it():
    p, truth = world(np.random.default_rng(3), 20_000)
    called, chance = p >= 0.5, np.full(len(p), 0.1)
    seen = np.where(np.random.default_rng(4).random(len(p)) < chance, truth, np.nan)
    plain = performance_figures.audited_performance(called, seen, chance, "sensitivity")
    powered = performance_figures.audited_performance(called, seen, chance, "sensitivity", probabilities=p)
    misled = performance_figures.audited_performance(called, seen, chance, "sensitivity", probabilities=1 - p)
    assert powered.high - powered.low < 0.9 * (plain.high - plain.low)
    assert misled.low <= called[truth].mean() <= misled.high


@pytest.mark.parametrize("inclusion", [0.0, 1.5])
def test_an_inclusion_that_is_no_chance_is_refused(inclusion):
    with pytest.raises(DatasetError, match="inclusion"):
        performance_figures.audited_performance([1] * 20, [1] * 20, [inclusion] * 20, "ppv")


def test_few_readings_are_too_few_to_judge():
    assert performance_figures.audited_performance([1] * 9, [1] * 9, [0.5] * 9, "ppv").low is None


def test_a_rate_needs_a_threshold_and_an_area_has_none():
    with pytest.raises(UsageError, match="needs a threshold"):
        performance_figures.expected_performance([0.5] * 20, "ppv")
    with pytest.raises(UsageError, match="has no threshold"):
        performance_figures.expected_performance([0.5] * 20, "auroc", 0.5)
