from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from hilum.evaluation.fairness import group_gaps, shift_tests
from hilum.evaluation.fairness.shift_tests import GroupedPatients, ShiftTest


def test_alike_groups_are_seldom_called_different_and_unlike_ones_are_found():
    random = np.random.default_rng(0)
    alarms = {"mmd": 0, "energy": 0, "classifier": 0}
    for seed in range(60):
        found = shift_tests.two_sample_tests(
            random.normal(size=(30, 4)), random.normal(size=(40, 4)), seed=seed, draws=99
        )
        alarms = {name: n + (found[name].p <= 0.05) for name, n in alarms.items()}
    assert max(alarms.values()) <= 9  # 3 expected; chance makes more once in 1000
    found = shift_tests.two_sample_tests(random.normal(size=(60, 4)), random.normal(1.0, size=(60, 4)), seed=0)
    assert all(one.p <= 0.001 for one in found.values())
    assert found["classifier"].value > 0.8


def test_the_discrepancy_is_that_of_the_kernel():
    random = np.random.default_rng(1)
    first, second = random.normal(size=(40, 2)), random.normal(0.5, size=(50, 2))
    rows = np.concatenate([first, second])
    axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[0] * np.sqrt(90)
    apart = np.linalg.norm(axes[:, None] - axes, axis=2)
    kernel = np.exp(-((apart / np.median(apart[np.triu_indices(90, 1)])) ** 2) / 2)
    expected = kernel[:40, :40].mean() + kernel[40:, 40:].mean() - 2 * kernel[:40, 40:].mean()
    assert_allclose(shift_tests.two_sample_tests(first, second, seed=0, draws=9)["mmd"].value, expected)


def test_a_propensity_is_that_of_a_logistic_regression():
    random = np.random.default_rng(2)
    age, sex = random.normal(60, 10, 200), (random.random(200) < 0.5).astype(float)
    treated = random.random(200) < 1 / (1 + np.exp(-(age - 60) / 10 - sex))
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.stack([age, sex], 1), treated)
    assert_allclose(
        shift_tests.propensity_scores(treated, [age, sex]),
        theirs.predict_proba(np.stack([age, sex], 1))[:, 1],
        atol=1e-4,
    )


def test_pairs_are_the_nearest_that_are_left_the_likeliest_first():
    chance = np.array([0.9, 0.6, 0.85, 0.58, 0.1])
    treated = np.array([True, True, False, False, False])
    ours, theirs = shift_tests.match_pairs(treated, chance, caliper=None)
    assert list(zip(ours, theirs, strict=True)) == [(0, 2), (1, 3)]
    ours, _ = shift_tests.match_pairs(treated, np.array([0.9, 0.6, 0.1, 0.58, 0.1]), caliper=0.2)
    assert list(ours) == [1]  # nobody is near the first


def test_gaps_and_categories_become_columns():
    made = shift_tests.encode_covariates({"age": ["050Y", None, 70], "sex": ["F", "M", ""]})
    assert list(made) == ["age", "age is missing", "sex=f", "sex=m", "sex is missing"]
    assert_allclose(made["age"], [50, 60, 70])


def patients(scanner: float, population: float, count: int = 240) -> GroupedPatients:
    """Of two sites: images that go by age, and by the scanner of a site; and older people in one of them."""
    random = np.random.default_rng(3)
    site = np.arange(count) % 2
    age = random.normal(60 + 8 * population * site, 10)
    rows = np.stack([age / 10 + random.normal(size=count), scanner * site + random.normal(size=count)], axis=1)
    return GroupedPatients.from_cases(
        rows, np.array(["north", "south"])[site], [f"p{n}" for n in range(count)], {"age": age}
    )


def least(found, is_matched):
    return min(one.p_adjusted for one in found if one.matched is is_matched)


def test_another_population_is_no_longer_another_after_matching():
    found, balance = shift_tests.compare_groups("site", patients(scanner=0, population=1), seed=0)
    assert least(found, False) < 0.05 < least(found, True)
    [age] = balance
    assert abs(age.before) > 0.5
    assert abs(age.after) < 0.15


def test_another_scanner_stays_another_after_matching():
    found, _ = shift_tests.compare_groups("site", patients(scanner=1.5, population=1), seed=0)
    assert least(found, False) < 0.05
    assert least(found, True) < 0.05


REASON = "the acquisition differs, or the patients in something else"


def shifted(first: str, p: float, matched_p: float | None = None, pairs: int = 60) -> list[ShiftTest]:
    """Those of a group and the others, and of so many pairs."""
    given = {"attribute": "site", "first": first, "second": "the others", "test": "mmd", "value": 0.1, "p": p}
    all_of_them = ShiftTest(**given, matched=False, p_adjusted=p, patients_first=90, patients_second=180)
    if matched_p is None:
        return [all_of_them]
    given |= {"matched": True, "p_adjusted": matched_p}
    return [all_of_them, ShiftTest(**given, patients_first=pairs, patients_second=pairs)]


def test_a_difference_that_few_pairs_do_not_show_has_no_reason_yet():
    words = shift_tests.shift_words("site", shifted("north", 0.001, 0.4, pairs=10), ["age"])
    assert "site: north and the others look different (adjusted p 0.001), not shown in 10 pairs of patients" in words
    assert "patients differ" not in words


def test_each_group_is_judged_by_its_own_pairs():
    """The matched test of north, which looks like the others, says nothing of south, which has no pairs."""
    tests = [*shifted("north", 0.2, 0.01), *shifted("south", 0.001), *shifted("west", 0.01, 0.02)]
    south, west, north = shift_tests.shift_words("site", tests, ["age"]).removesuffix(".").split(". ")
    assert south.startswith(
        "site: south and the others look different (adjusted p 0.001); there are fewer than 10 pairs"
    )
    shown = "also shown in 60 pairs of patients alike in age (adjusted p 0.02)"
    assert west == f"site: west and the others look different (adjusted p 0.01), {shown}: {REASON}"
    assert north == "site: no difference shown: north and the others (adjusted p 0.2)"


def test_without_covariates_nobody_is_matched_and_without_tests_nothing_is_compared():
    assert "no covariate to match" in shift_tests.shift_words("site", shifted("north", 0.001), [])
    assert "too few patients" in shift_tests.shift_words("site", [], ["age"])


@pytest.mark.parametrize(("unfair", "found"), [(0.0, False), (0.4, True)])
def test_people_who_look_alike_and_are_answered_by_their_group_are_found(unfair, found):
    random = np.random.default_rng(4)
    rows, women = random.normal(size=(120, 2)), np.arange(120) % 2 == 0
    answers = (1 / (1 + np.exp(-rows[:, :1])) + unfair * women[:, None]) / (1 + unfair)
    people = np.array([f"p{n}" for n in range(120)], dtype=object)
    alike = group_gaps.neighbour_gap("sex", rows, answers, np.where(women, "F", "M").astype(object), people, seed=0)
    assert (alike.p < 0.05) is found
    assert (alike.difference > 0.15) is found


@pytest.mark.parametrize("women", [20, 75])
def test_the_nearest_of_a_group_are_those_found_by_looking_at_every_pair(women):
    random = np.random.default_rng(women)
    rows, answers = random.normal(size=(150, 2)), random.random((150, 1))
    group = np.where(np.arange(150) < women, "F", "M").astype(object)
    person = np.array([f"p{n // 2}" for n in range(150)], dtype=object)
    apart = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    nearest: dict[bool, list[float]] = {True: [], False: []}
    for n, m in ((n, m) for n in range(150) for m in (True, False)):
        others = np.flatnonzero((person != person[n]) & ((group == group[n]) == m))
        closest = others[((apart[others] - apart[n]) ** 2).sum(axis=1).argmin()]
        nearest[m].append(abs(answers[n, 0] - answers[closest, 0]))
    alike = group_gaps.neighbour_gap("sex", rows, answers, group, person, seed=0)
    assert alike.own == pytest.approx(np.mean(nearest[True]))
    assert alike.others == pytest.approx(np.mean(nearest[False]))


def test_neighbours_are_those_that_the_same_network_sees():
    random = np.random.default_rng(0)
    looks, fold = random.normal(size=(240, 2)), np.arange(240) % 2
    women = random.random(240) < np.where(fold == 1, 0.8, 0.2)
    rows, answers = looks * np.where(fold == 1, -1, 1)[:, None], 1 / (1 + np.exp(-3 * looks[:, :1]))
    people = np.array([f"p{n}" for n in range(240)], dtype=object)
    given = ("sex", rows, answers, np.where(women, "F", "M").astype(object), people)
    mixed, parted = group_gaps.neighbour_gap(*given, seed=0), group_gaps.neighbour_gap(*given, seed=0, eyes=fold)
    assert mixed.p < 0.05 < parted.p
    assert mixed.difference > 0.1
    assert parted.difference < 0.05


def test_of_too_few_people_nothing_is_said_of_neighbours():
    few = np.array(["F"] * 9 + ["M"] * 20, dtype=object)
    assert (
        group_gaps.neighbour_gap("sex", np.eye(29), np.zeros((29, 1)), few, np.arange(29).astype(object), seed=0)
        is None
    )


def test_groups_with_few_patients_are_not_tested():
    assert shift_tests.compare_groups("site", patients(1, 0, count=18), seed=0) == ([], [])
