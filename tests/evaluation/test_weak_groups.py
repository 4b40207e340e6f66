from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from hilum.evaluation.significance import weakness


def audit(errors, patients, seed=0, **attributes):
    return {(one.attribute, one.group): one for one in weakness.weak_groups(errors, patients, attributes, seed=seed)}


def people(count: int, each: int = 1) -> list[str]:
    return [f"p{n // each}" for n in range(count * each)]


def test_a_planted_group_is_found_with_its_size_its_errors_and_an_interval_that_holds_the_truth():
    rng = np.random.default_rng(0)
    site = rng.choice(["A", "B", "C"], 300)
    errors = (rng.random(300) < np.where(site == "B", 0.5, 0.1)).astype(float)
    found = audit(errors, people(300), site=site, sex=rng.choice(["F", "M"], 300))
    weak = found["site", "B"]
    assert weak.is_found
    assert weak.n == weak.patients == int((site == "B").sum())
    assert weak.error == errors[site == "B"].mean()
    assert weak.elsewhere == errors[site != "B"].mean()
    assert weak.low < 0.4 < weak.high
    assert [key for key, one in found.items() if one.is_found] == [("site", "B")]
    assert next(iter(found)) == ("site", "B")


@pytest.mark.whole
def test_where_nothing_depends_on_a_group_p_is_as_often_below_a_level_as_that_says():
    rng = np.random.default_rng(1)
    below = 0
    for seed in range(200):
        errors = np.repeat(rng.random(40) ** 3, 3) + rng.normal(0, 0.05, 120)
        group = np.repeat(rng.choice(["A", "B"], 40), 3)
        below += audit(errors, people(40, 3), seed, group=group)["group", "A"].p < 0.05
    assert 3 <= below <= 18


def test_many_cases_of_few_patients_prove_nothing():
    """All errors are one patient's, of whom there are a hundred images."""
    errors = np.r_[np.ones(100), np.zeros(19)]
    patients = ["ill"] * 100 + [f"p{n}" for n in range(19)]
    group = ["A"] * 109 + ["B"] * 10
    assert not audit(errors, patients, group=group)["group", "A"].is_found


def test_a_group_of_few_patients_is_shown_and_not_judged():
    found = audit([1.0] * 5 + [0.0] * 45, people(50), site=["A"] * 5 + ["B"] * 45)
    assert found["site", "A"].judged == "too few to judge"
    assert found["site", "A"].error == 1
    assert np.isnan(found["site", "A"].p_adjusted)


def test_few_values_are_groups_and_many_numbers_are_cut_into_thirds_and_nothing_else_is_a_group():
    assert {name: part.sum() for name, part in weakness.groups_of_values(["F", "M", None, "F"]).items()} == {
        "F": 2,
        "M": 1,
    }
    assert [part.sum() for part in weakness.groups_of_values(np.arange(30.0)).values()] == [10, 10, 10]
    assert list(weakness.groups_of_values(np.arange(30.0))) == ["up to 9.667", "9.667 to 19.33", "above 19.33"]
    assert weakness.groups_of_values([f"name {n}" for n in range(30)]) == {}
    assert weakness.groups_of_values(["same"] * 9) == {}


def test_clusters_of_features_are_the_clouds_that_were_planted_and_need_enough_patients():
    rng = np.random.default_rng(2)
    cloud = rng.integers(2, size=60)
    features = rng.normal(size=(60, 12)) + 8 * cloud[:, None]
    made = weakness.cluster_cases(features, people(60), seed=0)
    assert len({(name, n) for name, n in zip(made, cloud.tolist(), strict=True)}) == 2
    assert weakness.cluster_cases(features[:40], people(40), seed=0) == [None] * 40
    assert weakness.cluster_cases(np.ones((60, 3)), people(60), seed=0) == [None] * 60


def test_of_two_groups_the_statistic_is_welchs_t_but_for_skewness():
    rng = np.random.default_rng(3)
    inside = np.arange(60) < 18
    errors = rng.normal(size=60) * np.where(inside, 3.0, 1.0)
    # Residuals that are symmetrical within either group have none.
    errors[1::2] = -errors[::2]
    errors += 0.4 * inside
    t = ttest_ind(errors[inside], errors[~inside], equal_var=False).statistic
    shares, errors = np.stack([inside, ~inside]) - [[18 / 60], [42 / 60]], errors - errors.mean()
    np.testing.assert_allclose(weakness._rises(shares, errors[None])[:, 0], [t, -t])


def test_p_of_very_many_patients_comes_from_permutations_too():
    rng = np.random.default_rng(4)
    errors, site = (rng.random(6_000) < 0.1).astype(float), np.arange(6_000) % 300 == 0
    errors[site] = 0.0  # 20 without an error: no proof that all others fail more
    found = audit(errors, people(6_000), site=site.astype(str))
    assert found["site", "False"].p == pytest.approx(0.9**20, rel=0.3)
    assert found["site", "True"].p > 0.8


def test_p_values_of_identical_errors_are_one():
    assert audit([0.3] * 60, people(60), site=["A", "B"] * 30)["site", "A"].p == 1
