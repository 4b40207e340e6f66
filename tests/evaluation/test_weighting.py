"""Truths and probabilities that a caller gives: what is neither is refused, and not counted as true."""

import numpy as np
import pandas as pd
import pytest

from hilum.errors import UsageError
from hilum.evaluation import classification, intervals, survival
from hilum.evaluation.significance import auroc_tests, paired_tests, probability_tests

SCORES, OTHERS, PATIENTS = [0.1, 0.4, 0.35, 0.8], [0.2, 0.3, 0.6, 0.7], ["a", "b", "c", "d"]
TAKING_TRUTHS = {
    "auroc": lambda truths: classification.auroc(SCORES, truths),
    "average precision": lambda truths: classification.average_precision(SCORES, truths),
    "roc curve": lambda truths: classification.roc_curve(SCORES, truths),
    "ece": lambda truths: classification.ece(SCORES, truths),
    "delong": lambda truths: auroc_tests.delong(SCORES, OTHERS, truths),
    "permutation": lambda truths: paired_tests.permutation_test(SCORES, OTHERS, truths),
    "mrmc": lambda truths: auroc_tests.mrmc([[SCORES, OTHERS], [OTHERS, SCORES]], truths),
    "net benefit": lambda truths: probability_tests.net_benefit(SCORES, truths, [0.3]),
    "hosmer and lemeshow": lambda truths: probability_tests.hosmer_lemeshow(SCORES, truths),
    "kaplan and meier": lambda truths: survival.kaplan_meier([1, 2, 3, 4], truths),
    "groups of logrank": lambda truths: survival.logrank_test([1, 2, 3, 4], [1, 1, 0, 1], truths),
    "proportion": lambda truths: intervals.proportion(truths, PATIENTS, seed=0),
    "predictive values": lambda truths: classification.predictive_values(
        [1, 0, 1, 0], truths, PATIENTS, prevalence=None, seed=0
    ),
}
NOT_TRUTHS = {
    "a gap": [0, np.nan, 1, 1],
    "classes numbered from 1": [1, 2, 1, 2],
    "names of classes": ["no", "yes", "no", "yes"],
    "probabilities": [0.1, 0.9, 0.2, 0.8],
}


@pytest.mark.parametrize("truths", NOT_TRUTHS.values(), ids=NOT_TRUTHS)
@pytest.mark.parametrize("figure", TAKING_TRUTHS.values(), ids=TAKING_TRUTHS)
def test_what_is_neither_true_nor_false_is_refused_and_not_counted_as_true(figure, truths):
    with pytest.raises(UsageError, match="neither 0 nor 1"):
        figure(truths)


@pytest.mark.parametrize("figure", TAKING_TRUTHS.values(), ids=TAKING_TRUTHS)
def test_truths_are_booleans_or_0_and_1_in_any_container(figure):
    wanted = repr(figure(np.array([False, True, False, True])))
    for given in ([0, 1, 0, 1], [0.0, 1.0, 0.0, 1.0], pd.Series([0, 1, 0, 1], index=[9, 8, 7, 6])):
        assert repr(figure(given)) == wanted
    assert repr(figure(pd.Series([False, True, False, True], dtype="boolean"))) == wanted


@pytest.mark.parametrize("chance", [-0.2, 1.2, np.nan])
def test_what_is_no_probability_has_no_calibration(chance):
    for figure in (classification.ece, classification.reliability_bins):
        with pytest.raises(UsageError, match=r"probabilities.*outside 0..1, or NaN"):
            figure([0.1, chance], [0, 1])
    assert classification.ece(np.float32([1 + 1e-7, 0.0]), [1, 0]) == pytest.approx(
        0, abs=1e-6
    )  # the rounding of 32 bits


def test_arguments_of_unlike_length_are_named():
    with pytest.raises(UsageError, match=r"2,.* probabilities for .3,.* truths in `happened`"):
        classification.ece([0.1, 0.2], [0, 1, 1])
    with pytest.raises(UsageError, match="2 calls, 3 truths in `positive` and 3 patients"):
        classification.predictive_values([1, 0], [0, 1, 1], ["a", "b", "c"], prevalence=None, seed=0)


def test_a_prevalence_in_per_cent_is_refused():
    with pytest.raises(UsageError, match="prevalence: 10 is not a share of people"):
        classification.predictive_values([1, 0, 1], [0, 1, 1], ["a", "b", "c"], prevalence=10, seed=0)
