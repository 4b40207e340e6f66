from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import stats

from hilum.evaluation import classification, intervals


def simulated(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 1
    return rng.normal(truth * 1.5, 1), truth, np.arange(count).astype(str)


def test_the_band_holds_the_curve_and_narrows_with_more_patients():
    widths = []
    for count in (60, 600):
        scores, truth, patients = simulated(count)
        across, low, high = classification.roc_band(scores, truth, patients, seed=0)
        wrong, right, _ = classification.roc_curve(scores, truth)
        curve = np.interp(across, wrong, right)
        inside = (low - 1e-9 <= curve) & (curve <= high + 1e-9)
        assert inside[5:-5].mean() > 0.95
        widths.append(float((high - low)[5:-5].mean()))
    assert widths[1] < widths[0] / 1.7


@pytest.mark.whole
def test_the_true_sensitivity_lies_in_the_band_about_as_often_as_it_says():
    at, hits = 20, []
    true = stats.norm.cdf(1.5 + stats.norm.ppf(0.2))  # of two normal distributions 1.5 apart, at 1 - specificity 0.2
    for seed in range(60):
        across, low, high = classification.roc_band(*simulated(120, seed), seed=0, draws=200)
        assert across[at] == pytest.approx(0.2)
        hits.append(low[at] <= true <= high[at])
    assert 0.85 <= np.mean(hits) <= 1.0


def test_with_several_images_a_patient_the_band_is_wider():
    scores, truth, patients = simulated(200)
    single = classification.roc_band(scores, truth, patients, seed=0)
    thrice = classification.roc_band(np.tile(scores, 3), np.tile(truth, 3), np.tile(patients, 3), seed=0)
    falsely = classification.roc_band(np.tile(scores, 3), np.tile(truth, 3), np.arange(600).astype(str), seed=0)
    assert_array_equal(single[1], thrice[1])
    assert (falsely[2] - falsely[1]).mean() < 0.8 * (thrice[2] - thrice[1]).mean()


def test_a_class_with_fewer_than_ten_patients_has_no_band():
    scores, truth, patients = simulated(18)
    assert classification.roc_band(scores, truth, patients, seed=0) is None


def test_patients_are_resampled_whole_and_within_their_class():
    patients = np.repeat(np.arange(12), 2)
    classes = patients < 4
    for weights in intervals.patient_weights(patients, strata=classes, seed=0, draws=50):
        assert_array_equal(weights[:, ::2], weights[:, 1::2])
        assert set(weights[:, classes].sum(axis=1)) == {8}
        assert set(weights.sum(axis=1)) == {24}
