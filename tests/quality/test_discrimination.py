from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import rankdata

from hilum.quality import shortcut_tests
from hilum.quality.shortcut_tests import CalledOutcome, OrderedOutcome

LABEL, PATIENT = np.arange(80) % 2, np.arange(80) // 2 * 2 + np.arange(80) % 2


def test_numbers_that_are_the_class_tell_it_and_noise_does_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(80, 1))
    auc, p = shortcut_tests.measure_discrimination(LABEL[:, None] + 0.01 * noise, CalledOutcome(LABEL), PATIENT, seed=0)
    assert auc.value == 1 and p < 1e-3
    auc, p = shortcut_tests.measure_discrimination(noise, CalledOutcome(LABEL), PATIENT, seed=0)
    assert 0.3 < auc.value < 0.7 and p > 0.01


def test_a_number_that_only_names_the_patient_tells_nothing_of_other_patients():
    """Ten images each: by image it would be told from the patient's other images."""
    patient, label = np.repeat(np.arange(20), 10), np.repeat(np.arange(20) % 2, 10)
    own = np.random.default_rng(1).normal(size=(20, 8))[patient]
    auc, p = shortcut_tests.measure_discrimination(own, CalledOutcome(label), patient, seed=0)
    assert auc.value < 0.75 and p > 0.01


def test_what_is_the_same_for_all_is_not_tried():
    auc, p = shortcut_tests.measure_discrimination(np.ones((80, 2)), CalledOutcome(LABEL), PATIENT, seed=0)
    assert (auc.value, p) == (0.5, pytest.approx(1.0)) and "none" in auc.method


def test_where_every_patient_has_the_same_classes_nothing_is_known_of_chance_and_no_number_warns():
    """The first image of each patient is of one class: no shuffle of patients holds the other."""
    patient, label = np.repeat(np.arange(20), 2), np.tile([0, 1], 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auc, p = shortcut_tests.measure_discrimination(label[:, None] + 0.0, CalledOutcome(label), patient, seed=0)
    assert auc.value == 1
    assert p == 1


def test_numbers_that_are_the_value_or_the_time_tell_it_and_noise_does_not():
    rng = np.random.default_rng(2)
    noise, values = rng.normal(size=(80, 1)), rng.normal(size=80)
    times, happened = np.exp(values), rng.random(80) < 0.7
    for outcome in (OrderedOutcome(rankdata(values), np.ones(80, dtype=bool)), OrderedOutcome(times, happened)):
        reached, p = shortcut_tests.measure_discrimination(values[:, None], outcome, PATIENT, seed=0)
        assert reached.value > 0.95 and p < 1e-3
        reached, p = shortcut_tests.measure_discrimination(noise, outcome, PATIENT, seed=0)
        assert 0.3 < reached.value < 0.7 and p > 0.01


def test_log_rank_scores_are_as_worked_out_by_hand():
    """Of times 1, 2 (censored), 3: the hazards are 1/3 and 1, so that the scores are 2/3, -1/3, -1/3."""
    outcome = OrderedOutcome(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]))
    assert_allclose(outcome.truth(np.arange(3))[:, 0], [2 / 3, -1 / 3, -1 / 3])
    assert_allclose(outcome.truth(np.array([2, 1, 0]))[:, 0], [-1 / 3, -1 / 3, 2 / 3])


@settings(max_examples=25)
@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_shuffles_that_are_judged_together_are_judged_as_each_alone(classes, seed):
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(classes), rng.integers(classes, size=20)])
    orders = np.stack([rng.permutation(len(label)) for _ in range(3)])
    scores = rng.normal(size=(3, len(label), classes)).round(1)  # with ties
    for outcome in (CalledOutcome(label), OrderedOutcome(1.0 + label, label > 0)):
        each = [outcome.score_order(*one) for one in zip(scores, orders, strict=True)]
        assert_allclose(outcome.each_reached(scores, orders), each)


def test_of_many_classes_not_all_shuffles_are_predicted_at_once_and_the_result_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    outcome, values = CalledOutcome(np.arange(200) % 10), rng.normal(size=(200, 3)) + np.arange(200)[:, None] % 10 / 4
    whole = shortcut_tests.measure_discrimination(values, outcome, np.arange(200), seed=0)
    monkeypatch.setattr("hilum.quality.shortcut_tests.AT_ONCE", 7 * 200 * 10)
    parted = shortcut_tests.measure_discrimination(values, outcome, np.arange(200), seed=0)
    assert_allclose(
        [parted[0].value, parted[0].low, parted[0].high, parted[1]],
        [whole[0].value, whole[0].low, whole[0].high, whole[1]],
        rtol=1e-6,
    )
