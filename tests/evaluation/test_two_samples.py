"""Cases of one source are rarely called different and those of another are: random numbers, and radiographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import energy_distance, kstest

from hilum.evaluation.fairness import shift_tests


@pytest.mark.whole
def test_p_values_of_two_groups_of_one_source_are_uniform():
    random = np.random.default_rng(0)
    p_values = [
        shift_tests.energy_test(random.gamma(1.0, size=(30, 3)), random.gamma(1.0, size=(50, 3)), seed=n, draws=99)
        for n in range(400)
    ]
    assert kstest(np.array(p_values) - random.uniform(0, 0.01, 400), "uniform").pvalue > 0.001
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.035)


def test_of_each_patient_one_image_is_taken_and_not_always_the_first():
    patients = np.repeat([f"p{n:02}" for n in range(40)], 3)
    places = shift_tests.one_case_each(patients)
    assert patients[places].tolist() == [f"p{n:02}" for n in range(40)]
    assert set((places % 3).tolist()) == {0, 1, 2}
    assert shift_tests.one_case_each([]).tolist() == []


@pytest.mark.parametrize("change", ["mean", "spread", "shape"])
def test_groups_of_two_sources_are_told_apart_by_mean_spread_and_shape(change):
    random = np.random.default_rng(1)
    first, second = random.normal(size=(200, 4)), random.normal(size=(300, 4))
    second = {"mean": second + 0.4, "spread": 1.5 * second, "shape": np.sign(second)}[change]
    assert shift_tests.energy_test(first, second, seed=0) < 0.01
    assert shift_tests.energy_test(first, random.normal(size=(300, 4)), seed=0) > 0.01


def test_more_rows_than_are_compared_are_sampled():
    random = np.random.default_rng(2)
    assert shift_tests.energy_test(random.normal(size=(2000, 2)), random.normal(size=(700, 2)) + 1, seed=0) < 0.01


def test_the_distance_is_the_published_one():
    """With one number a row: the p-value counts what SciPy's distance of dealt groups says."""
    random = np.random.default_rng(3)
    rows = random.normal(size=(14, 1)) + np.repeat([0.0, 0.9], 7)[:, None]
    own = energy_distance(rows[:7, 0], rows[7:, 0])
    dealt = [random.permutation(14) for _ in range(2000)]
    by_scipy = np.mean([energy_distance(rows[one[:7], 0], rows[one[7:], 0]) >= own - 1e-9 for one in dealt])
    assert shift_tests.energy_test(rows[:7], rows[7:], seed=0, draws=1999) == pytest.approx(by_scipy, abs=0.04)


@pytest.mark.whole
def test_the_published_test_part_of_radiographs_is_of_another_source_and_a_split_of_one_source_is_not(corpus: Path):
    """By principal axes of the pixels alone, without a network; the published test part comes from elsewhere."""
    with np.load(corpus / "medmnist" / "pneumoniamnist.npz") as published:
        parts = {name: published[f"{name}_images"].reshape(-1, 784) / 255 for name in ("train", "val", "test")}
    assert shift_tests.energy_test(parts["val"], parts["test"], seed=0) < 0.01
    assert shift_tests.energy_test(parts["val"], parts["train"], seed=0) > 0.01
    halves = [np.random.default_rng(n).permutation(len(parts["test"])) for n in range(10)]
    found = [
        shift_tests.energy_test(parts["test"][one[:312]], parts["test"][one[312:]], seed=0) < 0.01 for one in halves
    ]
    assert sum(found) <= 1
