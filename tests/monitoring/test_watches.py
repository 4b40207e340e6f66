from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hilum.errors import DatasetError, UsageError
from hilum.monitoring import e_detectors


def alarms(simulate, *, studies=60, known=60, cases=100, run_length=500.0):
    """The share of studies without a change that ring; at most cases / run_length, .2, is allowed."""
    return np.mean(
        [
            e_detectors.watch_values(simulate(random, known), simulate(random, cases), run_length=run_length).alarm
            is not None
            for random in map(np.random.default_rng, range(studies))
        ]
    )


@pytest.mark.parametrize(
    "simulate",
    [
        lambda random, n: random.normal(size=n),
        lambda random, n: random.standard_cauchy(n),
        lambda random, n: random.poisson(0.3, n),
        lambda random, n: np.where(random.random(n) < 0.1, np.nan, 1.0),
    ],
    ids=["normal", "heavy-tailed", "tied", "constant with missing values"],
)
def test_few_reference_cases_ring_no_more_often_than_stated(simulate):
    # Two standard errors above .2 with 60 studies.
    assert alarms(simulate) <= 0.2 + 2 * np.sqrt(0.2 * 0.8 / 60)


def test_a_shift_of_one_sd_rings_within_fifty_cases_at_the_place_where_it_began():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=200), random.normal(1, 1, 100)])
    found = e_detectors.watch_values(random.normal(size=300), values, run_length=10_000)
    assert 200 <= found.alarm < 250
    assert 180 <= found.change <= 220
    assert found.log_evidence[found.alarm] >= found.limit > found.log_evidence[found.alarm - 1]


def test_the_column_that_changed_is_named_and_so_are_missing_values():
    random = np.random.default_rng(1)
    known, values = random.normal(size=(300, 3)), random.normal(size=(300, 3))
    values[100:, 1] *= 3
    assert (found := e_detectors.watch_values(known, values, run_length=1000)).column == 1
    assert not found.is_missing
    values[100:, 1] /= 3
    values[100:, 2] = np.nan
    assert (found := e_detectors.watch_values(known, values, run_length=1000)).column == 2
    assert found.is_missing


def test_a_weekly_cycle_is_no_change_within_strata():
    random = np.random.default_rng(2)
    weekend, days = np.arange(70) % 7 >= 5, np.arange(210) % 7 >= 5
    known, values = random.normal(size=70) + 4 * weekend, random.normal(size=210) + 4 * days
    strata = (weekend, days)
    busy = np.concatenate([values, random.normal(size=60) + 4])
    assert e_detectors.watch_values(known, values, run_length=10_000, strata=strata).alarm is None
    only_weekends = (weekend, np.concatenate([days, np.ones(60, dtype=bool)]))
    assert e_detectors.watch_values(known, busy, run_length=10_000, strata=only_weekends).alarm is None
    assert e_detectors.watch_values(known, busy, run_length=10_000).alarm is not None


def test_a_patient_counts_once():
    random = np.random.default_rng(3)
    known, own = random.normal(size=100), random.normal(size=4)
    found = e_detectors.watch_values(known, np.repeat(own, 50), run_length=1000, patients=np.repeat(np.arange(4), 50))
    once = e_detectors.watch_values(known, own, run_length=1000)
    assert found.log_evidence[[0, 50, 100, 150]] == pytest.approx(once.log_evidence)
    assert found.alarm is None


def test_ranks_among_all_earlier_cases_are_uniform_and_independent():
    from hilum.monitoring import e_detectors

    p = e_detectors._sequential_p(np.random.default_rng(4).exponential(size=1000), np.random.default_rng(5))[50:]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(p[1:], p[:-1])[0, 1]) < 3 / np.sqrt(len(p))


def test_probabilities_that_are_off_by_one_log_odd_ring_and_right_ones_do_not():
    random = np.random.default_rng(6)
    odds = random.normal(0, 1.5, 500)
    p, luck = 1 / (1 + np.exp(-odds)), random.random(500)
    right, off = luck < p, luck < 1 / (1 + np.exp(-odds - np.where(np.arange(500) < 200, 0, 1)))
    assert e_detectors.watch_calibration(p, right, run_length=10_000).alarm is None
    assert 200 <= e_detectors.watch_calibration(p, off, run_length=10_000, tolerance=0.2).alarm < 400


def test_every_outcome_within_the_tolerance_makes_a_bet_lose_on_average():
    # The mean of one bet, exp(gain), at the ends of what is tolerated, summed over both outcomes.
    stated, tolerance = 0.3, 0.4
    true = 1 / (1 + np.exp(-(np.log(stated / (1 - stated)) + np.array([-tolerance, 0.0, tolerance]))))
    gains = [
        e_detectors.watch_calibration([stated], [y], run_length=10, tolerance=tolerance).log_evidence[0] for y in (0, 1)
    ]
    assert ((1 - true) * np.exp(gains[0]) + true * np.exp(gains[1]) <= 1 + 1e-12).all()


def test_unknown_outcomes_add_nothing():
    found = e_detectors.watch_calibration([0.5, 0.9, 0.5], [1, np.nan, 0], run_length=10)
    assert found.log_evidence[1] == found.log_evidence[0]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda: e_detectors.watch_values(np.zeros(19), np.zeros(5), run_length=10), DatasetError),
        (lambda: e_detectors.watch_values(np.zeros(30), np.zeros((5, 2)), run_length=10), UsageError),
        (lambda: e_detectors.watch_values(np.zeros(30), np.zeros(5), run_length=1), UsageError),
        (lambda: e_detectors.watch_calibration([1.2], [1], run_length=10), UsageError),
        (lambda: e_detectors.watch_calibration([0.2], [2], run_length=10), UsageError),
    ],
    ids=["too few", "other columns", "no run length", "no probability", "no outcome"],
)
def test_what_cannot_be_watched_is_refused(given, error):
    with pytest.raises(error):
        given()
