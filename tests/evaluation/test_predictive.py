from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import precision_score

from hilum.evaluation import classification, intervals


def cases(sensitivity: float, specificity: float, positives: int = 50, negatives: int = 50):
    """Calls with exactly these shares."""
    truth = np.repeat([True, False], [positives, negatives])
    called = np.zeros_like(truth)
    called[: round(sensitivity * positives)] = True
    called[positives : positives + round((1 - specificity) * negatives)] = True
    return called, truth, np.arange(len(truth)).astype(str)


def test_of_the_cases_themselves_they_are_the_precisions_of_the_two_calls():
    called, truth, patients = cases(0.8, 0.9, 30, 70)
    ppv, npv = classification.predictive_values(called, truth, patients, prevalence=None, seed=0)
    assert ppv.value == pytest.approx(precision_score(truth, called))
    assert npv.value == pytest.approx(precision_score(~truth, ~called))
    assert (ppv.n, npv.n) == (31, 69)
    assert "prevalence of 0.3, that of these cases" in ppv.method


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 99))
def test_stated_at_the_cases_own_prevalence_they_are_those_of_the_cases(positives):
    called, truth, patients = cases(0.8, 0.9, positives, 100 - positives)
    own = classification.predictive_values(called, truth, patients, prevalence=None, seed=0)
    stated = classification.predictive_values(called, truth, patients, prevalence=positives / 100, seed=0)
    for mine, theirs in zip(own, stated, strict=True):
        assert theirs.value == pytest.approx(mine.value)


def test_at_a_rare_disease_the_positive_call_is_worth_little_and_the_negative_much():
    ppv, npv = classification.predictive_values(*cases(0.9, 0.9), prevalence=0.01, seed=0)
    assert ppv.value == pytest.approx(0.009 / (0.009 + 0.099))
    assert npv.value == pytest.approx(0.891 / (0.891 + 0.001))
    assert ppv.low < ppv.value < ppv.high
    assert "at a stated prevalence of 0.01" in ppv.method
    assert "at a stated prevalence of 0.01" in npv.method


def test_where_no_call_is_wrong_the_exact_bound_of_the_wrong_calls_is_the_bound():
    ppv, _ = classification.predictive_values(*cases(0.8, 1.0), prevalence=0.1, seed=0)
    least = stats.beta.ppf(0.025, 50, 1)
    assert (ppv.value, ppv.high) == (1.0, 1.0)
    assert ppv.low == pytest.approx(0.08 / (0.08 + (1 - least) * 0.9))
    own, _ = classification.predictive_values(*cases(0.8, 1.0), prevalence=None, seed=0)
    assert own.low == pytest.approx(intervals.clopper_pearson(40, 40).low)


def test_where_nobody_is_called_there_is_nothing_to_say():
    ppv, npv = classification.predictive_values(*cases(0.0, 1.0), prevalence=None, seed=0)
    assert np.isnan(ppv.value)
    assert npv.value == pytest.approx(0.5)
    stated, _ = classification.predictive_values(*cases(0.0, 1.0), prevalence=0.2, seed=0)
    assert np.isnan(stated.value)
