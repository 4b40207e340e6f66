from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hilum.evaluation import conformal
from matrices import rarely

LEVEL, FOLDS, KNOWN, NEW, DRAWS = 0.9, 5, 50, 40, 300


def deviants(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(folds, cases) what five networks say of numbers, each wrong in its own way, and the numbers."""
    image = random.normal(size=count)
    true = image + 0.5 * random.standard_t(4, count)
    slopes, shifts = random.normal(1, 0.7, FOLDS), random.normal(0, 1.5, FOLDS)
    return slopes[:, None] * image + shifts[:, None], true


def test_sets_of_the_mean_of_folds_that_err_each_in_its_own_way_cover_at_least_two_levels_less_one():
    random, covered, folds = np.random.default_rng(8), [], np.arange(KNOWN) % FOLDS
    for _ in range(DRAWS):
        logits = random.normal(0, 1.5, (KNOWN + NEW, 4))
        true = random.random((KNOWN + NEW, 1)) > np.cumsum(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1)
        true = true[:, :-1].sum(axis=1)
        scores = -(2.5 * logits + random.normal(0, 1.5, (FOLDS, 1, 4)))
        steps = conformal.cross_steps(scores[folds, np.arange(KNOWN), true[:KNOWN]], folds, FOLDS)
        covered.append(conformal.cross_sets(steps, scores[:, KNOWN:], LEVEL)[np.arange(NEW), true[KNOWN:]].mean())
    assert np.mean(covered) > 2 * LEVEL - 1 + 3 * np.std(covered) / np.sqrt(DRAWS)


@pytest.mark.parametrize("has_bars", [rarely(False), True])
@pytest.mark.whole
def test_intervals_of_the_mean_of_folds_that_err_each_in_its_own_way_cover_at_least_two_levels_less_one(has_bars):
    random, covered, folds = np.random.default_rng(9), [], np.arange(KNOWN) % FOLDS
    for _ in range(DRAWS):
        said, true = deviants(random, KNOWN + NEW)
        bars = random.uniform(0.3, 2, said.shape) if has_bars else np.ones(said.shape)
        own = np.abs(said[folds, np.arange(KNOWN)] - true[:KNOWN]) / bars[folds, np.arange(KNOWN)]
        steps = conformal.cross_steps(own, folds, FOLDS)
        for place in range(KNOWN, KNOWN + NEW):
            low, high = conformal.cross_interval(steps, said[:, place], said[:, place], bars[:, place], LEVEL)
            covered.append(low <= true[place] <= high)
    assert np.mean(covered) > 2 * LEVEL - 1 + 3 * np.std(np.reshape(covered, (DRAWS, -1)).mean(1)) / np.sqrt(DRAWS)


@pytest.mark.whole
def test_patients_with_many_cases_that_are_alike_leave_the_coverage_of_new_patients():
    random, covered = np.random.default_rng(10), []
    for _ in range(DRAWS):
        counts = np.where(random.random(KNOWN) < 0.3, 12, 1)
        patients = np.repeat(np.arange(KNOWN), counts)
        # Who has many images is easy to tell.
        own = np.abs(random.normal(size=KNOWN)) * np.where(counts > 1, 0.1, 1.0)
        steps = conformal.cross_steps(own[patients], patients % FOLDS, FOLDS, patients)
        assert conformal.count_scored_patients(steps) == KNOWN
        new = np.abs(random.normal(size=(FOLDS, NEW))[0]) * np.where(random.random(NEW) < 0.3, 0.1, 1.0)
        covered.append(conformal.cross_sets(steps, np.tile(new, (FOLDS, 1)), LEVEL).mean())
    assert np.mean(covered) > LEVEL - 0.01


def test_of_one_network_sets_are_those_of_its_threshold_and_with_too_few_patients_nothing_is_left_out():
    random = np.random.default_rng(11)
    own, offered, nobody = random.random(40), random.random((1, 25, 3)), np.zeros(40, dtype=int)
    found = conformal.cross_sets(conformal.cross_steps(own, nobody, 1), offered, LEVEL)
    assert_array_equal(found, conformal.prediction_sets(offered[0], conformal.conformal_threshold(own, LEVEL)[0]))
    few = conformal.cross_steps(own[:8], nobody[:8], 1)
    assert conformal.cross_sets(few, offered, LEVEL).all()
    assert conformal.cross_interval(few, [1.0], [1.0], [1.0], LEVEL) == (-math.inf, math.inf)
    assert conformal.cross_sets(conformal.cross_steps(own, nobody, 1), np.full((1, 2, 3), np.nan), LEVEL).all()
    none = conformal.cross_steps([], [], FOLDS)
    assert (
        conformal.count_scored_patients(none) == 0
        and conformal.cross_sets(none, np.ones((FOLDS, 2)), LEVEL).all()
        and conformal.cross_bound(none, LEVEL) == 0
    )


def test_an_interval_of_one_network_is_its_value_less_and_plus_the_threshold():
    own = np.abs(np.random.default_rng(12).normal(size=40))
    threshold, _ = conformal.conformal_threshold(own, LEVEL)
    ends = conformal.cross_interval(conformal.cross_steps(own, np.zeros(40, dtype=int), 1), [3.0], [4.0], [2.0], LEVEL)
    assert ends == pytest.approx((3 - 2 * threshold, 4 + 2 * threshold))


def test_ends_that_would_pass_each_other_lie_midway_and_a_lower_bound_by_itself_goes_as_far_as_scores_say():
    steps = conformal.cross_steps(np.full(40, -3.0), np.arange(40) % 2, 2)
    assert conformal.cross_interval(steps, [-1.0, -1.0], [2.0, 2.0], [1.0, 1.0], LEVEL) == (0.5, 0.5)
    assert conformal.cross_interval(steps, [-5.0, -5.0], [5.0, 5.0], [1.0, 1.0], LEVEL) == (-2, 2)
    assert conformal.cross_lower_bound(steps, [-1.0, -1.0], LEVEL) == 2


def test_scores_that_are_no_numbers_count_as_worst_and_many_are_carried_as_few_that_make_sets_no_smaller():
    random = np.random.default_rng(13)
    own, folds = np.append(random.random(1000), np.nan), np.arange(1001) % 2
    steps, offered = conformal.cross_steps(own, folds, 2), random.random((2, 500))
    assert max(map(len, steps)) == 64 and conformal.count_scored_patients(steps) == 1001 and math.isinf(steps[0][-1][0])
    whole = np.array([np.sum(own[None] < offered[folds].T, axis=1)])[0] < LEVEL * 1002
    found = conformal.cross_sets(steps, offered, LEVEL)
    assert not (whole & ~found).any()
    assert (whole != found).mean() < 0.03


def test_what_is_surely_covered_is_less_with_few_patients():
    bounds = [
        conformal.cross_bound(conformal.cross_steps(np.arange(n), np.arange(n) % FOLDS, FOLDS), LEVEL)
        for n in (50, 500, 50000)
    ]
    assert bounds == pytest.approx([0.8 - 1.6 / 11, 0.8 - 1.6 / 101, 0.8], abs=2e-4)
